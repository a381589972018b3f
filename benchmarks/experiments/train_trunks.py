"""Shallow and deep, dilated or not, at equal processor time; and what few scenes teach by heart.

    python benchmarks/experiments/steps.py
    python benchmarks/experiments/runs.py --arms default straight straight_3 straight_16 residual dilated few_scenes \\
        few_scenes_one_hole
    python benchmarks/experiments/train_trunks.py [--scenes 128]

For each run: bits/dim of unseen scenes, whole and in their centres, ring by ring of a centre drawn at once, and the
validation curve; and the same costs on the first scenes of its training set. (The default and the trunks have seen
those once or never; the arms of few scenes, which have no others, some sixty times.) Writes
nbs/experiments/results/10_shallow.json."""
import json

from my3yearold.data import load_data
from judging import RESULTS, SIZE, Rows, arguments, costs, holes, mean_and_error, unseen, weights
from train_losses import curve
from train_masks import by_depth

NAME = "10_shallow"
ARMS = ["default", "straight_3", "straight", "straight_16", "residual", "dilated", "few_scenes", "few_scenes_one_hole"]
KINDS = {"whole picture": "everything", "centre": "centre"}


def main():
    args = arguments(__doc__, scenes=128)
    rows = Rows(NAME, "train_trunks.py", args)
    sets = dict(unseen=unseen(args.scenes), learned=load_data("scenes", "train", SIZE, args.scenes))
    def judge(arm, seed):
        model, vocabulary = weights(args, arm, seed)
        found = dict(parameters=sum(p.numel() for p in model.parameters()), curve=curve(args, arm, seed))
        for name, data in sets.items():
            captions, asked = [c[0] for c in data.captions], holes(data, KINDS)
            found[name] = {kind: mean_and_error(costs(model, vocabulary, data.images, captions, given))
                           for kind, given in asked.items()}
            at_once = costs(model, vocabulary, data.images, captions, asked["centre"], at_once=True)
            found[name]["centre at once"] = mean_and_error(at_once)
            if name == "unseen": found["by_depth"] = by_depth(model, vocabulary, data.images, captions)
        return found
    rows.judge(ARMS, judge)
    step_cost = RESULTS / "step_cost.json"
    if step_cost.exists(): rows.write(step_cost=json.loads(step_cost.read_text()))


if __name__ == "__main__": main()
