"""Does it run on a GPU, is what it computes right there, and how near to the card's limits does a training step come?

    python benchmarks/gpu.py [--minutes 4] [--out FILE] [--sections speed kernels ...] [--size 64] [--scored 1024]

Sections, each written to the file row by row; one that fails leaves its error, and the next one runs; what no longer
fits into the minutes is left out and says so:

    tests      the tests that need CUDA
    agreement  loss and gradients of trained weights, beside float32 on the CPU
    counted    operations and bytes of a training step: of every operation that is not a view, its inputs and outputs
    peaks      bfloat16 operations and bytes a second: measured, and the data sheet's where the card is known
    speed      the whole training step: decide, ask, forward, backward, clip, AdamW, average
    kernels    where the time goes: outside kernels, and in which of them
    compiled   speed, agreement and kernels once more, compiled: each in a process of its own, which compiles while the
               sections that time nothing run, waits for its turn, and is ended if it is not ready in 130 seconds
    filling    the bundled weights fill a small and a larger picture
    qrnn       a QRNN beside nn.LSTM, at the sizes of 1611.01576
    plain      the step of benchmarks/step.py that is written down plainly, beside ours

Without a GPU everything is small and marked so: that shows that the script works, and is no figure of anything."""
import argparse, ast, gc, json, math, os, platform, re, shlex, signal, subprocess, sys, tempfile, time
from copy import deepcopy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from my3yearold.batches import Examples, Question, ScoredLoss, decide, questions
from my3yearold.config import TrainConfig
from my3yearold.devices import engine
from my3yearold.inpaint import Inpainter
from my3yearold.qrnn import QRNN
from my3yearold.resuming import begin
from my3yearold.scenes import scenes
from my3yearold.training import Run, make_learner, one_step
from qrnn import PAPER, seconds as layer_seconds
from step import plain_loss

ROOT = Path(__file__).resolve().parent.parent
# dense bfloat16 operations a second, bytes a second
DATA_SHEETS = {"NVIDIA H100 80GB HBM3": (989e12, 3.35e12), "NVIDIA H200": (989e12, 4.8e12),
               "NVIDIA A100-SXM4-80GB": (312e12, 2.0e12)}
LARGE = dict(size=64, scored=1024, pictures=2048, batches=(16, 64, 256, 1024, 2048), muon=256, count=64, agree=16,
             warm=3, seconds=1.5, kernels=(64, 256, 1024), filling=((64, 256), 16), plain=64, matrix=8192,
             copied=2 ** 31, qrnn=((8, 32, 256), (32, 64, 128, 256, 512), 256),
             compiled=((256, "yes"), (1024, "yes"), (256, "graphs")))
SMALL = dict(size=32, scored=96, pictures=16, batches=(1, 8), muon=1, count=1, agree=2, warm=1, seconds=0.1,
             kernels=(), filling=((64, 128), 2), plain=2, matrix=512, copied=2 ** 26,
             qrnn=((8,), (32,), 64), compiled=((2, "aot_eager"),))   # a graph, but no compiler: it takes minutes
# of the loss, of the gradients: products rounded to 8 bits move these further
LIMITS = dict(float32=(1e-4, 1e-4), bfloat16=(1e-2, 5e-2))


class OutOfTime(BaseException): "Passes by whatever takes an error for a result."


