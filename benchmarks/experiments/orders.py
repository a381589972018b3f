"""Where does a greedy order begin, and does an antigreedy one make more structure?

    python benchmarks/experiments/orders.py --data coco-tiles.tar.bz2

Ancestral fillings in 32 turns, temperature 1: the surest variables first (greedy), the least sure first (antigreedy),
random, spread, and from the rim of the hole inwards. Writes nbs/experiments/results/08_orders.json and the pictures of
its figures."""
import torch
import torch.nn.functional as F
from tqdm import tqdm
from my3yearold.ancestral import ancestral, cuts
from my3yearold.sampling import chain, open_hole
from common import (Record, arguments, cost, fill, interval, judged, mean, parts, rounded, save_sheet,
                    shown_photographs)

NAME, STEPS = "08_orders", 32


def depth(given): # (N, 3, H, W) bool -> (N, 3, H, W): how many pixels away the nearest known one is, 0 where known
    far = torch.zeros(given.shape)
    left = ~given
    while left.any():
        far += left
        left = F.max_pool2d((~left).float(), 3, 1, 1) == 0             # what has no known neighbour of eight
    return far


def outside_in(predict, images, given, generators): # ring by ring, at random within a ring
    _, hidden = open_hole(images, given)
    noise = torch.stack([torch.rand(given.shape[1:], generator=g) for g in generators])
    key = torch.where(hidden, depth(given) + noise, torch.inf)
    rank = key.flatten(1).argsort(1).argsort(1)
    turn = torch.searchsorted(cuts(hidden.flatten(1).sum(1), STEPS)[:, 1:].contiguous(), rank, right=True)
    turn = torch.where(hidden, turn.view_as(hidden), -1)
    return chain(predict, images * given, ((turn < s, turn == s) for s in range(STEPS)), generators)


ORDERS = {"outside-in": outside_in, **{name: (lambda p, x, g, r, name=name: ancestral(p, x, g, name, STEPS, r))
                                       for name in ("greedy", "antigreedy", "random", "spread")}}


def ranks(values): # (n,) -> (n,) float64, ties shared
    _, inverse, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0).double() - (count.double() - 1) / 2)[inverse]


def outwardness(turn, far, hidden): # (N,): Spearman's correlation of when and how far from the rim; 1 is outside-in
    def one(t, d): return torch.corrcoef(torch.stack([ranks(t), ranks(d)]))[0, 1]
    return torch.stack([one(t[h], d[h]) for t, d, h in zip(turn, far, hidden)])


def measure(holes, record):
    fair, far, hidden, rows = cost(holes, holes.images), depth(holes.given), ~holes.given, {}
    costs = {}
    for name, order in tqdm(ORDERS.items(), desc=holes.name):
        turn = torch.zeros(holes.images.shape)
        def when(predict, images, given, generators): # the states as they are, and when each variable was drawn
            taken = torch.zeros(images.shape)
            for step, state in enumerate(order(predict, images, given, generators)):
                taken[state.redrawn] = step
                yield state
            turn[torch.tensor([g.initial_seed() for g in generators])] = taken
        filled, _ = fill(holes, when)
        costs[name] = cost(holes, filled)
        rows[name] = dict(outside_in=interval(mean, outwardness(turn, far, hidden)),
                          first_ring=interval(mean, first_tenth(turn, far, hidden)),
                          **judged(holes, filled, costs[name], fair))
        if holes.objects is None: rows[name]["map"] = [rounded(row) for row in turn[:, :, 16:48, 16:48].mean((0, 1))]
        record["rows"] = rows
    record["less_than_random"] = {name: interval(mean, paid - costs["random"]) for name, paid in costs.items()}


def first_tenth(turn, far, hidden): # (N,): of the first tenth of turns, the share within two pixels of the rim
    early = hidden & (turn < STEPS / 10)
    return (early & (far <= 2)).flatten(1).sum(1) / early.flatten(1).sum(1)


def draw_pictures(): # a row for each photograph: the hole, each order half way and at the end, the truth
    holes = shown_photographs()
    chosen = torch.tensor([0, 2])
    images, given = holes.images[chosen], holes.given[chosen]
    columns = [images * given]
    for order in ORDERS.values():
        states = list(order(holes.reading(chosen), images, given,
                            [torch.Generator().manual_seed(i) for i in chosen.tolist()]))
        columns += [states[STEPS // 4 - 1].images, states[-1].images]
    columns.append(images)
    save_sheet(NAME, columns)


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=32, photos=24)
    draw_pictures()
    for holes in parts(args): measure(holes, Record(NAME, holes, args))


if __name__ == "__main__": main()
