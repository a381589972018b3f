"""Losses: the orderless estimator is unbiased by enumeration, dense and sparse; weightings differ; never NaN; gradients
are the naive ones."""
import itertools
import math

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold.losses import bits, cross_entropy, emd, orderless_loss
from my3yearold.losses_on_levels import logistic_mixture_logits
from my3yearold.masks import orderless, subset

D, L = 3, 4                                                 # one pixel: 6 orders, 7 masks


def grid(t): return t.view(-1, 3, 1, 1)


@pytest.fixture(scope="module")
def world():
    "One picture's nats for every variable in all 7 situations, from random conditionals that agree with nothing."
    g = torch.Generator().manual_seed(0)
    x = torch.randint(L, (D,), generator=g)
    masks = torch.tensor(list(itertools.product([False, True], repeat=D)))[:-1]
    logits = 2 * torch.randn(len(masks), D, L, generator=g, dtype=torch.float64)
    nats = cross_entropy(logits, x.expand(len(masks), D))
    chance = torch.tensor([1 / D / math.comb(D, int(m.sum())) for m in masks], dtype=torch.float64)
    return masks, nats, chance


def over_orders(masks, nats):
    "The chain rule's negative log-likelihood per dimension, averaged over all orders."
    row = {tuple(m.tolist()): r for m, r in zip(masks, nats)}
    total = 0
    for order in itertools.permutations(range(D)):
        for d, v in enumerate(order):
            total += row[tuple(u in order[:d] for u in range(D))][v]
    return total / D / math.factorial(D)


def test_image_weighting_is_unbiased_for_the_mean_over_orders(world):
    masks, nats, chance = world
    losses = torch.stack([orderless_loss(grid(r), grid(m)) for r, m in zip(nats, masks)])
    torch.testing.assert_close((chance * losses).sum(), over_orders(masks, nats), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weighting, unbiased", [("image", True), ("batch", False)])
def test_in_batches_of_two_only_image_weighting_is_unbiased(world, weighting, unbiased):
    masks, nats, chance = world
    pairs = itertools.product(range(len(masks)), repeat=2)
    mean = sum(
        chance[i] * chance[j] * orderless_loss(grid(nats[[i, j]]), grid(masks[[i, j]]), weighting) for i, j in pairs
    )
    assert math.isclose(mean, over_orders(masks, nats), rel_tol=1e-10) == unbiased


def test_orderless_draws_have_the_enumerated_expectation(world):
    masks, nats, chance = world
    given = orderless(20000, 1, torch.Generator().manual_seed(1))
    index = (given.flatten(1).long() * torch.tensor([4, 2, 1])).sum(1)          # masks are in counting order
    spread = torch.stack([r[~m].mean() for r, m in zip(nats, masks)]).std()
    assert abs(orderless_loss(grid(nats[index]), given) - over_orders(masks, nats)) < 4 * spread / 20000**.5


@pytest.mark.parametrize("weighting", ["image", "batch"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_mean_over_all_subsets_is_the_dense_loss(weighting, limit):
    g = torch.Generator().manual_seed(2)
    given = torch.tensor([[True, False, False, False, True, False], [False] * 5 + [True], [True] * 5 + [False]])
    given, nats = given.view(3, 3, 1, 2), torch.rand(3, 3, 1, 2, generator=g, dtype=torch.float64)
    choices = [
        list(itertools.combinations(m.nonzero()[:, 0].tolist(), min(limit, int(m.sum())))) for m in (~given).flatten(1)
    ]
    losses = []
    for chosen in itertools.product(*choices):
        where = torch.zeros(3, 6, dtype=torch.bool)
        for w, places in zip(where, chosen): w[list(places)] = True
        where = where.view_as(given)
        losses.append(orderless_loss(nats[where], given, weighting, where))
    torch.testing.assert_close(torch.stack(losses).mean(), orderless_loss(nats, given, weighting), rtol=1e-12, atol=0)


def by_loop(nats, given, weighting):
    pictures = [(n[~g].sum(), (~g).sum()) for n, g in zip(nats, given) if (~g).any()]
    if weighting == "image": return sum(s / k for s, k in pictures) / len(pictures)
    return sum(s for s, _ in pictures) / sum(k for _, k in pictures)


@settings(max_examples=40, deadline=None)
@forall(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 5),
    size=st.integers(1, 5),
    weighting=st.sampled_from(["image", "batch"]),
)
def test_values_and_gradients_are_the_loops(seed, n, size, weighting):
    g = torch.Generator().manual_seed(seed)
    given = orderless(n, size, g)
    given[1:2] = True                                       # the second picture, where there is one, has no hole
    nats = torch.rand(given.shape, generator=g, dtype=torch.float64, requires_grad=True)
    fast, slow = orderless_loss(nats, given, weighting), by_loop(nats, given, weighting)
    torch.testing.assert_close(fast, slow)
    fast, slow = (torch.autograd.grad(loss, nats)[0] for loss in (fast, slow))
    torch.testing.assert_close(fast, slow)
    where = ~given
    torch.testing.assert_close(
        orderless_loss(nats[where], given, weighting, where), orderless_loss(nats, given, weighting)
    )


@pytest.mark.parametrize("weighting", ["image", "batch"])
def test_never_nan(weighting):
    given = torch.ones(2, 3, 4, 4, dtype=torch.bool)
    # at given variables: none of the loss's business
    nats = torch.full(given.shape, torch.inf, requires_grad=True)
    loss = orderless_loss(nats, given, weighting)
    assert loss.item() == 0 and torch.autograd.grad(loss, nats)[0].abs().sum() == 0
    given[0, 0, 0, 0] = False
    nats = torch.where(given, torch.inf, 2.0)
    assert orderless_loss(nats, given, weighting).item() == 2
    where = subset(~given, 5, torch.Generator().manual_seed(0))
    assert orderless_loss(nats[where], given, weighting, where).item() == 2


def test_weightings_by_hand():
    given = torch.tensor([[True, True, False], [False, False, False]]).view(2, 3, 1, 1)
    nats = torch.tensor([[9., 9., 4.], [1., 1., 1.]]).view(2, 3, 1, 1)
    assert orderless_loss(nats, given).item() == pytest.approx((4 + 1) / 2)
    assert orderless_loss(nats, given, "batch").item() == pytest.approx((4 + 3) / 4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, .05)])
