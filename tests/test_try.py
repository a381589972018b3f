"""The page `try` of the site: its chain under node is Python's, and the page in a browser does what it says."""
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from my3yearold.captions import Vocabulary, tokens
from my3yearold.inpaint import spread

ROOT = Path(__file__).resolve().parent.parent
TRY = ROOT / "site" / "try"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="the page's sampler is run under node, which is not installed")


def under_node(task, **job):
    done = subprocess.run([NODE, str(ROOT / "tests" / "try_node.mjs")], input=json.dumps(dict(task=task, **job)),
                          capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- captions ----

CAPTIONS = ["A large blue circle.", "", "  two   dogs,playing|here!?", "Ein Übel; İstanbul ΣΑΣ", "tab\there\x1cand\x85there",
            "\ufeffno space", "wide\u3000space and 日本 😀", "word " * 60]


@needs_node
@pytest.mark.parametrize("level", ["word", "char"])
def test_captions_are_read_as_in_python(level):
    vocabulary = Vocabulary.build([CAPTIONS[:5]], 1, level)
    found = under_node("captions", folder=str(TRY), vocabulary=json.loads(vocabulary.to_json()), captions=CAPTIONS, words=48)
    for caption, row in zip(CAPTIONS, found):
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
    for ours, python in zip(found["states"], states):
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
