"""Photographs: each source gives the same three things, each fault one sentence; nothing read is run, nothing is
half-written."""
import bz2
import csv
import importlib.util
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given as forall, settings, strategies as st
from PIL import Image

import my3yearold.data as data, my3yearold.pickles as pickles
from my3yearold.sources import CAPTIONS_PICKLE
from my3yearold.data import (
    CaptionedImages,
    coco_captions,
    course_archive,
    describe,
    extremes,
    image_folder,
    read_captions,
    rim_mean,
    sample_photos,
    zero_order_entropy,
)
from my3yearold.arrays import CHUNK, CacheError, make_array, open_array
from my3yearold.pictures import SAMPLES, course_resize, read_picture, sample_photographs

pytestmark = pytest.mark.filterwarnings("ignore:there is no ")            # most sets here have a picture too many
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def noise(seed, width=64, height=64, mode="RGB"):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(levels.squeeze(-1) if mode == "L" else levels)


def encoded(picture, suffix="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, suffix, **options)
    return file.getvalue()


def python2_pickle(captions):
    "Protocol 2, with Python 2's byte strings: OrderedDict([[name, [caption, ...]], ...])."
    def string(text): return b"U" + bytes([len(text.encode())]) + text.encode()
    def listed(items): return b"](" + b"".join(items) + b"e"
    pairs = [listed([string(name), listed(map(string, several))]) for name, several in captions.items()]
    return b"\x80\x02ccollections\nOrderedDict\n" + listed(pairs) + b"\x85R."


CAPTIONS = {"b": ["A café.", "Two cups ."], "a": ["One dog runs ."], "v": ["A kite ."], "elsewhere": ["Not here ."]}
COURSE = {  # out of the order of names, as in a real archive
    "inpainting/val2014/v.jpg": encoded(noise(4)),
    "inpainting/train2014/c.jpg": encoded(noise(3)),
    "inpainting/train2014/a.jpg": encoded(noise(1)),
    "inpainting/train2014/b.jpg": encoded(noise(2, mode="L")),
    "inpainting/train2014/._a.jpg": b"left by some system beside every file",
    f"inpainting/{CAPTIONS_PICKLE}": python2_pickle(CAPTIONS),
    "inpainting/worddict.pkl": b"never opened",
}


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def pack(path, members):
    path.write_bytes(bz2.compress(tar_bytes(members)))
    return path


def unpack(folder, members):
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "A cache folder per test."
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path): return pack(tmp_path / "inpainting.tar.bz2", COURSE)


@pytest.fixture
def decoded(monkeypatch):
    "The names of the pictures decoded since the list was last cleared."
    names, make = [], data.tile
    monkeypatch.setattr(
        data, "tile", lambda source, size=64, name=None: names.append(name or source) or make(source, size, name)
    )
    return names


def same(one, other):
    return torch.equal(one.images, other.images) and one.captions == other.captions and one.names == other.names


def refused(call, *parts, error=ValueError):
    "The call raises the error, in one line that holds each of the parts."
    with pytest.raises(error) as caught: call()
    message = str(caught.value)
    assert "\n" not in message and all(str(part) in message for part in parts), message


# --- the course archive

def test_the_archive_in_name_order_with_its_captions(archive):
    train, valid = course_archive(archive), course_archive(archive, "valid")
    assert train.names == ["a", "b", "c"] and valid.names == ["v"] and len(train) == 3
    assert train.captions == [CAPTIONS["a"], CAPTIONS["b"], []] and valid.captions == [CAPTIONS["v"]]
    assert train.images.shape == (3, 3, 64, 64) and train.images.dtype == torch.uint8
    for i, name in enumerate(train.names):
        tile = Image.open(io.BytesIO(COURSE[f"inpainting/train2014/{name}.jpg"])).convert("RGB")
        # a tile of the right size is not touched again
        assert np.array_equal(train.images[i].permute(1, 2, 0), tile)
    assert torch.equal(train.images[1, 0], train.images[1, 1]) and torch.equal(train.images[1, 0], train.images[1, 2])


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_extracted_folder_gives_the_same(archive, tmp_path, split):
    above = unpack(tmp_path / "extracted", COURSE)
    for folder in (above, above / "inpainting"):
        assert same(course_archive(folder, split), course_archive(archive, split))


def test_an_archive_without_a_pickle_has_no_captions(tmp_path):
    path = pack(
        tmp_path / "tiles.tar.bz2", {"tiles/train/0.jpg": encoded(noise(0)), "tiles/valid/0.jpg": encoded(noise(1))}
    )
    assert course_archive(path).captions == course_archive(path, "valid").captions == [[]]
    assert not torch.equal(course_archive(path).images, course_archive(path, "valid").images)


def test_another_size(archive): assert course_archive(archive, size=32).images.shape == (3, 3, 32, 32)


def test_what_is_not_there(archive, tmp_path):
    refused(lambda: course_archive(archive, "test"), "'test'", "'train'", "'valid'")
    refused(lambda: course_archive(tmp_path / "gone.tar.bz2"), tmp_path / "gone.tar.bz2", error=FileNotFoundError)
    only = pack(tmp_path / "only.tar.bz2", {"x/train/0.jpg": encoded(noise(0))})
    refused(lambda: course_archive(only, "valid"), only, "'valid'", "'val'")
    (tmp_path / "empty").mkdir()
    refused(lambda: course_archive(tmp_path / "empty"), tmp_path / "empty", "'train'")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9, -1])
