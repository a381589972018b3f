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


@pytest.fixture
def judges(runs, monkeypatch):
    names = ("judging", "train_masks", "train_readers", "quality")
    for name in names: monkeypatch.delitem(sys.modules, name, raising=False)
    before = list(sys.path)
    import judging, train_masks, train_readers
    yield judging, train_masks, train_readers
    sys.path[:] = before
    for name in names: sys.modules.pop(name, None)


class Knows:
    "A network and its vocabulary for a judge: it is sure of each true value by `sure` nats, of the first N pictures."
    def __init__(self, images, sure): self.images, self.sure, self.at = images, sure, 0
    def encode(self, captions): return torch.zeros(len(captions), 1, dtype=torch.long), torch.ones(len(captions))
    def bind(self, ids, lengths):
        truth = self.images[self.at:self.at + len(ids)]
        self.at = (self.at + len(ids)) % len(self.images)
        def predict(images, given, where):
            assert not (given & where).any()
            return self.sure * torch.nn.functional.one_hot(truth[where].long(), 256).float()
        return predict


@pytest.mark.parametrize("at_once", [False, True])
def test_costs_are_bits_for_a_hidden_variable(judges, at_once):
    judging = judges[0]
    data = judging.unseen(40)
    asked = judging.holes(data, {"everything": "everything", "contiguish": "contiguish_square", "object": "object"})
    for sure, bits in ((0.0, 8.0), (20.0, 0.0)):
        knows = Knows(data.images, sure)
        for given in asked.values():
            paid = judging.costs(knows, knows, data.images, [""] * 40, given, at_once, scored=96)
            assert torch.allclose(paid, torch.tensor(bits), atol=1e-4)


def test_rings_count_from_the_rim(judges):
    assert judges[1].rings(4).tolist() == [[1, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]]


def test_exchanged_colours_are_the_same_words(judges):
    judging, _, readers = judges
    data = judging.unseen(30)
    changed = 0
    for captions, objects in zip(data.captions, data.objects):
        if not readers.of_two_colours(objects): continue
        other = readers.exchanged(captions[0], objects)
        before, after = (sorted(text.lower().rstrip(".").split()) for text in (captions[0], other))
        assert before == after, "a bag of words cannot tell them apart"
        changed += other != captions[0]
    assert changed > 5


def test_rows_stay_until_the_question_changes(judges, tmp_path, monkeypatch):
    judging = judges[0]
    monkeypatch.setattr(judging, "RESULTS", tmp_path)
    from types import SimpleNamespace
    args = SimpleNamespace(runs=tmp_path, seeds=2, scenes=8)
    (tmp_path / "finished.jsonl").write_text('{"arm": "a", "seed": 0}\n{"arm": "b", "seed": 1}\n')
    asked = []
    def how(arm, seed):
        asked.append((arm, seed))
        return dict(figure=len(asked))
    judging.Rows("x", "x.py", args).judge(["a", "b", "c"], how)
    judging.Rows("x", "x.py", args).judge(["a", "b", "c"], how)
    assert asked == [("a", 0), ("b", 1)], "what is there is not asked again"
    args.scenes = 9
    judging.Rows("x", "x.py", args).judge(["a", "b", "c"], how)
    assert asked == 2 * [("a", 0), ("b", 1)]
