"""The training step: the default path beside the plain one, same weights, same pictures, same hidden variables, same
loss.

    python benchmarks/step.py [--batch-size 8] [--size 64] [--rounds 9] [--precision float32|bfloat16] [--compile]

Plain: the 3x256 one-hot times the mask, concatenated with the mask, through a dense 1x1 convolution; logits of all
variables; every hidden one scored by picking from them; memory in the usual (N, C, H, W) order. Default: summed
embeddings, the head at a fixed sample of the hidden variables, channels last. Prints the median of interleaved rounds,
their ratio, and the peak memory of each form in a process of its own, and keeps them in benchmarks/results/step.json,
which page 14_training prints."""
import argparse, json, platform, resource, statistics, subprocess, sys, time
from contextlib import nullcontext
from pathlib import Path
import torch
import torch.nn.functional as F
from my3yearold.batches import scored_loss, shares, strata
from my3yearold.captions import Vocabulary
from my3yearold.losses import cross_entropy
from my3yearold.masks import orderless
from my3yearold.heads import neighbours
from my3yearold.model import OrderlessNADE, adaptive_means, pull_push
from my3yearold.scenes import scenes


def plain_logits(model, images, given, ids, lengths): # -> (N, 3, H, W, levels)
    "The same function written down directly: one-hot in, everything out."
    levels, door, head = model.head.levels, model.door, model.head
    # (N, 3, L, H, W)
    one_hot = F.one_hot(images.long(), levels).permute(0, 1, 4, 2, 3).float() * given[:, :, None]
    # (N, 3 L + 3, H, W)
    x = torch.cat([one_hot.flatten(1, 2), given.float()], 1)
    # (C, 3 L + 3, 1, 1)
    weight = torch.cat([door.weight().flatten(0, 1), door.mask]).T[..., None, None]
    guess = pull_push(images.float() * (2 / (levels - 1)) - 1, given)
    means, counts = adaptive_means(guess, given)
    x = F.conv2d(x, weight, door.bias) + model.guess(torch.cat([guess, means, counts.log() / 4], 1))
    x = F.silu(model.norm(model.trunk(x, model.read(ids, lengths), lengths))).permute(0, 2, 3, 1)       # (N, H, W, C)
    logits, near = [], torch.cat([neighbours(guess), means], 1).permute(0, 2, 3, 1)
    for c in range(3):
        offset, log_precision = F.linear(x, head.peak[c], head.peak_bias[c]).unbind(-1)
        around = (F.linear(x, head.taps[c], head.tap_bias[c]) * (near - guess[:, c, :, :, None])).sum(-1)
        squared = (head.values - (guess[:, c] + offset + around)[..., None]).square()
        nu, log_scale = F.linear(x, head.tail[c], head.tail_bias[c]).unbind(-1)
        rows = F.linear(x, head.basis @ head.coefficients[c] + head.free[c], head.bias[c])
        rows = (
            rows
            - 0.5 * log_precision.clamp(max=11).exp()[..., None] * squared
            - F.softplus(nu)[..., None] * torch.log1p(squared * log_scale.clamp(max=13).exp()[..., None])
        )
        a, precision = F.linear(x, head.expert[c], head.expert_bias[c]).unbind(-1)
        normal = -0.5 * precision.clamp(max=11).exp()[..., None] * (head.values - means[:, 9 + c, :, :, None]).square()
        logits.append(
            torch.logaddexp(
                rows.log_softmax(-1) + F.logsigmoid(-a)[..., None], normal.log_softmax(-1) + F.logsigmoid(a)[..., None]
            )
        )
    return torch.stack(logits, 1)


def plain_loss(model, images, given, ids, lengths, index, weight): # -> (N,)
    per_variable = cross_entropy(plain_logits(model, images, given, ids, lengths), images).flatten(2)
    return (per_variable.gather(2, index) * weight).sum((1, 2))