class Bench:
    "What all sections share: the settings, the pictures, the device and what was found so far."
    def __init__(self, args):
        self.ends, self.begun = time.monotonic() + 60 * args.minutes, time.monotonic()
        self.small, self.out, self.rows = not torch.cuda.is_available(), Path(args.out), {}
        self.set = argparse.Namespace(**(SMALL if self.small else LARGE))
        self.set.size, self.set.scored = args.size or self.set.size, args.scored or self.set.scored
        # with its number: pictures that are on a device have one
        self.device = torch.device("cpu") if self.small else torch.device("cuda", torch.cuda.current_device())
        cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
        name = cpu if self.small else torch.cuda.get_device_name()
        command = "python " + shlex.join([os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
        self.header = dict(small=self.small, device=self.device.type, machine=name, torch=torch.__version__,
                           cuda=torch.version.cuda, command=command, size=self.set.size, scored=self.set.scored)
        if self.small: self.header["note"] = "small, on a CPU: shows that the script works, and is no figure of a GPU"
        self.config = TrainConfig(start="photos", size=self.set.size, precision="bfloat16", compile="no", flip=0.5,
                                  device=self.device.type, scored=self.set.scored)
        self.data = scenes(self.set.pictures, self.set.size)
        self.vocabulary = begin(self.config, self.data)[2]
        self.examples = Examples(self.data, self.vocabulary, self.device)
        self.children = {}

    def left(self): return self.ends - time.monotonic() # seconds

    def wait(self):
        if not self.small: torch.cuda.synchronize()

    def quiet(self): # until all that compile are ready, or their time is up: they would be timed as well
        for child in self.children.values():
            while not child.ready() and self.left() > 0 and time.monotonic() < child.begun + 130: time.sleep(0.2)
            if not child.ready(): child.end()

    def save(self):
        found = self.header | dict(minutes=round((time.monotonic() - self.begun) / 60, 2)) | self.rows
        self.out.write_text(json.dumps(found, indent=1) + "\n")


class Child:
    "A process in a session of its own, so that what it starts ends with it; it writes files, which hold nothing up."
    def __init__(self, *command):
        self.out, self.err, self.begun = tempfile.TemporaryFile(), tempfile.TemporaryFile(), time.monotonic()
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=self.out, stderr=self.err,
                                        start_new_session=True)

    def said(self, file): return os.pread(file.fileno(), 10 ** 7, 0).decode(errors="replace")

    def ready(self): return self.process.poll() is not None or "ready\n" in self.said(self.out)

    def wait(self, seconds): # -> is it done?
        try: self.process.communicate(b"go\n", timeout=max(1, seconds))
        except subprocess.TimeoutExpired: self.end(); return False
        return True

    def end(self):
        if self.process.poll() is None: os.killpg(self.process.pid, signal.SIGKILL); self.process.wait()


class Silent: # the journal of a run that nobody reads
    main, step = False, 0

    @property
    def clock(self): return self

    def waiting(self): return nullcontext()

    def note(self, loss, rate): self.step, self.loss = self.step + 1, loss


def new_run(bench, batch, **options): # a training run at its first step
    gc.collect()                      # of the run before this one, that its memory may go
    if not bench.small: torch.cuda.empty_cache()
    config = replace(bench.config, batch_size=batch, **options)
    accelerator, (config, model, vocabulary) = engine(config), begin(config, bench.data)
    learner = make_learner(config, model, vocabulary, bench.device)
    return Run(config, learner, bench.examples, bench.examples, accelerator, Silent())


def ask(bench, batch): # -> the Question of a step
    config = replace(bench.config, batch_size=batch)
    return questions(config, bench.examples, decide(config, bench.examples, 0))


def timed(bench, call): # -> seconds a call; the device is waited for around the whole block only
    for _ in range(bench.set.warm): call()
    bench.wait(); begun = time.perf_counter(); call(); bench.wait()
    count = min(50, max(2, math.ceil(bench.set.seconds / (time.perf_counter() - begun))))
    begun = time.perf_counter()
    for _ in range(count): call()
    bench.wait()
    return (time.perf_counter() - begun) / count


def attempt(call, **row): # -> the row with what was found, or with what went wrong
    try: return row | call()
    except Exception as error: return row | dict(error=one_line(error))


def one_line(error):
    if isinstance(error, torch.cuda.OutOfMemoryError): return "out of memory"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def measured(bench, batch, step): # -> the columns of a row
    if not bench.small: torch.cuda.reset_peak_memory_stats()
    took = timed(bench, step)
    memory = {} if bench.small else dict(peak_gib=round(torch.cuda.max_memory_allocated() / 2 ** 30, 2))
    return dict(pictures_per_second=round(batch / took, 1), milliseconds=round(1e3 * took, 3)) | memory


# ---- tests ----

def cuda_tests(): # -> pytest's names of the tests that ask for a GPU, those that compile last
    found = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            asks = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            if asks and ("cuda.is_available" in (text := ast.unparse(node)) or "@CUDA" in text):
                found.append(f"tests/{path.name}::{node.name}")
    return sorted(found, key=lambda name: "compiled" in name)


def tests(bench):
    command = [sys.executable, "-m", "pytest", "-v", "--tb=line", "-p", "no:cacheprovider", *cuda_tests()]
    child = Child(*command)
    try: done = child.wait(min(75, bench.left() - 2))
    finally: child.end()
    out = child.said(child.out)
    said = re.findall(r"^(tests/\S+::\S+).* (PASSED|FAILED|SKIPPED|ERROR)\b", out, re.M)
    count = {word.lower(): sum(word == how for _, how in said) for word in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    found = dict(tests=len(cuda_tests()), **count, ended_early=not done)
    if not said: found["error"] = (f"{out}\n{child.said(child.err)}".strip().splitlines() or ["no word"])[-1][:300]
    yield found | dict(failures=[name for name, how in said if how in ("FAILED", "ERROR")],
                       reasons=re.findall(r"^.*Error.*$", out, re.M)[:10])


# ---- limits ----

def peaks(bench):
    bench.quiet()
    a, b = (torch.randn(bench.set.matrix, bench.set.matrix, device=bench.device).bfloat16() for _ in range(2))
    def best(call): return min(timed(bench, call) for _ in range(3))
    flops = 2 * bench.set.matrix ** 3 / best(lambda: a @ b)
    source = torch.zeros(bench.set.copied, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    moved = 2 * bench.set.copied / best(lambda: target.copy_(source))
    sheet = DATA_SHEETS.get(bench.header["machine"], (None, None))
    yield dict(flops=flops, bytes=moved, data_sheet_flops=sheet[0], data_sheet_bytes=sheet[1])


class Moved(TorchDispatchMode):
    "Adds up bytes: inputs and outputs of each operation; of one that picks, only what is picked."
    new = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
    picks = {"index", "index_select", "gather", "embedding"}

    def __init__(self, kind): # of device
        super().__init__()
        self.kind, self.bytes = kind, 0

    def of(self, tree): # what an expanded tensor repeats is there once
        there = [x for x in tree_leaves(tree) if torch.is_tensor(x) and x.device.type == self.kind]
        return sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in there)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made, name = func(*args, **kwargs or {}), func.overloadpacket.__name__
        views = [one.alias_info and not one.alias_info.is_write for one in func._schema.returns]
        if any(views) or name in self.new: return made
        if name in self.picks: self.bytes += 2 * self.of(made) + self.of(args[1:])
        else: self.bytes += self.of((args, kwargs)) + self.of(made)
        return made


def counted(bench):
    found = []
    for batch in (bench.set.count, 2 * bench.set.count):
        run = new_run(bench, batch)
        one_step(run, 0.0)            # the first step also makes the optimiser's state
        with FlopCounterMode(display=False) as flops, Moved(bench.device.type) as moved: one_step(run, 0.0)
        found.append((flops.get_total_flops(), moved.bytes))
    (f1, b1), (f2, b2) = found        # a line through both: what each picture costs, and what each step
    yield dict(flops_a_picture=(f2 - f1) / bench.set.count, bytes_a_picture=(b2 - b1) / bench.set.count,
               bytes_a_step=2 * b1 - b2)


def shares(bench, row, fused=None): # of the limits, that a row reaches; `fused`: bytes of the compiled graphs
    limits, cost = (bench.rows.get(name, [{}])[0] for name in ("peaks", "counted"))
    if "flops" not in limits or "flops_a_picture" not in cost or "milliseconds" not in row: return {}
    seconds, batch = row["milliseconds"] / 1e3, row["batch"]
    done = dict(flops=cost["flops_a_picture"] * batch)
    if fused or row["compile"] == "no":
        done["bytes"] = cost["bytes_a_step"] + (fused or cost["bytes_a_picture"] * batch)
    return {f"share_of_{of}{name}": round(count / seconds / limits[of + name], 4) for name, count in done.items()
            for of in ("", "data_sheet_") if limits[of + name]}


# ---- agreement ----

def answer(cost, asked, share): # -> loss, all gradients in a row
    cost.zero_grad()
    torch.compiler.cudagraph_mark_step_begin()
    loss = (cost(*asked[:6]) * share).sum()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten().double().cpu() for p in cost.parameters() if p.grad is not None])


