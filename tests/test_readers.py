"""Reading what users bring: pictures with their colours, captions that find their pictures."""
import io
import os
import resource
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as forall, settings, strategies as st
from PIL import Image, ImageCms, features

import my3yearold.pictures as pictures
from my3yearold.pictures import check_size, course_resize, from_srgb, make_array, read_picture, tile, to_srgb

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
    ([0, 128, 255], np.int32, [0, 128, 255]), ([0, 128 * 257, 65535], np.int32, [0, 128, 255]), ([0, 1, 1], np.int32, [0, 1, 1]), ([0, 128 * 257, 65535], np.uint16, [0, 128, 255]),
    ([0, 0.5, 1], np.float32, [0, 128, 255]), ([0, 128.4, 255], np.float32, [0, 128, 255]), ([0, 0, 0], np.float32, [0, 0, 0]), ([0, 1.5, 2], np.float32, [0, 2, 2])])
def test_numbers_of_every_kind_become_levels(tmp_path, values, kind, expected):
    picture = Image.fromarray(np.array([values], kind))
    picture.save(tmp_path / "p.tif")
    for source in (picture, tmp_path / "p.tif"):
        assert np.asarray(read_picture(source))[0].tolist() == [[v] * 3 for v in expected]
        assert tile(source, 1).shape == (3, 1, 1)


@pytest.mark.parametrize("values, kind", [([-1, 5], np.int32), ([0, 65536], np.int32), ([0, np.nan], np.float32), ([0, np.inf], np.float32), ([-0.1, 1], np.float32), ([0, 256], np.float32)])
@silent
def test_numbers_that_no_level_can_be(tmp_path, values, kind):
    Image.fromarray(np.array([values], kind)).save(tmp_path / "p.tif")
    for read in (read_picture, tile): refused(lambda: read(tmp_path / "p.tif"), tmp_path / "p.tif holds numbers from", "8 bits")


# --- colours

def profile(space, connection, tags, kind=b"mntr"):
    "An ICC profile of version 2."
    table, content, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        tag += bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, start + len(content), len(tag))
        content += tag
    head = struct.pack(">I4sI4s4s4s12s4s28s", start + len(content), b"", 0x02400000, kind, space, connection, b"", b"acsp", b"")
    return head + fixed(.9642, 1, .8249) + bytes(48) + table + content


def fixed(*numbers): return struct.pack(f">{len(numbers)}i", *(round(65536 * x) for x in numbers))


def xyz(*numbers): return b"XYZ \0\0\0\0" + fixed(*numbers)


def power(gamma): return struct.pack(">4siIH", b"curv", 0, 1, round(256 * gamma))


AXES = {"sRGB": ((.43607, .22249, .01392), (.38515, .71687, .09708), (.14307, .06061, .71410)),      # red, green, blue in XYZ under D50
        "Adobe": ((.60974, .31111, .01947), (.20528, .62567, .06087), (.14919, .06322, .74457)),
        "ProPhoto": ((.79767, .28804, 0), (.13519, .71188, 0), (.03135, .00009, .82491))}


def rgb(name, gamma):
    axes = {c + b"XYZ": xyz(*axis) for c, axis in zip((b"r", b"g", b"b"), AXES[name])}
    return profile(b"RGB ", b"XYZ ", axes | {c + b"TRC": power(gamma) for c in (b"r", b"g", b"b")} | {b"wtpt": xyz(.9642, 1, .8249)})


