"""Small training runs for the experiments: named arms, three seeds each, on scenes of 32x32.

    OMP_NUM_THREADS=1 python benchmarks/experiments/runs.py [--out runs/experiments] [--seeds 0 1 2] [--arms NAME ...]
    python benchmarks/experiments/runs.py --scale 20 --device cuda --out runs/experiments-20      # longer, for a GPU

Every arm is the default recipe at half the width with one thing changed; `default` is the reference of all. Arms of
masks and losses take equal steps, and trunks equal processor time by the table that steps.py writes. The three readers
have a recipe of their own, longer and on objects' boxes only, since captions pay late and nowhere else.

One group of arms after another, and in each all arms with seed 0, then seed 1, then seed 2. A queue that was killed
goes on where it stood: a finished run is skipped, an unfinished one is resumed from its last checkpoint. Each run is an
ordinary run folder OUT/ARM-SEED with its log, its best weights (model) and its last checkpoint; OUT/finished.jsonl
lists those at their end. Several workers may share a folder: each takes what no other has.
"""
import argparse, json, platform, time
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from my3yearold.config import TrainConfig
from my3yearold.runs import checkpoints
from my3yearold.training import train

STEPS = 1000
BASE = dict(size=32, num_scenes=16000, widths=(16, 32, 48, 80), channels=32, scored=256, batch_size=8, ema=0.99,
            validate_every=200, num_valid=64, keep=1, precision="float32")
SCATTERED = dict(objects=0.0)                             # then the masks are all that differs
OBJECTS = dict(objects=1.0)                               # every hole is an object's box: there captions pay
MASKS = {
    "default": {},
    "orderless": SCATTERED | dict(masks="orderless"),
    "contiguish_square": SCATTERED | dict(masks="contiguish_square"),
    "rectangle": SCATTERED | dict(masks="rectangle"),
    "orderless_in_rectangle": SCATTERED | dict(masks="orderless_in_rectangle"),
    "spread_in_rectangle": SCATTERED | dict(masks="spread_in_rectangle"),
}
LOSSES = {
    "emd": dict(loss="emd", clip=10.0),                   # its gradient is so many times as large: clipped as often
    "emd2": dict(loss="emd2", clip=8.0),
}
TRUNKS_AND_DATA = {
    "straight": dict(trunk="straight"),
    "straight_3": dict(trunk="straight", layers=3),
    "straight_16": dict(trunk="straight", layers=16),
    "dilated": dict(trunk="dilated"),
    "few_scenes": dict(num_scenes=128),
    "few_scenes_one_hole": SCATTERED | dict(num_scenes=128, masks="centre"),
}
READERS_AND_MORE = {
    "reader_qrnn": OBJECTS,
    "reader_words": OBJECTS | dict(window=1, forget_bias=-100.0),      # see below
    "reader_none": OBJECTS | dict(caption_dropout=1.0),
    "given_too": dict(given_too=True),
    "residual": dict(trunk="residual"),
}
GROUPS = [MASKS, LOSSES, TRUNKS_AND_DATA, READERS_AND_MORE]
ARMS = {arm: change for group in GROUPS for arm, change in group.items()}
# `reader_words` is a QRNN that sees one word at a time and whose forget gates are shut: its state at a word follows
# from that word alone, at any place. A bag of words, that is, read by the same attention.
# STEPS, divided by what a step cost beside the default's when this was written: 75.9, 59.1, 106.1, 75.5, 75.9 to 65.2
STEPS_OF = dict(straight=860, straight_3=1100, straight_16=615, residual=865, dilated=860)
STEPS_OF |= dict.fromkeys(["reader_qrnn", "reader_words", "reader_none"], 2000)


def config_of(arm: str, seed: int, out: Path, scale: float = 1.0, device: str = "cpu") -> TrainConfig:
    steps, run = round(scale * STEPS_OF.get(arm, STEPS)), str(out / f"{arm}-{seed}")
    return TrainConfig(**BASE | dict(max_steps=steps, seed=seed, device=device, run=run) | ARMS[arm])


def finished(out: Path) -> set[tuple[str, int]]: # arm and seed of each run at its end
    path = out / "finished.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["arm"], row["seed"]) for row in rows}


def go(arm: str, seed: int, config: TrainConfig) -> None:
    "Train one run to its end, and note what it took."
    begun, cpu = time.time(), time.process_time()
    there = bool(checkpoints(config.run)) if Path(config.run).exists() else False
    train(config, resume=there, start_over=not there)
    row = dict(arm=arm, seed=seed, steps=config.max_steps, resumed=there, cpu_seconds=time.process_time() - cpu,
               seconds=time.time() - begun, threads=torch.get_num_threads(), torch=torch.__version__,
               machine=platform.machine())
    with open(Path(config.run).parent / "finished.jsonl", "a") as file: file.write(json.dumps(row) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of steps")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    todo = [(arm, seed) for group in GROUPS for seed in args.seeds for arm in group if arm in args.arms]
    for arm, seed in todo:
        with suppress(Timeout), FileLock(args.out / f".{arm}-{seed}.lock", timeout=0):    # another worker has it
            if (arm, seed) in finished(args.out): continue
            print(f"{arm}, seed {seed}", flush=True)
            go(arm, seed, config_of(arm, seed, args.out, args.scale, args.device))


if __name__ == "__main__": main()
