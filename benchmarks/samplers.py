"""Samplers between being right on average and looking like photographs, on the same holes and budgets.

    python benchmarks/samplers.py coco-tiles.tar.bz2 [--pictures 48] [--evaluations 16 64] [--samplers NAME ...]
    python benchmarks/samplers.py scenes [--pictures 200] [--evaluations 16 32]

Photographs: the centres of validation pictures spread evenly over an archive's. Scenes: an object fully hidden,
guided at scale 3; each evaluation of theirs is two. Errors are standard errors over pictures; those of the patches'
distance by the jackknife over four groups. A generator for each picture. Price over truth: bits per hidden variable
under the weights themselves, filling less truth. Writes benchmarks/results/samplers_NAME.json after each row; rows of
earlier runs with as many pictures stay."""
import argparse, json, platform, time
from pathlib import Path
import torch
import torch.nn.functional as F
from tqdm import tqdm
from my3yearold.budgets import growing
from my3yearold.data import course_archive
from my3yearold.gibbs import Filling, gibbs, mending_schedule
from my3yearold.guidance import guided
from my3yearold.inpaint import TEMPERATURES, prices, strategies
from my3yearold.yardsticks import biharmonic, patch_distance, picture_metrics, telea
from my3yearold.masks import centre
from my3yearold.sampling import Central
from my3yearold.saving import load_model, weights_folder
from my3yearold.scenes import guess_shape, hide_object, obedience, scenes
from strategies import mean_and_error, mean_picture, ratio_and_error
from quality import extreme, neighbours


def mended(order, start, mend, share=0.5, ratio=30.0): # -> sampler
    "An ancestral filling in growing turns of the order, at the temperature `start`; then blocks, at `mend`."
    def sample(predict, images, given, k, generators):
        turns = growing(k - round(share * k), ratio)
        return gibbs(predict, images, given, k, mending_schedule, generator=generators, temperature=mend,
                     start=Filling(turns, order, start))
    return sample


SAMPLERS = { # name -> (predict, images, given, evaluations, generators) -> states
    **{name: (lambda p, x, g, k, r, run=run, t=TEMPERATURES[name]: run(p, x, g, k, temperature=t, generator=r))
       for name, run in strategies.items()},
    "shipped start in spread order": mended("spread", 0.75, 1.0),
    **{f"random, central {t}": mended("random", Central(t), Central(t)) for t in (0.5, 0.7, 0.8, 1.0)},
    **{f"spread, central {t}": mended("spread", Central(t), Central(t))
       for t in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)},
    **{f"spread, central {a} to {b}": mended("spread", Central(a), Central(b))
       for a, b in ((0.5, 0.8), (0.5, 1.0), (0.6, 0.9), (0.7, 0.9), (0.7, 1.0), (0.8, 1.0), (0.9, 1.0), (1.0, 0.8),
                    (0.8, 0.5))},
    **{f"spread, central 0.8, {share} mended": mended("spread", Central(0.8), Central(0.8), share)
       for share in (0.0, 0.25, 0.75)},
    **{f"spread, central 0.8, growing by {ratio}": mended("spread", Central(0.8), Central(0.8), ratio=ratio)
       for ratio in (10, 100)},
}


def jackknife(of, n, groups=4): # of(index) -> list of floats; -> values on all n, their standard errors
    index = torch.arange(n)
    without = torch.tensor([of(index[index % groups != k]) for k in range(groups)], dtype=torch.float64)
    errors = ((without - without.mean(0)) ** 2).sum(0).mul((groups - 1) / groups).sqrt()
    return [round(v, 3) for v in of(index)], [round(v, 3) for v in errors.tolist()]


def layout(filled, truth): # -> (N,) mean absolute difference of the mean colours of the centre's 8x8 tiles
    return F.avg_pool2d(filled.float() - truth.float(), 8)[..., 2:6, 2:6].abs().flatten(1).mean(1)


def patches(filled, truth): # the centres, with 4 pixels of rim
    a, b = (x[..., 12:52, 12:52] for x in (filled, truth))
    return jackknife(lambda index: patch_distance(a[index], b[index]), len(a))


def judge_photographs(filled, truth, given):
    each = [picture_metrics(*three) for three in zip(filled, truth, given)]
    rough, rough_error = ratio_and_error(neighbours(filled, given)[0], neighbours(truth, given)[0])
    ends = (extreme(filled) & ~given).double().flatten(1).sum(1) / (~given).flatten(1).sum(1)
    distance, distance_error = patches(filled, truth)
    return {key: mean_and_error([m[key] for m in each]) for key in ("psnr", "ssim", "l1")} | dict(
        layout=mean_and_error(layout(filled, truth)), roughness=[rough, rough_error], extremes=mean_and_error(ends),
        patches=distance, patches_error=distance_error)


def judge_scenes(filled, truth, given, objects):
    rough, rough_error = ratio_and_error(neighbours(filled, given)[0], neighbours(truth, given)[0])
    shapes = [float(guess == thing.shape) for guess, thing in zip(guess_shape(filled, given), objects)]
    return dict(colour=mean_and_error(obedience(filled, given, objects).double()), shape=mean_and_error(shapes),
                roughness=[rough, rough_error])


