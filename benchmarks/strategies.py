"""Every sampling strategy on the same holes, at the same numbers of evaluations, under one fixed scorer.

    python benchmarks/strategies.py [scenes|WEIGHTS] [--pictures 128] [--evaluations 8 32 128 512]
    python benchmarks/strategies.py photos --data ARCHIVE --pictures 16

Scenes: unseen scenes with an object fully hidden, temperature 1 unless a name says otherwise. Photographs: the
centres of an archive's validation pictures, with the usual picture metrics, beside biharmonic interpolation. Price:
bits per hidden variable under the weights themselves, in the same random orders for every filling (page
17_likelihood); the nearer to the truth's, the better (over_truth: paired differences). All errors are standard errors
over pictures. A generator for each picture. Writes benchmarks/results/strategies_NAME.json after each row, which page
22_strategies prints; rows of earlier runs on as many pictures stay. A file holds the seconds of one machine only:
rows added on another go without."""
import argparse, json, math, platform, time
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.ancestral import ancestral
from my3yearold.budgets import growing, in_pieces, losses_by_known, spend
from my3yearold.data import course_archive
from my3yearold.gibbs import Filling, chain_of_2017, constant, cosine_schedule, gibbs, mending_schedule
from my3yearold.guidance import guided
from my3yearold.inpaint import prices, strategies
from my3yearold.saving import weights_folder, load_model
from my3yearold.yardsticks import biharmonic, picture_metrics
from my3yearold.masks import centre
from my3yearold.remasking import remasking
from my3yearold.scenes import guess_shape, hide_object, obedience, scenes
from quality import extreme, layout_error, neighbours

def named(name, temperature): # -> (predict, images, given, evaluations, generators) -> states, one of the pipeline's
    return lambda p, x, g, k, r: strategies[name](p, x, g, k, temperature=temperature, generator=r)


