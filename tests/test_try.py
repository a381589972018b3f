"""The page `try` of the site: its chain under node is Python's, and the page in a browser does what it says."""
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from my3yearold.captions import Vocabulary, tokens
from my3yearold.guidance import guided
from my3yearold.inpaint import Inpainter, bind_caption, spread
from my3yearold.scenes import scenes
from my3yearold.show import animate

ROOT = Path(__file__).resolve().parent.parent
TRY = ROOT / "site" / "try"
sys.path.append(str(ROOT / "site"))
import trying  # noqa: E402

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="the page's sampler is run under node, which is not installed")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory, graphs):
    "A folder that holds the page's own folder, `try`."
    folder = tmp_path_factory.mktemp("page")
    try: trying.assemble(folder / "try", graphs)
    except trying.Missing as missing: pytest.skip(f"the page cannot be put together: {missing}")
    return folder


def under_node(task, **job):
    done = subprocess.run([NODE, str(ROOT / "tests" / "try_node.mjs")], input=json.dumps(dict(task=task, **job)),
                          capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- captions ----

CAPTIONS = ["A large blue circle.", "", "  two   dogs,playing|here!?",
            "Ein Übel; İstanbul ΣΑΣ", "tab\there\x1cand\x85there",
            "\ufeffno space",
            "wide\u3000space and 日本 😀", "word " * 60]


@needs_node
@pytest.mark.parametrize("level", ["word", "char"])
def test_captions_are_read_as_in_python(level):
    vocabulary = Vocabulary.build([CAPTIONS[:5]], 1, level)
    found = under_node("captions", folder=str(TRY), vocabulary=json.loads(vocabulary.to_json()), captions=CAPTIONS,
                       words=48)
    for caption, row in zip(CAPTIONS, found, strict=True):
        ids, lengths = vocabulary.encode([caption])
        length = min(48, int(lengths))
        assert row["tokens"] == tokens(caption, level)
        assert row["unknown"] == vocabulary.unknown(caption)
        assert row["length"] == length and row["cut"] == (int(lengths) > 48)
        assert row["ids"] == ids[0, :length].tolist() + [0] * (48 - length)


# ---- the same chain ----

def rectangle(given): given[:, 10:50, 20:60] = False
def pixel(given): given[:, 33, 7] = False
def disc(given):
    y, x = np.mgrid[:64, :64]
    given[:, torch.from_numpy((y - 20) ** 2 + (x - 40) ** 2 < 300)] = False
def channels_apart(given): given[0, :9], given[1, 5:20, 5:20], given[2, :, 60:] = False, False, False
def everything(given): given[:] = False


HOLES = [rectangle, pixel, disc, channels_apart, everything]


def stub(images, given, where):
    "As in try_node.mjs: whole numbers that depend on all that is known, and 64 levels from there, each as likely."
    index = torch.arange(given[0].numel())
    known = int((images.flatten().long() * given.flatten() * (index % 7 + 1)).sum())
    first = (7 * known + 31 * index[where.flatten()] + int(given.sum())) % 193
    level = torch.arange(256)
    inside = (level >= first[:, None]) & (level < first[:, None] + 64)
    return torch.zeros(inside.shape).masked_fill(~inside, -torch.inf)


def numbers(seed, count): # what a generator of that seed draws, in order
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def puzzle(hole):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    given = torch.ones(1, 3, 64, 64, dtype=torch.bool)
    hole(given[0])
    return images, given


@needs_node
@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.__name__)
@pytest.mark.parametrize("steps", [1, 2, 7, 16, 32])
def test_chain_is_pythons(hole, steps):
    "With the same uniforms: each state, each block, and how many numbers were used."
    images, given = puzzle(hole)
    generator = torch.Generator().manual_seed(steps)
    states = list(spread(stub, images, given, steps, 0.7, generator=generator))
    used = generator.get_state()
    found = under_node("chain", folder=str(TRY), images=images.flatten().tolist(), given=given.int().flatten().tolist(),
                       uniforms=numbers(steps, 2 * (steps + 1) * 3 * 64 * 64).tolist(), steps=steps, central=0.7)
    assert len(found["states"]) == len(states) == steps
    for ours, python in zip(found["states"], states, strict=True):
        assert ours["redrawn"] == python.redrawn.int().flatten().tolist()
        assert ours["images"] == python.images.flatten().tolist()
    again = torch.Generator().manual_seed(steps)
    torch.rand(found["used"], generator=again, dtype=torch.float64)
    assert torch.equal(again.get_state(), used)


