"""Writes weights.pt: a training checkpoint as open_clip_train saves one, of a model of four small tensors under
DistributedDataParallel, in four types of numbers.  python3 weights.py weights.pt  (torch 2.11.0)"""

import collections
import sys

import torch

whole = torch.arange(6, dtype=torch.float32)
state_dict = collections.OrderedDict(
    {
        "module.logit_scale": torch.tensor(2.5, dtype=torch.float64),
        "module.weight": whole.view(2, 3).to(torch.bfloat16),
        "module.bias": whole.to(torch.float16)[1:4],
        "module.proj": whole.view(2, 3).t(),
    }
)
state_dict._metadata = collections.OrderedDict({"": {"version": 1}})
optimizer = torch.optim.AdamW([torch.nn.Parameter(whole.clone())], betas=(0.9, 0.98))
optimizer.param_groups[0]["params"][0].grad = torch.ones(6)
optimizer.step()
scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}
checkpoint = {
    "epoch": 3,
    "name": "2026-ViT",
    "state_dict": state_dict,
    "optimizer": optimizer.state_dict(),
    "scaler": scaler,
}
torch.save(checkpoint, sys.argv[1])
