"""Several processes do one command together: what they leave is what one leaves, and a fault of one ends all."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate", reason="several processes work together by accelerate, of the train extra")
from my3yearold import commands
from my3yearold.captions import Vocabulary
from my3yearold.machines import Processes
from my3yearold.model import OrderlessNADE
from my3yearold.runs import newest_checkpoint
from my3yearold.saving import save_model

PROGRAM = "import sys; from my3yearold.cli import main; sys.exit(main())"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", "--", sys.executable]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment(**more):
    found = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    return found | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


def run(*words, launcher=(), cwd=None):
    command = [sys.executable, *launcher, "-c", PROGRAM, *map(str, words)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=cwd)


def by_hand(program, *words, cwd=None): # -> two processes, told of each other without a launcher that watches them
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    return [subprocess.Popen([sys.executable, "-c", program, *map(str, words)], cwd=cwd, text=True,
                             env=environment(RANK=str(i), LOCAL_RANK=str(i), **told),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]


def sentences(text): return re.findall(r"my3yearold: [^\r\n]*", text)


def files(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def inpaint(tmp_path_factory):
    "The words of a command that fills a folder of four pictures and a broken one, quickly."
    place = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a red cat ."]] * 5)
    options = dict(widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8)
    save_model(place / "weights", OrderlessNADE(len(vocabulary), 16, **options), vocabulary, {})
    chance = np.random.default_rng(0)
    pictures = place / "pictures"
    pictures.mkdir()
    for i, name in enumerate(("ant", "bee", "cat", "dog")):
        pixels = chance.integers(0, 256, (20 + 7 * i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{name}.png")
    (pictures / "cat.txt").write_text("a red cat")
    (pictures / "coq.png").write_text("no picture")
    return ["inpaint", pictures, "--weights", place / "weights", "--steps", 2, "--samples", 2]


# --- shares

def test_shares_are_all_there_is_once():
    for n in range(8):
        for count in (1, 2, 3, 5):
            shares = [Processes(number, count).share(range(n)) for number in range(count)]
            assert sorted(i for share in shares for i in share) == list(range(n))
            told = Processes(0, count)
            object.__setattr__(told, "told", lambda mine: shares)
            assert told.gathered(shares[0]) == list(range(n))


def test_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Processes(i, 4, i % 2).device("auto") for i in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert Processes(1, 2, 1).device("cpu") == "cpu" and Processes(1, 2, 1).device("cuda:0") == "cuda:0"
    assert Processes().device("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Processes(1, 2, 1).device("auto") == "auto"


# --- filling

def test_two_processes_leave_what_one_leaves(inpaint, tmp_path):
    "The same files byte for byte, the same line at the end; once each, what is broken and what has no caption."
    one, two = run(*inpaint, "--out", tmp_path / "one"), run(*inpaint, "--out", tmp_path / "two", launcher=TORCHRUN)
    assert one.returncode == 2 and two.returncode != 0          # a launcher has a status of its own
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(files(tmp_path / "one")) == 4 * 7 + 2
    assert one.stdout.replace("one", "two") == two.stdout and "4 of 5 pictures filled" in two.stdout
    assert sorted(sentences(one.stderr)) == sorted(sentences(two.stderr)) and len(sentences(one.stderr)) == 2
    bars = set(re.findall(r"(\w+): +\d+%\|", two.stderr))
    assert bars == {"ant", "cat", "dog"}              # the first process has one, of its own share


def test_lines_for_programs_come_in_order(inpaint, tmp_path):
    "Both processes end with the status of all; what is there already is kept, whoever filled it."
    run(inpaint[0], inpaint[1] / "bee.png", *inpaint[2:], "--out", tmp_path / "filled")
    both = by_hand(PROGRAM, *inpaint, "--json", "--out", tmp_path / "filled")
    (lines, said), (nothing, _) = (process.communicate(timeout=300) for process in both)
    assert [process.returncode for process in both] == [2, 2] and nothing == ""
    told = [json.loads(line) for line in lines.splitlines()]
    assert [line["picture"].rsplit("/", 1)[-1] for line in told] == [f"{n}.png" for n in "ant bee cat coq dog".split()]
    assert [line["status"] for line in told] == ["filled", "kept", "filled", "failed", "filled"]


def test_what_is_wrong_for_all_is_said_once(inpaint, tmp_path):
    both = by_hand(PROGRAM, *inpaint[:2], tmp_path / "nowhere.png", *inpaint[2:], "--out", tmp_path / "filled")
    said = [sentences(process.communicate(timeout=300)[1]) for process in both]
    assert [process.returncode for process in both] == [2, 2] and [len(lines) for lines in said] == [1, 0]
    assert "there is no picture or folder" in said[0][0] and not (tmp_path / "filled").exists()


def test_what_is_wrong_on_one_machine_ends_all(inpaint, tmp_path):
    "The one that has failed speaks, and nothing is written."
    failing = ("import os, sys\nfrom my3yearold import cli\n"
               "def fail(args): raise FileNotFoundError('no disk here')\n"
               "if os.environ['RANK'] == '1': cli.jobs_from = fail\nsys.exit(cli.main())")
    both = by_hand(failing, *inpaint, "--out", tmp_path / "filled")
    said = [sentences(process.communicate(timeout=300)[1]) for process in both]
    assert [process.returncode for process in both] == [2, 2]
    assert [line for line in said[0] if "no caption" not in line] == []
    assert said[1] == ["my3yearold: no disk here"] and not (tmp_path / "filled").exists()


SLOW = """
import os, sys, time
from my3yearold import cli
fill_one = cli.fill_one
def stuck(*arguments):
    if os.environ["RANK"] == "1":
        print("stuck", flush=True)
        time.sleep(300)
    return fill_one(*arguments)
