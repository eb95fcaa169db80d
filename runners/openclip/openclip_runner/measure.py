"""Measures a model on held-out pairs by clip-runner's definitions (runners/clip/README.md), so that one spec means the
same under both: ties count against the model, but those of equal captions in plain retrieval, where it is the mean over
their orders; equal texts are embedded once, so that rounding does not part them."""

import dataclasses
import math

import torch
from open_clip_train.precision import get_autocast

from openclip_runner.data import picture
from openclip_runner.errors import BadInput
from openclip_runner.pool import Pool

CHUNK, CONTRAST, BLOCKS_MAX = 256, 1024, 8


@dataclasses.dataclass
class HeldOut:
    """A data set of a job's evaluations, checked before training."""

    name: str
    tasks: list
    steps: set
    pool: Pool
    templates: list
    labelled: list


def held_out(plan, pool, steps):
    name, labelled, templates = plan["dataset"], [], []
    if "zeroshot_classification" in plan["tasks"]:
        labelled = [index for index, pair in enumerate(pool.pairs) if pair.label is not None]
        if not pool.class_names or not labelled:
            raise BadInput(
                f"evaluation `{name}` asks for zeroshot_classification, but its pool has no "
                f"{'classes' if pool.class_names else 'class names'}: pack it with `classnames.txt` and a `KEY.cls` "
                "for each pair, or leave the task out"
            )
        templates = plan["templates"] or pool.templates or ["{}"]
        for template in templates:
            if "{}" not in template and "{c}" not in template:
                raise BadInput(f"evaluation `{name}`: the template `{template}` has no `{{}}` for the class name")
    return HeldOut(name, plan["tasks"], steps, pool, templates, labelled)


class Measuring:
    """A model that is ready to be measured."""

    def __init__(self, model, transform, tokenizer, alpha, precision, device):
        self.model, self.transform, self.tokenizer, self.alpha = model, transform, tokenizer, alpha
        self.device = torch.device(device)
        self.autocast = get_autocast(precision, device_type=self.device.type)

    @torch.no_grad()
    def measure(self, data):
        """Measurements, and why a task that has none can't be measured."""
        images = self._embed(data.pool.pairs, self._images)
        measured, unmeasured, texts = [], {}, None
        numbers = {}
        groups = torch.tensor([numbers.setdefault(pair.caption, len(numbers)) for pair in data.pool.pairs])
        if set(data.tasks) != {"zeroshot_classification"}:
            texts = self._embed(list(numbers), self._texts)[groups]
        for task in data.tasks:
            if task == "zeroshot_classification":
                measured += self._classify(data, images)
            elif task == "zeroshot_retrieval":
                own = torch.arange(len(images))
                for name, number, ties in (("recall", own, "averaged"), ("recall_grouped", groups, "against")):
                    measured += retrieval(f"image_retrieval_{name}", texts, images, number, ties)
                    measured += retrieval(f"text_retrieval_{name}", images, texts, number, ties)
            elif len(images) < CONTRAST:
                unmeasured[task] = f"it has {len(images)} pairs, one block needs {CONTRAST}"
            else:
                measured.append(contrast(images, texts, self.model.logit_scale.exp().float().cpu()))
        return measured, unmeasured

    def _embed(self, items, embed):
        self.model.eval()
        parts = []
        for start in range(0, len(items), CHUNK):
            with self.autocast():
                parts.append(embed(items[start : start + CHUNK]))
        return torch.cat([part.float().cpu() for part in parts])

    def _images(self, pairs):
        batch = torch.stack([self.transform(picture(pair, self.alpha)) for pair in pairs])
        return self.model.encode_image(batch.to(self.device), normalize=True)

    def _texts(self, texts):
        return self.model.encode_text(self.tokenizer(texts).to(self.device), normalize=True)

    def _classify(self, data, images):
        names = data.pool.class_names
        prompts = [t.replace("{c}", name).replace("{}", name) for name in names for t in data.templates]
        classes = self._embed(prompts, self._texts).view(len(names), len(data.templates), -1).mean(1)
        classes = torch.nn.functional.normalize(classes, dim=-1)
        labels = torch.tensor([data.pool.pairs[index].label for index in data.labelled])
        known = labels < len(names)
        labels, rows = labels[known], images[data.labelled][known]
        right = torch.nn.functional.one_hot(labels, len(names)).bool()
        return classification(labels, ranks(rows @ classes.T, right), len(names))


def ranks(scores, right):
    """How many of the wrong items stand before, or with, the best of the right ones."""
    best = scores.masked_fill(~right, -math.inf).amax(1, keepdim=True)
    return (~(scores < best) & ~right).sum(1)


def classification(labels, rank, classes):
    def accuracy(k):
        return share(f"acc{k}", rank < k, k / classes)

    recalls = [(rank[labels == label] == 0).double() for label in labels.unique()]
    means = torch.stack([recall.mean() for recall in recalls])
    sizes = torch.tensor([len(recall) for recall in recalls])
    error = (means * (1 - means) / sizes).sum().sqrt() / len(recalls)
    mean = row("mean_per_class_recall", means.mean(), error, 1 / classes, len(labels))
    return [accuracy(1)] + ([accuracy(5)] if classes >= 5 else []) + [mean]


def retrieval(metric, queries, answers, groups, ties):
    """Of pairs in `groups`, those that are right for one another; each in its own is CLIP_benchmark's definition."""
    n, standings = len(groups), []
    for at in range(0, n, CHUNK):
        right = groups[at : at + CHUNK, None] == groups
        standings += standing(queries[at : at + CHUNK] @ answers.T, right).tolist()
    if ties == "against":
        standings = [(before + wrong, 0, 1) for before, wrong, _ in standings]
    equal = groups.bincount()[groups].tolist()
    return [
        share(
            f"{metric}@{k}",
            torch.tensor([by_chance(wrong + right, right, max(k - before, 0)) for before, wrong, right in standings]),
            sum(by_chance(n, right, k) for right in equal) / n,
        )
        for k in (1, 5, 10) if k <= n
    ]


def standing(scores, right):
    """Of each row: wrong items before the best right one, and wrong and right ones of its score."""
    best = scores.masked_fill(~right, -math.inf).amax(1, keepdim=True)
    before, tied = scores > best, ~(scores < best) & ~(scores > best)
    return torch.stack([before.sum(1), (tied & ~right).sum(1), (tied & right).sum(1)], 1)


def by_chance(n, right, k):
    """Probability that k of n items hold one of the right ones."""
    return 1 - math.comb(n - right, min(k, n)) / math.comb(n, min(k, n))


def contrast(images, texts, scale):
    """InfoNCE over blocks of exactly 1,024 pairs in hash order; what does not fill a block is left out."""
    losses = []
    for block in range(min(len(images) // CONTRAST, BLOCKS_MAX)):
        rows = slice(block * CONTRAST, (block + 1) * CONTRAST)
        logits = scale * images[rows] @ texts[rows].T
        losses.append((logits.logsumexp(0) + logits.logsumexp(1)) / 2 - logits.diagonal())
    losses = torch.cat(losses).double()
    return row(f"loss@{CONTRAST}", losses.mean(), losses.std() / len(losses) ** 0.5, math.log(CONTRAST), len(losses))


def share(metric, hits, chance):
    value = hits.double().mean()
    return row(metric, value, (value * (1 - value) / len(hits)).sqrt(), chance, len(hits))


def row(metric, value, error, chance, count):
    return {
        "metric": metric, "value": float(value), "standard_error": float(error), "chance": chance, "count": count,
    }
