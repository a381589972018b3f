"""What a trunk in bfloat16 costs in bits and saves in time: the bundled weights, asked with and without torch.autocast.

    python benchmarks/precision.py [--data ARCHIVE] [--pictures 128] [--repeats 5]

Unseen scenes, and the validation pictures of an archive of photographs for the photographs' weights: bits/dim of the
whole picture and of the centre in random order, and the difference, picture by picture, ± one standard error. Time: one
evaluation of 16 pictures that asks for a tenth of the centre, interleaved, medians. Where the hardware has no bfloat16
the times are those of an emulation. Writes benchmarks/results/precision.json, which page 17_likelihood prints."""
import argparse, json, platform, statistics, time
from pathlib import Path
import torch
from tqdm import tqdm
from my3yearold.data import course_archive
from my3yearold.saving import weights_folder, load_model
from my3yearold.likelihood import bits_per_dim
from my3yearold.holes import centre
from my3yearold.scenes import scenes
from strategies import mean_and_error


def low(on): return torch.autocast("cpu", torch.bfloat16, enabled=on)


def cost(predict, images, given): # -> (N,) bits/dim
    return bits_per_dim(predict, images, given, 8, [torch.Generator().manual_seed(i) for i in range(len(images))])[0]


def compare(model, vocabulary, images, captions):
    "Bits/dim in float32 and what bfloat16 adds to it, by hole."
    found = {}
    holes = {"whole": torch.zeros_like(images, dtype=torch.bool), "centre": centre(len(images), images.shape[-1])}
    for name, given in holes.items():
        each = {True: [], False: []}
        for index in tqdm(torch.arange(len(images)).split(16), desc=name, leave=False):
            predict = model.bind(*vocabulary.encode([captions[i] for i in index.tolist()]))
            for on in each:
                with low(on): each[on].append(cost(predict, images[index], given[index]))
        full, half = torch.cat(each[False]), torch.cat(each[True])
        adds = (half - full).mean().item(), (half - full).std().item() / len(full) ** 0.5
        found[name] = dict(float32=mean_and_error(full), bfloat16_adds=[round(x, 5) for x in adds])
    return found


def seconds(model, vocabulary, images, repeats): # -> medians of one evaluation, float32 and bfloat16
    given, times = centre(16, images.shape[-1]), {False: [], True: []}
    where = ~given & (torch.rand(given.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    for _ in range(repeats + 1):                                     # the first round warms up
        for on in times:
            with low(on):
                predict = model.bind(*vocabulary.encode(["a large red square"] * 16))
                begun = time.perf_counter(); predict(images[:16], given, where)
                times[on].append(time.perf_counter() - begun)
    return {name: round(statistics.median(times[on][1:]), 4) for on, name in ((False, "float32"), (True, "bfloat16"))}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="an archive of photographs")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    drawn, rows = scenes(args.pictures, seed=1006), {}
    sets = {"scenes": (drawn.images, [several[0] for several in drawn.captions])}
    if args.data:
        data = course_archive(args.data, "valid")
        captions = [(several or [""])[0] for several in data.captions[:args.pictures]]
        sets["photos"] = torch.as_tensor(data.images[:args.pictures]), captions
    for name, (images, captions) in sets.items():
        model, vocabulary, _ = load_model(weights_folder(name))
        rows[name] = compare(model, vocabulary, images, captions)
        rows[name]["seconds_for_16"] = seconds(model, vocabulary, images, args.repeats)
    data = f" --data {Path(args.data).name}" if args.data else ""
    command = f"python benchmarks/precision.py{data} --pictures {args.pictures} --repeats {args.repeats}"
    hardware = f"bfloat16 in hardware: {torch.cpu._is_avx512_bf16_supported()}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {hardware}"
    found = dict(command=command, machine=machine, torch=torch.__version__, pictures=args.pictures, **rows)
    (Path(__file__).parent / "results" / "precision.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__": main()
