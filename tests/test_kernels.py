"""Few operations, the same function: the exported forms against plain ones, written down term by term, over twenty
steps; float32 where it is wanted, one memory order, and one graph."""
import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from my3yearold import attention, completion, heads, model as network, muon, qrnn
from my3yearold.heads import HEADS, head_named
from my3yearold.losses import cross_entropy
from my3yearold.model import OrderlessNADE
from my3yearold.muon import Muon
from my3yearold.trunks import MultiScale, ResidualBlock

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(vocab_size=9, size=16, levels=32, widths=(16, 24), blocks=(1, 1), word_size=8, state_size=8)


# ---- plain forms ----

def plain_pull_push(v, given, trust=0.1):
    def pull(total, w):
        if min(w.shape[-2:]) == 1: coarse = torch.zeros_like(total)
        else:
            coarse = pull(F.avg_pool2d(total, 2, ceil_mode=True), F.avg_pool2d(w, 2, ceil_mode=True))
            coarse = F.interpolate(coarse, size=w.shape[-2:], mode="bilinear", align_corners=False)
        return (total + trust * coarse) / (w + trust)
    return torch.where(given, v, pull(v * given, given.to(v.dtype)))


def plain_means(guess, given, steps=(1, 2, 4, 8), tolerance=0.045, trust=0.02):
    "One direction after another, each as slices of the picture; every pair of pixels seen from both sides."
    mean, count, means, counts = guess, torch.where(given, 1.0, trust), [], []
    height, width = guess.shape[-2:]
    def ends(size, d): return slice(max(0, -d), max(0, size - max(0, d))), slice(max(0, d), max(0, size + min(0, d)))
    for step in steps:
        total, weights = mean * count, count.clone()
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                if dy == dx == 0: continue
                (y, v), (x, u) = ends(height, dy), ends(width, dx)
                if y.stop <= y.start or x.stop <= x.start: continue
                n, m = count[..., y, x], count[..., v, u]
                misfit = ((mean[..., y, x] - mean[..., v, u]).square() * (n * m / (n + m))).sum(1, keepdim=True)
                weight = (-0.5 * misfit / tolerance ** 2).exp() * m
                weights[..., y, x] += weight
                total[..., y, x] += weight * mean[..., v, u]
        mean, count = total / weights, weights
        means.append(mean), counts.append(count)
    return torch.cat(means, 1), torch.cat(counts, 1)


def plain_running(f, u, start=None):
    states, h = [], torch.zeros_like(u[:, 0]) if start is None else start
    for t in range(u.shape[1]):
        h = f[:, t] * h + u[:, t]
        states.append(h)
    return torch.stack(states, 1)


def plain_attention(self, features, states, lengths):
    v = self.values(states).relu()
    scores = torch.einsum("nchw,cd,ntd->nhwt", features, self.metric, v) * v.shape[-1] ** -0.5
    real = (torch.arange(v.shape[1]) < lengths[:, None])[:, None, None]
    weights = scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(-1) * real
    return features + torch.einsum("nhwt,ntc->nchw", weights, v)


def plain_door(self, images, given):
    onehot = (F.one_hot(images.long(), self.levels) * given[..., None]).float()           # (N, 3, H, W, levels)
    table = self.basis @ self.smooth + self.free
    found = torch.einsum("nkhwl,klc->nchw", onehot, table) + torch.einsum("nkhw,kc->nchw", given.float(), self.mask)
    return found + self.bias[:, None, None]


