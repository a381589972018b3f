"""Faults that an attack on version 0.1.0's successor found, each as it was found: files, names, archives, flags,
memory."""
import json
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from my3yearold import cli, likelihood
from my3yearold.data import load_data
from my3yearold.captions import Vocabulary
from my3yearold.cli import main
from my3yearold.data import course_archive, image_folder, list_pictures, picture_names
from my3yearold.files import LITTER, LOCK, MARK, check_free, check_page, mark_of, out_of_memory, strangers, whole_folder
from my3yearold.cutout import as_picture
from my3yearold.inpaint import Inpainter, check_settings
from my3yearold.model import OrderlessNADE
from my3yearold.runs import Log, newest_checkpoint
from my3yearold.saving import load_model, save_model
from my3yearold.training import TrainConfig, train

TINY = dict(
    num_scenes=20, num_valid=2, device="cpu", size=16, widths=(8, 8), blocks=(0, 0), validate_every=2, max_steps=2
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a red cat ."]] * 5)
    save_model(
        tmp_path / "weights",
        OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8),
        vocabulary,
        {},
    )
    return tmp_path / "weights"


@pytest.fixture
def run(tmp_path):
    train(TrainConfig(run=str(tmp_path / "run"), **TINY))
    return tmp_path / "run"


def picture(path, size=(12, 10), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return path


def told(capsys):
    return [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if line.startswith("my3yearold: ")]


def filled(weights, *arguments):
    return main(["inpaint", *arguments, "--weights", weights, "--steps", 1, "--samples", 1])


# --- users' files

def test_nothing_is_written_through_a_link_to_the_model(run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text('{"mine": 1}')
    for file in (run / "model").iterdir(): file.unlink()
    (run / "model").rmdir()
    (run / "model").symlink_to(mine)
    with pytest.raises(ValueError, match="model is a link"):
        train(TrainConfig(run=str(run), **TINY | dict(max_steps=4)), resume=True)
    assert [p.name for p in mine.iterdir()] == ["config.json"] and (mine / "config.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, MemoryError])
def test_an_old_result_survives_whatever_stops_the_new_one(tmp_path, monkeypatch, stopped):
    def make(text):
        with whole_folder(tmp_path / "cat") as partial: (partial / "filled.txt").write_text(text)
    make("old")
    calls = []
    def interrupted(folder, really=strangers):
        calls.append(folder)
        if len(calls) == 2: raise stopped
        return really(folder)
    monkeypatch.setattr("my3yearold.files.strangers", interrupted)
    with pytest.raises(stopped): make("new")
    assert (tmp_path / "cat" / "filled.txt").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["cat"]


def test_a_users_file_that_came_in_between_survives_a_lost_race(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "cat") as partial: (partial / "filled.txt").write_text("old")
    replace_really = os.replace
    def lost(source, target):                                  # somebody makes a folder of that name at the last moment
        if str(source).endswith(".partial") and Path(target).name == "cat": raise OSError(39, "Directory not empty")
        return replace_really(source, target)
    monkeypatch.setattr(os, "replace", lost)
    with pytest.raises(OSError, match="cat"):
        with whole_folder(tmp_path / "cat") as partial: (partial / "filled.txt").write_text("new")
    assert (tmp_path / "cat" / "filled.txt").read_text() == "old"


@pytest.mark.parametrize("name", [*LITTER, LOCK])
def test_a_folder_that_only_bears_an_excepted_name_is_a_stranger(tmp_path, name):
    with whole_folder(tmp_path / "cat") as partial: (partial / "filled.txt").write_text("ours")
    (tmp_path / "cat" / name).mkdir()
    (tmp_path / "cat" / name / "thesis.txt").write_text("mine")
    assert strangers(tmp_path / "cat") == [name]
    with pytest.raises(ValueError, match="did not write"): check_free(tmp_path / "cat")


def test_pipes_and_deep_marks_are_no_marks(tmp_path):
    for name in ("pipe", "deep"): (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / MARK)
    os.mkfifo(tmp_path / "index.html")
    (tmp_path / "deep" / MARK).write_text('{"x":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert mark_of(tmp_path / "pipe") is None and mark_of(tmp_path / "deep") is None
    with pytest.raises(ValueError, match="was not written by this program"): check_page(tmp_path / "index.html")


# --- captions and pictures

def test_pictures_of_one_stem_have_their_own_captions(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("dup/cat.jpg", "dup/cat.png", "A/cat.jpg", "B/cat.jpg")): picture(tmp_path / name, seed=i)
    (tmp_path / "dup" / "captions.csv").write_text("file,caption\ncat.jpg,a red circle\ncat.png,a blue square\n")
    (tmp_path / "ab.csv").write_text("file,caption\nA/cat.jpg,in A\nB\\cat.jpg,in B\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = image_folder("dup", 16)
    assert dict(zip(data.names, data.captions)) == {"cat.jpg": ["a red circle"], "cat.png": ["a blue square"]}
    assert (
        filled(weights, "dup", "--out", "one") == 0
        and filled(weights, "A/cat.jpg", "B/cat.jpg", "--captions", "ab.csv", "--out", "two") == 0
    )

    def captions(out):
        return sorted(json.loads(p.read_text())["caption"] for p in (tmp_path / out).glob("*/settings.json"))

    assert captions("one") == ["a blue square", "a red circle"] and captions("two") == ["in A", "in B"]


def test_names_tell_files_apart_with_as_little_as_it_takes():
    assert picture_names([Path(p) for p in ("x/a.png", "x/b.png", "x/b.jpg", "y/c.png", "z/c.png", "z/d.e.png")]) == [
        "a",
        "b.png",
        "b.jpg",
        "y/c.png",
        "z/c.png",
        "d.e",
    ]
    assert picture_names([Path("x/a.png"), Path("x/a.png")]) == ["x/a.png", "x/a.png"] and picture_names([]) == []


def test_pictures_called_train_are_no_split(tmp_path):
    for i in range(20): picture(tmp_path / "trains" / f"train_{i:02}.jpg", seed=i)
    assert len(load_data(str(tmp_path / "trains"), "train", 16)) == 19


def test_captions_inside_the_folders_of_the_splits_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "cache"))
    for split in ("train", "valid"):
        picture(tmp_path / "data" / split / "one.png", seed=1)
        (tmp_path / "data" / split / "captions.csv").write_text(f"file,caption\none.png,in {split}\n")
    for split in ("train", "valid"): assert load_data(str(tmp_path / "data"), split, 16).captions == [[f"in {split}"]]
    (tmp_path / "data" / "train" / "captions.csv").write_text("file,caption\none.png,another\n")
    # and no cache hides it
    assert course_archive(tmp_path / "data", "train", 16).captions == [["another"]]


def test_all_formats_that_are_read_are_looked_for(tmp_path):
    for suffix in ("png", "tif", "gif", "webp", "TIFF"): picture(tmp_path / f"a-{suffix}.{suffix}")
    assert len(list_pictures(tmp_path)) == 5


def test_a_table_without_captions_is_told(tmp_path):
    picture(tmp_path / "cat.png")
    (tmp_path / "captions.csv").write_text("file,caption\n")
    with pytest.warns(UserWarning, match="captions.csv holds no caption"): image_folder(tmp_path, 16)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "cat.TXT").write_text("a cat\n")
    assert image_folder(tmp_path, 16).captions == [["a cat"]]


def test_an_animation_is_told(tmp_path):
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    frames[0].save(tmp_path / "mask.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="mask.gif has 2 frames, and only the first"): as_picture(tmp_path / "mask.gif")


@pytest.mark.parametrize("source", ["scenes", "folder"])
def test_a_split_that_there_is_not(tmp_path, source):
    with pytest.raises(ValueError, match="'nonsense'.*'train' and 'valid'"): load_data(source, "nonsense", 16)


# --- resume

def test_a_changed_vocabulary_is_noticed(run):
    path = run / "vocabulary.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps(noted | dict(words=noted["words"][::-1])))
    with pytest.raises(ValueError, match="not the vocabulary that the run began with"):
        train(TrainConfig(run=str(run), **TINY | dict(max_steps=4)), resume=True)
    path.write_text(json.dumps(noted))
    train(TrainConfig(run=str(run), **TINY | dict(max_steps=4)), resume=True)


def test_flags_that_contradict_resume(run, tmp_path, capsys):
    assert main(["train", "--resume", run, "--run", tmp_path / "other"]) == 2
    assert main(["train", "--resume", run, "--start", "scenes", "--max-steps", 4]) == 2
    assert main(["train", "--accept-data", "--run", tmp_path / "new"]) == 2
    said = told(capsys)
    assert [
        "leave out --run" in said[0],
        "weights of its own" in said[1],
        "leave out --accept-data" in said[2],
    ] == 3 * [True]
    assert json.loads((run / "config.json").read_text())["start"] == "" and not (tmp_path / "new").exists()


def test_a_damaged_log_and_checkpoint_are_passed_over_and_told(run, tmp_path):
    with open(run / "log.csv", "a") as log: log.write("9" * 5000 + ",1\n" + "x" * 200_000 + "\n")
    assert [row["step"] for row in Log(run, ["step", "minutes"], step=2).rows] == ["2"]
    train(TrainConfig(run=str(run), **TINY | dict(max_steps=4)), resume=True)
    newest = newest_checkpoint(run)[0]
    newest.write_bytes(newest.read_bytes()[:500])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*going on from checkpoint-00000002"):
        newest_checkpoint(run)


def test_a_run_may_begin_where_a_file_browser_has_been(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").write_bytes(b"0")
    train(TrainConfig(run=str(tmp_path / "run"), **TINY))
    assert (tmp_path / "run" / ".DS_Store").exists()


# --- hostile files

@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_a_sparse_archive_is_refused(tmp_path, kind):
    plain = tarfile.TarInfo("x/train/0.jpg")
    if kind == "pax":
        plain.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": "200000000",
            "GNU.sparse.name": plain.name,
        }
        content = plain.tobuf(tarfile.PAX_FORMAT)
    else:
        header = bytearray(plain.tobuf(tarfile.GNU_FORMAT))
        header[156:157] = b"S"
        header[386:398] = header[398:410] = b"00000000000\0"                      # a block of nothing, at the beginning
        header[483:495] = b"1372000000\0\0"                                       # and 200 MB in the end, in base eight
        header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
        content = bytes(header)
    import bz2
    (tmp_path / "sparse.tar.bz2").write_bytes(bz2.compress(content + bytes(10240)))
    with pytest.raises(ValueError, match="is sparse: it says it is longer"):
        course_archive(tmp_path / "sparse.tar.bz2", "train", 16)


@pytest.mark.parametrize("scale", [True, -1, 1e308, 10**400, "3", None, [1]])
def test_a_card_s_guidance_scale_is_a_number_in_range(weights, scale):
    (weights / "card.json").write_text(json.dumps(dict(guidance_scale=scale)))
    with pytest.raises(ValueError, match="card.json"): Inpainter.from_pretrained(weights)


@pytest.mark.parametrize("size", [4096, 15, 1025])
def test_a_size_that_the_network_cannot_work_at(weights, size):
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | dict(size=size)))
    with pytest.raises(ValueError, match="size|halved"): load_model(weights)


def test_escape_characters_stay_out_of_the_terminal(tmp_path, weights, capsys):
    folder = tmp_path / "a\x1b[31mb"
    for i in range(20): picture(folder / f"{i:02}.png", seed=i)
    assert main(["data", folder]) == 0
    main(["evaluate", "--weights", weights, "--data", folder, "--split", "train", "--pictures", 2, "--evaluations", 2])
    main(
        [
            "train",
            "--data",
            folder,
            "--run",
            tmp_path / "r\x1b[31m",
            *("--size 16 --widths 8 8 --blocks 0 0 --max-steps 1 --num-valid 1 --device cpu".split()),
        ]
    )
    with pytest.raises(SystemExit): main(["inpaint", "--\x1b[31mfoo"])
    spoken = capsys.readouterr()
    assert "\x1b[31m" not in spoken.out + spoken.err and "\\x1b[31m" in spoken.out and "\\x1b[31m" in spoken.err


def test_a_renamed_result_does_not_spoil_the_page(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog", "cow"): picture(tmp_path / f"{name}.png")
    assert filled(weights, "cat.png", "dog.png", "--out", "out") == 0
    try: os.rename(tmp_path / "out" / "cat", os.fsencode(tmp_path / "out") + b"/\xff")
    except OSError: pytest.skip("this file system takes no such name")
    (tmp_path / "out" / "dog" / "settings.json").unlink()
    (tmp_path / "out" / "dog" / "settings.json").mkdir()
    assert filled(weights, "cow.png", "--out", "out") == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert 'src="%FF/filled-1.png"' in page and 'src="cow/filled-1.png"' in page and "dog/" not in page
    assert any("settings.json" in line for line in told(capsys))


# --- one sentence

@pytest.mark.parametrize(
    "flags, words",
    [
        (["--samples", 10**9], "at most 10,000"),
        (["--steps", 10**20, "--strategy", "ancestral"], "at most 1,000,000"),
        (["--guidance", "1e39"], "at most 100"),
        (["--guidance", "1" + "0" * 400], "at most 100"),
        (["--temperature", "1" + "0" * 400], "temperature inf"),
    ],
)
def test_numbers_beyond_all_bounds(tmp_path, weights, capsys, flags, words):
    picture(tmp_path / "cat.png")
    assert main(["inpaint", tmp_path / "cat.png", "--weights", weights, "--out", tmp_path / "out", *flags]) == 2
    said = told(capsys)
    assert len(said) == 1 and words in said[0] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--pictures", "--evaluations"])
def test_numbers_beyond_all_bounds_of_evaluate(capsys, flag):
    with pytest.raises(SystemExit) as ended: main(["evaluate", flag, "9" * 20])
    assert ended.value.code == 2 and len(told(capsys)) == 1


@pytest.mark.parametrize("field", ["num_scenes", "max_steps", "batch_size", "accumulate"])
def test_numbers_beyond_all_bounds_of_a_training(tmp_path, field):
    with pytest.raises(ValueError, match=field):
        train(TrainConfig(run=str(tmp_path / "run"), **TINY | {field: 10**400}))


def test_one_held_out_picture_is_too_few_to_evaluate_on(tmp_path, weights, capsys):
    for i in range(20): picture(tmp_path / "few" / f"{i}.png", seed=i)
    assert main(["evaluate", "--weights", weights, "--data", tmp_path / "few", "--evaluations", 2]) == 2
    assert "has 1 picture to evaluate on" in told(capsys)[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA out of memory. Tried"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't allocate memory: you tried"),
    ],
)
def test_memory_has_many_names(error, weights, monkeypatch):
    assert out_of_memory(error) and "memory does not suffice" in cli.cause(error)
    monkeypatch.setattr("my3yearold.saving.network_of", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises((MemoryError, ImportError)): load_model(weights)


def test_no_home_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3YEAROLD_CACHE", "~nobody-of-this-name/x")
    picture(tmp_path / "data" / "train" / "one.png")
    with pytest.warns(UserWarning, match="no home folder"):
        assert len(course_archive(tmp_path / "data", "train", 16)) == 1


PROGRAM = [sys.executable, "-m", "my3yearold"]


def inpainting(folder, weights, out): # the words of a command
    places = ["--weights", str(weights), "--out", str(folder / out)]
    return [*PROGRAM, "inpaint", str(folder / "cat.png"), *places, "--steps", "1", "--samples", "1"]


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "1>&-"])
def test_work_is_done_though_nobody_listens(tmp_path, weights, redirection):
    if "full" in redirection and not Path("/dev/full").exists(): pytest.skip("there is no /dev/full here")
    picture(tmp_path / "cat.png")
    words = inpainting(tmp_path, weights, "out")
    subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *words], timeout=120)
    assert (tmp_path / "out" / "cat" / "filled-1.png").exists() and (tmp_path / "out" / "index.html").exists()


