"""All trunks and all heads, each trained with the same small budget.

    python benchmarks/architectures.py --cpu-seconds 150 --size 64 --batch-size 8   # equal time
    python benchmarks/architectures.py --steps 150 --size 16                        # equal steps

The first form gives every row the same seconds of one processor core (`time.process_time`, one thread) and writes the
cost in bits of every held-out scene to results/architectures_64.json. Waiting for a busy core does not count; caches
shared with neighbours still cost some per cent of the steps. Two rows are repeated with another seed.

The second runs the loop of `my3yearold train` for the same number of steps, all trunks with both mergers, and writes
results/architectures.json. Both use scenes and the defaults of training but for what is said, measure with the averaged
weights, and write after each row; rows that the file already has from the same command are kept.
"""
import argparse
import json
import platform
import sys
import tempfile
import time
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from my3yearold.chance import stream
from my3yearold.batches import Examples, decide, questions, scored_loss, strata
from my3yearold.data import load_data
from my3yearold.captions import Vocabulary
from my3yearold.masks import centre, orderless
from my3yearold.model import OrderlessNADE
from my3yearold.saving import load_model
from my3yearold.config import model_options
from my3yearold.training import LOSSES, TrainConfig, learning_rate, train, update_average
from my3yearold.validation import validate

RESULTS = Path(__file__).parent / "results"
NUM_SCENES = 8000
DEFAULT = dict(trunk="multiscale", merger="attention", head="adaptive")
EQUAL_TIME = [DEFAULT, *(DEFAULT | change for change in (
    dict(trunk="residual"), dict(head="smooth"), dict(head="free"), dict(head="neighbours"), dict(head="mixture"),
    dict(trunk="straight"), dict(trunk="dilated"), dict(seed=1), dict(trunk="residual", seed=1)))]
EQUAL_STEPS = [dict(trunk=trunk, merger=merger, head="smooth")
               for trunk in ("multiscale", "straight", "residual", "dilated") for merger in ("attention", "conv")]
EQUAL_STEPS += [DEFAULT | dict(embedding="free", head="free"),
                *(DEFAULT | dict(head=head) for head in ("adaptive", "neighbours", "mixture")),
                DEFAULT | dict(head="smooth", fold=2, widths=(32, 64, 96), blocks=(1, 1, 2))]


def trained(**settings):
    "-> model, vocabulary, card, seconds: the loop of `my3yearold train`, quietly, in a folder that is thrown away."
    defaults = dict(validate_every=10 ** 9, num_valid=1, keep=1, device="cpu")
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.txt", "w") as sink:
        begun, stderr, sys.stderr = time.perf_counter(), sys.stderr, sink
        try: train(TrainConfig(**dict(run=folder) | defaults | settings))
        finally: sys.stderr = stderr
        return *load_model(Path(folder) / "model"), time.perf_counter() - begun


def measure(row, args):
    "-> figures of one row after an equal number of steps."
    chosen = dict(size=args.size, num_scenes=NUM_SCENES, batch_size=args.batch_size, max_steps=args.steps, warmup=50,
                  ema=0.98, seed=args.seed) | row
    model, vocabulary, card, seconds = trained(**chosen)
    held_out = Examples(load_data("scenes", "valid", args.size, NUM_SCENES), vocabulary, torch.device("cpu"))
    config = TrainConfig(**chosen | dict(num_valid=256))
    return row | dict(parameters=sum(p.numel() for p in model.parameters()),
                      bits_per_dim=round(validate(model, held_out, config), 3),
                      without_captions=round(validate(model, held_out, config, captions=False), 3),
                      centre_at_once=round(validate(model, held_out, config, "blank"), 3),
                      pictures_per_second=round(card["pictures_per_second"], 1), seconds=round(seconds, 1))


