"""COCO in one command, from a server of this machine that breaks off, ignores ranges, lies and is not there."""
import hashlib
import io
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from my3yearold import coco
from my3yearold import data as data_module
from my3yearold.cli import main
from my3yearold.coco import ARCHIVES, CAPTIONS, Archive, fetch, lacking, needs, plan
from my3yearold.config import TrainConfig
from my3yearold.data import load_data
from my3yearold.files import only_one
from my3yearold.pictures import tile
from my3yearold.training import train

NUMBER = dict(train=24, valid=3)
NAMES = dict(captions="annotations_trainval2014.zip", train="train2014.zip", valid="val2014.zip")


def zipped(files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items(): archive.writestr(name, content)
    return held.getvalue()


def pictures(split, number): # -> {name: JPEG}; upright and broad ones, a grey one among them
    rng, found = np.random.default_rng(number), {}
    for i in range(number):
        shape = (40, 64 + i, 3) if i % 2 else (70, 50)
        held = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(held, "JPEG")
        found[f"{split}/COCO_{split}_{i:012d}.jpg"] = held.getvalue()
    return found


def captions(split, number): # COCO's form
    images = [dict(id=1000 + i, file_name=f"COCO_{split}_{i:012d}.jpg", license=3) for i in range(number)]
    said = [dict(image_id=1000 + i, id=k, caption=f"picture {i} of {split}, {k}") for i in range(number)
            for k in range(5)]
    return json.dumps(dict(info={}, licenses=[], images=images, annotations=said)).encode()


@pytest.fixture(scope="module")
def content(): # what the server holds: {"captions", "train", "valid": bytes}
    said = {"annotations/instances_train2014.json": b"[" + b"0," * 3000 + b"0]",
            CAPTIONS[0]: captions("train2014", NUMBER["train"]), CAPTIONS[1]: captions("val2014", NUMBER["valid"])}
    return dict(captions=zipped(said), train=zipped(pictures("train2014", NUMBER["train"])),
                valid=zipped(pictures("val2014", NUMBER["valid"])))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass

    def do_GET(self):
        ours, server = self.server.ours, self.server
        name = next((name for name in ours if self.path == f"/{ARCHIVES[name].path}"), None)
        asked = self.headers.get("Range")
        server.asked.append((name or self.path, asked))
        if name is None or server.gone: return self.send_error(404)
        whole, start = ours[name], 0
        if asked and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + server.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else: self.send_response(200)
        if server.says_length: self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        self.wfile.write(whole[start:start + server.most])
        self.server.sent[name] = self.server.sent.get(name, 0) + len(whole[start:start + server.most])


@pytest.fixture
def server(content, monkeypatch, tmp_path):
    "A stand-in for COCO's server; the table of archives speaks of what it holds. The working folder is tmp_path."
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coco, "BLOCK", 1000)
    for name, whole in content.items():
        old = ARCHIVES[name]
        monkeypatch.setitem(ARCHIVES, name, Archive(old.path, len(whole), hashlib.sha256(whole).hexdigest(),
                                                    old.unpacked, NUMBER.get(name, 0)))
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.ours, found.asked, found.sent = dict(content), [], {}
    found.ranges, found.says_length, found.gone, found.most, found.shift = True, True, False, 10**9, 0
    found.address = f"http://127.0.0.1:{found.server_port}"
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def run(server, capsys):
    "run(*arguments) of `my3yearold data coco` -> exit status, sentences on standard error, standard output."
    def run(*arguments, yes=True):
        status = main(["data", "coco", "--mirror", server.address, *(["--yes"] if yes else []), *arguments])
        spoken = capsys.readouterr()
        return status, re.findall(r"my3yearold: [^\r\n]*", spoken.err), spoken.out
    return run


def names_in(folder): return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


# --- all goes well

def test_the_official_table():
    "Sizes and checksums as TensorFlow Datasets publishes them; the addresses that COCO's page links to."
    found = {f"{coco.SERVER}/{a.path}": (a.size, a.sha256[:16], a.pictures) for a in ARCHIVES.values()}
    assert found == {
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip": (252872794, "031296bbc80c45a1", 0),
        "http://images.cocodataset.org/zips/train2014.zip": (13510573713, "ede4087e640bddba", 82783),
        "http://images.cocodataset.org/zips/val2014.zip": (6645013297, "fe9be816052049c3", 40504),
    }
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in ARCHIVES.values())


