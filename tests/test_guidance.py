"""Guidance: what it leaves alone, what it tilts, and what its limits limit."""
import math

import pytest
import torch

from my3yearold.guidance import guided

ASKED, PLAIN = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1)


def fixed(table): return lambda images, given, where: table


def louder(scale, ceiling=1.0, asked=ASKED, plain=PLAIN):
    return guided(fixed(asked), fixed(plain), scale, ceiling)(None, None, None)


def test_scales_1_and_0_cost_one_evaluation():
    asked, plain = fixed(ASKED), fixed(PLAIN)
    assert guided(asked, plain, 1) is asked and guided(asked, plain, 0) is plain


@pytest.mark.parametrize("scale", [-1, 0.5, 2, 3])
def test_without_limits_the_ratio_counts_scale_times(scale):
    tilted = (PLAIN + scale * (ASKED - PLAIN)).softmax(-1)
    assert torch.allclose(louder(scale, ceiling=50).softmax(-1), tilted, atol=1e-5)


def test_the_ceiling_limits_what_speaks_for_a_level_and_not_the_caption_itself():
    asked, plain = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.001, 0.999]]).log()
    extra = louder(3, 1.0, asked, plain) - asked
    assert math.isclose(extra[0, 0].item(), 2.0, rel_tol=1e-5)              # twice a ratio of at most e
    assert math.isclose(extra[0, 1].item(), 2 * math.log(0.1 / 0.999), rel_tol=1e-5)
    # a ceiling of 0: against a level, never for it
    assert (louder(3, 0.0) - ASKED).max() <= 1e-6


def test_what_the_caption_rules_out_stays_out():
    asked = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    plain = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert torch.equal(louder(3, 1.0, asked, plain).softmax(-1), torch.tensor([[1.0, 0.0, 0.0]]))
