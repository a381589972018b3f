"""Operations, seconds and results of a training step and of a filling's evaluation: this checkout against another.

    git worktree add /tmp/before 8a76f87
    python benchmarks/kernels.py /tmp/before [--rounds 9]

Each checkout works in a process of its own, and the two take turns, so that a busy machine slows both alike. A default
step: 8 scenes of 64x64, 1,024 variables scored; forward with the loss, backward, and the optimiser with clipping and
the average of the weights. Operations are what PyTorch dispatches; views among them start no kernel. Seconds are of the
processor, in one thread, medians. Writes results/kernels.json."""
import argparse, json, os, platform, statistics, subprocess, sys, time
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from my3yearold.captions import Vocabulary
from my3yearold.completion import adaptive_means, pull_push
from my3yearold.losses import cross_entropy
from my3yearold.model import OrderlessNADE
from my3yearold.muon import Muon
from my3yearold.scenes import scenes

BATCH, SIZE, SCORED, STEPS = 8, 64, 1024, 20


class Count(TorchDispatchMode):
    """Counts what is dispatched: views, which only say where numbers lie, apart from what works on numbers. Autograd's
    `detach`, one for each saved result and each parameter's gradient, and mere allocations do not count."""
    def __init__(self):
        super().__init__()
        self.views = self.kernels = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if operation.is_view or name == "_unsafe_view": self.views += name != "detach"
        elif operation.namespace == "aten" and not name.startswith(("empty", "new_empty")): self.kernels += 1
        return operation(*args, **(kwargs or {}))


def counted(work): # -> [views, kernels]
    with Count() as count: work()
    return [count.views, count.kernels]


