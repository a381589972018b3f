"""What masks cost: milliseconds per batch of 64x64 pictures, naive forms beside the exported ones.

    python benchmarks/masks.py --batch 16

Prints the best of ten for each; nothing is written."""
import argparse, time
import torch
import torch.nn.functional as F
from my3yearold.masks import MASKS, contiguish, mixture, orderless


def orderless_loop(n, size, generator):
    given = torch.zeros(n, 3 * size**2, dtype=torch.bool)
    for row in given:
        d = int(torch.randint(len(row), (1,), generator=generator))
        row[torch.randperm(len(row), generator=generator)[:d]] = True
    return given.view(n, 3, size, size)


def contiguish_by_shifts(n, size, generator, r=8):
    u = torch.rand(n, 1 + 3 * size**2, generator=generator, dtype=torch.float64)
    coins = (u[:, 1:] < u[:, :1]**(1 / (2 * r + 1)**2)).view(n, 3, size, size)
    padded, given = F.pad(coins, (r, r, r, r), value=True), torch.ones_like(coins)
    for i in range(2 * r + 1):
        for j in range(2 * r + 1): given &= padded[:, :, i:i + size, j:j + size]
    return given


def milliseconds(make, n):
    generator, times = torch.Generator().manual_seed(0), []
    for _ in range(10):
        start = time.perf_counter()
        make(n, 64, generator)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="pictures per batch")
    n = parser.parse_args().batch
    rows = {"orderless, loop": orderless_loop, "orderless, all at once": lambda n, size, g: orderless(n, size, g),
            "contiguish 17x17, by shifts": contiguish_by_shifts,
            "contiguish 17x17, summed-area table": lambda n, size, g: contiguish(n, size, 8, generator=g),
            **{f"mixture of {name} alone": (lambda n, size, g, name=name: mixture(n, size, name, g)) for name in MASKS}}
    for name, make in rows.items(): print(f"{name:40} {milliseconds(make, n):8.1f} ms for {n} pictures")
