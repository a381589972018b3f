"""Likelihood: the chain rule against enumeration, estimates without bias, ensembles, gains, calibration; holes of any
shape, none included."""
import math

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold import likelihood
from my3yearold.ancestral import ancestral
from my3yearold.captions import Vocabulary
from my3yearold.likelihood import bits_per_dim, caption_gain, contributions, ensemble, log_likelihood, pit
from my3yearold.model import OrderlessNADE
from my3yearold.sampling import draw
from my3yearold.yardsticks import chi_square, two_pixels

LAW = two_pixels()


def seeded(seed): return torch.Generator().manual_seed(seed)


def conditional(image, given):
    "log p(hidden | given) from the table of all pictures."
    same = ((LAW.images == image) | ~given).flatten(1).all(1)
    return (LAW.law[(LAW.images == image).flatten(1).all(1)].sum() / LAW.law[same].sum()).log()


@settings(max_examples=25, deadline=None)
@forall(st.integers(0, 2 ** 31), st.sampled_from(["random", "raster"]))
def test_any_hole_in_any_order_is_the_table(seed, order):
    g = seeded(seed)
    images = LAW.images[torch.randint(729, (5,), generator=g)]
    given = torch.rand(images.shape, generator=g) < torch.rand(5, 1, 1, 1, generator=g)
    expected = torch.stack([conditional(x, m) for x, m in zip(images, given)])
    assert torch.allclose(log_likelihood(LAW, images, given, order, generator=g), expected, atol=1e-9)
    exact, error = bits_per_dim(LAW, images, given, generator=g)
    assert torch.allclose(exact * (~given).flatten(1).sum(1) * math.log(2), -expected, atol=1e-9) and not error.any()


def test_the_estimate_is_unbiased_for_every_hole():
    images, given = LAW.images[[5, 5, 300]], torch.zeros(3, 3, 1, 2, dtype=torch.bool)
    given[1, :2] = True
    many, holes = images.repeat_interleave(3000, 0), given.repeat_interleave(3000, 0)
    mean, stated = (x.view(3, 3000) for x in bits_per_dim(LAW, many, holes, 3, seeded(0)))
    exact, _ = bits_per_dim(LAW, images, given, generator=seeded(0))
    assert ((mean.mean(1) - exact).abs() < 4 * mean.std(1) / math.sqrt(3000) + 1e-9).all()
    assert (stated.square().mean(1).sqrt() > 0.95 * mean.std(1)).all()


def test_contributions_are_of_hidden_variables_only_and_nothing_hidden_is_shown():
    images, given = LAW.images[:40], torch.rand(40, 3, 1, 2, generator=seeded(1)) < 0.5
    def watched(x, known, where):
        assert not (x * ~known).any() and not (known & where).any() and (known >= given).all()
        return LAW(x, known, where)
    for cost in contributions(watched, images, given, 4, seeded(2)): assert not cost[given].any() and (cost >= 0).all()


def test_a_picture_does_not_depend_on_its_batch():
    images, given = LAW.images[[7, 70, 700]], torch.zeros(3, 3, 1, 2, dtype=torch.bool)
    given[1, 0] = True
    together, _ = bits_per_dim(LAW, images, given, 3, [seeded(1), seeded(2), seeded(3)])
    alone, _ = bits_per_dim(LAW, images[1:2], given[1:2], 3, [seeded(2)])
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("evaluations", [None, 1, 2, 4])
def test_a_filling_costs_what_its_sampler_said(evaluations):
    images, given = LAW.images[:20], torch.zeros(20, 3, 1, 2, dtype=torch.bool)
    given[::2, 1] = True
    states = list(ancestral(LAW, images, given, evaluations=evaluations, generator=seeded(3)))
    priced = log_likelihood(LAW, states[-1].images, given, evaluations=evaluations, generator=seeded(3))
    assert torch.allclose(torch.stack([s.log_prob for s in states]).sum(0), priced, atol=1e-9)


def test_ensembles_are_laws_and_never_worse_than_their_orders():
    def contrary(images, given, where):  # a predictor whose orders disagree
        return (1 + given.flatten(1).sum(1).double()[where.nonzero()[:, 0]] % 2)[:, None] * LAW(
            images, given, where
        ).log_softmax(-1)

    nothing = torch.zeros(729, 3, 1, 2, dtype=torch.bool)
    one = [seeded(9) for _ in range(729)]        # the same orders for every picture: then each order is one law
    together, each = ensemble(contrary, LAW.images, nothing, 3, generator=one)
    assert (together >= each.mean(0) - 1e-9).all() and (together - each.mean(0)).max() > 0.01
    assert (
        torch.allclose(each.exp().sum(1), torch.ones(3, dtype=torch.float64)) and abs(together.exp().sum() - 1) < 1e-9
    )


