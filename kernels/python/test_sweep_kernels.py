"""The Python face against open_clip and PyTorch itself; numbers are held against float64 in kernels/tests as well."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from open_clip.loss import ClipLoss as OpenClipLoss
from open_clip.loss import SigLipLoss as OpenSigLipLoss
from torch._inductor.utils import fresh_cache

from sweep_kernels import ClipLoss, SigLipLoss

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def features(b, d, dtype=torch.float64, seed=0, device="cpu"):
    draws = torch.Generator().manual_seed(seed)
    common = torch.randn(b, d, generator=draws, dtype=torch.float64)
    one = lambda: F.normalize(common + torch.randn(b, d, generator=draws, dtype=torch.float64), dim=1)
    return [one().to(device, dtype).requires_grad_() for _ in range(2)]


def walked(loss, *leaves):
    return loss, torch.autograd.grad(loss, leaves)


def apart(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("b, d", [(2, 3), (65, 40), (300, 64)])
def test_both_losses_are_those_of_open_clip(device, dtype, bound, b, d):
    images, texts = features(b, d, dtype, device=device)
    scale = torch.tensor(5.0, dtype=dtype, device=device, requires_grad=True)
    bias = torch.tensor(-10.0, dtype=dtype, device=device, requires_grad=True)
    wide = [x.detach().double().requires_grad_() for x in (images, texts, scale, bias)]
    for ours, theirs, count in [(ClipLoss(), OpenClipLoss(), 3), (SigLipLoss(), OpenSigLipLoss(), 4)]:
        found = walked(ours(*[images, texts, scale, bias][:count]), *[images, texts, scale, bias][:count])
        expected = walked(theirs(*wide[:count]), *wide[:count])
        assert abs(found[0].item() - expected[0].item()) <= bound * expected[0].item()
        for mine, other in zip(found[1], expected[1]):
            assert apart(mine, other) < bound
            assert mine.dtype == dtype


def test_the_classes_take_the_arguments_of_open_clip():
    images, texts = features(8, 4)
    assert list(ClipLoss(cache_labels=True, rank=0, world_size=1)(images, texts, 10.0, output_dict=True)) == ["contrastive_loss"]
    assert "contrastive_loss" in SigLipLoss(dist_impl="gather")(images, texts, torch.tensor(10.0), torch.tensor(-10.0), output_dict=True)
    with pytest.raises(ValueError, match="gather_with_grad"):
        ClipLoss(local_loss=True, world_size=2)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_chooses_half_precision_products(device):
    images, texts = features(256, 64, torch.float32, device=device)
    with torch.autocast(device, torch.bfloat16):
        found = walked(ClipLoss()(images, texts, torch.tensor(14.3, device=device)), images, texts)
    # Products of rounded features: the reference takes the same ones.
    rounded = torch.float16 if device == "cuda" else torch.bfloat16
    wide = [x.detach().to(rounded).double().requires_grad_() for x in (images, texts)]
    expected = walked(OpenClipLoss()(*wide, torch.tensor(14.3, dtype=torch.float64, device=device)), *wide)
    assert abs(found[0].item() / expected[0].item() - 1) < 1e-5
    for mine, other in zip(found[1], expected[1]):
        assert mine.dtype == torch.float32 and 0 < apart(mine, other) < 2.5e-3


def test_captions_of_one_image_and_smoothing_are_soft_label_cross_entropy():
    images, texts = features(60, 16)
    ids = torch.arange(60) // 3
    logits = 20 * images @ texts.T
    targets = (ids[:, None] == ids).double() / 3 * 0.9 + 0.1 / 60
    expected = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    found = ClipLoss(label_smoothing=0.1)(images, texts, torch.tensor(20.0, dtype=torch.float64), ids=ids)
    assert abs(found.item() - expected.item()) < 1e-12
    for mine, other in zip(torch.autograd.grad(found, (images, texts)), torch.autograd.grad(expected, (images, texts))):
        assert apart(mine, other) < 1e-12


def test_gradcheck_and_pytorch_own_checks_of_an_operator():
    images, texts = features(7, 5)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: torch.ops.sweep.clip_loss(*x), (images, texts, scale))
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: torch.ops.sweep.siglip_loss(*x), (images, texts, scale, bias))
    arguments = (images.detach(), texts.detach(), scale.detach(), None, None, 0.0, "auto", 1 << 30, False, 15)
    torch.library.opcheck(torch.ops.sweep.contrastive, arguments)


def test_a_compiled_model_keeps_the_loss_in_its_graph():
    tower = torch.nn.Linear(8, 16).double()

    def step(x, y, scale):
        return ClipLoss()(F.normalize(tower(x), dim=1), F.normalize(tower(y), dim=1), scale)

    inputs = (torch.randn(12, 8).double(), torch.randn(12, 8).double(), torch.tensor(10.0, dtype=torch.float64))
    expected = walked(step(*inputs), *tower.parameters())
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    found = walked(compiled(*inputs), *tower.parameters())
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1]))


def test_inductor_takes_features_of_any_layout():
    tower = torch.nn.Linear(8, 16)

    def step(x, y):
        return ClipLoss()(tower(x), tower(y).t().contiguous().t(), torch.tensor(3.0))

    inputs = (torch.randn(12, 8), torch.randn(12, 8))
    expected = walked(step(*inputs), *tower.parameters())
    # Inductor (torch 2.11) finds a graph again whatever vectors it was written for, and compiles it for those of this
    # processor: code for AVX2 compiled for AVX-512 writes beyond its buffers.
    with fresh_cache():
        found = walked(torch.compile(step)(*inputs), *tower.parameters())
    assert abs(found[0].item() - expected[0].item()) < 1e-5
    assert all(apart(a, b) < 1e-4 for a, b in zip(found[1], expected[1]))


def test_a_second_derivative_is_refused():
    images, texts = features(6, 4)
    loss = ClipLoss()(images, texts, torch.tensor(10.0, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, images, create_graph=True)


def test_bad_input_is_named():
    images, texts = features(6, 4)
    scale = torch.tensor(10.0, dtype=torch.float64)
    for arguments, words in [
        ((images[0], texts, scale), "images must be a matrix"),
        ((images, texts[:3], scale), r"one shape \(B, D\), got \[6, 4\] and \[3, 4\]"),
        ((images.int(), texts, scale), "images must be float32, float64, bfloat16 or float16, got Int"),
        ((images, texts, torch.ones(2)), "scale must be one floating-point number"),
        ((images, texts, scale, torch.zeros(5, dtype=torch.int64)), r"ids must be int64 of shape \(B\)"),
        ((images, texts, scale, None, 1.5), r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ((images, texts, scale, None, 0.0, "fp8"), "compute must be auto, fp32, bf16, fp16 or fp64, got `fp8`"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.sweep.clip_loss(*arguments)
    broken = images.detach().clone()
    broken[4, 1] = float("nan")
    with pytest.raises(RuntimeError, match="images hold 1 numbers that are not finite, the first at row 4"):
        torch.ops.sweep.clip_loss(broken, texts, scale, check_finite=True)


def rank(index, world, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=index, world_size=world)
    found = {}
    for name, loss in [("ours", ClipLoss(rank=index, world_size=world)),
                       ("theirs", OpenClipLoss(gather_with_grad=True, rank=index, world_size=world))]:
        images, texts = features(8 * world, 6)
        mine = [x.detach()[8 * index:8 * (index + 1)].requires_grad_() for x in (images, texts)]
        found[name] = walked(loss(*mine, torch.tensor(10.0, dtype=torch.float64)), *mine)
    value, gradients = found["ours"]
    expected, others = found["theirs"]
    images, texts = features(8 * world, 6)
    ids = torch.arange(8 * world) // 3  # captions of one image on two ranks
    scale, bias = torch.tensor(10.0, dtype=torch.float64), torch.tensor(-5.0, dtype=torch.float64)
    share = slice(8 * index, 8 * (index + 1))
    for loss, arguments in [(ClipLoss, (scale,)), (SigLipLoss, (scale, bias))]:
        whole = loss()(images, texts, *arguments, ids=ids)
        shared = loss(rank=index, world_size=world)(images[share], texts[share], *arguments, ids=ids[share])
        assert abs(shared.item() - whole.item()) < 1e-12
    results.put((index, abs(value.item() - expected.item()), max(apart(a, b) for a, b in zip(gradients, others))))
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_agree_with_open_clip_over_gloo():
    import socket
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=rank, args=(index, 2, port, results)) for index in range(2)]
    [process.start() for process in ranks]
    found = [results.get(timeout=120) for _ in ranks]
    [process.join(timeout=60) for process in ranks]
    assert {index for index, *_ in found} == {0, 1} and all(process.exitcode == 0 for process in ranks)
    assert all(loss < 1e-12 and gradients < 1e-12 for _, loss, gradients in found)
