"""Files are whole or not there, folders of others stay as they are, names are safe, JSON is held against a type."""
import json
import multiprocessing
import os
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from my3yearold.files import (
    LOCK,
    MARK,
    check_free,
    check_page,
    mark_of,
    only_one,
    parse_json,
    printable,
    read_json,
    safe_name,
    strangers,
    tidy,
    whole,
    whole_folder,
    write_json,
    write_page,
)


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def make(folder, text="ours", source=""):
    with whole_folder(folder, source) as partial: (partial / "filled.txt").write_text(text)


# --- single files

def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", [1])
    for error in (ValueError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")):
        with pytest.raises(type(error)), whole(tmp_path / "a.json") as partial:
            partial.write_text("half")
            raise error
    assert snapshot(tmp_path) == {Path("a.json"): b"[\n 1\n]\n"}


def test_errors_name_the_file_and_not_its_partial(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole(tmp_path / "nowhere" / "a.json"): pass
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.json")
    with pytest.raises(OSError, match="a.json") as caught, whole(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.errno == 28


def test_nothing_is_written_through_a_link(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    for name in (".index.html.partial", "settings.json", ".my3yearold.settings.abcdefgh.partial.json"):
        (tmp_path / name).symlink_to(diary)
    write_json(tmp_path / "settings.json", {})
    assert diary.read_text() == "dear diary" and not (tmp_path / "settings.json").is_symlink()


def test_permissions_are_the_usual_ones(tmp_path):
    (tmp_path / "usual").write_text("")
    write_json(tmp_path / "a.json", {})
    make(tmp_path / "folder")
    (tmp_path / "usual folder").mkdir()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "usual folder").stat().st_mode


# --- folders

@pytest.mark.parametrize("intruder", ["thesis.txt", "filled.txt", ".hidden", "folder", "link"])
def test_a_folder_with_something_of_others_in_it_stays(tmp_path, intruder):
    folder = tmp_path / "app"
    make(folder)
    if intruder == "folder": (folder / intruder).mkdir()
    elif intruder == "link": (folder / intruder).symlink_to(tmp_path / "elsewhere")
    else: (folder / intruder).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"{intruder}, which this program did not write"): make(folder, "again")
    assert snapshot(tmp_path) == before and strangers(folder) == [intruder]


def test_a_folder_that_was_looked_at_is_still_ours(tmp_path):
    make(tmp_path / "app")
    for name in (".DS_Store", "Thumbs.db"): (tmp_path / "app" / name).write_bytes(b"icons")
    make(tmp_path / "app", "again")
    assert sorted(p.name for p in (tmp_path / "app").iterdir()) == [MARK, "filled.txt"]


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"",
        b"\xff",
        b'{"made_by": "others", "kind": "result"}',
        b'{"made_by": "my3yearold", "kind": 3}',
        b"[" * 100_000,
    ],
)
def test_a_mark_is_ours_or_none(tmp_path, content):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / MARK).write_bytes(content)
    (tmp_path / "app" / "settings.json").write_text("{}")
    assert mark_of(tmp_path / "app") is None
    with pytest.raises(ValueError, match="was not made by this program"): make(tmp_path / "app")


def test_a_file_that_arrives_while_the_result_is_made_stays(tmp_path):
    make(tmp_path / "app")
    with pytest.raises(ValueError, match="got thesis.txt"):
        with whole_folder(tmp_path / "app") as partial:
            (partial / "filled.txt").write_text("new")
            (tmp_path / "app" / "thesis.txt").write_text("just saved")
    assert snapshot(tmp_path).keys() == {Path("app") / name for name in ("filled.txt", MARK, "thesis.txt")}
    assert (tmp_path / "app" / "filled.txt").read_text() == "ours"


def test_a_result_that_is_a_link_is_refused(tmp_path):
    make(tmp_path / "real")
    (tmp_path / "app").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="it is a link"): make(tmp_path / "app", "again")
    assert (tmp_path / "app").is_symlink() and (tmp_path / "real" / "filled.txt").read_text() == "ours"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app", "real"]
    check_free(tmp_path / "nothing there")


def test_tidy_touches_only_our_own_leftovers(tmp_path):
    others = [
        ".app.abcdefgh.partial",
        ".my3yearold",
        ".my3yearold.notes",
        ".partial",
        "my3yearold.app.abcdefgh.partial",
    ]
    for name in others: (tmp_path / name).write_text("mine")
    (tmp_path / ".my3yearold.x.abcdefgh.old").mkdir()
    (tmp_path / ".my3yearold.x.abcdefgh.old" / "thesis.txt").write_text("mine")
    (tmp_path / "x").mkdir()
    (tmp_path / ".my3yearold.y.abcdefgh.partial").symlink_to(tmp_path / "x")
    before = snapshot(tmp_path)
    (tmp_path / ".my3yearold.page.abcdefgh.partial.html").write_text("half")
    (tmp_path / ".my3yearold.z.abcdefgh.partial").mkdir()
    tidy(tmp_path)
    assert snapshot(tmp_path) == before and not (tmp_path / ".my3yearold.z.abcdefgh.partial").exists()


