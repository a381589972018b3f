"""Files that mean harm: small ones that ask for much memory or time, and ones that ask to be run. Each is refused in
one sentence, or read as what it is, in little memory and soon."""
import bz2
import importlib.util
import io
import pickle
import signal
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import my3yearold.data as data, my3yearold.pickles as pickles
import my3yearold.sources as sources, my3yearold.tables as tables


def peak(call):
    "What the call returns or raises, and the most memory that Python held for it, in megabytes."
    tracemalloc.start()
    try:
        try: found = call()
        except (ValueError, TypeError, OSError) as error: found = error
        return found, tracemalloc.get_traced_memory()[1] / 1e6
    finally: tracemalloc.stop()


def refused(call, *parts, error=ValueError, megabytes=30, seconds=20):
    "The call raises the error in one line that holds each of the parts, in little memory and time."
    start = time.process_time()                                  # of this process, whatever else the machine does
    found, most = peak(call)
    assert isinstance(found, error) and "\n" not in str(found) and all(str(part) in str(found) for part in parts), found
    assert most < megabytes and time.process_time() - start < seconds, (most, time.process_time() - start)


# --- pickles

def text(content): return b"X" + len(content).to_bytes(4, "little") + content


LONG = text(b"x" * 99_999)
PICKLES = {                                                                # -> what the refusal says
    "5,000 tuples": (b"\x80\x02}(" + b")" + b"\x85" * 5_000 + b"]u.", "a tuple within a tuple"),
    "300,000 tuples": (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"U\x01as.", "a tuple within a tuple"),
    "300,000 lists": (b"}U\x01a" + b"]" * 300_000 + b"a" * 299_999 + b"s.", "no caption"),
    "300,000 lists, by memory": (b"}U\x01a]p1\n" + b"]h\x01ap1\n" * 300_000 + b"s.", "in two places"),
    "300,000 marks": (b"(" * 300_000 + b".", "16 deep"),
    "a list in itself": (b"}U\x01a]q\x00h\x00as.", "no caption"),
    "one long string 100,000 times": (b"}U\x01a]" + LONG + b"q\x00a" + b"h\x00a" * 100_000 + b"s.", "text"),
    "one list 100,000 times": (b"}(U\x01a](" + (b"U\xc8" + b"b" * 200) * 1000 + b"eq\x00"
                               + b"".join(text(b"%d" % i) + b"h\x00" for i in range(100_000)) + b"u.", "text"),
    "a string that is too long": (b"}U\x01a]" + text(b"x" * 100_001) + b"as.", "100,000"),
    "a string that is not there": (b"}X\xff\xff\xff\x7f.", "damaged"),
    "a number of a million digits": (b"}p" + b"9" * 1_000_000 + b"\n.", "damaged"),
    "a long integer": (b"\x8b\xff\xff\xff\x7f.", "LONG4"),
    "a function": (b"cos\nsystem\n.", "os.system"),
    "another name": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
    "what steers a terminal": (b"c\x1b[31mos\nsystem\n.", "\\x1b[31mos.system"),
    "dict as a name": (b"}})s.", "no string"),
    "marks left open": (b"}((u.", "too early"),
    "below its mark": (b"](aaa.", "fills a list"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_asks_for_too_much(kind):
    content, part = PICKLES[kind]
    refused(lambda: pickles.read_pickle(content, "some.pkl"), "some.pkl", part, megabytes=120)


def test_a_large_number_is_as_good_as_a_small_one():
    "The memo of Python's own reader is as long as its largest number: 4 GB for ten bytes."
    found, most = peak(lambda: pickles.read_pickle(b"}U\x01a]r\xff\xff\xff\xffU\x05a dogas.", "some.pkl"))
    assert found == {"a": ["a dog"]} and most < 1


@pytest.mark.parametrize("limit, value, content", [
    ("MOST_OPERATIONS", 9, b"}" * 20 + b"."), ("MOST_REMEMBERED", 3,
                                               b"}" + b"".join(b"q%c" % i for i in range(9)) + b"."),
    ("MOST_TEXT", 200, b"}U\x01a]" + b"U\x01ba" * 9 + b"s."), ("LONGEST_STRING", 3, b"}U\x04abcd]s."),
    ("DEEPEST", 2, b"(((.")])
def test_every_limit_of_a_pickle_is_kept_and_told(monkeypatch, limit, value, content):
    monkeypatch.setattr(pickles, limit, value)
    with pytest.raises(ValueError, match=rf"some.pkl .* {value}\b"): pickles.read_pickle(content, "some.pkl")


def test_the_courses_pickle_is_far_from_the_limits():
    "123,287 names of 25 letters, 616,767 captions of 53: half of what is let in, or less."
    names, captions = 123_287, 616_767
    assert 2 * (10 * names + 2 * captions) < pickles.MOST_OPERATIONS
    assert 2 * (3 * names + captions) < pickles.MOST_REMEMBERED
    assert 2 * (75 * names + 103 * captions) < pickles.MOST_TEXT


def test_half_a_character():
    "Some builds of Python 2 wrote a cat as two halves."
    assert pickles.read_pickle(b"}V\\ud83d\\udc08\n]Va \\ud83d\nas.", "some.pkl") == {"🐈": ["a ?"]}


PYTHON2 = { # written by Python 2.7.18: OrderedDict of str, unicode, one list in two places, one string in two places
    "protocol 0": b'ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS\'b_1\'\np4\na(lp5\nS\'A caf\\xc3\\xa9, '
                  b'voil\\xc3\\xa0 "quoted" and it\\\'s.\'\np6\naS\'two\\\\n "x"\'\np7\naaa'
                  b"(lp8\nS'a_2'\np9\na(lp10\nVun caf\xe9 \\U0001f408 \\u65e5\np11\naS'a "
                  b"kite'\np12\naaa(lp13\nS'c_3'\np14\nag10\naa(lp15\nS'e_4'\np16\na(lp17\naa"
                  b"(lp18\nV\xe9t\xe9\np19\na(lp20\nS'same'\np21\nag21\naaatRp22\n.",
    "protocol 1": b'ccollections\nOrderedDict\nq\x01(]q\x02(]q\x03(U\x03b_1q\x04]q\x05(U"A caf\xc3\xa9, voil\xc3\xa0 '
                  b'"quoted" and it\'s.q\x06U\ttwo\\n "x"q\x07ee]q\x08('
                  b"U\x03a_2q\t]q\n(X\x11\x00\x00\x00un caf\xc3\xa9 \xf0\x9f\x90\x88 \xe6\x97\xa5q\x0bU\x06a "
                  b"kiteq\x0cee]q\r(U\x03c_3q\x0eh\ne]q\x0f(U\x03e_4q\x10]q\x11e"
                  b"]q\x12(X\x05\x00\x00\x00\xc3\xa9t\xc3\xa9q\x13]q\x14(U\x04sameq\x15h\x15eeetRq\x16.",
    "protocol 2": b'\x80\x02ccollections\nOrderedDict\nq\x01]q\x02(]q\x03(U\x03b_1q\x04]q\x05(U"A caf\xc3\xa9, '
                  b'voil\xc3\xa0 "quoted" and it\'s.q\x06U\ttwo\\n "x"q\x07ee]q\x08('
                  b"U\x03a_2q\t]q\n(X\x11\x00\x00\x00un caf\xc3\xa9 \xf0\x9f\x90\x88 \xe6\x97\xa5q\x0bU\x06a "
                  b"kiteq\x0cee]q\r(U\x03c_3q\x0eh\ne]q\x0f(U\x03e_4q\x10]q\x11e"
                  b"]q\x12(X\x05\x00\x00\x00\xc3\xa9t\xc3\xa9q\x13]q\x14(U\x04sameq\x15h\x15eee\x85Rq\x16.",
}


@pytest.mark.parametrize("protocol", PYTHON2)
def test_python_2_itself(protocol):
    expected = {"b_1": ['A café, voilà "quoted" and it\'s.', 'two\\n "x"'], "a_2": ["un café 🐈 日", "a kite"],
                "c_3": ["un café 🐈 日", "a kite"], "e_4": [], "été": ["same"] * 2}
    found = pickles.read_pickle(PYTHON2[protocol], "some.pkl")
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_today(protocol):
    from collections import OrderedDict
    captions = {"a.jpg": ["é", "日本", "naïve café"], "b": "one string"}
    for kind in (dict, OrderedDict):
        assert pickles.read_pickle(pickle.dumps(kind(captions), protocol), "some.pkl") == {
            "a": ["é", "日本", "naïve café"],
            "b": ["one string"],
        }


# --- archives

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch): monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "cache"))


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 60)).save(file, "JPEG")
    return file.getvalue()


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content, kind=tarfile.REGTYPE):
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def pack(path, *parts):
    "A .tar.bz2 of the parts, the last of which may be packed already."
    path.write_bytes(b"".join(part if part[:3] == b"BZh" else bz2.compress(part) for part in parts))
    return path


