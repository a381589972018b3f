"""Forward and backward through a QRNN layer and through nn.LSTM, interleaved: medians of both, and their ratio.

    python benchmarks/qrnn.py [--repeats 7] [--hidden 256] [--device cpu|cuda] [--threads 2]

Writes benchmarks/results/qrnn_DEVICE.json, which page 05_qrnn prints.
"""
import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from my3yearold.qrnn import QRNN

# 1611.01576, against cuDNN's LSTM, with a kernel of its own
PAPER = {8: "5.5x at T=32, 16.9x at T=512", 32: "4.2x to 6.4x", 256: "1.3x to 1.4x"}


def seconds(layer, x):
    "One forward and backward pass."
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    layer(x)[0].sum().backward()
    wait()
    return time.perf_counter() - start


def processor():
    "The processor's name, where the system tells it."
    try: lines = open("/proc/cpuinfo", encoding="utf-8").read().splitlines()
    except OSError: return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 256])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = torch.cuda.get_device_name() if args.device == "cuda" else f"{processor()}, {args.threads} threads"
    print(f"{machine}; torch {torch.__version__}; {args.hidden} neurons, window 2, fo-pooling, float32; "
          f"median of {args.repeats}, interleaved\n")
    print("batch  length   QRNN ms   LSTM ms   LSTM / QRNN   paper (cuDNN LSTM)")
    table = []
    for batch in args.batches:
        for length in args.lengths:
            x = torch.randn(batch, length, args.hidden, device=args.device, requires_grad=True)
            layers = QRNN(args.hidden, args.hidden), nn.LSTM(args.hidden, args.hidden, batch_first=True)
            layers = [layer.to(args.device) for layer in layers]
            for layer in layers: seconds(layer, x)
            rounds = [[seconds(layer, x) for layer in layers] for _ in range(args.repeats)]
            qrnn, lstm = (1e3 * statistics.median(times) for times in zip(*rounds))
            paper = PAPER.get(batch, "")
            print(f"{batch:5}  {length:6}  {qrnn:8.1f}  {lstm:8.1f}  {lstm / qrnn:11.1f}x   {paper}", flush=True)
            table.append(dict(batch=batch, length=length, qrnn_ms=round(qrnn, 1), lstm_ms=round(lstm, 1)))
    found = dict(machine=machine, torch=torch.__version__, hidden=args.hidden, repeats=args.repeats, table=table)
    (Path(__file__).parent / "results" / f"qrnn_{args.device}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
