"""Every notebook runs from top to bottom, in this process, and prints and draws again what it holds.

Figures and text are compared with the committed ones: words exactly, numbers to a hundredth of their size or one unit
of their last digit, pictures to two of 255 levels on average. A cell whose outcome hangs on rounding, which differs
between machines, says so with a line `#| tolerance: 0.1`: its numbers may be off by that share, its figures by that
share of the range. With other versions than those of constraints.txt the pages run, and nothing is compared.

The code of a solution stands in the text, where a reader must open it: it is run after the page's last cell, and must
print what stands below it."""
import base64
import io
import re
import sys
import warnings
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

process = pytest.importorskip("nbdev.process", reason="notebooks are tested with the dev extra installed")
from execnb.nbio import mk_cell, read_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
NOTEBOOKS = [*sorted(NBS.glob("*.ipynb")), *sorted((NBS / "experiments").glob("*.ipynb"))]
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read(ROOT / "settings.ini", encoding="utf-8")
SLOW_FLAGS = set(settings["DEFAULT"]["tst_flags"].split())
SOLUTION = re.compile(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(autouse=True)
def leave_as_found(monkeypatch):
    "A notebook is a guest: its path entries, `__main__`, plotting backend, threads and warnings end with it."
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
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


def solutions(page): # -> a cell for each piece of code in the text, with what is said to be printed
    cells = []
    for source in (cell.source for cell in page.cells if cell.cell_type == "markdown"):
        for code, printed in SOLUTION.findall(source):
            cells.append(mk_cell(code))
            cells[-1].outputs = [{"output_type": "stream", "name": "stdout", "text": printed}]
    return cells


def execute(path): # -> cells with what they put out now, and what they held before
    """Run a notebook as nbdev does, slow cells left out, then its solutions; an error is raised, its traceback on
    standard error."""
    before = read_nb(path)
    page = process.NBProcessor(path, process=True).nb
    before.cells += solutions(before)
    page.cells += solutions(page)
    shell = CaptureShell(path, mpl_format="png")
    def left_out(cell):
        if cell.cell_type != "code": return True
        directives = getattr(cell, "directives_", {}) or {}
        return directives.get("eval:", [""])[0].lower() == "false" or bool(SLOW_FLAGS & directives.keys())

    for cell in page.cells:  # or a cell that has fallen silent would keep, and be compared with, what it once printed
        if cell.cell_type == "code" and not left_out(cell): cell.outputs = []
    try:
        with working_directory(path.parent): shell.run_all(page, exc_stop=True, preproc=left_out)
    except BaseException:
        sys.stderr.write(shell.prettytb(fname=path) + "\n")
        raise
    return [(was, now) for was, now in zip(before.cells, page.cells, strict=True) if not left_out(now)]


def text(outputs):
    "What was printed and shown as text, as one string; figures, widgets and progress bars left out."
    parts = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout": parts.append("".join(output["text"]))
        data = output.get("data", {})
        if "text/plain" in data and not any(
            kind.startswith("image/") or kind in ("text/html", "application/vnd.jupyter.widget-view+json")
            for kind in data
        ):
            parts.append("".join(data["text/plain"]) + "\n")
    return "".join(parts)


def figures(outputs):
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(p)))).convert("RGB"), dtype=float) for p in pictures
    ]


def close(a, b, tolerance): # two numbers as printed
    unit = max(10.0 ** -len(n.partition("e")[0].partition(".")[2]) for n in (a, b)) if "e" not in a + b else 0.0
    return a == b or abs(float(a) - float(b)) <= max(
        tolerance * max(abs(float(a)), abs(float(b))), 1.01 * unit * ("." in a + b)
    )


def made_with_these_versions():
    "Whether they made the outputs: another version of a library draws and rounds a little otherwise."
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    return all(version(name).partition("+")[0] == pinned[name] for name in ("torch", "numpy", "pillow", "matplotlib"))


