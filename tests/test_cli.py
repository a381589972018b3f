"""The command line: exit status, one sentence per fault, results that are whole or not there, a page whose links
work."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from my3yearold import __version__, cli, commands
from my3yearold.captions import Vocabulary
from my3yearold.cli import main
from my3yearold.files import LOCK, MARK
from my3yearold.model import OrderlessNADE
from my3yearold.saving import load_model, save_model

SIZE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    "A folder of untrained weights that are quick to run."
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([["a red cat ."]] * 5)
    save_model(
        folder,
        OrderlessNADE(len(vocabulary), SIZE, widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8),
        vocabulary,
        {},
    )
    return folder


@pytest.fixture
def pictures(tmp_path):
    "A folder with two pictures and a caption beside one of them."
    folder = tmp_path / "my pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("cat", "dog & bone"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "cat.txt").write_text("a red cat\na cat again\n")
    return folder


@pytest.fixture
def run(weights, tmp_path, monkeypatch, capsys):
    "run(*arguments) -> exit status, sentences on standard error, standard output; writes into tmp_path / 'filled'."
    monkeypatch.chdir(tmp_path)
    def run(*arguments, weights=weights, samples=("--samples", 2)):
        status = main(["inpaint", *arguments, "--weights", weights, "--steps", 2, *samples])
        spoken = capsys.readouterr()
        return status, re.findall(r"my3yearold: [^\r\n]*", spoken.err), spoken.out
    return run


def snapshot(folder):
    return (
        {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        if folder.exists()
        else {}
    )


def hidden(name): return name.startswith(".")


def settings(out, name): return json.loads((out / name / "settings.json").read_text())


# --- what is written

def test_a_folder_of_pictures(run, pictures, tmp_path):
    status, said, printed = run(pictures)
    out = tmp_path / "filled"
    assert status == 0 and len(said) == 1 and "no caption for 1 of the 2 pictures (dog & bone, for one)" in said[0]
    assert "2 of 2 pictures filled" in printed and "index.html" in printed
    for name, caption in [("cat", "a red cat"), ("dog & bone", "")]:
        assert {p.name for p in (out / name).iterdir()} == {
            "original.png",
            "hole.png",
            "filled-1.png",
            "filled-2.png",
            "chain.gif",
            "settings.json",
            MARK,
        }
        original, hole, *filled = (
            np.array(Image.open(out / name / f"{f}.png")) for f in ("original", "hole", "filled-1", "filled-2")
        )
        known = np.ones((20, 30), dtype=bool)
        known[5:15, 7:22] = False
        assert (original == np.array(Image.open(pictures / f"{name}.png"))).all()
        for picture in (hole, *filled):
            assert (picture[known] == original[known]).all() and (picture[~known] != original[~known]).any()
        assert settings(out, name)["caption"] == caption
        assert settings(out, name)["seeds"] == [0, 1]
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == [LOCK]


def test_the_animation_arrives_and_holds(run, pictures, tmp_path):
    run(pictures / "cat.png")
    with Image.open(tmp_path / "filled" / "cat" / "chain.gif") as chain:
        durations = []
        for k in range(chain.n_frames):
            chain.seek(k)
            durations.append(chain.info["duration"])
    assert len(durations) == 4                                     # the hole, two steps, and the picture's own size
    assert durations[-1] >= 1000 > 10 * durations[0] / 2


def test_every_link_of_the_page_leads_to_a_file_beside_it(run, pictures, tmp_path):
    run(pictures)
    out = tmp_path / "filled"
    page = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(links) == 20 and all((out / unquote(link)).is_file() for link in links)
    assert "://" not in page and "dog &amp; bone" in page and "a red cat" in page


def test_captions_are_escaped_on_the_page(run, pictures, tmp_path):
    run(pictures / "cat.png", "--caption", "a <b>red</b> & cat")
    assert "a &lt;b&gt;red&lt;/b&gt; &amp; cat" in (tmp_path / "filled" / "index.html").read_text()


def test_same_seed_same_bytes(run, pictures, tmp_path):
    out = tmp_path / "filled"
    run(pictures)
    first = snapshot(out)
    run(pictures)
    assert snapshot(out) == first
    run(pictures, "--seed", 5)
    assert snapshot(out) != first


def test_where_captions_come_from(run, pictures, tmp_path):
    out = tmp_path / "filled"
    listed = tmp_path / "captions.json"
    listed.write_text(json.dumps({"cat.png": ["a cat", "a red"], "other": "a"}))
    status, said, _ = run(pictures, "--captions", listed)
    assert (
        status == 0 and len(said) == 1 and "no picture for 1 of the 2 names with captions (other, for one)" in said[0]
    )
    assert (settings(out, "cat")["caption"], settings(out, "dog & bone")["caption"]) == ("a cat", "")
    run(pictures, "--captions", listed, "--caption", "red")
    assert (settings(out, "cat")["caption"], settings(out, "dog & bone")["caption"]) == ("red", "red")


def test_captions_that_match_nothing_are_said(run, pictures, tmp_path):
    listed = tmp_path / "captions.csv"
    # pandas, Windows
    listed.write_text(",file_name,caption\n0,C:\\pics\\cat.gif,a red cat\n1,C:\\pics\\bird.gif,a red bird\n")
    status, said, _ = run(pictures / "cat.png", "--captions", listed)
    assert (status, said) == (0, []) and settings(tmp_path / "filled", "cat")["caption"] == "a red cat"
    status, said, _ = run(pictures / "dog & bone.png", "--captions", listed)
    assert status == 0 and len(said) == 1 and "holds no caption of dog & bone" in said[0]
    status, said, _ = run(pictures, "--captions", listed)
    assert (
        status == 0
        and len(said) == 1
        and "no caption for 1 of the 2 pictures (dog & bone" in said[0]
        and "(bird, for one)" in said[0]
    )


@pytest.mark.parametrize(
    "size, words", [((10_000, 9_500), None), ((13_500, 13_200), "has 178 megapixels, and at most 100 are read")]
)
def test_very_large_pictures(run, tmp_path, monkeypatch, size, words):
    "What is read is read without a word of Pillow's; what is not costs no memory."
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("1", size).save(tmp_path / "large.png")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    mask = tmp_path / "mask.png"
    Image.new("1", size).save(mask)
    # black: nothing to fill, so that the test is quick
    status, said, _ = run(tmp_path / "large.png", "--mask", mask)
    assert status == 2 and len(said) == 1 and (words or "there is nothing to fill") in said[0]


def test_mask_polarity(run, pictures, tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2:6, 3:9] = 255                                           # white = fill
    Image.fromarray(mask).save(tmp_path / "mask.png")
    run(pictures / "cat.png", "--mask", tmp_path / "mask.png")
    filled, original = (
        np.array(Image.open(tmp_path / "filled" / "cat" / f"{f}.png")) for f in ("filled-1", "original")
    )
    assert (filled[mask == 0] == original[mask == 0]).all() and (filled[mask == 255] != original[mask == 255]).any()


def test_pictures_of_one_name_get_numbers(run, pictures, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "cat.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "cat.jpg")
    assert run(pictures / "cat.png", tmp_path / "more")[0] == 0
    assert {p.name for p in (tmp_path / "filled").iterdir() if not hidden(p.name)} == {
        "cat",
        "cat-2",
        "cat-3",
        "index.html",
    }


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (16, 16), (300, 2)])
def test_pictures_of_any_size(run, tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "thin.png")
    assert run(tmp_path / "thin.png")[:2] == (0, [])


# --- faults

def faults(pictures, tmp_path):
    (tmp_path / "text.jpg").write_text("I am not a picture")
    whole = (pictures / "cat.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:len(whole) // 2])
    Image.new("L", (30, 20)).save(tmp_path / "black.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "captions.json").write_text("{")
    cat = pictures / "cat.png"
    return {
        "no picture": (["nowhere.png"], "there is no picture or folder nowhere.png"),
        "no picture in the folder": ([tmp_path / "empty"], "there is no picture in the folder"),
        "text called jpg": ([tmp_path / "text.jpg"], "text.jpg is not a picture"),
        "truncated picture": ([tmp_path / "cut.png"], "cut.png cannot be decoded"),
        "nothing to fill": ([cat, "--mask", tmp_path / "black.png"], "there is nothing to fill"),
        "mask of another size": ([cat, "--mask", tmp_path / "small.png"], "the mask is 9x9 and the picture 30x20"),
        "no mask": ([cat, "--mask", "nomask.png"], "there is no picture nomask.png"),
        "mask without a picture": (["--mask", tmp_path / "small.png"], "name the picture too"),
        "no captions": ([cat, "--captions", "nocaptions.json"], "nocaptions.json"),
        "captions that are not JSON": ([cat, "--captions", tmp_path / "captions.json"], "not valid JSON"),
        "strategy": (
            [cat, "--strategy", "magic"],
            "unknown strategy 'magic'; there are coarse-to-fine, spread, gibbs, yao, ancestral, one-shot",
        ),
        "temperature": ([cat, "--temperature", "-1"], "temperature -1.0"),
        "guidance": ([cat, "--guidance", "-2"], "guidance scale -2.0"),
        "results are a file": ([cat, "--out", tmp_path / "text.jpg"], "is a file; name a folder"),
    }


@pytest.mark.parametrize(
    "fault",
    [
        "no picture",
        "no picture in the folder",
        "text called jpg",
        "truncated picture",
        "nothing to fill",
        "mask of another size",
        "no mask",
        "mask without a picture",
        "no captions",
        "captions that are not JSON",
        "strategy",
        "temperature",
        "guidance",
        "results are a file",
    ],
)
def test_faults_are_one_sentence_and_leave_nothing(run, pictures, tmp_path, fault):
    arguments, sentence = faults(pictures, tmp_path)[fault]
    before = snapshot(tmp_path)
    status, said, printed = run(*arguments)
    assert status == 2 and len(said) == 1 and sentence in said[0]
    assert not printed and "Traceback" not in said[0]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing folder", "empty folder", "cut weights", "no vocabulary"])
def test_weights_that_cannot_be_used(run, weights, pictures, tmp_path, damage):
    broken = tmp_path / "broken"
    if damage != "missing folder":
        broken.mkdir()
        for file in weights.iterdir() if damage != "empty folder" else ():
            (broken / file.name).write_bytes(file.read_bytes())
        if damage == "cut weights":
            (broken / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes()[:1000])
        if damage == "no vocabulary": (broken / "vocabulary.json").unlink()
    status, said, _ = run(pictures / "cat.png", weights=broken)
    assert status == 2 and len(said) == 1
    assert not (tmp_path / "filled").exists()


def test_one_bad_picture_among_good_ones(run, pictures, tmp_path):
    (pictures / "broken.jpg").write_text("I am not a picture")
    status, said, printed = run(pictures)
    assert (
        status == 2
        and len(said) == 2
        and "no caption for 2 of the 3" in said[0]
        and "broken" in said[1]
        and "2 of 3 pictures filled" in printed
    )
    assert {p.name for p in (tmp_path / "filled").iterdir() if not hidden(p.name)} == {
        "cat",
        "dog & bone",
        "index.html",
    }


def test_a_caption_of_unknown_words_is_a_warning(run, pictures):
    status, said, _ = run(pictures / "cat.png", "--caption", "xyzzy plugh.")
    assert status == 0 and len(said) == 1
    assert said[0].startswith("my3yearold: warning:") and "xyzzy, plugh" in said[0]


@pytest.mark.parametrize(
    "error",
    [ValueError("the disk is on fire"), OSError(28, "No space left on device", "chain.gif"), KeyboardInterrupt()],
)
def test_what_breaks_half_way_leaves_the_old_results(run, pictures, tmp_path, monkeypatch, error):
    run(pictures / "cat.png")
    before = snapshot(tmp_path)
    def fail(*arguments, **options): raise error
    monkeypatch.setattr("my3yearold.show.animate", fail)           # after the first files of the result are written
    status, said, _ = run(pictures / "cat.png", "--seed", 9)
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2) and len(said) == 1
    assert snapshot(tmp_path) == before
    assert sorted(p.name for p in (tmp_path / "filled").iterdir()) == [LOCK, "cat", "index.html"]


def test_strangers_folders_are_not_replaced(run, pictures, tmp_path):
    (tmp_path / "filled" / "cat").mkdir(parents=True)
    (tmp_path / "filled" / "cat" / "thesis.txt").write_text("three years of work")
    status, said, _ = run(pictures / "cat.png")
    assert status == 2 and "in the way" in said[0]
    assert (tmp_path / "filled" / "cat" / "thesis.txt").read_text() == "three years of work"


def test_interrupt_between_steps(run, pictures, tmp_path, monkeypatch):
    def fail(*arguments): raise KeyboardInterrupt
    monkeypatch.setattr(cli, "fill_one", fail)
    assert run(pictures / "cat.png")[:2] == (130, ["my3yearold: stopped"])
    assert not (tmp_path / "filled").exists()


# --- the default input, the other commands, the program itself

def test_default_input(run, tmp_path):
    pytest.importorskip("skimage")
    status, said, _ = run("--strategy", "one-shot")
    assert status == 0 and said == []
    names = {p.name for p in (tmp_path / "filled").iterdir() if p.is_dir()}
    assert {f"scene-{i}" for i in range(1, 5)} < names and "chelsea" in names


def test_default_input_without_scikit_image(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    status, said, _ = run("--strategy", "one-shot")
    assert status == 0 and len(said) == 1 and "my3yearold[samples]" in said[0]
    assert {p.name for p in (tmp_path / "filled").iterdir() if p.is_dir()} == {f"scene-{i}" for i in range(1, 5)}


def program(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", "import sys; from my3yearold.cli import main; sys.exit(main())", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def test_version_and_help_without_torch(root):
    "Answers come before torch is imported."
    blocked = "import sys; sys.modules['torch'] = None; from my3yearold.cli import main; sys.exit(main())"
    for flag, words in [("--version", f"my3yearold {__version__}"), ("--help", "example: my3yearold inpaint")]:
        done = subprocess.run([sys.executable, "-c", blocked, flag], capture_output=True, text=True, cwd=root)
        assert done.returncode == 0 and words in done.stdout


def test_the_program_exits_with_the_status(weights, pictures, tmp_path):
    failed = program("inpaint", "nowhere.png", cwd=tmp_path)
    assert (failed.returncode, failed.stderr) == (2, "my3yearold: there is no picture or folder nowhere.png\n")
    good = program("inpaint", pictures / "cat.png", "--weights", weights, "--steps", 1, "--samples", 1, cwd=tmp_path)
    assert good.returncode == 0 and "step" in good.stderr and (tmp_path / "filled" / "cat" / "filled-1.png").is_file()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "arguments are required"),
        (["paint"], "invalid choice"),
        (["inpaint", "--steps", "many"], "invalid int value"),
        (["inpaint", "--nonsense"], "unrecognized arguments"),
        (["train", "--batch-size", "x"], "invalid int value"),
        (["inpaint", "--seed", "9" * 30], "out of range"),
        (["inpaint", "--seed", "-1"], "out of range"),
        *(
            (["inpaint", *flag, ""], "it is empty")
            for flag in ([], ["--mask"], ["--weights"], ["--captions"], ["--out"])
        ),
        (["train", "--resume", ""], "it is empty"),
        (["train", "--run", ""], "it is empty"),
        (["train", "--run", "\udcff"], "it is no text"),
        (["evaluate", "--data", ""], "it is empty"),
        (["data", ""], "it is empty"),
    ],
)
def test_errors_in_flags_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped: main(arguments)
    spoken = capsys.readouterr().err
    assert stopped.value.code == 2 and spoken.startswith("my3yearold: ") and spoken.count("\n") == 1 and words in spoken


def test_train_flags_reach_the_configuration(monkeypatch, tmp_path, capsys):
    from my3yearold import training
    calls = []
    monkeypatch.setattr(training, "train", lambda config, *decisions: calls.append((config, decisions)) or tmp_path)
    assert (
        main(
            [
                "train",
                "--data",
                "scenes",
                "pictures, mine",
                "--run",
                "runs/x",
                "--max-minutes",
                "1.5",
                "--widths",
                "8",
                "16",
                "--seed",
                "7",
            ]
        )
        == 0
    )
    expected = training.TrainConfig(
        data=("scenes", "pictures, mine"), run="runs/x", max_minutes=1.5, widths=(8, 16), seed=7
    )
    assert calls == [(expected, (False, False, False))]

    import dataclasses
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(expected)))
    assert main(["train", "--resume", tmp_path, "--accept-data"]) == 0
    assert calls[1] == (dataclasses.replace(expected, run=str(tmp_path)), (True, False, True))
    assert main(["train", "--resume", tmp_path, "--max-minutes", "9"]) == 0
    assert calls[2] == (dataclasses.replace(expected, run=str(tmp_path), max_minutes=9.0), (True, False, False))
    assert main(["train", "--run", tmp_path, "--start-over"]) == 0 and calls[3][1] == (False, True, False)
    assert main(["train", "--resume", tmp_path / "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_train_help_names_every_field(capsys):
    import dataclasses
    from my3yearold.training import TrainConfig
    with pytest.raises(SystemExit) as stopped: main(["train", "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and all(
        f"--{field.name.replace('_', '-')}" in shown for field in dataclasses.fields(TrainConfig)
    )
    words = " ".join(shown.split())
    for said in ("scenes to train on", "side of a filter, odd", "largest norm of the gradient"):
        assert said in words  # a field of each part of the configuration


def test_data_says_what_is_there(pictures, capsys):
    for i in range(20): Image.new("RGB", (8, 8)).save(pictures / f"more-{i:02}.png")
    assert main(["data", pictures]) == 0
    said = capsys.readouterr().out
    assert (
        re.search(r"pictures: \d+ of 64x64\ncaptions: 2; pictures without: \d+\n", said)
        and "vocabulary: " in said
        and "centre hole: " in said
    )
    assert main(["data", pictures / "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    truncated = pictures / "inpainting.tar.bz2"
    truncated.write_bytes(b"BZh91AY&SY" + bytes(range(200)))
    assert main(["data", truncated]) == 2
    assert "my3yearold: " in capsys.readouterr().err


def test_evaluate_prints_figures_with_errors(capsys):
    assert main(["evaluate", "--weights", "scenes", "--pictures", 2, "--evaluations", 2]) == 0
    out = capsys.readouterr().out
    assert "seed 0" in out and "2 evaluations" in out
    for name in ("whole", "centre", "centre without captions", "caption gain"):
        assert re.search(rf"^{name} +-?\d+\.\d+ \+- \d", out, re.M), name


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--pictures", 1], "1 pictures"),
        (["--evaluations", 1], "1 evaluations"),
        (["--weights", "monet"], "monet"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_evaluate_refuses_in_one_line(flags, words, capsys):
    assert main(["evaluate", "--weights", "scenes", *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]


# --- users' files

def test_a_stranger_with_a_settings_file_keeps_his_thesis(run, pictures, tmp_path):
    for content in ("{}", '{"name": "cat"}', "[]"):
        folder = tmp_path / "filled" / "cat"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(content)
        (folder / "thesis.txt").write_text("three years of work")
        before = snapshot(tmp_path)
        status, said, _ = run(pictures / "cat.png")
        assert status == 2 and len(said) == 1 and "was not made by this program" in said[0]
        assert snapshot(tmp_path) == before


def test_something_put_into_our_results_stays(run, pictures, tmp_path):
    run(pictures / "cat.png")
    (tmp_path / "filled" / "cat" / "notes.txt").write_text("the second is better")
    before = snapshot(tmp_path)
    status, said, _ = run(pictures / "cat.png", "--seed", 5)
    assert status == 2 and len(said) == 1 and "notes.txt, which this program did not write" in said[0]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("page", ["<h1>my site</h1>", ""])
def test_a_strangers_page_stays(run, pictures, tmp_path, page):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "index.html").write_text(page)
    before = snapshot(tmp_path)
    status, said, _ = run(pictures / "cat.png")
    assert status == 2 and len(said) == 1 and "index.html was not written by this program" in said[0]
    assert snapshot(tmp_path) == before


def test_strangers_settings_do_not_reach_the_page(run, pictures, tmp_path):
    for name, content in (("app", "{}"), ("list", "[1]"), ("deep", "[" * 50_000), ("blob", "\x00")):
        (tmp_path / "filled" / name).mkdir(parents=True)
        (tmp_path / "filled" / name / "settings.json").write_text(content)
    assert run(pictures / "cat.png")[:2] == (0, [])
    page = (tmp_path / "filled" / "index.html").read_text()
    assert page.count("<h2>") == 1 and "<h2>cat</h2>" in page


def test_our_settings_changed_by_hand_are_named(run, pictures, tmp_path):
    run(pictures / "cat.png")
    (tmp_path / "filled" / "cat" / "settings.json").write_text('{"name": 3}')
    status, said, _ = run(pictures / "dog & bone.png")
    assert status == 0 and len(said) == 1 and "settings.json does not hold what it should" in said[0]


def test_another_picture_of_the_same_name_goes_beside_it(run, pictures, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "cat.png")
    run(pictures / "cat.png")
    first = snapshot(tmp_path / "filled" / "cat")
    run(tmp_path / "more" / "cat.png")
    assert snapshot(tmp_path / "filled" / "cat") == first
    assert {p.name for p in (tmp_path / "filled").iterdir() if not hidden(p.name)} == {"cat", "cat-2", "index.html"}
    run(tmp_path / "more" / "cat.png", "--seed", 7)                # the same picture again takes its own place
    assert {p.name for p in (tmp_path / "filled").iterdir() if not hidden(p.name)} == {"cat", "cat-2", "index.html"}
    assert settings(tmp_path / "filled", "cat-2")["seeds"] == [7, 8]
    assert (tmp_path / "filled" / "index.html").read_text().count("<h2>") == 2


@pytest.mark.parametrize(
    "name",
    [
        "index.html.png",
        "..png",
        "x" * 250 + ".png",
        "CON.png",
        "a\x1b[2Jb.png",
        "λ" * 120 + ".png",
        b"caf\xe9.png",
        " .png",
        "a\nb.png",
    ],
)
def test_any_name_of_a_picture(run, tmp_path, name):
    folder = os.fsencode(tmp_path / "odd")
    os.makedirs(folder)
    path = os.path.join(folder, name if isinstance(name, bytes) else os.fsencode(name))
    try:
        with open(path, "wb") as file: Image.new("RGB", (8, 8), "red").save(file, "PNG")
    except OSError: pytest.skip("this system does not take the name")
    status, said, printed = run(os.fsdecode(path))
    assert (status, said) == (0, []) and "1 of 1 pictures filled" in printed and printed.strip().isprintable()
    results = [p for p in (tmp_path / "filled").iterdir() if p.is_dir()]
    page = (tmp_path / "filled" / "index.html").read_text(encoding="utf-8")
    assert len(results) == 1 and not hidden(results[0].name)
    assert all((tmp_path / "filled" / unquote(link)).is_file() for link in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_a_caption_and_weights_that_are_not_utf_8(run, weights, pictures, tmp_path):
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"weights \xff"))
    try: os.mkdir(folder)
    except OSError: pytest.skip("this system does not take the name")
    for file in weights.iterdir(): Path(folder, file.name).write_bytes(file.read_bytes())
    status, said, _ = run(pictures / "cat.png", weights=folder)
    assert status == 2 and len(said) == 1 and "has a name that is no text" in said[0]
    status, said, _ = run(pictures / "cat.png", "--caption", os.fsdecode(b"a red caf\xe9"))
    assert (status, said) == (0, []) and settings(tmp_path / "filled", "cat")["caption"] == "a red caf?"


def test_two_at_a_time_write_one_after_the_other(weights, pictures, tmp_path):
    (tmp_path / "more").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "more" / f"{'cat' if i == 0 else f'more-{i}'}.png")
    flags = ["--weights", str(weights), "--steps", "2", "--samples", "1"]
    script = "import sys; from my3yearold.cli import main; sys.exit(main())"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, "inpaint", str(folder), *flags],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for folder in (pictures, tmp_path / "more")
    ]
    assert [process.wait(300) for process in both] == [0, 0], [process.stderr.read() for process in both]
    out = tmp_path / "filled"
    names = {p.name for p in out.iterdir() if p.is_dir()}
    assert names == {"cat", "cat-2", "dog & bone", "more-1", "more-2", "more-3"}
    assert {settings(out, name)["picture"] for name in ("cat", "cat-2")} == {
        str(pictures / "cat.png"),
        str(tmp_path / "more" / "cat.png"),
    }
    assert (out / "index.html").read_text().count("<h2>") == 6


# --- one sentence, always

@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError(), "the memory does not suffice"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 99 bytes."
            ),
            "the memory does not suffice",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the memory does not suffice"),
        (OSError(28, "No space left on device", "x.png"), "x.png: No space left on device"),
        (PermissionError(13, "Permission denied", "filled"), "filled: Permission denied"),
    ],
)
def test_what_a_machine_can_refuse_is_a_sentence(run, pictures, monkeypatch, error, words):
    def fail(*arguments): raise error
    monkeypatch.setattr(cli, "fill_one", fail)
    status, said, _ = run(pictures / "cat.png")
    assert status == 2 and len(said) == 1 and words in said[0]


def test_a_fault_of_the_program_is_a_sentence_and_a_file(run, pictures, monkeypatch):
    def fail(*arguments): raise KeyError("nobody thought of this\nreally")
    monkeypatch.setattr(cli, "fill_one", fail)
    status, said, _ = run(pictures / "cat.png")
    assert (
        status == 1
        and len(said) == 1
        and "this is a fault of the program (KeyError: 'nobody thought of this" in said[0]
    )
    path = said[0].rpartition(" ")[2]
    with open(path) as file: assert "Traceback" in file.read()
    os.remove(path)


@pytest.mark.parametrize("module", ["torch", "msgspec", "argparse"])
def test_an_interrupt_while_something_is_imported(root, module):
    "Ctrl-C at any import, torch's or the command line's own: 130 and one line."
    script = (
        "import builtins, sys\n"
        "for name in [n for n in sys.modules if n.startswith('argparse')]: del sys.modules[name]\n"
        "real = builtins.__import__\n"
        f"def stop(name, *rest):\n    if name == {module!r}: raise KeyboardInterrupt\n    return real(name, *rest)\n"
        "from my3yearold import main\nbuiltins.__import__ = stop\nsys.argv = ['my3yearold', 'inpaint', 'x.png']\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (130, "my3yearold: stopped\n")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--device", "banana"], "device 'banana' is unknown"),
        (["--device", "cuda:99"], "is not there"),
        (["--temperature", "nan"], "temperature nan"),
        (["--temperature", "inf"], "temperature inf"),
        (["--guidance", "inf"], "guidance scale inf"),
        (["--samples", "-3"], "counted from 1"),
    ],
)
def test_flags_that_cannot_be_meant(pictures, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    assert main(["inpaint", pictures / "cat.png", *flags]) == 2
    said = re.findall(r"my3yearold: [^\r\n]*", capsys.readouterr().err)
    assert len(said) == 1 and words in said[0] and not (tmp_path / "filled").exists()


def test_escape_characters_do_not_reach_the_terminal(run, tmp_path):
    status, said, _ = run("\x1b[2Jnowhere.png")
    assert status == 2 and said == ["my3yearold: there is no picture or folder \\x1b[2Jnowhere.png"]


def test_waiting_threads_spin_less_unless_the_user_chose(root):
    script = ("import os; from my3yearold.cli import main\ntry: main(['--version'])\n"
              "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))")

    def seen(**chosen):
        clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        return subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, env=clean | chosen
        ).stdout.split()[-1]

    assert seen() == "10000" and seen(GOMP_SPINCOUNT="5") == "5" and seen(OMP_WAIT_POLICY="ACTIVE") == "None"


@pytest.mark.parametrize("name, shown", [("scenes", "./scenes"), ("runs/x", "runs/x"), ("my run", "'./my run'")])
def test_a_run_folder_is_not_taken_for_bundled_weights(name, shown): assert commands.shell_path(Path(name)) == shown


def test_a_colour_profile_stays_with_the_pixels(run, tmp_path):
    "The original, its hole and the fillings carry the profile of the picture, whose known pixels have their values."
    from PIL import ImageCms
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "p.png", icc_profile=profile)
    assert run(tmp_path / "p.png")[:2] == (0, [])
    for name in ("original", "hole", "filled-1", "filled-2"):
        with Image.open(tmp_path / "filled" / "p" / f"{name}.png") as made:
            assert made.info["icc_profile"] == profile and (np.array(made)[:5] == pixels[:5]).all()


# --- one file, lines for programs, and what is there already

def test_one_file(run, pictures, tmp_path):
    before = snapshot(pictures)
    status, said, printed = run(pictures / "cat.png", "--output", "new/filled cat.png", samples=())
    assert status == 0 and not said and printed == "1 of 1 pictures filled: new/filled cat.png\n"
    assert not (tmp_path / "filled").exists() and snapshot(pictures) == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["filled cat.png"]
    places = tmp_path / "new" / "filled cat.png", pictures / "cat.png"
    filled, original = (np.array(Image.open(place)) for place in places)
    known = np.ones((20, 30), dtype=bool)
    known[5:15, 7:22] = False
    assert (filled[known] == original[known]).all() and (filled[~known] != original[~known]).any()


@pytest.mark.parametrize("arguments, words", [
    (["cat.png", "--output", "there.png"], "there.png is there already; choose another name, or --force"),
    (["cat.png", "--output", "x.txt"], "ends in '.txt', which is no kind of picture"),
    (["cat.png", "--output", "x"], "ends in 'nothing', which"),
    (["cat.png", "--output", "cat.png", "--force"], "is the picture itself"),
    (["cat.png", "--output", "x.png", "--samples", "2"], "takes one filling, and --samples asks for 2"),
    ([".", "--output", "x.png"], "takes one picture, and 2 is named"),
    (["--output", "x.png"], "takes one picture, and none is named"),
])
def test_a_file_that_cannot_be_written(run, pictures, tmp_path, monkeypatch, arguments, words):
    (pictures / "there.png").write_bytes((pictures / "cat.png").read_bytes())
    (pictures / "dog & bone.png").unlink()
    monkeypatch.chdir(pictures)
    before = snapshot(pictures)
    status, said, printed = run(*arguments, samples=())
    assert status == 2 and words in said[-1] and not printed
    assert snapshot(pictures) == before


def test_force_writes_over_a_file(run, pictures, tmp_path):
    (tmp_path / "x.png").write_bytes(b"old")
    status, _, _ = run(pictures / "cat.png", "--output", "x.png", "--force", samples=())
    assert status == 0 and Image.open(tmp_path / "x.png").size == (30, 20)


def test_lines_for_programs(run, pictures):
    (pictures / "eel.png").write_bytes(b"no picture")
    status, said, printed = run(pictures, "--json")
    found = [json.loads(line) for line in printed.splitlines()]
    assert status == 2 and [f["status"] for f in found] == ["filled", "filled", "failed"]
    assert found[0]["folder"] == os.path.join("filled", "cat") and len(found[0]["bits_per_dim"]) == 2
    assert "eel.png" in found[2]["error"] and any("eel" in line for line in said)


def test_quiet(weights, pictures, tmp_path, capsys):
    assert main(["inpaint", pictures / "cat.png", "--quiet", "--weights", weights, "--steps", 2,
                 "--out", tmp_path / "filled"]) == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_still_says_what_went_wrong(run, pictures):
    status, said, printed = run(pictures / "cow.png", "--quiet")
    assert status == 2 and len(said) == 1 and not printed


def test_what_is_there_is_kept(run, pictures, tmp_path):
    run(pictures)
    out = tmp_path / "filled"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    status, _, printed = run(pictures)
    assert status == 0 and "0 of 2 pictures filled, 2 were there already (--force fills again)" in printed
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    printed = run(pictures, "--json")[2]
    assert [json.loads(line)["status"] for line in printed.splitlines()] == ["kept", "kept"]


@pytest.mark.parametrize("change", ["settings", "picture", "mask", "weights", "file gone", "force"])
def test_what_is_there_is_filled_again_if_anything_differs(run, pictures, weights, tmp_path, change):
    mask, only = tmp_path / "mask.png", pictures / "cat.png"
    Image.new("L", (30, 20), 255).save(mask)
    options: list = [only, "--mask", mask]
    assert "1 of 1 pictures filled:" in run(*options)[2]
    assert "1 were there already" in run(*options)[2]
    if change == "settings": options += ["--temperature", 0.5]
    if change == "force": options += ["--force"]
    if change == "picture": Image.new("RGB", (30, 20), "red").save(only)
    if change == "file gone": (tmp_path / "filled" / "cat" / "filled-2.png").unlink()
    if change == "mask":
        hole = Image.new("L", (30, 20), 255)
        hole.putpixel((0, 0), 0)
        hole.save(mask)
    if change == "weights":
        model, vocabulary, card = load_model(weights)
        with torch.no_grad(): next(model.parameters()).add_(0.5)
        save_model(tmp_path / "w", model, vocabulary, card)
        (tmp_path / "w").rename(tmp_path / "other")
        assert "1 of 1 pictures filled:" in run(*options, weights=tmp_path / "other")[2]
        return
    assert "1 of 1 pictures filled:" in run(*options)[2]
    assert "1 were there already" in run(*[o for o in options if o != "--force"])[2]


def test_a_run_that_was_stopped_goes_on(run, pictures, monkeypatch):
    from my3yearold.inpaint import Inpainter
    fill = Inpainter.__call__
    def stopped(self, picture, *rest, **options):
        stopped.calls += 1
        if stopped.calls == 2: raise KeyboardInterrupt
        return fill(self, picture, *rest, **options)
    stopped.calls = 0
    monkeypatch.setattr(Inpainter, "__call__", stopped)
    assert run(pictures)[0] == 130
    assert "1 of 2 pictures filled, 1 were there already" in run(pictures)[2]
    assert stopped.calls == 3


@pytest.mark.parametrize("line, expected, unexpected", [
    ("my3yearold in", ["inpaint"], ["train"]),
    ("my3yearold inpaint --ca", ["--caption", "--captions"], ["--mask"]),
    ("my3yearold train --learn", ["--learning-rate", "--learned-start"], ["--run"]),
    ("my3yearold evaluate --split ", ["train", "valid"], ["--split"]),
])
def test_the_tab_key(tmp_path, line, expected, unexpected):
    pytest.importorskip("argcomplete")
    told = tmp_path / "told"
    environment = os.environ | dict(_ARGCOMPLETE="1", _ARGCOMPLETE_SHELL="bash", _ARGCOMPLETE_STDOUT_FILENAME=str(told),
                                    _ARGCOMPLETE_IFS="\n", COMP_LINE=line, COMP_POINT=str(len(line)))
    script = "import sys; from my3yearold import main; sys.argv = ['my3yearold']; main()"
    subprocess.run([sys.executable, "-c", script], env=environment, timeout=120)
    words = [word.strip() for word in told.read_text().splitlines()]
    assert set(expected) <= set(words) and not set(unexpected) & set(words)


@pytest.mark.parametrize("arguments, keys", [
    (["data", "scenes"], {"source", "split", "pictures"}),
    (["evaluate", "--pictures", 2, "--evaluations", 2, "--weights", "WEIGHTS"], {"weights", "whole", "seed"}),
])
def test_json_of_the_other_commands(weights, capsys, arguments, keys):
    assert main([weights if a == "WEIGHTS" else a for a in arguments] + ["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert keys <= found.keys(), found
