"""The course as a site: built once without a warning, then read as files, and, where there is a browser, looked at in
one."""
import html
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

NEEDED = ("sphinx", "sphinx_book_theme", "myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline", "fastcore")
if missing := [name for name in NEEDED if find_spec(name) is None]:
    pytest.skip(f"building the site needs its extra: {missing[0]} is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "nbs/experiments").glob("*.ipynb"), key=lambda path: (path.stem != "index", path.stem))
NOTEBOOKS = [*sorted((ROOT / "nbs").glob("*.ipynb")), *EXPERIMENTS]
MODULES = sorted(path.stem for path in (ROOT / "my3yearold").glob("*.py") if not path.stem.startswith("_"))
BUILD = [sys.executable, str(ROOT / "site" / "build.py")]
WIDTHS = (1280, 390)


def name_of(path): return path.relative_to(ROOT / "nbs").with_suffix("").as_posix() # experiments/index


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The folder of the site, and what was said while it was made."
    out = tmp_path_factory.mktemp("site") / "made"
    done = subprocess.run([*BUILD, str(out)], cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stderr


@pytest.fixture(scope="module")
def site(built): return built[0]


# ---- as files ----

class Page(HTMLParser):
    "What a page of HTML holds: its anchors, links, what it loads, how many formulas, figures and players."
    LOADS = ("src", "href", "data", "poster", "action", "srcset")

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads, self.after = set(), [], [], None
        self.formulas = self.figures = self.players = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        classes = attributes.get("class", "").split()
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and "href" in attributes: self.links.append(attributes["href"])
        else: self.loads += [attributes[name] for name in self.LOADS if attributes.get(name)]
        if "right-next" in classes: self.after = attributes["href"]
        self.formulas += "math" in classes
        self.figures += tag == "img"
        self.players += "player" in classes


@cache
def read(path): return Page(path)


def pages_of(folder): return sorted(p for p in folder.rglob("*.html") if "_static" not in p.parts)


def is_elsewhere(link): return bool(urlsplit(link).netloc) and urlsplit(link).scheme != "data"


def dead_links(folder): # links to no file of the folder, or to no anchor in it
    for path in pages_of(folder):
        for link in [*read(path).links, *read(path).loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc: continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file(): yield f"{path.name}: {link}"
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors:
                yield f"{path.name}: {link}"


def foreign_loads(folder): # what a reader's browser would fetch from another host
    for path in pages_of(folder):
        yield from (f"{path.name}: {link}" for link in read(path).loads if is_elsewhere(link))
    for path in folder.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8"))
        yield from (f"{path.name}: {link}" for link in found)


def test_no_warning(built):
    assert "warning" not in built[1].lower(), built[1]


def test_every_page_is_there(site):
    wanted = {f"{name_of(path)}.html" for path in NOTEBOOKS} | {f"reference/{name}.html" for name in MODULES}
    assert wanted | {"reference/index.html", "search.html"} <= {p.relative_to(site).as_posix() for p in pages_of(site)}


def test_next_leads_through_the_course(site):
    "From the index through all pages in the order of its table, then through the reference."
    index = "\n".join(
        "".join(cell["source"]) for cell in json.loads((ROOT / "nbs/index.ipynb").read_text("utf-8"))["cells"]
    )
    order = [f"{name}.html" for name in re.findall(r"^\|[^|]*\| \[(\w+)\]\(\1\.ipynb\)", index, re.M)]
    order += [f"{name_of(path)}.html" for path in EXPERIMENTS]
    assert len(order) == len(NOTEBOOKS) - 1
    page, seen = "index.html", []
    while following := read(site / page).after:
        page = urljoin(page, following)
        seen.append(page)
    if (site / "try.html").is_file(): assert seen.pop(0) == "try.html"
    assert seen[:len(order) + 1] == [*order, "reference/index.html"]
    assert sorted(seen[len(order) + 1:]) == [f"reference/{name}.html" for name in MODULES]


def test_links_lead_somewhere(site):
    assert list(dead_links(site)) == []


def test_page_names_are_links(site):
    assert '<a class="reference internal" href="19_gibbs.html"><span class="doc">19_gibbs</span></a>' in (
        site / "22_strategies.html"
    ).read_text("utf-8")


def test_nothing_is_asked_of_another_host(site):
    assert list(foreign_loads(site)) == []


def test_faults_are_seen(tmp_path):
    "The two checks above find what is planted."
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="#me">4</a>'
        '<a href="https://example.org">5</a><img src="gone.png"><h1 id="top">x</h1><a href="#top">6</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="here"><script src="//example.org/x.js"></script><link href="https://example.org/x.css">'
        '<img src="data:image/png;base64,AA//AA">'
    )
    (tmp_path / "c.css").write_text(
        "@import 'https://example.org/y.css'; a { background: url(//example.org/z.png) } b { background: url(x.png) }"
    )
    assert list(dead_links(tmp_path)) == ["a.html: b.html#gone", "a.html: c.html", "a.html: #me", "a.html: gone.png"]
    assert list(foreign_loads(tmp_path)) == ["b.html: //example.org/x.js", "b.html: https://example.org/x.css",
                                             "c.css: https://example.org/y.css", "c.css: //example.org/z.png"]


def words_of(path): # the text of a page
    return html.unescape(re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8")))


def shown(path): # -> the cells of a notebook that a reader sees
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if not re.match(r"#\|\s*(hide|default_exp)\b", "".join(cell["source"]))]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: name_of(path))
def test_page_holds_what_the_notebook_holds(site, notebook):
    "Each formula, figure and player, and no line that is for nbdev."
    cells, page = shown(notebook), read(site / f"{name_of(notebook)}.html")
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", prose, flags=re.M | re.S)
    assert page.formulas == len(re.findall(r"\$\$.+?\$\$|(?<!\\)\$[^$\n]+\$", prose, re.S))
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    assert page.figures == sum(any(kind.startswith("image/") for kind in data) for data in outputs) + prose.count("![")
    assert page.players == sum("player" in "".join(data.get("text/html", "")) for data in outputs)
    assert not re.search(r"^#\|", words_of(site / f"{name_of(notebook)}.html"), re.M)


@pytest.mark.parametrize("name", MODULES)
def test_reference_has_what_the_module_exports(site, name):
    module = pytest.importorskip(f"my3yearold.{name}", exc_type=ImportError)       # some need an extra
    exported = {f"my3yearold.{name}.{one}" for one in module.__all__
                if getattr(getattr(module, one), "__module__", "") == module.__name__}
    assert exported and exported <= read(site / "reference" / f"{name}.html").anchors


def test_reference_has_the_docments(site):
    "The comment behind a parameter, and a dataclass's field with its help."
    words = {
        name: " ".join(words_of(site / "reference" / f"{name}.html").split()) for name in ("gibbs", "config", "scenes")
    }
    assert "eta (float) – share of the chain after which alpha_min is reached" in words["gibbs"]
    assert "run (str) – the run folder" in words["config"]
    assert "box (tuple) – (top, left, bottom, right), half open" in words["scenes"]


@pytest.mark.parametrize(
    "written, shown",
    [
        (
            "[![Open in Colab](https://example.org/badge.svg)](https://example.org/x)",
            "[Open in Colab](https://example.org/x)",
        ),
        (
            '<a href="https://example.org/x"><img src="https://example.org/b.svg" alt="Open"/></a>',
            '<a href="https://example.org/x">Open</a>',
        ),
        ("![a hole](images/hole.png)", "![a hole](images/hole.png)"),
        ("[licence](../LICENSE)", "[licence](https://github.com/my3yearold/my3yearold/blob/main/LICENSE)"),
        (
            "[a](#Stratified:-one-batch) [b](x.ipynb#The-end) [c](#end)",
            "[a](#stratified-one-batch) [b](x.ipynb#the-end) [c](#end)",
        ),
    ],
)
def test_links_are_made_good(written, shown):
    spec = spec_from_file_location("pages", ROOT / "site" / "pages.py")
    pages = module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert pages.in_place(written) == shown


def test_folders_of_others_are_kept(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    done = subprocess.run([*BUILD, str(tmp_path)], capture_output=True, text=True)
    assert (
        done.returncode == 1
        and done.stderr.startswith(f"site/build.py: {tmp_path} is in the way")
        and done.stderr.count("\n") == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


# ---- in a browser ----

LOOK = """() => ({
    formulas: document.querySelectorAll('.math').length,
    rendered: document.querySelectorAll('.math mjx-container > svg').length,
    failed: document.querySelectorAll('[data-mjx-error], mjx-merror').length,
    wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    cut: [...document.querySelectorAll('div.math')].filter(one => one.scrollWidth > one.clientWidth).length,
})"""


@pytest.fixture(scope="module")
def served(site, hosted):
    with hosted(site) as address: yield address


@pytest.fixture
def tab(browser, served):
    "A page of the browser; `faults` holds what its console and its requests have to complain of."
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.faults = faults = []
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on(
        "request",
        lambda request: None if request.url.startswith((served, "data:", "blob:")) else faults.append(request.url),
    )
    tab.on(
        "response",
        lambda response: faults.append(f"{response.status} {response.url}") if response.status >= 400 else None,
    )
    yield tab
    tab.close()


def faults_of(tab, address):
    "Open a page at all widths: what is wrong with it."
    del tab.faults[:]
    tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
    tab.goto(address, wait_until="load")
    tab.evaluate("() => window.MathJax?.startup?.promise")
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        found = tab.evaluate(LOOK)
        if found["wider"] > 0: tab.faults.append(f"{found['wider']} pixels wider than {width}")
        if found["cut"]: tab.faults.append(f"{found['cut']} formulas wider than the column at {width}")
    if found["rendered"] != found["formulas"] or found["failed"]: tab.faults.append(f"formulas: {found}")
    return list(tab.faults)


def test_pages_in_a_browser(site, served, tab):
    """At the width of a desktop and of a phone: no error, no request that leaves the machine, each formula drawn,
    nothing too wide, no formula that must be scrolled."""
    names = [path.relative_to(site).as_posix() for path in pages_of(site)]
    assert {name: found for name in names if (found := faults_of(tab, served + name))} == {}


def test_faults_are_seen_in_a_browser(site, served, tab):
    page = site / "planted.html"
    page.write_text(
        '<link rel="icon" href="data:,"><div class="math">$x$</div><div style="width: 600px">x</div>'
        '<div class="math" style="overflow: auto"><p style="width: 500px">x</p></div>'
        '<script src="gone.js"></script><img src="http://127.0.0.2:9/x.png">'
        '<script>console.error("planted"); gone()</script>'
    )
    try: found = faults_of(tab, served + page.name)
    finally: page.unlink()
    for words in ("404", "127.0.0.2:9", "planted", "gone is not defined", "pixels wider than 390", "formulas: ",
                  "1 formulas wider than the column at 390"):
        assert any(words in fault for fault in found), (words, found)


def test_search_finds(served, tab):
    tab.goto(f"{served}search.html?q=zoneout")
    tab.wait_for_selector("#search-results ul.search li a")
    assert any("05_qrnn.html" in link.get_attribute("href") for link in tab.query_selector_all("#search-results li a"))
    tab.wait_for_selector("#search-results p.context")
    # excerpts are of the text, not of what is around it
    assert "System Settings" not in tab.text_content("#search-results")
    assert tab.faults == []


def test_players_play(served, tab):
    tab.goto(f"{served}show.html")
    player = tab.locator(".player").first
    before = player.locator("output").text_content()
    player.get_by_text("play").click()
    tab.wait_for_function("before => document.querySelector('.player output').textContent !== before", arg=before)


def test_light_and_dark(served, tab):
    tab.emulate_media(color_scheme="light")
    tab.goto(served)
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
