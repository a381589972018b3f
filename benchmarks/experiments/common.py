"""What the commands benchmarks/experiments/*.py share: pictures with holes, fillings, intervals, files of results.

Each of them measures on scenes, and with `--data ARCHIVE` on photographs too, and writes
nbs/experiments/results/NAME.json, which the page of that name draws. Intervals are 95 % bootstraps over pictures."""
import argparse, json, os, platform, re, sys, time
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import Tensor
from my3yearold.captions import Vocabulary
from my3yearold.data import course_archive, sample_photos
from my3yearold.inpaint import prices
from my3yearold.masks import centre
from my3yearold.saving import load_model, weights_folder
from my3yearold.scenes import SceneObject, guess_shape, hide_object, obedience, scenes
from my3yearold.show import contact_sheet
sys.path.append(str(Path(__file__).resolve().parents[1]))     # the other benchmarks
from quality import extreme, neighbours  # noqa: E402
from samplers import layout, patches  # noqa: E402

RESULTS = Path(__file__).resolve().parents[2] / "nbs/experiments/results"


def save_sheet(name: str, columns: list[Tensor]) -> None: # (N, 3, H, W) each; a row for each picture
    sheet = contact_sheet([column[i] for i in range(len(columns[0])) for column in columns], len(columns), gap=0)
    sheet.save(RESULTS / f"{name}.png", optimize=True)


@dataclass
class Holes:
    "Pictures, their holes, and the network that fills them."
    name: str                          # scenes, or photos: of the weights
    images: Tensor                     # (N, 3, 64, 64) uint8
    given: Tensor                      # (N, 3, 64, 64) bool
    captions: list[str]
    objects: list[SceneObject] | None  # what is hidden in each scene
    model: torch.nn.Module
    vocabulary: Vocabulary

    def reading(self, index: Tensor, captions: list[str] | None = None): # -> predict, of those pictures
        return self.model.bind(*self.vocabulary.encode([(captions or self.captions)[i] for i in index.tolist()]))

    def batches(self, size: int = 16): # of holes of about a size, so that none waits long for the others
        return (~self.given).flatten(1).sum(1).argsort(stable=True).split(size)


def scenes_with_holes(n: int, seed: int = 1006) -> Holes: # an object of each fully hidden
    model, vocabulary, _ = load_model(weights_folder("scenes"))
    drawn = scenes(n, seed=seed)
    given, objects = hide_object(drawn)
    return Holes("scenes", drawn.images, given, [c[0] for c in drawn.captions], objects, model, vocabulary)


def photographs(archive: str, n: int) -> Holes: # centres of validation pictures spread evenly over an archive's
    model, vocabulary, _ = load_model(weights_folder("photos"))
    data = course_archive(archive, "valid")
    place = torch.linspace(0, len(data.images) - 1, n).round().long()
    captions = [(data.captions[i] or [""])[0] for i in place.tolist()]
    return Holes("photos", torch.as_tensor(data.images)[place], centre(n, 64), captions, None, model, vocabulary)


def shown_photographs() -> Holes: # scikit-image's, for figures: a page may show these
    model, vocabulary, _ = load_model(weights_folder("photos"))
    data = sample_photos()
    return Holes("photos", data.images, centre(len(data), 64), [c[0] for c in data.captions], None, model, vocabulary)


@torch.no_grad()
def fill(holes: Holes, sampler, look=None): # -> (N, 3, H, W); what `look` saw, {name: (steps, N)}
    """`sampler(predict, images, given, generators)` gives states; a generator for each picture, the same whatever the
    sampler. `look(state, index)` says of each state a number for each picture, {name: (n,)}."""
    filled, seen = holes.images.clone(), {}
    for index in holes.batches():
        generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
        steps = []
        for state in sampler(holes.reading(index), holes.images[index], holes.given[index], generators):
            if look: steps.append(look(state, index))
        filled[index] = state.images
        for name in steps[0] if steps else ():
            columns = seen.setdefault(name, torch.zeros(len(steps), len(holes.images), dtype=torch.float64))
            columns[:, index] = torch.stack([step[name].double() for step in steps])
    return filled, seen


def cost(holes: Holes, filled: Tensor) -> Tensor: # (N,) bits per hidden variable, all in the same orders
    paid = torch.zeros(len(filled), dtype=torch.float64)
    for index in holes.batches():
        paid[index] = torch.tensor(prices(holes.reading(index), filled[index], holes.given[index]), dtype=torch.float64)
    return paid


