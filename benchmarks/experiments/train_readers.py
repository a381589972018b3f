"""A QRNN, a bag of words and no caption at all: what each reader saves where an object is hidden.

    python benchmarks/experiments/runs.py --arms reader_qrnn reader_words reader_none
    python benchmarks/experiments/train_readers.py [--scenes 256]

For each run: bits per hidden variable of hidden objects with the true caption, with none, with another scene's, and
with the true one in which the hidden object and another have exchanged their colours, which to a bag of words is the
same; by the chain rule and all at once; and fillings in 16 turns. Writes nbs/experiments/results/03_readers.json."""
import torch

from judging import Rows, arguments, costs, holes, mean_and_error, unseen, weights
from train_masks import judge_fillings

NAME, ARMS = "03_readers", ["reader_qrnn", "reader_words", "reader_none"]


def of_two_colours(objects: list) -> bool: # then a caption says each colour once
    return len(objects) == 2 and objects[0].colour != objects[1].colour


def exchanged(caption: str, objects: list) -> str: # the hidden object, which is the last, and the first swap colours
    a, b = objects[-1].colour, objects[0].colour
    words = caption.rstrip(".").split()
    return " ".join({a: b, b: a}.get(word, word) for word in words) + "."


def main():
    args = arguments(__doc__, scenes=256)
    data, rows = unseen(args.scenes), Rows(NAME, "train_readers.py", args)
    true, given = [c[0] for c in data.captions], holes(data, {"": "object"})[""]
    size = (~given).flatten(1).sum(1)
    two = torch.tensor([of_two_colours(objects) for objects in data.objects])
    captions = dict(true=true, none=[""] * len(true), other=true[1:] + true[:1],
                    exchanged=[exchanged(c, objects) for c, objects in zip(true, data.objects)])
    def judge(arm, seed):
        model, vocabulary = weights(args, arm, seed)
        found = {}
        for way, at_once in (("chain", False), ("at_once", True)):
            paid = {name: costs(model, vocabulary, data.images, words, given, at_once)
                    for name, words in captions.items()}
            more = {name: (cost - paid["true"]) * size for name, cost in paid.items()}         # bits for each hole
            found[way] = dict(bits=mean_and_error(paid["true"]), none=mean_and_error(more["none"]),
                              other=mean_and_error(more["other"]), exchanged=mean_and_error(more["exchanged"][two]))
        return found | dict(fillings=judge_fillings(model, vocabulary, args.scenes))
    rows.judge(ARMS, judge)
    rows.write(with_two_colours=int(two.sum()), variables=round(size.float().mean().item(), 1))


if __name__ == "__main__": main()
