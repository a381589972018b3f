"""What a louder caption does: guidance at several scales and ceilings, over the whole chain or its start alone.

    python benchmarks/guidance.py [scenes|WEIGHTS] [--pictures 128] [--steps 32] [--scales 1 2 3] [--ceilings 1]
    python benchmarks/guidance.py photos --data ARCHIVE --scales 1 3 --pictures 64

Scenes: unseen scenes with an object fully hidden. Photographs: the centres of an archive's validation pictures,
spread over it, captions as they are. A guided step costs two evaluations of the network. Writes
benchmarks/results/guidance_NAME.json, which page 21_guidance draws; rows of earlier runs on as many pictures and
steps stay."""
import argparse, json, platform
from itertools import product
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.ancestral import ancestral
from my3yearold.budgets import growing
from my3yearold.data import course_archive
from my3yearold.gibbs import mend, mending_schedule
from my3yearold.guidance import guided
from my3yearold.inpaint import prices
from my3yearold.saving import weights_folder, load_model
from my3yearold.masks import centre
from my3yearold.scenes import hide_object, scenes
from strategies import measure


def fill(predict, told, where, images, given, steps, generators): # -> (N, 3, H, W), as the pipeline's `gibbs` does it
    *_, state = ancestral(told, images, given, evaluations=growing(steps // 2), generator=generators, temperature=0.75)
    *_, state = mend(told if where == "chain" else predict, state.images, given, steps - steps // 2, mending_schedule,
                     generator=generators)
    return state.images


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", default="scenes")
    parser.add_argument("--data", help="an archive of captioned photographs; none: scenes")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument("--ceilings", type=float, nargs="+", default=[1.0])
    parser.add_argument("--where", nargs="+", choices=["start", "chain"], default=["chain"])
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    if args.data:
        data = course_archive(args.data, "valid")
        spread = torch.linspace(0, len(data) - 1, args.pictures).round().long()
        images, given, objects = torch.as_tensor(data.images[spread]), centre(args.pictures, 64), None
        captions = [data.captions[i][0] for i in spread.tolist()]
    else:
        drawn = scenes(args.pictures, seed=1005)
        images, (given, objects) = drawn.images, hide_object(drawn)
        captions = [several[0] for several in drawn.captions]
    predict = model.bind(*vocabulary.encode(captions))
    save(args, [dict(where="the truth", **measure(images, images, given, prices(predict, images, given), objects))])
    every, one = [*product(args.ceilings, args.where)], [(args.ceilings[0], args.where[0])]
    todo = [(scale, *rest) for scale in args.scales for rest in (every if scale != 1 else one)]
    for scale, ceiling, where in tqdm(todo, desc="guidance"):
        filled = images.clone()
        for index in torch.arange(args.pictures).split(16):
            words = [captions[i] for i in index.tolist()], [""] * len(index)
            asked, plain = (model.bind(*vocabulary.encode(text)) for text in words)
            generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
            told = guided(asked, plain, scale, ceiling)
            filled[index] = fill(asked, told, where, images[index], given[index], args.steps, generators)
        measured = measure(filled, images, given, prices(predict, filled, given), objects)
        save(args, [dict(where=where, scale=scale, ceiling=ceiling, **measured)])


def save(args, rows):
    "Into the results file; the same row of an earlier run is replaced."
    path = Path(__file__).parent / "results" / f"guidance_{'photos' if args.data else 'scenes'}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if (before.get("pictures"), before.get("steps")) != (args.pictures, args.steps): before = dict(commands=[], rows=[])
    def key(row):
        guided = row.get("scale") != 1
        return row.get("scale", 0), row["where"] * guided, row.get("ceiling", 0) * guided
    merged = {key(row): row for row in [*before["rows"], *rows]}
    def several(name):
        return f" --{name} {' '.join(f'{x:g}' if isinstance(x, float) else x for x in getattr(args, name))}"
    data = f" --data {Path(args.data).name}" if args.data else ""
    command = f"python benchmarks/guidance.py {args.weights}{data} --pictures {args.pictures} --steps {args.steps}"
    command += "".join(map(several, ("scales", "ceilings", "where")))
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    found = dict(commands=[*dict.fromkeys([*before["commands"], command])], machine=machine, torch=torch.__version__,
                 pictures=args.pictures, steps=args.steps, rows=[merged[k] for k in sorted(merged)])
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
