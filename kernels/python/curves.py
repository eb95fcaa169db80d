"""Draws kernels/figures/curves.svg: time and memory of a loss with its gradients against batch size, on one CPU thread."""

import argparse
import json
import pathlib
import statistics

import matplotlib
import torch

import bench

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "sweep"
import matplotlib.pyplot as plt  # noqa: E402

LOOKS = {
    "open_clip eager, fp32": ("#b3403a", "o", "-"),
    "one logits matrix eager, fp32": ("#c98b2b", "s", "-"),
    "ours, fp32": ("#20639b", "^", "-"),
    "ours, fp32, budget 32 MB": ("#20639b", "v", "--"),
    "ours, bf16": ("#2a8a57", "D", "-"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", default=None, help="read what --save wrote, and only draw")
    parser.add_argument("--save", default=None)
    parser.add_argument("--out", default=pathlib.Path(__file__).resolve().parent.parent / "figures" / "curves.svg")
    options = parser.parse_args()
    rows = json.load(open(options.data)) if options.data else measure(options)
    if options.save:
        json.dump(rows, open(options.save, "w"))
    draw(rows, options)


def measure(options):
    torch.set_num_threads(1)
    losses = bench.variants("cpu", list(LOOKS))
    rows = []
    for batch in options.batches:
        inputs = bench.leaves(batch, options.depth, "cpu", 1 / 0.07)
        rounds = options.rounds if batch <= 4096 else 2
        times = bench.timed(losses, inputs, "cpu", rounds)
        for name in losses:
            arguments = [f"--batch={batch}", f"--depth={options.depth}", "--threads=1"]
            held = bench.resident_memory(arguments, name)
            rows.append({"loss": name, "batch": batch, "ms": statistics.median(times[name][1]), "mb": held})
            print(rows[-1], flush=True)
    return rows


def draw(rows, options):
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4.2))
    for name, (color, marker, line) in LOOKS.items():
        points = sorted((row["batch"], row["ms"], row["mb"]) for row in rows if row["loss"] == name)
        batches, ms, mb = zip(*points)
        time.plot(batches, ms, line, color=color, marker=marker, markersize=4, label=name)
        memory.plot(batches, [max(x, 0.5) for x in mb], line, color=color, marker=marker, markersize=4, label=name)
    for axes, title in ((time, "Loss and gradients, ms"), (memory, "Memory beyond inputs and outputs, MB")):
        axes.set(xscale="log", yscale="log", xlabel="Batch size B", title=title)
        axes.set_xticks([p for p in batches], [f"{p:,}" for p in batches], fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    time.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
