"""All trunks with both mergers, and what is known of the levels' order: the same small budget of training for each.

    python benchmarks/architectures.py [--steps 250] [--size 16] [--batch-size 16] [--seed 0]

Scenes, the loop of `my3yearold train` with its defaults but for the size; bits/dim of 256 held-out scenes in random order, by the averaged weights.
Writes benchmarks/results/architectures.json after each row. Times are of one run on whatever machine it is, data and validation aside: compare them with each other only."""
import argparse, json, platform, sys, tempfile, time
from pathlib import Path
import torch
from my3yearold.batches import Examples, load_data
from my3yearold.captions import Vocabulary
from my3yearold.saving import load_model
from my3yearold.training import TrainConfig, train, validate

ROWS = [dict(trunk=trunk, merger=merger, head="smooth") for trunk in ("multiscale", "straight", "residual", "dilated") for merger in ("attention", "conv")]
ROWS += [dict(trunk="multiscale", merger="attention", embedding="free", head="free"), *(dict(trunk="multiscale", merger="attention", head=head) for head in ("adaptive", "neighbours", "mixture")),
         dict(trunk="multiscale", merger="attention", head="smooth", fold=2, widths=(32, 64, 96), blocks=(1, 1, 2))]


def trained(**settings): # -> model, vocabulary, card, seconds; quietly, in a folder that is thrown away
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.txt", "w") as sink:
        begun, stderr, sys.stderr = time.perf_counter(), sys.stderr, sink
        try: train(TrainConfig(**dict(run=folder, validate_every=10 ** 9, num_valid=1, keep=1, device="cpu") | settings))
        finally: sys.stderr = stderr
        return *load_model(Path(folder) / "model"), time.perf_counter() - begun


def measure(row, args): # -> figures of one row
    settings = dict(size=args.size, num_scenes=8000, batch_size=args.batch_size, max_steps=args.steps, warmup=50, ema=0.98, seed=args.seed) | row
    model, vocabulary, card, seconds = trained(**settings)
    held_out = Examples(load_data("scenes", "valid", args.size, 8000), vocabulary, torch.device("cpu"))
    config = TrainConfig(**settings | dict(num_valid=256))
    return row | dict(parameters=sum(p.numel() for p in model.parameters()), bits_per_dim=round(validate(model, held_out, config), 3),
                      without_captions=round(validate(model, held_out, config, captions=False), 3),
                      centre_at_once=round(validate(model, held_out, config, "blank"), 3), pictures_per_second=round(card["pictures_per_second"], 1), seconds=round(seconds, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "architectures.json", type=Path)
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    command = f"python benchmarks/architectures.py --steps {args.steps} --size {args.size} --batch-size {args.batch_size} --seed {args.seed}"
    found = dict(command=command, device="cpu", machine=f"{platform.machine()}, {torch.get_num_threads()} threads", torch=torch.__version__, rows=[])
    for row in ROWS:
        found["rows"].append(measure(row, args))
        print(found["rows"][-1], flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