def plain_head(self, features, guess, where, means): # the default one
    near = torch.cat([heads.neighbours(guess), means], 1).permute(0, 2, 3, 1)             # (N, H, W, 39)
    x, found = features.permute(0, 2, 3, 1), []
    def said(name, bias, c): return F.linear(x, getattr(self, name)[c], getattr(self, bias)[c])[..., None].unbind(-2)
    for c in range(3):
        (delta, rho), (nu, kappa) = said("peak", "peak_bias", c), said("tail", "tail_bias", c)
        g = guess[:, c, :, :, None]
        taps = F.linear(x, self.taps[c], self.tap_bias[c])
        squared = (self.values - (g + delta + (taps * (near - g)).sum(-1, keepdim=True))).square()
        first = F.linear(x, self.basis @ self.coefficients[c] + self.free[c], self.bias[c])
        first = first - 0.5 * rho.clamp(max=11).exp() * squared
        first = first - F.softplus(nu) * torch.log1p(squared * kappa.clamp(max=13).exp())
        (a, pi), m = said("expert", "expert_bias", c), means[:, 9 + c, :, :, None]
        second = -0.5 * pi.clamp(max=11).exp() * (self.values - m).square()
        first, second = first.log_softmax(-1) + F.logsigmoid(-a), second.log_softmax(-1) + F.logsigmoid(a)
        found.append(torch.logaddexp(first, second))
    everywhere = torch.stack(found, 1)                                                     # (N, 3, H, W, levels)
    if where.dtype == torch.bool: return everywhere[where]
    return everywhere.flatten(2, 3).take_along_dim(where[..., None], 2)


def plain_directions(gradients):
    return [muon.orthogonalised(g.flatten(1)).view_as(g) * 0.2 * max(len(g), g[0].numel()) ** 0.5 for g in gradients]


@pytest.fixture
def plainly(monkeypatch): # -> a function that makes the package use the plain forms
    def switch():
        monkeypatch.setattr(network, "pull_push", plain_pull_push)
        monkeypatch.setattr(network, "adaptive_means", plain_means)
        monkeypatch.setattr(network.Door, "forward", plain_door)
        monkeypatch.setattr(heads.AdaptiveHead, "forward", plain_head)
        monkeypatch.setattr(attention.CaptionAttention, "forward", plain_attention)
        monkeypatch.setattr(qrnn._Recurrence, "apply", plain_running)
        monkeypatch.setattr(muon, "directions", plain_directions)
    return switch


def learner(seed=0):
    torch.manual_seed(seed)
    made = OrderlessNADE(**SMALL)
    for p in made.parameters(): p.data += 0.05 * torch.randn_like(p)                      # nothing is left at its start
    return made


def question(step, n=3, size=16, levels=32):
    chance = torch.Generator().manual_seed(step)
    images = torch.randint(0, levels, (n, 3, size, size), generator=chance).to(torch.uint8)
    given = torch.rand(images.shape, generator=chance) < torch.rand(n, 1, 1, 1, generator=chance)
    ids, index = (torch.randint(a, b, shape, generator=chance) for a, b, shape in
                  ((1, 9, (n, 7)), (0, size * size, (n, 3, 40))))
    return images, given, ids, torch.tensor([7, 4, 0])[:n], index


def loss_of(made, images, given, ids, lengths, index):
    return cross_entropy(made(images, given, ids, lengths, index), images.flatten(2).gather(2, index)).mean()


def trained(optimiser, steps=20):
    made = learner()
    options, matrices = dict(lr=1e-3, weight_decay=0.01), [p for p in made.trunk.parameters() if p.ndim >= 2]
    stepper = (Muon(made.parameters(), matrices, **options) if optimiser == "muon"
               else torch.optim.AdamW(made.parameters(), **options))
    for step in range(steps):
        stepper.zero_grad()
        loss_of(made, *question(step)).backward()
        stepper.step()
    return made


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_twenty_steps_are_those_of_the_plain_forms(optimiser, plainly):
    before, after = learner().state_dict(), trained(optimiser).state_dict()
    plainly()
    plain = trained(optimiser).state_dict()
    for name, found in after.items(): assert torch.allclose(found, plain[name], rtol=0, atol=1e-5), name
    moved = max((after[name] - p).abs().max() for name, p in before.items())
    assert moved > 1e-3                                                                    # twenty steps do move them


@pytest.mark.parametrize("asked", ["pixels", "mask"])
def test_logits_are_those_of_the_plain_forms(asked, plainly):
    made = learner().eval()
    images, given, ids, lengths, index = question(0)
    where = index if asked == "pixels" else ~given & (torch.rand(given.shape) < 0.3)
    with torch.no_grad():
        found = made(images, given, ids, lengths, where)
        plainly()
        torch.testing.assert_close(found, made(images, given, ids, lengths, where), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (40, 3), (12, 20)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 1.0])
