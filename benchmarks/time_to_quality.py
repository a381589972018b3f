"""Time to quality: the default recipe beside a plain port of the predecessor's, from scratch, on the same unseen
pictures.

    python benchmarks/time_to_quality.py [--data scenes] [--minutes 30] [--share 0.1] [--size 64]

Plain: 3x256 one-hot and mask into a convolution, eight layers of 64 filters at full resolution with batch norm, logits
of all variables, scattered orderless masks, the mean over all hidden variables of a batch of 16, Adam at 1e-3. It gets
`--minutes`; the default recipe, `my3yearold train` as it is, gets that times `--share`. Minutes are of steps alone
(validation stops the clock of the plain run, not that of the default one). Validation: bits/dim of 128 unseen pictures
in random order. Writes benchmarks/results/time_to_quality_NAME.json."""
import argparse, csv, json, platform, tempfile, time
from pathlib import Path
import torch
import torch.nn.functional as F
from tqdm import tqdm
from my3yearold.chance import stream
from my3yearold.batches import Examples
from my3yearold.data import load_data
from my3yearold.captions import Vocabulary
from my3yearold.masks import orderless
from my3yearold.model import OrderlessNADE
from my3yearold.training import TrainConfig, train
from my3yearold.validation import validate


def plain_loss(model, images, given, ids, lengths): # -> scalar, nats
    "One-hot in, everything out, the mean over the hidden variables of the batch."
    door, head, levels = model.door, model.head, model.head.levels
    # (N, 3, L, H, W)
    one_hot = F.one_hot(images.long(), levels).permute(0, 1, 4, 2, 3).float() * given[:, :, None]
    # (C, 3 L + 3, 1, 1)
    weight = torch.cat([door.weight().flatten(0, 1), door.mask]).T[..., None, None]
    x = F.conv2d(torch.cat([one_hot.flatten(1, 2), given.float()], 1), weight, door.bias)
    x = F.silu(model.norm(model.trunk(x, model.read(ids, lengths), lengths)))
    logits = F.conv2d(x, head.free.flatten(0, 1)[..., None, None], head.bias.flatten()).unflatten(1, (3, levels))
    return F.cross_entropy(logits.transpose(1, 2), images.long(), reduction="none")[~given].mean()


def plain_run(config, data, held_out, minutes): # -> list of (minutes, bits/dim)
    torch.manual_seed(config.seed)
    vocabulary = Vocabulary.build(data.captions, min_count=5)
    model = OrderlessNADE(len(vocabulary), config.size, trunk="straight", embedding="free", head="free").to(
        memory_format=torch.contiguous_format
    )
    # the predecessor had no guess
    model.guess.weight.requires_grad_(False).zero_()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    examples, held_out = (Examples(d, vocabulary, torch.device("cpu")) for d in (data, held_out))
    spent, step, curve, due = 0.0, 0, [], 1.0
    with tqdm(
        total=minutes,
        desc="plain",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} minutes{postfix}",
    ) as bar:
        while spent < minutes:
            begun, generator = time.monotonic(), stream(config.seed, step)
            index = examples.index(step, 16, config.seed)
            images, ids, lengths = examples.batch(index, examples.rows(index, 0.0, generator))
            optimiser.zero_grad()
            plain_loss(model, images, orderless(16, config.size, generator), ids, lengths).backward()
            optimiser.step()
            passed, step = (time.monotonic() - begun) / 60, step + 1
            spent += passed
            bar.update(min(spent, minutes) - bar.n)
            if spent >= min(due, minutes):
                curve.append((round(spent, 3), round(validate(model.eval(), held_out, config), 4)))
                model.train(); bar.set_postfix_str(f"{curve[-1][1]:.3f} bits/dim"); due += max(1.0, minutes / 20)
    return curve, step


def default_run(config): # -> list of (minutes, bits/dim)
    with tempfile.TemporaryDirectory() as folder:
        config.run = folder
        train(config)
        with open(Path(folder) / "log.csv") as f:
            return [(float(r["minutes"]), float(r["valid"])) for r in csv.DictReader(f)], json.loads(
                (Path(folder) / "model/card.json").read_text()
            )["step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    config = TrainConfig(
        data=args.data,
        size=args.size,
        max_minutes=args.minutes * args.share,
        max_steps=10**6,
        validate_every=100,
        num_valid=128,
        ema=0.99,
        device="cpu",
        keep=1,
    )
    default, default_steps = default_run(config)
    plain, plain_steps = plain_run(
        config,
        *(load_data(args.data, split, args.size, config.num_scenes) for split in ("train", "valid")),
        args.minutes,
    )
    reached = next((m for m, b in default if b <= plain[-1][1]), None)
    name = "scenes" if args.data == "scenes" else "photos"
    found = dict(
        command=f"python benchmarks/time_to_quality.py --data {args.data if name == 'scenes' else 'DATA'} --minutes "
                f"{args.minutes:g} --share {args.share:g} --size {args.size}",
        device="cpu",
        machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
        plain=plain,
        plain_steps=plain_steps,
        default=default,
        default_steps=default_steps,
        reached=reached,
    )
    out = Path(__file__).parent / "results" / f"time_to_quality_{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"plain: {plain[-1][1]:.3f} bits/dim after {plain[-1][0]:.1f} minutes, {plain_steps} steps")
    print(
        f"default: {default[-1][1]:.3f} bits/dim after {default[-1][0]:.1f} minutes, {default_steps} steps;",
        "never as good as that"
        if reached is None
        else f"as good as that after {reached:.1f} minutes or less: {plain[-1][0] / reached:.0f} times faster",
    )


if __name__ == "__main__": main()
