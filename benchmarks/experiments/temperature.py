"""Is a temperature of the conditionals that of the joint distribution? Exactly, on a grid that can be enumerated; then
in pictures.

    python benchmarks/experiments/temperature.py --data coco-tiles.tar.bz2

Exactly: two pixels of three channels and three levels, 729 pictures, ten distributions (`two_pixels`, seeds 0 to 9).
In pictures: an ancestral filling, and chains of small blocks from it, both at one temperature. Writes
nbs/experiments/results/09_temperature.json and the pictures of its figure."""
import itertools
from functools import partial
from types import SimpleNamespace
import torch
from tqdm import tqdm
from my3yearold.ancestral import ancestral
from my3yearold.gibbs import constant, mend
from my3yearold.sampling import Central
from my3yearold.show import contact_sheet
from my3yearold.yardsticks import two_pixels
from common import RESULTS, Record, arguments, cost, fill, judged, parts, rounded, shown_photographs

NAME, STEPS = "09_temperature", 32
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)


# ---- exactly ----

def tempered(p, temperature): # (..., levels) a conditional -> the one that is drawn from
    if isinstance(temperature, Central):
        low, high = 0.5 - temperature.t / 2, 0.5 + temperature.t / 2
        above = p.cumsum(-1)
        p = (above.clamp(max=high) - (above - p).clamp(min=low)).clamp(min=0)
    else: p = p ** (1 / temperature)
    return p / p.sum(-1, keepdim=True)


def conditionals(law, axis, known): # law (3, 3, 3, 3, 3, 3) -> of the variable `axis`, given the variables in `known`
    unknown = [i for i in range(6) if i != axis and i not in known]
    p = law.sum(unknown, keepdim=True) if unknown else law
    return (p / p.sum(axis, keepdim=True)).movedim(axis, -1)


def by_ancestral(law, temperature): # -> the distribution of its samples, all 720 orders equally likely
    total, orders = torch.zeros_like(law), list(itertools.permutations(range(6)))
    for order in orders:
        path = torch.ones_like(law)
        for k, axis in enumerate(order):
            path = path * tempered(conditionals(law, axis, order[:k]), temperature).movedim(-1, axis)
        total += path
    return total / len(orders)


def by_gibbs(law, temperature, doublings=30): # -> where redrawing single variables, one after the other, leads
    "From all pictures equally likely, after 2 ** doublings sweeps."
    sweep = torch.eye(law.numel(), dtype=law.dtype).view(-1, *law.shape)       # a row for each picture to start from
    for axis in range(6):
        rule = tempered(conditionals(law, axis, range(6)), temperature).movedim(-1, axis)
        sweep = sweep.sum(axis + 1, keepdim=True) * rule
    sweep = sweep.flatten(1)
    for _ in range(doublings): sweep = sweep @ sweep
    return sweep.mean(0).view_as(law)


def distance(a, b): return ((a - b).abs().sum() / 2).item()         # total variation: 0 the same, 1 nothing in common


def nearest(law, found): # -> the least distance of `found` to the joint at any temperature
    grid = torch.cat([torch.linspace(-3, 1, 161).exp(), torch.tensor(TEMPERATURES)])
    return min(distance(found, tempered(law.flatten(), t.item()).view_as(law)) for t in grid)


WAYS = {"ancestral": by_ancestral, "gibbs": by_gibbs, "gibbs, 64 sweeps": partial(by_gibbs, doublings=6)}


def exactly(record):
    found = {"seeds": list(range(10)), "temperatures": TEMPERATURES}
    laws = [two_pixels(seed=seed).law.view([3] * 6) for seed in found["seeds"]]
    for kind in ("logits", "central"):
        for name, way in WAYS.items():
            table = {}
            for t in tqdm(TEMPERATURES, desc=f"{kind}, {name}"):
                ours = [way(law, t if kind == "logits" else Central(t)) for law in laws]
                goal = [tempered(law.flatten(), t).view_as(law) for law in laws]
                table[str(t)] = dict(
                    to_the_joint=rounded(torch.tensor([distance(a, b) for a, b in zip(ours, goal)])),
                    to_any_joint=rounded(torch.tensor([nearest(law, a) for law, a in zip(laws, ours)])),
                    most_likely=rounded(torch.stack([a.flatten()[law.argmax()] for law, a in zip(laws, ours)])),
                    most_likely_of_joint=rounded(torch.stack([b.max() for b in goal])))
            found[f"{kind}, {name}"] = table
            record["distances"] = found


# ---- in pictures ----

def ancestral_then_blocks(temperature, blocks):
    def sampler(predict, images, given, generators):
        *_, state = ancestral(predict, images, given, "spread", STEPS, generators, temperature)
        yield state
        if blocks: yield from mend(predict, state.images, given, blocks, constant(0.05), generator=generators,
                                   temperature=temperature)
    return sampler


KINDS = {"1": 1.0, "logits / 0.5": 0.5, "central 0.5": Central(0.5)}
RUNS = {f"{name}, {blocks} blocks": ancestral_then_blocks(t, blocks) for name, t in KINDS.items() for blocks in (0, 48)}


def measure(holes, record):
    fair, rows = cost(holes, holes.images), {}
    for name, sampler in tqdm(RUNS.items(), desc=holes.name):
        filled, _ = fill(holes, sampler)
        rows[name] = judged(holes, filled, cost(holes, filled), fair)
        record["rows"] = rows


def draw_pictures(): # rows: without and with blocks; columns: two photographs, each with its kinds of temperature
    holes = shown_photographs()
    chosen = torch.tensor([0, 2])
    images, given = holes.images[chosen], holes.given[chosen]
    sheet = []
    for blocks in (0, 48):
        filled = []
        for t in KINDS.values():
            generators = [torch.Generator().manual_seed(i) for i in chosen.tolist()]
            *_, state = ancestral_then_blocks(t, blocks)(holes.reading(chosen), images, given, generators)
            filled.append(state.images)
        sheet += [row[i] for i in range(len(chosen)) for row in [images, *filled]]
    contact_sheet(sheet, 2 * (1 + len(KINDS)), gap=0).save(RESULTS / f"{NAME}.png", optimize=True)


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=16, photos=16)
    draw_pictures()
    exactly(Record(NAME, SimpleNamespace(name="exact", images=range(10)), args))
    for holes in parts(args): measure(holes, Record(NAME, holes, args))


if __name__ == "__main__": main()
