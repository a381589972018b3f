"""Two sets of weights on the same holes, picture by picture: by how much is the second better?

    python benchmarks/paired.py OLD NEW coco-tiles.tar.bz2 [--pictures 192] [--evaluations 16] [--sampler NAME]

The centres of validation pictures spread evenly over the archive's, filled by both with the same generators. PSNR,
SSIM, L1 and layout are differences picture by picture, patches a difference of two distances; 95 % intervals by
bootstrap over pictures (patches: jackknife over eight groups). Writes benchmarks/results/paired_NAME.json."""
import argparse, json, platform
from pathlib import Path
import torch
from my3yearold.data import course_archive
from my3yearold.masks import centre
from my3yearold.saving import load_model, weights_folder
from my3yearold.yardsticks import patch_distance, picture_metrics
from samplers import SAMPLERS, draw, layout


def filled_by(weights, truth, given, captions, args):
    model, vocabulary, _ = load_model(weights_folder(weights))
    def predictor(index): return model.bind(*vocabulary.encode([captions[i] for i in index.tolist()]))
    return draw(args.sampler, predictor, truth, given, args.evaluations)[0]


def interval(differences): # (N,) -> mean, low, high
    resampled = torch.randint(len(differences), (4000, len(differences)), generator=torch.Generator().manual_seed(0))
    means = differences[resampled].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [round(x, 3) for x in (differences.mean().item(), low, high)]


def patches(old, new, truth, groups=8): # -> difference of the distances, low, high
    old, new, truth = (x[..., 12:52, 12:52] for x in (old, new, truth))
    def difference(index):
        a, b = (torch.tensor(patch_distance(x[index], truth[index])).mean() for x in (old, new))
        return (b - a).item()
    index = torch.arange(len(truth))
    without = torch.tensor([difference(index[index % groups != k]) for k in range(groups)], dtype=torch.float64)
    error = ((without - without.mean()) ** 2).sum().mul((groups - 1) / groups).sqrt().item()
    middle = difference(index)
    return [round(x, 3) for x in (middle, middle - 2.36 * error, middle + 2.36 * error)]      # Student's t, 7 degrees


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old"); parser.add_argument("new"); parser.add_argument("data")
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--sampler", choices=SAMPLERS, default="spread")
    args = parser.parse_args()
    data = course_archive(args.data, "valid")
    place = torch.linspace(0, len(data.images) - 1, args.pictures).round().long()
    truth, given = torch.as_tensor(data.images)[place], centre(args.pictures, 64)
    captions = [(data.captions[i] or [""])[0] for i in place.tolist()]
    old, new = (filled_by(weights, truth, given, captions, args) for weights in (args.old, args.new))
    found = {}
    for name in ("psnr", "ssim", "l1"):
        a, b = (torch.tensor([picture_metrics(*three)[name] for three in zip(x, truth, given)], dtype=torch.float64)
                for x in (old, new))
        found[name] = interval(b - a)
    found["layout"] = interval((layout(new, truth) - layout(old, truth)).double())
    found["patches"] = patches(old, new, truth)
    name = Path(args.data).name.split(".")[0]
    command = (f"python benchmarks/paired.py OLD NEW {Path(args.data).name} --pictures {args.pictures} "
               f"--evaluations {args.evaluations} --sampler '{args.sampler}'")
    told = dict(command=command, old=Path(args.old).name, new=Path(args.new).name,
                machine=f"{platform.machine()}, {torch.get_num_threads()} threads", torch=torch.__version__,
                second_less_first=found)
    (Path(__file__).parent / "results" / f"paired_{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__": main()