def test_tidy_finishes_at_every_step_of_a_replacement(tmp_path):
    "The three states that a kill can leave: before the first rename, between the two, after the second."
    for state in range(3):
        home = tmp_path / str(state)
        home.mkdir()
        make(home / "app", "old")
        make(home / "new", "new")
        os.replace(home / "new", home / ".my3yearold.app.abcdefgh.partial")
        if state: os.replace(home / "app", home / ".my3yearold.app.stuvwxyz.old")
        if state == 2: os.replace(home / ".my3yearold.app.abcdefgh.partial", home / "app")
        tidy(home)
        assert [p.name for p in home.iterdir()] == ["app"] and not strangers(home / "app")
        assert (home / "app" / "filled.txt").read_text() == ("new" if state == 2 else "old")


# --- pages and locks

@pytest.mark.parametrize("content", ["", "<p>mine</p>", "<!-- made by my3yearold, 0 -->\n"])
def test_a_page_of_others_is_not_written_over(tmp_path, content):
    (tmp_path / "index.html").write_text(content)
    with pytest.raises(ValueError, match="was not written by this program"):
        write_page(tmp_path / "index.html", "<p>ours</p>\n")
    assert (tmp_path / "index.html").read_text() == content
    (tmp_path / "link.html").symlink_to(tmp_path / "index.html")
    with pytest.raises(ValueError): check_page(tmp_path / "link.html")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")))
@settings(max_examples=50)
def test_a_page_of_ours_is_known_again(tmp_path_factory, text):
    page = tmp_path_factory.mktemp("page") / "index.html"
    write_page(page, text + "\n")
    write_page(page, "<p>next</p>\n")
    page.write_text(page.read_text() + "<p>mine</p>")
    with pytest.raises(ValueError): check_page(page)


def _hold(folder, ready, go):
    with only_one(folder, "writing into"):
        ready.set()
        go.wait(30)


def test_a_second_process_is_told_or_waits(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, go))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ValueError, match="another process is writing into"), only_one(tmp_path, "writing into"):
            pass
        go.set()
        with only_one(tmp_path, "writing into", wait=True): assert (tmp_path / LOCK).exists()
    finally:
        go.set()
        other.join(30)


def test_a_folder_that_was_made_in_vain_goes_again(tmp_path):
    with pytest.raises(KeyError), only_one(tmp_path / "new", "writing into"): raise KeyError
    (tmp_path / "old").mkdir()
    with only_one(tmp_path / "old", "writing into"): pass
    with only_one(tmp_path / "used", "writing into"): (tmp_path / "used" / "file").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "used"]


# --- names

@given(st.text(max_size=300))
@settings(max_examples=300)
def test_names_are_safe(tmp_path_factory, text):
    name = safe_name(text)
    assert (
        name
        and len(name.encode()) <= 101
        and not name.startswith(".")
        and not name.endswith((" ", "."))
        and Path(name).name == name
    )
    assert name.isprintable() and not set(name) & set('/\\:*?"<>|') and safe_name(name) == name
    (tmp_path_factory.getbasetemp() / "names").mkdir(exist_ok=True)
    path = tmp_path_factory.getbasetemp() / "names" / name
    path.touch()
    assert path.name in os.listdir(path.parent)


@given(st.text(string.ascii_letters + string.digits + " &-_.,'()äöüßλ漢字", min_size=1, max_size=30))
def test_ordinary_names_stay(name):
    reserved = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}
    if name == name.strip(" .") and name.lower().split(".")[0] not in reserved: assert safe_name(name) == name


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"caf\xe9"])
def test_names_that_are_not_utf_8(name):
    text = os.fsdecode(name)
    assert safe_name(text).encode() and printable(text).encode()


@given(st.text())
def test_what_is_printed_steers_no_terminal(text): assert printable(text).isprintable()


# --- JSON

class Card(msgspec.Struct):
    size: int
    names: list[str] = []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["size", "names", "x"]), inner, max_size=3)
    ),
)


@given(json_values)
@settings(max_examples=200)
def test_json_is_of_the_type_or_one_sentence(value):
    content = json.dumps(value).encode()
    try: card = parse_json(content, "card.json", Card)
    except ValueError as error: assert str(error).startswith("card.json ") and "\n" not in str(error)
    else: assert isinstance(card.size, int) and all(isinstance(name, str) for name in card.names)


@given(
    st.binary(max_size=200)
    | st.sampled_from([b"[" * 50_000, b'{"size":' * 50_000, b'{"size": 1e999}', b'{"size": NaN}', b"\xef\xbb\xbf"])
)
@settings(max_examples=200)
def test_bytes_are_one_sentence(content):
    try: parse_json(content, "card.json", Card)
    except ValueError as error: assert "card.json" in str(error) and "\n" not in str(error)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "card.json").write_bytes(b"\xef\xbb\xbf" + b'{"size": 3}')
    assert read_json(tmp_path / "card.json", Card).size == 3
