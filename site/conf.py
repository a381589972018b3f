"""Sphinx's configuration of the course as a site. `python site/build.py` is what uses it."""
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]          # the modules of this checkout, and docments

from pages import settings  # noqa: E402

project = settings()["title"]
author = settings()["author"]
project_copyright = settings()["copyright"]
version = release = settings()["version"]
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton", "sphinx.ext.githubpages", "docments"]
nitpicky = False                                      # types of other projects lead nowhere: that would take a network

nb_execution_mode = "off"                             # the committed outputs are shown
nb_merge_streams = True
nb_render_markdown_format = "myst"                    # links in a table that a cell made lead to pages, too
nb_ipywidgets_js: dict = {}                           # widgets need a kernel; no scripts from a server
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

autodoc_default_options = {"members": True, "undoc-members": True, "special-members": "__call__",
                           "member-order": "bysource"}
autodoc_mock_imports = [name for name in ("anywidget", "ipywidgets", "huggingface_hub") if find_spec(name) is None]
autodoc_typehints = "none"                            # docments lists them
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# MathJax comes from a package, as one file that asks for no other: nothing is vendored, nothing fetched by the reader.
MATHJAX = Path(str(files("sphinx-mathjax-offline"))) / "static/mathjax/tex-svg-full.js"
mathjax_path = MATHJAX.name
mathjax3_config = {"svg": {"scale": 0.95}, "tex": {"packages": {"[+]": ["textmacros"]}}}     # num\_steps in a \text

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "static/favicon.svg"
html_static_path = ["static", str(MATHJAX)]
html_css_files = ["site.css"]
html_js_files = [("excerpts.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False                                # there is the search, and the reference's own list
html_domain_indices = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": settings()["git_url"],
    "repository_branch": settings()["branch"],
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],                          # or phones get an empty bar
    "show_toc_level": 2,
    "back_to_top_button": False,
}
copybutton_exclude = ".linenos, .gp, .go"


def keep_punctuation(app: Sphinx, doctree: nodes.document) -> None:
    "A comma after a formula never begins a line."
    for formula in list(doctree.findall(nodes.math)):
        after = formula.next_node(descend=False, siblings=True)
        if not isinstance(after, nodes.Text) or after[0] not in ",.;:!?)": continue
        parent, place = formula.parent, formula.parent.index(formula)
        together = nodes.inline("", "", formula.deepcopy(), nodes.Text(after[0]), classes=["together"])
        parent[place:place + 2] = [together, nodes.Text(after[1:])]


def link_pages(app: Sphinx, doctree: nodes.document) -> None:
    "Where a page is named by its number, `19_gibbs`, its name leads there."
    for name in list(doctree.findall(nodes.literal)):
        page = name.astext()
        if page[:2].isdigit() and page in app.env.found_docs and not isinstance(name.parent, nodes.reference):
            link = addnodes.pending_xref("", name.deepcopy(), refdomain="std", reftype="doc", reftarget=f"/{page}",
                                         refdoc=app.env.current_document.docname, refexplicit=True)
            name.parent.replace(name, link)


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", keep_punctuation)
    app.connect("doctree-read", link_pages)