# ---- intervals ----

def rounded(values: Tensor) -> list[float]: return [round(x, 5) for x in values.tolist()]



def mean(values): return values.mean(-1)


def ratio(above, below): return above.sum(-1) / below.sum(-1)


def interval(statistic, *columns: Tensor, draws: int = 2000) -> list[float]: # -> value, and the ends of its interval
    "`statistic` of columns (..., N), pictures last; the pictures are drawn again, with replacement, `draws` times."
    columns = [torch.as_tensor(column, dtype=torch.float64) for column in columns]
    again = torch.randint(len(columns[0]), (draws, len(columns[0])), generator=torch.Generator().manual_seed(0))
    ends = statistic(*[column[again] for column in columns]).quantile(torch.tensor([0.025, 0.975]).double())
    return [round(x, 5) for x in [statistic(*columns).item(), *ends.tolist()]]


def intervals(statistic, *columns: Tensor) -> list[list[float]]: # the same for each row of (rows, N)
    return [interval(statistic, *row) for row in zip(*columns)]


def roughness(filled: Tensor, truth: Tensor, given: Tensor): # -> two columns, of which `ratio` is the roughness
    return neighbours(filled, given)[0], neighbours(truth, given)[0]


def ends(filled: Tensor, given: Tensor): # -> two columns, of which `ratio` is the share of extreme values
    return tuple(where.double().flatten(1).sum(1) for where in (extreme(filled) & ~given, ~given))


def judged(holes: Holes, filled: Tensor, paid: Tensor, fair: Tensor) -> dict[str, list]: # name -> value and interval
    "Cost over the truth's, grain, extremes; colour and shape of scenes; layout and patches of photographs."
    found = dict(over_truth=interval(mean, paid - fair),
                 roughness=interval(ratio, *roughness(filled, holes.images, holes.given)),
                 extremes=interval(ratio, *ends(filled, holes.given)))
    if holes.objects is None:
        distance, error = patches(filled, holes.images)
        return found | dict(layout=interval(mean, layout(filled, holes.images)), patches=[distance, error])
    shapes = torch.tensor([guess == it.shape for guess, it in zip(guess_shape(filled, holes.given), holes.objects)])
    colours = obedience(filled, holes.given, holes.objects)
    return found | dict(colour=interval(mean, colours), shape=interval(mean, shapes))


# ---- files ----

def arguments(what: str, scenes: int, photos: int, **more: int) -> argparse.Namespace: # of a command
    parser = argparse.ArgumentParser(description=what.split("\n")[0])
    parser.add_argument("--data", help="an archive of photographs [none: scenes alone]")
    parser.add_argument("--only", choices=["scenes", "photos"])
    for name, number in dict(scenes=scenes, photos=photos, **more).items():
        parser.add_argument(f"--{name}", type=int, default=number)
    return parser.parse_args()


class Record:
    "The part of a file of results that tells of one kind of pictures; written anew after each entry."
    def __init__(self, name: str, holes: Holes, args: argparse.Namespace):
        self.path, self.part, self.begun = RESULTS / f"{name}.json", holes.name, time.perf_counter()
        data = f" --data {Path(args.data).name}" if holes.name == "photos" else ""
        numbers = {k: v for k, v in vars(args).items() if isinstance(v, int)}
        script = f"python benchmarks/experiments/{Path(sys.argv[0]).name}"
        words = [script + data, *(f"--{k} {v}" for k, v in numbers.items())]
        self.found = dict(
            command=" ".join(words), pictures=len(holes.images),
            seeds="scenes 1006; " * (holes.name == "scenes") + "generator i for picture i",
            device=f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)",
            python=platform.python_version(), torch=torch.__version__)

    def __setitem__(self, key: str, value) -> None:
        self.found[key] = value
        self.found["minutes"] = round((time.perf_counter() - self.begun) / 60, 1)
        everything = json.loads(self.path.read_text()) if self.path.exists() else {}
        everything[self.part] = self.found
        partial = self.path.with_suffix(".part")
        text = json.dumps(everything, indent=1)
        text = re.sub(r"\[[^][{}]*\]", lambda row: " ".join(row[0].split()), text)   # a list of numbers on one line
        partial.write_text(text + "\n")
        os.replace(partial, self.path)


def parts(args: argparse.Namespace): # -> the holes asked for, one kind after the other
    if args.only != "photos": yield scenes_with_holes(args.scenes)
    if args.data and args.only != "scenes": yield photographs(args.data, args.photos)
