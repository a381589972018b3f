"""The project keeps its own rules: exports and README in step, notebooks clean, data flowing one way, light imports,
small files."""
import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import PIL
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for path in sorted((ROOT / "nbs").glob("*.ipynb")) if path.stem != "index"]
EXPERIMENTS = [path for path in sorted((ROOT / "nbs/experiments").glob("*.ipynb")) if path.stem != "index"]
NOTEBOOKS = [*PAGES, *EXPERIMENTS, ROOT / "nbs/index.ipynb", ROOT / "nbs/experiments/index.ipynb"]
WITHOUT_MODULE = {"00_whole", "22_strategies"}
MODULES = sorted(path for path in (ROOT / "my3yearold").glob("*.py") if not path.stem.startswith("_"))
FLOORS = [                                  # a module imports from the floors above it in this list, never from its own
    {"arrays", "attention", "chance", "completion", "files", "guidance", "hub", "losses_on_levels", "muon", "qrnn",
     "scenes", "show", "yardsticks"},
    {"architecture", "captions", "heads", "holes", "losses", "names", "pictures", "runs", "sampling", "terminal",
     "trunks"},
    {"cutout", "machines", "masks", "model", "pickles", "tables"},
    {"ancestral", "jobs", "saving", "sources"},
    {"budgets", "coco", "data", "likelihood", "remasking"},
    {"batches", "coarse_to_fine", "config", "gibbs"},
    {"devices", "inpaint", "resuming", "spaces", "validation"},
    {"export", "playground", "results", "training"},
    {"tuning"},
    {"commands"},
    {"cli"},
]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "nbs").as_posix())
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
each_experiment = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


def cells(path, kind=None):
    "The sources of a notebook's cells."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def default_exp(path):
    return [name for source in cells(path, "code") for name in re.findall(r"^#\|\s*default_exp\s+(\S+)", source, re.M)]


# ---- in step ----

def test_exports_are_in_step(tmp_path):
    "nbdev_export, run on a copy of the notebooks, makes exactly the modules of the checkout."
    pytest.importorskip("nbdev", reason="exporting needs the dev extra")
    copy = tmp_path / "checkout"
    (copy / "my3yearold").mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", copy)
    for by_hand in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "my3yearold" / by_hand, copy / "my3yearold")  # but for the version
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".*", "images"))
    # nbdev exports nothing during its own tests
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    export = "from nbdev.doclinks import nbdev_export; nbdev_export()"
    subprocess.run([sys.executable, "-c", export], cwd=copy, env=environment, check=True)
    exported, committed = (
        {path.name: path.read_text(encoding="utf-8") for path in (folder / "my3yearold").glob("*.py")}
        for folder in (copy, ROOT)
    )
    assert set(exported) == set(committed), "run nbdev_export"
    assert [name for name in exported if exported[name] != committed[name]] == [], "run nbdev_export"


def test_readme_is_in_step():
    pytest.importorskip("nbconvert", reason="making the README needs the dev extra")
    spec = importlib.util.spec_from_file_location("make_readme", ROOT / "nbs" / "make_readme.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    text, pictures = maker.make_readme()
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "run python nbs/make_readme.py"
    for path, data in pictures.items():
        assert (ROOT / path).read_bytes() == data, f"{path}: run python nbs/make_readme.py"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert any(link.startswith("nbs/images/") for link in links), "the README opens with a picture"
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_readme_maps_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in PAGES if f"nbs/{path.name}" not in readme] == []
    assert "nbs/experiments/index.ipynb" in readme, "and the experiments"


# ---- notebooks ----

