"""Chance: the numbers of a picture are its own, rows agree with single numbers, streams never meet, seeds bring numbers
back."""
import hashlib

import pytest
import torch

from my3yearold.chance import stream, uniform_rows, uniforms, with_seeds


def seeded(seed): return torch.Generator().manual_seed(seed)


def test_uniforms_come_in_row_major_order_from_each_own_generator():
    where = torch.tensor([[True, True], [False, False], [True, False]])
    u = uniforms(where, [seeded(s) for s in range(3)])
    expected = [
        torch.rand(2, generator=seeded(0), dtype=torch.float64),
        torch.rand(1, generator=seeded(2), dtype=torch.float64),
    ]
    assert torch.equal(u, torch.cat(expected)) and u.dtype == torch.float64


def test_rows_are_what_torch_gives():
    assert torch.equal(uniform_rows(5, 7, seeded(3)), torch.rand(5, 7, generator=seeded(3), dtype=torch.float64))
    each = uniform_rows(2, 7, [seeded(3), seeded(4)])
    assert torch.equal(each[1], torch.rand(7, generator=seeded(4), dtype=torch.float64))
    torch.manual_seed(6)
    ours = uniform_rows(2, 3)
    torch.manual_seed(6)
    assert torch.equal(ours, torch.rand(2, 3, dtype=torch.float64))


def test_rows_are_uniforms_with_everything_asked_for():
    for n, length in ((1, 1), (3, 16), (4, 1000)):
        everything = torch.ones(n, length, dtype=torch.bool)
        assert torch.equal(uniform_rows(n, length, seeded(1)).flatten(), uniforms(everything, seeded(1)))


@pytest.mark.parametrize(
    "call", [lambda: uniforms(torch.ones(2, 3, dtype=torch.bool), [seeded(0)]), lambda: uniform_rows(2, 3, [seeded(0)])]
)
def test_one_generator_too_few_is_told(call):
    with pytest.raises(ValueError, match="1 generators for 2 pictures"): call()


def test_a_generator_on_the_cpu_serves_a_gpu():
    if not torch.cuda.is_available(): pytest.skip("no GPU at hand")
    where = torch.ones(2, 3, dtype=torch.bool)
    for ours in (uniforms(where.cuda(), seeded(0)), uniform_rows(2, 3, seeded(0), "cuda").flatten()):
        assert ours.is_cuda and torch.equal(ours.cpu(), uniforms(where, seeded(0)))


def test_the_starting_point_of_a_stream_is_written_down():
    "Runs go on from where they were stopped, so it may never change."
    base = int.from_bytes(hashlib.blake2b(b"order 3", digest_size=8).digest())
    assert stream(3, 41, "order").initial_seed() == (base + 41) % 2 ** 63
    assert stream(0, 0).initial_seed() == 2479000485839982006


def test_streams_of_other_seeds_numbers_and_purposes_are_others():
    found = {
        stream(seed, number, purpose).initial_seed()
        for seed in range(30)
        for number in range(50)
        for purpose in ("step", "masks")
    }
    assert len(found) == 30 * 50 * 2


def test_seeds_bring_the_numbers_back():
    generators, seeds = with_seeds(None, 3)
    assert len(set(seeds)) == 3
    assert torch.equal(uniform_rows(3, 4, generators), uniform_rows(3, 4, [seeded(s) for s in seeds]))
    one = seeded(5)
    assert with_seeds(one, 3) == (one, [5]) and with_seeds([one, one], 2) == ([one, one], [5, 5])


@pytest.mark.parametrize("generator, error, words", [
    (5, TypeError, "must be a torch.Generator.*not 5"), ([None], TypeError, "must be a torch.Generator"),
    ([seeded(0)], ValueError, "1 generators for 2 fillings"),
])
def test_what_is_no_generator_is_told(generator, error, words):
    with pytest.raises(error, match=words): with_seeds(generator, 2)