def test_a_truncated_archive(archive, cache, keep):
    content = archive.read_bytes()
    archive.write_bytes(content[:int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(lambda: course_archive(archive), archive, "download it again")
    assert not cache.exists()


def test_a_damaged_archive(archive):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    refused(lambda: course_archive(archive), archive, "download it again")


def test_a_damaged_header_is_not_taken_for_the_end(archive):
    "tarfile would stop there in silence, and the set would merely look smaller."
    content = bytearray(tar_bytes(COURSE))
    content[content.index(b"inpainting/train2014/a.jpg")] ^= 255
    archive.write_bytes(bz2.compress(content))
    refused(lambda: course_archive(archive), archive, "download it again")


@pytest.mark.parametrize(
    "content",
    [
        b"no archive at all, but a page saying that the login failed\n" * 20,
        tar_bytes(COURSE),
        bz2.compress(b"no tar" * 500),
    ],
    ids=["text", "tar", "bz2"],
)
def test_another_kind_of_file(archive, content):
    archive.write_bytes(content)
    refused(lambda: course_archive(archive), archive)


@pytest.mark.parametrize(
    "content",
    [b"a text file", b"", COURSE["inpainting/train2014/a.jpg"][:900], COURSE["inpainting/train2014/a.jpg"][:20]],
    ids=["text", "empty", "half", "header"],
)
def test_a_bad_picture_in_it_is_named(tmp_path, cache, content):
    members = COURSE | {"inpainting/train2014/a.jpg": content}
    path = pack(tmp_path / "bad.tar.bz2", members)
    refused(lambda: course_archive(path), "inpainting/train2014/a.jpg in ", path, "remove it")
    assert course_archive(path, "valid").names == ["v"]                   # the other split is no worse for it
    folder = unpack(tmp_path / "bad", members)
    refused(lambda: course_archive(folder), folder / "inpainting/train2014/a.jpg", "remove it")


def test_nothing_is_ever_unpacked(tmp_path, cache):
    evil = {
        "../evil.txt": b"x",
        "../train2014/evil.jpg": encoded(noise(7)),
        str(tmp_path / "train2014/absolute.jpg"): encoded(noise(8)),
    }
    inner = tmp_path / "inner"
    inner.mkdir()
    path = pack(inner / "a.tar.bz2", COURSE | evil)
    with tarfile.open(inner / "links.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("x/train2014/link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("x/train2014/real.jpg")
        info.size = len(COURSE["inpainting/train2014/a.jpg"])
        tar.addfile(info, io.BytesIO(COURSE["inpainting/train2014/a.jpg"]))
    links = inner / "links.tar.bz2"
    links.write_bytes(bz2.compress((inner / "links.tar").read_bytes()))
    before = {p for p in tmp_path.rglob("*")}
    course_archive(path)
    assert course_archive(links).names == ["real"]                        # a link is no picture, wherever it leads
    assert {p for p in tmp_path.rglob("*") if cache not in (p, *p.parents)} == before


# --- the pickle

class Calls:
    "Pickles as a call of any function."
    def __init__(self, function, *arguments): self.function, self.arguments = function, arguments
    def __reduce__(self): return self.function, self.arguments


def ways_to_run_code(marker):
    touch = f"open({str(marker)!r}, 'w')"
    line = f"touch {marker}".encode()
    return {
        "os.system": pickle.dumps(Calls(os.system, line.decode()), protocol=2),
        "exec": pickle.dumps(Calls(exec, touch), protocol=4),
        "inside": pickle.dumps({"a": [Calls(eval, touch)]}, protocol=2),
        "python 2": b"cposix\nsystem\n(S'" + line + b"'\ntR.",
        "renamed": b"\x80\x02c__builtin__\neval\nU" + bytes([len(touch)]) + touch.encode() + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93\x8c\x01a\x85R.",
        "instance": b"(S'" + line + b"'\nios\nsystem\n.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pid\n.",
    }


@pytest.mark.parametrize("way", ways_to_run_code("x"))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, cache, way):
    marker = tmp_path / "was-run"
    path = pack(tmp_path / "evil.tar.bz2", COURSE | {f"inpainting/{CAPTIONS_PICKLE}": ways_to_run_code(marker)[way]})
    refused(lambda: course_archive(path), CAPTIONS_PICKLE, path)
    assert not marker.exists() and not cache.exists()


def test_the_malicious_pickles_would_have_run(tmp_path):
    "The test of the test: an open reader does run them."
    marker = tmp_path / "was-run"
    for way in ("os.system", "exec", "inside", "python 2", "renamed", "instance"):
        pickle.loads(ways_to_run_code(marker)[way], encoding="latin1")
        assert marker.exists(), way
        marker.unlink()


def test_the_refusal_names_what_was_asked_for():
    refused(
        lambda: pickles.read_pickle(pickle.dumps(Calls(os.getcwd), protocol=2), "some.pkl"),
        "some.pkl",
        f"{os.name}.getcwd",
        "collections.OrderedDict",
    )


def test_a_pickle_cut_short_anywhere():
    whole = python2_pickle({"a": ["é", "x"]})
    assert pickles.read_pickle(whole, "p") == {"a": ["é", "x"]}
    for end in range(len(whole)): refused(lambda: pickles.read_pickle(whole[:end], "some.pkl"), "some.pkl")


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 3}, {"a": [1]}, {"a": {"b": "c"}}, None, {"a": [b"\xff\xfe"]}], ids=repr
)
def test_a_pickle_of_something_else(content):
    refused(lambda: pickles.read_pickle(pickle.dumps(content, protocol=2), "some.pkl"), "some.pkl")


