"""Muon's step, by hand."""
import math

import pytest
import torch

from my3yearold.muon import Muon, orthogonalised


def test_two_steps_by_hand():
    """The second one tells the mean of the gradients, the look ahead of it (Nesterov), and its weight decay apart:
    m <- 0.95 m + 0.05 g; direction of 0.05 g + 0.95 m; w <- (1 - lr wd) w - 0.2 sqrt(columns) lr direction."""
    generator = torch.Generator().manual_seed(0)
    w, g1, g2 = (torch.randn(4, 6, generator=generator) for _ in range(3))
    p = torch.nn.Parameter(w.clone())
    muon, by_hand, mean = Muon([p], [p], lr=0.01, weight_decay=0.1), w.clone(), torch.zeros(4, 6)
    for g in (g1, g2):
        p.grad = g.clone()
        muon.step()
        assert torch.equal(p.grad, g)
        mean = 0.95 * mean + 0.05 * g
        by_hand = by_hand * (1 - 0.01 * 0.1) - 0.01 * 0.2 * math.sqrt(6) * orthogonalised(0.05 * g + 0.95 * mean)
        assert torch.allclose(p, by_hand, atol=1e-6)
    plain = w * (1 - 0.01 * 0.1) ** 2
    assert not torch.allclose(p, plain, atol=1e-3)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_stacks_are_the_matrices_one_by_one(memory):
    "Filter banks of both memory orders, tall and wide matrices, several of one shape; a gradient that is missing."
    shapes = (8, 4, 3, 3), (8, 4, 3, 3), (4, 8, 2, 2), (9, 5), (5, 9), (9, 5)
    def drawn(seed):
        chance = torch.Generator().manual_seed(seed)
        several = [torch.randn(shape, generator=chance) for shape in shapes]
        return [x.to(memory_format=memory) if x.ndim == 4 else x for x in several]
    parameters = [torch.nn.Parameter(x) for x in drawn(0)]
    stepper = Muon(parameters, parameters, lr=0.01, weight_decay=0.1)
    alone = [torch.nn.Parameter(x.contiguous()) for x in drawn(0)]
    steppers = [Muon([p], [p], lr=0.01, weight_decay=0.1) for p in alone]
    for seed in (1, 2):
        for p, q, g in zip(parameters, alone, drawn(seed)): p.grad, q.grad = g, g.contiguous()
        parameters[-1].grad = alone[-1].grad = None
        for one in (stepper, *steppers): one.step()
    for p, q in zip(parameters, alone): assert torch.allclose(p, q, atol=1e-6)
    assert torch.equal(parameters[-1], drawn(0)[-1])
    assert {name for p in parameters[:-1] for name in stepper.state[p]} == {"step", "mean"}    # what checkpoints hold


def test_a_stack_is_its_matrices():
    several = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(several)
    for matrix, one in zip(several, found): assert torch.allclose(orthogonalised(matrix), one, atol=1e-5)
    assert torch.allclose(orthogonalised(several.mT), found.mT, atol=1e-5)
    assert (torch.linalg.svdvals(found) - 1).abs().max() < 0.4
