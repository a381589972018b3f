"""What each trunk costs: milliseconds a picture of 64x64, no gradients, with and without folding, with each merger.

    python benchmarks/trunks.py [--batch-size 8] [--size 64] [--rounds 7]

The trunks of `make_trunk` with its defaults, captions of 12 words; the median of interleaved rounds. Writes
benchmarks/results/trunks.json, which page 07_trunks shows. Times are of whatever machine it ran on: compare them with
each other only.
"""
import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from my3yearold.attention import MERGERS
from my3yearold.trunks import TRUNKS, make_trunk


@torch.no_grad()
def seconds(trunk, *args):
    begun = time.perf_counter()
    trunk(*args)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    n, states, lengths = args.batch_size, torch.randn(args.batch_size, 12, 128), torch.full((args.batch_size,), 12)
    rows = [dict(trunk=trunk, fold=fold, merger=merger) for trunk in TRUNKS for fold in (1, 2) for merger in MERGERS]
    trunks = [make_trunk(row["trunk"], 128, span=args.size, merger=row["merger"], fold=row["fold"]).eval()
              for row in rows]
    features = [torch.randn(n, 32 if row["trunk"] == "multiscale" else 64, args.size, args.size) for row in rows]
    trunks, features = ([x.to(memory_format=torch.channels_last) for x in those] for those in (trunks, features))
    for trunk, x in zip(trunks, features): seconds(trunk, x, states, lengths)            # the first call prepares
    times = [[seconds(trunk, x, states, lengths) for trunk, x in zip(trunks, features)] for _ in range(args.rounds)]
    for row, own in zip(rows, zip(*times)):
        row["milliseconds"] = round(1000 * statistics.median(own) / n, 2)
        print(f"{row['trunk']:12s} fold {row['fold']}  {row['merger']:10s} {row['milliseconds']:8.2f} ms a picture")
    command = f"python benchmarks/trunks.py --batch-size {n} --size {args.size} --rounds {args.rounds}"
    out = Path(__file__).parent / "results" / "trunks.json"
    out.parent.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    found = dict(command=command, device="cpu", machine=machine, torch=torch.__version__, rows=rows)
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
