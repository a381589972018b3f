"""Reading what users bring: pictures with their colours, captions that find their pictures."""
import csv
import errno
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import unicodedata

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given as forall, settings, strategies as st
from PIL import Image, ImageCms, features

import my3yearold.data as data, my3yearold.sources as sources, my3yearold.tables as tables
import my3yearold.pictures as pictures
from my3yearold.data import coco_captions, course_archive, image_folder, read_captions, report_match
from my3yearold.arrays import CacheError, discard_partial, make_array
from my3yearold.pictures import (check_size, course_resize, from_srgb, read_picture,
                                 tile, to_srgb)

silent = pytest.mark.filterwarnings("error")


def noise(seed, width=64, height=64, mode="RGB"):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(levels.squeeze(-1) if mode == "L" else levels)


def refused(call, *parts, error=ValueError):
    "The call raises the error, in one line that holds each of the parts."
    with pytest.raises(error) as caught: call()
    message = str(caught.value)
    assert "\n" not in message and all(str(part) in message for part in parts), message


# --- numbers that are no levels yet

@pytest.mark.parametrize("values, kind, expected", [
    ([0, 128, 255], np.int32, [0, 128, 255]), ([0, 128 * 257, 65535], np.int32, [0, 128, 255]),
    ([0, 1, 1], np.int32, [0, 1, 1]), ([0, 128 * 257, 65535], np.uint16, [0, 128, 255]),
    ([0, 0.5, 1], np.float32, [0, 128, 255]), ([0, 128.4, 255], np.float32, [0, 128, 255]),
    ([0, 0, 0], np.float32, [0, 0, 0]), ([0, 1.5, 2], np.float32, [0, 2, 2])])
def test_numbers_of_every_kind_become_levels(tmp_path, values, kind, expected):
    picture = Image.fromarray(np.array([values], kind))
    picture.save(tmp_path / "p.tif")
    for source in (picture, tmp_path / "p.tif"):
        assert np.asarray(read_picture(source))[0].tolist() == [[v] * 3 for v in expected]
        assert tile(source, 1).shape == (3, 1, 1)


@pytest.mark.parametrize("values, kind",
                         [([-1, 5], np.int32), ([0, 65536], np.int32), ([0, np.nan], np.float32),
                         ([0, np.inf], np.float32), ([-0.1, 1], np.float32), ([0, 256], np.float32)])
@silent
def test_numbers_that_no_level_can_be(tmp_path, values, kind):
    Image.fromarray(np.array([values], kind)).save(tmp_path / "p.tif")
    for read in (read_picture, tile):
        refused(lambda: read(tmp_path / "p.tif"), tmp_path / "p.tif holds numbers from", "8 bits")


# --- colours

def profile(space, connection, tags, kind=b"mntr"):
    "An ICC profile of version 2."
    table, content, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        tag += bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, start + len(content), len(tag))
        content += tag
    head = struct.pack(">I4sI4s4s4s12s4s28s", start + len(content), b"", 0x02400000, kind, space, connection, b"",
                       b"acsp", b"")
    return head + fixed(.9642, 1, .8249) + bytes(48) + table + content


def fixed(*numbers): return struct.pack(f">{len(numbers)}i", *(round(65536 * x) for x in numbers))


def xyz(*numbers): return b"XYZ \0\0\0\0" + fixed(*numbers)


def power(gamma): return struct.pack(">4siIH", b"curv", 0, 1, round(256 * gamma))


AXES = {"sRGB": ((.43607, .22249, .01392), (.38515, .71687, .09708), (.14307, .06061, .71410)), # in XYZ, D50
        "Adobe": ((.60974, .31111, .01947), (.20528, .62567, .06087), (.14919, .06322, .74457)),
        "ProPhoto": ((.79767, .28804, 0), (.13519, .71188, 0), (.03135, .00009, .82491))}


def rgb(name, gamma):
    axes = {c + b"XYZ": xyz(*axis) for c, axis in zip((b"r", b"g", b"b"), AXES[name])}
    return profile(b"RGB ", b"XYZ ",
                   axes | {c + b"TRC": power(gamma) for c in (b"r", b"g", b"b")} | {b"wtpt": xyz(.9642, 1, .8249)})


