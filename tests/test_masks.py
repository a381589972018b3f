"""Masks: regions and counts hold for any input, sizes and places are uniform, draws are repeatable, bad input is
refused."""
import math
from functools import partial

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold.masks import (
    MASKS,
    bernoulli,
    brush,
    centre,
    contiguish,
    free_form,
    mixture,
    orderless,
    orderless_in_rectangle,
    parse_mixture,
    rectangle,
    subset,
)

sizes, seeds = st.integers(1, 9), st.integers(0, 2**32)


def seeded(seed): return torch.Generator().manual_seed(seed)


def assert_uniform(counts):
    "Pearson's chi-square against equal chances, refused at p < 1e-4 (the seeds are fixed: no flicker)."
    counts = torch.as_tensor(counts, dtype=torch.float64)
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected)**2 / expected).sum()
    p = torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2)
    assert p > 1e-4, (counts.tolist(), p.item())


@settings(max_examples=60, deadline=None)
@forall(n=st.integers(1, 4), size=sizes, seed=seeds, share=st.floats(0, 1))
def test_orderless_hides_inside_the_region_only_and_at_least_one(n, size, seed, share):
    region = torch.rand(n, 3, size, size, generator=seeded(seed)) < share
    region[:, 0, 0, 0] = True
    given = orderless(n, size, seeded(seed), region)
    assert given.shape == region.shape and given.dtype == torch.bool
    assert given[~region].all()
    assert ((~given).flatten(1).sum(1) >= 1).all()


@settings(max_examples=60, deadline=None)
@forall(n=st.integers(1, 4), size=sizes, seed=seeds, data=st.data())
def test_rectangle_hides_exactly_one_rectangle_in_all_channels(n, size, seed, data):
    height, width = data.draw(st.integers(0, size)), data.draw(st.integers(0, size))
    hidden = ~rectangle(n, size, height, (width, size), seeded(seed))
    assert (hidden == hidden[:, :1]).all()
    for picture in hidden[:, 0]:
        rows, columns = picture.any(1), picture.any(0)
        assert (picture == rows[:, None] & columns).all()
        if height and width:
            assert rows.sum() == height and width <= columns.sum() <= size
        for line in (rows, columns):                        # no gaps
            where = line.nonzero()[:, 0]
            assert len(where) == 0 or where[-1] - where[0] + 1 == len(where)


@settings(max_examples=60, deadline=None)
@forall(n=st.integers(1, 4), size=sizes, seed=seeds, limit=st.integers(1, 300))
def test_subset_is_exact(n, size, seed, limit):
    hidden = ~orderless(n, size, seeded(seed))
    hidden[0] = False                                       # a picture without a hole
    where = subset(hidden, limit, seeded(seed))
    assert not (where & ~hidden).any()
    assert torch.equal(where.sum((1, 2, 3)), hidden.sum((1, 2, 3)).clamp(max=limit))