@forall(st.binary(max_size=60))
def test_any_bytes_are_captions_or_a_sentence(content):
    for start in (b"", b"\x80\x02", b"\x80\x02ccollections\nOrderedDict\n"):
        try: found = pickles.read_pickle(start + content, "some.pkl")
        except ValueError as e: assert "some.pkl" in str(e) and "\n" not in str(e)
        else: assert all(isinstance(name, str) and isinstance(captions, list) for name, captions in found.items())


@example(captions={"a": ["voilà", "Š"]})                                  # the last byte of each is a space in latin-1
@forall(
    captions=st.dictionaries(
        st.text("abcé_0", min_size=1, max_size=8),
        st.lists(st.text("abc é日🐈", max_size=20).map(str.strip).filter(bool), max_size=4),
        max_size=4,
    )
)
def test_captions_survive_python_2(captions): assert pickles.read_pickle(python2_pickle(captions), "p") == captions


def test_unicode_strings_of_python_2_are_left_alone():
    assert pickles.read_pickle(pickle.dumps({"a": ["é", "日本", "naïve café"]}, protocol=2), "p") == {
        "a": ["é", "日本", "naïve café"]
    }


# --- the cache

def test_the_second_start_decodes_nothing(archive, decoded):
    first = course_archive(archive)
    assert len(decoded) == 3
    decoded.clear()
    assert same(course_archive(archive), first) and decoded == []


def test_what_a_user_does_to_the_array_stays_in_memory(archive, decoded):
    course_archive(archive).images[:] = 0
    cached = course_archive(archive)
    kept = cached.images.clone()
    cached.images[:] = 7                                                  # in place, as an augmentation might
    assert kept.any() and torch.equal(course_archive(archive).images, kept) and len(decoded) == 3


def test_split_size_and_source_have_caches_of_their_own(archive, tmp_path, decoded):
    course_archive(archive), course_archive(archive, "valid"), course_archive(archive, size=32)
    (tmp_path / "other").mkdir()
    other = pack(tmp_path / "other" / "inpainting.tar.bz2", {"x/train/z.jpg": encoded(noise(9))})
    assert course_archive(other).names == ["z"]
    assert course_archive(archive).images.shape == (3, 3, 64, 64) and len(decoded) == 3 + 1 + 3 + 1


def test_a_changed_source_is_read_again(archive, tmp_path):
    folder = unpack(tmp_path / "extracted", COURSE)
    course_archive(archive), course_archive(folder)
    pack(archive, COURSE | {"inpainting/train2014/d.jpg": encoded(noise(5))})
    (folder / "inpainting/train2014/d.jpg").write_bytes(encoded(noise(5)))
    for source in (archive, folder): assert course_archive(source).names == ["a", "b", "c", "d"]
    (folder / f"inpainting/{CAPTIONS_PICKLE}").write_bytes(python2_pickle(CAPTIONS | {"d": ["New words ."]}))
    assert course_archive(folder).captions[3] == ["New words ."]


def poison(path, marker):
    "An array of objects: numpy would have to unpickle it."
    with path.open("wb") as file:
        np.save(file, np.array([Calls(open, str(marker), "w")], dtype=object), allow_pickle=True)


BREAKAGES = {
    "cut array": lambda npy, js: npy.write_bytes(npy.read_bytes()[:1000]),
    "empty array": lambda npy, js: npy.write_bytes(b""),
    "no array": lambda npy, js: npy.unlink(),
    "another shape": lambda npy, js: np.save(npy, np.zeros((3, 3, 32, 32), np.uint8)),
    "another type": lambda npy, js: np.save(npy, np.zeros((3, 3, 64, 64))),
    "pickled array": lambda npy, js: poison(npy, npy.parent / "was-run"),
    "no captions": lambda npy, js: js.unlink(),
    "cut captions": lambda npy, js: js.write_bytes(js.read_bytes()[:20]),
    "other captions": lambda npy, js: js.write_text("[]"),
    "too few": lambda npy, js: js.write_text(json.dumps(json.loads(js.read_text()) | {"names": ["a"]})),
    "no text": lambda npy, js: js.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_cache_is_made_again(archive, cache, decoded, breakage):
    first = course_archive(archive)
    first.images = first.images.clone()                                   # the array on the disk is about to be cut
    array = next(cache.glob("*.npy"))
    BREAKAGES[breakage](array, next(cache.glob("*.json")))
    # then the captions were broken, and no picture is decoded for them
    intact = open_array(array, first.images.shape) is not None
    decoded.clear()
    assert same(course_archive(archive), first) and len(decoded) == (0 if intact else 3)
    decoded.clear()
    assert same(course_archive(archive), first) and decoded == []
    assert not (cache / "was-run").exists()


def test_a_new_time_of_change_or_another_spelling_of_the_path(archive, decoded, monkeypatch):
    course_archive(archive)
    monkeypatch.chdir(archive.parent)
    assert len(course_archive(archive.name)) == 3 == len(decoded)         # the same file
    os.utime(archive, (1, 1))
    assert len(course_archive(archive)) == 3 and len(decoded) == 6


def test_a_full_disk_is_no_reason_to_stop(archive, cache, decoded, monkeypatch):
    def full(handle): raise OSError(28, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        with pytest.warns(UserWarning, match="No space left on device.*MY3YEAROLD_CACHE"):
            assert len(course_archive(archive)) == 3
    assert not list(cache.glob("*.npy"))                                  # what was begun is no array yet
    decoded.clear()
    assert len(course_archive(archive)) == 3 == len(decoded)
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".npy"]


@pytest.mark.parametrize("after", [0, 1])
def test_killed_while_renaming(archive, cache, decoded, monkeypatch, after):
    """Interrupted before either of the two files is in place, the cache has nothing that is taken for whole, and the
    next start ends the work."""
    replace, calls = os.replace, []
    def interrupted(*names):
        if len(calls) == after: raise KeyboardInterrupt
        calls.append(names)
        replace(*names)
    with monkeypatch.context() as m:
        m.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt): course_archive(archive)
    assert (
        not list(cache.glob("*.json")) and not list(cache.glob(".partial*")) and len(list(cache.glob("*.npy"))) == after
    )
    decoded.clear()
    assert course_archive(archive).names == ["a", "b", "c"] and decoded == []    # all three were on the disk
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".npy"]


