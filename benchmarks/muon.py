"""Making every matrix of the bundled scenes trunk orthonormal, once: by singular values, by our iteration, and the
whole step of torch.optim.Muon (bfloat16 inside).

    python benchmarks/muon.py [--repeats 5]"""
import argparse, platform, statistics, time
import torch
from my3yearold.saving import weights_folder, load_model
from my3yearold.muon import orthogonalised


def seconds(work, repeats):
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    trunk = load_model(weights_folder("scenes"))[0].trunk
    matrices = [torch.nn.Parameter(p.detach().flatten(1)) for p in trunk.parameters() if p.ndim >= 2]
    for p in matrices: p.grad = torch.randn_like(p)
    optimiser = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
    found = {
        "singular values": seconds(
            lambda: [torch.linalg.svd(p.grad, full_matrices=False) for p in matrices], args.repeats
        ),
        "Newton-Schulz, float32": seconds(lambda: [orthogonalised(p.grad) for p in matrices], args.repeats),
        "torch.optim.Muon": seconds(optimiser.step, args.repeats),
    }
    ours = found["Newton-Schulz, float32"]
    print(
        f"{len(matrices)} matrices; {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, s in found.items(): print(f"{name:24s} {s:8.3f} s   {s / ours:6.1f} times ours")


if __name__ == "__main__": main()
