"""Weights that open_clip holds are read by clip-runner from every form that they are saved in, and measure the same.

    make test-openclip
"""

import hashlib
import json
import os
import pathlib
import subprocess

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clip_job import FIXTURE, evaluation, job_spec, run
from test_open_clip import pool

CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(7)
    model = open_clip.CLIP(**CONFIG)
    # Far enough from its start for recalls that are not all chance.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def recalls(model):
    """image_retrieval_recall_grouped@k by open_clip's own features."""
    preprocess = open_clip.image_transform(32, is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    pairs = pool("val")
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for image, _, _ in pairs]), normalize=True)
        texts = model.encode_text(tokenizer([caption for _, caption, _ in pairs]), normalize=True)
    captions, scores = [caption for _, caption, _ in pairs], texts @ images.T
    found = {}
    for k in (1, 5, 10):
        hits = 0
        for row, caption in zip(scores, captions):
            right = torch.tensor([other == caption for other in captions])
            hits += int((row[~right] >= row[right].max()).sum() < k)
        found[f"image_retrieval_recall_grouped@{k}"] = hits / len(pairs)
    return found, len(pairs)


def measure(path, folder):
    """(what clip-runner measured with the weights, its last words)"""
    sha256 = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    _, evals, words, _ = run(folder, job_spec(
        CONFIG, init={"path": str(path), "sha256": sha256}, samples_seen=0,
        evaluations=[evaluation("val", FIXTURE / "val", "zeroshot_retrieval")],
    ))
    return {row["metric"]: row["value"] for event in evals for row in event["measurements"]}, words


def state_dict(model, path):
    torch.save(model.state_dict(), path)


def half(model, path):
    torch.save({name: value.half() for name, value in model.state_dict().items()}, path)


def training(model, path):
    """As open_clip_train saves an epoch, of a model under DistributedDataParallel."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu")
    torch.save({
        "epoch": 3,
        "name": "run",
        "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }, path)


def bfloat16(model, path):
    save_file({name: value.bfloat16().contiguous() for name, value in model.state_dict().items()}, path)


def safetensors(model, path):
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


@pytest.mark.parametrize("save, rounding", [(state_dict, 0), (training, 0), (safetensors, 0), (half, 3), (bfloat16, 12)],
                         ids=lambda value: getattr(value, "__name__", ""))
def test_a_saved_model_measures_as_in_open_clip(model, tmp_path, save, rounding):
    """`rounding`: queries that may change sides where the weights themselves were rounded."""
    path = tmp_path / ("weights.safetensors" if save in (bfloat16, safetensors) else "weights.pt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save(model, path)
    model.load_state_dict(before)  # Weight decay of the optimiser's step.
    if save is training:
        decayed = torch.load(path, weights_only=True)["state_dict"]
        model.load_state_dict({name.removeprefix("module."): value for name, value in decayed.items()})
    expected, pairs = recalls(model)
    model.load_state_dict(before)
    measured, words = measure(path, tmp_path)
    assert len(measured) == 12, words
    for metric, value in expected.items():
        # One query may change sides by rounding.
        assert abs(measured[metric] - value) <= (1.01 + rounding) / pairs, metric


def test_rounded_weights_are_those_that_torch_reads(model, tmp_path):
    """fp16 and bf16 to the bit: a model that open_clip loads from the same file measures the same."""
    for save, name in [(half, "weights.pt"), (bfloat16, "weights.safetensors")]:
        save(model, tmp_path / name)
        other = open_clip.CLIP(**CONFIG)
        open_clip.load_checkpoint(other, str(tmp_path / name))
        expected, pairs = recalls(other.eval())
        measured, words = measure(tmp_path / name, tmp_path)
        assert all(abs(measured[metric] - value) <= 1.01 / pairs for metric, value in expected.items()), words


def test_what_is_no_state_dict_is_refused(model, tmp_path):
    torch.save(model, tmp_path / "whole.pt")
    assert "asks Python for `open_clip.model.CLIP`" in measure(tmp_path / "whole.pt", tmp_path)[1]
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "old form" in measure(tmp_path / "old.pt", tmp_path)[1]
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, tmp_path / "traced.pt")
    assert "TorchScript archive" in measure(tmp_path / "traced.pt", tmp_path)[1]
    weights = model.state_dict()
    weights["text.extra"] = weights.pop("text_projection")
    torch.save(weights, tmp_path / "other.pt")
    words = measure(tmp_path / "other.pt", tmp_path)[1]
    assert "it lacks `text_projection`; the model has no `text.extra`" in words


def test_sweep_evaluates_a_folder_of_open_clips(model, tmp_path):
    """`sweep evaluate --checkpoint FOLDER`, the folder as open_clip pushes one to a hub."""
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    state_dict(model, folder / "open_clip_pytorch_model.bin")
    expected, pairs = recalls(model)
    command = [os.environ["SWEEP"], "evaluate", "--checkpoint", str(folder), "--pool",
               str(FIXTURE / "val"), "--task", "zeroshot_retrieval", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    tmp_path.chmod(0o755)
    try:
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        rows = {row["metric"]: row["value"] for row in json.loads(ended.stdout)["measurements"]}
        assert all(abs(rows[metric] - value) <= 1.01 / pairs for metric, value in expected.items())
    finally:
        subprocess.run([os.environ["SWEEP"], "db", "stop"], cwd=tmp_path, env=environment, capture_output=True)