ZEROS = bz2.compress(bytes(16_000_000)) * 125                              # 2 GB, in some 6 kB
GOOD = member("inpainting/train2014/a.jpg", jpeg())


def pax(**facts):
    def line(key, value):
        length = len(key) + len(value) + 3
        return b"%d %s=%s\n" % (length + len(str(length + 2)), key.encode(), value)
    lines = b"".join(line(k, v) for k, v in facts.items())
    return member("x", lines, tarfile.XHDTYPE)


TARS = {                                                                    # -> what the refusal says
    "a picture of 2^62 bytes": ([GOOD + header("x/train/b.jpg", 2**62)], "x/train/b.jpg in"),
    "another file of 2^62 bytes": ([GOOD + header("x/notes.txt", 2**62)], "x/notes.txt in"),
    "of an unknown kind": ([GOOD + header("x/what", 2**62, b"Z")], "x/what in"),
    "by a pax header": ([GOOD + pax(size=b"%d" % 2**62) + member("x/train/b.jpg", jpeg())], "x/train/b.jpg in"),
    "less than nothing": ([GOOD + pax(size=b"-1024") + member("x/train/b.jpg", jpeg())], "x/train/b.jpg in"),
    "a name of 2 GB": ([GOOD + header("x", 2**31, tarfile.GNUTYPE_LONGNAME), ZEROS], "headers"),
    "a pax header of 2 GB": ([GOOD + header("x", 2**31, tarfile.XHDTYPE), ZEROS], "headers"),
    "a chain of headers": ([GOOD + member("x", b"name\0", tarfile.GNUTYPE_LONGNAME) * 20_000], "headers"),
    "2 GB of one file": ([GOOD + header("x/train/b.jpg", 2**31), ZEROS], "x/train/b.jpg in"),
    "many files of 100 MB": ([GOOD + header("x/train/b.jpg", 96_000_000), ZEROS], "100 times"),
    "2 GB behind the end": ([GOOD + bytes(1024), ZEROS], "100 times"),
    "a name that steers a terminal": ([GOOD + member("x/train/\x1b[31m\nb.jpg", b"no picture")],
                                      "x/train/\\x1b[31m\\nb.jpg in"),
}


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_that_asks_for_too_much(tmp_path, kind):
    parts, part = TARS[kind]
    path = pack(tmp_path / "bad.tar.bz2", *parts)
    assert path.stat().st_size < 300_000
    refused(lambda: data.course_archive(path), path, part, megabytes=250)


