"""Which learning rate suits a larger batch: the same number of pictures in batches of 8, 64 and 256, at the rate of the
batch of 8 times 1, the square root of the ratio, and the ratio.

    python benchmarks/batch_size.py [--pictures 12800] [--size 16] [--seeds 2]

Scenes, a network of two resolutions, AdamW, the cosine. Held-out bits/dim of whole pictures and of the centre at once,
by the averaged weights, whose memory is a fiftieth of the steps. Writes benchmarks/results/batch_size.json, which page
devices prints."""
import argparse, json, math, platform, tempfile
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.config import TrainConfig
from my3yearold.data import load_data
from my3yearold.saving import load_model
from my3yearold.training import Own, train

RULES = {"the same": lambda ratio: 1.0, "square root": math.sqrt, "in proportion": lambda ratio: ratio}


def costs(config, data):
    "-> bits/dim of whole pictures and of the centre at once, or none for a run whose loss was lost."
    with tempfile.TemporaryDirectory() as folder:
        config.run = str(Path(folder) / "run")
        try: train(config, own=Own(data=data, figure=lambda model, figures: -figures["step"]))       # the last counts
        except FloatingPointError: return None
        card = load_model(Path(config.run) / "model")[2]
    return round(card["valid"], 4), round(card["valid_blank"], 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=12800)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    data = tuple(load_data("scenes", split, args.size, 4096) for split in ("train", "valid"))
    arms = [(8, "the same"), *((batch, rule) for batch in (64, 256) for rule in RULES)]
    rows = []
    for batch, rule in tqdm(arms, desc="arms"):
        steps = args.pictures // batch
        found = []
        for seed in range(args.seeds):
            config = TrainConfig(size=args.size, widths=(16, 32), blocks=(1, 1), scored=256, batch_size=batch,
                                 learning_rate=1.5e-3 * RULES[rule](batch / 8), ema=1 - 50 / steps, max_steps=steps,
                                 warmup=max(1, steps // 20), validate_every=steps, num_valid=512, seed=seed,
                                 device="cpu", precision="float32")
            found.append(costs(config, data))
        rows.append(dict(batch=batch, rule=rule, rate=round(config.learning_rate, 5), steps=steps, bits_per_dim=found))
        print(rows[-1])
    command = f"python benchmarks/batch_size.py --pictures {args.pictures} --size {args.size} --seeds {args.seeds}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    found = dict(command=command, machine=machine, torch=torch.__version__, rows=rows)
    (Path(__file__).parent / "results" / "batch_size.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
