"""Photographs: what each choice buys at equal time. Every row trains from scratch for the same minutes, one choice
changed.

    python benchmarks/ablation.py --data ARCHIVE [ARCHIVE ...] [--minutes 4] [--size 64] [--seed 0]

The loop of `my3yearold train`, hole kinds and head as in the photographs' card. Bits/dim of the first 128 validation
pictures of each archive by the averaged weights, the same questions in every row: whole pictures and the 32x32 centre
in random order, and that centre at once. Writes benchmarks/results/ablation_photos.json after each row; rows of earlier
runs with the same settings stay. Keep the machine quiet: minutes are what is held equal."""
import argparse, json, platform, tempfile
from pathlib import Path
import torch
from my3yearold.batches import Examples
from my3yearold.data import load_data
from my3yearold.saving import save_model
from my3yearold.config import TrainConfig
from my3yearold.validation import validate
from architectures import trained

MASKS = "orderless=0.3,orderless_in_rectangle=0.45,rectangle=0.25"
ROWS = {
    "default": {},
    "straight trunk, 8 layers": dict(trunk="straight"),
    "residual trunk, 8 layers": dict(trunk="residual"),
    "dilated trunk, 8 layers": dict(trunk="dilated"),
    "folded 2x2": dict(fold=2, widths=(64, 96, 160), blocks=(1, 2, 2)),
    "half as wide": dict(widths=(16, 32, 48, 80)),
    "half as wide again": dict(widths=(48, 96, 144, 240)),
    "head: adaptive": dict(head="adaptive"),
    "head: smooth": dict(head="smooth"),
    "head: mixture of logistics": dict(head="mixture"),
    "head and embedding: free": dict(head="free", embedding="free"),
    "scattered holes only": dict(masks="orderless"),
    "no blank holes": dict(masks="orderless=0.4,orderless_in_rectangle=0.6"),
    "mirrored pictures": dict(flip=0.5),
    "batch of 16": dict(batch_size=16),
    "twice the learning rate": dict(learning_rate=3e-3),
    "Muon": dict(optimiser="muon"),
    "no captions": dict(caption_dropout=1.0),
    "half the time at 32x32 first": "small first",
}


def train_row(change, settings, size, minutes): # -> model, vocabulary, pictures seen
    if change != "small first":
        model, vocabulary, card, _ = trained(**settings | dict(max_minutes=minutes) | change)
        return model, vocabulary, card["pictures"]
    model, vocabulary, small, _ = trained(**settings | dict(size=size // 2, max_minutes=minutes / 2))
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, vocabulary)
        model, vocabulary, card, _ = trained(**settings | dict(start=folder, max_minutes=minutes / 2))
    return model, vocabulary, small["pictures"] + card["pictures"]


def measure(model, vocabulary, archives, settings, captions):
    config, device = TrainConfig(**settings | dict(num_valid=128)), torch.device("cpu")
    held_out = [Examples(load_data(a, "valid", config.size), vocabulary, device) for a in archives]
    return {
        name: round(sum(validate(model, data, config, kind, captions) for data in held_out) / len(held_out), 4)
        for name, kind in (("whole", "whole"), ("centre", "centre"), ("centre_at_once", "blank"))
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    args = parser.parse_args()
    settings = dict(
        data=tuple(args.data), size=args.size, masks=MASKS, head="neighbours", max_steps=10**6, ema=0.99, seed=args.seed
    )
    out = Path(__file__).parent / "results" / "ablation_photos.json"
    out.parent.mkdir(exist_ok=True)
    found = dict(
        command=f"python benchmarks/ablation.py --data {' '.join(Path(a).name for a in args.data)} --minutes "
                f"{args.minutes:g} --size {args.size} --seed {args.seed}",
        device="cpu",
        machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
    )
    before = json.loads(out.read_text()) if out.exists() else {}
    rows = (
        {row["name"]: row for row in before.pop("rows", [])}
        if {k: v for k, v in before.items() if k != "rows"} == found
        else {}
    )
    for name in args.rows:
        model, vocabulary, pictures = train_row(ROWS[name], settings, args.size, args.minutes)
        rows[name] = dict(
            name=name, parameters=sum(p.numel() for p in model.parameters()), pictures=pictures
        ) | measure(model, vocabulary, args.data, settings, captions=name != "no captions")
        print(rows[name], flush=True)
        out.write_text(json.dumps(found | dict(rows=[rows[n] for n in ROWS if n in rows]), indent=1) + "\n")


if __name__ == "__main__": main()
