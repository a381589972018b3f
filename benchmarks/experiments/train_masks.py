"""Trained on one kind of hole, judged on every kind.

    python benchmarks/experiments/runs.py --arms default orderless contiguish_square rectangle \\
        orderless_in_rectangle spread_in_rectangle
    python benchmarks/experiments/train_masks.py [--scenes 192]

For each run: bits/dim of the chain rule in a random order inside each kind of hole; the centre at once, ring by ring
from its rim inwards; and scenes with an object hidden, filled in 16 turns of a spread order. Writes
nbs/experiments/results/06_local.json and the pictures of its figure."""
import sys
from pathlib import Path

import torch

from my3yearold.ancestral import ancestral
from my3yearold.holes import centre
from my3yearold.likelihood import nats
from my3yearold.losses import bits
from my3yearold.scenes import guess_shape, hide_object, obedience
sys.path.append(str(Path(__file__).resolve().parents[1]))     # the other benchmarks
from quality import neighbour_differences  # noqa: E402
from common import save_sheet  # noqa: E402
from judging import SIZE, Rows, arguments, costs, holes, mean_and_error, reading, unseen, weights  # noqa: E402

NAME, TURNS = "06_local", 16
ARMS = ["orderless", "contiguish_square", "rectangle", "orderless_in_rectangle", "spread_in_rectangle", "default"]
KINDS = {"whole picture": "everything", "contiguish": "contiguish_square", "brush strokes": "brush",
         "rectangle": "rectangle", "centre": "centre", "an object": "object"}


def rings(hole: int) -> torch.Tensor: # (hole, hole): how far each pixel of a square lies from its rim, 1 at the rim
    line = torch.arange(hole)
    inwards = torch.minimum(line, hole - 1 - line) + 1
    return torch.minimum(inwards[:, None], inwards[None])


@torch.no_grad()
def by_depth(model, vocabulary, images, captions): # -> bits/dim of the centre at once, ring by ring
    given, depth = centre(len(images), SIZE), rings(SIZE // 2)
    cost = bits(nats(reading(model, vocabulary, captions), images, given, ~given))
    start, stop = SIZE // 4, 3 * SIZE // 4
    inside = cost[:, :, start:stop, start:stop].mean((0, 1))
    return [round(inside[depth == d].mean().item(), 4) for d in range(1, depth.max() + 1)]


@torch.no_grad()
def filled(model, vocabulary, data, captions): # -> pictures, given, objects
    given, objects = hide_object(data, margin=2)
    generators = [torch.Generator().manual_seed(i) for i in range(len(data.images))]
    predict = reading(model, vocabulary, captions)
    *_, state = ancestral(predict, data.images, given, "spread", TURNS, generators)
    return state.images, given, objects


def judge_fillings(model, vocabulary, n): # -> shares of pictures, and the grain of the fillings over the truth's
    data = unseen(n)
    images, given, objects = filled(model, vocabulary, data, [c[0] for c in data.captions])
    shapes = torch.tensor([guess == thing.shape for guess, thing in zip(guess_shape(images, given), objects)])
    colours = obedience(images, given, objects)
    return dict(colour=mean_and_error(colours.double()), shape=mean_and_error(shapes.double()),
                roughness=round(neighbour_differences(images, given) / neighbour_differences(data.images, given), 4))


def draw_pictures(args, n=4): # a row for each scene: its hole, the fillings of the first run of each arm, the truth
    data = unseen(n)
    captions = [c[0] for c in data.captions]
    given, _ = hide_object(data, margin=2)
    columns = [data.images * given]
    columns += [filled(*weights(args, arm, 0), data, captions)[0] for arm in ARMS]
    columns.append(data.images)
    save_sheet(NAME, columns)


def main():
    args = arguments(__doc__, scenes=192)
    data, rows = unseen(args.scenes), Rows(NAME, "train_masks.py", args)
    captions, asked = [c[0] for c in data.captions], holes(data, KINDS)
    def judge(arm, seed):
        model, vocabulary = weights(args, arm, seed)
        found = {name: mean_and_error(costs(model, vocabulary, data.images, captions, given))
                 for name, given in asked.items()}
        at_once = mean_and_error(costs(model, vocabulary, data.images, captions, asked["centre"], at_once=True))
        return dict(bits=found, centre_at_once=at_once, by_depth=by_depth(model, vocabulary, data.images, captions),
                    fillings=judge_fillings(model, vocabulary, args.scenes // 2))
    rows.judge(ARMS, judge)
    if {row["arm"] for row in rows.rows} == set(ARMS): draw_pictures(args)


if __name__ == "__main__": main()
