"""A checkpoint of clip-runner is a folder that open_clip loads as it is, and measures the same with.

    make test-openclip
"""

import collections
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile

import open_clip
import pytest
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[4]
FIXTURE = ROOT / "runners/pool/fixture"  # packed at 32 pixels, so that nobody resizes anything
CLIP_RUNNER, SWEEP_POOL = os.environ["CLIP_RUNNER"], os.environ["SWEEP_POOL"]
BATCH, STEPS = 100, 60


def pool(name):
    """(source for a job, pairs in hash order as (image, caption, class))"""
    folder = FIXTURE / name
    report = subprocess.run([SWEEP_POOL, "inspect", folder, "--json"], check=True, capture_output=True).stdout
    source = {"pool": name, "path": str(folder), "digest": json.loads(report)["digest"]}
    samples = collections.defaultdict(dict)
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                samples[key][extension] = archive.extractfile(member).read()
    order = sorted(samples, key=lambda key: hashlib.sha256(key.encode()).digest())
    pairs = []
    for sample in (samples[key] for key in order):
        image = Image.open(io.BytesIO(sample["png"]))
        label = int(sample["cls"]) if "cls" in sample else None
        pairs.append((image, sample["txt"].decode().strip(), label))
    return source, pairs


# Changes of the image tower, of the text tower, and of what stands beside them.
MODELS = {
    "vocabulary-4096": ({}, {"vocab_size": 4096}, {}),
    "vocabulary-49408": ({}, {"vocab_size": 49408}, {}),
    "clipa": (
        {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, "patch_dropout": 0.25},
        {"no_causal_mask": True, "pool_type": "last"},
        {"nonscalar_logit_scale": True},
    ),
    "siglip-text": (
        {"norm_kwargs": {"eps": 1e-6}},
        {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "act_kwargs": {"approximate": "tanh"}},
        {"custom_text": True, "init_logit_bias": -10, "init_logit_scale": 2.3},
    ),
    "coca-towers": (
        {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        {"embed_cls": True, "tokenizer_kwargs": {"clean": "canonicalize"}},
        {"custom_text": True},
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    """(folder of a trained checkpoint, what clip-runner measured with it)"""
    folder = tmp_path_factory.mktemp("job")
    describe = json.loads(subprocess.run([CLIP_RUNNER, "describe"], check=True, capture_output=True).stdout)
    evaluation = {"templates": [], "at_samples": []}
    image, text, top = MODELS[request.param]
    image = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8, **image}
    text = {"context_length": 24, "vocab_size": 4096, "width": 64, "heads": 2, "layers": 2, **text}
    job = {
        "protocol": 1,
        "job_key": "5" * 64,
        "fence": 1,
        "spec": {
            "runner": {"name": describe["name"], "version": describe["version"]},
            "model": {
                "name": "tiny",
                "config": {"embed_dim": 32, **top, "vision_cfg": image, "text_cfg": text},
            },
            "data": pool("train")[0],
            "data_size": 300,
            "samples_seen": BATCH * STEPS,
            "seed": 3,
            "recipe": {
                "global_batch": BATCH, "lr": 0.002, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.1,
                "warmup_samples": 500, "schedule": "cosine", "precision": "fp32", "augmentation": "none",
                "grad_clip_norm": None, "checkpoint_every_samples": None,
            },
            "evaluations": [
                {"dataset": "train", "data": pool("train")[0], "tasks": ["zeroshot_retrieval"], **evaluation},
                {"dataset": "fluent", "data": pool("fluent")[0], "tasks": ["zeroshot_classification"], **evaluation},
            ],
        },
        "attempt_dir": str(folder),
        "checkpoint_dir": str(folder / "checkpoints"),
        "base_dir": str(folder),
        "resources": {"device": "cpu", "threads": 1},
    }
    (folder / "job.json").write_text(json.dumps(job))
    run = subprocess.run([CLIP_RUNNER, "run", "--job", folder / "job.json"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    path = [event["path"] for event in events if event["event"] == "checkpoint"][-1]
    measured = {
        f"{event['dataset']}/{row['metric']}": row["value"]
        for event in events if event["event"] == "eval" for row in event["measurements"]
    }
    return path, measured


@pytest.fixture(scope="module")
def loaded(trained):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{trained[0]}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{trained[0]}")


def features(loaded, pairs):
    model, preprocess, tokenizer = loaded
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for image, _, _ in pairs]), normalize=True)
        texts = model.encode_text(tokenizer([caption for _, caption, _ in pairs]), normalize=True)
    return images, texts


def test_the_weights_are_loaded_whole(trained, loaded):
    model, _, tokenizer = loaded
    assert model.context_length == 24 and tokenizer.context_length == 24
    assert model.vocab_size == tokenizer.vocab_size
    # Not as initialised: a folder whose weights open_clip did not find would pass all of the above.
    assert min(abs(model.logit_scale.item() - start) for start in (2.6593, 2.3)) > 1e-3


def test_retrieval_is_what_clip_runner_measured(trained, loaded):
    _, pairs = pool("train")
    images, texts = features(loaded, pairs)
    captions = [caption for _, caption, _ in pairs]
    for direction, scores in [("image", texts @ images.T), ("text", images @ texts.T)]:
        for k in (1, 5, 10):
            hits = 0
            for row, caption in zip(scores, captions):
                right = torch.tensor([other == caption for other in captions])
                hits += int((row[~right] >= row[right].max()).sum() < k)
            ours = trained[1][f"train/{direction}_retrieval_recall@{k}"]
            # One query may change sides by rounding.
            assert abs(hits / len(pairs) - ours) <= 1.01 / len(pairs), (direction, k)
    assert trained[1]["train/image_retrieval_recall@10"] > 0.1, "three times chance: there is something to measure"


def test_classification_is_what_clip_runner_measured(trained, loaded):
    model, _, tokenizer = loaded
    _, pairs = pool("fluent")
    names = (FIXTURE / "fluent/classnames.txt").read_text().splitlines()
    templates = (FIXTURE / "fluent/zeroshot_classification_templates.txt").read_text().splitlines()
    images, _ = features(loaded, pairs)
    with torch.no_grad():
        prompts = tokenizer([template.replace("{c}", name) for name in names for template in templates])
        classes = model.encode_text(prompts, normalize=True).view(len(names), len(templates), -1).mean(1)
        classes = torch.nn.functional.normalize(classes, dim=-1)
    scores = images @ classes.T
    for k in (1, 5):
        best = scores.topk(k).indices
        hits = sum(int(label in row) for row, (_, _, label) in zip(best, pairs))
        assert abs(hits / len(pairs) - trained[1][f"fluent/acc{k}"]) <= 1.01 / len(pairs), k
