"""Muon's step, by hand."""
import math

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
