"""A picture's own resolution: a hole filled coarse to fine, at one size and enlarged, and at once at its own size.

    python benchmarks/resolution.py [--coco coco-sample.tar] [--size 256] [--crops 44]

Squares cut at seeded places and scales out of scikit-image's photographs and, where given, a tar of photographs;
reduced by a box filter to the same size, the centre hidden, half of each side. PSNR in dB and L1 in levels, in the
hole; sharpness: the mean absolute difference of neighbours in the hole, rim: of neighbours of which one is known and
one is filled, both over the truth's; patches: the sliced Wasserstein distance of the appendix
yardsticks with 4 pixels of rim. Errors are standard errors over crops. Writes
benchmarks/results/resolution.json after each row."""
import argparse, io, json, math, platform, tarfile, time
from pathlib import Path
import torch
from PIL import Image
from tqdm import tqdm
from my3yearold.coarse_to_fine import Pyramid, any_size, sharpen
from my3yearold.cutout import Cutout, picture_of, pixels_of
from my3yearold.data import sample_photographs
from my3yearold.inpaint import spread
from my3yearold.yardsticks import patch_distance, picture_metrics
from my3yearold.sampling import Central
from my3yearold.saving import load_model, weights_folder
from quality import neighbours
from strategies import mean_and_error, ratio_and_error


def cut(picture, size, generator): # -> (3, size, size)
    "A square at a random place and scale, reduced to `size`."
    room = max(0.0, math.log(min(picture.size) / size))
    a, b, c = torch.rand(3, generator=generator).tolist()
    side = int(size * math.exp(a * room))
    left, top = int(b * (picture.width - side)), int(c * (picture.height - side))
    return pixels_of(picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX))


def photographs(coco): # -> list of PIL pictures
    found = [picture for _, picture, _ in sample_photographs()]
    if coco:
        with tarfile.open(coco) as archive:
            found += [Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB")
                      for m in archive if m.name.endswith(".jpg")]
    return found


def across_rim(image, hole): # (3, H, W), (H, W) -> mean absolute difference of neighbours, one known and one filled
    x = image.float()
    down, along = (
        (x[:, 1:] - x[:, :-1]).abs()[:, hole[1:] ^ hole[:-1]],
        (x[..., 1:] - x[..., :-1]).abs()[:, hole[:, 1:] ^ hole[:, :-1]],
    )
    return torch.cat([down, along], 1).mean().item()


def run(predict, image, hole, seed, size=64, start=0.7, finer=None, one_size=False, **settings): # -> (3, H, W)
    "One filling; the finer sizes drawn at `finer`, None: halfway between `start` and 1."
    g, picture = torch.Generator().manual_seed(seed), picture_of(image)
    cutout = (Cutout if one_size else Pyramid)(picture, hole, size)
    *_, state = spread(predict, cutout.images[None], cutout.given[None], 16, start, generator=g)
    if not one_size:
        for state in sharpen(
            predict, cutout.sizes, state.images, g, Central((1 + start) / 2 if finer is None else finer), **settings
        ):
            pass
    return pixels_of(cutout.put_back(state.images[0]))


RUNS = {
    "one size, enlarged": dict(one_size=True),
    "at once, at its own size": dict(size=10**6),
    "coarse to fine": {},
    "believed up to the rim": dict(reach=0),
    "finer sizes at 0.7": dict(finer=0.7),
    "finer sizes at 1": dict(finer=1.0),
    "2 turns": dict(turns=2),
    "16 turns": dict(turns=16),
    "tiles of 32": dict(side=32),
    "temperature 1 at all sizes": dict(start=1.0),
}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="photos")
    parser.add_argument("--coco", help="a tar of photographs")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--crops", type=int, default=44)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "resolution.json")
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    predict = any_size(model.eval().bind(*vocabulary.encode([""])))
    found, g = photographs(args.coco), torch.Generator().manual_seed(0)
    truth = torch.stack([cut(found[i % len(found)], args.size, g) for i in range(args.crops)])
    hole, a, b = torch.zeros(args.size, args.size, dtype=torch.bool), args.size // 4, args.size - args.size // 4
    hole[a:b, a:b] = True
    given = (~hole).expand(truth.shape)
    smooth, rim = neighbours(truth, given)[0], torch.tensor([across_rim(x, hole) for x in truth])
    facts = dict(
        command=f"benchmarks/resolution.py --size {args.size} --crops {args.crops}"
        + " --coco coco-sample.tar" * bool(args.coco),
        torch=torch.__version__,
        machine=platform.machine(),
        hole=int(hole.sum()),
        rows=[],
    )
    around = slice(a - 4, b + 4)
    for name, settings in tqdm(RUNS.items()):
        start = time.process_time()
        filled = torch.stack([run(predict, x, hole, i, **settings) for i, x in enumerate(truth)])
        seconds = (time.process_time() - start) / len(truth)
        assert torch.equal(filled[..., ~hole], truth[..., ~hole])
        each = [picture_metrics(*three) for three in zip(filled, truth, given)]
        mine, across = neighbours(filled, given)[0], torch.tensor([across_rim(x, hole) for x in filled])
        row = dict(
            name=name,
            cpu_seconds=round(seconds, 3),
            sharpness=ratio_and_error(mine, smooth),
            rim=ratio_and_error(across, rim),
            patches=[round(d, 3) for d in patch_distance(filled[..., around, around], truth[..., around, around])],
        )
        facts["rows"].append(row | {key: mean_and_error([m[key] for m in each]) for key in ("psnr", "l1")})
        Path(args.out).write_text(json.dumps(facts, indent=1) + "\n")
        tqdm.write(f"{name}: " + ", ".join(f"{k} {v}" for k, v in facts["rows"][-1].items() if k != "name"))


if __name__ == "__main__": main()
