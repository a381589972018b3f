"""Does ancestral sampling accumulate errors, and does Gibbs sampling correct them?

    python benchmarks/experiments/errors.py --data coco-tiles.tar.bz2

The cost of the next variables along a run of 32 turns, under the network's own values and under the true ones, in the
same orders; runs of which the first turns are the truth's; chains of small blocks from an ancestral filling and from
the truth. Writes nbs/experiments/results/04_errors.json."""
import torch
from tqdm import tqdm
from my3yearold.ancestral import turns
from my3yearold.gibbs import constant, mend
from my3yearold.likelihood import nats
from my3yearold.losses import bits
from my3yearold.sampling import chain
from common import Record, arguments, cost, interval, intervals, mean, parts, ratio, roughness
from samplers import layout

NAME, STEPS = "04_errors", 32
HEAD_STARTS = (1, 2, 4, 8, 16)     # turns of the truth's before the network draws
LOOKS = (0, 2, 8, 32)             # blocks after which a chain is priced


def along(turn, start, generators): # the rest of an ancestral run, of which the first turns are there
    def sampler(predict, images, given, unused):
        return chain(predict, images * (turn < start), ((turn < s, turn == s) for s in range(start, STEPS)), generators)
    return sampler


def in_batches(holes, work): # work(index, hidden, generators) -> of each picture
    for index in holes.batches():
        yield index, work(index, ~holes.given[index], [torch.Generator().manual_seed(i) for i in index.tolist()])


def run(holes, order, start=0): # -> (N, 3, H, W) filled, (STEPS - start, N) bits of each turn, and its variables
    filled, paid, size = holes.images.clone(), *torch.zeros(2, STEPS - start, len(holes.images), dtype=torch.float64)
    def work(index, hidden, generators):
        turn = turns(hidden, order, STEPS, generators)
        sampler = along(turn, start, generators)
        for s, state in enumerate(sampler(holes.reading(index), holes.images[index], None, None)):
            paid[s, index], size[s, index] = bits(-state.log_prob), state.redrawn.flatten(1).sum(1).double()
        filled[index] = state.images
    for _ in in_batches(holes, work): pass
    return filled, paid, size


def true_costs(holes, order): # -> (STEPS, N) bits that the truth costs at each turn of the same orders
    paid = torch.zeros(STEPS, len(holes.images), dtype=torch.float64)
    def work(index, hidden, generators):
        turn, predict = turns(hidden, order, STEPS, generators), holes.reading(index)
        for s in range(STEPS):
            paid[s, index] = bits(nats(predict, holes.images[index], turn < s, turn == s)).flatten(1).sum(1)
    for _ in in_batches(holes, work): pass
    return paid


def far_off(holes, filled): # (N,) the layout's error: of photographs' tiles, or of the mean colour of a scene's hole
    if holes.objects is None: return layout(filled, holes.images)
    hidden = (~holes.given).flatten(2)
    off = ((filled.double() - holes.images.double()).flatten(2) * hidden).sum(2) / hidden.sum(2)
    return off.abs().mean(1)


def accumulation(holes, record, fair):
    found = {}
    for order in ("random", "spread"):
        filled, own, size = run(holes, order)
        true = true_costs(holes, order)
        found[order] = dict(own=intervals(ratio, own, size), true=intervals(ratio, true, size),
                            difference=intervals(lambda a, b, n: (a - b).sum(-1) / n.sum(-1), own, true, size),
                            first_half=interval(lambda a, n: a.sum(-1) / n.sum(-1), (own - true)[:16].sum(0),
                                                size[:16].sum(0)),
                            second_half=interval(lambda a, n: a.sum(-1) / n.sum(-1), (own - true)[16:].sum(0),
                                                 size[16:].sum(0)),
                            over_truth=interval(mean, cost(holes, filled) - fair))
        record["accumulation"] = found
    return filled                                                                       # of the last order


def head_starts(holes, record, fair, filled): # filled: without any
    found = {"0": dict(layout=interval(mean, far_off(holes, filled)),
                       over_truth=interval(mean, cost(holes, filled) - fair), known=0.0)}
    for start in tqdm(HEAD_STARTS, desc="head starts"):
        filled, paid, size = run(holes, "spread", start)
        found[str(start)] = dict(layout=interval(mean, far_off(holes, filled)),
                                 over_truth=interval(mean, cost(holes, filled) - fair),
                                 known=round(1 - (size.sum() / (~holes.given).sum()).item(), 4))
        record["head_starts"] = found


def mending(holes, record, fair, filled):
    "Blocks of a tenth, again and again: from the ancestral filling, and from the truth."
    found = {}
    for name, start in (("ancestral", filled), ("truth", holes.images)):
        rows, now, done = {}, start.clone(), 0
        for look in LOOKS:
            if look > done: now = mended(holes, now, look - done, done)
            done = look
            rough = roughness(now, holes.images, holes.given)
            rows[str(look)] = dict(over_truth=interval(mean, cost(holes, now) - fair),
                                   roughness=interval(ratio, *rough), layout=interval(mean, far_off(holes, now)))
            found[name] = rows
            record["mending"] = found


def mended(holes, start, steps, done): # -> (N, 3, H, W) after so many more blocks
    now = start.clone()
    for index in holes.batches():
        generators = [torch.Generator().manual_seed(1000 * done + i) for i in index.tolist()]
        *_, state = mend(holes.reading(index), start[index], holes.given[index], steps, constant(0.1),
                         generator=generators)
        now[index] = state.images
    return now


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=32, photos=20)
    for holes in parts(args):
        record, fair = Record(NAME, holes, args), cost(holes, holes.images)
        filled = accumulation(holes, record, fair)
        mending(holes, record, fair, filled)
        head_starts(holes, record, fair, filled)


if __name__ == "__main__": main()