def test_from_nothing_to_training(run, server, content, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(cache))
    monkeypatch.setattr(data_module, "LARGE", 1)
    status, said, printed = run()
    assert status == 0 and not said
    assert "the split train of coco\npictures: 24 of 64x64\ncaptions: 120;" in printed
    assert "the split valid of coco\npictures: 3 of 64x64\n" in printed
    folder = tmp_path / "coco"
    assert names_in(folder) == ["annotations", *sorted(NAMES.values())]
    assert names_in(folder / "annotations") == ["captions_train2014.json", "captions_val2014.json"]
    for name, whole in content.items(): assert (folder / NAMES[name]).read_bytes() == whole
    assert sorted(server.asked) == [("captions", None), ("train", None), ("valid", None)]
    kept = sorted(p.name.partition("-")[0] for p in cache.glob("*.npy"))
    assert kept == ["train2014", "val2014"] and not list(cache.glob("*.partial"))

    with monkeypatch.context() as patched:                         # the pictures are made: they come from the cache
        patched.setattr(data_module, "tile", None)
        found = load_data("coco", "train")
    assert found.names == [f"COCO_train2014_{i:012d}" for i in range(24)]
    assert found.captions[7] == [f"picture 7 of train2014, {k}" for k in range(5)]
    jpegs = pictures("train2014", 24)
    for i in (0, 1, 23):                                           # the course's way
        assert (found.images[i].numpy() == tile(io.BytesIO(jpegs[f"train2014/{found.names[i]}.jpg"]))).all()

    done = train(TrainConfig(data=str(folder), run=str(tmp_path / "run"), size=16, widths=(8, 16), blocks=(1, 1),
                             batch_size=4, max_steps=1, scored=2, device="cpu", precision="float32", compile="no"))
    assert (done / "model" / "model.safetensors").is_file()


def test_what_is_there_is_not_fetched_again(run, server, tmp_path):
    assert run()[0] == 0
    server.asked.clear()
    server.gone = True
    status, said, printed = run()
    assert status == 0 and not said and server.asked == [] and "the split valid of coco" in printed
    status, _, again = run(yes=False)                              # without --yes, too, it says what is in it
    assert status == 0 and again == printed and server.asked == []


def test_an_archive_from_elsewhere_is_taken(run, server, content, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / NAMES["train"]).write_bytes(content["train"])
    assert run()[0] == 0
    assert {name for name, _ in server.asked} == {"captions", "valid"}


def test_an_unpacked_archive_is_taken(run, server, content, tmp_path):
    folder = tmp_path / "here"
    for name in ("captions", "train"):
        with zipfile.ZipFile(io.BytesIO(content[name])) as archive: archive.extractall(folder)
    status, _, printed = run("--folder", "here")
    assert status == 0 and [name for name, _ in server.asked] == ["valid"]
    assert "the split train of here\npictures: 24" in printed
    assert NAMES["train"] not in names_in(folder)


def test_one_split(run, server, tmp_path):
    status, _, printed = run("--split", "valid")
    assert status == 0 and [name for name, _ in server.asked] == ["captions", "valid"]
    assert "split train" not in printed and "pictures: 3 of" in printed


def test_json(run, tmp_path):
    status, _, printed = run("--json", yes=False)
    found = json.loads(printed)
    assert status == 0 and found["to_fetch"] == sum(a.size for a in ARCHIVES.values()) and len(found["files"]) == 3
    status, _, printed = run("--json")
    found = json.loads(printed)
    assert status == 0 and found["to_fetch"] == 0 and found["splits"]["valid"]["pictures"] == "3 of 64x64"


# --- before anything is fetched

def test_without_yes_nothing_is_asked(run, server, tmp_path):
    status, said, printed = run(yes=False)
    assert status == 0 and not said and server.asked == [] and names_in(tmp_path) == []
    for archive in ARCHIVES.values():
        assert f"{server.address}/{archive.path}  {coco.amount(archive.size)}  to be fetched\n" in printed
    assert "--yes" in printed.splitlines()[-1]


