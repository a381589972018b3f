"""What a louder caption does: guidance at several scales, over the whole chain or its first filling alone.

    python benchmarks/guidance.py [scenes|WEIGHTS] [--pictures 128] [--steps 32]
    python benchmarks/guidance.py photos --data ARCHIVE --scales 1 2 --pictures 64

Scenes: unseen scenes with an object fully hidden. Photographs: the centres of an archive's validation pictures, spread over it, captions as they are.
A step guided costs two evaluations of the network. Writes benchmarks/results/guidance_NAME.json (guidance_NAME_64_steps.json for 64
steps, and so on), which page 17_guidance prints."""
import argparse, json, platform
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.ancestral import ancestral, growing
from my3yearold.data import course_archive
from my3yearold.gibbs import gibbs, mending_schedule
from my3yearold.guidance import guided
from my3yearold.inpaint import weights_folder
from my3yearold.masks import centre
from my3yearold.model import load_model
from my3yearold.scenes import hide_object, scenes
from strategies import measure


def fill(predict, told, where, images, given, steps, generators): # -> (N, 3, H, W), as the pipeline's default strategy does it
    *_, state = ancestral(told, images, given, evaluations=growing(steps // 2), generator=generators, temperature=0.75)
    *_, state = gibbs(told if where == "chain" else predict, images, given, steps - steps // 2, mending_schedule, generator=generators, start=state.images)
    return state.images


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", default="scenes")
    parser.add_argument("--data", help="an archive of captioned photographs; none: scenes")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    if args.data:
        data = course_archive(args.data, "valid")
        spread = torch.linspace(0, len(data) - 1, args.pictures).round().long()
        images, given, objects, captions = torch.as_tensor(data.images[spread]), centre(args.pictures, 64), None, [data.captions[i][0] for i in spread.tolist()]
    else:
        drawn = scenes(args.pictures, seed=1005)
        images, captions, (given, objects) = drawn.images, [several[0] for several in drawn.captions], hide_object(drawn)
    predict = model.bind(*vocabulary.encode(captions))
    name = ("photos" if args.data else "scenes") + (f"_{args.steps}_steps" if args.steps != 32 else "")
    rows = [dict(where="truth", **measure(images, images, given, predict, objects))]
    for scale, where in tqdm([(s, w) for s in args.scales for w in ("start", "chain") if s != 1 or w == "start"], desc="guidance"):
        filled = images.clone()
        for index in torch.arange(args.pictures).split(16):
            asked, plain = (model.bind(*vocabulary.encode(text)) for text in ([captions[i] for i in index.tolist()], [""] * len(index)))
            generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
            filled[index] = fill(asked, guided(asked, plain, scale), where, images[index], given[index], args.steps, generators)
        rows.append(dict(where=where, scale=scale, **measure(filled, images, given, predict, objects)))
        command = f"python benchmarks/guidance.py {args.weights}{' --data ' + Path(args.data).name if args.data else ''} --pictures {args.pictures} --steps {args.steps} --scales {' '.join(map(str, args.scales))}"
        found = dict(command=command, machine=f"{platform.machine()}, {torch.get_num_threads()} threads", torch=torch.__version__, pictures=args.pictures, steps=args.steps, rows=rows)
        (Path(__file__).parent / "results" / f"guidance_{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
