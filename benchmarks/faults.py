"""A fault run: training and inpainting killed at random moments, on full disks, in folders that cannot be written, with
files that vanish, two at a time. After each fault every file is whole, and what goes on ends as the undisturbed does,
bit for bit.

    python benchmarks/faults.py [--kills 100] [--others 6] [--seed 0] [--out FILE.json]

A parent that has imported everything forks a child for each command, so that a start costs little; the child runs
`my3yearold.cli.main`. Prints a table, and what was found; ends with status 1 if anything was. Needs Linux, the extra
`train`, and for a full disk the right to mount one."""
import argparse, collections, csv, fcntl, json, os, platform, random, re, resource, shutil, signal, subprocess, sys
import tempfile, time, traceback
from pathlib import Path
from urllib.parse import unquote

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
import torch.utils.tensorboard
import accelerate  # noqa: F401, loaded before memory is measured
from PIL import Image
from safetensors import safe_open
import my3yearold.data, my3yearold.inpaint, my3yearold.training  # noqa: F401
from my3yearold.captions import Vocabulary
from my3yearold.cli import main as program
from my3yearold.model import OrderlessNADE
from my3yearold.runs import checkpoints, newest_checkpoint
from my3yearold.saving import save_model

FLAGS = ("--size 16 --num-scenes 64 --widths 16 24 --blocks 1 1 --batch-size 4 --warmup 2 --num-valid 4 --scored 90 "
         "--device cpu --precision float32 --max-steps 12 --validate-every 2 --keep 9").split()
FILL = "--steps 3 --samples 2 --weights".split()
PATIENCE = 120               # seconds, then a command hangs
SIGNALS = {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}


# ---- commands in children ----

class Command:
    "The command line in a fork of this process; `prepare` is called in it first."
    def __init__(self, words, prepare=lambda: None):
        self.output, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)             # all that is said fits in
        os.set_blocking(self.output, False)
        sys.stdout.flush(); sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)          # until the child is ready to be interrupted
        self.pid = os.fork()
        if not self.pid: self.child(words, into, prepare)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(into)

    def child(self, words, into, prepare):
        status = 99
        try:
            for stream in (1, 2): os.dup2(into, stream)
            prepare()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            status = program(list(map(str, words)))
        except KeyboardInterrupt: status = 130
        except SystemExit as end: status = end.code
        except BaseException: traceback.print_exc()
        finally:
            try: sys.stdout.flush(); sys.stderr.flush()
            finally: os._exit(status if isinstance(status, int) else 99)

    def finish(self): # -> exit status, minus the signal's number if it died of one; what was wrong with what it said
        deadline, found = time.monotonic() + PATIENCE, 0
        while not found and time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            time.sleep(0.002)
        if not found:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with open(self.output, "rb") as file: self.said = (file.read() or b"").decode(errors="replace")
        if not found: return "hung", ["it hung"]
        lines = self.said.strip().splitlines()
        return os.waitstatus_to_exitcode(status), [f"a traceback: {lines[-1]}"] if "Traceback" in self.said else []


def run(words, prepare=lambda: None): # -> status, what was wrong, what it said
    command = Command(words, prepare)
    return *command.finish(), command.said


# ---- what must hold ----

def read_table(path):
    with open(path, newline="") as f: rows = list(csv.reader(f))
    assert len({len(row) for row in rows}) == 1, "rows of several lengths"

def read_tensors(path):
    with safe_open(path, "pt") as f: [f.get_tensor(k) for k in f.keys()]

def read_picture(path):
    with Image.open(path) as picture:
        for k in range(getattr(picture, "n_frames", 1)): picture.seek(k); picture.load()

def read_lines(path):
    text = path.read_text()
    assert text.endswith("\n"), "the last line is cut"
    for line in text.splitlines(): json.loads(line)

def read_page(path):
    for link in re.findall(r'(?:src|href)="([^":#]*)"', path.read_text(encoding="utf-8")):
        target = path.parent / unquote(link)
        # moved aside at the moment of the kill: the next run puts it back
        aside = list(path.parent.glob(f".*{target.parent.name}*.old"))
        assert target.is_file() or aside, f"links to {link}, which is not there"

READERS = {".csv": read_table, ".safetensors": read_tensors, ".png": read_picture, ".gif": read_picture,
           ".html": read_page, ".jsonl": read_lines, ".json": lambda path: json.loads(path.read_text(encoding="utf-8"))}


