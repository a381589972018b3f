"The playground without a browser: what a page would send is sent by hand, what it would show is looked at."
import ast
import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("anywidget", reason='the playground needs the extra play: pip install "my3yearold[play]"')

from my3yearold.cutout import as_picture, pixels_of
from my3yearold.inpaint import Inpainter, strategies
from my3yearold.playground import (
    CALL,
    Frames,
    Job,
    Playground,
    attention_maps,
    cutout_of,
    draw,
    packed,
    reduction,
    samples,
    saved,
    small_filling,
    unpacked,
)
from my3yearold.scenes import scenes
from my3yearold.show import to_pil


def settled(play):
    "Wait until nothing runs any more."
    deadline = time.monotonic() + 60
    while any(
        thread.name.startswith("Thread-") and thread.is_alive() and "_guarded" in thread.name
        for thread in threading.enumerate()
    ):
        assert time.monotonic() < deadline, play.canvas.status
        time.sleep(0.01)


def picture_in(content): return Image.open(io.BytesIO(content)).convert("RGB")


@pytest.fixture(scope="module")
def pipe(): return Inpainter.from_pretrained("scenes")


@pytest.fixture(scope="module")
def scene(): return to_pil(scenes(1, seed=3).images[0])


@pytest.fixture
def play(scene):
    play = Playground("scenes", scene)
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[20:44, 10:30] = True
    play.canvas.set_state({"mask": memoryview(packed(hole))})       # as it comes from a page
    play.hole = hole.numpy()
    yield play
    play.stop()
    settled(play)


# ---- masks ----

@pytest.mark.parametrize("width, height", [(1, 1), (64, 64), (768, 3), (769, 513), (3000, 2001), (7, 1537)])
def test_a_mask_comes_back(width, height):
    hole = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < 0.001
    hole[-1, -1] = True
    back, k = unpacked(packed(hole), width, height), reduction(width, height)
    assert back.shape == hole.shape and back[hole].all()
    rows, columns = back.nonzero().T // k
    assert {(r, c) for r, c in zip(rows.tolist(), columns.tolist())} == {
        (r, c) for r, c in (hole.nonzero() // k).tolist()
    }


def test_a_mask_of_another_picture_is_none(scene):
    assert not unpacked(b"\xff" * 17, 64, 64).any()


# ---- filling ----

def test_fill(play, scene):
    seen = []
    play.canvas.observe(lambda change: seen.append(change.new), "shown")
    play.settings.caption.value, play.settings.seed.value, play.settings.fillings.value = "a small red circle", 5, 2
    play.settings.steps.value = 24
    play.fill()
    assert play.canvas.locked and not play.halt.disabled
    play.wait(60)
    assert play.canvas.status.startswith("Done."), play.canvas.status
    assert len(set(seen)) >= 10                                     # frames that differ
    assert not play.canvas.locked and play.halt.disabled and not play.button.disabled
    assert len(play.fillings.pictures) == 2 and all("bits/dim" in cost for cost in play.fillings.costs)
    for filled in play.results.result.images:
        differs = (np.array(filled) != np.array(scene)).any(-1)
        assert differs[play.hole].any() and not differs[~play.hole].any()
    assert picture_in(play.canvas.shown).tobytes() == play.results.result.images[0].tobytes()
    again = Inpainter.from_pretrained("scenes")(
        scene,
        play.hole,
        "a small red circle",
        num_inference_steps=24,
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(s) for s in (5, 6)],
    )
    assert [x.tobytes() for x in again.images] == [x.tobytes() for x in play.results.result.images]


def test_stop_within_a_second(play, scene):
    play.settings.steps.value = 512
    play.fill()
    deadline = time.monotonic() + 30
    while play.canvas.progress == 0 and time.monotonic() < deadline: time.sleep(0.01)
    done, asked = play.canvas.progress, time.monotonic()
    play.stop()
    while not play.canvas.status.startswith("Stopping") and time.monotonic() < asked + 10: time.sleep(0.001)
    assert time.monotonic() - asked < 1
    play.wait(30)
    step, num_steps = play.done
    assert 0 < done <= step / num_steps < 0.5 and num_steps == 512
    assert play.canvas.status.startswith(f"Stopped after {step} of 512 steps.")
    assert play.fillings.lines.startswith(f"# This draws all 512 steps; what was shown was stopped after {step}.")
    differs = (np.array(play.results.result.images[0]) != np.array(scene)).any(-1)
    assert differs[play.hole].mean() > 0.9 and not differs[~play.hole].any()


def test_a_second_press_does_nothing(play):
    play.fill()
    first = play.running
    play.fill()
    assert play.running is first


def test_the_settings_are_read_before(play):
    play.settings.caption.value = "a small red circle"
    play.fill()
    play.settings.caption.value, play.settings.seed.value = "a large blue square", 9
    play.wait(60)
    assert play.results.caption == "a small red circle" and play.results.job.seed == 0


