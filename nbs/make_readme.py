"""Makes README.md from nbs/index.ipynb: `python nbs/make_readme.py`.

Runs no cell; drops hidden ones; links pictures to files."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent


def make_readme():
    "The text of README.md, and its pictures as {path from the root: bytes}."
    notebook = nbformat.read(root / "nbs/index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not re.match(r"#\|\s*hide\b", cell.source)]
    notebook.metadata["language_info"] = {"name": "python"}     # for GitHub's colours
    for cell in notebook.cells:
        if cell.cell_type == "markdown":      # links are relative: the notebook lives in nbs/, the README one floor up
            cell.source = re.sub(r"\]\((?!https?:|#|\.\./)", "](nbs/", cell.source).replace("](../", "](")
    resources = {"unique_key": "index", "output_files_dir": "nbs/images"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    text = "<!-- Made from nbs/index.ipynb by `python nbs/make_readme.py`: edit the notebook. -->\n" + text
    pictures = {path: data for path, data in resources["outputs"].items() if path in text}   # of each output one form
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", pictures


if __name__ == "__main__":
    text, pictures = make_readme()
    (root / "README.md").write_text(text, encoding="utf-8")
    for path, data in pictures.items(): (root / path).write_bytes(data)
