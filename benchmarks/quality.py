"""How good are weights? Figures for their card, with the command, the seeds and the device that made them.

    python benchmarks/quality.py scenes
    python benchmarks/quality.py photos --data coco-tiles.tar.bz2 flickr8k-inpainting.tar.bz2

Writes figures.json beside the weights. Scenes: bits/dim of unseen scenes, and 200 scenes with an object fully hidden,
filled with the true caption and with another scene's. Photographs, part by part (`--parts`; the others stay as they
are): bits/dim of the archives' validation pictures; 32 centres filled by several strategies; calibration; extreme
values in 192 centres; and 48 centres as PSNR, SSIM and L1 see them, with classical baselines. Strategy and temperature
are the pipeline's defaults, unless said."""
import argparse, json, math, platform, shlex
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.data import course_archive
from my3yearold.guidance import guided
from my3yearold.inpaint import TEMPERATURES, prices, strategies
from my3yearold.saving import weights_folder, load_model
from my3yearold.likelihood import calibration
from my3yearold.yardsticks import biharmonic, picture_metrics, telea
from my3yearold.losses import bits, cross_entropy
from my3yearold.masks import centre, orderless, subset
from my3yearold.scenes import entropy_floor, guess_shape, hide_object, obedience, scenes


def mean_and_error(x):  # (N,) -> mean and standard error
    return dict(
        mean=round(x.mean().item(), 4), standard_error=round((x.std() / math.sqrt(len(x))).item(), 4), pictures=len(x)
    )


@torch.no_grad()
def bits_per_dim(model, vocabulary, data, region=None, captions=True, seed=0, scored=2048): # -> (N,)
    """Per picture, one unbiased draw of the order-agnostic bits/dim: a uniform number given, `scored` of the hidden
    variables."""
    generator, found = torch.Generator().manual_seed(seed), []
    for index in tqdm(torch.arange(len(data.images)).split(16), desc="bits/dim", leave=False):
        images = torch.as_tensor(data.images[index[0]:index[-1] + 1])
        ids, lengths = vocabulary.encode([(data.captions[i] or [""])[0] if captions else "" for i in index.tolist()])
        given = orderless(len(index), images.shape[-1], generator, region)
        where = subset(~given, scored, generator)
        per_scored = cross_entropy(model(images, given, ids, lengths, where), images[where])
        sums = torch.zeros(len(index)).index_add(0, where.nonzero()[:, 0], per_scored)
        found.append(sums / where.flatten(1).sum(1))
    return bits(torch.cat(found))


@torch.no_grad()
def fill(
    model,
    vocabulary,
    images,
    given,
    captions,
    steps,
    seed,
    temperature=TEMPERATURES["spread"],
    strategy="spread",
    guidance_scale=1.0,
):  # -> (N, 3, H, W)
    "A strategy of the pipeline; a generator per picture, so the batch does not matter."
    filled = []
    for index in tqdm(torch.arange(len(images)).split(20), desc="filling", leave=False):
        predict = model.bind(*vocabulary.encode([captions[i] for i in index.tolist()]))
        predict = guided(predict, model.bind(*vocabulary.encode([""] * len(index))), guidance_scale)
        generators = [torch.Generator().manual_seed(seed + i) for i in index.tolist()]
        for state in strategies[strategy](
            predict, images[index], given[index], steps, generator=generators, temperature=temperature
        ):
            pass
        filled.append(state.images)
    return torch.cat(filled)


def neighbours(
    images, given
):  # -> (N,) sum of the absolute differences of neighbours that are both hidden, (N,) how many there are
    x, hidden = images.double(), ~given
    total, count = torch.zeros(2, len(x), dtype=torch.float64)
    for a, b in (
        ((..., slice(1, None)), (..., slice(None, -1))),
        ((..., slice(1, None), slice(None)), (..., slice(None, -1), slice(None))),
    ):
        both = hidden[a] & hidden[b]
        total, count = total + ((x[a] - x[b]).abs() * both).flatten(1).sum(1), count + both.flatten(1).sum(1)
    return total, count


def neighbour_differences(images, given): # -> mean absolute difference of neighbours that are both hidden
    total, count = neighbours(images, given)
    return (total.sum() / count.sum()).item()


def extreme(values): # -> bool, where a value is one
    return (values <= 2) | (values >= 253)


def extremes(images, given): # -> share of hidden values <= 2 or >= 253
    return extreme(images[~given]).float().mean().item()


