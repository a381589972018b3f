"""The commands behind nbs/experiments: their intervals, their measures, and a whole small measurement."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from my3yearold.masks import centre
from my3yearold.sampling import Central, draw
from my3yearold.yardsticks import chi_square, two_pixels

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def load():
    "load(name): a module of benchmarks/experiments; the path and the modules are put back."
    from importlib import import_module
    before, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(ROOT / "benchmarks/experiments"), str(ROOT / "benchmarks")]
    try: yield import_module
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - known:
            if "benchmarks" in str(getattr(sys.modules[name], "__file__", "")): del sys.modules[name]


def test_intervals_hold_what_they_promise(load):
    "Of 200 samples of 40 the 95 % interval of the mean holds the true one in about 95 of 100; a ratio is of sums."
    common = load("common")
    samples = torch.randn(200, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 5
    held = [low <= 5 <= high for _, low, high in (common.interval(common.mean, s, draws=400) for s in samples)]
    assert 0.89 <= sum(held) / len(held) <= 0.99
    assert common.interval(common.ratio, torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))[0] == 1.0


def test_results_are_kept_beside_each_other(load, tmp_path, monkeypatch):
    common = load("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    args = SimpleNamespace(data="folder/some.tar.bz2", scenes=4, photos=2)
    for name in ("scenes", "photos"):
        record = common.Record("00_test", SimpleNamespace(name=name, images=range(3)), args)
        record["rows"] = {"a": [[0.1, 0.2], [0.3, 0.4]]}
    text = (tmp_path / "00_test.json").read_text()
    found = json.loads(text)
    assert set(found) == {"scenes", "photos"} and found["photos"]["rows"] == {"a": [[0.1, 0.2], [0.3, 0.4]]}
    assert "--data some.tar.bz2" in found["photos"]["command"] and "--data" not in found["scenes"]["command"]
    assert "[ 0.1, 0.2 ]" in text                                                  # a list of numbers on one line


@pytest.mark.parametrize("temperature", [1.0, 0.5, Central(0.6)])
def test_mass_at_the_ends_is_what_is_drawn(load, temperature):
    extremes = load("extremes")
    logits = torch.zeros(1, 256)
    logits[0, :3], logits[0, 253:] = 2.5, 3.0
    values, _ = draw(logits.expand(20000, -1), torch.Generator().manual_seed(0), temperature)
    drawn = ((values <= 2) | (values >= 253)).double().mean().item()
    assert abs(extremes.mass_at_the_ends(logits, temperature).item() - drawn) < 0.015


def test_gumbel_noise_draws_the_same_law(load):
    extremes = load("extremes")
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = extremes.by_gumbel(lambda *_: logits.expand(20000, -1))(None, None, None)
    assert (drawn.isfinite().sum(1) == 1).all()
    assert chi_square(drawn.argmax(1).bincount(minlength=4), logits.softmax(0)) > 0.001
    assert chi_square(drawn.argmax(1).bincount(minlength=4), (1.1 * logits).softmax(0)) < 1e-6


def test_single_variables_at_a_temperature_lead_to_the_joint_at_it(load):
    temperature = load("temperature")
    law = two_pixels(seed=3).law.view([3] * 6)
    goal = temperature.tempered(law.flatten(), 0.5).view_as(law)
    assert temperature.distance(temperature.by_ancestral(law, 1.0), law) < 1e-9
    assert temperature.distance(temperature.by_gibbs(law, 0.5), goal) < 0.01
    assert temperature.distance(temperature.by_ancestral(law, 0.5), goal) > 0.05


def test_depth_and_outside_in(load):
    orders = load("orders")
    given = centre(1, 16, 6)
    far = orders.depth(given)
    assert far[0, 0, 8].tolist() == [0] * 5 + [1, 2, 3, 3, 2, 1] + [0] * 5
    assert orders.outwardness(far, far, ~given).item() == pytest.approx(1)
    assert orders.outwardness(-far, far, ~given).item() == pytest.approx(-1)
    def flat(images, given, where): return torch.zeros(int(where.sum()), 256)
    turn = torch.zeros(given.shape)
    images = torch.zeros(given.shape, dtype=torch.uint8)
    for step, state in enumerate(orders.outside_in(flat, images, given, [torch.Generator().manual_seed(0)])):
        turn[state.redrawn] = step
    assert turn[far == 1].max() <= turn[far == 2].min() and turn[far == 2].max() <= turn[far == 3].min()


def test_ridge_finds_what_is_there_and_nothing_else(load):
    captions = load("captions")
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 5, dtype=torch.float64, generator=chance)
    y = torch.stack([2 * x[:, 0] + 0.1 * torch.randn(3000, dtype=torch.float64, generator=chance),
                     torch.randn(3000, dtype=torch.float64, generator=chance)], 1)
    found = captions.best_ridge(x, y)
    assert found[:, 0].tolist() == pytest.approx([2, 0, 0, 0, 0], abs=0.02) and found[:, 1].abs().max() < 0.05


def test_a_caption_is_shorter_in_the_code_of_its_kind(load):
    captions = load("captions")
    known = ["a red circle", "a blue circle", "a red square"] * 20
    usual, strange = captions.length_of(["a red circle", "circle red a"], known)
    assert 0 < usual < strange


@torch.no_grad()
def test_own_values_cost_what_the_run_says(load):
    "With exact conditionals an ancestral run's turns add up, and a head start of all turns is the truth."
    errors = load("errors")
    joint = two_pixels()
    images = joint.images[torch.arange(0, 729, 91)]
    holes = SimpleNamespace(images=images, given=torch.zeros(images.shape, dtype=torch.bool), objects=None,
                            reading=lambda index: joint, batches=lambda: torch.arange(len(images)).split(4))
    filled, paid, size = errors.run(holes, "random")
    code = (filled.flatten(1).long() @ 3 ** torch.arange(5, -1, -1))
    assert torch.allclose(paid.sum(0), -joint.law[code].log2()) and (size.sum(0) == 6).all()
    assert torch.equal(errors.run(holes, "random", 6)[0], images)
    code = (images.flatten(1).long() @ 3 ** torch.arange(5, -1, -1))
    assert torch.allclose(errors.true_costs(holes, "random").sum(0), -joint.law[code].log2())


def test_a_sheet_has_a_row_for_each_picture(load, tmp_path, monkeypatch):
    from PIL import Image
    common = load("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    columns = [torch.full((3, 3, 4, 4), 10 * k, dtype=torch.uint8) + torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
               for k in range(2)]
    common.save_sheet("two", columns)
    sheet = Image.open(tmp_path / "two.png")
    assert sheet.size == (8, 12)
    assert [[sheet.getpixel((4 * k, 4 * i))[0] for k in range(2)] for i in range(3)] == [[0, 10], [1, 11], [2, 12]]
