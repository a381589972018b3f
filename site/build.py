"""Builds the course as a site: `python site/build.py [OUT]`.

All pages with their committed outputs, in the reading order of the index, and a reference of the modules. Runs no cell
and asks no server; a warning is an error. Needs the extra: pip install -c constraints.txt -e ".[site]"

The page `try` is made where it can be: with npm, which fetches onnxruntime-web or finds it in its cache, and the extra
`export`.
"""
import argparse
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pages
import trying

NEEDED = ("sphinx", "sphinx_book_theme", "myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline", "fastcore", "torch")


def check_installed() -> None:
    for name in NEEDED:
        if find_spec(name) is None:
            raise ValueError(f"{name} is missing; install the extra: pip install -c constraints.txt -e '.[site]'")


def check_free(out: Path) -> None:
    "Only an empty folder or an earlier site is replaced."
    if out.is_dir() and not out.is_symlink() and ((out / ".buildinfo").is_file() or not any(out.iterdir())): return
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} is in the way and is no site made by Sphinx; choose another folder or move it")


def build(out: Path, graphs: Path | None, must_try: bool) -> int: # -> Sphinx's exit status: 0, or the site is not kept
    "Build the site beside `out`, then put it in its place. `graphs` and `must_try` are about the page `try`."
    from sphinx.cmd.build import main as sphinx_build
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (tempfile.TemporaryDirectory(prefix="site-") as place,
          tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside):
        sources, new, to_try = Path(place) / "pages", Path(beside) / "new", Path(place) / "try"
        try: trying.assemble(to_try, graphs)
        except trying.Missing as missing:
            if must_try: raise ValueError(f"the page try cannot be made: {missing}") from None
            print(f"without the page try: {missing}")
        pages.write_sources(sources, trying.page() if to_try.is_dir() else None)
        status = sphinx_build(["-b", "html", "-W", "--keep-going", "-q", "-c", str(Path(__file__).parent),
                               "-d", str(Path(place) / "doctrees"), str(sources), str(new)])
        if status: return status
        if to_try.is_dir(): shutil.copytree(to_try, new / "try")
        if out.exists(): shutil.move(out, Path(beside) / "old")
        shutil.move(new, out)
    return 0


def main(arguments: list[str] | None = None) -> int: # -> exit status
    parser = argparse.ArgumentParser(prog="site/build.py", description="Build the course as a site, without network.")
    parser.add_argument("out", nargs="?", default=pages.ROOT / "_site", type=Path, metavar="OUT",
                        help="the folder to make; an earlier site there is replaced (default: _site)")
    parser.add_argument("--graphs", type=Path, metavar="FOLDER",
                        help="of the page try: weights that `my3yearold export` wrote, each in a folder of its name "
                             "(default: export them, which takes a minute)")
    parser.add_argument("--must-try", action="store_true", help="fail where the page try cannot be made")
    given = parser.parse_args(arguments)
    out = given.out
    try:
        check_installed()
        status = build(out, given.graphs, given.must_try)
    except (ValueError, OSError) as error: parser.exit(1, f"{parser.prog}: {error}\n")
    if status: parser.exit(status, f"{parser.prog}: for what is said above, {out} was left as it was\n")
    print(out / "index.html")
    return 0


if __name__ == "__main__": sys.exit(main())
