"""The folder of a run: nobody else's files are touched, every file is whole, one process has it, checkpoints make
sense."""
import csv
import json
import math
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from my3yearold import runs
from my3yearold.files import mark, mark_of, only_one
from my3yearold.muon import Muon
from my3yearold.runs import (Clock, Log, checkpoints, check_place, claimed, holds_run, newest_checkpoint, restore,
                             save_checkpoint, written)


def small(optimiser=torch.optim.AdamW, steps=1):
    "A layer, its average, and an optimiser that has taken some steps."
    net = torch.nn.Conv2d(3, 4, 3)
    made = Muon(net.parameters(), [net.weight], lr=0.1) if optimiser is Muon else optimiser(net.parameters(), lr=0.1)
    for _ in range(steps):
        net.zero_grad()
        net(torch.ones(1, 3, 5, 5)).square().mean().backward()
        made.step()
    return net, torch.nn.Conv2d(3, 4, 3), made


def snapshot(folder): return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def a_run(folder, *names):
    "A folder that bears a run's mark and holds files of these names."
    (folder / "model").mkdir(parents=True)
    mark(folder, "run", files=[])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


OURS = (
    "checkpoint-00000004.safetensors",
    "checkpoint-123456789.safetensors",
    "config.json",
    "data.json",
    "vocabulary.json",
    "trace.json",
    "log.csv",
    "provenance.jsonl",
    "events.out.tfevents.1.host",
    "model/model.safetensors",
    "model/config.json",
    "model/vocabulary.json",
    "model/card.json",
)
THEIRS = ("notes.txt", "metadata.jsonl", "checkpoint-best.safetensors", "checkpoint-00000004-good.safetensors",
          "log.csv.bak", "model/notes.md", "pictures/config.json", "old/log.csv", ".profile")


# ---- what is a run's ----

def test_only_what_a_run_writes_is_its_own(tmp_path):
    folder = a_run(tmp_path / "run", *OURS, *THEIRS)
    assert {p.relative_to(folder).as_posix() for p in written(folder)} == set(OURS)


def test_a_linked_model_is_not_followed(tmp_path):
    folder = a_run(tmp_path / "run", "log.csv")
    elsewhere = a_run(tmp_path / "elsewhere", "model.safetensors")
    (folder / "model").rmdir()
    (folder / "model").symlink_to(elsewhere)
    assert [p.name for p in written(folder)] == ["log.csv"]


@pytest.mark.parametrize(
    "names",
    [
        ["metadata.jsonl"],
        ["config.json"],
        ["config.json", "checkpoint-00000001.safetensors"],
        [".profile"],
        ["log.csv", "provenance.jsonl"],
        ["pictures/1.png"],
    ],
    ids=str,
)
@pytest.mark.parametrize("start_over", [False, True])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, names, start_over):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"model_type": "bert"}')
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="is not empty and holds no run") as error:
        with claimed(tmp_path, start_over=start_over): pass
    assert names[0].split("/")[0] in str(error.value)
    assert snapshot(tmp_path) == before                            # not even a lock


def test_a_mark_of_another_kind_is_no_run(tmp_path):
    mark(tmp_path, "results", files=[])
    (tmp_path / "index.html").write_text("a page")
    with pytest.raises(ValueError, match="index.html"): check_place(tmp_path, start_over=True)


def test_a_run_asks_for_a_decision(tmp_path):
    folder = a_run(tmp_path / "run", *OURS)
    before = snapshot(folder)
    with pytest.raises(ValueError) as error:
        with claimed(folder): pass
    for word in (f"--resume {folder}", "--run", "--start-over"): assert word in str(error.value)
    assert snapshot(folder) == before
    with claimed(folder, start_over=True): pass
    with claimed(folder, resume=True): pass