RUNS = { # name -> (predict, images, given, evaluations, fitted turns, generators) -> states
    "one shot": lambda p, x, g, k, fitted, r: gibbs(p, x, g, 1, generator=r),
    "ancestral, equal turns": lambda p, x, g, k, fitted, r: ancestral(p, x, g, evaluations=k, generator=r),
    "ancestral, fitted turns": lambda p, x, g, k, fitted, r: ancestral(p, x, g, evaluations=fitted, generator=r),
    "ancestral, one by one": lambda p, x, g, k, fitted, r: ancestral(p, x, g, generator=r),
    "ancestral, greedy": lambda p, x, g, k, fitted, r: ancestral(p, x, g, "greedy", k, r),
    "ancestral, antigreedy": lambda p, x, g, k, fitted, r: ancestral(p, x, g, "antigreedy", k, r),
    "ancestral, margin": lambda p, x, g, k, fitted, r: ancestral(p, x, g, "margin", k, r),
    "remasking, rate 0.05": lambda p, x, g, k, fitted, r: remasking(p, x, g, k, 0.05, generator=r),
    "surest kept": lambda p, x, g, k, fitted, r: remasking(p, x, g, k, 0.0, "surest", r),
    "Gibbs, Yao": lambda p, x, g, k, fitted, r: gibbs(p, x, g, k, generator=r),
    "Gibbs, cosine": lambda p, x, g, k, fitted, r: gibbs(p, x, g, k, cosine_schedule, generator=r),
    "Gibbs, ancestral start": lambda p, x, g, k, fitted, r: named("gibbs", 1.0)(p, x, g, k, r),
    "Gibbs, ancestral start at temperature 1": lambda p, x, g, k, fitted, r: gibbs(
        p, x, g, k, mending_schedule, generator=r, start=Filling(growing(k // 2))),
    "Gibbs, ancestral start in equal turns": lambda p, x, g, k, fitted, r: gibbs(
        p, x, g, k, mending_schedule, generator=r, start=Filling(k // 2, temperature=0.75)),
    "the default: spread, central 0.7": lambda p, x, g, k, fitted, r: named("spread", 0.7)(p, x, g, k, r),
    "the default, guided": lambda p, x, g, k, fitted, r: named("spread", 0.7)(p, x, g, k // 2, r),  # a step is two
    "ancestral, spread order": lambda p, x, g, k, fitted, r: ancestral(p, x, g, "spread", growing(k, 30), r),
    "Gibbs, ancestral start, guided": lambda p, x, g, k, fitted, r: named("gibbs", 1.0)(p, x, g, k // 2, r),
    "chain of 2017: black start, eta 0.7": lambda p, x, g, k, fitted, r: chain_of_2017(p, x, g, k, "black", 0.7, r),
    "chain of 2017: noise start, eta 0.4": lambda p, x, g, k, fitted, r: chain_of_2017(p, x, g, k, "noise", 0.4, r),
    "Gibbs, ancestral blocks of 4 turns": lambda p, x, g, k, fitted, r: gibbs(
        p, x, g, 1 + (k - 1) // 4, constant(0.5), "ancestral", r, inner=4),
}
ONCE = ("one shot", "ancestral, one by one")     # whatever the evaluations asked for


def mean_and_error(values): # -> (mean, standard error)
    values = torch.as_tensor(values, dtype=torch.float64)
    return [round(values.mean().item(), 4), round((values.std() / math.sqrt(len(values))).item(), 4)]


def ratio_and_error(a, b): # (N,), (N,) -> ratio of their sums, its standard error over pictures (delta method)
    ratio = a.sum() / b.sum()
    return round(ratio.item(), 5), round(((a - ratio * b).std() * math.sqrt(len(a)) / b.sum()).item(), 5)


def measure(images, truth, given, paid, objects): # paid: what each picture costs, as `prices` says
    hidden = ~given
    rough, rough_error = ratio_and_error(neighbours(images, given)[0], neighbours(truth, given)[0])
    ends, size = ((where & hidden).double().flatten(1).sum(1) for where in (extreme(images), hidden))
    share, share_error = ratio_and_error(ends, size)
    row = dict(price=mean_and_error(paid), roughness=rough, roughness_error=rough_error, extremes=share,
               extremes_error=share_error)
    if objects is None:
        row |= dict(layout_error=round(layout_error(images, truth, given), 2))
        if torch.equal(images, truth): return row
        each = [picture_metrics(*three) for three in zip(images, truth, given)]
        return row | {k: mean_and_error([m[k] for m in each]) for k in ("psnr", "ssim", "l1")}
    shapes = [guess == thing.shape for guess, thing in zip(guess_shape(images, given), objects)]
    colours = obedience(images, given, objects).double()
    return row | dict(colour=mean_and_error(colours), shape=mean_and_error([float(s) for s in shapes]))


def mean_picture(predict, images, given): # the mean of every hidden variable's distribution, from one evaluation
    mean = images.clone()
    mean[~given] = (predict(images * given, given, ~given).softmax(-1) @ torch.arange(256.0)).round().to(torch.uint8)
    return mean


def holes(args): # -> images, given, captions, objects, and the same of other pictures to fit turns on
    if not args.data:
        drawn, other = scenes(args.pictures, seed=1003), scenes(16, seed=1004)
        given, objects = hide_object(drawn)
        captions, other_captions = ([several[0] for several in them.captions] for them in (drawn, other))
        return drawn.images, given, captions, objects, other.images, hide_object(other)[0], other_captions
    data, n = course_archive(args.data, "valid"), args.pictures
    images, captions = torch.as_tensor(data.images), [(c or [""])[0] for c in data.captions]
    return images[:n], centre(n, 64), captions[:n], None, images[-16:], centre(16, 64), captions[-16:]


def run(name, model, vocabulary, images, given, captions, k, fitted): # -> (N, 3, H, W), seconds per picture
    "In batches of 16 with holes of about a size, so that none waits long for the others."
    filled, start = images.clone(), time.perf_counter()
    for index in (~given).flatten(1).sum(1).argsort(stable=True).split(16):
        predict = model.bind(*vocabulary.encode([captions[i] for i in index.tolist()]))
        if "guided" in name: predict = guided(predict, model.bind(*vocabulary.encode([""] * len(index))))
        generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
        *_, state = RUNS[name](predict, images[index], given[index], k, fitted, generators)
        filled[index] = state.images
    return filled, (time.perf_counter() - start) / len(images)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", default="scenes")
    parser.add_argument("--data", help="an archive of photographs; none: scenes")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--strategies", nargs="+", choices=list(RUNS),
                        help="only these [all but one by one, and guided only where there are captions]")
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    images, given, captions, objects, other, other_given, other_captions = holes(args)
    predict = model.bind(*vocabulary.encode(captions))
    told, chance = model.bind(*vocabulary.encode(other_captions)), torch.Generator().manual_seed(0)
    losses = losses_by_known(told, other, other_given, generator=chance)
    fair = prices(predict, images, given)
    def row(name, k, filled, n=len(images), **more):
        paid = prices(model.bind(*vocabulary.encode(captions[:n])), filled, given[:n])
        over = mean_and_error([ours - its for ours, its in zip(paid, fair)])
        measured = measure(filled, images[:n], given[:n], paid, objects and objects[:n])
        return dict(strategy=name, evaluations=k, **measured, over_truth=over, **more)
    rows = [row("the truth", 0, images)]
    if args.data: rows.append(row("biharmonic", 0, biharmonic(images, given)))
    if args.data: rows.append(row("the network's mean", 1, mean_picture(predict, images, given)))
    pointless = [] if any(captions) else [name for name in RUNS if "guided" in name]
    spared = ["ancestral, one by one", *pointless]     # the first is slow
    names = args.strategies or [name for name in RUNS if name not in spared]
    todo = [(name, k) for k in args.evaluations for name in names if name not in ONCE or k == args.evaluations[0]]
    for name, k in tqdm(todo, desc="strategies"):
        n = 32 if name == "ancestral, one by one" else len(images)
        fitted = spend(in_pieces(losses, max(256, 2 * k)), k)[0]
        filled, seconds = run(name, model, vocabulary, images[:n], given[:n], captions[:n], k, fitted)
        if name in ONCE: k = 1 if name == "one shot" else round((~given[:n]).sum().item() / n)
        rows.append(row(name, k, filled, n, pictures=n, seconds_per_picture=round(seconds, 3)))
        save(args, rows)


def save(args, rows):
    """Into the results file; rows of the same strategy and evaluations are replaced, others that are there stay. Times
    of another machine do not belong beside theirs."""
    name = "photos" if args.data else "scenes"
    path = Path(__file__).parent / "results" / f"strategies_{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("pictures") != args.pictures: before = dict(rows=[], commands=[])
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if before.setdefault("machine", machine) != machine:
        rows = [{k: v for k, v in row.items() if k != "seconds_per_picture"} for row in rows]
    new = {(row["strategy"], row["evaluations"]): row for row in rows}
    merged = {(row["strategy"], row["evaluations"]): row for row in before["rows"]} | new
    words = [f"python benchmarks/strategies.py {name}", *([f"--data {Path(args.data).name}"] if args.data else []),
             f"--pictures {args.pictures} --evaluations {' '.join(map(str, args.evaluations))}"]
    if args.strategies: words.append(f"--strategies {' '.join(map(repr, args.strategies))}")
    order = list(RUNS)
    def place(row): return row["evaluations"], order.index(row["strategy"]) if row["strategy"] in order else -1
    commands = [*dict.fromkeys([*before["commands"], " ".join(words)])]
    found = dict(commands=commands, machine=before["machine"], torch=torch.__version__, pictures=args.pictures,
                 temperature=1.0, rows=sorted(merged.values(), key=place))
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
