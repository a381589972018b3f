"""Every test starts from the same seeds, without a display, and keeps its caches in a folder of its own."""
import os
import random
import shutil
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"
# before torch is imported: beside other work, threads that spin are slow
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
_cache = tempfile.TemporaryDirectory(prefix="my3yearold-")      # removed when the process ends
os.environ["MY3YEAROLD_CACHE"] = _cache.name

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))
hypothesis.settings.register_profile("project", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True)
def seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root():
    "The checkout."
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    "The bundled weights as graphs, exported once for all tests, which takes most of a minute."
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason=f"graphs are written where {module} is installed (the extra export)")
    from my3yearold.export import export
    place = tmp_path_factory.mktemp("graphs")
    for name in ("scenes", "photos"): export(name, place / name)
    return place


@pytest.fixture(scope="module") # not longer: while it runs, a test cannot have an event loop of its own
def browser():
    "Chromium: playwright's own, or one that is found on the path."
    api = pytest.importorskip("playwright.sync_api", reason="pages are looked at in a browser, which needs playwright")
    with api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        names = ("chromium", "chromium-browser", "google-chrome")
        program = str(own) if own.is_file() else next(filter(None, map(shutil.which, names)), None)
        if program is None: pytest.skip("there is no Chromium: install one, or run playwright install chromium")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                 "--disable-sync", "--no-first-run"]
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words): pass

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=3600")      # MathJax is read once, not for each page
        super().end_headers()


@contextmanager
def _hosted(folder): # -> its address
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def hosted():
    "A folder's address on this machine while it is served: `with hosted(folder) as address`."
    return _hosted