def test_cross_entropy_is_minus_log_softmax(dtype, tolerance):
    g = torch.Generator().manual_seed(3)
    logits, target = (
        torch.randn(2, 3, 5, 5, 16, generator=g, dtype=torch.float64),
        torch.randint(16, (2, 3, 5, 5), generator=g).byte(),
    )
    expected = -logits.softmax(-1).log().gather(-1, target.long()[..., None])[..., 0]
    result = cross_entropy(logits.to(dtype), target)
    assert result.shape == target.shape and result.dtype != torch.bfloat16
    torch.testing.assert_close(result.double(), expected, atol=tolerance, rtol=0)


def test_cross_entropy_survives_huge_logits_and_nothing():
    logits = torch.tensor([[1e4, 0., -1e4]])
    assert cross_entropy(logits, torch.tensor([0])).item() == 0
    assert cross_entropy(logits, torch.tensor([2])).item() == 2e4
    assert cross_entropy(torch.zeros(0, 256), torch.zeros(0, dtype=torch.uint8)).shape == (0,)


def test_bits():
    assert bits(math.log(2)) == 1
    assert bits(cross_entropy(torch.zeros(256), torch.tensor(3))).item() == pytest.approx(8)


@pytest.mark.parametrize("weighting", ["image", "batch"])
def test_given_too_is_the_mean_over_all_variables_dense_and_sparse(weighting):
    g = torch.Generator().manual_seed(6)
    given = orderless(4, 3, g)
    given[0] = True                                         # nothing hidden: now it has something to say
    nats = torch.rand(given.shape, generator=g, dtype=torch.float64)
    dense = orderless_loss(nats, given, weighting, given_too=True)
    torch.testing.assert_close(dense, nats.mean())
    draws = []
    for _ in range(500):
        where = subset(torch.ones_like(given), 5, g)
        draws.append(orderless_loss(nats[where], given, weighting, where, given_too=True))
    draws = torch.stack(draws)
    assert abs(draws.mean() - dense) < 5 * draws.std() / 500**.5


def test_given_too_weighs_hidden_variables_as_the_batch_does(world):
    masks, nats, chance = world
    grads = []
    for m in masks:                                         # the weight that a mask's hidden variables get in all
        free = torch.ones(1, D, 1, 1, requires_grad=True)
        orderless_loss(free, grid(m), given_too=True).backward()
        grads.append(free.grad.flatten()[~m].sum())
    torch.testing.assert_close(torch.stack(grads), (~masks).sum(1) / D)


@pytest.mark.parametrize("power", [1, 2])
def test_emd_is_the_expected_distance_less_half_the_spread_when_squared(power):
    g = torch.Generator().manual_seed(7)
    logits, target = 3 * torch.randn(30, 9, generator=g, dtype=torch.float64), torch.randint(9, (30,), generator=g)
    p, levels = logits.softmax(-1), torch.arange(9)
    expected = (p * (levels - target[:, None]).abs()).sum(1)
    if power == 2:
        expected = expected - torch.einsum("ni,nj,ij->n", p, p, (levels[:, None] - levels).abs().double()) / 2
    torch.testing.assert_close(emd(logits, target, power), expected)


