"""The chain of 2017, its schedule backwards and as it was meant; all else the same.

    python benchmarks/experiments/direction.py --data coco-tiles.tar.bz2

From black and from noise, eta 0.7 and 0.4, 32 evaluations; Yao's own start, in one shot; and two of them with 8 and 64.
Writes nbs/experiments/results/01_direction.json and the pictures of its figure, 01_direction.png."""
from functools import partial
import torch
from tqdm import tqdm
from my3yearold.chance import uniforms
from my3yearold.gibbs import gibbs, mend, yao_schedule
from my3yearold.show import contact_sheet
from common import (RESULTS, Record, arguments, cost, fill, interval, intervals, judged, mean, parts, ratio,
                         rounded, roughness, scenes_with_holes, shown_photographs)

NAME = "01_direction"


def chain(predict, images, given, generators, kept=True, start="noise", eta=0.4, steps=32):
    "`chain_of_2017` for `kept`; the same with each variable REDRAWN with the schedule's probability for not `kept`."
    values = torch.zeros_like(images)
    if start == "noise": values[~given] = (uniforms(~given, generators) * 256).to(torch.uint8)
    def redrawn(step, count):
        alpha = yao_schedule(step - 1, count - 1, eta=eta)
        return 1 - alpha if kept else alpha
    return mend(predict, torch.where(given, images, values), given, steps, redrawn, generator=generators)


def meant_whole(predict, images, given, generators, steps=32): # Yao's: the first step draws the whole hole
    return gibbs(predict, images, given, steps, partial(yao_schedule, eta=0.4), generator=generators)


RUNS = { # name -> (predict, images, given, generators) -> states
    **{f"{'kept' if kept else 'redrawn'}, {start}, eta {eta}": partial(chain, kept=kept, start=start, eta=eta)
       for start in ("black", "noise") for eta in (0.7, 0.4) for kept in (True, False)},
    "redrawn, one shot, eta 0.4": meant_whole,
}


def measure(holes, record):
    truth, hidden = holes.images, ~holes.given
    fair, rows, each = cost(holes, truth), {}, {}
    def look(state, index): # grain, and the share of the hole that is drawn
        rough, _ = roughness(state.images, truth[index], holes.given[index])
        return dict(rough=rough, drawn=state.redrawn.flatten(1).sum(1) / hidden[index].flatten(1).sum(1))
    smooth = roughness(truth, truth, holes.given)[0]
    for name, sampler in tqdm(RUNS.items(), desc=holes.name):
        filled, seen = fill(holes, sampler, look)
        paid = cost(holes, filled)
        along = intervals(ratio, seen["rough"], smooth.expand_as(seen["rough"]))
        rows[name] = judged(holes, filled, paid, fair) | dict(along=along, drawn=rounded(seen["drawn"].mean(1)))
        each[name] = paid, seen["rough"][-1]
        record["rows"] = rows
    record["explained"] = explained(each, fair, smooth)
    lengths(holes, record, fair)


def lengths(holes, record, fair): # of the later chain, and of Yao's: is a longer one better?
    rows = {}
    for k in tqdm((8, 64), desc="lengths"):
        for name, sampler in (("as it ran, noise", chain), ("as meant, one shot", meant_whole)):
            filled, _ = fill(holes, partial(sampler, steps=k))
            rows[f"{name}, {k}"] = judged(holes, filled, cost(holes, filled), fair)
            record["lengths"] = rows


def explained(each, fair, smooth): # start and eta -> shares of the excess that are gone once the direction is right
    def grain(kept, meant, smooth): return (kept - meant).sum(-1) / (kept - smooth).sum(-1)
    shares = {}
    for name in [name for name in RUNS if name.startswith("kept")]:
        (cost_kept, grain_kept), (cost_meant, grain_meant) = each[name], each[name.replace("kept", "redrawn")]
        shares[name.removeprefix("kept, ")] = dict(
            grain=interval(grain, grain_kept, grain_meant, smooth),
            cost=interval(grain, cost_kept, cost_meant, fair), bits=interval(mean, cost_kept - cost_meant))
    return shares


def draw_pictures(): # rows: the chain backwards, as it was meant; columns: its steps; two scenes, two photographs
    at, tiles = (1, 8, 16, 24, 32), []
    for holes, chosen in ((scenes_with_holes(4), (1, 3)), (shown_photographs(), (0, 2))):
        index = torch.tensor(chosen)
        images, given = holes.images[index], holes.given[index]
        for kept in (True, False):
            generators = [torch.Generator().manual_seed(i) for i in chosen]
            states = [s.images for s in chain(holes.reading(index), images, given, generators, kept)]
            tiles += [[images * given, *[states[k - 1] for k in at], images]]
    sheet = [row[column][picture] for first in (0, 2) for picture in (0, 1) for row in tiles[first:first + 2]
             for column in range(len(row))]
    contact_sheet(sheet, columns=len(at) + 2, gap=0).save(RESULTS / f"{NAME}.png", optimize=True)


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=48, photos=32)
    draw_pictures()
    for holes in parts(args):
        measure(holes, Record(NAME, holes, args))


if __name__ == "__main__": main()
