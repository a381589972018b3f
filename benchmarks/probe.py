"""Has the network read the shape of what is hidden? A linear probe on what each attention layer found and made of it.

    python benchmarks/probe.py [WEIGHTS] [--scenes 1200] [--seed 4242]

Unseen scenes with an object fully hidden; for each `CaptionAttention`, two vectors averaged over the hole: what was
added ("read") and the features behind. A logistic regression on three quarters of the scenes names shape and colour of
the hidden object in the last quarter. Chance is one in six and one in eight."""
import argparse
import torch
import torch.nn.functional as F
from my3yearold.saving import weights_folder, load_model
from my3yearold.scenes import PALETTE, SHAPES, hide_object, scenes


@torch.no_grad()
def collect(model, vocabulary, drawn, given): # -> {layer: (read (N, C), behind (N, C))}
    found, hidden = {}, None
    def note(name):
        def hook(module, inputs, output):
            share = F.adaptive_avg_pool2d(hidden, output.shape[-2:])
            share = share / share.sum((2, 3), keepdim=True)
            found.setdefault(name, []).append([((x * share).sum((2, 3))) for x in (output - inputs[0], output)])
        return hook
    for name, module in model.named_modules():
        if hasattr(module, "relevance"): module.register_forward_hook(note(name))
    for index in torch.arange(len(drawn)).split(40):
        hidden = (~given[index, :1]).float()
        corner = torch.zeros_like(given[index])
        corner[:, :, 0, 0] = True  # the head may do as little as possible
        model(
            drawn.images[index] * given[index],
            given[index],
            *vocabulary.encode([drawn.captions[i][0] for i in index.tolist()]),
            corner,
        )
    return {name: [torch.cat(x) for x in zip(*parts)] for name, parts in found.items()}


def probe(x, y, classes): # (N, C), (N,) -> share of the last quarter named right
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    train = slice(0, 3 * len(x) // 4)
    weight, bias = torch.zeros(x.shape[1], classes, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60)
    def closure():
        optimiser.zero_grad()
        loss = F.cross_entropy(x[train] @ weight + bias, y[train]) + 3e-3 * weight.square().sum()
        loss.backward()
        return loss
    optimiser.step(closure)
    return ((x[train.stop:] @ weight + bias).argmax(1) == y[train.stop:]).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", default="scenes")
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=4242)
    args = parser.parse_args()
    model, vocabulary, _ = load_model(weights_folder(args.weights))
    drawn = scenes(args.scenes, 64, seed=args.seed)
    given, hidden = hide_object(drawn)
    shape, colour = (
        torch.tensor([SHAPES.index(h.shape) for h in hidden]),
        torch.tensor([list(PALETTE).index(h.colour) for h in hidden]),
    )
    for name, vectors in collect(model, vocabulary, drawn, given).items():
        for what, x in zip(("read", "behind"), vectors):
            print(
                f"{name:20s} {what:7s} {x.shape[1]:4d} features: shape {probe(x, shape, len(SHAPES)):.2f}, colour "
                f"{probe(x, colour, len(PALETTE)):.2f}",
                flush=True,
            )


if __name__ == "__main__": main()