def share_of(asked, count): # the first so many pictures of a question share the loss
    share = asked.counts * (torch.arange(len(asked.counts), device=asked.counts.device) < count)
    return share / share.sum()


def reference(bench, asked): # the same of the first pictures, on the CPU in float32
    n = bench.set.agree
    asked = Question(*(x[:n].cpu() for x in asked))
    return answer(ScoredLoss(begin(bench.config, bench.data)[1].train()), asked, share_of(asked, n))


def difference(found, right, precision):
    loss, gradient = abs(found[0] / right[0] - 1), ((found[1] - right[1]).norm() / right[1].norm()).item()
    limits = LIMITS[precision]
    return dict(loss_differs=loss, gradients_differ=gradient, agrees=loss <= limits[0] and gradient <= limits[1])


def agreement(bench):
    asked = ask(bench, bench.set.agree)
    right = reference(bench, asked)
    for precision in LIMITS:
        run = new_run(bench, bench.set.agree, precision=precision)     # sets TF32, too: none for float32
        found = answer(run.cost, asked, share_of(asked, bench.set.agree))
        yield dict(precision=precision, **difference(found, right, precision))


# ---- speed ----

def step_row(bench, run, watch=False): # `watch`: once more, looking at the kernels
    row = measured(bench, run.config.batch_size, lambda: one_step(run, 0.0))
    row["loss"] = round(run.journal.loss.item(), 4)
    return row | (kernel_row(bench, run, row["milliseconds"]) if watch and not bench.small else {})


