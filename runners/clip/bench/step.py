"""A training step (towers, loss, backward, AdamW) of clip-runner beside open_clip's, on this CPU: one table. `make bench-step` runs it.

Every figure is of a process of its own, and processes take turns, so that what else a machine does meets them alike. A ratio
is of two that followed each other, in samples a second of processor time, which a busy machine disturbs least; the table has
the median of the rounds. Compiling is not timed, and starts from an empty cache: inductor (torch 2.11) keeps graphs without
a word on the vectors that they were written for.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

SHAPES = ["64x3", "128x4", "192x6"]
PEERS = ["eager, fp32", "torch.compile, fp32", "eager, bf16"]
OURS = ["clip-runner, fp32", "clip-runner, amp_bf16"]


def peer(variant, shape, batch, steps, threads):
    """Prints wall and processor seconds of a step of open_clip."""
    import open_clip
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    width, layers = map(int, shape.split("x"))
    model = CLIP(
        embed_dim=width,
        vision_cfg=CLIPVisionCfg(layers=layers, width=width, head_width=32, patch_size=8, image_size=32),
        text_cfg=CLIPTextCfg(context_length=16, vocab_size=8192, width=width, heads=width // 32, layers=layers),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.2)
    loss_of = open_clip.ClipLoss()
    towers = torch.compile(model) if "compile" in variant else model
    images, texts = torch.randn(batch, 3, 32, 32), torch.randint(1, 8191, (batch, 16))

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in variant):
            loss = loss_of(*towers(images, texts))
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    print((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps)


def measured(variant, shape, options, cache):
    """Wall and processor milliseconds of a step, in a process of its own."""
    common = [str(options.batch), str(options.steps), str(options.threads)]
    if variant in PEERS:
        command = [sys.executable, __file__, "--peer", variant, shape, *common]
    else:
        command = [os.environ["CLIP_RUNNER"], "bench-step", "--shapes", shape, "--batch", common[0], "--steps", common[1]]
        command += ["--threads", common[2]] + ["--bf16"] * ("bf16" in variant)
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache})
    if found.returncode:
        sys.exit(f"{' '.join(command)} left with {found.returncode}:\n{found.stderr}")
    if variant in PEERS:
        return [1e3 * float(secs) for secs in found.stdout.split()[-2:]]
    return [float(re.search(pattern, found.stdout)[1]) for pattern in (r"([\d.]+) ms/step", r"([\d.]+) ms of processor")]


def main():
    if sys.argv[1:2] == ["--peer"]:
        variant, shape, *numbers = sys.argv[2:]
        return peer(variant, shape, *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="WIDTHxLAYERS of both towers")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="timed, after three others")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Batch {options.batch}, {options.threads} threads, median of {options.rounds} rounds; ratios: samples per second of "
          "processor time to that of eager, fp32\n")
    print("| model | step | ms | ms of processor | to eager | to torch.compile |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for shape in options.shapes:
            rounds = []
            for number in range(options.rounds):
                print(f"{shape}, round {number + 1} of {options.rounds}", file=sys.stderr)
                rounds.append({variant: measured(variant, shape, options, cache) for variant in PEERS + OURS})
            for variant in PEERS + OURS:
                median = lambda of: statistics.median(of(found) for found in rounds)
                ratio = lambda to: f"{median(lambda found: found[to][1] / found[variant][1]):.2f} x"
                print(f"| width {shape.replace('x', ', ')} layers | {variant} | {median(lambda f: f[variant][0]):.1f} | "
                      f"{median(lambda f: f[variant][1]):.1f} | {ratio(PEERS[0])} | {ratio(PEERS[1])} |", flush=True)


if __name__ == "__main__":
    main()
