"""How much do captions tell? Bits that they save for the hole, by caption, by word and by size of the hole.

    python benchmarks/experiments/captions.py --data flickr8k-inpainting.tar.bz2

All captions are asked the same questions in the same orders. Beside them what bounds it: the caption's own length in a
code, and a linear regression that knows no network, from the words to the colours that the border does not tell.
Writes nbs/experiments/results/03_captions.json."""
import math
from collections import Counter
import torch
import torch.nn.functional as F
from tqdm import tqdm
from my3yearold.captions import tokens
from my3yearold.data import course_archive
from my3yearold.likelihood import bits_per_dim, word_gains
from my3yearold.masks import centre
from my3yearold.scenes import PALETTE, SHAPES, scenes
from common import Record, arguments, interval, mean, parts

NAME, EVALUATIONS = "03_captions", 8
SIZES = "small little medium large big".split()
FUNCTION_WORDS = set("""a an and are as at be by for from has have her his i in into is it its of off on one onto or out
over that the their there to two up we while who with . , ! ? ' s""".split())


# ---- bits saved for the hole ----

def without(words, dropped): return " ".join(w for w in tokens(words) if w not in dropped)


def only(words, kept): return " ".join(w for w in tokens(words) if w in kept)


def variants(holes): # name -> captions
    true = holes.captions
    found = {"empty": [""] * len(true), "true": true, "another's": true[1:] + true[:1]}
    if holes.objects is None: return found | {"without function words": [without(c, FUNCTION_WORDS) for c in true]}
    colours = set(PALETTE)
    return found | {"shapes alone": [only(c, SHAPES) for c in true], "colours alone": [only(c, colours) for c in true]}


def bits_of(holes, captions, given): # (N,) of the whole hole; the orders are the same for all captions
    paid, size = torch.zeros(len(captions), dtype=torch.float64), (~given).flatten(1).sum(1)
    for index in size.argsort(stable=True).split(16):
        generators = [torch.Generator().manual_seed(i) for i in index.tolist()]
        predict = holes.reading(index, captions)
        paid[index] = bits_per_dim(predict, holes.images[index], given[index], EVALUATIONS, generators)[0]
    return paid * size


def by_hole(holes, record):
    n, found = len(holes.images), {}
    places = {f"centre {side}": centre(n, 64, side) for side in (16, 32, 48, 64)}
    if holes.objects is not None: places = {"an object": holes.given} | places
    for place, given in tqdm(places.items(), desc=holes.name):
        paid = {name: bits_of(holes, captions, given) for name, captions in variants(holes).items()}
        empty = paid.pop("empty")
        found[place] = dict(variables=(~given).flatten(1).sum(1).double().mean().item(),
                            bits=interval(mean, empty)) | {k: interval(mean, empty - v) for k, v in paid.items()}
        record["saved"] = found


# ---- which words pay ----

def kind_of(word, thing): # thing: what is hidden, in a scene
    if thing is None: return "function words" if word in FUNCTION_WORDS else "other words"
    if word in PALETTE: return "its colour" if word == thing.colour else "another's colour"
    if word in SHAPES: return "its shape" if word == thing.shape else "another's shape"
    return "a size" if word in SIZES else "other words"


def by_word(holes, record, pictures): # kind of word -> bits that such words save together, a picture
    gains = []
    for i in tqdm(range(pictures), desc="words"):
        gain = Counter()
        for word, saved in word_gains(holes.model, holes.vocabulary, holes.images[i], holes.given[i],
                                      holes.captions[i], EVALUATIONS):
            gain[kind_of(word, holes.objects and holes.objects[i])] += saved
        gains.append(gain)
        if i < 3: continue
        table = {kind: interval(mean, torch.tensor([float(g[kind]) for g in gains]))
                 for kind in sorted(set().union(*gains))}
        record["words"] = dict(pictures=len(gains), saved=table)


# ---- what bounds it ----

def pairs(captions): return [list(zip(["", *tokens(c)], [*tokens(c), ""])) for c in captions]


def length_of(captions, others): # bits of each caption in a code that knows which word follows which in `others`
    following = Counter(pair for caption in pairs(others) for pair in caption)
    first, second = Counter(), Counter()
    for (a, b), n in following.items():
        first[a] += n
        second[b] += n
    total, words = sum(second.values()), len(second) + 1
    def share(a, b): # of b after a; unseen pairs fall back on how often b occurs, unseen words on one among all
        rare = (second[b] + 1) / (total + words)
        return 0.8 * following[a, b] / first[a] + 0.2 * rare if first[a] else rare
    return torch.tensor([-sum(math.log2(share(*pair)) for pair in caption) for caption in pairs(captions)])