class Bench:
    "A model, its optimiser and average, and the questions of twenty steps, all from one seed."
    def __init__(self, optimiser="adamw"):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.data = scenes(STEPS * BATCH, SIZE, seed=1)
        self.vocabulary = Vocabulary.build(self.data.captions)
        self.model = OrderlessNADE(len(self.vocabulary), SIZE)
        for m in self.model.modules():       # the blocks start as the identity; a benchmark wants them at work
            if hasattr(m, "conv2"): torch.nn.init.kaiming_normal_(m.conv2.weight, 0.3)
        self.average, self.precision = deepcopy(self.model).requires_grad_(False), "float32"
        options = dict(lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        matrices = [p for p in self.model.trunk.parameters() if p.ndim >= 2]
        self.optimiser = (torch.optim.AdamW(self.model.parameters(), **options) if optimiser == "adamw"
                          else Muon(self.model.parameters(), matrices, **options))

    def question(self, step):
        chance = torch.Generator().manual_seed(step)
        rows = range(step % STEPS * BATCH, (step % STEPS + 1) * BATCH)
        images = self.data.images[rows[0]:rows[-1] + 1]
        ids, lengths = self.vocabulary.encode([self.data.captions[i][0] for i in rows])
        given = torch.rand(images.shape, generator=chance) < torch.rand(BATCH, 1, 1, 1, generator=chance)
        return images, given, ids, lengths, torch.randint(SIZE ** 2, (BATCH, 3, SCORED // 3), generator=chance)

    def forward(self, images, given, ids, lengths, index):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.model(images, given, ids, lengths, index)
            self.loss = cross_entropy(logits, images.flatten(2).gather(2, index)).mean()

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 0.01)

    def step(self, k=0):
        self.optimiser.zero_grad()
        self.forward(*self.question(k))
        self.loss.backward()
        self.update()


def operations(): # -> {part: [views, kernels]}
    found = {}
    for name in ("adamw", "muon"):
        bench = Bench(name)
        bench.step()
        bench.optimiser.zero_grad()
        question = bench.question(1)
        found["forward"] = counted(lambda: bench.forward(*question))
        found["backward"] = counted(lambda: bench.loss.backward())
        found[f"{name}, clip, average"] = counted(bench.update)
    return found


def results(file): # writes logits, and parameters after 20 steps
    found = {}
    for name in ("adamw", "muon"):
        bench = Bench(name)
        with torch.no_grad(): found["logits"] = bench.model(*bench.question(0)).log_softmax(-1).contiguous()
        for k in range(STEPS): bench.step(k)
        found[name] = bench.model.state_dict()
    torch.save(found, file)


def evaluation(bench, batch): # -> a function: a tenth of the centre, as samplers ask for it
    images = bench.data.images[:batch]
    ids, lengths = bench.vocabulary.encode([c[0] for c in bench.data.captions[:batch]])
    predict, given = bench.model.bind(ids, lengths), torch.ones_like(images, dtype=torch.bool)
    given[..., 16:48, 16:48] = False
    where = ~given & (torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.1)
    return lambda: predict(images, given, where)


def pieces(): # -> {name: function}
    benches = {name: Bench(name) for name in ("adamw", "muon")}
    def step(name, precision):
        def one():
            benches[name].precision = precision
            benches[name].step()
        return one
    found = {f"step, {name}, {precision}": step(name, precision)
             for name in benches for precision in ("float32", "bfloat16")}
    with torch.no_grad():
        for batch in (1, 16): found[f"evaluation, batch {batch}"] = torch.no_grad()(evaluation(benches["adamw"], batch))
    return found


def head(rounds=15): # -> {precision of its products: median seconds, forward and backward}
    "The head alone inside bfloat16's autocast: in float32, as it is, and as it would be if it left autocast on."
    bench = Bench()
    images, given, _, _, index = bench.question(0)
    guess = pull_push(images.float() / 127.5 - 1, given)
    means, found = adaptive_means(guess, given)[0], {"float32": [], "bfloat16": []}
    features = torch.randn(BATCH, 32, SIZE, SIZE).to(torch.bfloat16, memory_format=torch.channels_last)
    left = dict(float32=torch.autocast, bfloat16=lambda *_, **__: nullcontext())
    for _ in range(rounds):
        for precision, context in left.items():
            begun = time.process_time()
            with torch.autocast("cpu", torch.bfloat16), patch("torch.autocast", context):
                logits = bench.model.head(features.requires_grad_(), guess, index, means)
            cross_entropy(logits, images.flatten(2).gather(2, index)).mean().backward()
            found[precision].append(time.process_time() - begun)
    return {precision: statistics.median(seconds[1:]) for precision, seconds in found.items()}


def work(): # the other end of `Worker`: does what a line asks for, and answers in a line
    timed = {}
    for line in sys.stdin:
        what = json.loads(line)
        if what[0] == "operations": answer = operations()
        elif what[0] == "results": answer = results(what[1])
        elif what[0] == "head": answer = head()
        elif what[0] == "names": answer = list(timed := pieces())
        else:
            begun = time.process_time()
            for _ in range(what[1]): timed[what[0]]()
            answer = (time.process_time() - begun) / what[1]
        print(json.dumps(answer), flush=True)


class Worker:
    "A process that uses the package of one checkout."
    def __init__(self, checkout):
        environment = os.environ | dict(PYTHONPATH=str(checkout), OMP_NUM_THREADS="1")
        self.process = subprocess.Popen([sys.executable, __file__, "--work"], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, *what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def compared(workers, folder): # -> {what: largest difference}
    for name, worker in workers.items(): worker("results", str(folder / f"{name}.pt"))
    before, after = (torch.load(folder / f"{name}.pt") for name in workers)
    for name in workers: (folder / f"{name}.pt").unlink()
    found = {"log-probabilities": (before["logits"] - after["logits"]).abs().max().item()}
    for name in ("adamw", "muon"):
        found[f"parameters after {STEPS} steps, {name}"] = max(
            (p - after[name][k]).abs().max().item() for k, p in before[name].items())
    return found


def timed(workers, rounds): # -> {piece: {checkout: median seconds}}
    names, = {tuple(worker("names")) for worker in workers.values()}
    repeats = {name: 10 if name == "evaluation, batch 1" else 1 for name in names}
    found = {name: {checkout: [] for checkout in workers} for name in names}
    for k in range(rounds + 1):
        for name in names:
            for checkout, worker in workers.items():
                seconds = worker(name, repeats[name])
                if k: found[name][checkout].append(seconds)              # the first round warms up
    return {name: {checkout: statistics.median(s) for checkout, s in by.items()} for name, by in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    here, results_folder = Path(__file__).resolve().parent.parent, Path(__file__).resolve().parent / "results"
    workers = dict(before=Worker(args.before.resolve()), after=Worker(here))
    counts = {name: worker("operations") for name, worker in workers.items()}
    print(f"{'operations (kernels)':24s} {'before':>13} {'after':>13}")
    for part in counts["after"]:
        before, after = counts["before"][part], counts["after"][part]
        print(f"{part:24s} {sum(before):6d} ({before[1]:4d}) {sum(after):6d} ({after[1]:4d})"
              f"   {sum(after) / sum(before):5.2f} ({after[1] / before[1]:.2f})")
    differences, seconds = compared(workers, results_folder), timed(workers, args.rounds)
    of_head = workers["after"]("head")
    print("head alone under bfloat16:", ", ".join(f"{1e3 * s:.1f} ms in {name}" for name, s in of_head.items()))
    for name, difference in differences.items(): print(f"largest difference of {name}: {difference:.1e}")
    for name, by in seconds.items():
        print(f"{name:24s} {1e3 * by['before']:9.1f} {1e3 * by['after']:9.1f} ms  {by['after'] / by['before']:5.2f}")
    machine = f"{platform.machine()}, 1 thread"
    command = f"python benchmarks/kernels.py BEFORE --rounds {args.rounds}"
    commit = subprocess.run(["git", "-C", args.before, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    found = dict(command=command, before=commit.stdout.strip(), machine=machine, torch=torch.__version__,
                 operations=counts, differences=differences, seconds=seconds, head=of_head)
    (results_folder / "kernels.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": work() if sys.argv[1:] == ["--work"] else main()
