"""The playground in a real browser: in JupyterLab and as a page of its own, with a mouse on a wide screen and with a
finger on a narrow one.

With MY3YEAROLD_FIGURES=FOLDER the figures of the README and of page 27 are written there."""
import io
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

for module in ("playwright", "anywidget", "voila", "jupyterlab", "psutil"):
    pytest.importorskip(
        module, reason=f'the playground is tested in a browser where {module} is installed (the extra dev)'
    )

import psutil

from my3yearold.show import animate

ROOT = Path(__file__).resolve().parent.parent
SCREENS = {"desk": dict(viewport=dict(width=1280, height=900)),
           "phone": dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True, device_scale_factor=2)}
# console errors that do no harm: JupyterLab looks for language servers, which may not be there
KNOWN = ("/lsp/status",)
PATIENCE = 60_000                            # milliseconds, for a kernel that starts beside other work

WATCH = """() => { // every picture that the canvas shows, and the longest time in which the page could not paint
  const stage = document.querySelector('.my3yearold-canvas .stage'), canvas = stage.querySelector('canvas');
  window.seen = new Set(); window.stall = 0; let last = performance.now();
  new MutationObserver(() => seen.add(canvas.toDataURL())).observe(stage, {attributes: true});
  const tick = now => { window.stall = Math.max(window.stall, now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""
STOP = """() => new Promise(done => { // press it, and say how long it took until it was heard
  const pressed = performance.now(), line = document.querySelector('.my3yearold-canvas output');
  const look = () => { if (line.textContent.startsWith('Stop')) done(performance.now() - pressed); };
  new MutationObserver(look).observe(line, {childList: true, subtree: true, characterData: true});
  [...document.querySelectorAll('.my3yearold .go button')].find(button => button.textContent === 'Stop').click();
})"""
PIXELS = """() => [...document.querySelectorAll('.my3yearold-canvas canvas')].map(canvas =>
  [canvas.height, canvas.width, [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]])"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(*command, cwd=None, **variables):
    "A server of ours, with its children ended in the end."
    environment = (
        os.environ
        | variables
        | {
            "OMP_NUM_THREADS": "1",
            "GOMP_SPINCOUNT": "10000",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
    )
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell's background job ignores Ctrl-C, and hands that down
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try: yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try: process.wait(15)
        except subprocess.TimeoutExpired: process.kill()
        for child in psutil.wait_procs(children, 5)[1]: child.kill()
        process.stdout.close()


def kernels(process):
    "The kernels of a server that run now."
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try: found += [child.pid] if any("ipykernel" in word for word in child.cmdline()) else []
        except psutil.Error: pass
    return found


def until(met, seconds=30):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(browser):
    "`my3yearold play` and its address."
    with running("-m", "my3yearold", "play", "--no-browser", "--port", str(free_port())) as process:
        line = process.stdout.readline()
        assert line.startswith("the playground is at http://localhost:"), line
        until(lambda: reachable(line.split()[4]))
        yield process, line.split()[4]


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    "JupyterLab with a notebook that has one cell, and its address."
    from my3yearold.playground import page_of
    folder, port, token = tmp_path_factory.mktemp("lab"), free_port(), "a-token"
    (folder / "playground.ipynb").write_text(page_of(None), encoding="utf-8")
    # or a question covers the buttons
    quiet = folder / ".settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    with running(
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=localhost",
        "--expose-app-in-browser",
        "--LabApp.news_url=",
        "--ServerApp.log_level=ERROR",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        cwd=folder,
        JUPYTERLAB_SETTINGS_DIR=str(folder / ".settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(folder / ".workspaces"),
    ) as process:
        until(lambda: reachable(f"http://localhost:{port}/"))
        yield process, f"http://localhost:{port}/doc/tree/playground.ipynb?reset&token={token}"


def reachable(address):
    parts = urlsplit(address)
    try: socket.create_connection((parts.hostname, parts.port), 1).close()
    except OSError: return False
    return True


class Visit:
    "A page with the playground in it, and what it was seen to do."
    def __init__(self, context, address):
        self.page, self.away, self.errors = context.new_page(), [], []
        self.touch = context.new_cdp_session(self.page) if self.page.evaluate("navigator.maxTouchPoints") else None
        self.page.set_default_timeout(PATIENCE)
        self.page.on(
            "request",
            lambda r: (
                self.away.append(r.url) if urlsplit(r.url).hostname not in ("localhost", "127.0.0.1", None) else None
            ),
        )
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(address)
        if "/doc/" in address: self.run_notebook()
        self.find(".cover").wait_for()
        self.page.wait_for_function(
            "document.querySelector('.my3yearold-canvas canvas').width > 1"
            " && document.querySelector('.stage').dataset.shown === 'false'"
        )
        self.page.evaluate(WATCH)

    def hear(self, message):
        said = f"{message.text} {message.location.get('url')}"
        if message.type == "error" and not any(known in said for known in KNOWN): self.errors.append(said)

    def run_notebook(self):
        self.page.wait_for_function(
            "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        self.page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")

    def find(self, selector): return self.page.locator(f".my3yearold {selector}").first
    def press(self, name): self.page.locator(".my3yearold").get_by_role("button", name=name, exact=True).first.click()

    def setting(self, name):
        return (
            self.page.locator(".my3yearold .jupyter-widgets", has=self.page.get_by_text(name, exact=True))
            .last.locator("input, textarea, select")
            .last
        )

    def write(self, name, text):
        field = self.setting(name)
        field.fill(text)
        field.press("Tab")

    @property
    def status(self): return self.find("output").inner_text()

    def wait_for(self, text):
        self.page.wait_for_function(
            "text => document.querySelector('.my3yearold-canvas output').textContent.includes(text)", arg=text
        )

    def paint(self, points):
        "A stroke through points given as shares of the canvas, by mouse or by finger."
        cover = self.find(".cover")
        cover.scroll_into_view_if_needed()
        box = cover.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        if self.touch is None:
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]: self.page.mouse.move(*place, steps=5)
            self.page.mouse.up()
            return

        def send(kind, *at):
            self.touch.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in at]))

        send("touchStart", places[0])
        for (x, y), (to_x, to_y) in zip(places, places[1:]):
            for k in range(1, 6): send("touchMove", (x + (to_x - x) * k / 5, y + (to_y - y) * k / 5))
        send("touchEnd")

    def pixels(self):
        "The picture (H, W, 3) and where the hole's pattern covers it (H, W)."
        picture, cover = (
            np.array(data, dtype=np.uint8).reshape(height, width, 4)
            for height, width, data in self.page.evaluate(PIXELS)
        )
        return picture[..., :3], cover[..., 3] > 0

    def download(self, name):
        with self.page.expect_download() as found: self.press(name)
        return Image.open(io.BytesIO(Path(found.value.path()).read_bytes()))


