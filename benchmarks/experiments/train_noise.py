"""How noisy is the gradient of cross-entropy, of the earth mover's distance and of its square, along the first steps?

    python benchmarks/experiments/train_noise.py [--batches 48]

The first steps of each of the arms `default`, `emd` and `emd2` of runs.py are taken anew, and at four places the
gradient is looked at on `batches` independent batches. Adds to nbs/experiments/results/07_smooth.json."""
import torch

from judging import Rows, arguments
from steps import Stepper

NAME, ARMS = "07_smooth", ["default", "emd", "emd2"]
PLACES = (0, 25, 100, 200)                                    # steps after which the gradient is looked at


def noise(stepper, loss, batches): # -> how many pictures drown the noise
    """The simple noise scale (McCandlish et al., 1812.06162): the number of pictures in a batch whose gradient is as
    much noise as signal."""
    total, squares = 0.0, 0.0
    for batch in range(batches):
        stepper.gradient(10**6 + batch, loss)                                  # questions that no run was asked
        gradients = [p.grad.flatten() for p in stepper.learner.model.parameters() if p.grad is not None]
        gradient = torch.cat(gradients).double()
        total, squares = total + gradient, squares + gradient.square().sum()
    mean_square, square_mean = squares / batches, (total / batches).square().sum()
    variance = (mean_square - square_mean) * batches / (batches - 1)
    return round((stepper.config.batch_size * variance / (square_mean - variance / batches)).item(), 1)


def along(args, arm, seed): # -> place -> pictures
    """The first steps of a run of this arm. At the last place of the default the other losses are asked, too: at the
    same weights."""
    stepper, found, at = Stepper(arm, seed), {}, 0
    for place in PLACES:
        if place > at: stepper.seconds(range(at, place))
        at, found[str(place)] = place, noise(stepper, stepper.config.loss, args.batches)
    if arm == "default":
        found |= {f"{PLACES[-1]}, {loss}": noise(stepper, loss, args.batches) for loss in ("emd", "emd2")}
    return found


def main():
    args = arguments(__doc__, batches=48)
    rows = Rows(NAME, "train_noise.py", args, part="noise")
    rows.judge(ARMS, lambda arm, seed: dict(noise=along(args, arm, seed)), needs_runs=False)


if __name__ == "__main__": main()
