"""The notebooks as Sphinx is to read them: without the cells that only nbdev needs, in order, their links made good."""
import ast
import json
import re
import shutil
from configparser import ConfigParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "nbs"
DIRECTIVE = re.compile(r"^#\|\s*(\w+):?[ \t]*(.*)\n?", re.MULTILINE)
ROW = re.compile(r"^\|\s*(?:\*\*(?P<part>[^*|]+)\*\*)?\s*\|\s*\[(?P<page>\w+)\]\(\w+\.ipynb\)", re.MULTILINE)


def settings() -> dict[str, str]: # what settings.ini says
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def read(page: str) -> dict[str, Any]: # a notebook, each cell's source one string
    notebook = json.loads((NOTEBOOKS / f"{page}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]: cell["source"] = "".join(cell["source"])
    return notebook


# ---- what there is, and in which order ----

def parts() -> dict[str, list[str]]: # name -> its pages, as the table of the index has them
    "The reading order. ValueError if a notebook is not in the index's table."
    found: dict[str, list[str]] = {}
    name = ""
    for row in ROW.finditer("\n".join(cell["source"] for cell in read("index")["cells"])):
        name = row["part"] or name
        found.setdefault(name, []).append(row["page"])
    listed = {"index", *(page for pages in found.values() for page in pages)}
    if lost := sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if path.stem not in listed):
        raise ValueError(f"{lost[0]}.ipynb is not in the table of nbs/index.ipynb; give it a row there")
    experiments = sorted(f"experiments/{path.stem}" for path in (NOTEBOOKS / "experiments").glob("*.ipynb"))
    found["Experiments"] = sorted(experiments, key=lambda page: page != "experiments/index")       # it comes first
    return found


def module_of(notebook: dict[str, Any]) -> str | None: # the module it exports
    names = [words for cell in notebook["cells"] if cell["cell_type"] == "code"
             for directive, words in DIRECTIVE.findall(cell["source"]) if directive == "default_exp"]
    return names[0].strip() if names else None


def title_of(notebook: dict[str, Any]) -> str:
    prose = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return next(line for line in prose.splitlines() if line.startswith("# "))[2:]


def label(page: str) -> str: # for the list of pages: its number, and its title up to the colon
    name = page.rpartition("/")[2]
    number = f"{name[:2]} " if name[:2].isdigit() else ""
    return number + title_of(read(page)).partition(":")[0]


# ---- one page ----

def slug(heading: str) -> str: # the anchor that GitHub, and MyST, give a heading
    from myst_parser.slugs import github_slugify
    return github_slugify(heading.replace("`", ""))


def alt_of(tag: str) -> str: # <img alt="a badge" ...> -> a badge
    found = re.search(r"\balt=[\"']([^\"']*)", tag)
    return found[1] if found else "picture"


def in_place(text: str, up: str = "../") -> str: # up: the way from the page to the repository
    """Links out of nbs/ lead to the repository, links to headings to the form their anchors have here; pictures on
    other hosts become words."""
    repository = f"{settings()['git_url']}/blob/{settings()['branch']}/"
    text = re.sub(r"!\[([^]]*)\]\(https?:[^)\s]+\)", r"\1", text)
    text = re.sub(r"<img\b[^>]*\bsrc=[\"']https?:[^>]*>", lambda m: alt_of(m[0]), text)
    text = text.replace(f"]({up}", f"]({repository}")
    return re.sub(r"(\]\((?:\w+\.ipynb)?#)([^)\s]+)\)", lambda m: f"{m[1]}{slug(m[2].replace('-', ' '))})", text)


def opened(text: str) -> str:
    "What stands between <details> and </details> is Markdown too, once empty lines part it from them."
    text = re.sub(r"(?ms)^( *)(<details>\s*<summary>.*?</summary>) *\n?(?=.)", r"\1\2\n\n\1", text)
    return re.sub(r"(?<=\S) *\n? *</details>", "\n\n</details>", text)


def caption_before(text: str) -> str: # "**Figure 1.** What it shows." -> "Figure 1. What it shows."
    found = re.findall(r"^\*\*Figure.*", text, re.MULTILINE)
    return re.sub(r"[*`$]", "", found[-1]) if found else "A figure drawn by the code above it."


def prepared(page: str) -> dict[str, Any]: # the notebook as the site shows it
    notebook, cells, caption = read(page), [], ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            caption = caption_before(cell["source"])
            cell["source"] = opened(in_place(cell["source"], "../" * (1 + page.count("/"))))
        elif cell["cell_type"] == "code":
            directives = dict(DIRECTIVE.findall(cell["source"]))
            cell["source"] = DIRECTIVE.sub("", cell["source"]).strip("\n")
            if "hide" in directives or not cell["source"]: continue
            if directives.get("echo") == "false": cell["metadata"]["tags"] = ["remove-input"]
            cell["metadata"]["mystnb"] = {"image": {"alt": caption}}
        cells.append(cell)
    notebook["cells"] = cells
    notebook["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def add_text(notebook: dict[str, Any], text: str) -> None:
    number = len(notebook["cells"])
    notebook["cells"].append({"cell_type": "markdown", "id": f"site-{number}", "metadata": {}, "source": text})


def its_end(page: str, module: str | None) -> str: # the last line of a page
    source = f"{settings()['git_url']}/blob/{settings()['branch']}/nbs/{page}.ipynb"
    reference = f" · [reference of `my3yearold.{module}`](reference/{module}.rst)" if module else ""
    return f"[this page as a notebook]({source}){reference}"


# ---- all of them ----

def toctree(entries: list[str], caption: str = "") -> str:
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *entries]
    return "```{toctree}\n" + "\n".join(lines) + "\n```\n"


def module_page(module: str, page: str) -> str:
    return (f"{module}\n{'=' * len(module)}\n\n.. automodule:: my3yearold.{module}\n\n"
            f"   ``my3yearold.{module}`` is explained and tested in :doc:`/{page}`.\n")


def reference_page(modules: dict[str, str]) -> str:
    lines = ["# Reference\n", "What each module exports, from its signatures and the comments in them.\n",
             "| module | |", "|---|---|"]
    for module in modules:
        claim = ast.get_docstring(ast.parse((ROOT / "my3yearold" / f"{module}.py").read_text(encoding="utf-8")))
        lines.append(f"| [`{module}`]({module}.rst) | {(claim or '').splitlines()[0]} |")
    return "\n".join(lines) + "\n\n" + toctree(list(modules))


def write_sources(folder: Path, to_try: str | None = None) -> None: # the page `try`, Markdown, if it is made
    "Everything that Sphinx reads, written into a new folder."
    (folder / "reference").mkdir(parents=True)
    (folder / "experiments").mkdir()
    shutil.copytree(NOTEBOOKS / "images", folder / "images")
    modules: dict[str, str] = {}          # module -> its page
    index = prepared("index")
    if to_try:
        (folder / "try.md").write_text(to_try, encoding="utf-8")
        add_text(index, toctree(["try"]))
    for part, names in parts().items():
        add_text(index, toctree([f"{label(name)} <{name}>" for name in names], part))
        for name in names:
            notebook, module = prepared(name), module_of(read(name))
            add_text(notebook, its_end(name, module))
            (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
            if module: modules[module] = name
    add_text(index, toctree(["reference/index"], "The modules"))
    (folder / "index.ipynb").write_text(json.dumps(index), encoding="utf-8")
    (folder / "reference" / "index.md").write_text(reference_page(modules), encoding="utf-8")
    for module, page in modules.items():
        (folder / "reference" / f"{module}.rst").write_text(module_page(module, page), encoding="utf-8")
