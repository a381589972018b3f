"""What each ingredient of the training loop buys: the default recipe, and the same with one thing taken away, over the
same number of steps.

    python benchmarks/ingredients.py [--steps 250] [--size 16] [--batch-size 16] [--seeds 3]

Scenes; each figure is the mean over seeds with its standard error. Paired: the seeds, hence pictures and starting
weights, are the same in all rows. Writes benchmarks/results/ingredients.json after each row, which page 14 shows."""
import argparse, json, platform, statistics
from pathlib import Path
import torch
from architectures import measure

ROWS = {
    "default": {},
    "no warm-up": dict(warmup=1),
    "no clipping": dict(clip=1e9),
    "constant rate": dict(schedule="plateau", patience=10 ** 9),
    "no average": dict(ema=0.0),
    "no averaging, constant rate": dict(ema=0.0, schedule="plateau", patience=10 ** 9),
    "hole sizes at random": dict(stratified=False),
    "a quarter of the variables scored": dict(scored=192),
    "the batch's mean": dict(weighting="batch"),
    "captions never dropped": dict(caption_dropout=0.0),
    "scattered holes only": dict(masks="orderless", objects=0.0),
    "no objects' boxes": dict(objects=0.0),
    "Muon": dict(optimiser="muon"),
    "free embedding and head": dict(embedding="free", head="free"),
}
FIGURES = ("bits_per_dim", "without_captions", "centre_at_once", "pictures_per_second")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    out = Path(__file__).parent / "results" / "ingredients.json"
    out.parent.mkdir(exist_ok=True)
    command = (f"python benchmarks/ingredients.py --steps {args.steps} --size {args.size} --batch-size "
               f"{args.batch_size} --seeds {args.seeds}")
    found = dict(
        command=command,
        device="cpu",
        machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
        rows=[],
    )
    for name, change in ROWS.items():
        runs = []
        for args.seed in range(args.seeds): runs.append(measure(change, args))
        found["rows"].append(dict(name=name, change=change) | {k: [run[k] for run in runs] for k in FIGURES})
        print(f"{name:36s}", *(f"{k} {statistics.mean(run[k] for run in runs):.3f}" for k in FIGURES), flush=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