def difference(was, now, tolerance): # -> what differs, in a sentence, or None
    old, new = text(was), text(now)
    if " ".join(NUMBER.sub("#", old).split()) != " ".join(NUMBER.sub("#", new).split()):
        return f"it printed {old!r} when committed and prints {new!r} now"
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
        if not close(a, b, tolerance or 0.01): return f"it printed {a} when committed and prints {b} now, in {new!r}"
    old, new = figures(was), figures(now)
    if len(old) != len(new): return f"it held {len(old)} figures and draws {len(new)} now"
    for i, (a, b) in enumerate(zip(old, new)):
        if a.shape != b.shape:
            return f"figure {i} was {a.shape[1]}x{a.shape[0]} pixels and is {b.shape[1]}x{b.shape[0]} now"
        if np.abs(a - b).mean() > 255 * (tolerance or 2 / 255):
            return f"figure {i} differs by {np.abs(a - b).mean():.1f} of 255 levels on average"
    return None


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.relative_to(NBS).with_suffix("").as_posix())
def test_notebook(notebook):
    "It runs; and, with the versions of constraints.txt, it prints and draws what it holds."
    failures, cells = [], execute(notebook)
    for was, now in cells if made_with_these_versions() else []:
        directives = getattr(now, "directives_", {}) or {}
        what = difference(was.get("outputs", []), now.get("outputs", []), float(directives.get("tolerance:", [0])[0]))
        if what: failures.append(f"the cell that begins {now.source.strip().splitlines()[0]!r}: {what}")
    assert not failures, "\n".join(failures)


def write(path, *cells):
    import nbformat.v4 as v4
    made = []
    for source, printed in cells:
        outputs = [v4.new_output("stream", name="stdout", text=printed)] if printed else []
        made.append(v4.new_code_cell(source, outputs=outputs))
    path.write_text(v4.writes(v4.new_notebook(cells=made)), encoding="utf-8")
    return path


def test_a_failing_cell_fails(tmp_path, capsys):
    "The harness itself: an error in a cell is seen, and told with the cell's own words; a slow cell is left out."
    page = tmp_path / "page.ipynb"
    execute(write(page, ("hidden = 3", ""), ("assert hidden == 3", "")))
    execute(write(page, ("#| slow\nraise RuntimeError('this takes an hour')", ""), ("1 + 1", "")))
    with pytest.raises(AssertionError):
        execute(write(page, ("hidden = 3", ""), ("assert hidden == 4, 'the hole has moved'", "")))
    assert "the hole has moved" in capsys.readouterr().err


@pytest.mark.parametrize("source, printed, same", [
    ("print('4.02 bits')", "4.02 bits\n", True),
    ("print('4.02 bits')", "4.03 bits\n", True),            # one unit of the last digit
    # a checksum, part of which reads as a number beyond all numbers
    ("print('51a044e8006')", "51a044e8006\n", True),
    ("print('4.02 bits')", "4.12 bits\n", False),
    ("#| tolerance: 0.1\nprint('4.02 bits')", "4.12 bits\n", True),
    ("print('4.02 bits')", "4.02 nats\n", False),
    ("print('12 of 16')", "13 of 16\n", False),             # whole numbers are exact
    ("print('4.02 bits')", "", False),
    ("bits = 4.02", "4.02 bits\n", False),                 # it is silent now
])
def test_other_outputs_fail(tmp_path, source, printed, same):
    [(was, now)] = execute(write(tmp_path / "page.ipynb", (source, printed)))
    tolerance = float((now.directives_ or {}).get("tolerance:", [0])[0])
    assert (difference(was.outputs, now.outputs, tolerance) is None) == same


def test_solutions_are_run(tmp_path):
    import nbformat.v4 as v4
    def page(solution):
        cells = [v4.new_code_cell("hidden = 3"), v4.new_markdown_cell(f"<details>\n\n{solution}\n\n</details>")]
        (tmp_path / "page.ipynb").write_text(v4.writes(v4.new_notebook(cells=cells)), encoding="utf-8")
        was, now = execute(tmp_path / "page.ipynb")[-1]
        return difference(was.outputs, now.outputs, 0.0)
    assert page("```python\nprint(hidden)\n```\n\n```text\n3\n```") is None
    assert "prints 3 now" in page("```python\nprint(hidden)\n```\n\n```text\n4\n```")


def test_another_figure_fails():
    def output(level):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (level,) * 3).save(file, "PNG")
        return [{"output_type": "display_data", "data": {"image/png": base64.b64encode(file.getvalue()).decode()}}]
    assert difference(output(100), output(101), 0.0) is None
    assert "differs by 20.0" in difference(output(100), output(120), 0.0)
    assert difference(output(100), output(120), 0.1) is None
    assert "0 now" in difference(output(100), [], 0.0)
