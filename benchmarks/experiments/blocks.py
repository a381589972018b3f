"""Are blocks drawn blind nearly as good as blocks drawn one variable after the other?

    python benchmarks/experiments/blocks.py --data coco-tiles.tar.bz2

Chains of Yao's schedule from one shot. A block is one evaluation where its variables are blind to each other, and four
where it is drawn in four turns. Beside them what blindness costs in one block by the block's size, all else being true.
Writes nbs/experiments/results/05_blocks.json."""
import torch
from tqdm import tqdm
from my3yearold.gibbs import gibbs
from my3yearold.likelihood import log_likelihood
from my3yearold.losses import bits
from common import Record, arguments, cost, fill, interval, judged, mean, parts, ratio

NAME, INNER = "05_blocks", 4
BLOCKS = {"independent": (8, 16, 32, 64), "ancestral": (8, 16)}      # in a chain, the first shot not counted
SIZES = (0.9, 0.5, 0.3, 0.1, 0.03)                                   # of one block, as a share of the hole
TURNS = 8


def chain(block, count):
    inner = dict(inner=INNER) if block == "ancestral" else {}
    return lambda p, x, g, r: gibbs(p, x, g, 1 + count, block=block, generator=r, **inner)


def chains(holes, record):
    fair, rows, paid = cost(holes, holes.images), {}, {}
    for block, count in tqdm([(b, n) for b, counts in BLOCKS.items() for n in counts], desc=holes.name):
        filled, _ = fill(holes, chain(block, count))
        paid[block, count] = cost(holes, filled)
        evaluations = 1 + count * (INNER if block == "ancestral" else 1)
        rows[f"{block}, {count} blocks"] = dict(evaluations=evaluations, blocks=count,
                                                **judged(holes, filled, paid[block, count], fair))
        record["rows"] = rows
    blind, exact = (lambda n: paid["independent", n]), (lambda n: paid["ancestral", n])
    record["ancestral_less_independent"] = {
        "equal blocks, 8": interval(mean, exact(8) - blind(8)),
        "equal blocks, 16": interval(mean, exact(16) - blind(16)),
        "equal evaluations, 33 and 33": interval(mean, exact(8) - blind(32)),
        "equal evaluations, 65 and 65": interval(mean, exact(16) - blind(64))}


def blindness(holes, record): # share of the hole -> bits per variable that one block drawn blind costs more
    found = {}
    for share in tqdm(SIZES, desc="blindness"):
        more, size = torch.zeros(2, len(holes.images), dtype=torch.float64)
        for index in holes.batches():
            chance = torch.Generator().manual_seed(0)
            block = ~holes.given[index] & (torch.rand(holes.given[index].shape, generator=chance) < share)
            predict, images = holes.reading(index), holes.images[index]
            def paid(turns): return -log_likelihood(predict, images, ~block, evaluations=turns, generator=chance)
            more[index], size[index] = bits(paid(1) - paid(TURNS)), block.flatten(1).sum(1).double()
        found[str(share)] = interval(ratio, more, size)
        record["blindness"] = found


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=32, photos=20)
    for holes in parts(args):
        record = Record(NAME, holes, args)
        blindness(holes, record)
        chains(holes, record)


if __name__ == "__main__": main()
