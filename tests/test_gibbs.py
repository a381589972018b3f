"""The chain of 2017 and remasking: what each redraws, and which settings are refused."""
import pytest
import torch

from my3yearold.gibbs import Filling, chain_of_2017, gibbs, yao_schedule
from my3yearold.remasking import remasking
from my3yearold.yardsticks import two_pixels

LARGE = torch.zeros(1, 3, 40, 40, dtype=torch.uint8), torch.zeros(1, 3, 40, 40, dtype=torch.bool)


def seeded(seed): return torch.Generator().manual_seed(seed)


def flat(images, given, where): return torch.zeros(int(where.sum()), 256)


@pytest.mark.parametrize("start, eta", [("black", 0.7), ("noise", 0.4)])
def test_the_chain_of_2017_keeps_with_the_probability_of_the_schedule(start, eta):
    "Each step's share of redrawn variables is 1 - alpha_n, within five standard errors of 4,800 coins."
    states = list(chain_of_2017(flat, *LARGE, 12, start, eta, seeded(0)))
    assert len(states) == 12
    for step, state in enumerate(states):
        share = state.redrawn.double().mean().item()
        assert abs(share - (1 - yao_schedule(step, 12, eta=eta))) < 5 * 0.5 / 4800 ** 0.5


def test_the_chain_of_2017_conditions_on_what_stood_in_the_hole():
    seen = []
    def predict(images, given, where):
        seen.append(images[given])
        return flat(images, given, where)
    list(chain_of_2017(predict, *LARGE, 1, "black", generator=seeded(0)))
    list(chain_of_2017(predict, *LARGE, 1, "noise", generator=seeded(0)))
    assert len(seen[0]) > 4000 and (seen[0] == 0).all()                     # nine tenths of the hole, black
    assert seen[1].float().std() > 60                                       # uniform noise: 74 levels


def test_the_chain_of_2017_never_writes_a_given_value():
    images = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8, generator=seeded(1))
    given = torch.rand(images.shape, generator=seeded(2)) < 0.5
    for state in chain_of_2017(flat, images, given, 5, "noise", 0.4, [seeded(3), seeded(4)]):
        assert torch.equal(state.images[given], images[given]) and not (state.redrawn & given).any()


def test_remasking_takes_draws_back_at_its_rate():
    "Before turn 2 of 2 half of the hole is drawn; a share `rate` of it is drawn again, with the other half."
    first, second = remasking(flat, *LARGE, 2, 0.25, generator=seeded(0))
    again = (first.redrawn & second.redrawn).double().sum() / first.redrawn.sum()
    assert abs(again.item() - 0.25) < 5 * (0.25 * 0.75 / 2400) ** 0.5
    assert (first.redrawn | second.redrawn).all()


def test_surest_kept_prefers_likely_values():
    """Of the first turn's draws from exact conditionals, those kept have a higher mean probability than random ones
    have."""
    joint, blank = two_pixels(), torch.zeros(500, 3, 1, 2, dtype=torch.uint8)
    nothing = torch.zeros_like(blank, dtype=torch.bool)
    means = {keep: next(iter(remasking(joint, blank, nothing, 3, 0.0, keep, seeded(0)))).log_prob.mean()
             for keep in ("random", "surest")}
    assert means["surest"] > means["random"] + 0.3


@pytest.mark.parametrize("call, words", [
    (lambda: list(remasking(flat, *LARGE, num_steps=0)), "num_steps=0"),
    (lambda: list(remasking(flat, *LARGE, rate=-0.1)), "rate=-0.1"),
    (lambda: chain_of_2017(flat, *LARGE, 0), "num_steps=0"),
    (lambda: gibbs(flat, *LARGE, num_steps=3, start=Filling(4)), "turns=4.*num_steps=3")])
def test_settings_that_make_no_chain_are_refused(call, words):
    with pytest.raises(ValueError, match=words): call()
