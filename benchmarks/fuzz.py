"""Thousands of broken files for every reader: each is read or refused in one line that names it, soon, in little
memory.

    python benchmarks/fuzz.py [--cases 1000] [--seed 0] [--reader NAME ...] [--number N] [--out table.json]

A case is a valid input that was made at random and then, most often, damaged: bits flipped, bytes cut, doubled, or
inserted, numbers made huge. It depends on the reader's name, the seed and its number alone, so it can be repeated:
`--reader NAME --seed S --number N`. What is whole must be read. What is damaged may be read, or end in a ValueError, a
TypeError or an OSError of one line with the name of a file, in at most SECONDS and MEGABYTES. Everything else is a
failure: its files are copied to the folder `--failures`, and the exit status is 1.

A reader is added with the decorator `reader`. It is given what reads a folder, and stands before a function that makes
the files in it:

    @reader("csv", lambda folder: read_captions(folder / "captions.csv"), tokens=(b",", b'"'))
    def csv_file(rng): return {"captions.csv": b"name,caption\\n..."}"""
import argparse, bz2, contextlib, csv, faulthandler, functools, io, json, os, pickle, pickletools, random, shutil
import signal, string, struct, sys, tarfile, tempfile, time, warnings, zipfile, zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms

from my3yearold.captions import Vocabulary
from my3yearold.results import Result, write_index
from my3yearold.pickles import read_pickle
from my3yearold.data import coco_captions, course_archive, image_folder, read_captions
from my3yearold.sources import CAPTIONS_PICKLE
from my3yearold.files import LOCK, strangers, whole_folder, write_json
from my3yearold.cutout import as_hole
from my3yearold.inpaint import Inpainter
from my3yearold.model import OrderlessNADE
from my3yearold.pictures import read_picture, tile, to_srgb
from my3yearold.runs import newest_checkpoint, save_checkpoint
from my3yearold.saving import save_model
from my3yearold.training import TrainConfig, read_config

try: import resource
except ImportError: resource = None # Windows does not say how much memory was used

SECONDS, MEGABYTES = 10, 1000 # of one case; a picture of 100 megapixels, which is let in, takes some 600


@dataclass
class Reader:
    make: object            # random.Random -> {file name: content}
    read: object            # folder -> anything
    pack: object = None     # content -> content, done after it was damaged, half of the time: a compression, checksums
    tokens: tuple = ()      # bytes that mean something in such a file
    names_file: bool = True # must a refusal name one of the files or the folder?


READERS = {}


def reader(name, read, **options):
    def register(make):
        READERS[name] = Reader(make, read, **options)
        return make
    return register


# ---- damage

HUGE = (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8,
        b"99999999999999999999", b"-1", b"NaN", b"1e999")


def mutate(rng, content, tokens=()): # bytes -> bytes
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        content = bytes(rng.choice(DAMAGES)(rng, bytearray(content), tokens))
    return content


def place(rng, content): return rng.randrange(len(content) + 1)


def piece(rng, content, most=200):
    start = place(rng, content)
    return start, start + rng.randrange(1, most)


def flip(rng, content, tokens):
    for _ in range(rng.choice((1, 1, 4, 30))):
        if content: content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def set_byte(rng, content, tokens):
    if content: content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255, 10, 34, 44, rng.randrange(256)))
    return content


def cut_end(rng, content, tokens): return content[:place(rng, content)]


def cut_out(rng, content, tokens):
    start, end = piece(rng, content, max(2, len(content)))
    return content[:start] + content[end:]


def insert(rng, content, tokens):
    k = place(rng, content)
    return content[:k] + rng.randbytes(rng.choice((1, 2, 4, 100))) + content[k:]


def put_token(rng, content, tokens):
    k, token = place(rng, content), rng.choice((*tokens, *HUGE))
    return content[:k] + token * rng.choice((1, 1, 1, 3, 5000)) + content[k + rng.choice((0, len(token))):]


def double(rng, content, tokens):
    start, end = piece(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 500)) + content[end:]


def swap(rng, content, tokens):
    start, end = piece(rng, content)
    return content[end:2 * end] + content[start:end] + content[:start] + content[2 * end:]


DAMAGES = (flip, flip, set_byte, cut_end, cut_out, insert, put_token, put_token, double, swap)


# ---- running

