"""Memory and open files of a long life: thousands of fillings in one process, or a training beside other work.

    python benchmarks/soak.py fillings [--count 10000] [--out soak.json]      16-pixel weights, made here python
    benchmarks/soak.py training [--minutes 60] [--out soak.json]       16-pixel scenes python benchmarks/soak.py large
    [--out soak.json]       12, 25 and 100 megapixels, the default hole, enlarged; the first also at its own size

The first two sample the resident memory and the number of open files at twenty points (Linux: /proc), print them, and
fit a line through the second half: bytes per filling, or per minute. The third prints the largest memory of a process
that fills one picture."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from my3yearold.captions import Vocabulary
from my3yearold.inpaint import Inpainter
from my3yearold.model import OrderlessNADE


def sample(at):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return dict(at=at, megabytes=pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files=len(os.listdir("/proc/self/fd")))


def show(found, unit):
    for row in found: print(f"{row['at']:8.1f} {unit}: {row['megabytes']:8.1f} MB, {row['files']} open files")
    half = found[len(found) // 2:]
    slope = np.polyfit([row["at"] for row in half], [row["megabytes"] * 2**20 for row in half], 1)[0]
    print(
        f"second half: {slope:.0f} bytes per {unit}, open files {min(r['files'] for r in half)} to "
        f"{max(r['files'] for r in half)}"
    )
    return float(slope)


def fillings(count):
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a red cat ."]] * 5)
    pipe = Inpainter(
        OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8), vocabulary
    )
    rng, found = np.random.default_rng(0), []
    for i in range(count):
        height, width = rng.integers(8, 40, 2)
        pixels, hole = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), rng.random((height, width)) < 0.3
        hole[0, 0] = True
        pipe(pixels, hole, "a red cat", num_inference_steps=4, generator=torch.Generator().manual_seed(i)).frames
        if i % (count // 20) == 0: found.append(sample(float(i)))
    return found, "filling"


def training(minutes):
    from my3yearold.training import TrainConfig, train
    found, done, begun = [], threading.Event(), time.monotonic()
    def watch():
        while not done.wait(minutes * 60 / 20): found.append(sample((time.monotonic() - begun) / 60))
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(
                TrainConfig(
                    run=f"{folder}/run",
                    size=16,
                    num_scenes=500,
                    widths=(8, 16),
                    blocks=(1, 1),
                    max_minutes=minutes,
                    max_steps=10**9,
                    validate_every=500,
                    num_valid=32,
                    device="cpu",
                )
            )
    finally:
        done.set()
        watcher.join()
    return found, "minute"


ONE = """import resource, sys, time, torch
from PIL import Image
from my3yearold.inpaint import Inpainter
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
width, height, strategy = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
pipe = Inpainter.from_pretrained("photos")
pipe(Image.new("RGB", (64, 64)), num_inference_steps=2)
picture = Image.effect_noise((width, height), 50).convert("RGB")
before, begun = peak(), time.time()
pipe(picture, num_inference_steps=2, strategy=strategy)
print(before, peak(), time.time() - begun)"""


def large():
    found = []
    for width, height, strategy in (
        (4000, 3000, "coarse-to-fine"),
        (4000, 3000, "spread"),
        (6000, 4200, "spread"),
        (12000, 8300, "spread"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", ONE, str(width), str(height), strategy], capture_output=True, text=True, check=True
        )
        before, peak, seconds = map(float, done.stdout.split())
        found.append(
            dict(
                megapixels=width * height / 1e6,
                picture=width * height * 3 / 2**20,
                strategy=strategy,
                before=before,
                peak=peak,
                seconds=seconds,
            )
        )
        print(
            f"{width}x{height}, {strategy}: picture {found[-1]['picture']:.0f} MB, process {before:.0f} MB before, "
            f"{peak:.0f} MB at most, {seconds:.0f} s"
        )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fillings", "training", "large"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", help="JSON file")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    facts = dict(command=" ".join(sys.argv), torch=torch.__version__)
    if args.what == "large": facts["samples"] = large()
    else:
        facts["samples"], unit = fillings(args.count) if args.what == "fillings" else training(args.minutes)
        facts[f"bytes_per_{unit}"] = show(facts["samples"], unit)
    if args.out: Path(args.out).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__": main()
