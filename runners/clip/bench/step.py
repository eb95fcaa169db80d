"""A training step (towers, loss, backward, AdamW) of clip-runner beside open_clip's: one table. `make bench-step` runs it on this CPU,
`scripts/gpu/check.sh` with `--device cuda --models ViT-B-32` on a GPU.

Every figure is of a process of its own, and processes take turns, so that what else a machine does meets them alike. A ratio
is of two that followed each other, in samples a second: of processor time on a CPU, which a busy machine disturbs least, and of
time on a GPU. The table has the median of the rounds. Compiling is not timed, and starts from an empty cache: inductor (torch 2.11)
keeps graphs without a word on the vectors that they were written for.

Memory is the most that tensors took at once (libtorch's allocator) on a GPU. Model FLOPs: 3 x 2 x the towers' multiply-accumulates of a
forward pass (`clip-runner` counts them), for all alike; their share is of what the GPU's data sheet gives for dense bfloat16.
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
# Of each device, what is measured; ratios are to the first two.
VARIANTS = {
    "cpu": ["eager, fp32", "torch.compile, fp32", "eager, bf16", "clip-runner, fp32", "clip-runner, amp_bf16"],
    "cuda": ["eager, bf16", "torch.compile, bf16", "clip-runner, amp_bf16"],
}
# FLOP/s of dense bfloat16, by NVIDIA's data sheets.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def peer(variant, name, device, batch, steps, threads):
    """Prints wall and processor seconds of a step of open_clip, and the bytes that its tensors took."""
    import open_clip
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if re.fullmatch(r"\d+x\d+", name):
        width, layers = map(int, name.split("x"))
        model = CLIP(
            embed_dim=width,
            vision_cfg=CLIPVisionCfg(layers=layers, width=width, head_width=32, patch_size=8, image_size=32),
            text_cfg=CLIPTextCfg(context_length=16, vocab_size=8192, width=width, heads=width // 32, layers=layers),
        )
        side, context, vocabulary = 32, 16, 8192
    else:
        model = open_clip.create_model(name)
        side, context, vocabulary = model.visual.image_size[0], model.context_length, model.vocab_size
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.2)
    loss_of = open_clip.ClipLoss()
    towers = torch.compile(model) if "compile" in variant else model
    images, texts = torch.randn(batch, 3, side, side), torch.randint(1, vocabulary - 1, (batch, context))
    images, texts = images.to(device), texts.to(device)
    on_gpu = device != "cpu"

    def step():
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled="bf16" in variant):
            loss = loss_of(*towers(images, texts))
        loss.backward()
        optimizer.step()

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    wait()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wait()
    secs = (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps
    print(*secs, torch.cuda.max_memory_allocated() if on_gpu else 0)


def measured(variant, name, options, cache):
    """Of a step, in a process of its own: wall and processor milliseconds, GB, GFLOP a sample where the runner says it."""
    batch, steps, threads = str(options.batch), str(options.steps), str(options.threads)
    ours = variant.startswith("clip-runner")
    if ours:
        command = [os.environ["CLIP_RUNNER"], "bench-step", "--models" if options.models else "--shapes", name]
        command += ["--device", options.device, "--batch", batch, "--steps", steps, "--threads", threads]
        command += ["--bf16"] * ("bf16" in variant)
    else:
        command = [sys.executable, __file__, "--peer", variant, name, options.device, batch, steps, threads]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache})
    if found.returncode:
        sys.exit(f"{' '.join(command)} left with {found.returncode}:\n{found.stderr}")
    if not ours:
        wall, processor, memory = map(float, found.stdout.split()[-3:])
        return [1e3 * wall, 1e3 * processor, memory / 1e9, None]
    patterns = r"([\d.]+) ms/step", r"([\d.]+) ms of processor", r"([\d.]+) GB", r"([\d.]+) GFLOP a sample"
    return [float(re.search(pattern, found.stdout)[1]) for pattern in patterns]


def gpu_name():
    query = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout


def main():
    if sys.argv[1:2] == ["--peer"]:
        variant, name, device, *numbers = sys.argv[2:]
        return peer(variant, name, device, *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="WIDTHxLAYERS of both towers")
    parser.add_argument("--models", nargs="+", default=[], help="open_clip's names, in place of shapes")
    parser.add_argument("--device", choices=VARIANTS, default="cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="timed, after three others")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    variants, timed = VARIANTS[options.device], 0 if on_gpu else 1
    gpu = gpu_name() if on_gpu else ""
    peak = next((flops for name, flops in PEAKS.items() if name in gpu), None)
    print(f"Batch {options.batch}, {options.threads} threads, {options.steps} steps, median of {options.rounds} rounds; ratios: samples "
          f"per second{'' if on_gpu else ' of processor time'} to that of {variants[0]} and {variants[1]}; open_clip with torch.optim.AdamW "
          "as open_clip_train has it (not `fused`)\n")
    columns = ["ms", "samples/s", "GB", "model FLOPs, TFLOP/s", "of peak"] if on_gpu else ["ms", "ms of processor"]
    print(f"| model | step | {' | '.join(columns)} | to eager | to torch.compile |\n|{'---|' * (len(columns) + 4)}")
    with tempfile.TemporaryDirectory() as cache:
        for name in options.models or options.shapes:
            rounds = []
            for number in range(options.rounds):
                print(f"{name}, round {number + 1} of {options.rounds}", file=sys.stderr)
                rounds.append({variant: measured(variant, name, options, cache) for variant in variants})
            gflop = rounds[0][variants[-1]][3]
            for variant in variants:
                wall, processor, memory = (statistics.median(found[variant][at] for found in rounds) for at in range(3))
                ratios = [statistics.median(found[to][timed] / found[variant][timed] for found in rounds) for to in variants[:2]]
                cells = [f"{wall:.1f}"]
                if on_gpu:
                    per_sec = options.batch / wall * 1e3
                    flops = gflop * 1e9 * per_sec
                    share = f"{100 * flops / peak:.0f} %" if peak else "unknown"
                    cells += [f"{per_sec:.0f}", f"{memory:.2f}", f"{flops / 1e12:.0f}", share]
                else:
                    cells += [f"{processor:.1f}"]
                label = name if options.models else f"width {name.replace('x', ', ')} layers"
                print(f"| {label} | {variant} | {' | '.join(cells + [f'{ratio:.2f} x' for ratio in ratios])} |", flush=True)


if __name__ == "__main__":
    main()