def write_case(name, seed, number, folder): # the files of a case -> is it whole?
    "Every fifth case is; of the others one file is damaged, before or after it is packed."
    chosen, rng = READERS[name], random.Random(f"{name}/{seed}/{number}")
    files = chosen.make(rng)
    damaged = rng.choice(sorted(files)) if rng.randrange(5) else None
    before = chosen.pack is not None and rng.randrange(2)
    for file, content in files.items():
        if file == damaged and (before or not chosen.pack): content = mutate(rng, content, chosen.tokens)
        if chosen.pack: content = chosen.pack(content)
        if file == damaged and chosen.pack and not before: content = mutate(rng, content, chosen.tokens)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return damaged is None


class TooLong(BaseException): pass


def outcome_of(name, folder): # -> what happened; None, or what is wrong with it
    def ring(*_): raise TooLong
    files = [p for p in folder.rglob("*") if p.is_file()]
    if hasattr(signal, "SIGALRM"):
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as told, contextlib.redirect_stderr(io.StringIO()): # without progress
            warnings.simplefilter("always")
            READERS[name].read(folder)
        bad = [str(w.message) for w in told if issubclass(w.category, UserWarning) and not one_line(str(w.message))]
        return "read", f"a warning of several lines: {bad[0]!r}" if bad else None
    except (ValueError, TypeError, OSError) as error:
        message, kind = str(error), type(error)
        outcome = next(k.__name__ for k in (FileNotFoundError, OSError, TypeError, ValueError) if issubclass(kind, k))
        named = not READERS[name].names_file or any(p.name in message for p in files) or str(folder) in message
        fault = None if one_line(message) and named else f"{kind.__name__}, no line that names the file: {message!r}"
        return outcome, fault
    except (Exception, TooLong) as error: return "failure", f"{type(error).__name__}: {error}"
    finally:
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def one_line(message): return 0 < len(message) < 2000 and message.isprintable()


def peak(): # -> megabytes that this process has held at most
    if resource is None: return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run_case(name, seed, number, folder): # -> outcome, fault or None, seconds, megabytes
    whole = write_case(name, seed, number, folder)
    start, before = time.perf_counter(), peak()
    outcome, fault = outcome_of(name, folder)
    seconds, megabytes = time.perf_counter() - start, peak() - before
    if whole and outcome != "read": fault = fault or f"what is whole was not read ({outcome})"
    if seconds > SECONDS: fault = fault or f"it took {seconds:.0f} seconds"
    if megabytes > MEGABYTES: fault = fault or f"it took {megabytes:.0f} MB"
    return outcome if fault is None else "failure", fault, seconds, megabytes


def run(names, cases, seed, failures=None, first=0): # -> {reader: figures}, list of faults
    "So many cases, shared among the readers; those that fail are copied to the folder `failures`."
    figures, faults = {}, []
    kept = os.environ.get("MY3YEAROLD_CACHE")
    with tempfile.TemporaryDirectory(prefix="my3yearold-fuzz-") as temp:
        os.environ["MY3YEAROLD_CACHE"] = str(Path(temp) / "cache")
        for k, name in enumerate(names):
            counts, slowest, largest = Counter(), 0, 0
            for number in range(first, first + cases // len(names) + (k < cases % len(names))):
                folder = Path(temp) / f"{name}-{seed}-{number}" # what is left when a case ends the process
                folder.mkdir()
                outcome, fault, seconds, megabytes = run_case(name, seed, number, folder)
                counts[outcome] += 1
                slowest, largest = max(slowest, seconds), max(largest, megabytes)
                if fault:
                    faults.append(dict(reader=name, seed=seed, number=number, fault=fault))
                    if failures: shutil.copytree(folder, Path(failures) / folder.name, dirs_exist_ok=True)
                shutil.rmtree(folder)
                shutil.rmtree(Path(temp) / "cache", ignore_errors=True)
            figures[name] = dict(counts) | dict(seconds=round(slowest, 2), megabytes=round(largest))
    os.environ.pop("MY3YEAROLD_CACHE") if kept is None else os.environ.update(MY3YEAROLD_CACHE=kept)
    return figures, faults


# ---- what is made: words and pictures

def word(rng, letters="abcde é日🐈'-.\"", most=8):
    return "".join(rng.choice(letters) for _ in range(rng.randrange(1, most)))


def captions(rng): return [f"a {word(rng)} x" for _ in range(rng.randrange(3))]


def named(rng):
    return {f"{word(rng, 'abcé_.-')}{i}": captions(rng) for i in range(rng.randrange(1, 6))} # name -> captions


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), "WEBP": ("RGB", "RGBA"),
         "BMP": ("RGB", "L", "1", "P"), "GIF": ("P", "L", "RGB"),
         "TIFF": ("RGB", "L", "CMYK", "I;16", "I", "F", "1", "LAB")}