def test_a_run_of_version_0_1_0_has_no_mark(tmp_path):
    save_checkpoint(tmp_path, *small(), dict(step=3))
    (tmp_path / "config.json").write_text(json.dumps(dict(run="x", data="scenes", max_steps=9)))
    assert holds_run(tmp_path) and mark_of(tmp_path) is None
    with pytest.raises(ValueError, match="--start-over"): check_place(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert not holds_run(tmp_path)


def test_an_empty_folder_a_lock_and_leftovers_are_no_obstacle(tmp_path):
    (tmp_path / "new").mkdir()
    for _ in range(2):                                             # the second time a lock is there
        with claimed(tmp_path / "new"): pass
    (tmp_path / "new" / ".my3yearold.log.k1ll3dby.partial.csv").write_text("half a")
    with claimed(tmp_path / "new"): assert [p.name for p in (tmp_path / "new").iterdir()] == [".my3yearold.lock"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    folder = a_run(tmp_path / "run", "checkpoint-00000004.partial", ".my3yearold.config.k1ll3dby.partial.json",
                   "model/.my3yearold.model.k1ll3dby.partial.safetensors", "checkpoint-mine.partial")
    with claimed(folder, resume=True): pass
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*")} == {
        ".my3yearold.json",
        ".my3yearold.lock",
        "model",
        "checkpoint-mine.partial",
    }


def test_one_process_at_a_time(tmp_path):
    folder = a_run(tmp_path / "run")
    with only_one(folder, "training in"), pytest.raises(ValueError, match="another process is training in"):
        with claimed(folder, resume=True): pass
    with claimed(folder, resume=True): pass


@pytest.mark.parametrize("make", [lambda p: p.write_text("a file"), lambda p: p.mkdir()])
def test_what_is_no_run_cannot_be_resumed(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises((ValueError, FileNotFoundError)):
        with claimed(tmp_path / "x", resume=True): pass
    assert not (tmp_path / "x" / ".my3yearold.lock").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ValueError, match="is a file"): check_place(tmp_path / "x")


# ---- checkpoints ----

def test_a_full_disk_leaves_the_older_checkpoints(tmp_path):
    net, average, optimiser = small()
    save_checkpoint(tmp_path, net, average, optimiser, dict(step=1), keep=1)
    before, limits = snapshot(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(OSError) as error: save_checkpoint(tmp_path, net, average, optimiser, dict(step=2), keep=1)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(error.value.filename).name == "checkpoint-00000002.safetensors" and error.value.strerror
    assert snapshot(tmp_path) == before


def test_other_files_are_neither_removed_nor_loaded(tmp_path):
    made = small()
    for name in ("checkpoint-best.safetensors", "checkpoint-00000001-copy.safetensors", "checkpoint-0002.safetensors"):
        (tmp_path / name).write_text("mine")
    for step in (1, 2, 3): save_checkpoint(tmp_path, *made, dict(step=step), keep=1)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000003.safetensors"]
    assert len(list(tmp_path.iterdir())) == 4


def test_the_checkpoint_just_written_is_never_the_one_removed(tmp_path):
    "A newer file, which cannot be read, does not push it out."
    made = small()
    (tmp_path / "checkpoint-00000009.safetensors").write_text("damaged")
    save_checkpoint(tmp_path, *made, dict(step=4), keep=1)
    assert newest_checkpoint(tmp_path)[2]["step"] == 4
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, *made, dict(step=step), keep=1)  # nine digits after eight
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-100000000.safetensors"]


STATES = [
    "{",
    "[]",
    "{}",
    "[" * 100_000,
    '{"step": "4"}',
    '{"step": -1}',
    '{"step": 4, "last": 3}',
    '{"step": 4, "factor": NaN}',
    '{"step": 4, "network": []}',
    '{"step": 4, "best": "low"}',
    '{"step": 4, "last": [1,2,3,4,5,6,7,8,9,10,11]}',
    '{"step": 4, "optimiser": 3}',
]


@pytest.mark.parametrize("state", STATES, ids=lambda text: text[:40])
def test_a_state_that_makes_no_sense_is_passed_by(tmp_path, state):
    save_checkpoint(tmp_path, *small(), dict(step=2))
    save_file({"model.weight": torch.zeros(1)}, tmp_path / "checkpoint-00000004.safetensors", {"state": state})
    assert newest_checkpoint(tmp_path)[2]["step"] == 2
    (tmp_path / "checkpoint-00000002.safetensors").unlink()
    with pytest.raises(ValueError, match="every checkpoint in .* is damaged"): newest_checkpoint(tmp_path)


def test_a_state_comes_back_as_it_went_infinities_included(tmp_path):
    state = dict(
        step=7,
        minutes=1 / 3,
        validated=6,
        best=math.inf,
        stale=2,
        last=[4.1],
        median=math.inf,
        since=3,
        factor=0.1,
        network=dict(a=[1]),
    )
    save_checkpoint(tmp_path, *small(), state)
    assert newest_checkpoint(tmp_path)[2] == state | dict(optimiser="adamw")


def as_version_0_1_0(path):
    "Take out of a checkpoint what that version did not note."
    with safe_open(path, "pt") as file:
        tensors, state = {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["state"])
    for name in ("optimiser", "network", "validated"): state.pop(name, None)
    save_file(tensors, path, {"state": json.dumps(state)})


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("made_with, other", [(torch.optim.AdamW, Muon), (Muon, torch.optim.AdamW)])
def test_moments_of_another_optimiser_are_refused(tmp_path, made_with, other, old):
    path = save_checkpoint(tmp_path, *small(made_with), dict(step=1))
    if old: as_version_0_1_0(path)
    with pytest.raises(ValueError, match=f"--optimiser {made_with.__name__.lower()}"):
        restore(newest_checkpoint(tmp_path), *small(other, 0))
    restore(newest_checkpoint(tmp_path), *small(made_with, 0))


def test_damaged_moments_are_refused(tmp_path):
    path = save_checkpoint(tmp_path, *small(), dict(step=1))
    with safe_open(path, "pt") as file: tensors = {k: file.get_tensor(k) for k in file.keys()}
    for change in ({"optimiser.99.exp_avg": torch.zeros(1)}, {"optimiser.x": torch.zeros(1)},
                   {"optimiser.0.exp_avg": torch.zeros(7, 7)}):
        save_file(tensors | change, path, {"state": '{"step": 1}'})
        with pytest.raises(ValueError, match="another model"): restore(newest_checkpoint(tmp_path), *small(steps=0))


# ---- the log, the clock ----

def test_the_log_is_whole_at_every_moment(tmp_path, monkeypatch):
    log = Log(tmp_path, ("step", "valid", "train"))
    log.row(2, valid=7.5, train=math.nan, hidden=1.0)
    whole_before = (tmp_path / "log.csv").read_bytes()
    class Full(csv.DictWriter):
        def writerows(self, rows): raise OSError(28, "No space left on device")
    monkeypatch.setattr(runs.csv, "DictWriter", Full)
    with pytest.raises(OSError) as error: log.row(4, valid=7.0)
    assert Path(error.value.filename).name == "log.csv" and (tmp_path / "log.csv").read_bytes() == whole_before
    assert whole_before.decode().split() == ["step,valid,train", "2,7.5,"]


def test_a_row_that_was_cut_short_is_dropped(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"step,valid\n2,7.5\n4,7\n\xff,1\n6\n1")
    Log(tmp_path, ("step", "valid"), step=6).row(8, valid=6.5)
    assert (tmp_path / "log.csv").read_text().split() == ["step,valid", "2,7.5", "4,7", "8,6.5"]


@pytest.mark.parametrize("limit", [10, 300, 3000])
def test_a_full_disk_under_tensorboard_is_one_sentence(tmp_path, capfd, limit):
    "No thread paints a traceback over the terminal; the file is named."
    pytest.importorskip("tensorboard")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            log = Log(tmp_path, ("step",))
            for step in range(100): log.board.row(step, dict(valid=1.0))
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "events.out.tfevents" in error.value.filename and "Traceback" not in capfd.readouterr().err
    if limit > 100: log.close()


def test_tensorboard_shows_no_step_twice(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, ("step", "valid"))
    for step in (10, 20, 30): log.row(step, valid=8 - step / 20)
    log.close()
    log = Log(tmp_path, ("step", "valid"), step=20)
    log.row(30, valid=6.0); log.pictures(30, real=torch.zeros(3, 4, 8, dtype=torch.uint8))
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path)); events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("valid")] == [(10, 7.5), (20, 7.0), (30, 6.0)]
    assert [(e.width, e.height) for e in events.Images("real")] == [(8, 4)]


def test_processes_agree_wherever_a_run_goes_on(monkeypatch):
    "At the first step and at every 20th they ask each other; between, nothing waits for the device."
    class Two: num_processes, device = 2, "cpu"
    asked = []
    def all_reduce(tensor, operation):
        asked.append(step)
        tensor += 5                                # the other process is five minutes ahead, and was interrupted
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    clock = Clock(Two(), 7, minutes=1.0)
    for step in range(7, 45):
        minutes, stop = clock.agree(step, False, 20)
        assert 6 <= minutes < 6.1 and stop and isinstance(clock.agreed, list)      # numbers, not a tensor on the device
    assert asked == [7, 20, 40]