def test_completions_are_the_plain_ones(shape, share):
    chance = torch.Generator().manual_seed(int(100 * share) + shape[0])
    v, given = torch.rand(2, 3, *shape, generator=chance) * 2 - 1, torch.rand(2, 3, *shape, generator=chance) < share
    guess = completion.pull_push(v, given)
    assert torch.allclose(guess, plain_pull_push(v, given), atol=1e-6)
    for a, b in zip(completion.adaptive_means(guess, given), plain_means(guess, given)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


# ---- precision ----

@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("asked", ["pixels", "mask"])
def test_a_head_works_in_float32_under_autocast(name, asked):
    torch.manual_seed(0)
    head = head_named(name)(8, 32)
    for p in head.parameters(): p.data += 0.1 * torch.randn_like(p)
    features, guess = torch.randn(2, 8, 4, 4).bfloat16(), torch.rand(2, 3, 4, 4) * 2 - 1
    means = torch.rand(2, 12 if head.uses_means else 0, 4, 4)
    where = torch.randint(0, 16, (2, 3, 5)) if asked == "pixels" else torch.rand(2, 3, 4, 4) < 0.4
    with torch.no_grad():
        exact = head(features.float(), guess, where, means)
        with torch.autocast("cpu", torch.bfloat16): found = head(features, guess, where, means)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_the_model_answers_in_float32_under_autocast():
    made = learner()
    with torch.autocast("cpu", torch.bfloat16): logits = made(*question(0))
    assert logits.dtype == torch.float32
    logits.logsumexp(-1).mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters() if p.grad is not None)


# ---- memory ----

@pytest.mark.parametrize("amp", [False, True])
def test_every_activation_lies_channels_last(amp):
    made, seen = learner(), []
    kinds = torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.GroupNorm, attention.CaptionAttention, ResidualBlock
    def look(module, inputs, out): seen.append((module, inputs[0], out))
    for module in made.modules():
        if isinstance(module, (*kinds, MultiScale)): module.register_forward_hook(look)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp): made(*question(0))
    assert {type(module) for module, _, _ in seen} == {*kinds, MultiScale}
    for module, entered, out in seen:
        if module is not made.guess: assert entered.is_contiguous(memory_format=torch.channels_last), module
        assert out.is_contiguous(memory_format=torch.channels_last), module


def test_norms_that_lose_the_order_are_turned():
    "As on a GPU, where PyTorch's group norm returns channel after channel."
    class Turned(torch.nn.GroupNorm):
        def forward(self, x): return super().forward(x).contiguous()
    block = ResidualBlock(8).to(memory_format=torch.channels_last)
    block.norm1.__class__ = block.norm2.__class__ = Turned
    entered = []
    for conv in (block.conv1, block.conv2): conv.register_forward_hook(lambda module, x, out: entered.append(x[0]))
    block(torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last))
    assert [x.is_contiguous(memory_format=torch.channels_last) for x in entered] == [True, True]


# ---- one graph, few operations ----

@pytest.mark.parametrize("amp", [False, True])
def test_a_step_compiles_as_one_graph(amp):
    made, asked = learner(), question(0)
    def scored(*question):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp): return loss_of(made, *question)
    plain = torch.autograd.grad(scored(*asked), list(made.parameters()))
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scored, fullgraph=True, backend=graphs)
    found = torch.autograd.grad(compiled(*asked), list(made.parameters()))
    for step in (1, 2): compiled(*question(step))
    assert graphs.frame_count == 1
    for a, b in zip(found, plain): assert torch.allclose(a, b, rtol=1e-2 if amp else 1e-4, atol=1e-2 if amp else 1e-6)


def test_a_default_step_takes_half_the_operations():
    "Of those before, as benchmarks/kernels.py counted them."
    noted = json.loads((ROOT / "benchmarks" / "results" / "kernels.json").read_text())["operations"]
    spec = importlib.util.spec_from_file_location("kernels", ROOT / "benchmarks" / "kernels.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.operations()
    for part in ("forward", "backward", "muon, clip, average"):
        assert sum(found[part]) < 0.5 * sum(noted["before"][part]), part
    assert found["backward"][1] < 0.5 * noted["before"]["backward"][1]