def picture(rng, kinds=tuple(KINDS), most=40): # -> content
    kind = rng.choice(kinds)
    mode, size = rng.choice(KINDS[kind]), (rng.randrange(1, most), rng.randrange(1, most))
    noise = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    grey, profiles = np.asarray(noise.convert("L")), [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
    if mode == "F": made = Image.fromarray(grey.astype(np.float32) / rng.choice((1, 255)))
    elif mode == "I": made = Image.fromarray(grey.astype(np.int32) * rng.choice((1, 257)))
    elif mode == "I;16": made = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "LAB": made = ImageCms.profileToProfile(noise, *profiles, outputMode="LAB")
    else: made = noise.convert(mode)
    options = {}
    if not rng.randrange(3): options["icc_profile"] = rng.choice((SRGB, mutate(rng, SRGB), rng.randbytes(200)))
    if kind in ("JPEG", "PNG", "WEBP") and not rng.randrange(3):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = rng.randrange(10)
    file = io.BytesIO()
    made.save(file, kind, **options)
    return file.getvalue()


def png_checksums(content): # -> the same, with the checksum of every part put right
    if content[:4] != b"\x89PNG": return content
    out, k = content[:8], 8
    while k + 8 <= len(content):
        length, = struct.unpack(">I", content[k:k + 4])
        body = content[k + 4:k + 8 + length]
        out, k = out + content[k:k + 4] + body + struct.pack(">I", zlib.crc32(body)), k + 12 + length
    return out


def read_one(folder):
    path, = folder.iterdir()
    found = read_picture(path)
    assert found.mode == "RGB" and min(found.size) > 0
    to_srgb(found)
    assert tile(path, 16).shape == (3, 16, 16)


for kind in KINDS:
    @reader(f"picture {kind}", read_one, pack=png_checksums if kind == "PNG" else None,
            tokens=(b"\xff\xd8", b"IHDR", b"iCCP", b"II*\0", b"Exif\0\0"))
    def _(rng, kind=kind): return {f"p.{kind.lower()}": picture(rng, (kind,))}


# ---- tables

def checked(found): # captions by picture
    assert all(type(n) is str and type(c) is list and all(type(x) is str and x for x in c) for n, c in found.items())


@reader("csv", lambda folder: checked(read_captions(folder / "c.csv", ["a", "b.c"])),
        tokens=(b",", b'"', b'""', b"\n", b"\r", b"\\", b"/", b"\0", b"\xef\xbb\xbf"))
def csv_file(rng):
    columns = ["name", "text", *rng.sample(("width", "note"), rng.randrange(3))]
    rng.shuffle(columns)
    rows = [columns] if len(columns) > 2 or rng.randrange(2) else []
    for name, several in named(rng).items():
        cells = [dict(name=name + rng.choice(("", ".jpg")), text=text) for text in several]
        rows += [[found.get(c, "64") for c in columns] for found in cells]
    file = io.StringIO()
    csv.writer(file, lineterminator=rng.choice(("\n", "\r\n"))).writerows(rows)
    return {"c.csv": file.getvalue().encode()}


JSON = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"\\ud800", b"1e400", b"images", b"annotations")


@reader("json", lambda folder: checked(read_captions(folder / "c.json")), tokens=JSON)
def json_file(rng):
    content = {name: several if rng.randrange(3) else word(rng) for name, several in named(rng).items()}
    return {"c.json": json.dumps(content, ensure_ascii=not rng.randrange(2)).encode()}


@reader("json of COCO", lambda folder: checked(read_captions(folder / "c.json")), tokens=JSON)
def coco_file(rng):
    content = [*named(rng).items()]
    images = [dict(id=i, file_name=f"{name}.jpg") for i, (name, _) in enumerate(content)]
    annotations = [dict(image_id=i, id=7, caption=c) for i, (_, several) in enumerate(content) for c in several]
    return {"c.json": json.dumps(dict(info={}, images=images, annotations=annotations)).encode()}


@reader("jsonl", lambda folder: checked(read_captions(folder / "metadata.jsonl")), tokens=(*JSON, b"\n"))
def jsonl_file(rng):
    rows = [dict(file_name=f"{name}.png", text=rng.choice((c, (c or [""])[0], None)),
                 other=rng.choice((1, [1, {}], "x"))) for name, c in named(rng).items()]
    return {"metadata.jsonl": b"\n".join(json.dumps(row).encode() for row in rows)}