def speed(bench):
    bench.quiet()
    for batch, optimiser in [*((b, "adamw") for b in bench.set.batches), (bench.set.muon, "muon")]:
        row = attempt(lambda: step_row(bench, new_run(bench, batch, optimiser=optimiser)),
                      batch=batch, compile="no", optimiser=optimiser)
        yield row | shares(bench, row)


def kernel_row(bench, run, milliseconds, steps=3): # `milliseconds` of a step that nobody watches
    with torch.profiler.profile() as profile:
        for _ in range(steps): one_step(run, 0.0)
        bench.wait()
    cuda = torch.autograd.DeviceType.CUDA
    seen = [e for e in profile.key_averages() if e.device_type == cuda and not getattr(e, "is_user_annotation", False)]
    if not seen: return dict(outside_kernels="the profiler saw no kernel")
    total = sum(e.self_device_time_total for e in seen) / 1e3 / steps  # milliseconds a step
    longest = sorted(seen, key=lambda e: -e.self_device_time_total)[:12]
    return dict(kernels=sum(e.count for e in seen) // steps, kernel_milliseconds=round(total, 3),
                outside_kernels=round(1 - total / milliseconds, 4),
                longest=[dict(name=e.key[:120], calls=e.count // steps,
                              share=round(e.self_device_time_total / 1e3 / steps / total, 4)) for e in longest])


def kernels(bench):
    if bench.small: yield dict(left_out="only CUDA has kernels to be timed")
    for batch in bench.set.kernels:
        yield attempt(lambda: step_row(bench, new_run(bench, batch), watch=True), batch=batch, compile="no")


def fused_bytes(): # -> what the kernels of each graph read and write, a list that grows as they are compiled
    from torch._inductor.graph import GraphLowering
    found, codegen = [], GraphLowering.codegen
    def counting(graph):
        made = codegen(graph)
        try: found.append(sum(node.get_read_write_buffers_sizes() for node in graph.scheduler.nodes))
        except Exception as error: print("bytes are not counted:", one_line(error), file=sys.stderr)
        return made
    GraphLowering.codegen = counting
    return found


def compiled_row(bench, batch, how): # in a process of its own
    run = new_run(bench, batch, compile="no" if how == "aot_eager" else how)
    if how == "aot_eager": run.cost.compile(backend=how)
    asked, fused, begun = ask(bench, batch), fused_bytes(), time.perf_counter()
    found = answer(run.cost, asked, share_of(asked, bench.set.agree))
    row = dict(compiling_seconds=round(time.perf_counter() - begun, 1))
    if fused: row["fused_bytes"] = sum(fused)
    row |= difference(found, reference(bench, asked), "bfloat16")
    if not bench.small: torch.cuda.empty_cache()
    print("ready", flush=True)
    sys.stdin.readline()              # its turn
    return row | step_row(bench, run, watch=True)


def compiled(bench):
    bench.quiet()
    gc.collect()
    if not bench.small: torch.cuda.empty_cache()
    for (batch, how), child in bench.children.items():
        row = dict(batch=batch, compile=how, optimiser="adamw")
        if not child.wait(min(60, bench.left() - 2)): yield row | dict(left_out="no time is left"); continue
        found = [line for line in child.said(child.out).splitlines() if line.startswith('{"batch"')]
        last = (child.said(child.err).strip().splitlines() or ["not a word"])[-1][:300]
        row = json.loads(found[-1]) if found else row | dict(error=f"not ready in time, or it died: {last}")
        yield row | shares(bench, row, row.get("fused_bytes"))


# ---- beside others ----