def ridge(x, y, strengths): # (n, p), (n, q) -> for each strength (p, q); infinity: nothing but zeros
    values, axes = torch.linalg.eigh(x.T @ x / len(x))
    turned = axes.T @ (x.T @ y / len(x))
    return torch.stack([axes @ (turned / (values + strength)[:, None]) for strength in strengths])


def best_ridge(x, y, strengths=(1e-4, 1e-3, 1e-2, 1e-1, 1, 10, math.inf)): # -> (p, q)
    "The strength of each column is chosen on the last 1,000 rows."
    errors = (y[-1000:] - x[-1000:] @ ridge(x[:-1000], y[:-1000], strengths)).square().sum(1)    # (strengths, q)
    return ridge(x, y, strengths)[errors.argmin(0), :, torch.arange(y.shape[1])].T


def colours(images, border): # (N, 3, 64, 64) -> 4x4 tiles of the hole, (N, 48), or the border's tiles and a constant
    tiles = F.avg_pool2d(images.double() / 255, 8)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    return tiles[..., ~inside if border else inside].flatten(1)


def bag(captions, vocabulary, weight): # captions: lists of strings -> (N, words), weighted by how rare they are
    place = {word: i for i, word in enumerate(vocabulary)}
    found = torch.zeros(len(captions), len(place), dtype=torch.float64)
    for row, several in zip(found, captions):
        for word in {w for caption in several for w in tokens(caption)} & place.keys(): row[place[word]] = 1
    return found * weight


def explained(rest, told): # columns: squares of what is left without and with words
    return 1 - told.sum(-1) / rest.sum(-1)


def regression(archive, record):
    train, valid = (course_archive(archive, split) for split in ("train", "valid"))
    pictures = [torch.as_tensor(data.images) for data in (train, valid)]
    centred = colours(pictures[0], True).mean(0)
    borders = [F.pad(colours(x, True) - centred, (1, 0), value=1.0) for x in pictures]
    whole = [F.avg_pool2d(x.double() / 255, 16).flatten(1) for x in pictures]
    insides = [colours(x, False) for x in pictures]
    for of in (whole, insides): of[1], of[0] = of[1] - of[0].mean(0), of[0] - of[0].mean(0)
    from_border = best_ridge(borders[0], insides[0])
    targets = {"the hole, border known": [y - x @ from_border for x, y in zip(borders, insides)],
               "the whole picture, no border": whole}
    left = targets["the hole, border known"][1]
    record["border"] = interval(explained, insides[1].square().sum(1), left.square().sum(1))
    found = {}
    for number in (1, 5):
        captions = [[several[:number] for several in data.captions] for data in (train, valid)]
        count = Counter(w for several in captions[0] for w in {w for caption in several for w in tokens(caption)})
        vocabulary = [word for word, n in count.most_common(1500) if n >= 5]
        weight = torch.tensor([math.log(len(train) / count[word]) for word in vocabulary], dtype=torch.float64)
        words = [bag(these, vocabulary, weight) for these in captions]
        average = words[0].mean(0)
        words = [F.pad(x - average, (1, 0), value=1.0) for x in words]
        for name, (before, after) in targets.items():
            _, _, axes = torch.linalg.svd(before, full_matrices=False)               # each component by itself
            before, after = before @ axes.T, after @ axes.T
            left = after - words[1] @ best_ridge(words[0], before)
            share = interval(explained, after.square().sum(1), left.square().sum(1))
            found[f"{name}, {number} caption{'s' * (number > 1)}"] = dict(share=share, bits=bits_told(after, left))
            record["regression"] = found


def bits_told(before, after): # of Gaussian components: half the logarithm of the ratio of variances, added up
    def total(*squares):
        half = len(squares) // 2
        return sum(0.5 * torch.log2(b.mean(-1) / a.mean(-1)) for b, a in zip(squares[:half], squares[half:]))
    return interval(total, *before.square().T, *after.square().T, draws=500)


@torch.no_grad()
def main():
    args = arguments(__doc__, scenes=48, photos=48, words=16)
    for holes in parts(args):
        record = Record(NAME, holes, args)
        if holes.objects is None:
            data = course_archive(args.data, "train")
            everyone = [caption for several in data.captions for caption in several]
            regression(args.data, record)
        else: everyone = [caption for several in scenes(5000, seed=11).captions for caption in several]
        record["caption_bits"] = interval(mean, length_of(holes.captions, everyone))
        by_hole(holes, record)
        by_word(holes, record, args.words)


if __name__ == "__main__": main()