def test_a_tar_of_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_MEMBERS", 5)
    path = pack(tmp_path / "many.tar.bz2", b"".join(member(f"x/train/{i}.jpg", jpeg()) for i in range(6)) + bytes(1024))
    refused(lambda: data.course_archive(path), path, "more than 5 files")


def test_what_an_honest_archive_may_do(tmp_path):
    "Flat pictures, which pack a hundredfold; long names; a header with facts about a file; a megabyte of padding."
    long = "x/train2014/" + "n" * 200 + ".jpg"
    path = tmp_path / "honest.tar.bz2"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("x/train2014/a.jpg", long, "x/train2014/é.jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(jpeg()), {"comment": "c" * 30_000}
            tar.addfile(info, io.BytesIO(jpeg()))
    flat = [member(f"x/train2014/flat-{i}.bmp", flat_bmp()) for i in range(5)]
    pack(path, b"".join(flat) + file.getvalue() + bytes(1 << 20))
    assert data.course_archive(path).names == ["a", *sorted(f"flat-{i}" for i in range(5)), "n" * 200, "é"]


def flat_bmp():
    file = io.BytesIO()
    Image.new("RGB", (600, 400), (90, 120, 60)).save(file, "BMP")
    return file.getvalue()


def coco(tmp_path, zip_path): # -> a call that reads it
    captions = tmp_path / "captions.json"
    captions.write_text('{"a": "a cat"}')
    return lambda: data.coco_captions(zip_path, captions)


def zipped(path, members, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items(): archive.writestr(name, content)
    return path


def test_a_zip_bomb(tmp_path):
    path = zipped(tmp_path / "bomb.zip", {"a.jpg": jpeg(), "b.bmp": bytes(200_000_000)})
    refused(coco(tmp_path, path), path, "100 times")


def test_a_zip_that_names_one_file_a_thousand_times(tmp_path):
    "Each entry of its table points to the same packed megabytes."
    path = zipped(tmp_path / "a.zip", {"a.jpg": b"\xff\xd8" + bytes(10_000_000)})
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    entry, end = content[start:content.index(b"PK\5\6")], bytearray(content[content.index(b"PK\5\6"):])
    end[8:12] = (1000).to_bytes(2, "little") * 2
    end[12:16] = (1000 * len(entry)).to_bytes(4, "little")
    entries = [entry.replace(b"a.jpg", b"%d.jpg" % (i % 10)) for i in range(1000)]
    path.write_bytes(content[:start] + b"".join(entries) + end)
    refused(coco(tmp_path, path), path, "100 times")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_in_a_way_that_unpacks_at_once(tmp_path, how):
    path = zipped(tmp_path / "a.zip", {"a.jpg": bytes(60_000_000)}, how)
    refused(coco(tmp_path, path), path, "a.jpg", "unusual")


def test_a_zip_that_tells_less_than_it_holds(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.jpg": bytes(100_000_000)})
    path.write_bytes(path.read_bytes().replace((100_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refused(coco(tmp_path, path), path, "a.jpg")


def test_a_zip_of_too_many_and_too_large_files(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {f"{i}.txt": b"" for i in range(6)} | {"a.jpg": jpeg()})
    monkeypatch.setattr(sources, "MOST_MEMBERS", 5)
    refused(coco(tmp_path, path), path, "more than 5 files")
    monkeypatch.setattr(sources, "MOST_MEMBERS", 50)
    monkeypatch.setattr(sources, "LARGEST_FILE", 500)
    refused(coco(tmp_path, path), path, "a.jpg in", "at most 500")


def test_every_damage_to_a_member_of_a_zip_names_the_file(tmp_path):
    "Its place, its sizes, its checksum, its way of packing, its flags: each byte of its two headers changed."
    path = zipped(tmp_path / "a.zip", {"a.jpg": jpeg()})
    whole, read = path.read_bytes(), coco(tmp_path, path)
    table = whole.index(b"PK\1\2")
    outcomes = set()
    for i in [*range(40), *range(table, table + 51)]:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xff]) + whole[i + 1:])
        try: outcomes.add(len(read()))
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error), (i, error)
            outcomes.add("refused")
    assert outcomes == {1, "refused"}


def test_a_pickle_and_a_table_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST_FILE", 1000)
    folder = tmp_path / "x" / "train2014"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg())
    (tmp_path / "x" / sources.CAPTIONS_PICKLE).write_bytes(b"}" + bytes(1000))
    refused(lambda: data.course_archive(tmp_path / "x"), sources.CAPTIONS_PICKLE, "1,001", "1,000")
    (tmp_path / "c.csv").write_text("name,caption\n" + "a,b\n" * 1000)
    refused(lambda: data.read_captions(tmp_path / "c.csv"), tmp_path / "c.csv", "1,000")


# --- whatever may be wrong: two thousand damaged files (benchmarks/fuzz.py makes as many as one likes)

def load_fuzz():
    spec = importlib.util.spec_from_file_location(
        "fuzz", Path(__file__).resolve().parent.parent / "benchmarks" / "fuzz.py"
    )
    module = sys.modules["fuzz"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzz()
CASES = -(-2000 // len(fuzz.READERS)) # of each reader


@pytest.mark.parametrize("name", list(fuzz.READERS))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_read_or_refused_in_a_line(name):
    figures, faults = fuzz.run([name], CASES, seed=0)
    assert faults == []
    counts = {outcome for outcome in figures[name] if outcome not in ("seconds", "megabytes")}
    assert (
        "read" in counts and (len(counts) > 1 or name == "caption") and sum(figures[name][o] for o in counts) == CASES
    )


def test_a_case_can_be_repeated(tmp_path):
    for name in fuzz.READERS:
        contents = []
        for k in range(2):
            folder = tmp_path / f"{name}-{k}"
            folder.mkdir()
            fuzz.write_case(name, 7, 3, folder)
            contents.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        assert contents[0] == contents[1] and contents[0], name


def raises(error):
    def read(folder): raise error
    return read


def busy(folder):
    while True: pass


FAULTS = {
    "another error": (raises(KeyError("a.txt")), "KeyError"),
    "a failed check": (raises(AssertionError()), "AssertionError"),
    "two lines": (raises(ValueError("a.txt:\nbad")), "no line"),
    "no name": (raises(TypeError("bad")), "no line"),
    "control characters": (raises(ValueError("a.txt \x1b[31m")), "no line"),
    "too long": (busy, "TooLong"),
    "too large": (lambda folder: None, "400 MB"),
    "whole and refused": (raises(ValueError("a.txt is not read")), "whole"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a case is ended by an alarm, which Windows does not have")
def test_the_harness_notices(tmp_path, monkeypatch, kind):
    read, told = FAULTS[kind]
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    monkeypatch.setattr(fuzz, "MEGABYTES", 100)
    if kind == "too large": monkeypatch.setattr(fuzz, "peak", iter((100, 500)).__next__)
    monkeypatch.setitem(fuzz.READERS, "bad", fuzz.Reader(lambda rng: {"a.txt": b"some text"}, read))
    whole = next(n for n in range(50) if fuzz.write_case("bad", 0, n, tmp_path) == (kind == "whole and refused"))
    figures, faults = fuzz.run(["bad"], 1, 0, tmp_path / "failures", whole)
    assert figures["bad"]["failure"] == len(faults) == 1 and told in faults[0]["fault"], faults
    assert (tmp_path / "failures" / f"bad-0-{whole}" / "a.txt").is_file()