def test_the_plan_knows_what_is_there(server, content, tmp_path):
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "val2014.zip.part").write_bytes(content["valid"][:100])
    (folder / "train2014.zip").write_bytes(content["train"])
    found = plan(folder)
    assert [line["to_fetch"] for line in found["files"]] == [len(content["captions"]), len(content["valid"]) - 100, 0]
    lines = coco.plan_lines(found)
    assert "100 B of it are there" in lines[1] and lines[2].endswith("is there")
    assert lacking(ARCHIVES["valid"], folder) == len(content["valid"]) - 100


def test_arrived_and_not_yet_checked(run, server, content, tmp_path):
    "Stopped while it was being checked: without --yes that is said, with it the rest is done."
    assert run("--split", "valid")[0] == 0
    file = tmp_path / "coco" / "val2014.zip"
    file.rename(f"{file}.part")
    status, said, printed = run("--split", "valid", yes=False)
    assert status == 0 and not said and "to be fetched into coco: 0.00 B" in printed
    server.asked.clear()
    status, said, printed = run("--split", "valid")
    assert status == 0 and server.asked == [] and file.read_bytes() == content["valid"]


def test_the_real_sizes_in_words(tmp_path):
    lines = coco.plan_lines(plan(tmp_path / "coco"))
    assert [line.split("  ")[1] for line in lines[:3]] == ["253 MB", "6.65 GB", "13.5 GB"]
    assert lines[3].endswith(": 20.4 GB") and ": 1.51 GB, and " in lines[5] and lines[5].endswith(" are free")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("spare, status", [(0, 0), (-1, 2)])
def test_room(run, server, tmp_path, monkeypatch, spare, status):
    "The disk is asked before the server; one that is large enough to the byte will do."
    monkeypatch.setenv("MY3YEAROLD_CACHE", str(tmp_path / "cache"))
    needed = sum(size for _, size in needs("coco", coco.wanted(["train", "valid"])))
    assert needed == sum(a.size for a in ARCHIVES.values()) + ARCHIVES["captions"].size + 27 * 3 * 64 * 64
    monkeypatch.setattr(coco.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed + spare))
    found, said, _ = run()
    assert found == status
    if status:
        assert len(said) == 1 and "make room" in said[0] and "--folder" in said[0]
        assert server.asked == [] and names_in(tmp_path) == []