def test_defaults_are_the_pipelines(play):
    asked = play.settings.read()
    assert {name: asked[name] for name in ("strategy", "num_inference_steps", "num_images_per_prompt")} == {
        name: CALL[name] for name in ("strategy", "num_inference_steps", "num_images_per_prompt")}
    assert asked["guidance_scale"] == 3.0                           # of the scenes' card
    with_default = Inpainter.from_pretrained("scenes")(Image.new("RGB", (64, 64)), None, strategy="one-shot")
    play.settings.strategy.value = "one-shot"
    assert play.settings.read()["temperature"] == with_default.settings["temperature"]


@pytest.mark.parametrize("strategy", list(strategies))
def test_every_strategy(play, strategy):
    play.settings.strategy.value, play.settings.steps.value = strategy, 2
    play.fill()
    play.wait(60)
    assert play.canvas.status.startswith("Done."), play.canvas.status


def test_faults_are_sentences(play, monkeypatch):
    play.canvas.mask = bytes(512)
    play.fill()
    assert not play.running and play.canvas.status.startswith("there is nothing to fill")
    play.upload("notes.txt", b"not a picture")
    assert "notes.txt" in play.canvas.status and "\n" not in play.canvas.status
    play.canvas.mask = b"\xff" * 512
    monkeypatch.setattr(play, "pipe", lambda weights: 1 / 0)
    play.fill()
    settled(play)
    assert play.canvas.status == "This is a fault of the program: ZeroDivisionError division by zero"
    assert not play.canvas.locked and play.running is None
    with pytest.raises(FileNotFoundError, match="monet"): Playground("monet")


def test_unknown_words_are_told(play):
    play.settings.caption.value, play.settings.strategy.value = "xyzzy", "one-shot"
    play.fill()
    play.wait(60)
    assert "xyzzy" in play.canvas.status and play.fillings.unknown == ["xyzzy"]


# ---- afterwards ----

def test_look_back(play):
    play.settings.caption.value = "a small red circle"
    play.fill()
    play.wait(60)
    settled(play)
    last, frames = play.canvas.shown, len(play.frames)
    assert frames >= 10
    seen = set()
    for k in range(frames):
        play.step.value = k
        seen.add(play.canvas.shown)
    assert len(seen) == frames and play.canvas.shown == last
    play.fillings.set_state({"view": "entropy"})
    settled(play)
    uncertain = play.canvas.shown
    play.fillings.set_state({"view": "saved"})
    settled(play)
    assert "The caption saved" in play.fillings.note and len({last, uncertain, play.canvas.shown}) == 3
    for word in ("red", "circle"):
        play.fillings.set_state({"view": "word", "word": play.fillings.words.index(word)})
        settled(play)
        assert word in play.fillings.note and "bits" in play.fillings.note
        seen.add(play.canvas.shown)
    assert len(seen) == frames + 2
    play.fillings.set_state({"view": "filling", "word": -1})
    settled(play)
    assert play.canvas.shown == last and play.fillings.note == ""


def test_a_word_is_weighed_once(play, monkeypatch):
    "However often a mouse comes back to it."
    weighed = []
    monkeypatch.setattr("my3yearold.playground.saved", lambda *args: weighed.append(args[-1]) or saved(*args))
    play.settings.caption.value = "a small red circle"
    play.fill()
    play.wait(60)
    for _ in range(2):
        play.fillings.set_state({"view": "word", "word": 2})
        settled(play)
        assert "“red”" in play.fillings.note and "bits" in play.fillings.note
        play.fillings.set_state({"view": "filling", "word": -1})
        settled(play)
    assert weighed == ["a small circle"]


