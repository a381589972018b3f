"""Every test starts from the same seeds, without a display, and keeps its caches in a folder of its own."""
import os
import random
import tempfile
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