def leftover(path, folder):
    "Is this, or what it lies in, a hidden half-written thing?"
    return any(re.fullmatch(r"\..*(\.partial(\.\w+)?|\.old)", part) for part in path.relative_to(folder).parts)


def broken(folder): # -> list of sentences
    found = []
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and not leftover(p, folder)):
        # TensorBoard's own, a lock, a user's
        if "tfevents" in path.name or path.name.endswith((".lock", ".txt")): continue
        try: READERS[path.suffix](path)
        except Exception as error: found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def snapshot(folder): # -> {name: content}
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


# ---- the two subjects ----

class Training:
    "A run of twelve steps with a checkpoint every second one."
    name = "training"
    def __init__(self, home):
        self.home, self.reference = home, home / "undisturbed"
        begun = time.monotonic()
        status, _, told = run(self.first(self.reference))
        assert status == 0, told
        self.seconds = time.monotonic() - begun
        self.tensors = newest_checkpoint(self.reference)[1]

    def first(self, place): return ["train", *FLAGS, "--run", place]

    def command(self, place): # as a user would go on: where there is nothing to go on from, anew
        if (place / "config.json").is_file(): return ["train", "--resume", place]
        return [*self.first(place), "--start-over"]

    def place(self, at=None): # a folder to work in: empty, or a run that has come to a step
        place = self.home / "run"
        shutil.rmtree(place, ignore_errors=True)
        if at is None: return place
        shutil.copytree(self.reference, place)
        for path in checkpoints(place)[at // 2:]: path.unlink()
        return place

    def end(self, place): # -> status, what is wrong: go on to the end
        status, wrong, _ = run(self.command(place))
        if status == 2 and not checkpoints(place): # a model was kept, and killed before its checkpoint
            status, more, _ = run([*self.first(place), "--start-over"])
            wrong += more
        return status, wrong + (self.differences(place) if status == 0 else [])

    def differences(self, place):
        tensors = newest_checkpoint(place)[1]
        def same(k): return k in tensors and torch.equal(tensors[k], self.tensors[k])
        def curve(folder):
            with open(folder / "log.csv", newline="") as f: return [(r["step"], r["valid"]) for r in csv.DictReader(f)]
        wrong = [f"{k} differs" for k in self.tensors if not same(k)][:1]
        return wrong + ["the log differs"] * (curve(place) != curve(self.reference))

    def broken(self, place): return broken(place)


class Inpainting:
    "Three small pictures, over an older result of the same ones."
    name = "inpainting"
    def __init__(self, home):
        self.home, self.pictures, self.weights = home, home / "pictures", home / "weights"
        self.pictures.mkdir()
        chance = random.Random(0)
        for name in ("cat", "dog", "hen"):
            Image.frombytes("RGB", (24, 20), chance.randbytes(24 * 20 * 3)).save(self.pictures / f"{name}.png")
        torch.manual_seed(0)
        vocabulary = Vocabulary.build([["a red cat ."]] * 5)
        model = OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1), word_size=8, state_size=8)
        save_model(self.weights, model, vocabulary)
        self.old, self.new = home / "older", home / "newer"
        for place, seed in ((self.old, 0), (self.new, 7)):
            begun = time.monotonic()
            status, _, told = run(self.fill(place, seed))
            assert status == 0, told
        self.seconds = time.monotonic() - begun

    def fill(self, place, seed): return ["inpaint", self.pictures, *FILL, self.weights, "--seed", seed, "--out", place]
    def command(self, place): return self.fill(place, 7)
    first = command

    def place(self, at=None):
        place = self.home / "filled"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.old, place)
        (place / "notes.txt").write_text("a user's own")
        return place

    def end(self, place):
        status, wrong, _ = run(self.command(place))
        return status, wrong + (self.differences(place) if status == 0 else [])

    def differences(self, place):
        def same(p): return snapshot(place / p.name) == snapshot(p)
        found = [f"{p.name} is not the undisturbed one" for p in self.results(self.new) if not same(p)]
        hidden = [p.name for p in place.iterdir() if leftover(p, place)]
        return found + [f"{name} was left behind" for name in hidden]

    def results(self, place): return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))

    def broken(self, place):
        "Beside files that are not whole: a result that is neither the older nor the newer one."
        mixed = [f"{p.name} is neither the old result nor the new one" for p in self.results(place)
                 if snapshot(p) not in (snapshot(self.old / p.name), snapshot(self.new / p.name))]
        lost = [] if (place / "notes.txt").is_file() else ["a user's file is gone"]
        return broken(place) + mixed + lost