def plain(bench):
    batch = bench.set.plain
    asked, run = ask(bench, batch), new_run(bench, batch)
    model = deepcopy(run.learner.model).to(memory_format=torch.contiguous_format)
    adam = torch.optim.AdamW(model.parameters(), lr=0.0)
    def plain_step(): # float32; a bfloat16 run has allowed TF32
        adam.zero_grad()
        loss = (plain_loss(model, *asked[:6]) * share_of(asked, batch)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        return loss.item()
    for form, call in (("plain", plain_step), ("ours", lambda: one_step(run, 0.0))):
        yield attempt(lambda: measured(bench, batch, call), form=form, batch=batch)


def qrnn(bench):
    batches, lengths, hidden = bench.set.qrnn
    for batch in batches:
        for length in lengths:
            x = torch.randn(batch, length, hidden, device=bench.device, requires_grad=True)
            layers = [kind(hidden, hidden, **more).to(bench.device) for kind, more in
                      ((QRNN, {}), (torch.nn.LSTM, dict(batch_first=True)))]
            for layer in layers: layer_seconds(layer, x)
            rounds = [[layer_seconds(layer, x) for layer in layers] for _ in range(3 if bench.small else 7)]
            ours, lstm = (round(1e3 * sorted(times)[len(times) // 2], 3) for times in zip(*rounds))
            yield dict(batch=batch, length=length, hidden=hidden, qrnn_ms=ours, lstm_ms=lstm,
                       ratio=round(lstm / ours, 3), paper=PAPER.get(batch, ""))


def filling(bench):
    sides, steps = bench.set.filling
    pipe = Inpainter.from_pretrained("photos", bench.device)
    picture = Image.fromarray(scenes(1, 64).images[0].permute(1, 2, 0).numpy())
    def fill(side):
        return pipe(picture.resize((side, side)), caption="a dog on the grass", num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(0))
    fill(sides[0])                    # what is loaded and chosen at the first call
    for side in sides:
        begun = time.perf_counter(); result = fill(side); took = time.perf_counter() - begun
        yield dict(side=side, steps=steps, seconds=round(took, 3), bits_per_dim=round(result.bits_per_dim[0], 3))


SECTIONS = (tests, agreement, counted, peaks, speed, kernels, compiled, filling, qrnn, plain)


def told(row): # in a line, without lists
    def text(value): return f"{value:.4g}" if isinstance(value, float) else str(value)
    return ", ".join(f"{k} {text(v)}" for k, v in row.items() if not isinstance(v, (list, dict)))


def work(bench, sections):
    "One section after the other, until the time is up."
    def stop(*_): raise OutOfTime
    def keep(name, row):
        bench.rows.setdefault(name, []).append(row)
        bench.save()
        print(f"{time.monotonic() - bench.begun:4.0f} s  {name}: {told(row)}", flush=True)
    signal.signal(signal.SIGALRM, stop)
    for section in sections:
        if bench.left() < 1: keep(section.__name__, dict(left_out="no time is left")); continue
        signal.setitimer(signal.ITIMER_REAL, bench.left())
        try:
            for row in section(bench): keep(section.__name__, row)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except OutOfTime: keep(section.__name__, dict(left_out="no time is left"))
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            keep(section.__name__, dict(error=one_line(error)))


def table(bench): # as text
    lines = [told(json.loads(bench.out.read_text()))]
    for name, rows in bench.rows.items():
        lines += ["", name]
        columns = list(dict.fromkeys(k for row in rows for k, v in row.items() if not isinstance(v, (list, dict))))
        cells = [columns] + [[told({c: row[c]})[len(c) + 1:] if c in row else "" for c in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells]
    return "\n".join(lines)


def main():
    names = {section.__name__: section for section in SECTIONS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", help="default: benchmarks/results/gpu_DEVICE.json")
    parser.add_argument("--sections", nargs="+", choices=names, default=list(names),
                        help="some of them; shares need peaks and counted")
    parser.add_argument("--size", type=int, help="side of the pictures in all but fillings [64; without a GPU 32]")
    parser.add_argument("--scored", type=int, help="variables scored in each [1024; without a GPU 96]")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    card = torch.cuda.get_device_name().lower().replace(" ", "_") if torch.cuda.is_available() else "cpu"
    args.out = args.out or ROOT / "benchmarks" / "results" / f"gpu_{card}.json"
    bench = Bench(args)
    if args.child:
        batch, how = int(args.child[0]), args.child[1]
        row = dict(batch=batch, compile=how, optimiser="adamw")
        return print(json.dumps(attempt(lambda: compiled_row(bench, batch, how), **row)))
    if "compiled" in args.sections:
        bench.children = {one: Child(sys.executable, __file__, "--size", str(bench.set.size), "--scored",
                                     str(bench.set.scored), "--child", *map(str, one)) for one in bench.set.compiled}
    try: work(bench, [names[name] for name in args.sections])
    finally:
        for child in bench.children.values(): child.end()
    print("\n" + table(bench))


if __name__ == "__main__": main()