cli.fill_one = stuck
sys.exit(cli.main())
"""


def test_a_process_that_is_killed_ends_the_others(inpaint, tmp_path):
    "With one sentence, and results that are whole; the same command fills what is left."
    both = by_hand(SLOW, *inpaint, "--quiet", "--out", tmp_path / "filled")
    assert both[1].stdout.readline() == "stuck\n"
    both[1].kill()
    said = sentences(both[0].communicate(timeout=300)[1])
    both[1].communicate()
    assert both[0].returncode == 2 and "another process of this command ended" in said[-1]
    assert sum("another process" in line for line in said) == 1
    assert {p.name for p in (tmp_path / "filled").iterdir() if p.is_dir()} == {"ant", "cat", "dog"}
    again = run(*inpaint, "--out", tmp_path / "filled")
    assert "1 of 5 pictures filled, 3 were there already" in again.stdout


def test_a_fault_of_one_ends_the_others_by_the_launcher(inpaint, tmp_path):
    "Long before the other would be done."
    faulty = SLOW.replace("time.sleep(300)", "raise KeyError('a fault')").replace("return", "time.sleep(300); return")
    began = time.monotonic()
    done = subprocess.run([sys.executable, *TORCHRUN, "-c", faulty, *map(str, inpaint), "--out", tmp_path / "filled"],
                          env=environment(), capture_output=True, text=True, timeout=280)
    said = sentences(done.stderr)
    assert done.returncode != 0 and time.monotonic() - began < 280
    assert sum("this is a fault of the program (KeyError: 'a fault')" in line for line in said) == 1
    assert sum("stopped by the launcher" in line for line in said) == 1


def test_without_accelerate_a_launcher_is_refused(inpaint, tmp_path):
    "All processes would fill all pictures; without a launcher nothing is missed."
    bare = "import sys; sys.modules['accelerate'] = None\n" + PROGRAM
    both = by_hand(bare, *inpaint, "--out", tmp_path / "filled")
    said = [sentences(process.communicate(timeout=300)[1]) for process in both]
    assert [process.returncode for process in both] == [2, 2] and "pip install" in said[0][0] and len(said[0]) == 1
    alone = subprocess.run([sys.executable, "-c", bare, *map(str, inpaint), "--out", tmp_path / "filled"],
                           env=environment(), capture_output=True, text=True, timeout=300)
    assert "4 of 5 pictures filled" in alone.stdout


# --- training

FLAGS = ("--size 16 --num-scenes 64 --widths 16 24 --blocks 1 1 --batch-size 4 --warmup 2 --num-valid 4 --scored 90 "
         "--device cpu --precision float32 --max-steps 12 --validate-every 4").split()


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Begun by one process, gone on with by two, ended by one: the parameters and the moments of the run that one did
    alone, to 1e-5; a line says what changes."""
    pytest.importorskip("tensorboard", reason="training is tested with the train extra installed")
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    assert run("train", *FLAGS, "--run", alone).returncode == 0
    shutil.copytree(alone, moved)
    for step, launcher in ((4, TORCHRUN), (8, ())):
        for late in moved.glob("checkpoint-*"):         # as if killed after this step
            if int(late.stem.split("-")[1]) > step: late.unlink()
        done = run("train", "--resume", moved, launcher=launcher)
        assert done.returncode == 0, done.stderr
        told = [line for line in sentences(done.stderr) if "going on with" in line]
        if launcher: assert len(told) == 1 and "2 processes" in told[0] and "batches, captions, holes" in told[0]
    (_, one, _), (_, other, _) = newest_checkpoint(alone), newest_checkpoint(moved)
    assert one.keys() == other.keys()
    for name in one: torch.testing.assert_close(other[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    assert any(not torch.equal(one[name], other[name]) for name in one)       # two did take part


@pytest.mark.parametrize("noted, now, words", [
    (None, "1", ""), (None, "2", "going on with 2 processes: "), ("2", "2", ""), ("1", "1", ""),
    ("2", "1", "going on with 1 process instead of 2: "), ("1", "4", "going on with 4 processes instead of 1: ")])
def test_what_a_changed_number_means_is_told(tmp_path, monkeypatch, noted, now, words):
    monkeypatch.setenv("WORLD_SIZE", now)
    line = dict(step=0) | (dict(processes=noted) if noted else {})
    (tmp_path / "provenance.jsonl").write_text(json.dumps(line) + "\n")
    told = commands.tell_processes(tmp_path)
    assert told.startswith(words) and bool(told) == bool(words)
    (tmp_path / "provenance.jsonl").write_bytes(b"\xff no JSON\n")
    assert bool(commands.tell_processes(tmp_path)) == (now != "1")