def measure_scenes(model, vocabulary, n, steps, seed, guidance_scale):
    unseen = scenes(256, seed=1001)
    figures = dict(floor=round(entropy_floor(3.0), 4),
                   whole=mean_and_error(bits_per_dim(model, vocabulary, unseen)),
                   whole_without_captions=mean_and_error(bits_per_dim(model, vocabulary, unseen, captions=False)),
                   centre=mean_and_error(bits_per_dim(model, vocabulary, unseen, region=~centre(1, 64)[0])))
    drawn = scenes(n, seed=1002)
    given, objects = hide_object(drawn)
    captions = [c[0] for c in drawn.captions]
    right = fill(model, vocabulary, drawn.images, given, captions, steps, seed, guidance_scale=guidance_scale)
    other = fill(
        model, vocabulary, drawn.images, given, captions[1:] + captions[:1], steps, seed, guidance_scale=guidance_scale
    )
    shapes = lambda images: sum(guess == thing.shape for guess, thing in zip(guess_shape(images, given), objects)) / n
    for name, images in (("true_caption", right), ("another_caption", other), ("truth", drawn.images)):
        figures[name] = dict(
            colour=round(obedience(images, given, objects).float().mean().item(), 4),
            shape=round(shapes(images), 4),
            roughness=round(neighbour_differences(images, given) / neighbour_differences(drawn.images, given), 4),
            extremes=round(extremes(images, given), 5),
        )
    return figures | dict(
        hidden_objects=n, steps=steps, temperature=TEMPERATURES["spread"], guidance_scale=guidance_scale
    )


def layout_error(filled, images, given): # -> mean absolute difference of the hole's 8x8 tiles, of their mean colours
    apart = torch.nn.functional.avg_pool2d(filled.float() - images.float(), 8)
    inside = torch.nn.functional.avg_pool2d((~given).float(), 8) == 1
    return apart[inside].abs().mean().item()


def measure_fillings(model, vocabulary, data, steps, seed, n=32):
    "The centres of the first n pictures, filled by several strategies, beside the truth."
    images, given = torch.as_tensor(data.images[:n]), centre(n, 64)
    captions = [(c or [""])[0] for c in data.captions[:n]]
    predict = model.bind(*vocabulary.encode(captions))
    def row(filled):
        return dict(
            roughness=round(neighbour_differences(filled, given) / neighbour_differences(images, given), 4),
            extremes=round(extremes(filled, given), 5),
            layout_error=round(layout_error(filled, images, given), 2),
            bits_per_dim=round(sum(prices(predict, filled, given)) / n, 3),
        )
    figures = dict(pictures=n, steps=steps, truth=row(images))
    for strategy, temperature in (("spread", 0.5), ("spread", 0.7), ("spread", 1.0), ("gibbs", 1.0), ("yao", 1.0)):
        filled = fill(model, vocabulary, images, given, captions, steps, seed, temperature, strategy)
        figures[f"{strategy}, temperature {temperature}"] = row(filled)
    return figures


def measure_bits(model, vocabulary, data):
    middle = ~centre(1, 64)[0]
    found = dict(
        whole=mean_and_error(bits_per_dim(model, vocabulary, data)),
        centre=mean_and_error(bits_per_dim(model, vocabulary, data, middle)),
    )
    if not any(data.captions): return found
    # the same questions
    each = [bits_per_dim(model, vocabulary, data, middle, captions=captions) for captions in (True, False)]
    return found | dict(
        centre_without_captions=mean_and_error(each[1]),
        caption_gain_in_bits=mean_and_error((each[1] - each[0]) * middle.sum()),
    )


def measure_calibration(model, vocabulary, data, seed, n=256):
    """Of hidden variables of the centre: shares of truths within the middle 50 % and 90 % of their distributions, and
    announced entropy against cost by quarters of the entropy."""
    found = []
    for index in tqdm(torch.arange(min(n, len(data.images))).split(16), desc="calibration", leave=False):
        images = torch.as_tensor(data.images[index[0]:index[-1] + 1])
        predict = model.bind(*vocabulary.encode([(data.captions[i] or [""])[0] for i in index.tolist()]))
        found.append(
            calibration(
                predict, images, centre(len(index), 64), generator=torch.Generator().manual_seed(seed + int(index[0]))
            )
        )
        found[-1][3] += index[0]
    u, entropy, cost, picture = (torch.cat(x) for x in zip(*found))
    def by_picture(x): # (K,) -> mean and standard error over the pictures
        count = torch.zeros(n, dtype=torch.float64).index_add(0, picture, torch.ones_like(x))
        return mean_and_error((torch.zeros(n, dtype=torch.float64).index_add(0, picture, x) / count)[count > 0])
    inside = {f"inside_{share}": by_picture(((u - 0.5).abs() <= share / 200).double()) for share in (50, 90)}
    quarters = [
        [round(entropy[k].mean().item(), 3), round(cost[k].mean().item(), 3)] for k in entropy.argsort().tensor_split(4)
    ]
    return inside | dict(
        entropy=by_picture(entropy), cost=by_picture(cost), quarters_entropy_cost=quarters, variables=len(u)
    )


