"""Mergers: loops and batched forms agree, padding has no weight, an empty caption leaves the features as they are, and
only attention can tell pixels apart."""
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from my3yearold.attention import MERGERS, CaptionAttention, ConvMerger
from my3yearold.saving import load_model

WEIGHTS = Path(__file__).resolve().parent.parent / "my3yearold" / "weights"
each_merger = pytest.mark.parametrize("merger", MERGERS.values(), ids=MERGERS)


def disturbed(merger):
    "In double precision, away from its symmetric start."
    merger = merger.double()
    with torch.no_grad():
        for p in merger.parameters(): p.add_(0.3 * torch.randn_like(p))
    return merger


def batch(lengths, T=5):
    features = torch.randn(len(lengths), 6, 3, 4, dtype=torch.float64)
    return features, torch.randn(len(lengths), T, 4, dtype=torch.float64), torch.tensor(lengths)


# ---- by hand ----

def attend(attention, q, states): # (C,), (n, S) real words only -> (C,)
    z = attention.values(states).relu()
    weights = torch.softmax(torch.stack([q @ attention.metric @ word for word in z]) / len(q) ** 0.5, 0)
    return q + sum(a * word for a, word in zip(weights, z))


def mix(merger, q, states):
    v = merger.values(states[-1]).relu()
    return merger.mix.weight[:, :, 0, 0] @ torch.cat([q, v]) + merger.mix.bias


@pytest.mark.parametrize("name,naive", [("attention", attend), ("conv", mix)])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_pixel_by_pixel(name, naive, lengths):
    merger = disturbed(MERGERS[name](6, 4))
    features, states, lengths = batch(lengths)
    out = merger(features, states, lengths)
    for n, length in enumerate(lengths.tolist()):
        for y in range(3):
            for x in range(4):
                q = features[n, :, y, x]
                torch.testing.assert_close(out[n, :, y, x], naive(merger, q, states[n, :length]) if length else q)


# ---- what both promise ----

@each_merger
def test_an_empty_caption_is_a_no_op(merger):
    "In value, bit by bit, and in the gradient, whatever stands in the states."
    merger = disturbed(merger(6, 4))
    features, states, lengths = batch([0, 3])
    states[0] = 1e3
    features.requires_grad_(), states.requires_grad_()
    out = merger(features, states, lengths)
    assert torch.equal(out[0], features[0])
    out[0].sum().backward()
    assert torch.equal(features.grad[0], torch.ones_like(features[0]))
    assert states.grad.abs().sum() == 0 and all(p.grad.abs().sum() == 0 for p in merger.parameters())


@each_merger
def test_padding_is_not_seen(merger):
    merger = disturbed(merger(6, 4))
    features, states, lengths = batch([2, 5])
    other = states.clone()
    other[0, 2:] = 1e3
    assert torch.equal(merger(features, states, lengths), merger(features, other, lengths))
    torch.testing.assert_close(merger(features[:1], states[:1, :2], lengths[:1]), merger(features, states, lengths)[:1])


@each_merger
def test_every_parameter_learns_and_any_size_will_do(merger):
    merger = merger(6, 4)
    for side in (1, 7):
        merger(torch.randn(2, 6, side, side), torch.randn(2, 5, 4), torch.tensor([5, 3])).square().sum().backward()
    for name, p in merger.named_parameters(): assert p.grad.abs().sum() > 0, name


@each_merger
def test_autocast_and_channels_last(merger):
    merger = merger(8, 4).to(memory_format=torch.channels_last)
    features = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    states, lengths = torch.randn(2, 5, 4), torch.tensor([5, 0])
    exact = merger(features, states, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16): out = merger(features, states, lengths)
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)


# ---- what sets them apart ----

def test_conv_merger_adds_the_same_vector_everywhere():
    merger = disturbed(ConvMerger(6, 4))
    features, states, lengths = batch([5])
    change = merger(features, states, lengths) - merger(features, torch.randn_like(states), lengths)
    torch.testing.assert_close(change, change[:, :, :1, :1].expand_as(change))
    assert change.abs().max() > 0.01


def test_conv_merger_starts_as_features_plus_a_vector():
    merger = ConvMerger(6, 4).double()
    features, states, lengths = batch([5])
    added = merger(features, states, lengths) - features
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))


def test_attention_adds_different_words_to_different_pixels():
    attention = disturbed(CaptionAttention(6, 4))
    features, states, lengths = batch([5])
    change = attention(features, states, lengths) - features
    assert (change - change[:, :, :1, :1]).abs().max() > 0.01


def test_relevance_is_a_distribution_over_real_words():
    attention = disturbed(CaptionAttention(6, 4))
    features, states, lengths = batch([5, 2, 0])
    maps = attention.relevance(features, states, lengths)
    torch.testing.assert_close(maps.sum(-1), (lengths > 0).double()[:, None, None].expand(3, 3, 4))
    assert (maps[1, ..., 2:] == 0).all() and (maps[2] == 0).all() and (maps[0] > 0).all()


def test_metric_starts_as_a_plain_dot_product():
    assert torch.equal(CaptionAttention(6, 4).metric, torch.eye(6))


# ---- what was there before ----

def test_attention_keeps_the_names_of_saved_weights():
    shapes = {name: tuple(p.shape) for name, p in CaptionAttention(6, 4).state_dict().items()}
    assert shapes == {"metric": (6, 6), "values.weight": (6, 4), "values.bias": (6,)}


@pytest.mark.parametrize("name", ["scenes", "photos"])
def test_bundled_metrics_have_learned(name):
    model, _, _ = load_model(WEIGHTS / name)
    metrics = [module.metric for module in model.modules() if isinstance(module, CaptionAttention)]
    assert metrics
    for metric in metrics:
        assert metric.isfinite().all()
        assert (metric - torch.eye(len(metric))).norm() > 0.05 * len(metric) ** 0.5