# ---- faults: each yields cases (what was done, statuses, what is wrong) ----

def kills(subject, number, chance):
    "Killed up to three times in a row, each at a moment of its own; then let go on to the end."
    done = 0
    while done < number:
        place, words, cases = subject.place(), subject.first, []
        for _ in range(chance.randint(1, min(3, number - done))):
            which, moment = chance.choice(list(SIGNALS)), chance.uniform(0, 1.1 * subject.seconds)
            command = Command(words(place))
            time.sleep(moment)
            os.kill(command.pid, which)
            status, wrong = command.finish()
            if place.exists(): wrong += subject.broken(place)
            cases.append((dict(signal=SIGNALS[which], seconds=round(moment, 4)), [status], wrong))
            done, words = done + 1, subject.command
        status, wrong = whole_end(subject, place)
        yield from cases[:-1]
        how, statuses, before = cases[-1]
        yield how, [*statuses, status], before + wrong


def whole_end(subject, place): # -> status, what is wrong at the end of an undisturbed command
    status, wrong = subject.end(place)
    return status, wrong + subject.broken(place) + ([f"the end had status {status}"] if status else [])


def faced(subject, place, prepare=lambda: None, expected=(0, 2)): # -> statuses, what is wrong, what was said
    "A command that meets a fault in this place, and another one that does not."
    status, wrong, told = run(subject.command(place), prepare)
    wrong += subject.broken(place) + ([] if status in expected else [f"status {status}: {told.strip()[-300:]}"])
    end, more = whole_end(subject, place)
    return [status, end], wrong + more, told


def small_files(subject, number, chance):
    "A full disk, as RLIMIT_FSIZE plays it: no file may grow beyond a size."
    for _ in range(number):
        limit = int(10 ** chance.uniform(1, 5.5))
        def prepare(): resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        yield dict(bytes=limit), *faced(subject, subject.place(at=4), prepare)[:2]


def full_disk(subject, number, chance):
    "A small tmpfs, filled but for some bytes; then the rest is freed."
    disk = subject.home / "disk"
    disk.mkdir(exist_ok=True)
    for _ in range(number):
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk]
        if subprocess.run(mount, capture_output=True).returncode: return "mounting is not allowed here"
        try:
            place, free, ballast = disk / "place", int(10 ** chance.uniform(3, 6.3)), disk / "ballast"
            shutil.copytree(subject.place(at=4), place)
            room = os.statvfs(disk)
            ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - free)))
            status, wrong, told = run(subject.command(place))
            wrong += subject.broken(place) + ([] if status in (0, 2) else [f"status {status}: {told.strip()[-300:]}"])
            ballast.unlink()
            end, more = whole_end(subject, place)
            yield dict(free=free), [status, end], wrong + more
        finally: subprocess.run(["umount", disk], check=True)


def read_only(subject, number, chance):
    "A folder that may be read and not written: by its permissions, or for root, who passes by them, by mounting it so."
    def allow(place, files, folders):
        for path in (place, *place.rglob("*")): path.chmod(folders if path.is_dir() else files)
    for _ in range(min(number, 2)):
        place, root = subject.place(at=4), os.getuid() == 0
        before = snapshot(place)
        if not root: allow(place, 0o444, 0o555)
        elif subprocess.run(["mount", "--bind", place, place], capture_output=True).returncode:
            return "as root, and mounting is not allowed"
        else: subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        status, wrong, told = run(subject.command(place))
        if root: subprocess.run(["umount", place], check=True)
        else: allow(place, 0o644, 0o755)
        if snapshot(place) != before: wrong.append("the folder was changed")
        if status != 2 or not re.search("Permission denied|Read-only file system", told):
            wrong.append(f"status {status}: {told.strip()[-300:]}")
        end, more = whole_end(subject, place)
        yield {}, [status, end], wrong + more


