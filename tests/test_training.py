"""A run that is killed, shared among processes, or asked for something impossible."""
import csv
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

pytest.importorskip("accelerate", reason="training is tested with the train extra installed")
from my3yearold import training
from my3yearold.batches import Examples, load_data, questions, shares, strata
from my3yearold.captions import Vocabulary
from my3yearold.losses import cross_entropy
from my3yearold.model import OrderlessNADE
from my3yearold.saving import load_model
from my3yearold.runs import newest_checkpoint
from my3yearold.training import TrainConfig, engine, train

TINY = TrainConfig(precision="float32", size=16, num_scenes=64, widths=(16, 24), blocks=(1, 1), batch_size=4, max_steps=12, warmup=2, validate_every=2,
                   num_valid=4, scored=90, device="cpu")
FLAGS = "--size 16 --num-scenes 64 --widths 16 24 --blocks 1 1 --batch-size 4 --warmup 2 --num-valid 4 --scored 90 --device cpu --precision float32".split()


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
    "SIGKILL five times, wherever it strikes; the run that goes on ends with the parameters of the undisturbed one, bit for bit."
    steps = ["--max-steps", 12, "--validate-every", 2]
    finish(start(*FLAGS, *steps, "--run", tmp_path / "undisturbed"))
    chance, killed = random.Random(0), tmp_path / "killed"
    process = start(*FLAGS, *steps, "--run", killed)
    for _ in range(5):
        while process.poll() is None and not list(killed.glob("checkpoint-*")): time.sleep(0.05)      # nothing to go on from before that
        time.sleep(chance.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start("--resume", killed)
    finish(process)
    (_, undisturbed, _), (_, resumed, _) = newest_checkpoint(tmp_path / "undisturbed"), newest_checkpoint(killed)
    assert undisturbed.keys() == resumed.keys()
    assert [k for k in undisturbed if not torch.equal(undisturbed[k], resumed[k])] == []
    assert not list(killed.glob("*.partial")) or newest_checkpoint(killed)


def test_muon_goes_on_where_it_stopped(tmp_path):
    "Its running means are in the checkpoint, beside AdamW's moments: bit for bit."
    config = replace(TINY, optimiser="muon", max_steps=4, validate_every=2)
    train(replace(config, run=str(tmp_path / "undisturbed")))
    train(replace(config, run=str(tmp_path / "stopped")))
    for late in (tmp_path / "stopped").glob("checkpoint-*4.safetensors"): late.unlink()       # as if it had been killed after step 2
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
    finish(start(*FLAGS, *steps, "--run", tmp_path / "two", launcher=[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", "--"]))
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 20
    assert max(abs(a - b) / a for a, b in zip(one, two)) < 1e-4
    valid = curve(tmp_path / "one", "valid")          # always the same question; that of a step changes with its masks
    assert valid[-1] < valid[0] - 0.05


@pytest.mark.parametrize("choice", [
    dict(trunk="straight", channels=16, layers=3), dict(trunk="residual", channels=16, layers=3), dict(trunk="dilated", channels=16, layers=5),
    dict(fold=2), dict(merger="conv"), dict(merge_at=(0,)), dict(embedding="free", head="free"), dict(head="smooth"), dict(head="mixture"), dict(level="char"), dict(joined=True),
    dict(pooling="ifo", window=3, reader_layers=2, bidirectional=True, dense=True, zoneout=0.1, layer_norm=True, forget_bias=1.0, learned_start=True),
    dict(given_too=True), dict(loss="emd"), dict(optimiser="muon"), dict(loss="emd2", weighting="batch"),
    dict(masks="contiguish_disc=1,brush=1,free_form=1,bernoulli=1"), dict(stratified=False), dict(schedule="plateau"), dict(accumulate=2),
    dict(objects=1.0), dict(stop_after=1, learning_rate=0.0, warmup=1)], ids=str)
def test_every_choice_trains_and_is_kept(tmp_path, choice):
    config = replace(TINY, run=str(tmp_path), max_steps=4, **choice)
    train(config)
    model, vocabulary, card = load_model(tmp_path / "model")
    for name, value in choice.items(): assert card["config"][name] == (list(value) if isinstance(value, tuple) else value)
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
    config = replace(TINY, run=str(tmp_path))
    pictures = Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), torch.device("cpu")).index(5, 4, 0).tolist()
    for word in ("at step 5", "checkpoint-00000004.safetensors", "smaller learning rate", *(f"scene-{i}" for i in pictures)): assert word in str(error.value)
    assert all(torch.isfinite(v).all() for v in newest_checkpoint(tmp_path)[1].values())


def test_checkpoints_are_kept_and_cleared(tmp_path):
    train(replace(TINY, run=str(tmp_path), keep=2))
    assert [p.name for p in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-00000010.safetensors", "checkpoint-00000012.safetensors"]
    train(replace(TINY, run=str(tmp_path), max_steps=2), start_over=True)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002.safetensors"]     # a new run does not mix with an old one


def test_resume_of_another_model(tmp_path):
    train(replace(TINY, run=str(tmp_path), max_steps=2))
    with pytest.raises(ValueError, match="another model"): train(replace(TINY, run=str(tmp_path), widths=(16, 32)), resume=True)


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
    "A channel with fewer hidden variables than its places, one with none, one with many: the mean over draws is the mean over the hidden."
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
def test_cuda_compiled_in_bfloat16(tmp_path):
    "The whole path of a GPU: compiled, bfloat16, masks drawn on the device; near the CPU's losses."
    train(replace(TINY, run=str(tmp_path / "gpu"), device="cuda", precision="bfloat16", compile="yes", max_steps=8))
    train(replace(TINY, run=str(tmp_path / "cpu"), max_steps=8))
    gpu, cpu = curve(tmp_path / "gpu"), curve(tmp_path / "cpu")
    assert abs(gpu[0] - cpu[0]) < 0.5 and gpu[-1] < gpu[0]
