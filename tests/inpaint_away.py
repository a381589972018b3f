"""Fills a hole with each set of weights the installed package brings, as a user's script would. Run it away from the
checkout.

Prints where the package was imported from; fails if a known pixel changes, or if more than the bare dependencies is
needed. """
import sys

for extra in ("matplotlib", "skimage", "tensorboard", "IPython", "ipywidgets", "nbdev", "fastcore"):
    sys.modules[extra] = None  # importing one now fails

from importlib import resources

import numpy as np
from PIL import Image
import my3yearold
from my3yearold.inpaint import Inpainter

rows, columns = np.mgrid[:64, :64].astype(np.uint8)
picture = np.stack([2 * rows, 3 * columns, rows + columns], axis=-1)
hole = np.zeros((64, 64), dtype=bool)
hole[20:40, 24:48] = True

weights = sorted(
    folder.name for folder in resources.files("my3yearold").joinpath("weights").iterdir() if folder.is_dir()
)
if not weights: sys.exit("the installed package brings no weights")
for name in weights:
    pipe = Inpainter.from_pretrained(name)
    result = pipe(
        Image.fromarray(picture), Image.fromarray(hole), "a red circle on a white background", num_inference_steps=4
    )
    filled = np.asarray(result.images[0])
    assert filled.shape == picture.shape, f"{name}: the picture comes back as {filled.shape}"
    assert (filled[~hole] == picture[~hole]).all(), f"{name}: a known pixel has changed"
    assert (filled[hole] != picture[hole]).any(), f"{name}: the hole is as it was"
    print(f"{name}: filled by {my3yearold.__file__}")