def vanishing(subject, number, chance):
    "One of the files in the folder of a run, or a picture to fill, is removed at a random moment."
    for _ in range(number):
        place, moment = subject.place(at=4), chance.uniform(0, subject.seconds)
        among = getattr(subject, "pictures", place)
        command = Command(subject.command(place))
        time.sleep(moment)
        there = [p for p in among.rglob("*") if p.is_file() and not p.name.startswith(".my3yearold")]
        gone = chance.choice(sorted(there))
        content = gone.read_bytes()
        gone.unlink()
        status, wrong = command.finish()
        wrong += subject.broken(place)
        if among != place: gone.write_bytes(content)               # the picture is there again, for the next case
        end, more = whole_end(subject, place)
        wrong += more + ([] if status in (0, 2) else [f"status {status}: {command.said.strip()[-300:]}"])
        if gone.name == "log.csv" and "the log differs" in wrong:
            wrong.remove("the log differs")  # its rows are gone
        yield dict(file=gone.name, seconds=round(moment, 4)), [status, end], wrong


def two_at_a_time(subject, number, chance):
    for _ in range(number):
        place, pause = subject.place(at=4), chance.uniform(0, 0.2 * subject.seconds)
        first = Command(subject.command(place))
        time.sleep(pause)
        second = Command(subject.command(place))
        (status, wrong), (other, more) = first.finish(), second.finish()
        wrong += more + subject.broken(place) + [f"status {s}" for s in (status, other) if s not in (0, 2)]
        wrong += subject.differences(place) if 0 in (status, other) else ["neither came to its end"]
        yield dict(seconds=round(pause, 4)), [status, other], wrong


FAULTS = {"no file beyond a size": small_files, "a full disk": full_disk, "a read-only folder": read_only,
          "a file vanishes": vanishing, "two at a time": two_at_a_time}


# ---- the table ----

def collect(cases): # -> list of cases, why there are none
    "All that a generator yields, and what it returns."
    found, cases = [], iter(cases)
    while True:
        try: found.append(next(cases))
        except StopIteration as end: return found, end.value


def measure(subject, fault, cases):
    begun = time.monotonic()
    found, skipped = collect(cases)
    kinds = collections.defaultdict(list)
    for how, statuses, wrong in found: kinds[how.get("signal", fault)].append((how, statuses, wrong))
    rows = []
    for kind, several in sorted(kinds.items()) or [(fault, [])]:
        first = collections.Counter(" then ".join(map(str, statuses)) for _, statuses, _ in several)
        cases = [dict(**how, statuses=statuses, wrong=wrong) for how, statuses, wrong in several]
        faulty = sum(bool(case["wrong"]) for case in cases)
        row = dict(subject=subject.name, fault=kind, tried=len(several), faulty=faulty, statuses=dict(first))
        rows.append(row | dict(skipped=skipped, cases=cases))
        shown = ", ".join(f"{count} x {status}" for status, count in first.items()) or f"skipped: {skipped}"
        print(f"{subject.name:10s}  {kind:21s} {len(several):4d} tried {faulty:4d} faulty   ended with {shown}")
        for case in filter(lambda case: case["wrong"], cases):
            print("   ", {k: v for k, v in case.items() if k != "wrong"}, *case["wrong"][:4], sep="\n      ")
    print(f"{'':10s}  ({time.monotonic() - begun:.0f} s)", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, half of them in training")
    parser.add_argument("--others", type=int, default=6, help="of each other fault, in training and in inpainting each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["training", "inpainting"])
    parser.add_argument("--out", help="a JSON file for every case with its moment")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        for k, make in enumerate((Training, Inpainting)):
            if args.only not in (None, make.name): continue
            subject, chance = make(Path(home)), random.Random(args.seed + k)
            print(f"{subject.name}: undisturbed in {subject.seconds:.2f} s", flush=True)
            rows += measure(subject, "killed", kills(subject, (args.kills + 1 - k) // 2, chance))
            for fault, cases in FAULTS.items(): rows += measure(subject, fault, cases(subject, args.others, chance))
    faulty = sum(row["faulty"] for row in rows)
    tried, machine = sum(row["tried"] for row in rows), f"{platform.machine()}, {os.cpu_count()} processors"
    print(f"{tried} faults, {faulty} with something wrong; seed {args.seed}, {machine}, torch {torch.__version__}")
    if args.out:
        command = f"python benchmarks/faults.py --kills {args.kills} --others {args.others} --seed {args.seed}"
        found = dict(command=command, machine=machine, torch=torch.__version__, rows=rows)
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    return 1 if faulty else 0


if __name__ == "__main__": sys.exit(main())