@needs_node
def test_uniforms_are_uniform_and_depend_on_the_seed():
    u = np.array(under_node("chance", folder=str(TRY), seed=3, count=20_000))
    assert 0 <= u.min() and u.max() < 1
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8         # chi-square, 19 degrees of freedom: one in a thousand
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.025
    assert (u[:10] == under_node("chance", folder=str(TRY), seed=3, count=10)).all()
    assert (u[:10] != under_node("chance", folder=str(TRY), seed=4, count=10)).all()


@needs_node
@pytest.mark.parametrize("caption", ["a large blue circle", ""])
def test_graph_draws_what_pytorch_draws(assembled, caption):
    "The network itself, in half precision, under node's WebAssembly: the first turn and all that follows from it."
    pipe, steps = Inpainter.from_pretrained("scenes"), 4
    given, images = puzzle(rectangle)[1], scenes(1, seed=trying.SEED).images
    predict = bind_caption(pipe.model, pipe.vocabulary, caption, 1)
    told = guided(predict, bind_caption(pipe.model, pipe.vocabulary, "", 1), 3.0) if caption else predict
    with torch.no_grad():
        states = list(spread(told, images, given, steps, 0.7, generator=torch.Generator().manual_seed(1)))
    found = under_node("graph", folder=str(TRY), graphs=str(assembled / "try" / "scenes"), caption=caption, scale=3.0,
                       runtime=str(assembled / "try" / "ort" / "ort.wasm.min.mjs"), central=0.7, steps=steps,
                       images=images.flatten().tolist(), given=given.int().flatten().tolist(),
                       uniforms=numbers(1, 2 * (steps + 1) * 3 * 64 * 64).tolist())
    first, ours = states[0], np.array(found["states"][0]["images"])
    drawn = first.redrawn.flatten().numpy()
    assert (ours == first.images.flatten().numpy())[drawn].mean() > 0.99
    assert found["states"][0]["logProb"] == pytest.approx(float(first.log_prob), rel=0.01)
    apart = np.abs(np.array(found["states"][-1]["images"]) - states[-1].images.flatten().numpy().astype(int))
    assert (apart[given.flatten().numpy()] == 0).all()
    assert np.median(apart[~given.flatten().numpy()]) <= 2                     # what differs early is looked at later


# ---- in a browser ----

SCREENS = {"desk": dict(viewport=dict(width=1280, height=900)),
           "phone": dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)}