def measure_metrics(model, vocabulary, data, steps, seed, n=48, samples=8):
    """PSNR, SSIM and L1 of the centre: the model's mean, its fillings, the likeliest of eight and the mean of eight,
    and classical methods."""
    images, given, captions = (
        torch.as_tensor(data.images[:n]),
        centre(n, 64),
        [(c or [""])[0] for c in data.captions[:n]],
    )
    predict = model.bind(*vocabulary.encode(captions))
    # (8, n, 3, H, W)
    filled = torch.stack(
        [fill(model, vocabulary, images, given, captions, steps, seed + 1000 * (k + 1)) for k in range(samples)]
    )
    price = torch.tensor([prices(predict, one, given, 16) for one in tqdm(filled, desc="pricing", leave=False)])
    with torch.no_grad():
        expected = (predict(images * given, given, ~given).softmax(-1) @ torch.arange(256.0)).round().to(torch.uint8)
    at_once = images.masked_scatter(~given, expected)
    likeliest = filled[price.argmin(0), torch.arange(n)]
    rows = {
        "biharmonic": biharmonic(images, given),
        "Telea": telea(images, given),
        "mean of one evaluation": at_once,
        "mean of eight fillings": filled.float().mean(0).round().to(torch.uint8),
        "a filling": filled[0],
        "likeliest of eight": likeliest,
    }

    def judge(pictures):
        each = [picture_metrics(*three) for three in zip(pictures, images, given)]
        return {
            k: mean_and_error(torch.tensor([m[k] for m in each], dtype=torch.float64)) for k in ("psnr", "ssim", "l1")
        }

    def all_eight(measure): return round(sum(measure(one, given) for one in filled) / samples, 5)

    texture = dict(
        extremes=all_eight(extremes),
        extremes_truth=round(extremes(images, given), 5),
        roughness=round(all_eight(neighbour_differences) / neighbour_differences(images, given), 4),
    )
    return (
        dict(pictures=n, steps=steps, samples=samples)
        | texture
        | {name: judge(pictures) for name, pictures in rows.items()}
    )


def measure_extremes(model, vocabulary, data, steps, seed, n=192):
    """How often values lie at the ends of the scale, and how rough the centre is: n pictures spread evenly over the
    set, one filling each, beside the same pictures and all of them."""
    everything = torch.as_tensor(data.images)
    spread = torch.linspace(0, len(everything) - 1, min(n, len(everything))).round().long()
    images, given, captions = (
        everything[spread],
        centre(len(spread), 64),
        [(data.captions[i] or [""])[0] for i in spread.tolist()],
    )

    def each(pictures, measure): return torch.tensor([measure(picture[None], given[:1]) for picture in pictures])

    filled = {
        t: fill(model, vocabulary, images, given, captions, steps, seed, t) for t in (TEMPERATURES["spread"], 1.0)
    }
    found = {
        name: mean_and_error(each(pictures, extremes))
        for name, pictures in (("truth", images), ("truth_of_all", everything))
    }
    for t, pictures in filled.items():
        rough = [each(x, neighbour_differences).mean() for x in (pictures, images)]
        found[f"temperature {t}"] = mean_and_error(each(pictures, extremes)) | dict(
            roughness=round((rough[0] / rough[1]).item(), 4)
        )
    return found | dict(steps=steps)


PARTS = {"bits": lambda m, v, data, steps, seed: measure_bits(m, v, data),
         "fillings": lambda m, v, data, steps, seed: dict(fillings=measure_fillings(m, v, data, steps, seed)),
         "calibration": lambda m, v, data, steps, seed: dict(calibration=measure_calibration(m, v, data, seed)),
         "extremes": lambda m, v, data, steps, seed: dict(extremes=measure_extremes(m, v, data, steps, seed)),
         "metrics": lambda m, v, data, steps, seed: dict(metrics=measure_metrics(m, v, data, steps, seed))}


def measure_photographs(model, vocabulary, archives, parts, steps, seed, before):
    figures = {}
    for path in archives:
        data, name = course_archive(path, "valid"), Path(path).name.split(".")[0]
        figures[name] = before.get(name, {})
        for part in parts: figures[name] |= PARTS[part](model, vocabulary, data, steps, seed)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("--data", nargs="*", default=[], help="archives of photographs; none: scenes")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="of photographs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = weights_folder(args.weights)
    kept = (
        json.loads((folder / "figures.json").read_text())
        if args.data and len(args.parts) < len(PARTS) and (folder / "figures.json").exists()
        else {}
    )
    model, vocabulary, card = load_model(folder)
    figures = (
        measure_photographs(model, vocabulary, args.data, args.parts, args.steps, args.seed, kept)
        if args.data
        else measure_scenes(model, vocabulary, args.scenes, args.steps, args.seed, card.get("guidance_scale", 1.0))
    )
    choices = ["--data", *(Path(p).name for p in args.data)] if args.data else ["--scenes", str(args.scenes)]
    choices += [
        "--steps",
        str(args.steps),
        *(["--parts", *args.parts] if len(args.parts) < len(PARTS) and args.data else []),
    ]
    command = ["python", "benchmarks/quality.py", args.weights, *choices]
    earlier = kept.get("commands", [kept["command"]] if "command" in kept else [])
    figures |= dict(
        commands=[*dict.fromkeys([*earlier, shlex.join(command)])],
        seed=args.seed,
        device="cpu",
        machine=platform.machine(),
        torch=torch.__version__,
    )
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__": main()