def test_gain_is_paired_and_its_map_adds_up():
    flat = lambda images, given, where: torch.zeros(int(where.sum()), 3)
    images, nothing = LAW.images[::9], torch.zeros(81, 3, 1, 2, dtype=torch.bool)
    gain, error, where_saved = caption_gain(LAW, flat, images, nothing, 3)
    assert torch.allclose(where_saved.flatten(1).sum(1), gain) and (error >= 0).all()
    same, no_error, _ = caption_gain(LAW, LAW, images, nothing, 3)
    assert not same.any() and not no_error.any()
    law = LAW.law[::9] / LAW.law[::9].sum()
    assert (law * gain).sum() > 0.5              # bits: knowing the law pays


@settings(max_examples=20, deadline=None)
@forall(st.integers(0, 2 ** 31), st.integers(2, 20))
def test_pit_is_uniform_for_the_right_law_only(seed, levels):
    logits = 2 * torch.randn(4000, levels, generator=seeded(seed))
    values, _ = draw(logits, seeded(seed + 1))
    u = pit(logits, values, seeded(seed + 2))
    assert ((u >= 0) & (u <= 1)).all()
    bins = lambda u: chi_square(torch.histc(u, 10, 0, 1), torch.full((10,), 0.1))
    assert bins(u) > 1e-6 > bins(pit(3 * logits, values, seeded(seed + 2)))


@pytest.mark.parametrize("evaluations", [None, 2])
def test_nothing_hidden_costs_nothing(evaluations):
    mean, error = bits_per_dim(LAW, LAW.images[:2], torch.ones(2, 3, 1, 2, dtype=torch.bool), evaluations)
    assert not mean.any() and not error.any()


def test_without_captions_there_is_nothing_to_say_of_them():
    found = likelihood.evaluate(*tiny_model(), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [[], []], 2)
    assert set(found) == {"whole", "centre"}


def test_refusal():
    with pytest.raises(ValueError, match="at least 2"):
        bits_per_dim(LAW, LAW.images[:1], torch.zeros(1, 3, 1, 2, dtype=torch.bool), 1)


def tiny_model():
    vocabulary = Vocabulary.build([["a red cat", "a blue dog"]], min_count=1)
    return OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8), vocabulary


class Elsewhere:
    "A network on another device than the pictures; `asked` holds the devices of all it is given."
    def __init__(self, device): self.device, self.asked = torch.device(device), set()
    def parameters(self): yield torch.zeros(1, device=self.device)
    def bind(self, ids, lengths):
        self.asked |= {ids.device, lengths.device}
        return self


@pytest.mark.parametrize("ask", ["evaluate", "word_gains"])
def test_everything_is_asked_on_the_models_device(monkeypatch, ask):
    model, images = Elsewhere("meta"), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    def figures(predict, *rest):
        model.asked |= {x.device for x in rest if isinstance(x, torch.Tensor)}
        return torch.zeros(len(rest[0])), None
    monkeypatch.setattr(likelihood, "bits_per_dim", figures)
    monkeypatch.setattr(likelihood, "caption_gain", lambda predict, silent, *rest: (*figures(predict, *rest), None))
    vocabulary = tiny_model()[1]
    if ask == "evaluate":
        found = likelihood.evaluate(model, vocabulary, images, [["a red cat"], ["a dog"]], 2)
        assert set(found) == {"whole", "centre", "centre_without_captions", "caption_gain"}
    else:
        gains = likelihood.word_gains(model, vocabulary, images[0], images[0] > 0, "a cat", 2)
        assert [word for word, _ in gains] == ["a", "cat"]
    assert model.asked == {torch.device("meta")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
def test_a_gpu_gives_the_figures_of_the_cpu():
    model, vocabulary = tiny_model()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=seeded(0))
    given = torch.rand(images.shape, generator=seeded(1)) < 0.5
    def figures(): return likelihood.evaluate(model, vocabulary, images, [["a cat"], ["a dog"], []], 2)
    def gains(): return [g for _, g in likelihood.word_gains(model, vocabulary, images[0], given[0], "a red cat", 2)]
    here = figures(), gains()
    model.cuda()
    there = figures(), gains()
    for name, (mean, error, n) in here[0].items():
        assert there[0][name] == pytest.approx((mean, error, n), rel=1e-3, abs=1e-2)
    assert there[1] == pytest.approx(here[1], rel=1e-2, abs=1e-1)


@pytest.mark.parametrize(
    "ask, words",
    [
        (
            lambda m, v, x: bits_per_dim(LAW, LAW.images[:1], torch.zeros(1, 3, 1, 2, dtype=torch.bool), "8"),
            "evaluations='8'",
        ),
        (lambda m, v, x: likelihood.word_gains(m, v, x[0], x[0] > 0, ["a cat"]), r"the caption is \['a cat'\]"),
        (lambda m, v, x: likelihood.evaluate(m, v, x, [["a cat"]]), "2 pictures have captions for 1"),
    ],
)
def test_wrong_types_are_told_in_a_sentence(ask, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ask(*tiny_model(), torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


def test_a_caption_without_words_gains_nothing():
    model, vocabulary = tiny_model()
    x = torch.zeros(3, 16, 16, dtype=torch.uint8)
    assert likelihood.word_gains(model, vocabulary, x, x > 0, " ", 2) == []
