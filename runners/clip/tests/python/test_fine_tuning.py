"""Fine-tuning of clip-runner against open_clip's towers, PyTorch's AdamW with a group a layer, and its gradient clipping, on
the same weights and batches; and the folder that `clip-runner finetune` writes.

    make test-openclip
"""

import json
import math
import re
import subprocess

import open_clip
import pytest
import torch

import colours
from clip_job import CLIP_RUNNER, RECIPE, TINY, evaluation, job_spec, source, trained, write_job

STEPS, WARMUP, BATCH, LR, LAYER_DECAY, WEIGHT_DECAY, CLIP, SEED = 12, 3, 32, 3e-4, 0.7, 0.3, 0.5, 5
TEMPLATES = ["a {} picture", "{}"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return colours.packed(tmp_path_factory.mktemp("colours"))


def tuning_job(splits, **fields):
    """A job that fine-tunes, after some steps of its own."""
    plan = {
        "train": source(splits / "train"), "head": "zeroshot", "steps": STEPS, "warmup_steps": WARMUP, "batch_size": BATCH,
        "lr": LR, "layer_decay": LAYER_DECAY, "weight_decay": WEIGHT_DECAY, "grad_clip_norm": CLIP, "augmentation": "none",
        "seed": SEED, **fields,
    }
    return job_spec(samples_seen=1000, evaluations=[
        evaluation("colours", splits / "test", "fine_tuning", fine_tuning=plan, templates=TEMPLATES),
    ])


def tuned(splits, folder, **fields):
    """(folder before, folder after, what the job measured)"""
    path, measured = trained(folder, tuning_job(splits, **fields))
    command = ["finetune", "--job", folder / "attempt-1/job.json", "--from", path, "--out", folder / "after"]
    said = subprocess.run([CLIP_RUNNER, *command], check=True, capture_output=True, text=True).stdout
    told = {line["metric"]: line["value"] for line in map(json.loads, said.splitlines())}
    assert told == measured["colours"], "the command is what the job does"
    return path, folder / "after", measured["colours"]


def batches(splits, folder):
    """Keys of the images of each step: a job of the same seed and pool sees them in the same order."""
    spec = job_spec(samples_seen=STEPS * BATCH, evaluations=[])
    spec.update(data=source(splits / "train"), data_size=30 * colours.CLASSES, seed=SEED,
                recipe={**RECIPE, "global_batch": BATCH})
    command = [CLIP_RUNNER, "batches", "--job", write_job(folder, spec)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line)["keys"] for line in lines]


def class_rows(model, tokenizer):
    """Zero-shot vectors by CLIP_benchmark's rule, times the logit scale."""
    rows = []
    with torch.no_grad():
        for label in range(colours.CLASSES):
            texts = [template.replace("{}", f"class-{label}") for template in TEMPLATES]
            rows.append(torch.nn.functional.normalize(model.encode_text(tokenizer(texts), normalize=True).mean(0), dim=0))
        return torch.stack(rows) * model.logit_scale.exp()


def layers_above(name):
    """BEiT's rule, counted from the head."""
    blocks = TINY["vision_cfg"]["layers"]
    if block := re.match(r"transformer\.resblocks\.(\d+)\.", name):
        return blocks - int(block[1])
    return blocks + 1 if re.match(r"conv1|class_embedding|positional_embedding|ln_pre", name) else 0


def fine_tune(model, rows, seen, head=None):
    """PyTorch's training of the image tower: a group a parameter, so that each has its learning rate and decay."""
    trainable = [(name, value, layers_above(name)) for name, value in model.visual.named_parameters()]
    if head is not None:
        trainable += [("head.weight", head.weight, 0), ("head.bias", head.bias, 0)]
    groups = [
        {"params": [value], "scale": LAYER_DECAY**above, "weight_decay": WEIGHT_DECAY if value.ndim >= 2 else 0.0}
        for _, value, above in trainable
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    for step, (images, labels) in enumerate(seen):
        rate = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = LR * rate * group["scale"]
        features = model.encode_image(images, normalize=True)
        logits = features @ rows.T if head is None else head(features)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_([value for _, value, _ in trainable], CLIP)
        optimizer.step()


def loaded(path):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{path}")


def seen_by(splits, folder, preprocess):
    known = {key: (preprocess(image), label) for key, image, label in colours.images(splits / "train")}
    for keys in batches(splits, folder):
        pairs = [known[key] for key in keys]
        yield torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def with_gradient(name, value):
    """Without the biases of keys: attention is the same whatever they are, since softmax is, so that their gradients are rounding
    alone, which AdamW divides by itself and moves them by."""
    return torch.cat(value.chunk(3)[::2]) if name.endswith("in_proj_bias") else value


def test_parameters_are_pytorchs(splits, tmp_path):
    before, after, _ = tuned(splits, tmp_path / "job")
    model, preprocess, tokenizer = loaded(before)
    fine_tune(model, class_rows(model, tokenizer), seen_by(splits, tmp_path / "order", preprocess))
    start, ours = loaded(before)[0].state_dict(), loaded(after)[0].state_dict()
    moved = 0
    for name, value in model.state_dict().items():
        expected, found, before = (with_gradient(name, state) for state in (value, ours[name], start[name]))
        assert (found - expected).norm() <= 1e-3 * (before - expected).norm(), name
        if not name.startswith("visual."):
            assert torch.equal(ours[name], start[name]), f"{name} is not the image tower's"
        else:
            moved = max(moved, (start[name] - value).abs().max())
    assert moved > 1e-3, "many times the tolerance: there is something to compare"


def test_accuracy_is_that_of_the_folder(splits, tmp_path):
    _, after, measured = tuned(splits, tmp_path, steps=80, lr=2e-3)
    model, preprocess, tokenizer = loaded(after)
    pairs = colours.images(splits / "test")
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for _, image, _ in pairs]), normalize=True)
        scores = images @ class_rows(model, tokenizer).T
    labels = torch.tensor([label for _, _, label in pairs])
    for k in (1, 5):
        accuracy = (scores.topk(k).indices == labels[:, None]).any(1).double().mean().item()
        assert abs(measured[f"ft_acc{k}"] - accuracy) <= 1.01 / len(pairs), k
    assert 1.5 / colours.CLASSES < measured["ft_acc1"] < 0.999, "neither chance nor perfect"


def test_a_linear_head_is_pytorchs(splits, tmp_path):
    spec = tuning_job(splits, head="linear")
    path, measured = trained(tmp_path / "job", spec)
    model, preprocess, tokenizer = loaded(path)
    head = torch.nn.Linear(TINY["embed_dim"], colours.CLASSES)
    with torch.no_grad():
        head.weight.copy_(class_rows(model, tokenizer))
        head.bias.zero_()
    fine_tune(model, None, seen_by(splits, tmp_path / "order", preprocess), head)
    pairs = colours.images(splits / "test")
    with torch.no_grad():
        scores = head(model.encode_image(torch.stack([preprocess(image) for _, image, _ in pairs]), normalize=True))
    labels = torch.tensor([label for _, _, label in pairs])
    accuracy = (scores.argmax(1) == labels).double().mean().item()
    assert abs(measured["colours"]["ft_acc1"] - accuracy) <= 1.01 / len(pairs)