@reader("folder", lambda folder: image_folder(folder, 16), tokens=(b"\n", b"\xff", b"a.png", b","))
def folder_of_pictures(rng):
    tables = {"captions.json": json_file(rng)["c.json"], "captions.csv": csv_file(rng)["c.csv"],
              "metadata.jsonl": jsonl_file(rng)["metadata.jsonl"], "a.txt": word(rng, "ab \né", 40).encode()}
    chosen = {name: tables[name] for name in rng.sample(sorted(tables), rng.randrange(3))}
    return {"a.png": picture(rng, ("PNG",)), "b.jpg": picture(rng, ("JPEG",))} | chosen


# ---- the captions pickle and archives

OPCODES = (*(code.code.encode("latin1") for code in pickletools.opcodes), b"cos\nsystem\n",
           b"ccollections\nOrderedDict\n")


def python2(content): # name -> captions, as Python 2 wrote them
    def text(t): return b"U" + bytes([len(t.encode())]) + t.encode()
    def listed(items): return b"](" + b"".join(items) + b"e"
    pairs = [listed([text(name), listed(map(text, several))]) for name, several in content.items()]
    return b"\x80\x02ccollections\nOrderedDict\n" + listed(pairs) + b"\x85R."


def pickle_content(rng):
    content = named(rng)
    return rng.choice((python2(content), pickle.dumps(content, rng.randrange(6))))


@reader("pickle", lambda folder: checked(read_pickle((folder / "c.pkl").read_bytes(), str(folder / "c.pkl"))),
        tokens=OPCODES)
def pickle_file(rng): return {"c.pkl": pickle_content(rng)}


def read_archive(folder):
    for split in ("train", "valid"): assert len(course_archive(folder / "c.tar.bz2", split, 16)) > 0


@reader("tar.bz2", read_archive, pack=bz2.compress, tokens=(
    b"ustar", b"ustar  \0", b"0000644\0", b"77777777777\0", b"\x80" + b"\xff" * 11, b"L", b"x", b"S", b"BZh9"))
def tar_file(rng):
    members = {f"x/{split}2014/{i}.jpg": picture(rng, ("JPEG",), 20) for split in ("train", "val")
               for i in range(rng.randrange(1, 3))} | {f"x/{CAPTIONS_PICKLE}": pickle_content(rng)}
    file, form = io.BytesIO(), rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(rng.choice((name, name, "y" * 90 + "/" + name)))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return {"c.tar.bz2": file.getvalue()}


@reader("zip", lambda folder: coco_captions(folder / "val.zip", folder / "captions.json", 16),
        tokens=(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"\x0c\0", b"../../x.jpg"))
def zip_file(rng):
    file, names = io.BytesIO(), [f"val/{i}.jpg" for i in range(rng.randrange(1, 4))]
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name in names: archive.writestr(name, picture(rng, ("JPEG", "PNG"), 20))
    table = {Path(name).stem: "a x" for name in names}
    return {"val.zip": file.getvalue(), "captions.json": json.dumps(table).encode()}


# ---- words

def read_words(folder):
    text = (folder / "caption.txt").read_bytes().decode("utf-8", "surrogateescape")
    for level in ("word", "char"):
        vocabulary = Vocabulary.build([[text]], 1, level)
        ids, lengths = vocabulary.encode([text, ""])
        assert len(vocabulary.decode(ids)) == 2 and lengths.max() <= 1024


@reader("caption", read_words, tokens=(b"|", b"<UNK>", b"\0", b" ", "é".encode(), "İ".encode(), "🐈".encode()),
        names_file=False)
def caption_file(rng):
    return {"caption.txt": word(rng, string.printable + "éß日🐈İ", rng.choice((10, 300, 5000))).encode()}


@reader("vocabulary", lambda folder: Vocabulary.from_json((folder / "v.json").read_text(errors="replace")), tokens=JSON,
        names_file=False)
def vocabulary_file(rng):
    content = dict(level=rng.choice(("word", "char")), words=[word(rng) for _ in range(rng.randrange(5))])
    return {"v.json": json.dumps(content).encode()}


# ---- masks, weights, runs and pages of results

@reader("mask", lambda folder: as_hole(next(folder.iterdir()), Image.new("RGB", (9, 7))), names_file=False,
        pack=png_checksums, tokens=(b"IHDR", b"tRNS", b"PLTE"))
def mask_file(rng):
    levels = np.frombuffer(rng.randbytes(63), np.uint8).reshape(7, 9) // 128 * 255
    made = Image.fromarray(levels).convert(rng.choice(("1", "L", "RGB")))
    if not rng.randrange(3): made = Image.merge("RGBA", [Image.new("L", (9, 7), 255)] * 3 + [Image.fromarray(levels)])
    file = io.BytesIO()
    made.save(file, "PNG")
    return {"mask.png": file.getvalue()}


