"""What a Gibbs step costs beside the network's door and trunk: whole chains, centre hole, interleaved; medians.

    python benchmarks/gibbs.py [--weights photos] [--batch 16] [--steps 32] [--repeats 3]

A step draws a block of the hole: the door and the trunk see the whole picture, the head is asked only where something
is drawn, and the draw is an exact inverse CDF in float64. Door and trunk alone: the same network with nothing asked
of its head. The last line asks the head for all of the hole at every step, and copies the rows out."""
import argparse, platform, statistics, time
import torch
from tqdm import tqdm
from my3yearold.gibbs import Filling, gibbs, mending_schedule, yao_schedule
from my3yearold.saving import weights_folder, load_model
from my3yearold.masks import centre
from my3yearold.scenes import scenes


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="photos")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    images, given = scenes(args.batch, size=model.config["size"]).images, centre(args.batch, model.config["size"])
    predict, nothing = model.bind(*vocabulary.encode([""] * args.batch)), torch.zeros_like(given)
    rank = torch.zeros(given.shape, dtype=torch.int32)
    rank[~given] = torch.arange(int((~given).sum()), dtype=torch.int32)
    def everywhere(images, known, where): return predict(images, known, ~given)[rank[where].long()].clone()
    def chain(predict, **options):
        for _ in gibbs(predict, images, given, args.steps, generator=torch.Generator().manual_seed(0), **options): pass
    half = dict(schedule=mending_schedule, start=Filling(args.steps // 2))
    forms = {"door and trunk alone": lambda: [predict(images, given, nothing) for _ in range(args.steps)],
             "ancestral start, small blocks (the pipeline's)": lambda: chain(predict, **half),
             "Yao's schedule": lambda: chain(predict, schedule=yao_schedule),
             "ancestral start, head asked for the whole hole": lambda: chain(everywhere, **half)}
    times = {name: [] for name in forms}
    for _ in tqdm(range(args.repeats), desc="rounds"):
        for name, run in forms.items():
            begun = time.perf_counter(); run()
            times[name].append((time.perf_counter() - begun) / args.steps)
    base = statistics.median(times["door and trunk alone"])
    print(f"{platform.machine()}, {torch.get_num_threads()} threads; torch {torch.__version__}; "
          f"weights {args.weights}, batch {args.batch}, chains of {args.steps} steps, median of {args.repeats}")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:48s} {1e3 * middle:8.1f} ms a step {middle / base:6.2f}x")


if __name__ == "__main__": main()
