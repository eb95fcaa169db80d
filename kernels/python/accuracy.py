"""Prints the accuracy table of kernels/README.md: errors by type and scale, ours and eager PyTorch's, against float64.

B = 1000, D = 512, features like a trained CLIP's (positive cosines about 0.3, negative ones about 0.1). Each is compared with
float64 on its own rounded features: relative error of the loss / of the image gradient, Frobenius norm.
"""

import torch
import torch.nn.functional as F

import bench
import sweep_kernels  # noqa: F401

SCALES = [1.0, 1 / 0.07, 50.0, 100.0, 1000.0]


def eager(images, texts, scale):
    logits = scale * images @ texts.T
    labels = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def amp(images, texts, scale):
    with torch.autocast(images.device.type, torch.bfloat16):
        return eager(images, texts, scale)


def ours(compute="auto"):
    return lambda *x: torch.ops.sweep.clip_loss(*x, compute=compute)


def errors(loss, rounded, kept, scale, device):
    images, texts = bench.unit(1000, 512, device, 0)
    images, texts = (x.to(rounded) for x in (images, texts))
    found = [x.clone().to(kept).requires_grad_() for x in (images, texts)]
    wide = [x.double().requires_grad_() for x in (images, texts)]
    value = loss(*found, torch.tensor(scale, device=device))
    value.backward()
    truth = torch.ops.sweep.clip_loss(*wide, torch.tensor(scale, dtype=torch.float64, device=device))
    truth.backward()
    apart = (found[0].grad.double() - wide[0].grad).norm() / wide[0].grad.norm()
    return abs(value.item() / truth.item() - 1), apart.item()


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    rows = [("ours, float32", ours(), fp32, fp32), ("eager, float32", eager, fp32, fp32),
            ("ours, float32 features, bfloat16 products", ours("bf16"), bf16, fp32),
            ("eager under autocast, bfloat16", amp, bf16, fp32),
            ("ours, bfloat16 features and gradients", ours(), bf16, bf16),
            ("ours, float16 features and gradients", ours(), fp16, fp16)]
    print("| loss / image gradient | " + " | ".join(f"s = {scale:.4g}" for scale in SCALES) + " |")
    print("|---" * (len(SCALES) + 1) + "|")
    for name, *how in rows:
        cells = ["{:.0e} / {:.0e}".format(*errors(*how, scale, device)) for scale in SCALES]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
