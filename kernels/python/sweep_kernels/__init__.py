"""Fused contrastive losses for PyTorch: `ClipLoss` and `SigLipLoss` in place of open_clip's.

    from sweep_kernels import ClipLoss            # was: from open_clip import ClipLoss
    loss = ClipLoss()(image_features, text_features, logit_scale)

The library comes with a wheel (`make wheel`); from source, build it once: `make -C kernels/csrc` (and `make -C kernels/csrc cuda
NVCC=nvcc` for GPUs). It is looked for in SWEEP_KERNELS_LIBRARY, beside this file, and in ../../csrc/build. The operators, for
other uses:

    torch.ops.sweep.clip_loss(images, texts, scale, ids=None, label_smoothing=0., compute='auto',
                              budget_bytes=1 << 30, check_finite=False)
    torch.ops.sweep.siglip_loss(images, texts, scale, bias, ids=None, compute='auto', budget_bytes=1 << 30,
                                check_finite=False)

Features (B, D) float32, float64, bfloat16 or float16; `scale` the factor itself (open_clip passes logit_scale.exp());
`ids` int64 (B): equal ids are captions of one image, negative ones are left out; `compute` the type of the products:
auto (the features'), fp32, bf16, fp16, fp64. Under autocast the classes below take fp16 on a GPU (bfloat16's speed, an
eighth of its error) and autocast's type on a CPU.
"""

import os
import pathlib

import torch
from torch import nn


def _load():
    here = pathlib.Path(__file__).resolve().parent
    name = "libsweep_kernels.so"
    of_wheel = here / name
    places = [os.environ.get("SWEEP_KERNELS_LIBRARY"), of_wheel, here.parent.parent / "csrc" / "build" / name]
    for place in filter(None, places):
        if not pathlib.Path(place).is_file():
            continue
        if place == of_wheel:
            _check_torch((here / "TORCH").read_text().strip())
        try:
            return torch.ops.load_library(str(place))
        except OSError as error:
            raise ImportError(f"{place} can't be loaded with torch {torch.__version__}: {error}; if it was built for another "
                              "torch, build it again (`make -C kernels/csrc`, or `make wheel`)") from error
    raise ImportError(f"{name} is not there (looked at {', '.join(str(p) for p in places if p)}); build it with "
                      "`make -C kernels/csrc`, or name it in SWEEP_KERNELS_LIBRARY")


def _check_torch(built_for):
    """PyTorch promises nothing of its C++ interface between versions: what loads may still be wrong."""
    if torch.__version__.split("+")[0] != built_for:
        raise ImportError(f"this wheel of sweep_kernels is for torch {built_for}, and torch {torch.__version__} is installed: "
                          f"`pip install torch=={built_for}`, or build the library for yours (`make -C kernels/csrc`) and name "
                          "it in SWEEP_KERNELS_LIBRARY")


_load()


def _compute(features):
    kind = features.device.type
    if features.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return "auto"
    return "fp16" if kind == "cuda" or torch.get_autocast_dtype(kind) == torch.float16 else "bf16"


def _gathered(features, world_size):
    if world_size == 1:
        return features
    from torch.distributed.nn.functional import all_gather
    return torch.cat(all_gather(features.contiguous()))


def _gathered_ids(ids, world_size):
    if ids is None or world_size == 1:
        return ids
    every = [torch.empty_like(ids, memory_format=torch.contiguous_format) for _ in range(world_size)]
    torch.distributed.all_gather(every, ids.contiguous())
    return torch.cat(every)


class ClipLoss(nn.Module):
    """InfoNCE (Radford et al. 2021). With `world_size` > 1, that of all ranks' pairs, on each rank, with gradients through
    the gather (open_clip's `gather_with_grad`); to be averaged over ranks, as DistributedDataParallel does."""

    def __init__(self, local_loss=False, gather_with_grad=True, cache_labels=False, rank=0, world_size=1,
                 use_horovod=False, label_smoothing=0.0, budget_bytes=1 << 30):
        super().__init__()
        if use_horovod:
            raise ValueError("Horovod is not supported: use torch.distributed")
        if world_size > 1 and (local_loss or not gather_with_grad):
            raise ValueError("over several ranks this is local_loss=False, gather_with_grad=True: the loss of all pairs "
                             "with its whole gradient; pass these")
        self.world_size, self.label_smoothing, self.budget_bytes = world_size, label_smoothing, budget_bytes

    def forward(self, image_features, text_features, logit_scale, logit_bias=None, output_dict=False, ids=None):
        if logit_bias is not None:
            raise ValueError("InfoNCE does not depend on a bias: leave logit_bias out (it belongs to SigLipLoss)")
        images, texts = (_gathered(x, self.world_size) for x in (image_features, text_features))
        ids = _gathered_ids(ids, self.world_size)
        loss = torch.ops.sweep.clip_loss(images, texts, torch.as_tensor(logit_scale, device=images.device), ids,
                                         self.label_smoothing, _compute(images), self.budget_bytes)
        return {"contrastive_loss": loss} if output_dict else loss


class SigLipLoss(nn.Module):
    """Pairwise sigmoid loss (Zhai et al. 2023). Over several ranks as `ClipLoss`; `dist_impl` makes no difference."""

    def __init__(self, cache_labels=False, rank=0, world_size=1, dist_impl=None, budget_bytes=1 << 30):
        super().__init__()
        self.world_size, self.budget_bytes = world_size, budget_bytes

    def forward(self, image_features, text_features, logit_scale, logit_bias=None, output_dict=False, ids=None):
        images, texts = (_gathered(x, self.world_size) for x in (image_features, text_features))
        scale = torch.as_tensor(logit_scale, device=images.device)
        bias = torch.as_tensor(0.0 if logit_bias is None else logit_bias, device=images.device)
        ids = _gathered_ids(ids, self.world_size)
        loss = torch.ops.sweep.siglip_loss(images, texts, scale, bias, ids, _compute(images), self.budget_bytes)
        return {"contrastive_loss": loss} if output_dict else loss
