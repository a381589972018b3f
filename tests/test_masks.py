"Masks: regions and counts hold for any input, sizes and places are uniform, draws are repeatable, bad input is refused."
import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold.masks import centre, orderless, orderless_in_rectangle, rectangle, subset

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


makers = [lambda n, g: orderless(n, 8, g), lambda n, g: rectangle(n, 8, (1, 8), (1, 8), g),
          lambda n, g: orderless_in_rectangle(n, 8, g), lambda n, g: subset(~centre(n, 8), 9, g)]


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
    (lambda: subset(~centre(2, 4), 0), "limit 0"),
])
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error: call()
    assert "\n" not in str(error.value)
