"""Both losses once on the GPU at awkward sizes, for compute-sanitizer: quick, and every kernel runs."""

import torch
import torch.nn.functional as F

import sweep_kernels  # noqa: F401

for b, d in [(1, 1), (65, 40), (129, 64), (300, 72)]:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for scale in (14.3, 100.0):
            images, texts = (F.normalize(torch.randn(b, d, device="cuda"), dim=1).to(dtype).requires_grad_() for _ in range(2))
            s, bias = (torch.tensor(x, device="cuda", requires_grad=True) for x in (scale, -10.0))
            for budget in (0, 1 << 30):
                (torch.ops.sweep.clip_loss(images, texts, s, budget_bytes=budget) +
                 torch.ops.sweep.siglip_loss(images, -texts, s, bias, budget_bytes=budget) +
                 torch.ops.sweep.clip_loss(images, -images, s * 10, budget_bytes=budget)).backward()
torch.cuda.synchronize()
print("smoke: done")