def test_room_on_two_disks(tmp_path, monkeypatch):
    "Each has to have what it is to take, and not what the other is to take."
    free = {tmp_path / "a": 10, tmp_path / "b": 20}
    for place in free: place.mkdir()
    monkeypatch.setattr(coco.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    monkeypatch.setattr(coco, "_disk_of", lambda path: (tmp_path / "a") in (path, *path.parents))
    coco.check_room([(tmp_path / "a" / "x" / "y", 10), (tmp_path / "b", 20)])
    with pytest.raises(OSError, match="11.0 B are needed.*10.0 B are free"):
        coco.check_room([(tmp_path / "a" / "x", 11), (tmp_path / "b", 1)])
    monkeypatch.setattr(coco, "_disk_of", lambda path: 0)
    with pytest.raises(OSError, match="30.0 B are needed"):
        coco.check_room([(tmp_path / "a", 10), (tmp_path / "b", 20)])


@pytest.mark.parametrize("arguments, sentence", [
    (["data", "scenes", "--yes"], "--yes"),
    (["data", "scenes", "--folder", "x"], "--folder"),
    (["data", "scenes", "--mirror", "http://x"], "--mirror"),
    (["data", "coco", "--yes", "--mirror", "file:///etc"], "http://"),
    (["data", "coco", "--yes", "--folder", "a-file"], "is a file"),
])
def test_wrong_flags(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and sentence in said and names_in(tmp_path) == ["a-file"]


def test_an_unknown_split():
    with pytest.raises(ValueError, match="test.*'train' and 'valid'"): fetch("nowhere", ["test"])


# --- the line, the server, the disk

def test_a_broken_line_and_the_same_command_again(run, server, content, tmp_path):
    "Bytes that have arrived are not asked for again."
    server.most, folder = 5000, tmp_path / "coco"
    status, said, printed = run()
    assert status == 2 and len(said) == 1 and not printed
    assert "broke off" in said[0] and "5.00 kB of" in said[0] and "the same command goes on" in said[0]
    assert names_in(folder) == ["annotations_trainval2014.zip.part"]
    assert (folder / "annotations_trainval2014.zip.part").read_bytes() == content["captions"][:5000]
    for _ in range(100):
        status, said, _ = run()
        if status == 0: break
        assert "broke off" in said[0]
    assert status == 0
    for name, whole in content.items():
        assert (folder / NAMES[name]).read_bytes() == whole
        starts = [int((asked or "bytes=0-")[6:-1]) for what, asked in server.asked if what == name]
        assert starts == list(range(0, len(whole), 5000))
        assert server.sent[name] == len(whole)                     # each byte once
    assert not list(folder.glob("*.part"))


def test_a_server_without_ranges_begins_anew(run, server, content, tmp_path):
    server.most, server.ranges = 5000, False
    assert run("--split", "valid")[0] == 2
    server.most = 10**9
    assert run("--split", "valid")[0] == 0
    assert [asked for name, asked in server.asked if name == "captions"] == [None, "bytes=5000-"]
    assert (tmp_path / "coco" / NAMES["captions"]).read_bytes() == content["captions"]


def test_a_server_without_ranges_that_breaks_off_earlier(run, server, content, tmp_path):
    "What is there is then what came last, not a mixture."
    server.most, server.ranges, part = 5000, False, tmp_path / "coco" / "annotations_trainval2014.zip.part"
    run()
    server.most = 2000
    assert run()[0] == 2 and part.read_bytes() == content["captions"][:2000]


def test_other_bytes_than_asked_for(run, server, content, tmp_path):
    server.most, part = 5000, tmp_path / "coco" / "annotations_trainval2014.zip.part"
    run()
    server.shift = 7
    status, said, _ = run()
    assert status == 2 and len(said) == 1 and "is not the archive asked for" in said[0]
    assert part.read_bytes() == content["captions"][:5000]


@pytest.mark.parametrize("length", [True, False])
def test_a_login_page_in_its_place(run, server, tmp_path, length):
    server.ours["captions"], server.says_length = b"<html>who are you?</html>", length
    status, said, _ = run()
    assert status == 2 and len(said) == 1 and "is not the archive asked for" in said[0]
    assert (said[0].count("speaks of 25;"), said[0].count("speaks of no length;")) == ((1, 0) if length else (0, 1))
    assert names_in(tmp_path) == []                               # the folder, made for nothing, has gone again


def test_not_found(run, server, tmp_path):
    server.gone = True
    status, said, printed = run()
    assert status == 2 and len(said) == 1 and "404" in said[0] and server.address in said[0] and not printed
    assert "see whether the address is right" in said[0] and names_in(tmp_path) == []


def test_nobody_there(run, server):
    server.shutdown()
    server.server_close()
    status, said, _ = run()
    assert status == 2 and len(said) == 1 and "cannot be reached" in said[0] and "run the same command again" in said[0]


def test_a_line_that_is_reset(run, server, content, tmp_path, monkeypatch):
    "The system may say of a broken line that it is one, or that nothing came for a minute."
    for error in (ConnectionResetError(104, "Connection reset by peer"), TimeoutError("timed out")):
        real = coco.urllib.request.urlopen
        def urlopen(*args, **options):
            answer, read = real(*args, **options), []
            def broken(size, whole=answer.read):
                read.append(size)
                if len(read) > 3: raise error
                return whole(size)
            answer.read = broken
            return answer
        monkeypatch.setattr(coco.urllib.request, "urlopen", urlopen)
        status, said, _ = run()
        monkeypatch.setattr(coco.urllib.request, "urlopen", real)
        reason = error.strerror or str(error)
        assert status == 2 and len(said) == 1 and f"broke off ({reason})" in said[0]
    part = tmp_path / "coco" / "annotations_trainval2014.zip.part"
    assert part.read_bytes() == content["captions"][:6000]
    assert run()[0] == 0


def test_stopped_by_hand(run, server, content, tmp_path, monkeypatch):
    real = coco._blocks
    def blocks(answer):
        for i, block in enumerate(real(answer)):
            if i == 2: raise KeyboardInterrupt
            yield block
    monkeypatch.setattr(coco, "_blocks", blocks)
    status, said, _ = run()
    assert status == 130 and len(said) == 1 and "stopped: 2.00 kB of" in said[0] and "goes on from there" in said[0]
    assert (tmp_path / "coco" / "annotations_trainval2014.zip.part").read_bytes() == content["captions"][:2000]
    monkeypatch.setattr(coco, "_blocks", real)
    assert run()[0] == 0
    assert [asked for name, asked in server.asked if name == "captions"] == [None, "bytes=2000-"]


def test_a_disk_that_takes_no_more(run, server, monkeypatch):
    class Full(coco.tqdm):
        def update(self, number=1): raise OSError(28, "No space left on device")
    monkeypatch.setattr(coco, "tqdm", Full)
    status, said, _ = run()
    assert status == 2 and len(said) == 1
    assert ".part cannot be written (No space left on device); make room" in said[0]


def test_two_at_once(run, server, tmp_path):
    with only_one(tmp_path / "coco", "fetching into"):
        status, said, _ = run()
    assert status == 2 and len(said) == 1 and "another process is fetching into coco" in said[0] and server.asked == []


# --- what is not believed

def test_a_wrong_checksum(run, server, content, tmp_path):
    "What came is set aside under a name that nothing reads; the same command then begins anew."
    folder = tmp_path / "coco"
    server.ours["valid"] = content["valid"][:500] + bytes([content["valid"][500] ^ 1]) + content["valid"][501:]
    status, said, printed = run()
    assert status == 2 and len(said) == 1 and not printed
    assert "val2014.zip is not the official archive" in said[0] and "val2014.zip.wrong" in said[0]
    assert names_in(folder) == ["annotations_trainval2014.zip", "val2014.zip.wrong"]
    with pytest.raises(ValueError, match="holds no pictures"): load_data(folder, "valid")
    server.ours["valid"] = content["valid"]
    assert run()[0] == 0 and (folder / "val2014.zip").read_bytes() == content["valid"]
    assert [asked for name, asked in server.asked if name == "valid"] == [None, None]


def test_an_archive_that_has_changed_since(run, server, content, tmp_path):
    assert run()[0] == 0
    file = tmp_path / "coco" / NAMES["train"]
    file.write_bytes(content["train"][:-1] + b"x")
    server.asked.clear()
    status, said, _ = run()
    assert status == 2 and "train2014.zip is not the official archive" in said[0] and server.asked == []
    assert not file.exists() and run()[0] == 0 and file.read_bytes() == content["train"]


@pytest.mark.parametrize("junk", [b"x" * 3000, b"x" * 10**6])
def test_a_partial_file_of_something_else(run, content, tmp_path, junk):
    "Too long, it is begun anew at once; shorter, the checksum finds it."
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "annotations_trainval2014.zip.part").write_bytes(junk)
    status, said, _ = run("--split", "valid")
    if len(junk) < len(content["captions"]):
        assert status == 2 and "is not the official archive" in said[0]
        status, said, _ = run("--split", "valid")
    assert status == 0 and (tmp_path / "coco" / NAMES["captions"]).read_bytes() == content["captions"]


def test_annotations_that_are_no_zip(run, server, monkeypatch, tmp_path):
    "Were the table to speak of something that is not what it should be, that would be a sentence, too."
    for whole, reason in ((b"not a zip" * 1000, "no whole zip"), (zipped({"x": b""}), "captions_train2014.json")):
        server.ours["captions"] = whole
        monkeypatch.setitem(ARCHIVES, "captions", Archive(ARCHIVES["captions"].path, len(whole),
                                                          hashlib.sha256(whole).hexdigest(), CAPTIONS))
        status, said, _ = run("--folder", f"folder{len(whole)}")
        assert status == 2 and len(said) == 1 and reason in said[0]
