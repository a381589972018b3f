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
    """The simple noise scale (McCandlish et al., 1812.06162): pictures in a batch whose gradient is as much noise as
    signal; and that of Adam's step, which divides the gradient by the root of its second moments."""
    weights, second = list(stepper.learner.model.parameters()), second_moments(stepper.learner)
    scale = [torch.ones_like(p) for p in weights] if second is None else [1 / (v.sqrt() + 1e-8) for v in second]
    total, squares = 0.0, torch.zeros(2, dtype=torch.float64)
    for batch in range(batches):
        stepper.gradient(10**6 + batch, loss)                                  # questions that no run was asked
        gradient = torch.cat([p.grad.flatten() for p in weights if p.grad is not None])
        step = torch.cat([(p.grad * s).flatten() for p, s in zip(weights, scale) if p.grad is not None])
        both = torch.stack([gradient, step]).double()
        total, squares = total + both, squares + both.square().sum(1)
    mean_square, square_mean = squares / batches, (total / batches).square().sum(1)
    variance = (mean_square - square_mean) * batches / (batches - 1)
    signal = square_mean - variance / batches
    return [round(v, 1) for v in (stepper.config.batch_size * variance / signal).tolist()]


def along(args, arm, seed): # -> place -> pictures, of the gradient and of Adam's step
    """The first steps of a run of this arm. At the last place of the default the other losses are asked, too: at the
    same weights."""
    stepper, found, at = Stepper(arm, seed), {}, 0
    for place in PLACES:
        if place > at: stepper.seconds(range(at, place))
        at, found[str(place)] = place, noise(stepper, stepper.config.loss, args.batches)
    if arm == "default":
        found |= {f"{PLACES[-1]}, {loss}": noise(stepper, loss, args.batches)[:1] for loss in ("emd", "emd2")}
    return found


def second_moments(found): # of Adam, corrected for their start at zero; None before the first step
    state = [found.optimiser.state.get(p) for p in found.model.parameters()]
    if not any(state): return None
    return [s["exp_avg_sq"] / (1 - 0.99 ** float(s["step"])) if s else torch.ones_like(p)
            for s, p in zip(state, found.model.parameters())]


def main():
    args = arguments(__doc__, batches=48)
    rows = Rows(NAME, "train_noise.py", args, part="noise")
    rows.judge(ARMS, lambda arm, seed: dict(noise=along(args, arm, seed)), needs_runs=False)


if __name__ == "__main__": main()