def shift_map(images, given): # patches of the picture itself, moved (He and Sun, 2012)
    "Needs opencv-contrib-python-headless."
    from cv2 import COLOR_LAB2RGB, COLOR_RGB2LAB, cvtColor, xphoto
    def one(x, g):
        lab = cvtColor((x * g).permute(1, 2, 0).contiguous().numpy(), COLOR_RGB2LAB)
        filled = lab.copy()
        xphoto.inpaint(lab, g[0].to(torch.uint8).numpy() * 255, filled, xphoto.INPAINT_SHIFTMAP)
        return torch.where(g, x, torch.as_tensor(cvtColor(filled, COLOR_LAB2RGB)).permute(2, 0, 1))
    return torch.stack([one(x, g) for x, g in zip(images, given)])


def draw(name, predictor, images, given, k): # -> (N, 3, H, W), seconds per picture
    filled, start = images.clone(), time.perf_counter()
    for index in (~given).flatten(1).sum(1).argsort(stable=True).split(16):
        generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
        *_, state = SAMPLERS[name](predictor(index), images[index], given[index], k, generators)
        filled[index] = state.images
    return filled, (time.perf_counter() - start) / len(images)


def photographs(args, model, vocabulary): # -> images, given, predictor, judge, rows of what is no sampler
    data = course_archive(args.data, "valid")
    place = torch.linspace(0, len(data.images) - 1, args.pictures).round().long()
    everything = torch.as_tensor(data.images)
    truth, given = everything[place], centre(args.pictures, 64)
    captions = [(data.captions[i] or [""])[0] for i in place.tolist()]
    def predictor(index): return model.bind(*vocabulary.encode([captions[i] for i in index.tolist()]))
    everyone = torch.arange(args.pictures)
    others = everything[[i for i in range(len(everything)) if i not in set(place.tolist())]][:args.pictures]
    distance, error = patches(others, truth[:len(others)])
    rows = [dict(sampler="other true pictures", evaluations=0, patches=distance, patches_error=error)]
    rules = {"biharmonic": biharmonic, "Telea": telea, "shift map": shift_map,
             "the network's mean": lambda x, g: mean_picture(predictor(everyone), x, g)}
    for name, fill in rules.items():
        try: rows.append(dict(sampler=name, evaluations=0, **judge_photographs(fill(truth, given), truth, given)))
        except ImportError as missing: print(f"{name} is left out: {missing}")
    return truth, given, predictor, judge_photographs, rows


def hidden_objects(args, model, vocabulary):
    drawn = scenes(args.pictures, seed=1003)
    given, objects = hide_object(drawn)
    captions = [c[0] for c in drawn.captions]
    def predictor(index):
        words = [captions[i] for i in index.tolist()], [""] * len(index)
        named, silent = (model.bind(*vocabulary.encode(text)) for text in words)
        return guided(named, silent, args.guidance)
    return drawn.images, given, predictor, lambda *x: judge_scenes(*x, objects), []


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="scenes, or an archive of photographs")
    parser.add_argument("--weights", help="[scenes, or photos]")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS), metavar="NAME")
    parser.add_argument("--guidance", type=float, default=3.0, help="of scenes")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    which = "scenes" if args.data == "scenes" else "photos"
    model, vocabulary, _ = load_model(weights_folder(args.weights or which))
    load = hidden_objects if which == "scenes" else photographs
    images, given, predictor, judge, rows = load(args, model, vocabulary)
    def price(filled):
        return torch.cat([torch.tensor(prices(predictor(i), filled[i], given[i]))
                          for i in torch.arange(args.pictures).split(16)])
    fair = price(images)
    for k in args.evaluations:
        for name in tqdm(args.samplers, desc=f"{k} evaluations"):
            filled, seconds = draw(name, predictor, images, given, k)
            over = mean_and_error(price(filled) - fair)
            rows.append(dict(sampler=name, evaluations=k, **judge(filled, images, given), over_truth=over,
                             seconds_per_picture=round(seconds, 3)))
            save(args, rows)


def save(args, rows):
    name = Path(args.data).name.split(".")[0]
    path = args.results / f"samplers_{name}_{args.pictures}.json"
    before = json.loads(path.read_text()) if path.exists() else dict(commands=[], rows=[])
    merged = {(row["sampler"], row["evaluations"]): row for row in before["rows"] + rows}
    words = ["python benchmarks/samplers.py", Path(args.data).name, f"--pictures {args.pictures}",
             f"--evaluations {' '.join(map(str, args.evaluations))}"]
    if args.samplers != list(SAMPLERS): words.append(f"--samplers {' '.join(map(repr, args.samplers))}")
    found = dict(commands=[*dict.fromkeys([*before["commands"], " ".join(words)])], pictures=args.pictures,
                 machine=platform.machine(), threads=torch.get_num_threads(), torch=torch.__version__,
                 rows=sorted(merged.values(), key=lambda row: row["evaluations"]))
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
