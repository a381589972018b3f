"""A run that is killed, shared among processes, or asked for something impossible; and each part of a step, by hand."""
import csv
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import typing
import warnings
from dataclasses import asdict, fields, replace

import msgspec
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

pytest.importorskip("accelerate", reason="training is tested with the train extra installed")
from my3yearold import config as config_module
from my3yearold import runs, saving, training, validation
from my3yearold.batches import Examples, shares, strata
from my3yearold.data import load_data
from my3yearold.captions import Vocabulary
from my3yearold.cli import main
from my3yearold.files import mark_of, only_one
from my3yearold.masks import centre
from my3yearold.model import OrderlessNADE
from my3yearold.runs import checkpoints, newest_checkpoint
from my3yearold.saving import load_model, save_model
from my3yearold.training import TrainConfig, check, read_config, train

TINY = TrainConfig(
    precision="float32",
    size=16,
    num_scenes=64,
    widths=(16, 24),
    blocks=(1, 1),
    batch_size=4,
    max_steps=12,
    warmup=2,
    validate_every=2,
    num_valid=4,
    scored=90,
    device="cpu",
)
FLAGS = ("--size 16 --num-scenes 64 --widths 16 24 --blocks 1 1 --batch-size 4 --warmup 2 --num-valid 4 --scored 90 "
         "--device cpu --precision float32").split()


def start(*words, launcher=()):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, "-c", "import sys; from my3yearold.cli import main; sys.exit(main())"]
    command = [*launcher, *program, "train", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    return said


def test_killed_at_random_moments(tmp_path):
    """SIGKILL five times, wherever it strikes; the run that goes on ends with the parameters of the undisturbed one,
    bit for bit."""
    steps = ["--max-steps", 12, "--validate-every", 2]
    finish(start(*FLAGS, *steps, "--run", tmp_path / "undisturbed"))
    chance, killed = random.Random(0), tmp_path / "killed"
    process = start(*FLAGS, *steps, "--run", killed)
    for _ in range(5):
        # nothing to go on from before that
        while process.poll() is None and not list(killed.glob("checkpoint-*")): time.sleep(0.05)
        time.sleep(chance.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start("--resume", killed)
    finish(process)
    (_, undisturbed, _), (_, resumed, _) = newest_checkpoint(tmp_path / "undisturbed"), newest_checkpoint(killed)
    assert undisturbed.keys() == resumed.keys()
    assert [k for k in undisturbed if not torch.equal(undisturbed[k], resumed[k])] == []
    assert not list(killed.glob("*.partial")) and not list(killed.glob(".my3yearold.*.partial*"))


def test_muon_goes_on_where_it_stopped(tmp_path):
    "Its running means are in the checkpoint, beside AdamW's moments: bit for bit."
    config = replace(TINY, optimiser="muon", max_steps=4, validate_every=2)
    train(replace(config, run=str(tmp_path / "undisturbed")))
    train(replace(config, run=str(tmp_path / "stopped")))
    for late in (tmp_path / "stopped").glob("checkpoint-*4.safetensors"):
        late.unlink()  # as if it had been killed after step 2
    train(replace(config, run=str(tmp_path / "stopped")), resume=True)
    (_, one, _), (_, other, _) = (newest_checkpoint(tmp_path / name) for name in ("undisturbed", "stopped"))
    assert any(k.endswith(".mean") for k in one)
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def curve(folder, column="train"):
    with open(folder / "log.csv", newline="") as f: return [float(row[column]) for row in csv.DictReader(f)]


def test_two_processes_make_the_curve_of_one(tmp_path):
    "Same global batch, gloo, float32: the loss of each of 20 steps agrees to 1e-4."
    steps = ["--max-steps", 20, "--validate-every", 1, "--num-valid", 1]
    finish(start(*FLAGS, *steps, "--run", tmp_path / "one"))
    finish(
        start(
            *FLAGS,
            *steps,
            "--run",
            tmp_path / "two",
            launcher=[
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node=2",
                "--no-python",
                "--",
            ],
        )
    )
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 20
    assert max(abs(a - b) / a for a, b in zip(one, two)) < 1e-4
    valid = curve(tmp_path / "one", "valid")          # always the same question; that of a step changes with its masks
    assert valid[-1] < valid[0] - 0.05


@pytest.mark.parametrize(
    "choice",
    [
        dict(trunk="straight", channels=16, layers=3),
        dict(trunk="residual", channels=16, layers=3),
        dict(trunk="dilated", channels=16, layers=5),
        dict(fold=2),
        dict(merger="conv"),
        dict(merge_at=(0,)),
        dict(embedding="free", head="free"),
        dict(head="smooth"),
        dict(head="mixture"),
        dict(level="char"),
        dict(joined=True),
        dict(
            pooling="ifo",
            window=3,
            reader_layers=2,
            bidirectional=True,
            dense=True,
            zoneout=0.1,
            layer_norm=True,
            forget_bias=1.0,
            learned_start=True,
        ),
        dict(given_too=True),
        dict(loss="emd"),
        dict(optimiser="muon"),
        dict(loss="emd2", weighting="batch"),
        dict(masks="contiguish_disc=1,brush=1,free_form=1,bernoulli=1"),
        dict(stratified=False),
        dict(schedule="plateau"),
        dict(accumulate=2),
        dict(objects=1.0),
        dict(stop_after=1, learning_rate=0.0, warmup=1),
    ],
    ids=str,
)
def test_every_choice_trains_and_is_kept(tmp_path, choice):
    config = replace(TINY, run=str(tmp_path), max_steps=4, **choice)
    train(config)
    model, vocabulary, card = load_model(tmp_path / "model")
    for name, value in choice.items():
        assert card["config"][name] == (list(value) if isinstance(value, tuple) else value)
    for name in ("trunk", "fold", "merger", "embedding", "head"):
        if name in choice: assert model.config[name] == choice[name]
    assert (vocabulary.level == "char") == (choice.get("level") == "char")


def test_early_stop(tmp_path):
    "With a learning rate of zero nothing improves: one validation sets the best, the next stops the run."
    train(replace(TINY, run=str(tmp_path), stop_after=1, learning_rate=0.0))
    assert len(curve(tmp_path)) == 2


def test_a_loss_that_is_no_number_is_traced(tmp_path, monkeypatch):
    "The step, the pictures and the checkpoint to go on from are named, and that checkpoint is sound."
    honest = training.train_step
    def broken(config, model, examples, asked, accelerator):
        loss = honest(config, model, examples, asked, accelerator)
        broken.calls = getattr(broken, "calls", 0) + 1
        return loss * float("nan") if broken.calls == 6 else loss
    monkeypatch.setattr(training, "train_step", broken)
    with pytest.raises(FloatingPointError) as error: train(replace(TINY, run=str(tmp_path)))
    pictures = (
        Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), torch.device("cpu"))
        .index(5, 4, 0)
        .tolist()
    )
    for word in (
        "at step 5",
        "checkpoint-00000004.safetensors",
        "smaller learning rate",
        *(f"scene-{i}" for i in pictures),
    ):
        assert word in str(error.value)
    assert all(torch.isfinite(v).all() for v in newest_checkpoint(tmp_path)[1].values())