def cmyk(colours):
    "By a table of its corners: {(c, m, y, k) of 0 and 1: sRGB}; those that are not given are black."
    lab = ImageCms.createProfile("LAB")
    def in_lab(colour):
        one = Image.new("RGB", (1, 1), colour)
        return bytes(ImageCms.profileToProfile(one, ImageCms.createProfile("sRGB"), lab, outputMode="LAB").getpixel((0, 0)))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + b"".join(in_lab(colours.get(c, (0, 0, 0))) for c in corners) + 3 * ramp
    return profile(b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": xyz(.9642, 1, .8249)}, b"prtr")


WIDE, GREY = rgb("Adobe", 563 / 256), profile(b"GRAY", b"XYZ ", {b"kTRC": power(1.0), b"wtpt": xyz(.9642, 1, .8249)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
INKS = cmyk({(0, 0, 0, 0): (255, 255, 255), (1, 0, 0, 0): (20, 150, 220), (0, 1, 0, 0): (220, 20, 130), (0, 0, 1, 0): (250, 240, 30)})


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
    assert np.array_equal(tile(tmp_path / "p").transpose(1, 2, 0), picture)          # the course's way: numbers as they are


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
    for colour, expected in (((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (20, 150, 220)), ((0, 255, 0, 0), (220, 20, 130)), ((0, 0, 255, 0), (250, 240, 30))):
        Image.new("CMYK", (8, 8), colour).save(tmp_path / "p.tif", icc_profile=INKS)
        found = read_picture(tmp_path / "p.tif")
        assert found.mode == "RGB" and found.info == {} and off(found, [[expected]]) <= 6
        assert tile(tmp_path / "p.tif", 8)[:, 0, 0].tolist() == list(Image.new("CMYK", (1, 1), colour).convert("RGB").getpixel((0, 0)))


@silent
def test_lab_is_converted_whether_or_not_it_has_a_profile(tmp_path):
    skin = Image.new("RGB", (8, 8), (180, 120, 90))
    lab = ImageCms.profileToProfile(skin, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    for own in (None, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        lab.info = {}
        lab.save(tmp_path / "p.tif", icc_profile=own)
        assert off(read_picture(tmp_path / "p.tif"), skin) <= 3 and off(tile(tmp_path / "p.tif", 8).transpose(1, 2, 0), skin) <= 3


@pytest.mark.parametrize("mode, bad", [("RGB", b"no profile"), ("RGB", WIDE[:200]), ("RGB", INKS), ("RGB", GREY), ("CMYK", WIDE), ("L", INKS), ("P", GREY), ("RGB", b"\0" * 200)])
def test_a_profile_that_is_broken_or_not_the_pictures_is_left_out_with_a_warning(tmp_path, mode, bad):
    picture = noise(0).convert(mode)
    picture.save(tmp_path / "p.tif", icc_profile=bad)
    with pytest.warns(UserWarning, match=r"profile of .*p\.tif cannot be used \(.+\)") as told: found = read_picture(tmp_path / "p.tif")
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
    assert tagged is not own and np.array_equal(tagged, own) and tagged.info == {"icc_profile": SRGB} and to_srgb(tagged) is tagged


def test_what_cannot_be_converted():
    for call in (lambda: to_srgb("p.png"), lambda: from_srgb(None, WIDE), lambda: from_srgb(noise(0), "wide"), lambda: from_srgb(noise(0), 3)): refused(call, error=TypeError)
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


@pytest.mark.parametrize("content, kind", [(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"), (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript"), (b"%PDF-1.7\n", "PDF"),
                                           (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"), (b"<svg xmlns='x'></svg>", "SVG"), (b"8BPS\0\1" + bytes(20), "Photoshop")])
def test_other_kinds_are_named_and_start_no_program(tmp_path, monkeypatch, content, kind):
    for name in ("run", "call", "check_call", "check_output", "Popen"): monkeypatch.setattr(subprocess, name, lambda *a, **k: pytest.fail("a program was started"))
    (tmp_path / "p.png").write_bytes(content)
    for source in (tmp_path / "p.png", io.BytesIO(content)): refused(lambda: read_picture(source), kind, "convert it to JPEG or PNG")


def png(width, height):
    "A header that promises so many pixels, and none of them."
    import zlib
    def chunk(name, content): return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height, told", [(11_000, 10_000, "110 megapixels"), (13_300, 13_300, "177 megapixels"), (50_000, 50_000, "2,500 megapixels"), (2**31 - 1, 2**31 - 1, "megapixels")])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_told_from_the_header(tmp_path, width, height, told):
    (tmp_path / "p.png").write_bytes(png(width, height))
    for read in (read_picture, tile):
        with pytest.raises(ValueError, match=rf"p\.png has .*{told}, and at most 100 are read; reduce or crop it") as caught: read(tmp_path / "p.png")
        assert "damaged" not in str(caught.value)


def test_pillows_own_reason_is_passed_on(tmp_path, monkeypatch):
    for reason, told, untold in ((ValueError("Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"), "MAX_TEXT_CHUNK", "damaged"), (MemoryError(), "memory", "damaged"), (OSError("odd"), "odd", "pixels")):
        monkeypatch.setattr(pictures, "_upright", lambda picture: (_ for _ in ()).throw(reason))
        with pytest.raises(ValueError, match=told) as caught: read_picture(noise(0))
        assert untold not in str(caught.value)


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
    small, file = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).crop((left, top, left + size, top + size)), io.BytesIO()
    small.save(file, "JPEG")
    return Image.open(file).convert("RGB")


@settings(max_examples=150)
@forall(short=st.integers(1, 90), ratio=st.floats(1, 16), size=st.integers(1, 130), tall=st.booleans(), seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(["RGB", "L", "RGBA"]))
def test_the_resize_is_bit_identical_on_ordinary_pictures(short, ratio, size, tall, seed, mode):
    sides = (short, int(short * ratio))
    picture = noise(seed, *(sides if tall else sides[::-1]), mode)
    assert np.array_equal(course_resize(picture, size), enlarged_first(picture, size))


@pytest.mark.parametrize("width, height", [(3, 100), (100, 3), (10, 1000), (1, 1000), (40, 700)])
def test_the_resize_of_a_long_strip_shows_the_same(width, height):
    smooth = noise(0, max(1, width // 4), max(1, height // 4)).point(lambda v: 64 + v // 2).resize((width, height), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(course_resize(smooth)).astype(int) - np.asarray(enlarged_first(smooth, 64)))
    assert difference.mean() < 1 and difference.max() <= 15                          # roundings, which the JPEG makes larger


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
    done = subprocess.run([sys.executable, "-c", STRIP], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50


# --- arguments of the wrong type

@pytest.mark.parametrize("size, error", [("64", TypeError), (64.0, TypeError), (None, TypeError), (float("nan"), TypeError), ([64], TypeError), (0, ValueError), (-1, ValueError), (10**9, ValueError)])
def test_sizes_that_are_none(size, error):
    for call in (lambda: check_size(size), lambda: tile(noise(0), size), lambda: course_resize(noise(0), size)): refused(call, "size", repr(size), error=error)
    assert check_size(np.int64(7)) == 7


def test_pictures_that_are_none():
    for call in (lambda: read_picture(3), lambda: read_picture(None), lambda: read_picture(np.zeros((4, 4))), lambda: tile([noise(0)]), lambda: course_resize("a.png"), lambda: course_resize(None)):
        refused(call, "a picture is", error=TypeError)
    for call in (lambda: read_picture(Image.new("RGB", (0, 4))), lambda: course_resize(Image.new("RGB", (4, 0)))): refused(call, "no pixels")
    refused(lambda: read_picture(io.StringIO("text")), "the picture")
