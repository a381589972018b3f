"Trunks refuse what cannot be built, in a sentence that says what to use instead; and they keep their promises."
import pytest
import torch

from my3yearold.trunks import TRUNKS, Layer, doubling, make_trunk

SMALL = dict(channels=16, layers=4, span=16, widths=(16, 24), blocks=(1, 1))
WRONG = [
    (lambda: make_trunk("transformer", 8), "unknown trunk"),
    (lambda: make_trunk("straight", 8, merger="sum"), "unknown merger"),
    (lambda: make_trunk("straight", 8, merge_at=(3, 8)), "no place 8"),
    (lambda: make_trunk("multiscale", 8, merge_at=(7,)), "no place 7"),
    (lambda: make_trunk("straight", 8, layers=0), "0 layers"),
    (lambda: make_trunk("straight", 8, fold=0), "fold of 0"),
    (lambda: make_trunk("multiscale", 8, widths=(8, 16), blocks=(1,)), "2 widths and 1 numbers of blocks"),
    (lambda: Layer(8, filter_width=4), "no middle"),
    (lambda: doubling(4), "use 6 layers or more"),
    (lambda: doubling(8, filter_width=1), "see no neighbour"),
]


@pytest.mark.parametrize("build, message", WRONG, ids=[message for _, message in WRONG])
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message): build()


@pytest.mark.parametrize("fold, side", [(1, 60), (2, 8)])
def test_sides_that_cannot_be_halved(fold, side):
    trunk, states = make_trunk("multiscale", 8, fold=fold), torch.randn(1, 3, 8)
    with pytest.raises(ValueError, match="cannot be halved"):
        trunk(torch.randn(1, 32, side, 64), states, torch.tensor([3]))


@pytest.mark.parametrize("name", TRUNKS)
def test_in_evaluation_a_picture_does_not_depend_on_those_beside_it(name):
    trunk = make_trunk(name, 8, **SMALL).eval()
    x, states, lengths = torch.randn(3, 16, 16, 16), torch.randn(3, 4, 8), torch.tensor([4, 2, 0])
    with torch.no_grad():
        together = trunk(x, states, lengths)
        for i in range(3):
            alone = trunk(x[i:i + 1], states[i:i + 1], lengths[i:i + 1])
            torch.testing.assert_close(alone, together[i:i + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRUNKS)
def test_an_empty_caption_is_like_no_merger(name):
    torch.manual_seed(0)
    trunk, x = make_trunk(name, 8, **SMALL).eval(), torch.randn(2, 16, 16, 16)
    with torch.no_grad():
        first, second = (trunk(x, torch.randn(2, 4, 8), torch.tensor([0, 0])) for _ in range(2))
    assert torch.equal(first, second)