@each_notebook
def test_notebook_is_clean(path):
    "As nbdev_clean leaves it; no widget, no error, and no path of the machine it ran on."
    clean = pytest.importorskip("nbdev.clean", reason="the dev extra knows what a clean notebook is")
    from execnb.nbio import nb2str
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    clean.clean_nb(notebook)
    assert nb2str(notebook) == text, "run nbdev_clean"
    assert "widgets" not in notebook["metadata"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = json.dumps([cell["outputs"] for cell in code])
    assert "application/vnd.jupyter.widget" not in outputs
    assert '"output_type": "error"' not in outputs
    printed = json.dumps(
        [
            {kind: data for kind, data in output.get("data", output).items() if not kind.startswith("image/")}
            for cell in code
            for output in cell["outputs"]
        ]
    )
    places = [str(ROOT), str(Path.home()), sys.prefix, tempfile.gettempdir() + "/", "site-packages"]
    assert [place for place in places if len(place) > 3 and place in printed] == []


@each_page
def test_page_opens_as_agreed(path):
    """First its module, where it has one, then its title and one line that states the page's claim. Appendices have no
    number."""
    module = re.sub(r"^\d\d_", "", path.stem)
    assert default_exp(path) == ([] if path.stem in WITHOUT_MODULE else [module])
    if path.stem not in WITHOUT_MODULE: assert cells(path)[0].startswith(f"#| default_exp {module}")
    assert re.match(r"# \S.*\n+> \S.*", cells(path, "markdown")[0])


@each_experiment
def test_experiment_opens_as_agreed(path):
    "Title and the claim in one line; a number that no other has; no module; a verdict; results that say whence."
    assert default_exp(path) == [] and len(EXPERIMENTS) == len({one.stem[:2] for one in EXPERIMENTS})
    assert re.match(r"# \S.*\n+> \S.*", cells(path, "markdown")[0])
    verdicts = re.findall(r"\*\*Verdict: (holds|does not hold|depends)\.\*\*", "\n".join(cells(path, "markdown")))
    assert len(verdicts) == 1
    results = json.loads((path.parent / f"results/{path.stem}.json").read_text(encoding="utf-8"))
    assert [part for part in results.values() if not {"command", "seeds", "device", "torch"} <= part.keys()] == []


def test_experiments_are_in_their_table():
    "The committed output of the index of experiments has a row for each, with the verdict that its page has now."
    index = json.loads((ROOT / "nbs/experiments/index.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in index["cells"] for output in cell.get("outputs", [])]
    table = "".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    for path in EXPERIMENTS:
        [row] = [line for line in table.splitlines() if f"]({path.name})" in line]
        said = re.search(r"\*\*Verdict: ([^.]+)\.\*\* (.*)", "\n".join(cells(path, "markdown")))
        assert f"**{said[1]}**" in row and said[2] in row, "run nbs/experiments/index.ipynb"


def test_pages_are_numbered_without_gaps():
    numbers = [int(path.stem[:2]) for path in PAGES if path.stem[:2].isdigit()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_no_two_notebooks_write_one_module():
    names = [name for path in NOTEBOOKS for name in default_exp(path)]
    assert len(names) == len(set(names))


# ---- modules ----

def imports_of(path):
    "Names of the package's modules that `path` imports, wherever in the file."
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "my3yearold"):
            inside = (node.module or "").removeprefix("my3yearold").lstrip(".")
            found = [f"my3yearold.{inside}"] if inside else [f"my3yearold.{alias.name}" for alias in node.names]
        else: continue
        names |= {
            name.split(".")[1] for name in found if name.startswith("my3yearold.") and name != "my3yearold.__version__"
        }
    return names


@each_module
def test_data_flows_down(path):
    floor = next((number for number, names in enumerate(FLOORS) if path.stem in names), None)
    assert floor is not None, f"give {path.stem} a floor"
    assert imports_of(path) <= set().union(*FLOORS[:floor])


def test_imports_are_found(tmp_path):
    "The check above would see every way of importing a neighbour."
    source = ("import my3yearold.a, os\nfrom my3yearold.b import x\nfrom .c import y\nfrom my3yearold import d\n"
              "def f():\n    from . import e\n")
    (tmp_path / "module.py").write_text(source)
    assert imports_of(tmp_path / "module.py") == set("abcde")


@each_module
def test_module_says_what_it_is(path):
    "In a whole sentence on a line of its own: the first line of its page's claim."
    first = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False).splitlines()[0]
    assert first.endswith(".") and len(first) <= 114, first


@each_module
def test_development_tools_stay_out(path):
    "A bare installation has no fastcore, nbdev or IPython: no module imports them at its top."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tops = {name.split(".")[0] for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])}
    assert not tops & {"fastcore", "nbdev", "IPython", "ipywidgets", "skimage", "tensorboard"}