def test_emd_counts_levels_and_takes_pictures_and_half_precision():
    sure = torch.eye(256)[[18, 200]] * 100
    assert emd(sure, torch.tensor([17, 17], dtype=torch.uint8)).tolist() == pytest.approx([1, 183])
    g = torch.Generator().manual_seed(8)
    logits, target = torch.randn(2, 3, 4, 4, 256, generator=g), torch.randint(256, (2, 3, 4, 4), generator=g).byte()
    assert emd(logits, target).shape == target.shape
    half = emd(logits.bfloat16(), target, 2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, emd(logits, target, 2), rtol=.02, atol=.02)
    sure = (torch.eye(8)[[3]] * 1e4).requires_grad_()       # at the truth exactly: no kink's NaN
    assert torch.autograd.grad(emd(sure, torch.tensor([3])).sum(), sure)[0].abs().sum() == 0


@settings(max_examples=20, deadline=None)
@forall(seed=st.integers(0, 2**32), levels=st.integers(3, 8))
def test_squared_emd_and_cross_entropy_are_proper_and_plain_emd_wants_the_median(seed, levels):
    g = torch.Generator().manual_seed(seed)
    q = torch.rand(levels, generator=g, dtype=torch.float64) + .05
    q /= q.sum()
    def risk(score, answer):
        return (q * score(answer.clamp(min=1e-300).log().expand(levels, -1), torch.arange(levels))).sum()
    rivals = torch.rand(50, levels, generator=g, dtype=torch.float64)
    rivals = .8 * q + .2 * rivals / rivals.sum(1, keepdim=True)
    median = torch.eye(levels, dtype=torch.float64)[int((q.cumsum(0) >= .5).nonzero()[0])]
    for score in (cross_entropy, lambda z, x: emd(z, x, 2)):
        assert all(risk(score, q) <= risk(score, r) + 1e-12 for r in [*rivals, median])
    assert all(risk(emd, median) <= risk(emd, r) + 1e-12 for r in [*rivals, q])
    assert risk(emd, median) < risk(emd, q)


@settings(max_examples=40, deadline=None)
@forall(
    seed=st.integers(0, 2**32),
    components=st.integers(1, 6),
    levels=st.integers(2, 256),
    scale=st.sampled_from([0.1, 1, 30]),
)
def test_logistic_mixture_is_normalised_and_finite(seed, components, levels, scale):
    parameters = scale * torch.randn(5, 3 * components, generator=torch.Generator().manual_seed(seed))
    parameters.requires_grad_()
    logits = logistic_mixture_logits(parameters, levels)
    assert logits.shape == (5, levels) and logits.isfinite().all()
    torch.testing.assert_close(logits.double().logsumexp(-1), torch.zeros(5).double(), atol=1e-4, rtol=0)
    logits.sum().backward()
    assert parameters.grad.isfinite().all()


def test_logistic_mixture_is_the_difference_of_cumulative_distributions_with_the_tails_on_the_edges():
    g = torch.Generator().manual_seed(9)
    parameters, levels = torch.randn(20, 2, 9, generator=g, dtype=torch.float64), 12
    logits = logistic_mixture_logits(parameters, levels)
    weight, mean, scale = parameters.chunk(3, -1)
    for level in range(levels):
        low = -math.inf if level == 0 else (2 * level - 1) / (levels - 1) - 1
        high = math.inf if level == levels - 1 else (2 * level + 1) / (levels - 1) - 1
        inside = ((high - mean) / scale.exp()).sigmoid() - ((low - mean) / scale.exp()).sigmoid()
        torch.testing.assert_close(logits[..., level].exp(), (weight.softmax(-1) * inside).sum(-1))
    # a bump beyond the top: all on the last level
    off = logistic_mixture_logits(torch.tensor([0., 5., -2.]), 256)
    assert off.argmax() == 255 and off[255].exp() > .999


def test_logistic_mixture_goes_through_cross_entropy_unchanged():
    logits = logistic_mixture_logits(torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), 64)
    target = torch.arange(7)
    torch.testing.assert_close(cross_entropy(logits, target), -logits[torch.arange(7), target], atol=1e-5, rtol=1e-5)


nothing_given, nats = torch.zeros(2, 3, 2, 2, dtype=torch.bool), torch.zeros(2, 3, 2, 2)


@pytest.mark.parametrize("call, message", [
    (lambda: cross_entropy(torch.zeros(2, 256), torch.zeros(3)), "do not match"),
    (lambda: emd(torch.zeros(2, 256), torch.zeros(3)), "do not match"),
    (lambda: emd(torch.zeros(2, 256), torch.zeros(2), .5), "power 0.5 is below 1"),
    (lambda: logistic_mixture_logits(torch.zeros(2, 7), 256), "multiple of 3"),
    (lambda: orderless_loss(nats, nothing_given, "pixel"), '"pixel" is unknown'),
    (lambda: orderless_loss(nats[:1], nothing_given), "differ"),
    (lambda: orderless_loss(nats[0, 0, 0], nothing_given, where=~nothing_given), "24 True entries"),
])
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error: call()
    assert "\n" not in str(error.value)