SHELL = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>try</title><link rel="icon" href="data:,"><body>"""
PATIENCE = 240_000                # milliseconds: other work may run beside


@pytest.fixture(scope="module")
def served(assembled, hosted):
    (assembled / "try.html").write_text(SHELL + (TRY / "try.html").read_text(encoding="utf-8"), encoding="utf-8")
    with hosted(assembled) as address: yield address


@pytest.fixture(params=SCREENS)
def tab(request, browser, served):
    "The page, ready; at the end nothing was asked of another host, and the console has nothing to complain of."
    context, faults = browser.new_context(**SCREENS[request.param], accept_downloads=True), []
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    context.on("request", lambda asked: None if asked.url.startswith((served, "data:", f"blob:{served}"))
               else faults.append(asked.url))
    tab.goto(f"{served}try.html")
    says(tab, "A part of the picture is hidden already")
    yield tab
    context.close()
    assert faults == []


def says(tab, words):
    tab.wait_for_function("words => document.querySelector('.try .status').textContent.startsWith(words)", arg=words)


def pixels(tab): # (64, 64, 3) as the canvas shows them
    data = tab.evaluate("[...document.querySelector('.try .stage canvas').getContext('2d')"
                        ".getImageData(0, 0, 64, 64).data]")
    return np.array(data, np.uint8).reshape(64, 64, 4)[..., :3]


def set_to(tab, name, value):
    tab.eval_on_selector(f".try .{name}", "(input, value) => { input.value = value; "
                         "input.dispatchEvent(new Event('input', {bubbles: true})); }", str(value))


def stroke(tab, *points): # through points of the picture, in pixels
    box = tab.locator(".try .stage canvas").bounding_box()
    where = [(box["x"] + x / 64 * box["width"], box["y"] + y / 64 * box["height"]) for x, y in points]
    tab.mouse.move(*where[0])
    tab.mouse.down()
    for point in where[1:]: tab.mouse.move(*point, steps=4)
    tab.mouse.up()


def board(): # the hole's pattern
    y, x = np.mgrid[:64, :64] // 4
    return np.repeat((112 + 32 * ((y + x) % 2))[..., None], 3, 2)


def painted(tab): # (64, 64) bool
    return (pixels(tab) == board()).all(2)


def look(tab, name):
    if folder := os.environ.get("MY3YEAROLD_FIGURES"):
        tab.screenshot(path=Path(folder) / f"try_{name}_{tab.viewport_size['width']}.png", full_page=True)


def test_paint_fill_save(tab):
    "What is outside of the hole is unchanged, and what is inside is what the caption asks for."
    tab.click(".try .clear")
    before = pixels(tab)
    assert not painted(tab).any()
    set_to(tab, "size", 24)
    stroke(tab, (26, 30), (38, 30), (38, 36), (26, 36))
    hole = painted(tab)
    assert 500 < hole.sum() < 1800 and hole[32, 32]
    tab.fill(".try .caption", "a large blue circle")
    look(tab, "before")
    tab.click(".try .fill")
    says(tab, "Filled in 16 evaluations")
    after = pixels(tab)
    look(tab, "after")
    assert (after == before)[~hole].all()
    assert not (after == board()).all(2)[hole].all()
    inside = after[hole].astype(int)
    assert (inside.argmax(1) == 2).mean() > 0.5, "the hole is not blue"
    with tab.expect_download() as download: tab.click(".try .save")
    assert (np.array(Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))) == after).all()
    set_to(tab, "step", 0)                                  # the chain again, from its first state
    first = pixels(tab)
    assert (first == before)[~hole].all() and (first == board())[hole].mean() > 0.5
    set_to(tab, "step", 15)
    assert (pixels(tab) == after).all()
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_stop_and_several(tab):
    "A stopped chain is kept as it is; the same seed gives the same filling, another seed another one."
    hole = painted(tab)
    set_to(tab, "steps", 128)
    tab.click(".try .fill")
    tab.wait_for_function("document.querySelector('.try .step').max > 0")
    tab.wait_for_function("document.querySelector('.try .status').textContent.startsWith('Filling')")
    look(tab, "during")
    tab.click(".try .stop")
    says(tab, "Stopped after")
    assert (pixels(tab) == board())[hole].any()             # far from the end of 128
    set_to(tab, "steps", 3)
    set_to(tab, "several", 2)
    fillings = []
    for _ in range(2):
        set_to(tab, "seed", 7)
        tab.click(".try .fill")
        tab.wait_for_function("n => document.querySelectorAll('.try .shelf button').length === n && "
                              "document.querySelector('.try .stop').disabled", arg=3 + len(fillings))
        for button in tab.locator(".try .shelf button").all()[-2:]:
            button.click()
            fillings.append(pixels(tab))
    assert (fillings[0] == fillings[2]).all() and (fillings[1] == fillings[3]).all()
    assert (fillings[0] != fillings[1]).any()


def test_brush_undo_erase_and_keyboard(tab):
    start = painted(tab)
    stroke(tab, (5, 60), (60, 60))
    assert painted(tab).sum() > start.sum()
    tab.click(".try .undo")
    assert (painted(tab) == start).all()
    tab.click("[data-tool=erase]")
    set_to(tab, "size", 32)
    for y in range(0, 65, 10): stroke(tab, (1, min(y, 63)), (63, min(y, 63)))
    assert not painted(tab).any()
    tab.click(".try .fill")
    says(tab, "Nothing is painted yet")
    tab.click("[data-tool=paint]")
    set_to(tab, "size", 5)
    tab.focus(".try .stage canvas")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press(" ")
    assert painted(tab).any()
    tab.keyboard.press("Control+z")
    assert not painted(tab).any()


def test_words_and_suggestions(tab):
    tab.fill(".try .caption", "a zeppelin bl")
    assert tab.locator(".try .words .unknown").all_text_contents() == ["zeppelin", "bl"]
    assert "a zeppelin blue" in tab.eval_on_selector_all("#try-words option", "all => all.map(one => one.value)")


def test_own_picture_is_cut_square_and_upright(tab, tmp_path):
    "Wide, and turned by its EXIF: red above, blue below once upright."
    wide = Image.new("RGB", (300, 200), (0, 0, 255))
    wide.paste((255, 0, 0), (0, 0, 150, 200))
    exif = Image.Exif()
    exif[0x0112] = 6                                        # turn clockwise: what is left comes above
    wide.save(tmp_path / "wide.png", exif=exif)
    tab.set_input_files(".try [type=file]", tmp_path / "wide.png")
    says(tab, "Your picture stays in this page")
    found = pixels(tab)
    assert (found[:30] == (255, 0, 0)).all() and (found[34:] == (0, 0, 255)).all()
    assert tab.input_value(".try .weights") == "photos"


def test_without_webassembly(browser, served):
    tab = browser.new_page()
    tab.add_init_script("delete window.WebAssembly")
    tab.goto(f"{served}try.html")
    tab.wait_for_selector(".try .fault:not([hidden])")
    assert "has no WebAssembly" in tab.text_content(".try .fault")
    assert not tab.is_visible(".try .fill")
    tab.close()


def test_film(browser, served, tmp_path):
    "A hole is painted, a caption written, the hole filled: the README's film of this page."
    folder = Path(os.environ.get("MY3YEAROLD_FIGURES", tmp_path))
    tab = browser.new_page(viewport=dict(width=720, height=560))
    tab.goto(f"{served}try.html")
    says(tab, "A part of the picture is hidden already")
    tab.add_style_tag(content="body { font-family: sans-serif; } .try .fillings { visibility: hidden; }")
    frames = []
    def shoot(times=1):
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        frames.extend([picture.resize((540, 420), Image.Resampling.LANCZOS)] * times)
    tab.click(".try .clear")
    tab.fill(".try .caption", "")
    shoot(3)
    set_to(tab, "size", 14)
    corners = [(20, 22), (44, 22), (44, 30), (20, 30), (20, 38), (44, 38), (44, 44), (20, 44)]
    for stretch in zip(corners, corners[1:]):
        stroke(tab, *stretch)
        shoot()
    text = "a big yellow circle"
    for end in (2, 6, 13, len(text)):
        tab.fill(".try .caption", text[:end])
        shoot()
    tab.click(".try .fill")
    says(tab, "Filled in 16 evaluations")
    for step in range(16):
        set_to(tab, "step", step)
        shoot()
    film = animate(frames, folder / "try.gif", duration=0.15, hold=3.0)
    tab.close()
    assert film.stat().st_size < 1.5e6
    with Image.open(film) as made: assert made.n_frames > 20      # strokes, words and steps: nothing hangs on time