def files_of(folder): return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir()) if p.name != LOCK}


@functools.lru_cache(4)
def written(trunk): # -> {file name: content}, of weights and of a run's newest checkpoint
    torch.manual_seed(0)
    vocabulary, options = (
        Vocabulary(["a", "cat", "red"]),
        dict(size=8, widths=(8, 16), blocks=(1, 1), channels=8, layers=2),
    )
    model = OrderlessNADE(len(vocabulary), trunk=trunk, word_size=8, state_size=8, **options)
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, vocabulary, dict(guidance_scale=2))
        weights = files_of(folder)
    with tempfile.TemporaryDirectory() as folder:
        state = dict(step=3, network=model.config)
        save_checkpoint(folder, model, model, torch.optim.AdamW(model.parameters()), state)
        write_json(Path(folder, "config.json"), asdict(TrainConfig()))
        return weights, files_of(folder)


SAFETENSORS = (
    *JSON,
    b'"F16"',
    b'"I64"',
    b'"data_offsets":[0,',
    b'"shape":[',
    b"__metadata__",
    b"99999999",
    b"8192",
    b"-1",
)


@reader("weights", lambda folder: Inpainter.from_pretrained(folder), tokens=SAFETENSORS)
def weights_folder(rng): return dict(written(rng.choice(("multiscale", "residual")))[0])


def read_run(folder):
    read_config(folder)
    newest_checkpoint(folder)


@reader("run", read_run, tokens=SAFETENSORS)
def run_folder(rng): return dict(written(rng.choice(("multiscale", "residual")))[1])


def read_results(folder):
    if strangers(folder / "cat"): raise ValueError(f"{folder / 'cat'} is not ours")
    write_index(folder)
    assert "<script" not in (folder / "index.html").read_text(encoding="utf-8")


@reader("results", read_results, tokens=(*JSON, b"<script>", b"my3yearold", b"result"))
def results_folder(rng):
    settings = Result(
        "cat",
        "cat.png",
        "photos",
        word(rng),
        "gibbs",
        8,
        1.0,
        1.0,
        2,
        [0, 1],
        [0, 0, 8, 8],
        8,
        8,
        4,
        [4.5, 5.0],
        "0.1.0",
    )
    with tempfile.TemporaryDirectory() as folder:
        with whole_folder(Path(folder) / "cat") as partial: write_json(partial / "settings.json", settings)
        found = {f"cat/{name}": content for name, content in files_of(Path(folder) / "cat").items()}
        write_index(folder)
        return found | {"index.html": Path(folder, "index.html").read_bytes()}


# ---- the command line

def table(figures): # -> lines
    outcomes = [o for o in ("read", "ValueError", "TypeError", "FileNotFoundError", "OSError", "failure")
                if any(o in f for f in figures.values())]
    def line(name, f, *more): return f"{name:16}" + "".join(f"{f.get(o, 0):18,}" for o in outcomes) + "".join(more)
    yield f"{'reader':16}" + "".join(f"{o:>18}" for o in outcomes) + f"{'slowest, s':>12}{'most, MB':>10}"
    for name, f in figures.items(): yield line(name, f, f"{f['seconds']:12.2f}", f"{f['megabytes']:10}")
    yield line("all", {o: sum(f.get(o, 0) for f in figures.values()) for o in outcomes})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all, shared among the readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--number", type=int, help="only the case of this number, of each reader")
    parser.add_argument("--out", help="write the figures to this file, as JSON")
    parser.add_argument("--failures", default="fuzz-failures", help="where the files of failures are copied to")
    args = parser.parse_args()
    faulthandler.enable()
    start = time.time()
    cases, first = (args.cases, 0) if args.number is None else (len(args.reader), args.number)
    figures, faults = run(args.reader, cases, args.seed, args.failures, first)
    print(*table(figures), f"{cases:,} cases, seed {args.seed}, {time.time() - start:.0f} seconds", sep="\n")
    for fault in faults:
        print(f"failure: --reader {fault['reader']!r} --seed {fault['seed']} --number {fault['number']}: "
              f"{fault['fault'][:300]}")
    if args.out:
        Path(args.out).write_text(json.dumps(dict(cases=cases, seed=args.seed, readers=figures, failures=faults),
                                             indent=1) + "\n", encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__": sys.exit(main())