def cmyk(colours):
    "By a table of its corners: {(c, m, y, k) of 0 and 1: sRGB}; those that are not given are black."
    lab = ImageCms.createProfile("LAB")
    def in_lab(colour):
        one = Image.new("RGB", (1, 1), colour)
        one = ImageCms.profileToProfile(one, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        return bytes(one.getpixel((0, 0)))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    ramp = bytes(range(256))
    nodes = b"".join(in_lab(colours.get(c, (0, 0, 0))) for c in corners)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + nodes + 3 * ramp
    return profile(b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": xyz(.9642, 1, .8249)}, b"prtr")


WIDE, GREY = rgb("Adobe", 563 / 256), profile(b"GRAY", b"XYZ ", {b"kTRC": power(1.0), b"wtpt": xyz(.9642, 1, .8249)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
INKS = cmyk({(0, 0, 0, 0): (255, 255, 255), (1, 0, 0, 0): (20, 150, 220), (0, 1, 0, 0): (220, 20, 130),
             (0, 0, 1, 0): (250, 240, 30)})


def off(one, other): return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@silent
def test_rgb_numbers_keep_their_profile(tmp_path, kind):
    options = dict(quality=100, subsampling=0) if kind == "JPEG" else dict(lossless=True) if kind == "WEBP" else {}
    noise(0).save(tmp_path / "p", kind, icc_profile=WIDE, **options)
    picture = read_picture(tmp_path / "p")
    assert picture.info == {"icc_profile": WIDE}
    with Image.open(tmp_path / "p") as plain: assert np.array_equal(picture, plain)
    picture.save(tmp_path / "again.png")
    assert read_picture(tmp_path / "again.png").info == {"icc_profile": WIDE}
    assert np.array_equal(tile(tmp_path / "p").transpose(1, 2, 0), picture) # the course's way: numbers


@pytest.mark.parametrize("mode", ["RGBA", "P"])
@silent
def test_transparent_and_palette_pictures_keep_theirs(tmp_path, mode):
    picture = noise(0).convert(mode)
    if mode == "RGBA": picture.putalpha(Image.new("L", picture.size, 128))
    picture.save(tmp_path / "p.png", icc_profile=WIDE)
    found = read_picture(tmp_path / "p.png")
    plain = read_picture(picture)
    assert found.info == {"icc_profile": WIDE} and plain.info == {} and np.array_equal(found, plain)


@silent
def test_a_picture_without_a_profile_has_none(tmp_path):
    for mode in ("RGB", "L", "CMYK", "RGBA", "1"):
        noise(0).convert(mode).save(tmp_path / "p.tif")
        assert read_picture(tmp_path / "p.tif").info == {}
        assert np.array_equal(read_picture(tmp_path / "p.tif"), noise(0).convert(mode).convert("RGB"))


@silent
def test_grey_is_converted(tmp_path):
    "Half of the light is level 188 of sRGB."
    for mode, colour in (("L", 128), ("LA", (128, 255)), ("1", 1), ("I;16", 128 * 257)):
        Image.new(mode, (4, 4), colour).save(tmp_path / "p.png", icc_profile=GREY)
        found = read_picture(tmp_path / "p.png")
        assert found.info == {} and (np.asarray(found) == (255 if mode == "1" else 188)).all()
        assert tile(tmp_path / "p.png", 4)[0, 0, 0] == (255 if mode == "1" else 128)
    Image.new("L", (4, 4), 128).save(tmp_path / "p.png", icc_profile=GREY, transparency=128)
    assert read_picture(tmp_path / "p.png").getpixel((0, 0)) == (255,) * 3             # transparent, so white


@silent
def test_inks_are_converted(tmp_path):
    for colour, expected in (((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (20, 150, 220)),
                             ((0, 255, 0, 0), (220, 20, 130)), ((0, 0, 255, 0), (250, 240, 30))):
        Image.new("CMYK", (8, 8), colour).save(tmp_path / "p.tif", icc_profile=INKS)
        found = read_picture(tmp_path / "p.tif")
        assert found.mode == "RGB" and found.info == {} and off(found, [[expected]]) <= 6
        plain = Image.new("CMYK", (1, 1), colour).convert("RGB").getpixel((0, 0))
        assert tile(tmp_path / "p.tif", 8)[:, 0, 0].tolist() == list(plain)


@silent
def test_lab_is_converted_whether_or_not_it_has_a_profile(tmp_path):
    skin = Image.new("RGB", (8, 8), (180, 120, 90))
    lab = ImageCms.profileToProfile(skin, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                    outputMode="LAB")
    for own in (None, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        lab.info = {}
        lab.save(tmp_path / "p.tif", icc_profile=own)
        assert off(read_picture(tmp_path / "p.tif"), skin) <= 3 and off(tile(tmp_path / "p.tif", 8).transpose(1, 2, 0),
                                                                        skin) <= 3


@pytest.mark.parametrize("mode, bad", [("RGB", b"no profile"), ("RGB", WIDE[:200]), ("RGB", INKS), ("RGB", GREY),
                                       ("CMYK", WIDE), ("L", INKS), ("P", GREY), ("RGB", b"\0" * 200)])
def test_a_profile_that_is_broken_or_not_the_pictures_is_left_out_with_a_warning(tmp_path, mode, bad):
    picture = noise(0).convert(mode)
    picture.save(tmp_path / "p.tif", icc_profile=bad)
    with pytest.warns(UserWarning, match=r"profile of .*p\.tif cannot be used \(.+\)") as told:
        found = read_picture(tmp_path / "p.tif")
    assert found.info == {} and np.array_equal(found, picture.convert("RGB"))
    assert len(told) == 1 and "\n" not in str(told[0].message)


def test_a_grey_picture_may_have_a_profile_of_rgb(tmp_path):
    noise(0, mode="L").save(tmp_path / "p.jpg", icc_profile=WIDE)
    found = read_picture(tmp_path / "p.jpg")
    assert found.info == {"icc_profile": WIDE} and np.array_equal(found.convert("L"), Image.open(tmp_path / "p.jpg"))


@pytest.mark.parametrize("name, gamma", [("Adobe", 563 / 256), ("ProPhoto", 1.8), ("sRGB", 1.8)])
def test_there_and_back(name, gamma):
    "What sRGB has comes back within two levels; what is on the way are the same colours, by the formula."
    wide = rgb(name, gamma)
    own = Image.fromarray(np.random.default_rng(0).integers(20, 236, (64, 64, 3), dtype=np.uint8))
    there = from_srgb(own, wide)
    back = to_srgb(there)
    assert there.info == {"icc_profile": wide} and back.info == {} and own.info == {}
    assert off(from_srgb(back, wide), there) <= 2
    light = np.asarray(own) / 255
    light = np.where(light <= .04045, light / 12.92, ((light + .055) / 1.055) ** 2.4)
    expected = (light @ np.array(AXES["sRGB"]) @ np.linalg.inv(AXES[name])).clip(0, 1) ** (1 / gamma) * 255
    assert off(there, expected.round()) <= 2


@silent
def test_nothing_to_convert_is_nothing_done():
    own = noise(0)
    assert to_srgb(own) is own and from_srgb(own, None) is own
    tagged = from_srgb(own, SRGB)
    assert tagged is not own and np.array_equal(tagged, own)
    assert tagged.info == {"icc_profile": SRGB} and to_srgb(tagged) is tagged


def test_what_cannot_be_converted():
    for call in (lambda: to_srgb("p.png"), lambda: from_srgb(None, WIDE), lambda: from_srgb(noise(0), "wide"),
                 lambda: from_srgb(noise(0), 3)):
        refused(call, error=TypeError)
    refused(lambda: to_srgb(noise(0).convert("CMYK")), "CMYK")
    for bad in (b"no profile", GREY, INKS): refused(lambda: from_srgb(noise(0), bad), "no colour profile of RGB")


# --- what is opened, and how much of it

def test_only_the_usual_kinds_are_opened(tmp_path):
    usual = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "MPO"] + (["AVIF"] if "AVIF" in pictures.FORMATS else [])
    for kind in usual:
        noise(0).save(tmp_path / "p", kind)
        assert read_picture(tmp_path / "p").size == (64, 64)
    for kind in ("PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "JPEG2000"):
        if kind == "JPEG2000" and not features.check("jpg_2000"): continue
        noise(0).save(tmp_path / "p.png", kind)
        refused(lambda: read_picture(tmp_path / "p.png"), tmp_path / "p.png", "convert it")


@pytest.mark.parametrize("content, kind", [(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
                                           (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript"), (b"%PDF-1.7\n", "PDF"),
                                           (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"), (b"<svg xmlns='x'></svg>", "SVG"),
                                           (b"8BPS\0\1" + bytes(20), "Photoshop")])
def test_other_kinds_are_named_and_start_no_program(tmp_path, monkeypatch, content, kind):
    for name in ("run", "call", "check_call", "check_output", "Popen"):
        monkeypatch.setattr(subprocess, name, lambda *a, **k: pytest.fail("a program was started"))
    (tmp_path / "p.png").write_bytes(content)
    for source in (tmp_path / "p.png", io.BytesIO(content)):
        refused(lambda: read_picture(source), kind, "convert it to JPEG or PNG")


def png(width, height):
    "A header that promises so many pixels, and none of them."
    import zlib
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height, told",
                         [(11_000, 10_000, "110 megapixels"), (13_300, 13_300, "177 megapixels"),
                         (50_000, 50_000, "2,500 megapixels"), (2**31 - 1, 2**31 - 1, "megapixels")])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_told_from_the_header(tmp_path, width, height, told):
    (tmp_path / "p.png").write_bytes(png(width, height))
    for read in (read_picture, tile):
        with pytest.raises(ValueError, match=rf"p\.png has .*{told}, and at most 100 are read; reduce or") as caught:
            read(tmp_path / "p.png")
        assert "damaged" not in str(caught.value)


def test_pillows_own_reason_is_passed_on(tmp_path, monkeypatch):
    for reason, told, untold in ((ValueError("Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"),
                                  "MAX_TEXT_CHUNK", "damaged"), (MemoryError(), "memory", "damaged"),
                                  (OSError("odd"), "odd", "pixels")):
        monkeypatch.setattr(pictures, "_upright", lambda picture: (_ for _ in ()).throw(reason))
        with pytest.raises(ValueError, match=told) as caught: read_picture(noise(0))
        assert untold not in str(caught.value)


def test_a_fault_of_the_system_is_told_with_the_files_name(tmp_path, monkeypatch):
    noise(0).save(tmp_path / "p.png")
    for number, kind in (
        (errno.EACCES, PermissionError),
        (errno.EIO, OSError),
        (errno.EINVAL, ValueError),
        (None, ValueError),
    ):

        def fail(picture): raise OSError(number, "why") if number else OSError("why")
        monkeypatch.setattr(pictures, "_upright", fail)
        refused(lambda: read_picture(tmp_path / "p.png"), tmp_path / "p.png", "why", error=kind)


def test_names_reach_a_terminal_harmless(tmp_path):
    path = tmp_path / "a\x1b[31m\nb.png"
    path.write_text("no picture")
    refused(lambda: read_picture(path), "a\\x1b[31m\\nb.png is not a picture")
    refused(lambda: read_picture(io.BytesIO(b"none"), "b\x1b[0m"), "b\\x1b[0m is not")
    refused(lambda: read_picture(tmp_path / "\x1b.png"), "\\x1b.png", error=FileNotFoundError)


# --- the resize

def enlarged_first(picture, size):
    "As it was written down first: all of it, then the centre, then the JPEG."
    scale = size / min(picture.size)
    width, height = (int(np.floor(scale * side)) + 1 for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    large, file = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), io.BytesIO()
    small = large.crop((left, top, left + size, top + size))
    small.save(file, "JPEG")
    return Image.open(file).convert("RGB")


@settings(max_examples=150)
@forall(short=st.integers(1, 90), ratio=st.floats(1, 16), size=st.integers(1, 130), tall=st.booleans(),
        seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(["RGB", "L", "RGBA"]))
def test_the_resize_is_bit_identical_on_ordinary_pictures(short, ratio, size, tall, seed, mode):
    sides = (short, int(short * ratio))
    picture = noise(seed, *(sides if tall else sides[::-1]), mode)
    assert np.array_equal(course_resize(picture, size), enlarged_first(picture, size))


@pytest.mark.parametrize("width, height", [(3, 100), (100, 3), (10, 1000), (1, 1000), (40, 700)])
def test_the_resize_of_a_long_strip_shows_the_same(width, height):
    coarse = noise(0, max(1, width // 4), max(1, height // 4)).point(lambda v: 64 + v // 2)
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(course_resize(smooth)).astype(int) - np.asarray(enlarged_first(smooth, 64)))
    assert difference.mean() < 1 and difference.max() <= 15       # roundings, which the JPEG makes larger


STRIP = """
import io, resource, sys
from PIL import Image
from my3yearold.pictures import course_resize, tile
file = io.BytesIO()
Image.new("RGB", (1, 60_000), (90, 120, 60)).save(file, "PNG")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tile(file, 64), course_resize(Image.open(file).transpose(Image.Transpose.ROTATE_90), 256)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is counted in kilobytes on Linux")
def test_a_strip_of_a_few_bytes_takes_little_memory(root):
    done = subprocess.run([sys.executable, "-c", STRIP], env={**os.environ, "PYTHONPATH": str(root)},
                          capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50


# --- arguments of the wrong type

@pytest.mark.parametrize("size, error", [("64", TypeError), (64.0, TypeError), (None, TypeError),
                                         (float("nan"), TypeError), ([64], TypeError), (0, ValueError),
                                         (-1, ValueError), (10**9, ValueError)])
def test_sizes_that_are_none(size, error):
    for call in (lambda: check_size(size), lambda: tile(noise(0), size), lambda: course_resize(noise(0), size)):
        refused(call, "size", repr(size), error=error)
    assert check_size(np.int64(7)) == 7


def test_pictures_that_are_none():
    for call in (lambda: read_picture(3), lambda: read_picture(None), lambda: read_picture(np.zeros((4, 4))),
                 lambda: tile([noise(0)]), lambda: course_resize("a.png"), lambda: course_resize(None)):
        refused(call, "a picture is", error=TypeError)
    for call in (lambda: read_picture(Image.new("RGB", (0, 4))), lambda: course_resize(Image.new("RGB", (4, 0)))):
        refused(call, "no pixels")
    refused(lambda: read_picture(io.StringIO("text")), "the picture")


# --- captions that find their pictures

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


SAID = {"cat": ["a cat, half asleep"], "dog": ["a dog"]}
TABLES = {
    "plain": "cat,a cat, half asleep\ndog,a dog\n",
    "with suffixes": "cat.jpg,a cat, half asleep\ndog.PNG,a dog\n",
    "headings": "name,caption\ncat.jpg,\"a cat, half asleep\"\ndog.jpg,a dog\n",
    "any heading of a name": "whatever,Caption\ncat.jpg,a cat, half asleep\ndog.jpg,a dog\n",
    "any heading of a caption": "File Name,what I saw\ncat.jpg,a cat, half asleep\ndog.jpg,a dog\n",
    "pandas": ",image,caption\n0,cat.jpg,\"a cat, half asleep\"\n1,dog.jpg,a dog\n",
    "pandas, read and written again": "Unnamed: 0,image,caption\n0,cat.jpg,\"a cat, half asleep\"\n1,dog.jpg,a dog\n",
    "pandas without headings": "0,cat.jpg,\"a cat, half asleep\"\n1,dog.jpg,a dog\n",
    "pandas without headings or suffixes": "1,cat,\"a cat, half asleep\"\n2,dog,a dog\n",
    "pandas, swapped": ",caption,image\n0,\"a cat, half asleep\",cat.jpg\n1,a dog,dog.jpg\n",
    "swapped": "caption,name\na cat, half asleep,cat.jpg\na dog,dog.jpg\n",
    "swapped without headings": "\"a cat, half asleep\",cat.jpg\na dog,dog.jpg\n",
    "swapped without quotation marks": "a cat, half asleep,cat.jpg\na dog,dog.jpg\n",
    "swapped, with numbers": "0,a cat, half asleep,cat.jpg\n1,a dog,dog.jpg\n",
    "Windows": "name,caption\r\nC:\\My pictures\\cat.jpg,\"a cat, half asleep\"\r\nC:\\My pictures\\dog.jpg,a dog\r\n",
    "Unix": "name,caption\n/home/me/a.b/cat.jpg,\"a cat, half asleep\"\n./dog.jpg,a dog\n",
    "another suffix": "name,caption\ncat.gif,\"a cat, half asleep\"\ndog.tiff,a dog\n",
    "other columns": "id,width,path,split,description\n7,64,cat.jpg,train,\"a cat, half "
                     "asleep\"\n9,32,dog.jpg,valid,a dog\n",
    "a class beside it": "file_name,label,text\ncat.jpg,animal,\"a cat, half asleep\"\ndog.jpg,animal,a dog\n",
    "two names": "image_id,caption,file_name\n12,\"a cat, half asleep\",cat.jpg\n15,a dog,dog.jpg\n",
    "empty lines and cells": "\nname,caption\n\ncat.jpg,\"a cat, half asleep\"\n,\ndog.jpg,a dog\n\n",
}


@pytest.mark.parametrize("names", [None, ["cat", "dog", "cow"]], ids=["unknown", "known"])
@pytest.mark.parametrize("kind", TABLES)
@silent
def test_a_table_in_any_order(tmp_path, kind, names):
    (tmp_path / "c.csv").write_text(TABLES[kind], newline="")
    assert {k: v for k, v in read_captions(tmp_path / "c.csv", names).items() if v} == SAID


@silent
def test_pictures_that_are_known_decide(tmp_path):
    path = tmp_path / "c.csv"
    for content in ("caption,name,title\nred,cat,Mia\na dog,dog,Rex\n", "red,cat\na dog,dog\n",
                    ",name,title,caption\n0,Mia,cat,red\n1,Rex,dog,a dog\n"):
        path.write_text(content)
        assert read_captions(path, ["cat", "dog", "cow"]) == {"cat": ["red"], "dog": ["a dog"]}
    path.write_text("cat.v2,red\ndog.backup,a dog\nDatei.x,x\n")
    assert read_captions(path, ["cat", "dog.backup"]) == {"cat": ["red"], "dog.backup": ["a dog"], "Datei.x": ["x"]}
    path.write_text("image,caption\ncaption,text\n")                          # a picture that is called caption
    assert read_captions(path, ["caption"]) == {"caption": ["text"]}


@silent
def test_letters_and_accents_in_two_ways(tmp_path):
    apart, together = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    (tmp_path / "captions.csv").write_text(f"{together}.jpg,a cup\n", encoding="utf-8")
    noise(0).save(tmp_path / f"{apart}.jpg")
    assert read_captions(tmp_path / "captions.csv", [apart]) == {apart: ["a cup"]}
    assert image_folder(tmp_path, 8).captions == [["a cup"]]


@silent
def test_several_captions_of_one_picture(tmp_path):
    expected = {"cat": ["a cat", "a cat, half asleep"], "dog": ["a dog"]}
    for name, content in {"rows.csv": "cat.jpg,a cat\ndog.jpg,a dog\ncat.jpg,a cat, half asleep\n",
                          "columns.csv": "name,caption_1,caption_2\ncat.jpg,a cat,a cat, half asleep\ndog.jpg,a dog,\n",
                          "c.json": '{"cat.jpg": ["a cat", "a cat, half asleep"], "x/dog.jpg": "a dog"}',
                          "rows.jsonl": '{"file_name": "cat.jpg", "text": "a cat"}\n{"file_name": "cat.jpg", "text": '
                                        '"a cat, half asleep"}\n{"file_name": "dog.jpg", "text": "a dog"}',
                          "lists.jsonl": '{"image": "cat.jpg", "captions": ["a cat", "a cat, half asleep"]}\n\n'
                                         '{"image": "dog.jpg", "captions": ["a dog"]}\n'}.items():
        (tmp_path / name).write_text(content)
        assert read_captions(tmp_path / name) == expected, name


ORDERS = st.permutations(["name", "caption", "width", "note"])
words = st.text("ab ,\"é日'", max_size=12).map(lambda s: f"x{s}x")


names_of_pictures = st.text("abé_.-0", min_size=1, max_size=6).map(lambda s: f"p{s}q")
headings = st.sampled_from([("name", "caption"), ("file_name", "text"), ("image", "Description"), None])


@settings(max_examples=60)
@forall(
    captions=st.dictionaries(names_of_pictures, words, min_size=1, max_size=5),
    columns=ORDERS,
    kept=st.integers(0, 2),
    header=headings,
    index=st.booleans(),
    folder=st.sampled_from(["", r"C:\a b" + "\\", "/x.y/"]),
    suffix=st.sampled_from(["", ".jpg", ".gif"]),
)
def test_a_table_of_any_layout_gives_back_what_was_written(tmp_path_factory, captions, columns, kept, header, index,
                                                           folder, suffix):
    columns = [c for c in columns if c in ("name", "caption") or header and c in ("width", "note")[:kept]]
    rows = [[{"name": folder + name + suffix, "caption": caption, "width": "64", "note": "no"}[c] for c in columns]
            for name, caption in captions.items()]
    if header: rows.insert(0, [dict(name=header[0], caption=header[1]).get(c, c) for c in columns])
    if index: rows = [["" if header and k == 0 else str(k - bool(header)), *row] for k, row in enumerate(rows)]
    path = tmp_path_factory.mktemp("table") / "captions.csv"
    with path.open("w", newline="", encoding="utf-8") as file: csv.writer(file).writerows(rows)
    assert read_captions(path, list(captions)) == {name: [caption] for name, caption in captions.items()}


@pytest.mark.parametrize("row", [1, 5, 19])
def test_a_stray_quotation_mark_swallows_no_rows(tmp_path, row):
    lines = ["name,caption", *(f"{i}.jpg,picture {i}" for i in range(1, 21))]
    lines[row] = f'{row}.jpg,"picture {row}'
    lines[20] = '20.jpg,"the last one"'
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    refused(lambda: read_captions(tmp_path / "c.csv"), tmp_path / "c.csv", f"row {row + 1}:", "quotation mark")
    lines[20] = "20.jpg," + "x" * 200_000                                      # a longer cell than any may be
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    refused(lambda: read_captions(tmp_path / "c.csv"), tmp_path / "c.csv", f"row {row + 1}", "quotation mark")


@pytest.mark.parametrize("name, content, parts", [
    ("c.csv", "file_name,width,height\na.jpg,64,64\n", ["no column of captions", "'width'"]),
    ("c.csv", "name,caption\na.jpg\n", ["row 2", "a.jpg"]),
    ("c.jsonl", '{"file_name": "a.jpg", "text": 3}\n', ["'a.jpg'", "list of strings"]),
    ("c.jsonl", '{"file_name": "a.jpg", "text": {"en": "a"}}\n', ["'a.jpg'", "list of strings"]),
    ("c.jsonl", '{"file_name": ["a.jpg"], "text": "a"}\n', ["row 1", "'file_name'", "no name"]),
    ("c.jsonl", '{"file_name": "a.jpg", "text": "a"}\n{"text": "b"}\n', ["row 2", "no name"]),
    ("c.jsonl", '{"file_name": "a.jpg", "text": "a"}\n[1]\n', ["row 2", "object"]),
    ("c.jsonl", '{"file_name": "a.jpg", "text": "a"}\n{"text', ["row 2", "JSON"]),
    ("c.json", '{"images": [{"id": 1}], "annotations": []}', ["file_name", "captions_*.json"]),
    ("c.json", '{"images": [], "annotations": [{"image_id": 5, "caption": "a"}]}', ["COCO", "5"]),
    ("c.json", '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": 7}]}',
     ["str", "captions_*.json"]),
    ("c.json", '{"a": "\\ud800"}', ["JSON"]), ("c.json", '{"a": ' + "[" * 100_000, ["deep"]),
    ("c.json", '{"a\\u001b[31m": 3}', ["'a\\x1b[31m'"])])
def test_what_is_wrong_with_a_table_is_said(tmp_path, name, content, parts):
    (tmp_path / name).write_text(content)
    refused(lambda: read_captions(tmp_path / name), tmp_path / name, *parts)


@pytest.mark.parametrize("name, line", [("c.csv", "a,b\n"), ("c.csv", "\n"), ("c.csv", "a,b\r\n"),
                                        ("c.jsonl", '{"name": "a", "text": "b"}\n'), ("c.jsonl", "\n"),
                                        ("p.txt", "b\n")])
def test_a_table_of_too_many_rows(tmp_path, monkeypatch, name, line):
    monkeypatch.setattr(tables, "MOST_ROWS", 10)
    noise(0).save(tmp_path / "p.png")
    read = lambda: read_captions(tmp_path / name if name != "p.txt" else tmp_path)
    (tmp_path / name).write_text(line * 21, newline="")
    refused(read, tmp_path / name, "more than 10 rows")
    (tmp_path / name).write_text(line * 10, newline="")
    read()


# --- a folder of Hugging Face's, and which file counts

@silent
def test_a_folder_of_hugging_face(tmp_path):
    for name in ("a.png", "b.png"): noise(0).save(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a one"}\n{"file_name": "b.png", "text": '
                                             '"a two", "other": {"x": [1, 2]}}\n')
    assert image_folder(tmp_path, 8).captions == [["a one"], ["a two"]]
    assert read_captions(tmp_path / "metadata.jsonl") == {"a": ["a one"], "b": ["a two"]}
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,overruled\n")
    assert image_folder(tmp_path, 8).captions == [["a one"], ["a two"]]
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "b.txt").write_text("from a text")
    assert image_folder(tmp_path, 8).captions == [["overruled"], ["from a text"]]
    (tmp_path / "captions.csv").write_text("a,mine\n")
    assert image_folder(tmp_path, 8).captions == [["mine"], ["from a text"]]


def test_metadata_without_captions_is_told_and_does_not_matter(tmp_path):
    noise(0).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "width": 64, "split": "train"}\n')
    with pytest.warns(UserWarning, match="metadata.jsonl has no column of captions") as told:
        assert image_folder(tmp_path, 8).captions == [[]]
    assert len(told) == 1
    (tmp_path / "captions.csv").write_text("file_name,width,height\na.png,64,64\n")
    with pytest.warns(UserWarning): refused(lambda: image_folder(tmp_path, 8), "captions.csv has no column of captions")


# --- what does not match is said

def test_the_report():
    captions = {"a": ["x"], "b": [], "c": ["y"], "d": ["z"]}
    with pytest.warns(UserWarning) as told: sentence = report_match(captions, ["a", "b", "e"], "some.csv")
    assert [str(w.message) for w in told] == [sentence] and "\n" not in sentence
    for part in ("no caption for 2 of the 3 pictures (b, for one)", "no picture for 2 of the 3 names with captions "
                                                                    "(c, for one)", "some.csv"):
        assert part in sentence
    with pytest.warns(UserWarning, match=r"^there is no caption for 1 of the 2 pictures \(e, for one\) in some.csv; "
                                         r"compare the names$"):
        report_match({"a": ["x"]}, ["a", "e"], "some.csv")
    with pytest.warns(UserWarning, match=r"^there is no picture for 1 of the 2 names with captions \(b\\x1b, for "
                                         r"one\) in"):
        report_match({"a": ["x"], "b\x1b": ["y"]}, ["a"], "some.csv")


@silent
def test_nothing_is_said_where_all_match_or_nobody_spoke():
    for captions, names in (({"a": ["x"], "b": ["y", "z"]}, ["b", "a"]), ({}, ["a"]), ({"a": [], "q": []}, ["a", "b"]),
                            ({}, [])):
        assert report_match(captions, names, "some.csv") == ""


@pytest.mark.parametrize("table, captions, told", [
    ("name,caption\nx.png,a one\n", [[], []], ["no caption for 2 of the 2 pictures (a,", "no picture for 1 of the 1 "
                                                                                         "names with captions (x,"]),
    ("name,caption\na.png,a one\n", [["a one"], []], ["no caption for 1 of the 2 pictures (b,"]),
    ("name,caption\na.gif,a one\nb.png,a two\nc.png,a three\n", [["a one"], ["a two"]],
     ["no picture for 1 of the 3 names with captions (c,"])])
def test_a_folder_says_what_does_not_match(tmp_path, table, captions, told):
    for name in ("a.png", "b.png"): noise(0).save(tmp_path / name)
    (tmp_path / "captions.csv").write_text(table)
    with pytest.warns(UserWarning) as warned: assert image_folder(tmp_path, 8).captions == captions
    assert len(warned) == 1 and all(part in str(warned[0].message) for part in [*told, str(tmp_path)])


def test_coco_says_what_does_not_match(tmp_path):
    for name in ("a.jpg", "b.jpg"): noise(0).save(tmp_path / name)
    file = tmp_path / "captions_val.json"
    file.write_text(json.dumps(dict(images=[dict(id=1, file_name="a.jpg"), dict(id=2, file_name="c.jpg")],
                                    annotations=[dict(image_id=i, caption="x") for i in (1, 2)])))
    with pytest.warns(UserWarning, match=r"no caption for 1 of the 2 pictures \(b, .* no picture for 1 of the 2 names "
                                         r"with captions \(c, .*captions_val"):
        coco_captions(tmp_path, file, 8)


def course(path, pictures, captions):
    "An archive of the course's form; captions: dict of str -> list of str."
    def text(t): return b"U" + bytes([len(t)]) + t.encode()
    lists = [text(name) + b"](" + b"".join(map(text, several)) + b"e" for name, several in captions.items()]
    content = b"}(" + b"".join(lists) + b"u."
    jpeg = io.BytesIO()
    noise(0).save(jpeg, "JPEG")
    with tarfile.open(path, "w:bz2") as tar:
        for name, member in [(f"x/{p}.jpg", jpeg.getvalue()) for p in pictures] + [(f"x/{sources.CAPTIONS_PICKLE}",
                                                                                    content)]:
            info = tarfile.TarInfo(name)
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member))
    return path


@silent
def test_an_archive_of_both_splits_matches(tmp_path):
    path = course(tmp_path / "c.tar.bz2", ["train/a", "train/b", "val/c"], {"a": ["x"], "b": ["y"], "c": ["z"]})
    assert course_archive(path).captions == [["x"], ["y"]] and course_archive(path, "valid").captions == [["z"]]
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out", **(dict(filter="data") if hasattr(tarfile, "data_filter") else {}))
    assert course_archive(tmp_path / "out").captions == [["x"], ["y"]]
    assert course_archive(tmp_path / "out", "valid").captions == [["z"]]


def test_an_archive_says_what_does_not_match_at_every_start(tmp_path):
    path = course(tmp_path / "c.tar.bz2", ["train/a", "train/b", "val/c"], {"a": ["x"], "c": ["z"], "d": ["?"]})
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"no caption for 1 of the 2 pictures \(b, .* no picture for 1 of the 2 "
                                             r"names with captions \(d, .*c\.tar\.bz2") as told:
            course_archive(path)
        assert len(told) == 1


# --- the cache knows its source

def test_a_source_that_looks_the_same_is_not(tmp_path):
    "Another content of the same size, with the time of change put back."
    def put(path, content):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
    one, two = (course(tmp_path / f"{caption}.tar.bz2", ["train/a"], {"a": [caption]}) for caption in "xy")
    contents = [p.read_bytes() + bytes(max(one.stat().st_size, two.stat().st_size) - p.stat().st_size)
                for p in (one, two)]
    path = tmp_path / "c.tar.bz2"
    for content, caption in zip(contents, "xy"):
        put(path, content)
        assert course_archive(path).captions == [[caption]]
    folder = tmp_path / "f" / "train"
    folder.mkdir(parents=True)
    for colour in (10, 200):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (colour,) * 3).save(file, "BMP")
        put(folder / "a.bmp", file.getvalue())
        assert course_archive(tmp_path / "f").images[0, 0, 0, 0] == colour


def test_the_content_of_an_archive_counts_where_no_time_does(tmp_path, monkeypatch):
    "A synchronised disk may set every time; then the beginning, the middle and the end are looked at."
    class Same(type(tmp_path)):
        def stat(self, **options): return os.stat_result((0o100644, 1, 1, 1, 0, 0, 1_000_000, 0, 0, 0))
    path = tmp_path / "a.tar.bz2"
    seen = set()
    for changed in (None, 0, 40_000, 500_000, 999_999):
        content = bytearray(1_000_000)
        if changed is not None: content[changed] = 1
        path.write_bytes(content)
        seen.add(sources.cache_path(Same(path), [Same(path)], "train-64"))
    assert len(seen) == 5


@silent
def test_the_cached_captions_are_read_by_their_type(tmp_path, cache):
    path = course(tmp_path / "c.tar.bz2", ["train/a"], {"a": ["x"]})
    course_archive(path)
    kept = next(cache.glob("*.json"))
    assert json.loads(kept.read_bytes()) == dict(names=["a"], captions=[["x"]], warning="")
    for wrong in (dict(names=["a"], captions=["x"]), dict(names=["a"], captions=[[3]]),
                  dict(names=[["a"]], captions=[["x"]]), dict(names="a", captions="x"), [], 3):
        kept.write_text(json.dumps(wrong))
        assert course_archive(path).captions == [["x"]] and json.loads(kept.read_bytes())["captions"] == [["x"]]


@silent
def test_names_that_are_no_text(tmp_path, cache):
    "A name in an archive may be any bytes; what is no character is escaped, so that the cache can hold it."
    jpeg, info = io.BytesIO(), tarfile.TarInfo("x/train/a\udcff\x1b[31m.jpg")
    noise(0).save(jpeg, "JPEG")
    info.size = len(jpeg.getvalue())
    with tarfile.open(tmp_path / "c.tar.bz2", "w:bz2", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(jpeg.getvalue()))
    for _ in range(2): assert course_archive(tmp_path / "c.tar.bz2").names == ["a\\udcff\x1b[31m"]
    assert list(cache.glob("*.json"))


# --- one builder at a time

def seeded(seed): return np.full((3, 8, 8), seed, np.uint8)


def test_a_second_builder_waits(tmp_path):
    path, found = tmp_path / "a.npy", []
    builder = threading.Thread(target=lambda: found.append(make_array([1, 2], seeded, (3, 8, 8), path)))
    with FileLock(f"{path}.lock"):
        builder.start()
        builder.join(0.3)
        assert builder.is_alive() and not path.exists()
    builder.join(20)
    assert np.array_equal(found[0], [seeded(1), seeded(2)]) and [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_what_another_builder_has_begun_is_not_discarded(tmp_path):
    path = tmp_path / "a.npy"
    for suffix in ("partial", "done"): (tmp_path / f"a.npy.{suffix}").write_bytes(b"x")
    with FileLock(f"{path}.lock"): discard_partial(path)
    assert {p.name for p in tmp_path.iterdir()} >= {"a.npy.partial", "a.npy.done"}
    discard_partial(path)
    assert list(tmp_path.iterdir()) == []
    discard_partial(tmp_path / "gone" / "a.npy")


def test_a_disk_without_locks_is_told_as_a_disk(tmp_path, monkeypatch):
    "What filelock raises on one, as some network disks are."
    def acquire(self, *a, **k): raise NotImplementedError("no flock here")
    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(CacheError, match="locks"): make_array([1], seeded, (3, 8, 8), tmp_path / "a.npy")


# --- wrong arguments of the loaders

@pytest.mark.parametrize("size, error", [("64", TypeError), (None, TypeError), (float("nan"), TypeError),
                                         (0, ValueError), (-3, ValueError), (10**6, ValueError)])
def test_loaders_look_at_the_size_first(tmp_path, cache, size, error):
    path = course(tmp_path / "c.tar.bz2", ["train/a"], {})
    noise(0).save(tmp_path / "a.png")
    (tmp_path / "c.json").write_text('{"a": "x"}')
    for call in (lambda: course_archive(path, size=size), lambda: image_folder(tmp_path, size),
                 lambda: coco_captions(tmp_path, tmp_path / "c.json", size), lambda: data.sample_photos(size)):
        refused(call, "size", error=error)
    assert not cache.exists()


def test_wrong_arguments(tmp_path):
    for wrong in (3, None, 2.5, ["a"]):
        for call in (read_captions, image_folder, data.list_pictures, course_archive,
                     lambda path: coco_captions(path, "c.json"), lambda path: coco_captions(tmp_path, path)):
            refused(lambda: call(wrong), error=TypeError)
    for wrong in (["train"], None, 3, "test"): refused(lambda: course_archive(tmp_path, wrong), "'train'")
    (tmp_path / "c.json").write_text('{"a": "x"}')
    refused(lambda: read_captions(tmp_path / "c.json", "cat"), "list of strings", error=TypeError)
    refused(lambda: read_captions(tmp_path / "c.json", [3]), error=TypeError)
    for wrong in ([1, 2], torch.zeros(2, 3, 4, 4), None):
        refused(lambda: data.extremes(wrong), "uint8", error=TypeError)
    for measure in (data.level_shares, data.zero_order_entropy, data.extremes):
        refused(lambda: measure(torch.zeros(0, 3, 4, 4, dtype=torch.uint8)), "no pictures")
    levels, seen = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 5, dtype=torch.bool)
    refused(lambda: data.rim_mean(levels, seen), "(1, 3, 4, 5)")
    refused(lambda: data.describe(data.CaptionedImages(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), [], [])),
            "no pictures")
    for wrong in (dict(workers=-1), dict(shape=(3, -8, 8))):
        refused(lambda: make_array(**(dict(items=[1], make=seeded, shape=(3, 8, 8)) | wrong)))
    for wrong in (dict(items=3), dict(shape="abc"), dict(workers="2")):
        refused(lambda: make_array(**(dict(items=[1], make=seeded, shape=(3, 8, 8)) | wrong)), error=TypeError)
