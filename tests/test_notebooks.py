"""Every notebook runs from top to bottom, in this process, as `nbdev_test` runs it."""
import os
import sys
import warnings
from configparser import ConfigParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

test_nb = pytest.importorskip("nbdev.test", reason="notebooks are tested with the dev extra installed").test_nb
test_nb.__test__ = False                                        # its name is no invitation to pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read(ROOT / "settings.ini", encoding="utf-8")
SLOW_FLAGS = settings["DEFAULT"]["tst_flags"].split()


@pytest.fixture(autouse=True)
def leave_as_found(monkeypatch):
    "A notebook is a guest: its path entries, `__main__`, plotting backend, threads and warnings end with it."
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setenv("IN_TEST", "1")
    threads, options = torch.get_num_threads(), np.get_printoptions()
    hook, rc = sys.displayhook, dict(plt.rcParams)
    with warnings.catch_warnings(): yield
    plt.close("all")
    plt.rcParams.update({name: value for name, value in rc.items() if name != "backend"})
    plt.switch_backend("Agg")
    np.set_printoptions(**options)
    torch.set_printoptions(profile="default")
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    sys.displayhook = hook


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook):
    passed, _ = test_nb(notebook, skip_flags=SLOW_FLAGS, basepath=ROOT)
    assert passed, f"a cell of {notebook.name} fails: its error stands under 'Captured stderr call'"


def test_a_failing_cell_fails(tmp_path, capsys):
    "The harness itself: an error in a cell is seen, and told with the cell's own words; a slow cell is left out."
    import nbformat.v4 as v4
    def run(*sources):
        path = tmp_path / "page.ipynb"
        v4_notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
        path.write_text(v4.writes(v4_notebook), encoding="utf-8")
        return test_nb(path, skip_flags=SLOW_FLAGS)[0]
    assert run("hidden = 3", "assert hidden == 3")
    assert run("#| slow\nraise RuntimeError('this takes an hour')", "1 + 1")
    assert not run("hidden = 3", "assert hidden == 4, 'the hole has moved'")
    assert "the hole has moved" in capsys.readouterr().err
