"""One filling by the command line, alone and beside busy processes, with its own spin count for OpenMP and without.

    python benchmarks/neighbours.py [--repeats 5] [--busy 2] [--out neighbours.json]

The rows take turns, so that a drift of the machine hits all alike; the median of the whole process's seconds is
printed. Without the setting means libgomp's own default, 300,000 turns of a waiting loop; the program sets 10,000
unless the user has chosen.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = "import sys; from my3yearold.cli import main; sys.exit(main())"
SETTINGS = {"the program's own": {}, "libgomp's default": {"GOMP_SPINCOUNT": "300000"}}


def environment(setting):
    ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    return {k: v for k, v in os.environ.items() if k not in ours} | setting


def seconds(setting, folder, steps, samples):
    arguments = ["inpaint", folder / "picture.png", "--steps", steps, "--samples", samples, "--out", folder / "filled"]
    begun = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    subprocess.run(command, env=environment(setting), check=True, capture_output=True)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", type=int, default=2, help="processes that want a core each")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", help="JSON file")
    args = parser.parse_args()
    found = {(name, busy): [] for busy in (0, args.busy) for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows, columns = np.mgrid[:300, :400]
        picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
        Image.fromarray(picture).save(folder / "picture.png")
        for busy in (0, args.busy):
            neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for _ in range(args.repeats):
                    for name, setting in SETTINGS.items():
                        found[name, busy].append(seconds(setting, folder, args.steps, args.samples))
            finally:
                for process in neighbours: process.kill()
    rows = [dict(setting=name, busy=busy, median=statistics.median(s), least=min(s), most=max(s))
            for (name, busy), s in found.items()]
    for row in rows:
        print(f"{row['setting']:20s} beside {row['busy']} busy processes: {row['median']:6.2f} s "
              f"({row['least']:.2f} to {row['most']:.2f})")
    if args.out:
        facts = dict(command=" ".join(sys.argv), cores=os.cpu_count(), machine=platform.machine(),
                     repeats=args.repeats, rows=rows)
        Path(args.out).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__": main()
