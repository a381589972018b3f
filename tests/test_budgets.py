"""How evaluations are spent: fitted and growing turns, the surest variables, and what a bound on entropies draws."""
import math

import pytest
import torch
from hypothesis import given as draws, settings, strategies as st

from my3yearold.ancestral import CERTAINTY, ancestral, entropy, lowest
from my3yearold.budgets import _within, entropy_bounded, growing, in_pieces, losses_by_known
from my3yearold.yardsticks import two_pixels


def seeded(seed): return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@draws(st.integers(1, 30), st.floats(1, 1000))
def test_growing_turns_grow_by_one_factor(evaluations, ratio):
    sizes = growing(evaluations, ratio)
    assert len(sizes) == evaluations and sizes[0] == 1
    if evaluations > 1: assert sizes[-1] == pytest.approx(ratio)
    factors = [b / a for a, b in zip(sizes, sizes[1:])]
    assert all(factor == pytest.approx(factors[0]) for factor in factors)


def test_no_turns_are_refused():
    with pytest.raises(ValueError, match="evaluations=0: at least 1"): growing(0)


def test_pieces_pass_through_the_points_and_stay_between_them():
    losses = torch.tensor([5.0, 3.0, 2.0, 1.0])
    fine = in_pieces(losses, 16)
    assert torch.equal(fine[::4], losses) and (fine.diff() <= 0).all() and fine[-1] == 1


def test_losses_by_known_fall_from_one_shot_to_the_last_piece():
    "Of exact conditionals on pictures drawn from their table: the mean over many pictures falls as more is known."
    joint, n = two_pixels(), 4000
    blank = torch.zeros(n, 3, 1, 2, dtype=torch.uint8)
    nothing = torch.zeros_like(blank, dtype=torch.bool)
    *_, state = ancestral(joint, blank, nothing, generator=seeded(0))
    losses = losses_by_known(joint, state.images, nothing, points=6, generator=seeded(1))
    marginal = torch.stack([joint.law @ (joint.images.flatten(1) == level).double() for level in range(3)])   # (3, 6)
    assert losses[0].item() == pytest.approx(float(-(marginal * marginal.log()).sum(0).mean()), abs=0.02)
    assert losses[-1] < losses[0] - 0.3
    truth = -(joint.law * joint.law.log()).sum().item() / 6
    assert losses.mean().item() == pytest.approx(truth, abs=0.03)                 # the chain rule, in random order


def test_entropy_of_certainty_is_nothing_and_of_ignorance_the_logarithm():
    sure = torch.full((1, 8), -math.inf)
    sure[0, 3] = 0
    assert entropy(sure).item() == 0 and entropy(torch.zeros(1, 8)).item() == pytest.approx(math.log(8))


@settings(deadline=None, max_examples=40)
@draws(st.integers(0, 10**6), st.integers(1, 4))
def test_lowest_takes_the_lowest_of_each_picture(seed, n):
    where = torch.rand(n, 3, 2, 3, generator=seeded(seed)) < 0.6
    score = torch.rand(int(where.sum()), generator=seeded(seed + 1), dtype=torch.float64)
    count = torch.randint(0, 20, (n,), generator=seeded(seed + 2))
    chosen = lowest(score, where, count)
    assert not (chosen & ~where).any()
    table = torch.zeros(where.shape, dtype=torch.float64)
    table[where] = score
    for picture in range(n):
        mine, taken = table[picture][where[picture]].sort().values, table[picture][chosen[picture]].sort().values
        assert torch.equal(taken, mine[:count[picture]])


@settings(deadline=None, max_examples=40)
@draws(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 2.0, 7.0, 1e6]))
def test_a_bound_draws_what_the_loop_over_each_picture_draws(seed, bound):
    left = torch.rand(3, 3, 2, 3, generator=seeded(seed)) < torch.tensor([0.8, 0.3, 0.0]).view(3, 1, 1, 1)
    score = 3 * torch.rand(int(left.sum()), generator=seeded(seed + 1), dtype=torch.float64)
    chosen = _within(score, left, bound)
    owner = left.flatten(1).nonzero()[:, 0]
    for picture in range(3):
        ordered, taken = sorted(score[owner == picture].tolist()), score[chosen[left] & (owner == picture)].tolist()
        count = 0
        while count < len(ordered) and sum(ordered[:count]) <= bound: count += 1
        assert int(chosen[picture].sum()) == count
        assert sorted(taken) == ordered[:count]


def test_the_bounded_sampler_takes_another_number_of_evaluations_where_it_is_sure():
    "Of a table whose second pixel copies the first if that is dark, and is free if not."
    joint = two_pixels()
    red = joint.images[:, 0].flatten(1)
    same = (joint.images[..., 0] == joint.images[..., 1]).flatten(1).all(1)
    law = torch.where(red[:, 0] == 0, same.double() + 1e-9, torch.ones(729).double())
    joint = type(joint)(law)
    blank = torch.zeros(400, 3, 1, 2, dtype=torch.uint8)
    nothing = torch.zeros_like(blank, dtype=torch.bool)
    states = list(entropy_bounded(joint, blank, nothing, 0.1, seeded(0)))
    count = sum(state.redrawn.flatten(1).any(1).long() for state in states)
    assert count.min() < count.max()
    dark = states[-1].images[:, 0, 0, 0] == 0
    assert count[dark].double().mean() < count[~dark].double().mean() - 1


def test_every_certainty_scores_each_row_by_itself():
    logits = torch.randn(5, 7, generator=seeded(0))
    for score in CERTAINTY.values():
        assert torch.allclose(score(logits), torch.cat([score(row[None]) for row in logits]))