@settings(max_examples=30, deadline=None)
@forall(size=sizes, seed=seeds)
def test_orderless_in_rectangle_stays_in_its_bounding_box(size, seed):
    hidden = ~orderless_in_rectangle(3, size, seeded(seed), sides=(1, max(1, size // 2)))
    assert (hidden.flatten(1).sum(1) >= 1).all()
    for picture in hidden.any(1):
        for line in (picture.any(0), picture.any(1)):
            where = line.nonzero()[:, 0]
            assert where[-1] - where[0] < max(1, size // 2)


def test_number_hidden_is_uniform_on_1_to_D():
    hidden = (~orderless(6000, 2, seeded(0))).flatten(1).sum(1)
    counts = torch.bincount(hidden, minlength=13)
    assert counts[0] == 0 and len(counts) == 13
    assert_uniform(counts[1:])


def test_number_hidden_is_uniform_inside_each_pictures_own_region():
    region = torch.zeros(8000, 3, 4, 4, dtype=torch.bool)
    region[:4000, 1, 2] = True                              # D = 4
    region[4000:, :, :2, :2] = True                         # D = 12
    hidden = (~orderless(8000, 4, seeded(1), region)).flatten(1).sum(1)
    assert_uniform(torch.bincount(hidden[:4000], minlength=5)[1:])
    assert_uniform(torch.bincount(hidden[4000:], minlength=13)[1:])


def test_places_are_uniform_at_each_number_hidden():
    given = orderless(12000, 1, seeded(2)).flatten(1)       # D = 3
    for number in (1, 2):
        group = (~given)[(~given).sum(1) == number]
        patterns, counts = group.unique(dim=0, return_counts=True)
        assert len(patterns) == 3
        assert_uniform(counts)


def test_every_variable_of_a_large_picture_is_hidden_as_often():
    hidden = (~orderless(2000, 8, seeded(3))).flatten(1).float().mean(0)
    assert (hidden - .5).abs().max() < 5 * .5 / 2000**.5    # (D + 1) / 2D, five standard errors


def test_sides_and_places_of_rectangles_are_uniform():
    hidden = ~rectangle(6000, 5, (1, 3), 2, seeded(4))[:, 0]
    heights = hidden.any(2).sum(1)
    assert_uniform(torch.bincount(heights, minlength=4)[1:])
    tops = hidden.any(2).float().argmax(1)
    for height in (1, 2, 3):
        assert_uniform(torch.bincount(tops[heights == height], minlength=6 - height))


def test_subset_chooses_every_subset_as_often():
    hidden = torch.tensor([True, True, False, True, True, True]).view(1, 3, 1, 2).repeat(10000, 1, 1, 1)
    patterns, counts = subset(hidden, 3, seeded(5)).flatten(1).unique(dim=0, return_counts=True)
    assert len(patterns) == 10                              # 5 choose 3
    assert_uniform(counts)


def test_centre():
    hidden = ~centre(2, 64)
    assert hidden.sum() == 2 * 3 * 32 * 32 and hidden[:, :, 16:48, 16:48].all()
    assert (~centre(1, 5, 5)).all() and centre(1, 5, 0).all()


def test_stratified_sizes_fill_every_stratum_and_stay_uniform_alone():
    n, batches, D = 8, 500, 48
    g = seeded(6)
    hidden = torch.stack([(~orderless(n, 4, g, stratified=True)).flatten(1).sum(1) for _ in range(batches)])
    assert (((hidden - 1) * n // D).sort(1).values == torch.arange(n)).all()    # D is a multiple of n: strata are exact
    for picture in (0, 5): assert_uniform(torch.bincount((hidden[:, picture] - 1) * n // D, minlength=n))
    independent = torch.stack([(~orderless(n, 4, g)).flatten(1).sum(1) for _ in range(batches)])
    assert hidden.float().mean(1).var() < 2 / n**2 * independent.float().mean(1).var()


def test_stratified_shares_hold_inside_each_pictures_own_region():
    hidden = (~orderless_in_rectangle(16, 32, seeded(7), (32, 32), stratified=True)).flatten(1).float().mean(1)
    assert ((hidden * 16 - 1e-3).long().sort().values == torch.arange(16)).all()


def test_stratified_leaves_the_plain_draws_alone():
    assert torch.equal(orderless(5, 8, seeded(0)), orderless(5, 8, seeded(0), stratified=False))
    plain, spread = (orderless(1, 8, seeded(0), stratified=s) for s in (False, True))
    assert torch.equal(plain, spread)                       # one picture is its own only stratum


def test_a_random_coin_gives_a_uniform_number_and_a_fixed_one_a_binomial():
    number = bernoulli(6000, 2, (0, 1), seeded(8)).flatten(1).sum(1)            # Beta-binomial: uniform on 0..12
    assert_uniform(torch.bincount(number, minlength=13))
    share = bernoulli(200, 8, .3, seeded(8)).float().mean()
    assert abs(share - .3) < 5 * (.3 * .7 / (200 * 192))**.5
    assert bernoulli(2, 4, 1, seeded(0)).all() and not bernoulli(2, 4, 0, seeded(0)).any()


inside = {
    "square": lambda i, j, r: True,
    "diamond": lambda i, j, r: abs(i) + abs(j) <= r,
    "disc": lambda i, j, r: i * i + j * j <= r * r,
}


@settings(max_examples=40, deadline=None)
@forall(size=sizes, radius=st.integers(0, 10), shape=st.sampled_from(list(inside)), seed=seeds)
def test_contiguish_is_the_conjunction_over_all_shifts(size, radius, shape, seed):
    around = range(-radius, radius + 1)
    offsets = [(i, j) for i in around for j in around if inside[shape](i, j, radius)]
    u = torch.rand(2, 1 + 3 * size**2, generator=seeded(seed), dtype=torch.float64)
    coins = (u[:, 1:] < u[:, :1]**(1 / len(offsets))).view(2, 3, size, size)
    expected = torch.ones_like(coins)
    for row in range(size):
        for column in range(size):
            for i, j in offsets:
                if 0 <= row + i < size and 0 <= column + j < size:
                    expected[:, :, row, column] &= coins[:, :, row + i, column + j]
    assert torch.equal(contiguish(2, size, radius, shape, seeded(seed)), expected)


@pytest.mark.parametrize("shape, area", [("square", 25), ("diamond", 13), ("disc", 13)])
def test_contiguish_variables_obey_p_away_from_the_edges_but_the_number_is_not_uniform(shape, area):
    N, size, r = 8000, 7, 2
    given = contiguish(N, size, r, shape, seeded(9))
    p = torch.rand(N, 1 + 3 * size**2, generator=seeded(9), dtype=torch.float64)[:, 0]
    middle = p[given[:, 0, 3, 3]]
    assert_uniform(torch.histc(middle**2, 10, 0, 1))        # given a middle variable, p has density 2p
    corner = p[given[:, 0, 0, 0]]
    share = {"square": 9, "diamond": 6, "disc": 6}[shape] / area
    # p^(share) of its coins are in the picture
    assert_uniform(torch.histc(corner**(1 + share), 10, 0, 1))
    with pytest.raises(AssertionError):
        assert_uniform(torch.histc(given.flatten(1).double().mean(1), 10, 0, 1))
    complete = given.flatten(2).all(2)[:, 0].double().mean()
    law = area / (area + size**2)
    assert abs(complete - law) < 5 * (law * (1 - law) / N)**.5


def test_contiguish_radius_0_is_bernoulli():
    assert torch.equal(contiguish(5, 8, 0, generator=seeded(0)), bernoulli(5, 8, (0, 1), seeded(0)))


@settings(max_examples=30, deadline=None)
@forall(size=sizes, seed=seeds, strokes=st.integers(1, 5))
def test_strokes_hide_something_in_all_channels_alike(size, seed, strokes):
    for hidden in (
        ~brush(3, size, strokes, generator=seeded(seed)),
        ~free_form(3, size, strokes, (0, 3), seeded(seed)),
    ):
        assert hidden.shape == (3, 3, size, size) and (hidden == hidden[:, :1]).all()
        assert hidden.flatten(1).any(1).all()


def test_strokes_are_connected_as_wide_as_the_brush_and_start_anywhere():
    hidden = ~brush(300, 16, 1, 3, seeded(10))[:, 0]
    for picture in hidden[:60]:  # one stroke is one piece: a flood from one pixel reaches all
        reached = torch.zeros(1, 1, 16, 16)
        first = picture.nonzero()[0]
        reached[0, 0, first[0], first[1]] = 1
        for _ in range(256): reached = torch.nn.functional.max_pool2d(reached, 3, 1, 1) * picture
        assert torch.equal(reached[0, 0] > 0, picture)
    assert hidden.any(0).all()                              # no pixel is safe
    wide = ~brush(300, 16, 1, 6, seeded(10))[:, 0]
    assert (wide | ~hidden).all() and wide.sum() > hidden.sum()                 # the same strokes, with a wider brush


def test_free_form_adds_rectangles_to_the_strokes():
    strokes = brush(50, 16, 2, generator=seeded(11))
    assert torch.equal(free_form(50, 16, 2, 0, seeded(11)), strokes)
    both = free_form(50, 16, 2, 2, seeded(11))
    assert (~both | strokes).all() and (both.sum((1, 2, 3)) < strokes.sum((1, 2, 3))).any()


def test_mixture_draws_kinds_by_weight_and_zero_never():
    kinds = {partial(bernoulli, p=1): 1, partial(bernoulli, p=0): 2, "centre": .5, "rectangle": 0}
    number = mixture(7000, 4, kinds, seeded(12)).sum((1, 2, 3))
    counts = torch.stack([(number == k).sum() for k in (48, 0, 36)])
    assert counts.sum() == 7000
    assert_uniform(counts.double() / torch.tensor([2, 4, 1]))
    text = mixture(20, 4, "orderless=1,rectangle=2", seeded(0))
    assert torch.equal(text, mixture(20, 4, {"orderless": 1, "rectangle": 2}, seeded(0)))


def test_mixture_of_one_kind_is_that_kind():
    g = seeded(0)
    torch.rand(4, 1, generator=g, dtype=torch.float64)      # the choice of kinds
    assert torch.equal(mixture(4, 16, "orderless_in_rectangle", seeded(0)), orderless_in_rectangle(4, 16, g))


def test_mixture_stratifies_its_orderless_kinds():
    hidden = (~mixture(16, 32, "orderless", seeded(0), stratified=True)).flatten(1).float().mean(1)
    assert ((hidden * 16 - 1e-3).long().sort().values == torch.arange(16)).all()
    assert mixture(6, 8, "rectangle=1,brush=1", seeded(0), stratified=True).shape == (6, 3, 8, 8)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("size", [2, 8, 17])
def test_every_named_mask_draws_any_size_and_its_orderless_form_stays_inside(name, size):
    given = mixture(12, size, name, seeded(0))
    assert given.shape == (12, 3, size, size) and given.dtype == torch.bool
    if name.startswith("orderless"): assert (~given).flatten(1).any(1).all()
    if name == "orderless_in_centre": assert given[centre(12, size)].all()


def test_parse_mixture():
    assert parse_mixture("orderless=1, brush=0.5,rectangle") == {"orderless": 1, "brush": .5, "rectangle": 1}


makers = [
    lambda n, g: orderless(n, 8, g),
    lambda n, g: rectangle(n, 8, (1, 8), (1, 8), g),
    lambda n, g: orderless_in_rectangle(n, 8, g),
    lambda n, g: subset(~centre(n, 8), 9, g),
    lambda n, g: bernoulli(n, 8, (0, 1), g),
    lambda n, g: contiguish(n, 8, 1, "disc", g),
    lambda n, g: brush(n, 8, generator=g),
    lambda n, g: free_form(n, 8, generator=g),
    lambda n, g: mixture(n, 8, ",".join(MASKS), g),
]


@pytest.mark.parametrize("make", makers)
def test_draws_repeat_and_do_not_depend_on_the_batch(make):
    assert torch.equal(make(5, seeded(0)), make(5, seeded(0)))
    assert not torch.equal(make(5, seeded(0)), make(5, seeded(1)))
    batch = make(4, [seeded(i) for i in range(4)])
    for i in range(4): assert torch.equal(make(1, [seeded(i)])[0], batch[i])


@pytest.mark.parametrize("make", makers)
def test_torchs_own_generator_is_left_alone(make):
    before = torch.get_rng_state()
    make(3, seeded(0))
    assert torch.equal(before, torch.get_rng_state())


def test_device_is_the_generators_or_the_one_named():
    assert orderless(1, 4, seeded(0)).device.type == "cpu"
    assert orderless(1, 4, device="cpu").device.type == "cpu"
    assert centre(1, 4, device="meta").device.type == "meta"
    if not torch.cuda.is_available(): pytest.skip("no GPU here: the CUDA half of this test needs one")
    on_gpu = torch.Generator("cuda").manual_seed(0)
    assert orderless_in_rectangle(2, 8, on_gpu).is_cuda
    assert orderless_in_rectangle(2, 8, on_gpu, device="cpu").device.type == "cpu"
    drawn_here = orderless_in_rectangle(2, 8, seeded(0), device="cuda")
    assert drawn_here.is_cuda and torch.equal(drawn_here.cpu(), orderless_in_rectangle(2, 8, seeded(0)))
    assert torch.equal(subset(~drawn_here, 5, seeded(1)).cpu(), subset(~drawn_here.cpu(), 5, seeded(1)))


@pytest.mark.parametrize("call, message", [
    (lambda: orderless(2, 4, region=torch.tensor([1, 0]).bool().view(2, 1, 1, 1)), "empty in picture 1"),
    (lambda: orderless(2, 4, region=torch.ones(5, 5).bool()), r"\(5, 5\) does not broadcast"),
    (lambda: orderless(2, 4, region=torch.ones(4, 4)), "hand in booleans"),
    (lambda: rectangle(2, 4, 5, 1), "height 5 does not fit"),
    (lambda: rectangle(2, 4, 1, (3, 2)), "width"),
    (lambda: rectangle(2, 4, -1, 1), "height -1"),
    (lambda: centre(2, 4, 6), "hole 6 does not fit"),
    (lambda: orderless(2, 4, [seeded(0)]), "1 generators for 2 pictures"),
    (lambda: orderless(1, 4, [seeded(0)], stratified=True), "one generator, not one per picture"),
    (lambda: bernoulli(2, 4, -.1), "p -0.1 is out of range"),
    (lambda: bernoulli(2, 4, math.nan), "p nan"),
    (lambda: contiguish(2, 4, 1, "circle"), '"circle" is unknown'),
    (lambda: contiguish(2, 4, -1), "radius -1 is negative"),
    (lambda: brush(2, 4, 0), "strokes 0"),
    (lambda: brush(2, 4, 1, 0.5), "width 0.5"),
    (lambda: free_form(2, 4, 1, (2, 1)), "rectangles"),
    (lambda: mixture(2, 4, "hexagon=1"), '"hexagon" is unknown: use orderless'),
    (lambda: mixture(2, 4, "orderless=much"), "orderless=much"),
    (lambda: mixture(2, 4, "orderless=-1"), "orderless=-1.0 is out of range"),
    (lambda: mixture(2, 4, "orderless,orderless=2"), "comes twice"),
    (lambda: mixture(2, 4, ""), "mixture is empty"),
    (lambda: mixture(2, 4, {"orderless": 0}), "mixture is empty"),
    (lambda: subset(~centre(2, 4), 0), "limit 0"),
])
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error: call()
    assert "\n" not in str(error.value)
