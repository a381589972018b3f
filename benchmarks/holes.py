"""Random holes in validation photographs, filled as the command line fills them: a sheet to look at before a release.

    python benchmarks/holes.py --data ARCHIVE [ARCHIVE ...] --out holes.png [--count 40] [--seed 0]

Each picture is drawn at random from one archive after the other. Its hole is a rectangle, a free form of brush
strokes, the centre or the half below, in turn. Triples of truth, hole and filling, three times enlarged; the captions
on standard output. The sheet holds pictures that are not the project's to publish: look at it, and do not commit it."""
import argparse
from pathlib import Path

import torch

from my3yearold.data import CaptionedImages, course_archive
from my3yearold.holes import brush, centre, rectangle
from my3yearold.saving import load_model, weights_folder
from my3yearold.show import contact_sheet, hole
from quality import extremes, fill, neighbour_differences


def below(n: int, size: int) -> torch.Tensor: # given, bool (n, 3, size, size): the lower half hidden
    return (torch.arange(size) < size // 2)[:, None].expand(n, 3, size, size)


def examples(archives: list[CaptionedImages], count: int, generator: torch.Generator):
    "So many pictures, archive after archive, each with a hole: images, given, captions and kinds of hole."
    kinds = {"rectangle": lambda: rectangle(1, 64, (16, 40), (16, 40), generator),
             "brush": lambda: brush(1, 64, generator=generator),
             "centre": lambda: centre(1, 64), "below": lambda: below(1, 64)}
    images, givens, captions, names = [], [], [], []
    for k in range(count):
        data = archives[k % len(archives)]
        i = int(torch.randint(len(data), (), generator=generator))
        kind = list(kinds)[k // len(archives) % len(kinds)]
        images.append(torch.as_tensor(data.images[i]))
        givens.append(kinds[kind]()[0])
        captions.append((data.captions[i] or [""])[0])
        names.append(kind)
        print(f"{k:2} {kind:10} {data.names[i]}  {captions[-1]}")
    return torch.stack(images), torch.stack(givens), captions, names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", default="photos")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", default="holes.png")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    archives = [course_archive(path, "valid") for path in args.data]
    images, given, captions, names = examples(archives, args.count, torch.Generator().manual_seed(args.seed))
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    filled = fill(model, vocabulary, images, given, captions, args.steps, args.seed)
    assert torch.equal(filled[given], images[given])
    roughness = neighbour_differences(filled, given) / neighbour_differences(images, given)
    print(f"roughness {roughness:.3f} of the truth's, extremes {extremes(filled, given):.2%}, "
          f"truth {extremes(images, given):.2%}")
    sheet = [picture for three in zip(images, hole(images, given), filled) for picture in three]
    titles = [title for k, name in enumerate(names) for title in (f"{k} {name}", "", "")]
    contact_sheet(sheet, columns=12, scale=3, titles=titles).save(Path(args.out))


if __name__ == "__main__": main()
