"""What is there to know about a hidden object? Bits per hidden variable of the best predictions that are possible, by
what is known.

    python benchmarks/worth.py [--scenes 160] [--seed 999]

Scenes with an object fully hidden, all drawn at once (each variable's marginal distribution, as one evaluation sees
it). That distribution is a mixture over worlds drawn from the scenes' own generator: the hole's margins (0 to 4 on each
side) and the colour's jitter are unknown unless said, background and colour name are known. An estimate from a finite
number of worlds is a little too high."""
import argparse, math
import numpy as np
from my3yearold.scenes import PALETTE, SHAPES, _background, _layout, _paint, scenes

NOISE = 3.0


def cost(x, background, thing, shapes, boxes, colours, region): # bits per variable of x under the mixture of all worlds
    density, rows, columns = np.zeros(x.shape), *region
    for shape in shapes:
        for box in boxes:
            for rgb in colours:
                world = background.copy()
                _paint(world, thing._replace(shape=shape, box=box, rgb=rgb))
                density += np.exp(-0.5 * ((x - world[:, rows, columns]) / NOISE) ** 2)
    density /= len(shapes) * len(boxes) * len(colours) * NOISE * math.sqrt(2 * math.pi)
    return -np.log2(density + 1e-12).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=160)
    parser.add_argument("--seed", type=int, default=999)
    args = parser.parse_args()
    size, margin, drawn = 64, 3, scenes(args.scenes, 64, seed=args.seed)
    found = {}
    for i in range(args.scenes):
        rng, dice = np.random.default_rng([args.seed, i]), np.random.default_rng(i)
        things, _ = _layout(rng, size)
        background = _background(rng, size)
        for thing in things[:-1]: _paint(background, thing)
        thing = things[-1]
        top, left, bottom, right = (
            max(0, thing.box[0] - margin),
            max(0, thing.box[1] - margin),
            min(size, thing.box[2] + margin),
            min(size, thing.box[3] + margin),
        )
        boxes = [
            (top + a, left + b, bottom - c, right - d)
            for a in range(5)
            for b in range(5)
            for c in range(5)
            for d in range(5)
            if bottom - top - a - c == right - left - b - d > 4
        ]
        boxes = [boxes[k] for k in dice.permutation(len(boxes))[:40]]
        jitter = [tuple(c + int(dice.random() * 13) - 6 for c in PALETTE[thing.colour]) for _ in range(6)]
        region, x = (
            (slice(top, bottom), slice(left, right)),
            drawn.images[i].numpy()[:, top:bottom, left:right].astype(float),
        )
        for name, known in (
            ("neither shape nor place", (SHAPES, boxes, jitter)),
            ("the shape", ([thing.shape], boxes, jitter)),
            ("the place", (SHAPES, [thing.box], jitter)),
            ("shape and place", ([thing.shape], [thing.box], jitter)),
            ("everything but the noise", ([thing.shape], [thing.box], [thing.rgb])),
        ):
            found.setdefault(name, []).append(cost(x, background, thing, *known, region))
    for name, each in found.items():
        print(f"{name:26s} {np.mean(each):.3f} +- {np.std(each) / math.sqrt(len(each)):.3f} bits per hidden variable")


if __name__ == "__main__": main()