@contextmanager
def visit(browser, address, screen):
    context = browser.new_context(**SCREENS[screen], accept_downloads=True)
    try:
        seen = Visit(context, address)
        yield seen
        seen.page.goto("about:blank")                                # or its kernel would wait for it to come back
        assert seen.away == [] and seen.errors == []
    finally: context.close()


@pytest.fixture(params=["page-desk", "page-phone", "lab-desk", "lab-phone"])
def seen(request, browser):
    where, screen = request.param.split("-")
    _, address = request.getfixturevalue("server" if where == "page" else "lab")
    with visit(browser, address, screen) as found: yield found


ZIGZAG = [(0.3, 0.3), (0.7, 0.35), (0.3, 0.5), (0.7, 0.6)]


def rest_on_words(seen, after):
    "A mouse or the tab key need not press; who leaves sees the filling again, and a press keeps the word."
    def shows(filling): until(lambda: (seen.pixels()[0] == after).all() == filling)
    word = seen.find(".words button")
    word.hover()
    shows(False)
    seen.page.mouse.move(0, 0)
    shows(True)
    word.hover()
    shows(False)
    word.click()                                                     # kept
    seen.page.mouse.move(0, 0)
    seen.page.wait_for_timeout(600)                                  # longer than the page waits before it goes back
    assert word.get_attribute("aria-pressed") == "true" and (seen.pixels()[0] != after).any()
    word.click()                                                     # and let go
    shows(True)
    seen.page.mouse.move(0, 0)
    seen.press("Filling")                                            # two buttons before the words
    for _ in range(3): seen.page.keyboard.press("Tab")
    assert word.evaluate("element => element === document.activeElement")
    shows(False)
    seen.page.keyboard.press("Shift+Tab")
    shows(True)


