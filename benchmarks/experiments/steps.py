"""What a step of training costs, trunk by trunk: milliseconds of one core, interleaved, medians.

    OMP_NUM_THREADS=1 python benchmarks/experiments/steps.py

The table by which runs.py gives its trunks equal processor time, and what it takes to see across 32 pixels. Writes
nbs/experiments/results/step_cost.json."""
import json, platform, statistics, time
from dataclasses import replace
from pathlib import Path

import torch

from my3yearold.batches import Examples, ScoredLoss, decide
from my3yearold.config import LOSSES
from my3yearold.data import load_data
from my3yearold.devices import engine
from my3yearold.resuming import begin
from my3yearold.training import learning_rate, make_learner, train_step, update_average
from runs import config_of

RESULTS = Path(__file__).resolve().parents[2] / "nbs/experiments/results"
TRUNKS = {arm: {} for arm in ("default", "straight", "straight_3", "straight_16", "residual", "dilated")}
TRUNKS |= {"straight_31": dict(trunk="straight", layers=31), "dilated_5": dict(trunk="dilated", layers=5)}


class Stepper:
    "One arm, ready to take steps; as the loop of training, without its safeguards."
    def __init__(self, arm: str, seed: int = 0, num_scenes: int | None = None, # None: as many as the run has
                 **changes):
        config = replace(config_of(arm, seed, Path("unused")), device="cpu", **changes)
        data = load_data(config.data, "train", config.size, num_scenes or config.num_scenes)
        self.accelerator = engine(config)
        self.config, model, vocabulary = begin(config, data)
        self.learner = make_learner(self.config, model, vocabulary, self.accelerator.device)
        self.examples = Examples(data, vocabulary, self.accelerator.device)

    def gradient(self, step: int, loss: str) -> None: # is left in the parameters
        plan, cost = decide(self.config, self.examples, step), ScoredLoss(self.learner.model, LOSSES[loss])
        self.learner.optimiser.zero_grad()
        train_step(self.config, cost, self.examples, plan, self.accelerator)

    def seconds(self, steps: range) -> float: # of processor time, for one step
        begun, config, learner = time.process_time(), self.config, self.learner
        for step in steps:
            rate = learning_rate(step, step / config.max_steps, config)
            for group in learner.optimiser.param_groups: group["lr"] = rate
            self.gradient(step, config.loss)
            torch.nn.utils.clip_grad_norm_(learner.model.parameters(), config.clip)
            learner.optimiser.step()
            update_average(learner.average, learner.model, step, config.ema)
        return (time.process_time() - begun) / len(steps)


def main(rounds: int = 12, each: int = 4) -> None:
    "Interleaved, so that a busy neighbour hits all alike."
    steppers = {name: Stepper("default" if change else name, num_scenes=256, **change)
                for name, change in TRUNKS.items()}
    found = {name: [] for name in TRUNKS}
    for r in range(-1, rounds):                                       # the first round prepares and does not count
        for name, stepper in steppers.items():
            took = stepper.seconds(range((r + 1) * each, (r + 2) * each))
            if r >= 0: found[name].append(1000 * took)
    rows = [dict(arm=name, milliseconds=round(statistics.median(took), 2), rounds=[round(ms, 2) for ms in took],
                 parameters=sum(p.numel() for p in steppers[name].learner.model.parameters()))
            for name, took in found.items()]
    for row in rows: print(f"{row['arm']:14s} {row['milliseconds']:7.2f} ms a step")
    told = dict(command="python benchmarks/experiments/steps.py", device="cpu", seed=0, torch=torch.__version__,
                machine=f"{platform.machine()}, {torch.get_num_threads()} threads", rows=rows)
    (RESULTS / "step_cost.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__": main()
