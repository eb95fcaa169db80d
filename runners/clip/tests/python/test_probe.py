"""Linear probes of clip-runner against PyTorch's own layer, gradient and AdamW on open_clip's features of the same images.

First weights, order and shots are drawn as clip-runner draws them, so that both train the same; all else is written anew.

    make test-openclip
"""

import math

import open_clip
import pytest
import torch

import colours
from clip_job import evaluation, job_spec, source, trained
from colours import CLASSES

WORD = (1 << 64) - 1
SHOTS, LR, EPOCHS, BATCH, SEED = [3, "all"], [0.1, 0.01], [4, 12], 32, 5


def mixed(state):
    state = (state + 0x9E3779B97F4A7C15) & WORD
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return state, z ^ (z >> 31)


def draws(position):
    """SplitMix64, started from seed and position."""
    _, first = mixed(SEED)
    state = first ^ ((position * 0xD1B54A32D192ED03) & WORD)
    while True:
        state, number = mixed(state)
        yield number


def permutation(n, position):
    numbers = draws(position)
    keys = [next(numbers) for _ in range(n)]
    return sorted(range(n), key=lambda row: keys[row])


def few(labels, shots):
    if shots == "all":
        return list(range(len(labels)))
    taken, rows = [0] * CLASSES, []
    for row in permutation(len(labels), WORD):
        taken[labels[row]] += 1
        if taken[labels[row]] <= shots:
            rows.append(row)
    return rows


def fit(features, labels, lr, epochs, weight_decay):
    n, width = features.shape
    bound, numbers = 1 / math.sqrt(width), draws(0)
    drawn = [(2 * ((next(numbers) >> 11) / 2**53) - 1) * bound for _ in range(CLASSES * (width + 1))]
    drawn = torch.tensor(drawn, dtype=torch.float32).view(CLASSES, width + 1)
    layer = torch.nn.Linear(width, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(drawn[:, :width])
        layer.bias.copy_(drawn[:, width])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=weight_decay)
    steps, step = math.ceil(n / BATCH) * epochs, 0
    for epoch in range(epochs):
        order = torch.tensor(permutation(n, 1 + epoch))
        for rows in order.split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps)) * lr
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
            step += 1
    return layer


def hits(layer, features, labels, k=1):
    with torch.no_grad():
        return int((layer(features).topk(k).indices == labels[:, None]).sum())


def probe(train, validation, test, shots):
    """CLIP_benchmark's protocol: `find_peak` over 97 weight decays, after the choice of learning rate and epochs."""
    features, labels = train
    rows = few(labels.tolist(), shots)
    features, labels = features[rows], labels[rows]
    score = lambda *settings: hits(fit(features, labels, *settings), *validation)
    lr, epochs = max(((lr, epochs) for lr in LR for epochs in EPOCHS), key=lambda setting: score(*setting, 0.0))
    decays = [10 ** (-6 + 8 * at / 96) for at in range(97)]

    def peak(places):
        best, most = 0, 0
        for at in places:
            found = score(lr, epochs, decays[at])
            if most < found:
                best, most = at, found
        return best

    at = peak(range(0, 97, 16))
    for span in (8, 4, 2, 1):
        at = peak([max(at - span, 0), at, min(at + span, 96)])
    if shots == "all":
        features, labels = torch.cat([features, validation[0]]), torch.cat([labels, validation[1]])
    layer = fit(features, labels, lr, epochs, decays[at])
    return {k: hits(layer, *test, k) / len(test[1]) for k in (1, 5)}


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """(folder of a checkpoint, what clip-runner measured with it, folder of the splits)"""
    folder = tmp_path_factory.mktemp("probe")
    splits = colours.packed(folder)
    path, measured = trained(folder, job_spec(samples_seen=1000, evaluations=[
        evaluation("colours", splits / "test", "linear_probe", probe={
            "train": source(splits / "train"), "shots": SHOTS, "choose": "validation", "lr": LR, "epochs": EPOCHS,
            "batch_size": BATCH, "seed": SEED,
        }),
    ]))
    return path, measured["colours"], splits


def test_a_probe_is_pytorchs(probed):
    path, measured, splits = probed
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    model.eval()

    def embedded(split):
        pairs = colours.images(splits / split)
        with torch.no_grad():
            features = model.encode_image(torch.stack([preprocess(image) for _, image, _ in pairs]), normalize=True)
        return features, torch.tensor([label for _, _, label in pairs])

    (features, labels), test = embedded("train"), embedded("test")
    held_out = torch.arange(len(labels)) % 5 == 4
    train, validation = (features[~held_out], labels[~held_out]), (features[held_out], labels[held_out])
    for shots, name in [(3, "3shot"), ("all", "full")]:
        for k, accuracy in probe(train, validation, test, shots).items():
            # Features differ by 1e-7, and an item on the edge may change sides.
            assert abs(measured[f"lp_acc{k}@{name}"] - accuracy) <= 2.01 / len(test[1]), (name, k)
    assert 1.5 / CLASSES < measured["lp_acc1@full"] < 0.999, "neither chance nor perfect: there is something to compare"
