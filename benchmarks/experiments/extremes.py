"""Where black, white and hard primaries come from: by direction, start, order, temperature and way of drawing.

    python benchmarks/experiments/extremes.py --data coco-tiles.tar.bz2

All fillings take 32 evaluations. Beside them the mass that the network itself puts on the extreme levels where the true
values around are known. Writes nbs/experiments/results/02_extremes.json and the pictures of its figure."""
import torch
from tqdm import tqdm
from my3yearold.ancestral import ancestral
from my3yearold.gibbs import chain_of_2017, gibbs
from my3yearold.remasking import remasking
from my3yearold.sampling import Central
from common import Record, arguments, ends, fill, interval, parts, ratio, save_sheet, shown_photographs
from quality import extreme

NAME, STEPS = "02_extremes", 32


def in_order(order, temperature=1.0, of=lambda predict: predict):
    return lambda p, x, g, r: ancestral(of(p), x, g, order, STEPS, r, temperature)


def by_gumbel(predict): # the same law, drawn as most programs do: the argmax of logits plus float32 Gumbel noise
    chance = torch.Generator().manual_seed(0)
    def drawn(images, given, where):
        logits = predict(images, given, where).float()
        noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=chance).clamp_min(2**-24)))
        certain = torch.full_like(logits, -torch.inf)
        return certain.scatter_(-1, (logits + noise).argmax(-1, keepdim=True), 0.0)
    return drawn


RUNS = { # name -> (predict, images, given, generators) -> states
    "2017, black start": lambda p, x, g, r: chain_of_2017(p, x, g, STEPS, "black", 0.7, r),
    "2017, noise start": lambda p, x, g, r: chain_of_2017(p, x, g, STEPS, "noise", 0.4, r),
    "as meant, one-shot start": lambda p, x, g, r: gibbs(p, x, g, STEPS, generator=r),
    "random order": in_order("random"),
    "spread order": in_order("spread"),
    "greedy order": in_order("greedy"),
    "antigreedy order": in_order("antigreedy"),
    "surest values kept": lambda p, x, g, r: remasking(p, x, g, STEPS, 0.0, "surest", r),
    "spread, logits / 0.75": in_order("spread", 0.75),
    "spread, logits / 0.5": in_order("spread", 0.5),
    "spread, likeliest level": in_order("spread", 0.0),
    "spread, central 0.75": in_order("spread", Central(0.75)),
    "spread, central 0.5": in_order("spread", Central(0.5)),
    "spread, float32 Gumbel": in_order("spread", 1.0, by_gumbel),
}
SHOWN = ["2017, black start", "surest values kept", "spread, likeliest level", "spread, logits / 0.5", "spread order",
         "spread, central 0.5"]


def corners(filled, given): # -> columns: pixels that are black, white, of another corner of the cube; hidden pixels
    low, high, hidden = filled <= 2, filled >= 253, (~given).all(1)
    black, white = low.all(1), high.all(1)
    primary = (low | high).all(1) & ~black & ~white
    return [(where & hidden).double().flatten(1).sum(1) for where in (black, white, primary, hidden.expand_as(black))]


def shares(filled, given): # name -> value and interval
    black, white, primary, hidden = corners(filled, given)
    return dict(extremes=interval(ratio, *ends(filled, given)), black=interval(ratio, black, hidden),
                white=interval(ratio, white, hidden), primary=interval(ratio, primary, hidden))


def mass_at_the_ends(logits, temperature): # (K, levels) -> (K,): the share of draws that will be extreme
    levels = torch.arange(logits.shape[-1])
    if temperature == 0: return extreme(logits.argmax(-1)).double()
    central = isinstance(temperature, Central)
    p = (logits.double() / (1.0 if central else temperature)).softmax(-1)
    if central:
        low, high = 0.5 - temperature.t / 2, 0.5 + temperature.t / 2
        above = p.cumsum(-1)
        p = (above.clamp(max=high) - (above - p).clamp(min=low)).clamp(min=0) / temperature.t
    return p[:, extreme(levels)].sum(-1)


def announced(holes): # temperature -> known share -> mass at the ends where the context is true, beside the truth's
    temperatures = {"1": 1.0, "logits / 0.75": 0.75, "logits / 0.5": 0.5, "likeliest level": 0.0,
                    "central 0.75": Central(0.75), "central 0.5": Central(0.5)}
    n = len(holes.images)
    found = {name: {} for name in ["truth", *temperatures]}
    for known in (0.0, 0.5, 0.9):
        chance, mass = torch.Generator().manual_seed(0), {name: torch.zeros(n) for name in found}
        asked = ~holes.given & (torch.rand(holes.given.shape, generator=chance) >= known)
        for index in holes.batches():
            where = asked[index]
            logits = holes.reading(index)(holes.images[index] * ~where, ~where, where)
            whose = index[where.nonzero()[:, 0]]
            for name, t in temperatures.items(): mass[name].index_add_(0, whose, mass_at_the_ends(logits, t).float())
            mass["truth"].index_add_(0, whose, extreme(holes.images[index][where]).float())
        size = asked.flatten(1).sum(1)
        for name, values in mass.items(): found[name][str(known)] = interval(ratio, values, size)
    return found


def measure(holes, record):
    record["announced"] = announced(holes)
    rows = dict(truth=shares(holes.images, holes.given))
    for name, sampler in tqdm(RUNS.items(), desc=holes.name):
        rows[name] = shares(fill(holes, sampler)[0], holes.given)
        record["rows"] = rows


def draw_pictures(): # a row for each photograph: its hole, the fillings of SHOWN, the truth
    holes = shown_photographs()
    chosen = torch.tensor([0, 2, 5])
    images, given = holes.images[chosen], holes.given[chosen]
    columns = [images * given]
    for name in SHOWN:
        *_, state = RUNS[name](holes.reading(chosen), images, given,
                               [torch.Generator().manual_seed(i) for i in chosen.tolist()])
        columns.append(state.images)
    columns.append(images)
    save_sheet(NAME, columns)


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=8, photos=24)
    draw_pictures()
    for holes in parts(args): measure(holes, Record(NAME, holes, args))


if __name__ == "__main__": main()