def test_importing_the_pipeline_is_light():
    heavy = ["matplotlib.pyplot", "skimage", "tensorboard", "IPython", "nbdev", "fastcore"]
    script = f"import sys, my3yearold.inpaint; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# ---- style and types ----

def untyped(
    body, prefix=""
):  # -> names of public functions and methods some of whose arguments, or whose result, have no type
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from untyped(node.body, f"{node.name}.")
        if (
            not isinstance(node, ast.FunctionDef)
            or node.name.startswith("_")
            and node.name not in ("__init__", "__call__")
        ):
            continue
        arguments = [
            a for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")
        ]
        if any(a.annotation is None for a in arguments): yield prefix + node.name
        elif node.returns is None and node.name != "__init__": yield prefix + node.name


@each_module
def test_public_signatures_have_types(path):
    assert list(untyped(ast.parse(path.read_text(encoding="utf-8")).body)) == []


def test_missing_types_are_seen():
    source = ("def f(a: int) -> int: ...\ndef g(a): ...\ndef _h(a): ...\nclass C:\n    def m(self) -> int: ...\n"
              "    def n(self): ...\n")
    assert list(untyped(ast.parse(source).body)) == ["g", "C.n"]


def run_tool(name, *arguments):
    if importlib.util.find_spec(name) is None: pytest.skip(f"{name} comes with the dev extra")
    done = subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_style(): run_tool("ruff", "check", "--no-cache", ".")


def test_types(tmp_path):
    if not (Path(PIL.__file__).parent / "py.typed").is_file(): pytest.skip("this Pillow says nothing of its types")
    run_tool("mypy", "--cache-dir", str(tmp_path))


# ---- sizes ----

def test_files_are_small():
    done = (
        subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    )
    if done is None or done.returncode or not done.stdout: pytest.skip("only a git checkout knows its files")
    megabytes = {
        name: (ROOT / name).stat().st_size / 2**20 for name in done.stdout.splitlines() if (ROOT / name).is_file()
    }
    assert sum(megabytes.values()) < 40
    assert [
        name
        for name, size in megabytes.items()
        if size > (1 if name.endswith(".ipynb") else 15 if name.endswith(".safetensors") else 10)
    ] == []


@each_page
def test_opens_in_colab(path):
    notebook = nbformat.read(path, as_version=4)
    opening = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    address = "https://colab.research.google.com/github/my3yearold/my3yearold/blob/main/nbs"
    assert f"[![Open in Colab](images/colab.svg)]({address}/{path.name})" in opening
    [mine] = [cell.source for cell in notebook.cells if 'find_spec("my3yearold")' in cell.source]
    [first] = [cell.source for cell in nbformat.read(PAGES[0], as_version=4).cells if "find_spec" in cell.source]
    assert mine == first and mine.startswith("#| hide\n")


@each_experiment
def test_experiment_opens_in_colab(path):
    "As the pages do, from its own folder."
    address = "https://colab.research.google.com/github/my3yearold/my3yearold/blob/main/nbs/experiments"
    assert f"[![Open in Colab](../images/colab.svg)]({address}/{path.name})" in cells(path, "markdown")[0]
    [mine] = [source for source in cells(path, "code") if 'find_spec("my3yearold")' in source]
    [first] = [source for source in cells(PAGES[0], "code") if "find_spec" in source]
    assert mine == first.replace("my3yearold/nbs", "my3yearold/nbs/experiments").replace('".."', '"../.."')


def test_no_page_has_the_name_of_a_page_that_the_site_makes_itself():
    assert not {path.stem for path in NOTEBOOKS} & {"search", "genindex", "py-modindex", "modindex", "try"}
