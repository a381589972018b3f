"""How long does the array of 83,000 pictures take, and what is in an archive?

    python benchmarks/data.py [--photographs FOLDER] [--rounds 3] [ARCHIVE ...]
    python benchmarks/data.py --rounds 0 flickr8k-inpainting.tar.bz2 coco-tiles.tar.bz2 > benchmarks/results/data.txt

Pictures a second with one thread and with two (`make_array`, into a file, the disk included): of full-size photographs,
those in FOLDER or scikit-image's at 640x480, and of 64x64 tiles made from them; best of the rounds, and pictures per
second of processor time, which other programs on the machine do not change as much. With --rounds 0 none of it.
For each ARCHIVE of the course's form: levels of both splits, how wrong the guesses of page 03_data are in the centre of
the validation tiles, and what the training captions' vocabulary knows of the validation captions (page 02_captions)."""
import argparse, os, platform, re, tempfile, time
from pathlib import Path
import torch
from my3yearold.arrays import make_array
from my3yearold.captions import Vocabulary
from my3yearold.cutout import membrane
from my3yearold.data import course_archive, describe, extremes, rim_mean, zero_order_entropy
from my3yearold.masks import centre
from my3yearold.names import list_pictures
from my3yearold.pictures import course_resize, read_picture, sample_photographs, tile

COURSE = 82782 # training pictures of the course


def speed(paths, workers, rounds): # -> pictures per second of the clock, and of processor time
    clock, processor = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start, cpu = time.perf_counter(), time.process_time()
            make_array(paths, tile, (3, 64, 64), Path(folder) / "array.npy", workers)
            clock.append(len(paths) / (time.perf_counter() - start))
            processor.append(len(paths) / (time.process_time() - cpu))
    return max(clock), max(processor)


def measure(folder, photographs, rounds):
    if photographs: full = list_pictures(photographs)
    else:
        for name, picture, _ in sample_photographs():
            picture.resize((640, 480)).save(folder / f"{name}.jpg", quality=90)
        full = list_pictures(folder)
    (folder / "tiles").mkdir()
    for path in full: course_resize(read_picture(path)).save(folder / "tiles" / f"{path.stem}.jpg")
    tiles = list_pictures(folder / "tiles")
    for name, paths, count in (("full-size photographs", full, 256), ("64x64 tiles", tiles, 4096)):
        paths = (paths * (count // len(paths) + 1))[:count]
        (one, cpu_one), (two, cpu_two) = (speed(paths, workers, rounds) for workers in (1, 2))
        print(f"{name}: {one:.0f} pictures/s with one thread, {two:.0f} with two, ratio {two / one:.2f}; "
              f"{cpu_one:.0f} and {cpu_two:.0f} per second of processor time")
        print(f"    {COURSE:,} of them: {COURSE / one / 60:.1f} and {COURSE / two / 60:.1f} minutes; "
              f"{COURSE / cpu_one / 60:.1f} minutes of processor time")


def words(seen, unseen): # captions of the two splits
    for least in (1, 5):
        known = Vocabulary.build(seen, least)
        print(f"    {len(known) - 2:,} words seen {least} times or more, which cover {known.coverage(unseen):.1%} of "
              "the validation captions")
    every = [caption for several in seen for caption in several]
    sided = sum(re.search(r"\b(left|right)(most|hand)?\b", caption.lower()) is not None for caption in every)
    print(f"    {sided:,} of {len(every):,} training captions have a word that a mirror changes")


def contents(archive):
    captions = {}
    for split in ("train", "valid"):
        data = course_archive(archive, split)
        captions[split] = data.captions
        print(f"{Path(archive).name} {split}: zero-order entropy {zero_order_entropy(data.images):.3f} bits/dim, "
              f"<= 2 or >= 253 {extremes(data.images):.2%}, "
              f"0 or 255 {((data.images == 0) | (data.images == 255)).double().mean():.2%}")
        for what, fact in describe(data).items(): print(f"    {what:15} {fact}")
    if any(captions["train"]): words(captions["train"], captions["valid"])
    truth, given = data.images.float(), centre(1, data.images.shape[-1])[0]
    guesses = {"data set's mean": truth.mean((0, 2, 3)).view(1, 3, 1, 1),
               "rim's mean": rim_mean(data.images, given.expand_as(truth)).float()[..., None, None],
               "membrane": torch.stack([membrane(image * given, given[0], sweeps=40) for image in truth])}
    for name, guess in guesses.items():
        wrong = (guess - truth)[:, ~given].square().mean().item()
        print(f"    centre hole, {name}: {wrong ** 0.5:.1f} levels, "
              f"mean squared error on [0, 1] {wrong / 255 ** 2:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*")
    parser.add_argument("--photographs")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
          f"load {load:.1f} at the start")
    if args.rounds:
        with tempfile.TemporaryDirectory() as folder: measure(Path(folder), args.photographs, args.rounds)
    for archive in args.archives: contents(archive)