def test_a_bad_picture_leaves_nothing_to_go_on_from(tmp_path, cache):
    path = pack(tmp_path / "bad.tar.bz2", COURSE | {"inpainting/train2014/b.jpg": b"a text"})
    refused(lambda: course_archive(path), "b.jpg")
    assert list(cache.iterdir()) == []


def test_the_cache_holds_no_pickle_and_nothing_half_written(archive, cache):
    course_archive(archive)
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".npy"]
    assert np.load(next(cache.glob("*.npy")), allow_pickle=False).dtype == np.uint8


def test_a_cache_folder_that_cannot_be_written_is_told_and_does_not_matter(archive, tmp_path, monkeypatch, decoded):
    (tmp_path / "a-file").write_text("not a folder")
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "a-file"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="MY3YEAROLD_CACHE"):
            assert course_archive(archive).names == ["a", "b", "c"]
    assert len(decoded) == 6


def test_progress_is_shown_at_the_first_start_only(archive, capsys):
    course_archive(archive)
    assert "inpainting.tar.bz2" in capsys.readouterr().err
    course_archive(archive)
    assert capsys.readouterr().err == ""


# --- pictures

def test_a_phone_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (0, 0, 20, 20))                                # the left half, which is the top once upright
    picture.save(tmp_path / "p.png", exif=exif)
    upright = read_picture(tmp_path / "p.png")
    assert (
        upright.size == (20, 40)
        and upright.getpixel((10, 5)) == (255, 255, 255)
        and upright.getpixel((10, 35)) == (0, 0, 0)
    )


@pytest.mark.parametrize(
    "mode, colour, expected",
    [
        ("RGBA", (0, 0, 0, 0), (255,) * 3),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204,) * 3),
        ("LA", (0, 0), (255,) * 3),
        ("L", 90, (90,) * 3),
        ("1", 1, (255,) * 3),
        ("P", 0, (0,) * 3),
        ("I;16", 128 * 257, (128,) * 3),
    ],
)
def test_every_mode_becomes_rgb_on_white(tmp_path, mode, colour, expected):
    Image.new(mode, (5, 4), colour).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    assert picture.mode == "RGB" and picture.size == (5, 4) and picture.getpixel((2, 2)) == expected
    # a picture in memory gets the same treatment
    assert np.array_equal(picture, read_picture(Image.open(tmp_path / "p.png")))


def test_a_palette_with_a_transparent_colour(tmp_path):
    Image.new("P", (4, 4), 0).save(tmp_path / "p.gif", transparency=0)
    assert read_picture(tmp_path / "p.gif").getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text file called .jpg",
        encoded(noise(0))[:700],
        encoded(noise(0), "PNG")[:700],
        encoded(noise(0), "BMP")[:40],
    ],
    ids=["empty", "text", "half jpeg", "half png", "header"],
)
def test_a_file_that_is_no_whole_picture(tmp_path, content):
    (tmp_path / "p.jpg").write_bytes(content)
    refused(lambda: read_picture(tmp_path / "p.jpg"), tmp_path / "p.jpg", "remove it")


@settings(max_examples=40)
@forall(seed=st.integers(0, 2**32 - 1), changed=st.integers(1, 40))
def test_a_damaged_picture_is_a_picture_or_a_sentence(tmp_path_factory, seed, changed):
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("damaged") / "x"
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        content = np.frombuffer(encoded(noise(seed, 16, 16), kind), np.uint8).copy()
        content[rng.integers(0, len(content), changed)] = rng.integers(0, 256, changed)
        path.write_bytes(content.tobytes()[:rng.integers(1, len(content) + 1)])
        try: assert read_picture(path).mode == "RGB"
        except ValueError as e: assert str(path) in str(e) and "\n" not in str(e)


def test_a_half_picture_that_is_open_already(tmp_path):
    (tmp_path / "p.jpg").write_bytes(encoded(noise(0))[:700])
    with Image.open(tmp_path / "p.jpg") as picture:
        refused(lambda: read_picture(picture), "the picture cannot be decoded")