def test_files(play, scene, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(play.fillings, "send", lambda content, buffers: sent.append((content, *buffers)))
    play.settings.steps.value = 12
    play.fill()
    play.wait(60)
    for what in ("png", "gif", "picture", "mask"):
        play.fillings._handle_custom_msg({"kind": "save", "what": what}, [])
        settled(play)
    assert [content["type"] for content, _ in sent] == ["image/png", "image/gif", "image/png", "image/png"]
    filled, chain, picture, mask = (Image.open(io.BytesIO(data)) for _, data in sent)
    assert filled.tobytes() == play.results.result.images[0].tobytes() and picture.tobytes() == scene.tobytes()
    assert chain.n_frames >= 10 and (np.array(mask) == play.hole).all()
    # the lines, beside the files that were saved, draw the same
    for content, data in sent: (tmp_path / content["name"]).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    exec(compile(ast.parse(play.fillings.lines), "lines", "exec"), {})
    assert Image.open("filled-0.png").tobytes() == filled.tobytes()


def test_upload(play):
    file = io.BytesIO()
    Image.effect_noise((300, 200), 80).save(file, "PNG")
    data = file.getvalue()
    parts = [data[k:k + 10_000] for k in range(0, len(data), 10_000)]
    for k, part in enumerate(parts):
        play.canvas._handle_custom_msg(
            {"kind": "upload", "name": "my cat.png", "part": k, "parts": len(parts)}, [memoryview(part)]
        )
    assert len(parts) > 2 and play.picture.size == (300, 200) and play.name == "my-cat"
    assert picture_in(play.canvas.picture).size == (300, 200) and not any(play.canvas.mask)


def test_samples_are_ready():
    for sample in samples():
        assert (
            sample.hole.shape == (sample.picture.height, sample.picture.width) and sample.hole.any() and sample.caption
        )
    play = Playground()
    play.sample.value = list(play.samples)[1]
    assert play.settings.weights.value == "scenes" and any(play.canvas.mask) and play.settings.caption.value


# ---- large pictures, and what is asked of the network ----

@pytest.fixture(scope="module")
def large():
    "A job of three sizes."
    coarse = np.random.default_rng(0).integers(0, 255, (10, 15, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC)
    hole = torch.zeros(200, 300, dtype=torch.bool)
    hole[50:150, 100:180] = True
    return Job(picture, hole, settings={"num_inference_steps": 12, "num_images_per_prompt": 2})


def test_frames_of_a_large_picture(pipe, large):
    frames = []
    result, heard = draw(
        pipe, large, lambda step, num_steps, shown: frames.append((num_steps, shown)), threading.Event(), pause=0
    )
    outside = ~large.hole.numpy()
    assert len(frames) == frames[0][0] > 4 and not heard
    for _, shown in frames:
        assert [one.size for one in shown] == [large.picture.size] * 2
        for one in shown: assert (np.array(one)[outside] == np.array(large.picture)[outside]).all()
    assert [x.tobytes() for x in frames[-1][1]] == [x.tobytes() for x in result.images]
    first = np.array(frames[0][1][0])[60:140, 110:170]
    # at first most of the hole is the hole's pattern, which is grey
    assert ((first > 90) & (first < 170)).mean() > 0.7


@pytest.mark.parametrize("strategy", ["coarse-to-fine", "spread"])
def test_a_small_filling_is_what_the_network_drew(pipe, large, strategy):
    job = Job(large.picture, large.hole, settings=large.settings | {"strategy": strategy})
    cutout = cutout_of(job, 64)
    untouched = small_filling(cutout, job.picture)
    assert untouched.shape == cutout.images.shape
    assert torch.equal(untouched * cutout.given, cutout.images)
    bits, error, where = saved(pipe, untouched, cutout.given, "a red circle", "a red circle")
    assert bits == 0 and not where.any()


def test_attention_is_shares(pipe, large):
    cutout = cutout_of(large, 64)
    maps = attention_maps(pipe, cutout.images, cutout.given, "a small red circle")
    assert maps.shape == (4, *cutout.given.shape[1:]) and maps.shape[1] % 8    # a size that has to be padded
    assert torch.allclose(maps.sum(0), torch.ones(maps.shape[1:]), atol=1e-4)
    assert attention_maps(pipe, cutout.images, cutout.given, "").sum() == 0
    assert not any(m._forward_hooks for m in pipe.model.modules())


def test_undrawn_values_are_never_black(pipe):
    white = Job(
        as_picture(np.full((64, 64, 3), 255, np.uint8)),
        torch.ones(64, 64, dtype=torch.bool),
        settings={"num_inference_steps": 16},
    )
    frames, darkest = Frames(cutout_of(white, 64)), []
    def look(pipe, step, num_steps, state):
        frames.note(state)
        shown = pixels_of(frames.show(state)[0])
        darkest.append(shown[~frames.known[0]].min().item() if not frames.known.all() else None)
    pipe(white.picture, white.hole, **white.settings, callback_on_step_end=look, generator=white.generators())
    assert darkest[0] == 112 and set(darkest) == {112, None}


# ---- where the extra is missing ----

def test_without_the_extra(root):
    script = ("import sys; sys.modules['anywidget'] = None\n"
              "from my3yearold.cli import main\nsys.exit(main(['play', '--no-browser']))")
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (
        done.returncode == 2 and 'pip install "my3yearold[play]"' in done.stderr and len(done.stderr.splitlines()) == 1
    )


def test_files_of_the_page_name_no_server(root):
    for path in Path(root, "my3yearold", "templates").glob("*"):
        if path.name != "player.html":
            assert "//cdn" not in path.read_text(encoding="utf-8") and "https:" not in path.read_text(encoding="utf-8")


def test_no_matplotlib_is_needed(root):
    script = """
import sys, threading
sys.modules["matplotlib"] = None
from my3yearold.playground import Playground
play = Playground("scenes")
play.settings.steps.value = 4
play.fill()
play.wait()
before = play.canvas.shown
play.fillings.view = "entropy"
for thread in threading.enumerate():
    if "_guarded" in thread.name: thread.join()
assert play.canvas.shown != before and "uncertain" in play.fillings.note, play.canvas.status
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
