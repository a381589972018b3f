"""What is shipped: the sdist, the wheel built from it, and the program installed from that wheel away from the
checkout."""
import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

pytest.importorskip(
    "setuptools", minversion="77", reason="building needs setuptools 77 or newer: install the dev extra"
)
pytest.importorskip("build", reason="building needs build: install the dev extra")


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    "A copy of the checkout (so that nothing is left behind in it) and the folder with its sdist and wheel."
    copy, out = tmp_path_factory.mktemp("copy") / "my3yearold", tmp_path_factory.mktemp("dist")
    shutil.copytree(
        root, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "runs", "filled")
    )
    # the sdist, then the wheel from the sdist
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy)
    return copy, out


@pytest.fixture(scope="module")
def shipped(built):
    "The files of the sdist without its top folder, and those of the wheel as {name: bytes}."
    _, out = built
    with tarfile.open(next(out.glob("*.tar.gz"))) as tar: sdist = {name.partition("/")[2] for name in tar.getnames()}
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    return sdist, files


def test_modules_and_weights_are_shipped(built, shipped):
    copy, _ = built
    sdist, wheel = shipped
    package = copy / "my3yearold"
    templates = {path.name for path in package.glob("templates/*")}
    assert {"player.html", "canvas.js", "fillings.js", "playground.css", "voila.html.j2"} <= templates
    wanted = {
        path.relative_to(copy).as_posix()
        for path in [
            *package.glob("*.py"),
            *package.glob("weights/*/*"),
            *package.glob("templates/*"),
            package / "py.typed",
        ]
    }
    assert wanted <= sdist
    # and nothing else: no notebooks, no tests
    assert {name for name in wheel if ".dist-info/" not in name} == wanted
    assert {
        "settings.ini",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "constraints.txt",
        "setup.py",
        "pyproject.toml",
    } <= sdist


def test_every_weights_folder_is_complete(root):
    for folder in (root / "my3yearold" / "weights").glob("*"):
        assert {"model.safetensors", "config.json", "vocabulary.json", "card.json", "README.md", "log.csv"} <= {
            path.name for path in folder.iterdir()
        }, folder.name


def test_metadata(shipped):
    _, wheel = shipped
    info = {name.rpartition("/")[2]: data.decode() for name, data in wheel.items() if ".dist-info/" in name}
    entry_points = configparser.ConfigParser()
    entry_points.read_string(info["entry_points.txt"])
    assert entry_points["console_scripts"]["my3yearold"] == "my3yearold:main"
    bare = {
        line.split()[1].split(">")[0]
        for line in info["METADATA"].splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    }
    assert bare == {"torch", "numpy", "pillow", "tqdm", "safetensors", "msgspec", "filelock"}
    drawing = [line for line in info["METADATA"].splitlines() if line.startswith("Requires-Dist: matplotlib")]
    assert {line.split('"')[1] for line in drawing} == {"notebooks", "dev"}
    assert {line.split()[1] for line in info["METADATA"].splitlines() if line.startswith("Provides-Extra:")} == {
        "samples",
        "train",
        "search",
        "hub",
        "completion",
        "export",
        "notebooks",
        "play",
        "dev",
        "site",
    }


def test_installed_wheel_inpaints(root, built, tmp_path):
    if not any((root / "my3yearold" / "weights").glob("*/model.safetensors")): pytest.skip("no weights are bundled yet")
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
        next(built[1].glob("*.whl")),
    )
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "2"}
    said = run(sys.executable, root / "tests" / "inpaint_away.py", cwd=elsewhere, env=environment)
    assert said and all(str(target) in line for line in said.splitlines())
    bare = """
import sys
sys.modules.update(dict.fromkeys(["matplotlib", "skimage", "tensorboard", "accelerate", "IPython", "ipywidgets"]))
from my3yearold.cli import main
sys.exit(main(["inpaint", "--samples", "1", "--steps", "2", "--quiet", "--out", "filled"]))"""
    run(sys.executable, "-c", bare, cwd=elsewhere, env=environment)
    assert (elsewhere / "filled" / "index.html").is_file()
    usage = run(target / "bin" / "my3yearold", "--help", cwd=elsewhere, env=environment)
    assert "inpaint" in usage


def test_links_and_classifiers(shipped):
    _, wheel = shipped
    metadata = next(data.decode() for name, data in wheel.items() if name.endswith(".dist-info/METADATA"))
    address = "https://github.com/my3yearold/my3yearold"
    for line in (f"Project-URL: Source, {address}", f"Project-URL: Issues, {address}/issues",
                 "Classifier: Typing :: Typed", "Classifier: Programming Language :: Python :: 3.13"):
        assert line in metadata.splitlines(), line


def test_who_draws_without_matplotlib_is_told_what_to_install(monkeypatch):
    import torch

    from my3yearold.architecture import architecture
    from my3yearold.show import heat, show_images
    for name in ("matplotlib", "matplotlib.pyplot"): monkeypatch.setitem(sys.modules, name, None)
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    for draw in (lambda: show_images([picture]), architecture):
        with pytest.raises(ImportError, match="my3yearold.notebooks."): draw()
    assert heat(picture, torch.arange(64.0).view(8, 8)).unique().numel() > 64       # maps are drawn all the same