def test_a_picture_that_is_not_there(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path): refused(lambda: read_picture(path), path, error=FileNotFoundError)


# --- the resize

@settings(max_examples=60)
@forall(width=st.integers(1, 300), height=st.integers(1, 300), size=st.integers(1, 70))
def test_the_resize_gives_the_size_asked_for(width, height, size):
    resized = course_resize(Image.new("RGB", (width, height), (50, 100, 150)), size)
    assert resized.size == (size, size) and resized.mode == "RGB"
    assert np.abs(np.asarray(resized).astype(int) - (50, 100, 150)).max() <= 3       # no border crept in


@pytest.mark.parametrize("width, height, small, corner", [
    (640, 427, (96, 65), (16, 0)),        # 64/427 * 640 = 95.9
    (427, 640, (65, 96), (0, 16)),
    (128, 128, (65, 65), (0, 0)),         # the side of 64 becomes 65, and its last row and column are lost
    (500, 375, (86, 65), (11, 0))])
def test_the_resize_by_numbers_worked_out_by_hand(width, height, small, corner):
    picture = noise(0, width, height)
    expected = picture.resize(small, Image.Resampling.LANCZOS).crop((*corner, corner[0] + 64, corner[1] + 64))
    assert np.array_equal(course_resize(picture), Image.open(io.BytesIO(encoded(expected, quality=75))))


def test_the_resize_leaves_one_colour_for_four_pixels():
    "The JPEG's 4:2:0, which makes colour cheap for a model."
    blue = np.asarray(course_resize(noise(0, 256, 256)).convert("YCbCr")).astype(int)[..., 1]
    inside, across = np.abs(blue[:, 0::2] - blue[:, 1::2]).mean(), np.abs(blue[:, 1:-1:2] - blue[:, 2::2]).mean()
    assert inside < 0.7 * across


# --- folders and captions

def test_a_folder_in_name_order_with_captions_from_three_places(tmp_path):
    for i, name in enumerate(["d.BMP", "b.jpeg", "c.webp", "a.png", "e.jpg"]): noise(i, 80, 70).save(tmp_path / name)
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no picture is called so")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "a.txt").write_text("from a text\n\n  and a second line \n")
    (tmp_path / "b.txt").write_text("overruled")
    (tmp_path / "captions.csv").write_text(
        "name,caption\nb.jpeg,overruled too\nc.webp,a cat, half asleep\nc.webp,\"a second, quoted\"\n"
    )
    (tmp_path / "captions.json").write_text(json.dumps({"b": "one string", "d.BMP": ["", "two", "three"]}))
    found = image_folder(tmp_path)
    assert (
        found.names == ["a", "b", "c", "d", "e"]
        and found.images.shape == (5, 3, 64, 64)
        and found.images.dtype == torch.uint8
    )
    assert found.captions == [
        ["from a text", "and a second line"],
        ["one string"],
        ["a cat, half asleep", "a second, quoted"],
        ["two", "three"],
        [],
    ]
    assert np.array_equal(found.images[0].permute(1, 2, 0), course_resize(noise(3, 80, 70)))
    assert image_folder(tmp_path, size=16).images.shape == (5, 3, 16, 16)


def test_a_folder_with_a_bad_picture_names_it(tmp_path):
    noise(0).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("not a picture")
    refused(lambda: image_folder(tmp_path), tmp_path / "b.jpg")


def test_folders_that_are_none(tmp_path):
    refused(lambda: image_folder(tmp_path), tmp_path, "no pictures")
    refused(lambda: image_folder(tmp_path / "gone"), tmp_path / "gone", error=FileNotFoundError)


@pytest.mark.parametrize(
    "name, content, part",
    [
        ("c.json", b"{", "JSON"),
        ("c.json", b"\xff\xfe", "JSON"),
        ("c.json", b"[]", "list of strings"),
        ("c.json", b'{"a": 3}', "'a'"),
        ("c.json", b'{"a": [1]}', "'a'"),
        ("c.json", b"[" * 100_000, "list of strings"),
        ("c.csv", b"name,caption\nalone\n", "row 2"),
        ("c.csv", b"\xff\xfe", "UTF-8"),
        ("c.txt", b"x", ".json, .jsonl or .csv"),
        (
            "c.json",
            json.dumps(
                dict(images=[{"id": 1, "file_name": "a.jpg"}], annotations=[{"image_id": 1, "bbox": []}])
            ).encode(),
            "captions_*.json",
        ),
        (
            "c.json",
            json.dumps(
                dict(images=[{"id": 1, "file_name": "a.jpg"}], annotations=[{"image_id": 2, "caption": "x"}])
            ).encode(),
            "COCO",
        ),
    ],
)
def test_files_of_captions_that_are_none(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_captions(tmp_path / name), tmp_path / name, part)


def test_captions_that_are_not_there(tmp_path):
    refused(lambda: read_captions(tmp_path / "gone.json"), tmp_path / "gone.json", error=FileNotFoundError)


def test_windows_wrote_the_captions(tmp_path):
    "A byte order mark and \\r\\n, as spreadsheets save."
    (tmp_path / "c.csv").write_bytes("\ufeffname,caption\r\na.jpg,ein Café\r\n".encode())
    (tmp_path / "c.json").write_bytes("\ufeff{\"a.b.jpg\": \"dots stay\"}".encode())
    assert read_captions(tmp_path / "c.csv") == {"a": ["ein Café"]}
    assert read_captions(tmp_path / "c.json") == {"a.b": ["dots stay"]}