def test_checkpoints_are_kept_and_cleared(tmp_path):
    train(replace(TINY, run=str(tmp_path), keep=2))
    assert [p.name for p in sorted(tmp_path.glob("checkpoint-*"))] == [
        "checkpoint-00000010.safetensors",
        "checkpoint-00000012.safetensors",
    ]
    train(replace(TINY, run=str(tmp_path), max_steps=2), start_over=True)
    # a new run does not mix with an old one
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002.safetensors"]


def test_resume_of_another_model(tmp_path):
    train(replace(TINY, run=str(tmp_path), max_steps=2))
    with pytest.raises(ValueError, match="another model"):
        train(replace(TINY, run=str(tmp_path), widths=(16, 32)), resume=True)


def test_tensorboard_holds_pictures_and_sizes(tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(replace(TINY, run=str(tmp_path), max_steps=2))
    events = board.EventAccumulator(str(tmp_path), size_guidance=dict(images=0)); events.Reload()
    tags = events.Tags()
    assert {"real", "hole", "filled", "mean", "entropy", "attention"} <= set(tags["images"])
    assert {"train", "valid", "valid_given", "parameter/head.bias", "gradient/head.bias"} <= set(tags["scalars"])


def test_profile(tmp_path):
    train(replace(TINY, run=str(tmp_path), profile=1))
    assert "traceEvents" in (tmp_path / "trace.json").read_text()


def test_strata_are_unbiased_with_uneven_channels():
    """A channel with fewer hidden variables than its places, one with none, one with many: the mean over draws is the
    mean over the hidden."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    hidden[0, 0, 0, :3], hidden[0, 2] = True, True
    values = torch.randn(1, 3, 64, generator=generator)
    estimates = []
    for _ in range(2000):
        index, weight = strata(hidden, 15, generator)
        estimates.append((values.gather(2, index) * weight).sum())
    estimates = torch.stack(estimates)
    assert abs(estimates.mean() - values.flatten()[hidden.flatten()].mean()) < 4 * estimates.std() / 2000 ** 0.5


def test_shares():
    hidden = torch.zeros(3, 3, 4, 4, dtype=torch.bool)
    hidden[0, 0, 0, 0], hidden[1] = True, True
    assert shares(hidden, "image").tolist() == [0.5, 0.5, 0]
    assert torch.allclose(shares(hidden, "batch"), torch.tensor([1 / 49, 48 / 49, 0]))


# ---- what is in the way, and what stays ----

def snapshot(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path):
    "The folder of a finished run of four steps, and its configuration."
    config = replace(TINY, run=str(tmp_path / "run"), max_steps=4)
    train(config)
    return tmp_path / "run", config


def test_a_folder_of_pictures_is_no_run_folder(tmp_path):
    for name in ("metadata.jsonl", "config.json", "log.csv"): (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    for start_over in (False, True):
        with pytest.raises(ValueError, match="config.json, log.csv, metadata.jsonl"):
            train(replace(TINY, run=str(tmp_path)), start_over=start_over)
    assert snapshot(tmp_path) == before


def test_forgetting_to_resume_loses_nothing(run):
    folder, config = run
    before = snapshot(folder)
    with pytest.raises(ValueError) as error: train(config)
    for word in (f"--resume {folder}", "--run", "--start-over"): assert word in str(error.value)
    with pytest.raises(ValueError, match="not both"): train(config, resume=True, start_over=True)
    assert snapshot(folder) == before


def test_starting_over_removes_the_run_and_nothing_else(run):
    folder, config = run
    theirs = {"notes.txt": "mine", "checkpoint-best.safetensors": "mine", "model/notes.txt": "mine"}
    for name, text in theirs.items(): (folder / name).write_text(text)
    train(replace(config, max_steps=2), start_over=True)
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-00000002.safetensors"] and curve(folder, "step") == [2]
    assert len((folder / "provenance.jsonl").read_text().splitlines()) == 1
    for name, text in theirs.items(): assert (folder / name).read_text() == text


def test_nothing_is_cleared_before_the_new_run_can_begin(run):
    folder, config = run
    before = snapshot(folder)
    with pytest.raises(FileNotFoundError): train(replace(config, data="nowhere"), start_over=True)
    with pytest.raises(ValueError, match="batch_size"): train(replace(config, batch_size=100), start_over=True)
    assert snapshot(folder) == before


def test_two_trainings_at_a_time(run):
    folder, config = run
    with only_one(folder, "training in"):
        for how in (dict(resume=True), dict(start_over=True)):
            with pytest.raises(ValueError, match="another process is training in"):
                train(replace(config, max_steps=8), **how)
    assert curve(folder, "step") == [2, 4]


def test_the_folder_is_held_while_a_run_goes_on(tmp_path, monkeypatch):
    honest = training.train_step
    def trying(*how):
        with pytest.raises(ValueError, match="another process"):
            with only_one(tmp_path, "training in"): pass
        return honest(*how)
    monkeypatch.setattr(training, "train_step", trying)
    train(replace(TINY, run=str(tmp_path), max_steps=1))
    with only_one(tmp_path, "training in"): pass


def test_a_full_disk_in_the_middle_of_a_run(tmp_path, monkeypatch):
    "The file is named, what was there is whole, and the run goes on from it to the same end."
    config = replace(TINY, max_steps=6)
    train(replace(config, run=str(tmp_path / "undisturbed")))
    honest = runs.save_tensors
    def full(tensors, path, *more):
        if path.name == "checkpoint-00000006.safetensors": raise OSError(28, "No space left on device", str(path))
        honest(tensors, path, *more)
    monkeypatch.setattr(runs, "save_tensors", full)
    with pytest.raises(OSError, match="checkpoint-00000006"): train(replace(config, run=str(tmp_path / "full")))
    monkeypatch.undo()
    assert [newest_checkpoint(tmp_path / "full")[2]["step"], len(checkpoints(tmp_path / "full"))] == [4, 2]
    train(replace(config, run=str(tmp_path / "full")), resume=True)
    one, other = (newest_checkpoint(tmp_path / name)[1] for name in ("undisturbed", "full"))
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


# ---- what a run keeps from its first step ----

@pytest.fixture
def pictures(tmp_path):
    "A folder of pictures, red and blue, with captions."
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40): Image.new("RGB", (16, 16), "red" if i % 3 else "blue").save(folder / f"{i:02}.png")
    describe(folder, "red", "blue")
    return folder


def describe(folder, often, seldom):
    captions = {f"{i:02}": [f"all {often if i % 3 else seldom}"] for i in range(40)}
    (folder / "captions.json").write_text(json.dumps(captions))


def make_old(folder):
    "Turn a run folder into one of version 0.1.0."
    for name in (".my3yearold.json", ".my3yearold.lock", "vocabulary.json", "data.json"): (folder / name).unlink()
    for path in checkpoints(folder):
        with safe_open(path, "pt") as file:
            tensors, state = {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["state"])
        for name in ("optimiser", "network", "validated"): state.pop(name)
        save_file(tensors, path, {"state": json.dumps(state)})
    noted = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(noted | dict(data=",".join(noted["data"]))))


@pytest.mark.parametrize("old", [False, True])
def test_a_resumed_run_keeps_its_words(tmp_path, pictures, old):
    """Edited captions are refused; accepted, they do not swap the meaning of red and blue.
    (A run of version 0.1.0 has nothing to refuse them by.)"""
    config = replace(TINY, data=str(pictures), run=str(tmp_path / "run"), max_steps=4)
    train(config)
    words = load_model(tmp_path / "run" / "model")[1].words
    assert words.index("red") < words.index("blue")
    if old: make_old(tmp_path / "run")
    describe(pictures, "blue", "red")                              # now blue is more frequent
    longer = replace(config, max_steps=8)
    if not old:
        before = snapshot(tmp_path / "run")
        with pytest.raises(ValueError, match=r"captions \(train\), captions \(valid\).*--accept-data"):
            train(longer, resume=True)
        assert snapshot(tmp_path / "run") == before
    train(longer, resume=True, accept_data=not old)
    assert json.loads((tmp_path / "run" / "vocabulary.json").read_text())["words"] == words[2:]
    assert load_model(tmp_path / "run" / "model")[1].words == words
    train(replace(config, max_steps=12), resume=True)              # noted anew
    describe(pictures, "red", "blue")
    with pytest.raises(ValueError, match="captions"): train(replace(config, max_steps=16), resume=True)


def test_the_words_are_kept_before_there_is_a_model(tmp_path, pictures, monkeypatch):
    "Interrupted before the first validation."
    config = replace(TINY, data=str(pictures), run=str(tmp_path / "run"))
    honest = training.train_step
    monkeypatch.setattr(training, "train_step", lambda *how: signal.raise_signal(signal.SIGTERM) or honest(*how))
    with pytest.raises(KeyboardInterrupt, match="saved at step 1"): train(config)
    monkeypatch.undo()
    words = json.loads((tmp_path / "run" / "vocabulary.json").read_text())["words"]
    describe(pictures, "blue", "red")
    assert not (tmp_path / "run" / "model").exists() and words.index("red") < words.index("blue")
    train(replace(config, max_steps=2), resume=True, accept_data=True)
    assert load_model(tmp_path / "run" / "model")[1].words[2:] == words


def test_an_old_run_without_any_vocabulary_says_so(tmp_path, pictures):
    config = replace(TINY, data=str(pictures), run=str(tmp_path / "run"), max_steps=4)
    train(config)
    make_old(tmp_path / "run")
    for path in (tmp_path / "run" / "model").iterdir(): path.unlink()
    with pytest.warns(UserWarning, match="holds no vocabulary"): train(replace(config, max_steps=8), resume=True)
    assert (tmp_path / "run" / "vocabulary.json").is_file() and mark_of(tmp_path / "run").kind == "run"


@pytest.mark.parametrize(
    "change, words",
    [
        ("another picture", "number"),
        ("another name", "names"),
        ("other bytes", "pictures"),
        ("another source", "number"),
    ],
)
def test_other_data_are_refused(tmp_path, pictures, change, words):
    config = replace(TINY, data=str(pictures), run=str(tmp_path / "run"), max_steps=2)
    train(config)
    if change == "another picture": Image.new("RGB", (16, 16)).save(pictures / "new.png")
    if change == "another name": (pictures / "00.png").rename(pictures / "0.png")
    if change == "other bytes": Image.new("RGB", (16, 16), "green").save(pictures / "00.png")
    if change == "another source": config = replace(config, data="scenes")
    with pytest.raises(ValueError, match=rf"have changed since it began: .*{words} \(train\)"):
        train(replace(config, max_steps=4), resume=True)


def test_an_old_run_goes_on_as_it_would_have(run, tmp_path):
    "Version 0.1.0: no mark, no vocabulary, sources in one string; same end as the new one."
    folder, config = run
    train(replace(config, run=str(tmp_path / "new"), max_steps=8))
    train(replace(config, run=str(tmp_path / "old"), max_steps=8))
    for late in checkpoints(tmp_path / "old")[1:]: late.unlink()
    make_old(tmp_path / "old")
    noted = read_config(tmp_path / "old")
    assert noted.data == ("scenes",)
    train(noted, resume=True)
    one, other = (newest_checkpoint(tmp_path / name)[1] for name in ("new", "old"))
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    assert mark_of(tmp_path / "old").kind == "run" and curve(tmp_path / "old", "step") == [2, 4, 6, 8]


def test_a_run_killed_before_its_first_checkpoint_begins_again(run):
    folder, config = run
    end = newest_checkpoint(folder)[1]
    for path in [*checkpoints(folder), *(folder / "model").iterdir()]: path.unlink()
    (folder / "model").rmdir()
    with pytest.warns(UserWarning, match="no checkpoint yet: it begins at step 0"): train(config, resume=True)
    assert [k for k, v in newest_checkpoint(folder)[1].items() if not torch.equal(v, end[k])] == []


def test_a_run_that_lost_its_checkpoints_keeps_its_model(run):
    folder, config = run
    for path in checkpoints(folder): path.unlink()
    before = snapshot(folder)
    with pytest.raises(FileNotFoundError, match="no checkpoint in .* --start-over"): train(config, resume=True)
    assert snapshot(folder) == before


@pytest.mark.parametrize("name, text", [
    ("vocabulary.json", "{"), ("vocabulary.json", '{"level": "word", "words": [1]}'), ("data.json", "[]"),
    ("data.json", '{"train": {"number": []}}'), ("config.json", "[]"), ("config.json", '{"size": "large"}')])
def test_damaged_texts_of_a_run_are_named(run, name, text):
    folder, config = run
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=name): train(replace(config, max_steps=8), resume=True)


# ---- the configuration ----

@pytest.mark.parametrize("field", fields(TrainConfig), ids=lambda field: field.name)
def test_every_field_refuses_what_it_cannot_hold(field):
    for wrong in (None, {}, object(), [object()], b"8"):
        with pytest.raises(ValueError) as error: check(replace(TINY, **{field.name: wrong}))
        assert str(error.value).startswith(f"{field.name} is ") and "; use " in str(error.value)
    if isinstance(field.default, (int, float)) and field.type is not bool and field.name not in ("seed", "forget_bias"):
        with pytest.raises(ValueError, match=f"{field.name} is -1"): check(replace(TINY, **{field.name: -1}))
    if isinstance(field.default, float):
        for wrong in (math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=f"{field.name} is "): check(replace(TINY, **{field.name: wrong}))
    if isinstance(field.default, str) and field.name not in ("run", "start"):
        with pytest.raises(ValueError, match="banana"): check(replace(TINY, **{field.name: "banana"}))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(ema=2), "a share from 0 to 1"),
        (dict(clip=0), "above 0"),
        (dict(batch_size=0), "1 or more"),
        (dict(run=""), "the name of a folder"),
        (dict(widths=()), "one or several"),
        (dict(widths=(4, 8)), "from 8 to 8192"),
        (dict(widths=(16, 24, 32)), "3 widths and 2 numbers of blocks"),
        (dict(trunk="straight", filter_width=4), "odd"),
        (dict(size=9), "use one that 2 divides"),
        (dict(masks="orderless=nan"), "out of range"),
        (dict(device="cuda:99"), "there is no device cuda:99"),
        (dict(device="cuda:x"), "use auto, cpu"),
        (dict(batch_size=8.0), "whole number"),
        (dict(batch_size=True), "whole number"),
        (dict(flip="half"), "a share"),
        (dict(merge_at=(99,)), "no place 99"),
        (dict(seed=2**63), "63 bits"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_told_before_anything_is_made(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words): train(replace(TINY, **dict(run=str(tmp_path / "run")) | wrong))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_configuration():
    for wrong in ("runs/x", None, dict(run="x")):
        with pytest.raises(TypeError, match="a run needs a TrainConfig"): train(wrong)


def test_lists_paths_and_single_names_are_taken(tmp_path):
    config = TrainConfig(data="scenes", widths=[8, 16], run=tmp_path / "x")
    assert (config.data, config.widths, config.run) == (("scenes",), (8, 16), str(tmp_path / "x"))
    check_again = replace(config, data=tmp_path)
    assert check_again.data == (str(tmp_path),)


def test_settings_have_the_ranges_of_the_weights_they_make():
    "What a run may be told to build, `load_model` takes back, and no more."
    numbers = [-1, 0, 1, 2, 7, 8, 31, 32, 33, 64, 65, 256, 257, 1000, 1001, 4096, 4097, 8192, 8193]
    words = ["f", "fo", "banana", "smooth", *saving.HEADS, *config_module.TRUNKS, *config_module.MERGERS]
    probes = [*numbers, *words, 0.5, 1.5, True, *((n, n) for n in numbers), (8,) * 12, (8,) * 13, ()]
    def takes(kind, value):
        try: msgspec.convert(value, kind)
        except msgspec.ValidationError: return False
        return True
    ours = {field.name: field.type for field in fields(TrainConfig)}
    theirs = {}
    for kind in (saving._Network, saving._Reader): theirs |= typing.get_type_hints(kind, include_extras=True)
    for name in (*config_module.PARTS, *config_module.READER, "merge_at", "reader_layers", "size"):
        kind = theirs[dict(reader_layers="num_layers").get(name, name)]
        for value in probes: assert takes(ours[name], value) == takes(kind, value), (name, value)


def test_a_configuration_comes_back_from_its_file(run):
    folder, config = run
    assert read_config(folder) == config
    noted = json.loads((folder / "config.json").read_text())
    for change, words in (
        (dict(colour="red"), "'colour', which is no setting"),
        (dict(size="large"), "size is 'large'"),
        (dict(ema=7), "ema is 7"),
    ):
        (folder / "config.json").write_text(json.dumps(noted | change))
        with pytest.raises(ValueError, match=re.escape(words)) as error: read_config(folder)
        assert str(folder / "config.json") in str(error.value)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no run folder"): read_config(folder)


def test_resuming_nothing_does_not_begin(run, monkeypatch, capsys):
    "`--resume \"$RUN\"` where RUN is not set."
    folder, config = run
    monkeypatch.chdir(folder)                                      # even here
    before = snapshot(folder)
    with pytest.raises(SystemExit) as stopped: main(["train", "--resume", ""])
    assert stopped.value.code == 2 and "it is empty" in capsys.readouterr().err
    assert main(["train", "--resume", folder / "nowhere"]) == 2
    assert "is no run folder to go on with" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the name of a folder"): train(replace(config, run=""), resume=True)
    assert snapshot(folder) == before


# ---- weights to start from ----

@pytest.fixture
def weights(tmp_path):
    "A folder of weights of a shape that no configuration has by default."
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a red cat"]] * 5, level="char")
    model = OrderlessNADE(len(vocabulary), 32, widths=(8, 24), blocks=(1, 0), word_size=8, state_size=16, head="smooth",
                          reader=dict(pooling="ifo", num_layers=2))
    save_model(tmp_path / "weights", model, vocabulary)
    return tmp_path / "weights"


BARE = replace(TINY, widths=TrainConfig.widths, blocks=TrainConfig.blocks, max_steps=2)


def test_the_configuration_noted_is_that_of_the_network_built(tmp_path, weights):
    folder = tmp_path / "run"
    train(replace(BARE, start=str(weights), run=str(folder)))
    noted = read_config(folder)
    assert (noted.widths, noted.blocks, noted.head, noted.level) == ((8, 24), (1, 0), "smooth", "char")
    assert (noted.pooling, noted.reader_layers) == ("ifo", 2)
    model, vocabulary, card = load_model(folder / "model")
    assert vocabulary.level == "char" and card["config"]["widths"] == [8, 24] and model.config["state_size"] == 16
    for path in [*weights.iterdir()]: path.unlink()                # a run that goes on needs them no more
    train(replace(noted, max_steps=4), resume=True)
    assert load_model(folder / "model")[0].config["word_size"] == 8


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(widths=(16, 24)), r"widths is \(16, 24\).*have \(8, 24\)"),
        (dict(head="free"), "head is 'free'.*have 'smooth'"),
        (dict(reader_layers=3), "reader_layers is 3.*have 2"),
        (dict(size=17), "use one that 2 divides"),
    ],
    ids=str,
)
def test_a_network_other_than_that_of_the_weights_is_refused(tmp_path, weights, change, words):
    with pytest.raises(ValueError, match=words):
        train(replace(BARE, start=str(weights), run=str(tmp_path / "run"), **change))
    train(replace(BARE, start=str(weights), run=str(tmp_path / "same"), head="smooth", max_steps=1))


def test_an_old_run_from_weights_goes_on_with_their_network(tmp_path, weights):
    "Version 0.1.0 noted the defaults, whatever was built."
    folder = tmp_path / "run"
    train(replace(BARE, start=str(weights), run=str(folder)))
    make_old(folder)
    noted = asdict(replace(BARE, start=str(weights), run=str(folder))) | dict(data="scenes")
    (folder / "config.json").write_text(json.dumps(noted))
    train(replace(read_config(folder), max_steps=4), resume=True)
    assert newest_checkpoint(folder)[2]["step"] == 4 and read_config(folder).widths == (8, 24)


def test_bundled_weights_are_known_by_name(tmp_path):
    train(replace(BARE, start="scenes", run=str(tmp_path / "run"), max_steps=1, batch_size=1, num_valid=1))
    assert read_config(tmp_path / "run").trunk == load_model(saving.weights_folder("scenes"))[0].config["trunk"]
    with pytest.raises(FileNotFoundError, match="'monet' is neither"):
        train(replace(BARE, start="monet", run=str(tmp_path / "other")))


# ---- going on ----

def test_a_finished_run_is_left_as_it_is(run):
    folder, config = run
    before = snapshot(folder)
    with pytest.warns(UserWarning, match="is at its end, at step 4.*--max-steps"):
        assert train(config, resume=True) == folder
    assert snapshot(folder) == before


def test_a_run_that_stopped_early_is_finished_too(tmp_path):
    config = replace(TINY, run=str(tmp_path), stop_after=1, learning_rate=0.0)
    train(config)
    before = snapshot(tmp_path)
    with pytest.warns(UserWarning, match="at its end"): train(config, resume=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("at", [2, 3, 6])
def test_an_interrupt_costs_no_validation(tmp_path, monkeypatch, at):
    "At a step that is to be validated, at one that is not, at the last: the log ends as the undisturbed one's."
    config = replace(TINY, max_steps=6)
    train(replace(config, run=str(tmp_path / "undisturbed")))
    honest = training.train_step
    def interrupting(*how):
        interrupting.calls = getattr(interrupting, "calls", 0) + 1
        if interrupting.calls == at: signal.raise_signal(signal.SIGINT)
        return honest(*how)
    monkeypatch.setattr(training, "train_step", interrupting)
    with pytest.raises(KeyboardInterrupt, match=f"saved at step {at}"):
        train(replace(config, run=str(tmp_path / "stopped")))
    monkeypatch.undo()
    train(replace(config, run=str(tmp_path / "stopped")), resume=True)
    for column in ("step", "valid", "valid_centre"):
        assert curve(tmp_path / "stopped", column) == curve(tmp_path / "undisturbed", column)
    assert "nan" not in (tmp_path / "stopped" / "log.csv").read_text()
    (_, one, _), (_, other, _) = (newest_checkpoint(tmp_path / name) for name in ("undisturbed", "stopped"))
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def test_what_the_network_draws_itself_follows_from_the_step(tmp_path):
    config = replace(TINY, zoneout=0.3, max_steps=4)
    for name in ("undisturbed", "stopped"): train(replace(config, run=str(tmp_path / name)))
    checkpoints(tmp_path / "stopped")[-1].unlink()
    torch.rand(1000)
    train(replace(config, run=str(tmp_path / "stopped")), resume=True)
    (_, one, _), (_, other, _) = (newest_checkpoint(tmp_path / name) for name in ("undisturbed", "stopped"))
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def test_a_longer_budget_is_told_with_its_rates(run):
    folder, config = run
    with pytest.warns(UserWarning, match="with the longer budget the learning rate goes up from 0 to 0.00075"):
        train(replace(config, max_steps=8), resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoints(folder)[-1].unlink()
        train(replace(config, max_steps=8), resume=True)           # the same budget: nothing to say


@pytest.mark.parametrize("made_with, other", [("adamw", "muon"), ("muon", "adamw")])
def test_resume_with_another_optimiser(tmp_path, made_with, other):
    config = replace(TINY, run=str(tmp_path), max_steps=2, optimiser=made_with)
    train(config)
    with pytest.raises(ValueError, match=f"--optimiser {made_with}"):
        train(replace(config, optimiser=other, max_steps=4), resume=True)


def test_one_precision_after_the_other_in_one_process(tmp_path):
    for precision in ("float32", "bfloat16", "float32"):
        train(replace(TINY, run=str(tmp_path / precision), precision=precision, max_steps=1), start_over=True)
        assert load_model(tmp_path / precision / "model")[2]["precision"] == precision


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_batch_larger_than_the_data(tmp_path, accumulate):
    config = replace(TINY, run=str(tmp_path), num_scenes=6, batch_size=8, accumulate=accumulate, max_steps=1)
    with pytest.raises(ValueError, match="batch_size is 8, and 6 pictures"): train(config)
    train(replace(config, num_scenes=8))


def test_one_process_writes_the_trace(tmp_path):
    class Second: is_main_process = False
    with training.tracer(replace(TINY, run=str(tmp_path), profile=1), Second()) as trace: assert trace is None


# ---- each part of a step, by hand ----

@pytest.mark.parametrize("step, d", [(0, 0.1), (8, 0.5), (10 ** 6, 0.75)])
def test_the_average_by_hand(step, d):
    "d average + (1 - d) weights, d growing as (1 + step) / (10 + step) up to the decay; buffers are copied."
    average, model = (torch.nn.BatchNorm1d(2) for _ in range(2))
    for m, value in ((average, 2.0), (model, 6.0)):
        for x in (*m.parameters(), m.running_mean, m.running_var): x.data.fill_(value)
    training.update_average(average, model, step, 0.75)
    for p in average.parameters(): assert torch.allclose(p, torch.full((2,), d * 2 + (1 - d) * 6))
    assert average.running_mean.tolist() == [6, 6] and model.weight.tolist() == [6, 6]


def test_the_averaged_weights_are_kept_and_validated(tmp_path):
    "Not the raw ones, which a high rate has carried away from them."
    train(replace(TINY, run=str(tmp_path), max_steps=6, validate_every=6, learning_rate=0.01))
    _, tensors, _ = newest_checkpoint(tmp_path)
    model, vocabulary, card = load_model(tmp_path / "model")
    stored = model.state_dict()
    def is_kept(kind): return all(torch.equal(v, tensors[f"{kind}.{k}"].half().float()) for k, v in stored.items())
    assert is_kept("average") and not is_kept("model")
    held_out = Examples(load_data("scenes", "valid", 16, 64), vocabulary, torch.device("cpu"))
    figures = {}
    for kind in ("average", "model"):
        model.load_state_dict({k: tensors[f"{kind}.{k}"] for k in stored})
        figures[kind] = validation.validate(model, held_out, TINY)
    assert abs(figures["average"] - card["valid"]) < 1e-4 < abs(figures["model"] - card["valid"])


def test_the_card_is_of_the_best_validation(tmp_path):
    train(replace(TINY, run=str(tmp_path), learning_rate=0.05, max_steps=8))
    valid, (_, _, card) = curve(tmp_path, "valid"), load_model(tmp_path / "model")
    assert math.isclose(card["valid"], min(valid), rel_tol=1e-4) and card["step"] == 2 * (1 + valid.index(min(valid)))


class Watching:
    "A network that knows nothing, and remembers what it was asked."
    def __init__(self): self.asked = []
    def __call__(self, images, given, ids, lengths, where):
        self.asked.append((given, lengths, where))
        return torch.zeros(*where.shape, 256)


@pytest.mark.parametrize("kind", ["whole", "centre", "blank", "given"])
def test_what_validation_asks(kind):
    examples = Examples(load_data("scenes", "valid", 16, 64), Vocabulary.build([["a"]], 1), torch.device("cpu"))
    model = Watching()
    # four of each channel: there nearly always are as many
    config = replace(TINY, num_valid=40, scored=6)
    assert abs(validation.validate(model, examples, config, kind) - 8) < 1e-5
    given, where = torch.cat([g for g, _, _ in model.asked]), torch.cat([w for _, _, w in model.asked])
    hole, share = ~centre(40, 16), given.float()
    asked = torch.zeros(40, 3, 256, dtype=torch.bool).scatter(2, where, True).view_as(given)
    inside = (share * hole).sum((1, 2, 3)) / hole[0].sum()
    if kind == "blank": assert torch.equal(given, ~hole)
    elif kind == "centre":
        assert given[~hole].all()                                  # the rest is there
        assert inside.min() < 0.1 and inside.max() > 0.8 and 0.4 < inside.mean() < 0.6      # of the centre, any number
    else:
        outside = (share * ~hole).sum((1, 2, 3)) / (~hole[0]).sum()
        assert 0.4 < inside.mean() < 0.6 and 0.4 < outside.mean() < 0.6 and outside.min() < 0.1
    meant = given if kind == "given" else ~given
    assert (asked & meant).sum() > 0.95 * asked.sum()


def test_validation_without_captions_reads_none():
    examples = Examples(load_data("scenes", "valid", 16, 64), Vocabulary.build([["a"]], 1), torch.device("cpu"))
    for captions in (True, False):
        validation.validate(model := Watching(), examples, TINY, captions=captions)
        assert (torch.cat([n for _, n, _ in model.asked]) > 0).any() == captions


def step_of(tmp_path, monkeypatch, **change): # -> gradients as the optimiser met them, in one vector
    seen, honest = [], training.update_average
    def watching(average, model, *rest):
        seen.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        honest(average, model, *rest)
    monkeypatch.setattr(training, "update_average", watching)
    train(replace(TINY, run=str(tmp_path / "step"), max_steps=1, **change), start_over=True)
    return seen[0]


@pytest.mark.parametrize("wrong, message", [
    (dict(loss="mse"), "use cross_entropy, emd or emd2"), (dict(masks="square"), "unknown"),
    (dict(batch_size=6, accumulate=4), "cannot be dealt"), (dict(objects=2.0), "share from 0 to 1")], ids=str)
def test_what_cannot_be_run_leaves_nothing(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message): train(replace(TINY, run=str(tmp_path / "nowhere"), **wrong))
    assert not (tmp_path / "nowhere").exists()


def test_clipping_by_hand(tmp_path, monkeypatch):
    "A gradient longer than `clip` is shortened to it, its direction kept; a shorter one is left alone."
    free = step_of(tmp_path, monkeypatch, clip=1e9)
    clip = free.norm().item() / 3
    assert torch.allclose(step_of(tmp_path, monkeypatch, clip=clip), free / 3, rtol=1e-3, atol=1e-8)
    assert torch.equal(step_of(tmp_path, monkeypatch, clip=3 * free.norm().item()), free)


@pytest.mark.parametrize("change", [dict(accumulate=2), dict(accumulate=4)], ids=str)
def test_rounds_do_not_change_the_gradient(tmp_path, monkeypatch, change):
    one, several = step_of(tmp_path, monkeypatch), step_of(tmp_path, monkeypatch, **change)
    assert (one - several).norm() < 1e-5 * one.norm()


def test_the_first_step_of_adamw_by_hand(tmp_path, monkeypatch):
    "Where a gradient is not tiny its sign times the rate, and the weights shrunk by rate times decay."
    before, honest = {}, training.fit
    def watching(run):
        before.update({k: v.clone() for k, v in run.learner.model.state_dict().items()})
        honest(run)
    monkeypatch.setattr(training, "fit", watching)
    gradient = step_of(tmp_path, monkeypatch, clip=1e9, learning_rate=0.01, weight_decay=0.1, warmup=1)
    _, tensors, _ = newest_checkpoint(tmp_path / "step")
    names = [k for k, p in OrderlessNADE(40, 16, widths=(16, 24), blocks=(1, 1)).named_parameters()]
    w, after = (torch.cat([x[k].flatten() for k in names]) for x in (before, {k: tensors[f"model.{k}"] for k in names}))
    large = gradient.abs() > 1e-4  # epsilon is 1e-8
    assert large.any() and torch.allclose(
        after[large], (w * (1 - 0.01 * 0.1) - 0.01 * gradient.sign())[large], atol=1e-5
    )


GRADIENT = """
import gc, sys, torch
from my3yearold.batches import Examples, ScoredLoss, decide
from my3yearold.data import load_data
from my3yearold.captions import Vocabulary
from my3yearold.model import OrderlessNADE
from my3yearold.training import TrainConfig, engine, train_step

def measure(accumulate):
    config = TrainConfig(size=16, batch_size=4, scored=90, num_scenes=64, device="cpu", precision="float32",
                         weighting="batch", accumulate=accumulate)
    accelerator = engine(config)
    data = load_data("scenes", "train", 16, 64)
    vocabulary = Vocabulary.build(data.captions)
    torch.manual_seed(1)
    model = OrderlessNADE(len(vocabulary), 16, widths=(16, 24), blocks=(1, 1))
    examples = Examples(data, vocabulary, accelerator.device)
    wrapped = accelerator.prepare_model(ScoredLoss(model))
    loss = train_step(config, wrapped, examples, decide(config, examples, 7), accelerator)
    loss = accelerator.reduce(loss, "sum").item()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    if accelerator.is_main_process: torch.save((loss, gradient), f"{sys.argv[1]}-{accumulate}")

for accumulate in (1, 2): measure(accumulate)
gc.collect()                               # what still holds the group of processes would abort at the end of this one
if torch.distributed.is_initialized(): torch.distributed.destroy_process_group()
"""


def test_two_processes_have_the_gradient_of_one(tmp_path):
    "Before any optimiser, which forgives a wrong scale: the same sum, in one round and in two."
    (tmp_path / "gradient.py").write_text(GRADIENT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, words in (("one", []), ("two", launcher)):
        command = [sys.executable, *words, tmp_path / "gradient.py", tmp_path / name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    for rounds in (1, 2):
        loss, gradient = torch.load(tmp_path / f"one-{rounds}")
        loss_of_two, gradient_of_two = torch.load(tmp_path / f"two-{rounds}")
        assert math.isclose(loss, loss_of_two, rel_tol=1e-5)
        assert (gradient - gradient_of_two).norm() < 1e-5 * gradient.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
def test_cuda_compiled_in_bfloat16(tmp_path):
    "The whole path of a GPU: compiled, bfloat16, masks drawn on the device; near the CPU's losses."
    train(replace(TINY, run=str(tmp_path / "gpu"), device="cuda", precision="bfloat16", compile="yes", max_steps=8))
    train(replace(TINY, run=str(tmp_path / "cpu"), max_steps=8))
    gpu, cpu = curve(tmp_path / "gpu"), curve(tmp_path / "cpu")
    assert abs(gpu[0] - cpu[0]) < 0.5 and gpu[-1] < gpu[0]
