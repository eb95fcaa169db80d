"""Times both losses beside their Python peers in one process and prints one table; `make bench-kernels` runs it.

Variants take turns, so that what else a machine does meets them alike; a figure is the median of the rounds. Memory is what
a variant holds at most beyond its inputs and outputs: allocator statistics on a GPU; on a CPU, growth of the peak resident
size of a process of its own. Errors are relative, in the Frobenius norm, to this library's float64, which tests hold
against the plain formula; inputs are rounded to what the variant reads before the reference is taken.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

import sweep_kernels  # noqa: F401  (loads the operators)

clip, siglip = torch.ops.sweep.clip_loss, torch.ops.sweep.siglip_loss


def unit(b, d, device, seed):
    """CLIP-like: a common direction for each tower, a common part for each pair."""
    draws = torch.Generator().manual_seed(seed)
    normal = lambda *shape: F.normalize(torch.randn(*shape, generator=draws), dim=-1)
    pair, common = normal(b, d), normal(d)
    return [F.normalize(0.32 * common + 0.45 * pair + 0.83 * normal(b, d), dim=1).to(device) for _ in range(2)]


def shared(images, texts, scale, bias=None):
    logits = scale * images @ texts.T
    labels = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def variants(device, chosen):
    from open_clip.loss import ClipLoss, SigLipLoss

    def autocast(loss):
        def run(*x):
            with torch.autocast(device, torch.bfloat16):
                return loss(*x)
        return run

    open_clip, open_siglip = ClipLoss(), SigLipLoss()
    kind = "fp16" if device == "cuda" else "bf16"
    found = {
        "open_clip eager, fp32": lambda i, t, s, b: open_clip(i, t, s),
        "one logits matrix eager, fp32": shared,
        "ours, fp32": lambda i, t, s, b: clip(i, t, s),
        "ours, fp32, budget 32 MB": lambda i, t, s, b: clip(i, t, s, budget_bytes=32 << 20),
        "open_clip eager, amp": autocast(lambda i, t, s, b: open_clip(i, t, s)),
        f"ours, {kind}": lambda i, t, s, b: clip(i, t, s, compute=kind),
        "SigLIP: open_clip eager, fp32": open_siglip,
        "SigLIP: ours, fp32": lambda i, t, s, b: siglip(i, t, s, b),
        "SigLIP: open_clip eager, amp": autocast(open_siglip),
        f"SigLIP: ours, {kind}": lambda i, t, s, b: siglip(i, t, s, b, compute=kind),
    }
    if device == "cuda":
        compiled = torch.compile(open_clip)
        found["open_clip torch.compile, amp"] = autocast(lambda i, t, s, b: compiled(i, t, s))
        found.update(peers())
    return {name: loss for name, loss in found.items() if loss and (not chosen or name in chosen)}


def peers():
    """What is published for a GPU, where its wheel was carried along. memeff takes its temperature as a plain number and
    gives the scale no gradient; Inf-CL is one-directional and runs twice."""
    found = {}
    try:
        from memeff import MemoryEfficientCLIPLoss

        def memeff(i, t, s, b):
            loss = MemoryEfficientCLIPLoss(temperature=1 / s.item(), normalized_inputs=True, stable=False)
            return loss(i.bfloat16(), t.bfloat16())
        found["memeff 0.3.1, bf16"] = memeff
    except ImportError:
        pass
    try:
        from inf_cl import cal_flash_loss
        found["inf_cl 1.2.1, both ways"] = lambda i, t, s, b: (cal_flash_loss(s * i, t) + cal_flash_loss(s * t, i)) / 2
    except ImportError:
        pass
    return found


def products(inputs, device, rounds):
    """Milliseconds of the 8 B^2 D operations of the fused loss as plain half-precision products: four of B x B x D."""
    kind = torch.float16 if device == "cuda" else torch.bfloat16
    i, t = (x.detach().to(kind) for x in inputs[:2])
    rows = min(len(i), 2048)
    g = (i[:rows] @ t.T)
    def run():
        for _ in range(len(i) // rows):
            i[:rows] @ t.T, i[:rows] @ t.T, g @ t, g.T @ i[:rows]
    run()
    times = []
    for _ in range(rounds):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def leaves(b, d, device, scale):
    images, texts = unit(b, d, device, 0)
    one = lambda value: torch.tensor(value, device=device)
    return [x.requires_grad_() for x in (images, texts, one(scale), one(-10.0))]


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def once(loss, inputs, device, backward=True):
    for x in inputs:
        x.grad = None
    wait(device)
    started = time.perf_counter()
    if backward:
        loss(*inputs).backward()
    else:
        with torch.no_grad():
            loss(*inputs)
    wait(device)
    return 1e3 * (time.perf_counter() - started)


def timed(losses, inputs, device, rounds):
    times = {name: ([], []) for name in losses}
    for name, loss in list(losses.items()):
        try:
            once(loss, inputs, device), once(loss, inputs, device, False)
        except torch.OutOfMemoryError:
            times[name] = None
    for _ in range(rounds):
        for name, loss in losses.items():
            if times[name]:
                times[name][0].append(once(loss, inputs, device, False))
                times[name][1].append(once(loss, inputs, device))
    return times


def error(name, loss, inputs):
    """Of the image gradient."""
    for x in inputs:
        x.grad = None
    loss(*inputs).backward()
    found = inputs[0].grad.double()
    half = {"amp": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    rounded = next((kind for word, kind in half.items() if name.endswith(word)), torch.float32)
    wide = [x.detach().to(rounded).double().requires_grad_() for x in inputs[:2]]
    wide += [x.detach().double() for x in inputs[2:]]
    (siglip(*wide, compute="fp64") if name.startswith("SigLIP") else clip(*wide[:3], compute="fp64")).backward()
    return ((found - wide[0].grad).norm() / wide[0].grad.norm()).item()


def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


def memory(loss, inputs, device):
    """MB at most, beyond inputs and their gradients."""
    kept = 2 * sum(x.numel() * x.element_size() for x in inputs[:2]) / 2**20
    once(loss, inputs, device)
    gc.collect()
    for x in inputs:
        x.grad = None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        once(loss, inputs, device)
        return torch.cuda.max_memory_allocated() / 2**20 - before - kept / 2
    return None


def resident_memory(arguments, name):
    """In a process of its own, which computes the loss once."""
    command = [sys.executable, __file__, *arguments, "--only-memory", name]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--scale", type=float, default=1 / 0.07)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--variants", nargs="*", help="names, all unless given")
    parser.add_argument("--only-memory", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(options.threads)
    inputs = leaves(options.batch, options.depth, device, options.scale)
    if options.only_memory:
        loss = variants(device, [options.only_memory])[options.only_memory]
        once(loss, leaves(64, options.depth, device, options.scale), device)  # libraries and threads, not the loss
        kept = sum(x.numel() * x.element_size() for x in inputs[:2]) / 2**20
        open("/proc/self/clear_refs", "w").write("5")
        before = resident()
        once(loss, inputs, device)
        return print(resident() - before - kept)
    losses = variants(device, options.variants)
    times = timed(losses, inputs, device, options.rounds)
    what = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {options.threads} threads"
    print(f"\nB = {options.batch}, D = {options.depth}, s = {options.scale:.4g}; {what}; PyTorch {torch.__version__}; "
          f"median of {options.rounds}, ms\n")
    if device == "cuda":
        print(f"The same products alone, fp16, by cuBLAS: {products(inputs, device, options.rounds):.2f} ms\n")
    print("| loss | forward | forward and backward | least | memory, MB | error of gradient | to open_clip |")
    print("|---|---|---|---|---|---|---|")
    base = {}
    for name, loss in losses.items():
        if not times[name]:
            print(f"| {name} | out of memory | | | | | |")
            continue
        forward, both = (statistics.median(x) for x in times[name])
        base.setdefault(name.startswith("SigLIP"), both)
        arguments = [f"--{key.replace('_', '-')}={getattr(options, key)}"
                     for key in ("device", "batch", "depth", "scale", "threads")]
        held = memory(loss, inputs, device) if device == "cuda" else resident_memory(arguments, name)
        print(f"| {name} | {forward:.2f} | {both:.2f} | {min(times[name][1]):.2f} | {held:.0f} | "
              f"{error(name, loss, inputs):.1e} | {base[name.startswith('SigLIP')] / both:.2f} x |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