@cache
def examples(size):
    "-> the scenes to learn from, those held out, and the vocabulary; drawn once for all rows."
    data, held_out = (load_data("scenes", split, size, NUM_SCENES) for split in ("train", "valid"))
    vocabulary = Vocabulary.build(data.captions)
    return *(Examples(part, vocabulary, torch.device("cpu")) for part in (data, held_out)), vocabulary


def train_for(cpu_seconds, config):
    "-> averaged model, steps: the default loop without its safeguards, until this process has computed for so long."
    data, _, vocabulary = examples(config.size)
    torch.manual_seed(config.seed)
    model = OrderlessNADE(len(vocabulary), config.size, **model_options(config)).train()
    average = deepcopy(model).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True)
    begun, step = time.process_time(), 0
    while (done := (time.process_time() - begun) / cpu_seconds) < 1:
        optimiser.param_groups[0]["lr"] = learning_rate(step, done, config)
        asked = questions(config, data, decide(config, data, step))
        optimiser.zero_grad()
        cost = scored_loss(model, *asked[:6], loss=LOSSES[config.loss])
        ((cost * asked.counts).sum() / asked.counts.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        update_average(average, model, step, config.ema)
        step += 1
    return average, step


@torch.no_grad()
def costs(model, config, kind, n=128):
    "-> bits/dim of each of n held-out scenes, in random order or the centre at once; the same questions in every row."
    _, held_out, _ = examples(config.size)
    generator, found = stream(config.seed, 0, "validation"), []
    for index in torch.arange(n).split(32):
        images, ids, lengths = held_out.batch(index, held_out.rows(index, 0.0, generator))
        if kind == "centre at once": given = centre(len(index), config.size)
        else: given = orderless(len(index), config.size, generator, stratified=True)
        where, weight = strata(~given, 2 * config.scored, generator)
        found.append(scored_loss(model, images, given, ids, lengths, where, weight) / torch.tensor(2.0).log())
    return [round(bits, 4) for bits in torch.cat(found).tolist()]


def measure_for(row, args):
    "-> figures of one row after an equal time."
    config = replace(TrainConfig(size=args.size, ema=0.98, batch_size=args.batch_size, seed=args.seed), **row)
    model, steps = train_for(args.cpu_seconds, config)
    config = replace(config, seed=args.seed)                                     # the same questions in every row
    parameters = sum(p.numel() for p in model.parameters())
    return row | dict(parameters=parameters, steps=steps, pictures=steps * args.batch_size,
                      random_order=costs(model, config, "random order"),
                      centre_at_once=costs(model, config, "centre at once"))


def settings(row):
    "-> what was chosen in a row, as a file would hold it."
    names = ("trunk", "merger", "embedding", "head", "fold", "widths", "blocks", "seed")
    return json.loads(json.dumps({name: row[name] for name in names if name in row}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cpu-seconds", type=float, help="equal time instead of equal steps")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.cpu_seconds: torch.set_num_threads(1)
    budget = f"--cpu-seconds {args.cpu_seconds:g}" if args.cpu_seconds else f"--steps {args.steps}"
    command = " ".join(["python benchmarks/architectures.py", budget, f"--size {args.size}",
                        f"--batch-size {args.batch_size} --seed {args.seed}"])
    out = RESULTS / (f"architectures_{args.size}.json" if args.cpu_seconds else "architectures.json")
    out.parent.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    found = dict(command=command, device="cpu", machine=machine, torch=torch.__version__)
    before = json.loads(out.read_text()) if out.exists() else {}
    rows = before.pop("rows", [])
    if before != found: rows = []
    for row in EQUAL_TIME if args.cpu_seconds else EQUAL_STEPS:
        if any(settings(row) == settings(old) for old in rows): continue
        rows.append((measure_for if args.cpu_seconds else measure)(row, args))
        print({k: v for k, v in rows[-1].items() if not isinstance(v, list)}, flush=True)
        out.write_text(json.dumps(found | dict(rows=rows), indent=1) + "\n")


if __name__ == "__main__": main()