@forall(
    captions=st.dictionaries(
        st.text("ab.,\"é_", min_size=1, max_size=6).map(lambda s: f"x{s}x"),
        st.text("ab ,\"é日'", max_size=15).map(lambda s: f"x{s}x"),
        max_size=4,
    )
)
def test_a_table_gives_back_what_was_written(tmp_path_factory, captions):
    path = tmp_path_factory.mktemp("table") / "captions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "caption"], *([f"{n}.jpg", c] for n, c in captions.items())])
    assert read_captions(path) == {n: [c] for n, c in captions.items()}


def test_coco(tmp_path):
    for name in ("000000000007.jpg", "000000000009.jpg"): noise(0, 90, 80).save(tmp_path / name)
    file = tmp_path / "captions_val2017.json"
    file.write_text(
        json.dumps(
            dict(
                images=[dict(id=7, file_name="000000000007.jpg"), dict(id=8, file_name="absent.jpg")],
                annotations=[
                    dict(image_id=7, caption="A cat. "),
                    dict(image_id=8, caption="x"),
                    dict(image_id=7, caption="One cat."),
                ],
            )
        )
    )
    with pytest.warns(UserWarning, match=r"no caption for 1 of the 2 pictures \(000000000009, .* no picture for 1 of "
                                         r"the 2 names .*\(absent, .*captions_val2017.json"):
        found = coco_captions(tmp_path, file, size=32)
    assert (
        found.names == ["000000000007", "000000000009"]
        and found.captions == [["A cat.", "One cat."], []]
        and found.images.shape == (2, 3, 32, 32)
    )
    file.write_text(json.dumps(dict(images=[dict(id=7, file_name="COCO_val2014_000000000007.jpg")], annotations=[])))
    refused(lambda: coco_captions(tmp_path, file), tmp_path, file)
    refused(lambda: coco_captions(tmp_path / "gone", file), tmp_path / "gone", error=FileNotFoundError)


def coco_file(path, names):
    "Two captions for each name but the last, which has none."
    path.write_text(
        json.dumps(
            dict(
                info={},
                licenses=[],
                images=[dict(id=10 + i, file_name=n) for i, n in enumerate(names)],
                annotations=[
                    dict(id=i, image_id=10 + i % (len(names) - 1), caption=f"Caption {i}.")
                    for i in range(2 * len(names) - 2)
                ],
            )
        )
    )
    return path


