"""What the judges of the trained arms share: weights of a run, holes, their costs, and a file of results that grows.

A judge reads the run folders that runs.py makes, asks every run the same questions about the same unseen scenes, and
adds a row for each run to nbs/experiments/results/NAME.json. Rows that are there stay; a run that is not at its end is
left out, so that a judge may be called again when more runs are."""
import argparse, json, math, os, platform, re, time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from my3yearold.captions import Vocabulary
from my3yearold.config import read_config
from my3yearold.losses import bits, cross_entropy
from my3yearold.masks import mixture, orderless, subset
from my3yearold.model import OrderlessNADE
from my3yearold.sampling import Predict
from my3yearold.scenes import Scenes, hide_object, scenes
from my3yearold.training import prepare
from runs import finished

RESULTS = Path(__file__).resolve().parents[2] / "nbs/experiments/results"
SIZE, SEED = 32, 1007                                         # of the unseen scenes


def unseen(n: int) -> Scenes: return scenes(n, size=SIZE, seed=SEED)


def hole(kind: str, n: int) -> Tensor: # given (n, 3, 32, 32); `object` is no mask of the library, see `holes`
    "Holes of one kind, none of them empty; the first n of a longer row."
    given = mixture(4 * n, SIZE, kind, torch.Generator().manual_seed(SEED))
    some = (~given).flatten(1).any(1).nonzero()[:n, 0]
    assert len(some) == n, f"too few holes of kind {kind} hide anything"
    return given[some]


def holes(data: Scenes, kinds: dict[str, str]) -> dict[str, Tensor]: # name -> given (n, 3, 32, 32)
    return {name: hide_object(data, margin=2)[0] if kind == "object" else
            torch.zeros(data.images.shape, dtype=torch.bool) if kind == "everything" else hole(kind, len(data.images))
            for name, kind in kinds.items()}


def reading(model: OrderlessNADE, vocabulary: Vocabulary, captions: list[str]) -> Predict:
    return model.bind(*vocabulary.encode(captions))


@torch.no_grad()
def costs(
    model: OrderlessNADE, vocabulary: Vocabulary,
    images: Tensor,        # (N, 3, 32, 32)
    captions: list[str],
    given: Tensor,         # (N, 3, 32, 32), the hole is what is not
    at_once: bool = False, # every variable of the hole from the outside alone, not by the chain rule
    scored: int = 768,     # variables of each picture
) -> Tensor: # (N,) bits per hidden variable: the chain rule in a random order inside the hole, estimated at one place
    generator, found = torch.Generator().manual_seed(SEED), []
    for index in torch.arange(len(images)).split(32):
        outside = given[index]
        known = outside if at_once else orderless(len(index), SIZE, generator, ~outside, stratified=True)
        where = subset(~known, scored, generator)
        predict = reading(model, vocabulary, [captions[i] for i in index.tolist()])
        cost = torch.zeros(known.shape).masked_scatter(where, cross_entropy(predict(images[index], known, where),
                                                                            images[index][where]))
        found.append(bits(cost.flatten(1).sum(1) / where.flatten(1).sum(1)))
    return torch.cat(found)


def mean_and_error(values: Tensor) -> list[float]: # mean over pictures, standard error
    return [round(values.mean().item(), 5), round(values.std().item() / math.sqrt(len(values)), 5)]


# ---- files ----

def arguments(what: str, **numbers: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=what.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="the folder that runs.py filled")
    parser.add_argument("--seeds", type=int, default=3)
    for name, number in numbers.items(): parser.add_argument(f"--{name}", type=int, default=number)
    return parser.parse_args()


class Rows:
    "Rows of results, one for each run: what is there stays, and the file is whole after each row."
    def __init__(self, name: str, script: str, args: argparse.Namespace, part: str = "scenes"):
        self.path, self.part, self.args = RESULTS / f"{name}.json", part, args
        numbers = {k: v for k, v in vars(args).items() if isinstance(v, int)}
        words = " ".join(f"--{k} {v}" for k, v in numbers.items())
        self.head = dict(command=f"python benchmarks/experiments/{script} {words}",
                         seeds=f"runs 0 to {args.seeds - 1}; unseen scenes {SEED}",
                         device=f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)",
                         python=platform.python_version(), torch=torch.__version__)
        there = json.loads(self.path.read_text()) if self.path.exists() else {}
        before = there.get(part, {})
        same = all(before.get(key) == value for key, value in self.head.items())
        self.rows, self.more = (before.pop("rows", []), before) if same else ([], {})

    def missing(self, arms: list[str], needs_runs: bool) -> Iterator[tuple[str, int]]: # arm and seed, not judged yet
        done, ready = {(row["arm"], row["seed"]) for row in self.rows}, finished(self.args.runs)
        for seed in range(self.args.seeds):
            for arm in arms:
                if (arm, seed) not in done and ((arm, seed) in ready or not needs_runs): yield arm, seed

    def judge(self, arms: list[str], how: Callable[[str, int], dict], needs_runs: bool = True) -> None:
        "how(arm, seed) gives the figures of a row; of runs at their end, unless it needs none."
        for arm, seed in self.missing(arms, needs_runs):
            begun = time.perf_counter()
            row = how(arm, seed)
            self.rows.append(dict(arm=arm, seed=seed) | row)
            self.rows.sort(key=lambda row: (arms.index(row["arm"]), row["seed"]))
            print(f"{arm}, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
            self.write()

    def write(self, **more) -> None:
        self.more |= more
        everything = json.loads(self.path.read_text()) if self.path.exists() else {}
        more = {k: v for k, v in self.more.items() if k not in self.head}
        everything[self.part] = self.head | more | dict(rows=self.rows)
        text = re.sub(r"\[[^][{}]*\]", lambda row: " ".join(row[0].split()), json.dumps(everything, indent=1))
        partial = self.path.with_suffix(".part")
        partial.write_text(text + "\n")
        os.replace(partial, self.path)


def weights(args: argparse.Namespace, arm: str, seed: int) -> tuple[OrderlessNADE, Vocabulary]:
    """The averaged weights after the last step. Not the best ones that a run keeps: it chooses those by what whole
    pictures cost, which would be unfair to arms that never saw one."""
    _, found = prepare(read_config(args.runs / f"{arm}-{seed}"), None, True, torch.device("cpu"))
    return found.average, found.vocabulary