def test_a_terminal_that_cannot_show_a_name(tmp_path, weights):
    picture(tmp_path / "cat.png")
    words = inpainting(tmp_path, weights, "füllen")
    done = subprocess.run(
        words, env=os.environ | dict(PYTHONIOENCODING="ascii"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "f\\xfcllen" in done.stdout


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda w: load_model(w, "gpu"), ValueError),
        (lambda w: Inpainter("m", "v"), TypeError),
        (
            lambda w: likelihood.evaluate(*load_model(w)[:2], torch.zeros(0, 3, 16, 16, dtype=torch.uint8), []),
            ValueError,
        ),
        (
            lambda w: likelihood.evaluate(*load_model(w)[:2], torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ["a", "b"]),
            TypeError,
        ),
        (lambda w: as_picture(torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta")), TypeError),
        (lambda w: as_picture(torch.zeros(3, 8, 8, dtype=torch.bfloat16)), TypeError),
        (lambda w: as_picture([[1, 2], [3]]), TypeError),
        (lambda w: check_settings(["gibbs"], 1, 1.0, 1), ValueError),
        (lambda w: check_settings("gibbs", 1, 10**400, 1), ValueError),
        (lambda w: check_settings("gibbs", 1, 1.0, 2**70), ValueError),
    ],
)
def test_the_python_interface_says_it_in_a_sentence(weights, call, error):
    with pytest.raises(error) as told: call(weights)
    assert "\n" not in str(told.value) and len(str(told.value)) > 20
