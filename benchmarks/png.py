"""PNG at zlib's levels 1 and 6 (Pillow's default), on a photograph enlarged to 12 megapixels, without and with grain.

    python benchmarks/png.py

Prints the time of level 1 over that of level 6, and its bytes over theirs."""
import io
import time

import numpy as np
import skimage.data
from PIL import Image


def written(picture, level): # -> CPU seconds, bytes
    file, start = io.BytesIO(), time.process_time()
    picture.save(file, "png", compress_level=level)
    return time.process_time() - start, len(file.getvalue())


smooth = Image.fromarray(skimage.data.rocket()).resize((4000, 3000), Image.Resampling.BICUBIC)
grain = np.random.default_rng(0).normal(0, 3, (3000, 4000, 3)).round()
for name, picture in (("smooth", smooth), ("grain", Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)))):
    (quick, more), (slow, less) = (written(picture, level) for level in (1, 6))
    print(f"{name:7} time {quick / slow:.2f}, bytes {more / less:.2f}")
