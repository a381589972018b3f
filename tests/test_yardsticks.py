"""The yardsticks: a calibrated test, exact conditionals of a tiny distribution, classical fillings, picture metrics."""
import math

import pytest
import torch

from my3yearold.holes import centre
from my3yearold.sampling import draw
from my3yearold.scenes import scenes
from my3yearold.yardsticks import TinyJoint, biharmonic, chi_square, patch_distance, picture_metrics, telea, two_pixels


def seeded(seed): return torch.Generator().manual_seed(seed)


def test_chi_square_is_calibrated():
    p = torch.softmax(torch.randn(20, generator=seeded(0)), 0)
    values = [chi_square(draw(p.log().expand(2000, 20), seeded(s))[0].bincount(minlength=20), p) for s in range(200)]
    assert 0.35 < sum(values) / 200 < 0.65 and min(values) > 1e-4


def test_the_tiny_distribution_agrees_with_summing():
    joint = TinyJoint(torch.rand(64, generator=seeded(0)), levels=2, height=1, width=2)
    for index in range(0, 64, 7):
        x, known = joint.images[[index]], torch.rand(1, 3, 1, 2, generator=seeded(index)) < 0.5
        agrees = ((joint.images == x) | ~known).flatten(1).all(1)
        p = joint(x, known, ~known).softmax(-1)
        for row, d in zip(p, (~known).flatten().nonzero().flatten()):
            on = (joint.images.flatten(1)[:, d] == 1) & agrees
            assert torch.isclose(row[1], joint.law[on].sum() / joint.law[agrees].sum())


def test_counts_find_each_picture_of_the_table():
    joint = two_pixels()
    assert torch.equal(joint.counts(joint.images[[5, 700, 5]]).nonzero().flatten(), torch.tensor([5, 700]))
    assert torch.equal(joint.counts(joint.images), torch.ones(729, dtype=torch.int64))


@pytest.mark.parametrize("fill", [biharmonic, telea])
def test_classical_fillings_keep_what_is_given_and_continue_flat_ground(fill):
    pytest.importorskip({"biharmonic": "skimage", "telea": "cv2"}[fill.__name__])
    images, given = scenes(2, seed=5).images, centre(2, 64)
    assert torch.equal(fill(images, given)[given], images[given])
    flat = torch.full_like(images, 90)
    assert (fill(flat, given).int() - 90).abs().max() <= 4          # OpenCV drifts by as much


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_metrics_of_the_truth_itself_and_of_one_level_off():
    pytest.importorskip("skimage")
    truth, given = scenes(1, seed=5).images[0], centre(1, 64)[0]
    same = picture_metrics(truth, truth, given)
    assert same["psnr"] == math.inf and same["ssim"] == pytest.approx(1) and same["l1"] == 0
    off = torch.where(given, truth, truth + 1)
    assert picture_metrics(off, truth, given)["l1"] == 1
    assert picture_metrics(off, truth, given)["psnr"] == pytest.approx(20 * math.log10(255))


def test_patch_distance_is_of_sets():
    pictures = scenes(4, seed=6).images
    assert patch_distance(pictures, pictures.flip(0)) == [0, 0, 0]
    with pytest.raises(ValueError, match="as many of one as of the other"): patch_distance(pictures, pictures[:3])
