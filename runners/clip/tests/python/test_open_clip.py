"""A checkpoint of clip-runner is a folder that open_clip loads as it is, and measures the same with.

    make test-openclip
"""

import collections
import hashlib
import io
import tarfile

import open_clip
import pytest
import torch
from PIL import Image

from clip_job import FIXTURE, TINY, evaluation, job_spec, trained as trained_by_clip


def pool(name):
    """Pairs in hash order as (image, caption, class)."""
    folder = FIXTURE / name
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
    return pairs


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
    image, text, top = MODELS[request.param]
    config = {
        "embed_dim": 32, **top, "vision_cfg": {**TINY["vision_cfg"], **image}, "text_cfg": {**TINY["text_cfg"], **text},
    }
    path, found = trained_by_clip(folder, job_spec(config, samples_seen=6000, evaluations=[
        evaluation("train", FIXTURE / "train", "zeroshot_retrieval"),
        evaluation("fluent", FIXTURE / "fluent", "zeroshot_classification"),
    ]))
    return path, {f"{dataset}/{metric}": value for dataset, row in found.items() for metric, value in row.items()}


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
    pairs = pool("train")
    images, texts = features(loaded, pairs)
    captions = [caption for _, caption, _ in pairs]
    for direction, scores in [("image", texts @ images.T), ("text", images @ texts.T)]:
        for k in (1, 5, 10):
            # CLIP_benchmark's definition: a pair's own counterpart is among the first k. Texts that are equal are tied,
            # in an order that its `topk` leaves open: the mean over all orders.
            plain, grouped = 0, 0
            for query, (row, caption) in enumerate(zip(scores, captions)):
                equal = torch.tensor([other == caption for other in captions])
                tied = int(equal.sum()) if direction == "text" else 1
                before = int((row[~equal] >= row[query]).sum()) if direction == "text" else int((row >= row[query]).sum()) - 1
                plain += min(max((k - before) / tied, 0), 1)
                grouped += int((row[~equal] >= row[equal].max()).sum() < k)
            for name, hits in [("recall", plain), ("recall_grouped", grouped)]:
                ours = trained[1][f"train/{direction}_retrieval_{name}@{k}"]
                # One query may change sides by rounding.
                assert abs(hits / len(pairs) - ours) <= 1.01 / len(pairs), (direction, name, k)
    assert trained[1]["train/image_retrieval_recall_grouped@10"] > 0.1, "three times chance: there is something to measure"


def test_classification_is_what_clip_runner_measured(trained, loaded):
    model, _, tokenizer = loaded
    pairs = pool("fluent")
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
