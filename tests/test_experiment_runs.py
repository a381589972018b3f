"""The queue of small trainings behind the experiments: its arms can be trained, and a killed queue goes on."""
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from my3yearold.captions import Vocabulary
from my3yearold.config import check, model_options
from my3yearold.model import OrderlessNADE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def runs(monkeypatch):
    pytest.importorskip("accelerate", reason="training needs accelerate")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "experiments"))
    monkeypatch.delitem(sys.modules, "runs", raising=False)
    import runs
    yield runs
    sys.modules.pop("runs", None)


def test_every_arm_can_be_trained_and_differs_from_the_default(runs, tmp_path):
    configs = {arm: runs.config_of(arm, 0, tmp_path) for arm in runs.ARMS}
    for config in configs.values(): check(config)
    def changed(config): return {k: v for k, v in vars(config).items() if k not in ("run", "max_steps")}
    assert [a for a, c in configs.items() if a != "default" and changed(c) == changed(configs["default"])] == []


@pytest.mark.parametrize("arm, blind", [("reader_words", True), ("reader_qrnn", False)])
def test_a_bag_of_words_knows_no_order(runs, tmp_path, arm, blind):
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a big red square above a small blue circle"]], min_count=1)
    model = OrderlessNADE(len(vocabulary), 32, **model_options(runs.config_of(arm, 0, tmp_path)))
    ids, lengths = vocabulary.encode(["a big red square above a small blue circle"])
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    given = torch.rand(1, 3, 32, 32) < 0.5
    with torch.no_grad():
        one, other = (model(images, given, words, lengths, ~given) for words in (ids, ids.flip(1)))
    assert ((one - other).abs().max() < 1e-4) == blind


def test_a_killed_queue_goes_on_where_it_stood(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(runs.BASE, "num_scenes", 64)
    monkeypatch.setitem(runs.BASE, "widths", (8, 16))
    monkeypatch.setitem(runs.BASE, "blocks", (1, 1))
    for name, value in dict(validate_every=2, num_valid=4, batch_size=2, scored=48).items():
        monkeypatch.setitem(runs.BASE, name, value)
    monkeypatch.setattr(runs, "STEPS", 4)
    def queue(out, *more):
        arms = ["--arms", "default", "orderless", "--seeds", "0", "1"]
        monkeypatch.setattr(sys, "argv", ["runs.py", "--out", str(out), *arms, *more])
        runs.main()
    queue(tmp_path / "whole")
    begun, whole = [], runs.train
    def killed(config, **how): # once, in the middle of the second run: what a checkpoint held is all that is left
        begun.append((Path(config.run).name, how["resume"]))
        if len(begun) == 2:
            whole(replace(config, max_steps=2), **how)
            raise KeyboardInterrupt
        return whole(config, **how)
    monkeypatch.setattr(runs, "train", killed)
    with pytest.raises(KeyboardInterrupt): queue(tmp_path / "killed")
    queue(tmp_path / "killed")
    assert begun == [("default-0", False), ("orderless-0", False), ("orderless-0", True), ("default-1", False),
                     ("orderless-1", False)]
    assert runs.finished(tmp_path / "killed") == runs.finished(tmp_path / "whole") != set()
    queue(tmp_path / "killed")
    assert len(begun) == 5, "a finished queue trains nothing"