def test_paint_fill_and_look(seen):
    seen.press("Clear")
    assert not seen.pixels()[1].any()
    seen.paint(ZIGZAG)
    before, hole = seen.pixels()
    assert 0.05 < hole.mean() < 0.6
    seen.press("Undo")
    assert not seen.pixels()[1].any()
    seen.paint(ZIGZAG)
    assert (seen.pixels()[1] == hole).all()                          # drawn again
    seen.write("evaluations", "48")
    seen.press("Fill")
    seen.wait_for("Done.")
    seen.find(".shelf button").wait_for()
    until(lambda: seen.page.evaluate("document.querySelector('.stage').dataset.shown") == "true")
    after, covered = seen.pixels()
    assert len(seen.page.evaluate("[...window.seen]")) >= 10         # frames that differ
    differs = (before != after).any(-1)
    assert differs[hole].mean() > 0.5 and not differs[~hole].any() and not covered.any()
    assert seen.page.evaluate("window.stall") < 1000                 # milliseconds
    # the file is what was seen
    saved = np.array(seen.download("Save PNG").convert("RGB"))
    assert (saved == after).all()
    assert (np.array(seen.download("Save mask")) == hole).all()
    # where a word attends, and back
    seen.find(".words button").click()
    seen.page.wait_for_function("document.querySelector('.my3yearold-fillings output').textContent.includes('bits')")
    assert (seen.pixels()[0] != after).any()
    seen.press("Filling")
    until(lambda: (seen.pixels()[0] == after).all())
    if seen.touch is None: rest_on_words(seen, after)
    # nothing is wider than the screen
    assert seen.page.evaluate("document.querySelector('.my3yearold').scrollWidth") <= seen.page.viewport_size["width"]


def test_stop(seen):
    seen.write("evaluations", "512")
    seen.press("Fill")
    seen.page.wait_for_function("document.querySelector('.my3yearold-canvas progress').value > 0.01")
    assert seen.page.evaluate(STOP) < 1000                           # milliseconds
    seen.wait_for("Stopped after")
    step = int(seen.status.split()[2].replace(",", ""))
    assert 5 <= step < 400 and "of 512 steps" in seen.status
    until(
        lambda: (
            seen.find(".shelf button").is_visible()
            and seen.page.locator(".my3yearold").get_by_role("button", name="Fill", exact=True).is_enabled()
        )
    )