@pytest.mark.parametrize("year, split", [(2014, "train"), (2014, "val"), (2017, "train"), (2017, "val")])
def test_official_names_from_a_folder_and_from_a_zip(tmp_path, year, split):
    names = [f"COCO_{split}2014_{i:012d}.jpg" if year == 2014 else f"{i:012d}.jpg" for i in (9, 25, 30)]
    folder = (
        unpack(tmp_path / "pictures", {f"{split}{year}/{n}": encoded(noise(i, 90, 70)) for i, n in enumerate(names)})
        / f"{split}{year}"
    )
    with zipfile.ZipFile(tmp_path / f"{split}{year}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"__MACOSX/{split}{year}/._{names[0]}", b"left by some system")
        archive.writestr(f"{split}{year}/", b"")
        for n in reversed(names): archive.write(folder / n, f"{split}{year}/{n}")
    file = coco_file(tmp_path / f"captions_{split}{year}.json", names)
    last = Path(names[-1]).stem
    with pytest.warns(UserWarning, match=rf"no caption for 1 of the 3 pictures \({last}, for one\) in") as told:
        one, other = coco_captions(folder, file), coco_captions(tmp_path / f"{split}{year}.zip", file)
    assert len(told) == 2                                                 # no picture is missing
    assert same(one, other) and one.names == [Path(n).stem for n in names]
    assert one.captions == [["Caption 0.", "Caption 2."], ["Caption 1.", "Caption 3."], []]
    assert np.array_equal(one.images[2].permute(1, 2, 0), course_resize(Image.open(folder / names[2])))


def test_a_zip_is_never_unpacked(tmp_path, monkeypatch):
    names = ["../../evil.jpg", "/tmp/evil2.jpg", "val/good.jpg"]
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        for i, n in enumerate(names): archive.writestr(n, encoded(noise(i)))
    file = coco_file(tmp_path / "captions_val.json", ["evil.jpg", "good.jpg"])
    for method in ("extract", "extractall"):
        monkeypatch.setattr(zipfile.ZipFile, method, lambda *a, **k: pytest.fail("unpacked"))
    before = set(tmp_path.rglob("*"))
    assert coco_captions(tmp_path / "val.zip", file).names == ["evil", "evil2", "good"]
    assert set(tmp_path.rglob("*")) == before


def test_zips_that_are_none(tmp_path):
    file, path = coco_file(tmp_path / "captions_val.json", ["a.jpg", "b.jpg"]), tmp_path / "val.zip"
    refused(lambda: coco_captions(path, file), path, error=FileNotFoundError)
    path.write_bytes(b"a page saying that the login failed")
    refused(lambda: coco_captions(path, file), path, "download it again")
    with zipfile.ZipFile(path, "w") as archive:
        for i, n in enumerate("ab"): archive.writestr(f"{n}.jpg", encoded(noise(i)))
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:len(whole) // 2])
    refused(lambda: coco_captions(path, file), path, "download it again")
    # inside the first picture: the checksum sees it
    whole[400] ^= 255
    path.write_bytes(whole)
    refused(lambda: coco_captions(path, file), "a.jpg in", path)


def test_a_large_folder_keeps_its_array(tmp_path, cache, decoded, monkeypatch):
    monkeypatch.setattr(data, "LARGE", 4)
    folder = unpack(tmp_path / "many", {f"{i}.png": encoded(noise(i), "PNG") for i in range(5)})
    first = image_folder(folder)
    assert len(decoded) == 5 and [p.suffix for p in cache.iterdir()] == [".npy"]
    (folder / "3.txt").write_text("new words")  # captions are read each time
    assert (
        torch.equal(image_folder(folder).images, first.images)
        and image_folder(folder).captions[3] == ["new words"]
        and len(decoded) == 5
    )
    (folder / "3.png").write_bytes(encoded(noise(33), "PNG"))
    assert not torch.equal(image_folder(folder).images, first.images) and len(decoded) == 10
    monkeypatch.setattr(data, "LARGE", 6)
    image_folder(folder, size=32)
    assert len(list(cache.iterdir())) == 2                                # a small one is simply read


# --- one array of many

SEEDED = """
import sys, time, numpy as np
from my3yearold.arrays import make_array
def make(seed):
    time.sleep(0.002)
    return np.random.default_rng(seed).integers(0, 256, (3, 8, 8), dtype=np.uint8)
make_array(list(range(1000)), make, (3, 8, 8), sys.argv[1], workers=2)
"""


def seeded(seed): return np.random.default_rng(seed).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def test_killed_outright_and_resumed(tmp_path, root):
    "SIGKILL in the middle; the second call makes what is missing, and the array is the undisturbed one."
    path, record = tmp_path / "a.npy", tmp_path / "a.npy.done"
    program = subprocess.Popen(
        [sys.executable, "-c", SEEDED, str(path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
    )
    try:
        while program.poll() is None and not (record.exists() and record.read_bytes().count(1) >= 2 * CHUNK):
            time.sleep(0.005)
    finally: program.kill()
    assert program.wait() == -signal.SIGKILL and not path.exists(), "it was over before it could be killed"
    done, made = record.read_bytes().count(1), []
    resumed = make_array(list(range(1000)), lambda seed: made.append(seed) or seeded(seed), (3, 8, 8), path)
    assert 2 * CHUNK <= done < 1000 and len(made) == len(set(made)) == 1000 - done
    assert np.array_equal(resumed, np.stack([seeded(i) for i in range(1000)]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


@settings(max_examples=25, deadline=None)
@forall(count=st.integers(1, 3 * CHUNK), workers=st.integers(1, 4), stop=st.integers(0, 3 * CHUNK))
def test_an_array_is_the_naive_one_interrupted_or_not(tmp_path_factory, count, workers, stop):
    folder, items = tmp_path_factory.mktemp("array"), list(range(count))
    naive = np.stack([seeded(i) for i in items])
    assert np.array_equal(make_array(items, seeded, (3, 8, 8), workers=workers), naive)
    def stopped(seed):
        if seed >= stop: raise KeyboardInterrupt
        return seeded(seed)
    try: make_array(items, stopped, (3, 8, 8), folder / "a.npy", workers)
    except KeyboardInterrupt: assert not (folder / "a.npy").exists() and stop < count
    assert np.array_equal(make_array(items, seeded, (3, 8, 8), folder / "a.npy", workers), naive)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda p, r: r.write_bytes(b"\1" * 7),
        lambda p, r: r.unlink(),
        lambda p, r: p.unlink(),
        lambda p, r: p.write_bytes(p.read_bytes()[:500]),
        lambda p, r: np.save(p.open("wb"), np.zeros((200, 3, 4, 4), np.uint8)),
    ],
    ids=["record", "no record", "no rows", "cut", "shape"],
)
def test_a_record_never_speaks_of_rows_that_are_gone(tmp_path, damage):
    def stopped(seed):
        if seed >= 150: raise KeyboardInterrupt
        return seeded(seed)

    with pytest.raises(KeyboardInterrupt):
        make_array(list(range(200)), stopped, (3, 8, 8), tmp_path / "a.npy", workers=1)
    damage(tmp_path / "a.npy.partial", tmp_path / "a.npy.done")
    assert np.array_equal(
        make_array(list(range(200)), seeded, (3, 8, 8), tmp_path / "a.npy"), np.stack([seeded(i) for i in range(200)])
    )


def test_two_builders_of_one_array(tmp_path):
    "The second waits, and finds the work done."
    made, results = [], []
    def make(seed):
        made.append(seed)
        time.sleep(0.001)
        return seeded(seed)

    both = [
        threading.Thread(
            target=lambda: results.append(make_array(list(range(100)), make, (3, 8, 8), tmp_path / "a.npy", 1))
        )
        for _ in range(2)
    ]
    for thread in both: thread.start()
    for thread in both: thread.join()
    assert (
        sorted(made) == list(range(100))
        and np.array_equal(*results)
        and [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    )


def test_the_disk_is_told_from_the_pictures(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CacheError): make_array([1], seeded, (3, 8, 8), tmp_path / "file" / "a.npy")
    def gone(item): raise FileNotFoundError(2, "gone")
    with pytest.raises(FileNotFoundError): make_array([1], gone, (3, 8, 8), tmp_path / "a.npy")


def test_the_first_bad_item_is_named_whatever_the_threads_do():
    def make(seed):
        if seed in (70, 190): raise ValueError(f"item {seed}")
        return seeded(seed)
    for workers in (1, 4):
        with pytest.raises(ValueError, match="item 70"): make_array(list(range(300)), make, (3, 8, 8), workers=workers)


# --- what is in it

def test_measures_by_hand():
    levels = torch.tensor([0, 2, 3, 252, 253, 255, 100, 100], dtype=torch.uint8)
    assert extremes(levels) == 0.5 and zero_order_entropy(levels) == pytest.approx(6 / 8 * 3 + 2 / 8 * 2)
    picture = torch.full((1, 3, 6, 6), 9, dtype=torch.uint8)
    picture[:, :, 2:4, 2:4] = 200                                         # the hole, which must not be looked at
    picture[:, 1, 1, 1] = 21                                              # one corner of its rim of twelve
    picture[:, :, 0] = 90                                                 # too far away
    seen = torch.ones_like(picture, dtype=torch.bool)
    seen[:, :, 2:4, 2:4] = False
    assert rim_mean(picture, seen).tolist() == [[9, 10, 9]]


def test_a_description():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[..., 2:6, 2:6] = 40
    found = describe(
        CaptionedImages(images, [["a dog runs"], ["a cat", "a cat."], [], ["a dog"]], list("abcd")), min_count=2
    )
    assert found["pictures"] == "4 of 8x8" and found["captions"].startswith("4; pictures without: 1")
    assert "mean 2.5 words, longest 3" in found["caption length"]
    assert found["vocabulary"].startswith("3 words seen 2 times or more, of 5; 20.0% of the text")
    assert "30 levels from the set's mean, 40 from" in found["centre hole"]  # 40 - 40/4, and 40 - 0
    assert set(describe(CaptionedImages(images, [[]] * 4, list("abcd")))) == {
        "pictures",
        "captions",
        "mean colour",
        "levels",
        "centre hole",
    }


# --- the sample photographs

def test_the_sample_photographs(monkeypatch):
    pytest.importorskip("skimage", reason="the sample photographs come with the samples extra")
    for name in [m for m in sys.modules if m.partition(".")[0] == "skimage"]: monkeypatch.delitem(sys.modules, name)
    full, small = sample_photographs(), sample_photos(size=32)
    # its files are read; importing it takes longer than that
    assert "skimage" not in sys.modules
    assert len(full) == len(small) == len(SAMPLES) and small.images.shape == (6, 3, 32, 32)
    assert (
        small.names
        == [name for name, _, _ in full]
        == ["astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket"]
    )
    assert all(min(picture.size) >= 300 and picture.mode == "RGB" for _, picture, _ in full)
    assert all(len(set(captions)) == 5 for captions in small.captions)
    small.captions[0].clear()
    assert len(sample_photographs()[0][2]) == 5                           # the caller's list is the caller's


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for load in (sample_photographs, sample_photos):
        refused(load, "pip install", "my3yearold[samples]", error=ImportError)


def test_the_import_is_light(root):
    code = "import sys, my3yearold.data; assert not {'skimage', 'matplotlib', 'fastcore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})


# --- the photographs of the course, where they lie beside the checkout

@pytest.mark.skipif(
    not (SHARED / "flickr8k-inpainting.tar.bz2").is_file(), reason="needs ../shared/data/flickr8k-inpainting.tar.bz2"
)
def test_flickr8k_in_the_layout_of_the_course():
    found = course_archive(SHARED / "flickr8k-inpainting.tar.bz2", "valid")
    assert found.images.shape == (1000, 3, 64, 64) and found.names == sorted(found.names)
    assert all(len(captions) == 5 for captions in found.captions)


@pytest.mark.skipif(not (SHARED / "coco-tiles.tar.bz2").is_file(), reason="needs ../shared/data/coco-tiles.tar.bz2")
def test_the_tiles_of_the_course_have_the_figures_told_on_the_page():
    found = course_archive(SHARED / "coco-tiles.tar.bz2", "valid")
    assert found.images.shape == (800, 3, 64, 64) and found.captions == [[]] * 800
    assert zero_order_entropy(found.images) == pytest.approx(7.939, abs=0.001)
    assert extremes(found.images) == pytest.approx(0.0282, abs=0.0001)
    assert ((found.images == 0) | (found.images == 255)).double().mean().item() == pytest.approx(0.0187, abs=0.0001)


@pytest.mark.skipif(not (SHARED / "coco-sample.tar").is_file(), reason="needs ../shared/data/coco-sample.tar")
def test_official_coco(tmp_path):
    # Python 3.11.2, Debian's, does not have it yet
    careful = dict(filter="data") if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(SHARED / "coco-sample.tar") as tar: tar.extractall(tmp_path, **careful)
    found = coco_captions(tmp_path / "coco-sample/val2017", tmp_path / "coco-sample/annotations/captions_val2017.json")
    assert found.images.shape == (16, 3, 64, 64) and all(len(captions) >= 5 for captions in found.captions)
