"""Every sampler, under a predictor made by hand in float64, draws for a fixed seed what it drew before.

`same_draws.json` holds, for each case, the number of states, a checksum of the pictures and of what was redrawn in all
of them, the last pictures, and the sum of each picture's log-probabilities. `python tests/test_same_draws.py` writes it
anew: do that only when a sampler is meant to draw something else, and say so in the CHANGELOG."""
import json
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from my3yearold.ancestral import ancestral
from my3yearold.budgets import entropy_bounded, growing, in_pieces, spend
from my3yearold.gibbs import (
    Filling,
    chain_of_2017,
    constant,
    cosine_schedule,
    gibbs,
    mend,
    mending_schedule,
    yao_schedule,
)
from my3yearold.remasking import remasking
from my3yearold.sampling import Central, draw, one_shot

FILE = Path(__file__).with_name("same_draws.json")
LEVELS = 5


def seeded(seed): return torch.Generator().manual_seed(seed)


def by_hand(images, given, where):
    "Logits (K, LEVELS), float64: levels near the mean of the given values are likelier, more so the more are given."
    n, d = where.flatten(1).nonzero(as_tuple=True)
    known = given.flatten(1).sum(1).double()
    mean = (images.double() * given).flatten(1).sum(1) / known.clamp(min=1)
    sharp = 0.5 + known[n] / given[0].numel() + (d % 7) / 5
    return -sharp[:, None] * (torch.arange(LEVELS) - mean[n, None] + 0.1 * (d % 3)[:, None]).abs()


def batch():
    "Three pictures of 3 x 4 pixels: one hidden whole, one in part, channels apart, and one not at all."
    images = torch.randint(0, LEVELS, (3, 3, 3, 4), generator=seeded(11), dtype=torch.uint8)
    given = torch.rand(images.shape, generator=seeded(12)) < 0.4
    given[0], given[2] = False, True
    return images, given


FITTED = spend(in_pieces(torch.tensor([5, 3, 2.2, 1.8, 1.6, 1.5, 1.5, 1.4]), 36), 5)[0]
PICTURES = torch.randint(0, LEVELS, (3, 3, 3, 4), generator=seeded(13), dtype=torch.uint8)


def mended(predict, images, given, **options): # a chain that starts from pictures
    return mend(predict, torch.where(given, images, PICTURES), given, **options)


ORDERS = "random", "spread", "raster", "greedy", "antigreedy", "margin"
CASES = {
    "one_shot": one_shot,
    "one_shot, temperature 0": partial(one_shot, temperature=0),
    "one_shot, temperature 0.6": partial(one_shot, temperature=0.6),
    "one_shot, Central(0.4)": partial(one_shot, temperature=Central(0.4)),
    **{
        f"ancestral, {order}, {name}": partial(ancestral, order=order, evaluations=evaluations)
        for order in ORDERS
        for name, evaluations in (
            ("one at a time", None),
            ("4 equal", 4),
            ("5 fitted", FITTED),
            ("4 growing", growing(4, 10)),
        )
    },
    "ancestral, spread, Central(0.5)": partial(ancestral, order="spread", evaluations=6, temperature=Central(0.5)),
    "ancestral, greedy, temperature 0.5": partial(ancestral, order="greedy", evaluations=6, temperature=0.5),
    **{f"entropy_bounded, {bound}": partial(entropy_bounded, bound=bound) for bound in (0, 2.5, 6.0, 1e9)},
    **{
        f"gibbs, {block}, {name}": partial(gibbs, num_steps=5, block=block, schedule=schedule)
        for block in ("independent", "ancestral")
        for name, schedule in (
            ("yao", yao_schedule),
            ("cosine", cosine_schedule),
            ("constant", constant(0.3)),
            ("mending", mending_schedule),
        )
    },
    "gibbs, ancestral in 2": partial(gibbs, num_steps=4, block="ancestral", inner=2),
    "gibbs, start 3": partial(gibbs, num_steps=6, start=Filling(3)),
    "gibbs, start fitted, spread": partial(
        gibbs, num_steps=8, start=Filling(FITTED, "spread"), schedule=mending_schedule
    ),
    "gibbs, start raster, two temperatures": partial(
        gibbs, num_steps=6, temperature=0.8, start=Filling(3, "raster", Central(0.6))
    ),
    "gibbs, start pictures": partial(mended, num_steps=4),
    "gibbs, start pictures, ancestral": partial(mended, num_steps=3, block="ancestral", inner=3),
    "chain_of_2017, black": partial(chain_of_2017, num_steps=6),
    "chain_of_2017, noise": partial(chain_of_2017, num_steps=6, start="noise", eta=0.4),
    **{
        f"remasking, {keep}, {rate}": partial(remasking, num_steps=5, rate=rate, keep=keep)
        for keep in ("random", "surest")
        for rate in (0, 0.3)
    },
    "remasking, Central(0.5)": partial(remasking, num_steps=5, temperature=Central(0.5)),
}
GENERATORS = {"one generator": lambda: seeded(7), "one per picture": lambda: [seeded(s) for s in (7, 8, 9)]}


def summary(states):
    digest = sha256()
    for state in states:
        for part in (state.images, state.redrawn): digest.update(part.contiguous().numpy().tobytes())
    return dict(states=len(states), checksum=digest.hexdigest()[:16],
                last=["".join(map(str, picture.flatten().tolist())) for picture in states[-1].images],
                log_prob=[round(p, 6) for p in sum(s.log_prob for s in states).tolist()])


def run(name, generators): return summary(list(CASES[name](by_hand, *batch(), generator=GENERATORS[generators]())))


def drawn(temperature):
    logits = 2 * torch.randn(40, 16, generator=seeded(3), dtype=torch.float64)
    values, log_prob = draw(logits, seeded(4), temperature)
    return dict(values=values.tolist(), log_prob=[round(p, 6) for p in log_prob.tolist()])


TEMPERATURES = {"1": 1.0, "0": 0, "0.5": 0.5, "2": 2.0,
                "Central(1)": Central(1), "Central(0.3)": Central(0.3), "Central(0)": Central(0)}


@pytest.fixture(scope="module")
def before(): return json.loads(FILE.read_text())


def test_every_case_is_in_the_file(before):
    assert before["draw"].keys() == TEMPERATURES.keys()
    assert before["samplers"].keys() == {f"{name}; {g}" for name in CASES for g in GENERATORS}


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draw_takes_the_same_values(temperature, before):
    now, then = drawn(TEMPERATURES[temperature]), before["draw"][temperature]
    assert now["values"] == then["values"] and now["log_prob"] == pytest.approx(then["log_prob"], abs=2e-6)


@pytest.mark.parametrize("generators", GENERATORS)
@pytest.mark.parametrize("name", CASES)
def test_a_sampler_draws_the_same_values(name, generators, before):
    now, then = run(name, generators), before["samplers"][f"{name}; {generators}"]
    for part in ("states", "last", "checksum"): assert now[part] == then[part]
    assert now["log_prob"] == pytest.approx(then["log_prob"], abs=2e-6)


if __name__ == "__main__":
    lines = {"draw": {name: drawn(t) for name, t in TEMPERATURES.items()},
             "samplers": {f"{name}; {g}": run(name, g) for name in CASES for g in GENERATORS}}
    rows = [f' "{part}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in cases.items()) + "\n }"
            for part, cases in lines.items()]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