def setting(args):
    torch.manual_seed(0)
    generator, device = torch.Generator().manual_seed(0), torch.device(args.device)
    data = scenes(args.batch_size, args.size)
    vocabulary = Vocabulary.build(data.captions, min_count=1)
    ids, lengths = vocabulary.encode([c[0] for c in data.captions])
    given = orderless(args.batch_size, args.size, generator)
    model = OrderlessNADE(len(vocabulary), args.size)
    for m in model.modules():            # the blocks start as the identity; a benchmark wants them at work
        if hasattr(m, "conv2"): torch.nn.init.kaiming_normal_(m.conv2.weight)
    tensors = (data.images, given, ids, lengths, *strata(~given, args.scored, generator))
    return model.to(device), [t.to(device) for t in tensors], shares(~given, "image").to(device)


def make(form, model, tensors, share, args):
    "A function that does one step and returns its loss."
    if form == "plain": model = model.to(memory_format=torch.contiguous_format)
    else:
        model = model.to(memory_format=torch.channels_last)
        if args.compile: model.compile()
    # no rate: every step meets the same weights
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, fused=form == "default")
    loss_of = plain_loss if form == "plain" else scored_loss
    low = form == "default" and args.precision == "bfloat16"
    def step():
        optimiser.zero_grad()
        with torch.autocast(args.device, torch.bfloat16) if low else nullcontext():
            loss = (loss_of(model, *tensors) * share).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()
    return step


def peak(args, form): # -> MiB
    "Peak memory of two steps of one form, above what the process needs before them."
    if args.device == "cuda":
        step = make(form, *setting(args), args); step()
        torch.cuda.reset_peak_memory_stats(); before = torch.cuda.memory_allocated(); step()
        return (torch.cuda.max_memory_allocated() - before) / 2 ** 20
    command = [
        sys.executable,
        __file__,
        "--memory-of",
        form,
        "--batch-size",
        args.batch_size,
        "--size",
        args.size,
        "--scored",
        args.scored,
        "--precision",
        args.precision,
    ]
    return float(subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout)


def keep(args, machine, forms): # one row for each setting of each machine
    path = Path(__file__).parent / "results" / "step.json"
    setting = f"{args.precision}{', compiled' if args.compile else ''}"
    command = (f"python benchmarks/step.py --batch-size {args.batch_size} --size {args.size} --scored {args.scored} "
               f"--rounds {args.rounds} --precision {args.precision}{' --compile' if args.compile else ''}")
    row = dict(default_path_in=setting, machine=machine, torch=torch.__version__, command=command, **forms)
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [r for r in rows if (r["default_path_in"], r["machine"]) != (setting, machine)] + [row]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--scored", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-of", choices=["plain", "default"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        step = make(args.memory_of, *setting(args), args)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(2): step()
        return print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    machine = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(
        f"training step, {args.batch_size} scenes of {args.size}x{args.size}, {args.scored} variables scored, default "
        f"path in {args.precision}{', compiled' if args.compile else ''}; torch {torch.__version__}, {machine}"
    )
    # first: a child's peak begins at its parent's
    memory = {form: peak(args, form) for form in ("plain", "default")}
    steps = {form: make(form, *setting(args), args) for form in memory}
    losses, times = {form: step() for form, step in steps.items()}, {form: [] for form in steps}
    for _ in range(2): steps["default"]()
    for _ in range(args.rounds):
        for form, step in steps.items():
            begun = time.perf_counter(); step(); times[form].append(time.perf_counter() - begun)
    medians = {form: statistics.median(t) for form, t in times.items()}
    print(f"{'':8} {'seconds':>9} {'pictures/s':>11} {'peak MiB':>9} {'loss, nats':>11}")
    for form in steps:
        print(
            f"{form:8} {medians[form]:9.3f} {args.batch_size / medians[form]:11.1f} {memory[form]:9.0f} "
            f"{losses[form]:11.6f}"
        )
    print(
        f"default is {medians['plain'] / medians['default']:.2f} times as fast, with "
        f"{memory['default'] / memory['plain']:.2f} of the memory; losses differ by "
        f"{abs(losses['plain'] / losses['default'] - 1):.1e}"
    )
    keep(
        args,
        machine,
        {
            form: dict(seconds=round(medians[form], 4), peak_mib=round(memory[form]), loss=losses[form])
            for form in steps
        },
    )
    assert abs(losses["plain"] / losses["default"] - 1) < (1e-5 if args.precision == "float32" else 1e-2)


if __name__ == "__main__": main()