def test_upload(seen, tmp_path):
    noise = np.random.default_rng(0).integers(90, 160, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    seen.page.set_input_files(".my3yearold-canvas input[type=file]", tmp_path / "mine.png")
    seen.page.wait_for_function("document.querySelector('.my3yearold-canvas canvas').width === 90")
    until(lambda: (seen.pixels()[0] == noise).all())
    assert not seen.pixels()[1].any()
    seen.press("Fill")
    seen.wait_for("nothing to fill")
    seen.press("Rectangle")
    seen.paint([(0.4, 0.4), (0.6, 0.6)])
    hole = seen.pixels()[1]
    rows, columns = hole.any(1).nonzero()[0], hole.any(0).nonzero()[0]
    assert hole[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].all() and 10 <= len(rows) <= 14
    seen.press("Fill")
    seen.wait_for("Done.")
    filled = np.array(seen.download("Save PNG").convert("RGB"))
    differs = (filled != noise).any(-1)
    assert differs[hole].mean() > 0.5 and not differs[~hole].any()
    (tmp_path / "not.jpg").write_bytes(b"not a picture")
    seen.page.set_input_files(".my3yearold-canvas input[type=file]", tmp_path / "not.jpg")
    seen.wait_for("not.jpg")


def test_two_pages_and_their_kernels(browser, server):
    process, address = server
    until(lambda: kernels(process) == [])
    with visit(browser, address, "desk") as one, visit(browser, address, "phone") as other:
        one.write("evaluations", "512")
        one.write("caption", "a large green circle")
        one.press("Fill")
        one.page.wait_for_function("document.querySelector('.my3yearold-canvas progress').value > 0.01")
        other.press("Fill")
        other.wait_for("Done.")
        assert other.setting("caption").input_value() != "a large green circle" and "Step" in one.status
        one.press("Stop")
        one.wait_for("Stopped after")
        assert len(kernels(process)) == 2
        one.page.goto("about:blank")                                 # closed: its kernel goes, and the other's stays
        until(lambda: len(kernels(process)) == 1)
        other.press("Fill")
        other.wait_for("Step")
        other.wait_for("Done.")
        other.page.goto("about:blank")
        until(lambda: kernels(process) == [])


def test_a_page_that_vanishes(browser, tmp_path):
    "A machine that falls asleep says nothing: its kernel goes after a while, and not before."
    script = "import sys\nfrom my3yearold.playground import serve\nserve(None, int(sys.argv[1]), False, idle=5)"
    port = free_port()
    with running("-c", script, str(port), cwd=tmp_path) as process:
        until(lambda: reachable(f"http://localhost:{port}/"))
        context = browser.new_context(**SCREENS["desk"])
        here = Visit(context, f"http://localhost:{port}/")
        time.sleep(8)
        assert len(kernels(process)) == 1                            # connected, if idle
        context.set_offline(True)
        here.page.evaluate("navigator.sendBeacon = () => true")
        context.close()
        until(lambda: kernels(process) == [], 40)


def test_ctrl_c_ends_it(browser):
    with running("-m", "my3yearold", "play", "--no-browser", "--port", str(free_port())) as process:
        address = process.stdout.readline().split()[4]
        until(lambda: reachable(address))
        busy = subprocess.run(
            [
                sys.executable,
                "-m",
                "my3yearold",
                "play",
                "--no-browser",
                "--port",
                address.rpartition(":")[2].strip("/"),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert busy.returncode == 2 and len(busy.stderr.splitlines()) == 1 and "port" in busy.stderr
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
        assert process.returncode in (0, 130) and "Traceback" not in said


# ---- figures ----

def test_figures(browser, server, tmp_path):
    "A hole is painted, a caption written, the hole filled: the README's film; and the picture of page 27."
    folder = Path(os.environ.get("MY3YEAROLD_FIGURES", tmp_path))
    with visit(browser, server[1], "desk") as seen:
        seen.page.set_viewport_size(dict(width=560, height=840))
        frames, area = [], seen.find(".picture")
        def shoot(times=1): frames.extend([Image.open(io.BytesIO(area.screenshot())).convert("RGB")] * times)
        seen.press("Clear")
        seen.setting("caption").fill("")
        shoot(3)
        seen.find(".tools input[type=range]").fill("14")
        corners = [
            (0.12, 0.46),
            (0.5, 0.48),
            (0.14, 0.58),
            (0.5, 0.64),
            (0.14, 0.7),
            (0.5, 0.78),
            (0.16, 0.82),
            (0.42, 0.86),
            (0.52, 0.6),
        ]
        for stroke in zip(corners, corners[1:]):
            seen.paint(stroke)
            shoot()
        text = "a large yellow circle"
        for end in (2, 8, 15, len(text)):
            seen.setting("caption").fill(text[:end])
            shoot(2 if end == len(text) else 1)
        seen.press("Fill")
        while "Done." not in seen.status: shoot()
        until(lambda: seen.page.evaluate("document.querySelector('.stage').dataset.shown") == "true")
        shoot()
        small = [
            frame.resize((360, round(frame.height * 360 / frame.width)), Image.Resampling.LANCZOS) for frame in frames
        ]
        gif = animate(small, folder / "playground.gif", duration=0.12)
        # every stroke and the filling are there; how many frames of the chain, is a matter of the machine's speed
        with Image.open(gif) as film: assert film.n_frames > len(corners) + 1
        assert gif.stat().st_size < 1.5e6
    with visit(browser, server[1], "desk") as seen:
        seen.page.set_viewport_size(dict(width=1180, height=960))
        seen.page.locator(".my3yearold .widget-readout").last.fill("4")
        seen.page.locator(".my3yearold .widget-readout").last.press("Enter")
        seen.press("Fill")
        seen.wait_for("Done.")
        seen.page.mouse.move(0, 0)
        picture = Image.open(io.BytesIO(seen.page.screenshot())).convert("RGB")
        picture.quantize(128, kmeans=1, dither=Image.Dither.NONE).save(folder / "playground.png", optimize=True)
        assert (folder / "playground.png").stat().st_size < 1e5
