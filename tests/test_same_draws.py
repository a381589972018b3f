"""The samplers draw what they drew: under a predictor made by hand, in float64, the same seeds give the same values.

`same_draws.json` holds a checksum of every sampler's values and of what it redrew when. It was written once, by
`python tests/test_same_draws.py`, before the samplers moved to modules of their own."""
import hashlib
import json
from pathlib import Path

import pytest
import torch

from my3yearold.ancestral import ancestral
from my3yearold.budgets import entropy_bounded, surest_first
from my3yearold.gibbs import constant, cosine_schedule, gibbs, mending_schedule, yao_schedule
from my3yearold.remasking import remasking
from my3yearold.sampling import Central, draw, one_shot

CHECKSUMS = Path(__file__).with_name("same_draws.json")
LEVELS = 7


def predict(images, given, where):
    "Float64 logits that hang on everything given: quarters of whole numbers, so that no rounding can tell machines apart."
    n, variables = len(images), images[0].numel()
    weights = torch.arange(variables).add(1).outer(torch.arange(variables).add(3)).add(5) % 11                  # (D, D)
    known = ((images.long() + 1) * given).reshape(n, variables) @ weights                                        # (N, D)
    scores = (known[..., None] * torch.arange(1, LEVELS + 1) + torch.arange(LEVELS) ** 2 * 3) % 13               # (N, D, L)
    return (scores.double() / 4).reshape(*images.shape, LEVELS)[where]


def generator(seed=11): return torch.Generator().manual_seed(seed)


def question():
    "Four pictures of 3x4x4; the first hole is everything, the last nothing."
    images = torch.randint(0, LEVELS, (4, 3, 4, 4), generator=generator(1), dtype=torch.uint8)
    given = torch.rand(images.shape, generator=generator(2)) < torch.tensor([-1.0, 0.3, 0.8, 2.0]).view(4, 1, 1, 1)
    return images, given


def start(): return torch.randint(0, LEVELS, (4, 3, 4, 4), generator=generator(5), dtype=torch.uint8)


CASES = {"one_shot": (one_shot, {})}
CASES |= {f"one_shot at {t}": (one_shot, {"temperature": t}) for t in (0, 0.7, Central(0.5))}
CASES |= {f"ancestral {order} {str(k).replace(' ', '')}": (sampler, {"order": order, "evaluations": k})
          for sampler, orders in ((ancestral, ("random", "raster", "spread")), (surest_first, ("greedy", "antigreedy", "margin")))
          for order in orders for k in (None, 1, 5, [1, 2, 4])}
CASES |= {f"ancestral spread 5 at {t}": (ancestral, {"order": "spread", "evaluations": 5, "temperature": t})
          for t in (0.7, Central(0.5))}
CASES |= {f"entropy_bounded {bound}": (entropy_bounded, {"bound": bound}) for bound in (0.0, 2.0, 20.0)}
CASES |= {f"gibbs {block} {schedule.__name__}": (gibbs, {"num_steps": 6, "block": block, "schedule": schedule})
          for block in ("independent", "ancestral") for schedule in (yao_schedule, cosine_schedule, mending_schedule)}
CASES |= {
    "gibbs constant": (gibbs, {"num_steps": 6, "schedule": constant(0.3)}),
    "gibbs inner 2": (gibbs, {"num_steps": 5, "block": "ancestral", "inner": 2}),
    "gibbs from 3 turns": (gibbs, {"num_steps": 6, "start": 3}),
    "gibbs from growing spread turns": (gibbs, {"num_steps": 6, "start": [1, 2, 4], "order": "spread", "start_temperature": 0.5}),
    "gibbs from raster turns, central": (gibbs, {"num_steps": 6, "start": 4, "order": "raster", "temperature": Central(0.7)}),
    "gibbs from pictures": (gibbs, {"num_steps": 6, "start": start()}),
    "remasking": (remasking, {"num_steps": 5, "rate": 0.3}),
    "remasking never": (remasking, {"num_steps": 5, "rate": 0.0}),
    "remasking surest": (remasking, {"num_steps": 5, "rate": 0.0, "keep": "surest"}),
    "remasking surest again": (remasking, {"num_steps": 5, "rate": 0.3, "keep": "surest"}),
}


def checksum(*tensors): return hashlib.blake2b(b"".join(t.numpy().tobytes() for t in tensors), digest_size=8).hexdigest()


def summary(name, each):
    "One generator for all pictures, or one for each."
    sampler, options = CASES[name]
    chance = [generator(20 + i) for i in range(4)] if each else generator()
    states = list(sampler(predict, *question(), generator=chance, **options))
    total = sum(state.log_prob for state in states).tolist()
    return {"steps": len(states), "values": checksum(states[-1].images), "redrawn": checksum(*(s.redrawn for s in states)),
            "log_prob": total}


def drawn(temperature):
    logits = torch.arange(400 * LEVELS).reshape(400, LEVELS) ** 2 % 17 / 4.0
    return draw(logits.double(), generator(3), temperature)


def everything():
    found = {f"{name}{', a generator a picture' * each}": summary(name, each) for name in CASES for each in (False, True)}
    for t in (0, 0.5, 1.0, Central(0.5)): values, _ = drawn(t); found[f"draw at {t}"] = {"values": checksum(values)}
    return found


@pytest.mark.parametrize("each", (False, True), ids=("one generator", "a generator a picture"))
@pytest.mark.parametrize("name", CASES)
def test_a_sampler_draws_what_it_drew(name, each):
    then = json.loads(CHECKSUMS.read_text())[f"{name}{', a generator a picture' * each}"]
    now = summary(name, each)
    assert now.pop("log_prob") == pytest.approx(then.pop("log_prob"), rel=1e-9)
    assert now == then


@pytest.mark.parametrize("temperature", (0, 0.5, 1.0, Central(0.5)), ids=str)
def test_draw_draws_what_it_drew(temperature):
    then = json.loads(CHECKSUMS.read_text())[f"draw at {temperature}"]
    assert checksum(drawn(temperature)[0]) == then["values"]


if __name__ == "__main__":
    CHECKSUMS.write_text(json.dumps(everything(), indent=1) + "\n")
