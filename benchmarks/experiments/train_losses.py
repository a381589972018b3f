"""Cross-entropy, the earth mover's distance and its square, and the cost of given variables as well: what each teaches.

    python benchmarks/experiments/runs.py --arms default emd emd2 given_too
    python benchmarks/experiments/train_losses.py [--scenes 128]

For each run: its validation curve; what its distributions cost, how far their medians are off, whether they are as
sure as they should be, what they put on the darkest and brightest levels, and scenes with an object hidden, filled in
16 turns. Writes nbs/experiments/results/07_smooth.json and the pictures of its figure."""
import csv

import torch

from my3yearold.likelihood import pit
from my3yearold.losses import bits, cross_entropy, emd
from my3yearold.masks import orderless, subset
from common import save_sheet
from judging import SIZE, Rows, arguments, holes, mean_and_error, reading, unseen, weights
from train_masks import filled, judge_fillings

NAME, SHOWN = "07_smooth", ["default", "emd", "emd2"]
ARMS = [*SHOWN, "given_too"]


def ends(levels: torch.Tensor) -> torch.Tensor: return (levels <= 2) | (levels >= 253)


def extremes(logits, values): # (K, levels), (K,) -> mass on the ends and share of argmax there, and the truth's share
    p, at_the_ends = logits.softmax(-1), ends(torch.arange(logits.shape[-1]))
    figures = p[:, at_the_ends].sum(-1).mean(), ends(logits.argmax(-1)).float().mean(), ends(values).float().mean()
    return dict(zip(("mass", "likeliest", "truth"), (round(f.item(), 6) for f in figures)))


@torch.no_grad()
def distributions(model, vocabulary, images, captions, given, generator, of_given=False):
    """-> logits (K, levels), values (K,). Of a sample of the variables hidden at a random place of a random order
    inside the holes; or of those given then."""
    found = []
    for index in torch.arange(len(images)).split(32):
        known = orderless(len(index), SIZE, generator, ~given[index], stratified=True)
        asked = subset(known if of_given else ~known, 384, generator)
        predict = reading(model, vocabulary, [captions[i] for i in index.tolist()])
        found.append((predict(images[index], known, asked), images[index][asked]))
    return [torch.cat(each) for each in zip(*found)]


def quality(logits, values, generator): # -> figures of these distributions
    p, x = logits.double().softmax(-1), values.double()
    median = (p.cumsum(-1) < 0.5).sum(-1).double()
    place = pit(logits, values, generator)
    inside = ((place > 0.05) & (place < 0.95)).double()
    entropy = bits(-(p * p.clamp_min(1e-300).log()).sum(-1))
    bars = torch.histc(place.float(), 20, 0, 1) / len(place)
    cost = bits(cross_entropy(logits, values)).double()
    return dict(bits=mean_and_error(cost), announced=round(entropy.mean().item(), 4),
                emd=mean_and_error(emd(logits, values)), emd2=mean_and_error(emd(logits, values, 2)),
                median_error=mean_and_error((median - x).abs()), in_nine_tenths=round(inside.mean().item(), 4),
                transform=[round(b, 4) for b in bars.tolist()])


def curve(args, arm, seed): # -> steps, bits/dim of held-out pictures
    with open(args.runs / f"{arm}-{seed}" / "log.csv") as file: rows = list(csv.DictReader(file))
    return [[int(row["step"]) for row in rows], [round(float(row["valid"]), 4) for row in rows]]


def draw_pictures(args, n=4):
    data = unseen(n)
    captions, given = [c[0] for c in data.captions], holes(data, {"": "object"})[""]
    fillings = [filled(*weights(args, arm, 0), data, captions)[0] for arm in SHOWN]
    columns = [data.images * given, *fillings, data.images]
    save_sheet(NAME, columns)


def main():
    args = arguments(__doc__, scenes=128)
    data, rows = unseen(args.scenes), Rows(NAME, "train_losses.py", args)
    captions, asked = [c[0] for c in data.captions], holes(data, {"whole": "everything", "object": "object"})
    def judge(arm, seed):
        model, vocabulary = weights(args, arm, seed)
        found, generator = {}, torch.Generator().manual_seed(0)
        for name, given in asked.items():
            logits, values = distributions(model, vocabulary, data.images, captions, given, generator)
            found[name] = quality(logits, values, generator) | dict(ends=extremes(logits, values))
        told = distributions(model, vocabulary, data.images, captions, asked["whole"], generator, of_given=True)
        found["given"] = quality(*told, generator) | dict(ends=extremes(*told))
        images, given, _ = filled(model, vocabulary, data, captions)
        share = ends(images[~given]).float().mean().item()
        found |= dict(fillings=judge_fillings(model, vocabulary, args.scenes) | dict(ends=round(share, 6)))
        return found | dict(curve=curve(args, arm, seed))
    rows.judge(ARMS, judge)
    if {row["arm"] for row in rows.rows} >= set(SHOWN): draw_pictures(args)


if __name__ == "__main__": main()
