"""job.json to open_clip_train's flags, or why it can't be: everything is refused that open_clip would do otherwise."""

import gzip
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import sys

from openclip_runner import NAME
from openclip_runner.errors import BadInput

MODEL = "sweep-job"
# Bytes in two forms, start and end of text: what a vocabulary has beside its merges.
UNMERGED, VOCABULARY_MAX = 514, 49408
EPOCHS = 200
# Global batch up to which each of several processes computes all logits: 67 MB of them.
WHOLE_LOSS_MAX = 4096
# Of Hugging Face: a tokenizer, and beside it the names of its special tokens.
TOKENIZER, SPECIAL = "tokenizer.json", "tokenizer_config.json"

RECIPE = {
    "global_batch", "lr", "betas", "eps", "weight_decay", "warmup_samples", "schedule", "precision", "loss",
    "accum_freq", "grad_checkpointing", "augmentation", "alpha", "preprocess", "grad_clip_norm",
    "checkpoint_every_samples", "keep_checkpoints", "extra",
}
PREPROCESS = {
    "mean": "--image-mean", "std": "--image-std", "interpolation": "--image-interpolation",
    "resize_mode": "--image-resize-mode",
}
EVALUATION = {"dataset", "data", "tasks", "templates", "at_samples", "probe", "fine_tuning"}
SPEC = {
    "runner", "model", "init", "data", "data_size", "skipped_max", "samples_seen", "seed", "recipe", "evaluations",
}


# Of settings the values that are taken, as `describe` tells the planner.
ACCEPTS = {
    "augmentation": ["none", "random_resized_crop"],
    "extra": [],
    "loss": ["fused", "reference"],
    "precision": ["fp32", "amp_bf16"],
    "schedule": ["cosine", "constant"],
    "tasks": ["zeroshot_classification", "zeroshot_retrieval", "contrastive_loss"],
}


class Job:
    """One attempt at a job, checked."""

    def __init__(self, path, version):
        try:
            job = json.loads(pathlib.Path(path).read_text())
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read the job `{path}`: {error}") from error
        if job.get("protocol") != 1:
            raise BadInput(f"the job speaks protocol {job.get('protocol')}, this runner 1")
        self.spec, self.recipe = job["spec"], job["spec"]["recipe"]
        planned = self.spec["runner"]
        if (planned["name"], planned["version"]) != (NAME, version):
            raise BadInput(
                f"the job was planned for runner {planned['name']} {planned['version']}, this is {NAME} {version}: "
                "plan it again"
            )
        self.key, self.fence = job["job_key"], job["fence"]
        self.base = pathlib.Path(job["base_dir"])
        self.attempt_dir = self.base / job["attempt_dir"]
        self.checkpoint_dir = self.base / job["checkpoint_dir"]
        self.device, self.threads = job["resources"]["device"], job["resources"]["threads"]
        self.ranks = (job.get("ranks") or {}).get("world_size", 1)
        self.model = self.spec["model"]["config"]
        self.batch = self.recipe["global_batch"]
        self.accum = self.recipe.get("accum_freq", 1)
        self._check()
        self.init = self._init()
        self.tokenizer_files = self._tokenizer_files()
        self.steps = self.spec["samples_seen"] // self.batch

    def _check(self):
        spec, recipe = self.spec, self.recipe
        parts = [("spec", spec, SPEC), ("recipe", recipe, RECIPE)]
        parts += [("recipe.preprocess", recipe.get("preprocess", {}), PREPROCESS)]
        parts += [(f"evaluations.{plan['dataset']}", plan, EVALUATION) for plan in spec["evaluations"]]
        for name, found, known in parts:
            for key in sorted(found.keys() - set(known)):
                refuse(f"{name}.{key}", found[key], "is no setting that this runner knows; leave it out")
        if recipe.get("extra"):
            refuse("recipe.extra", ", ".join(recipe["extra"]), "must be empty")
        for key in ("augmentation", "loss", "precision", "schedule"):
            if recipe.get(key, ACCEPTS[key][0]) not in ACCEPTS[key]:
                refuse(f"recipe.{key}", recipe[key], "must be " + " or ".join(f"`{value}`" for value in ACCEPTS[key]))
        if self.batch < 1 or self.batch % (self.ranks * self.accum):
            allowed = f"must be a multiple of {self.ranks} ranks x {self.accum} parts (`accum_freq`)"
            refuse("recipe.global_batch", self.batch, allowed)
        if self.measures_only():
            pass
        elif spec["samples_seen"] < self.batch or spec["samples_seen"] % self.batch:
            refuse("samples_seen", spec["samples_seen"], f"must be a multiple of the global batch, {self.batch}")
        vocabulary = self._vocabulary()
        if not UNMERGED <= vocabulary <= VOCABULARY_MAX:
            refuse("model.text_cfg.vocab_size", vocabulary, f"must be {UNMERGED} to {VOCABULARY_MAX}")
        for evaluation in spec["evaluations"]:
            for task in evaluation["tasks"]:
                if task not in ACCEPTS["tasks"]:
                    allowed = f"must be of {', '.join(sorted(ACCEPTS['tasks']))}"
                    refuse(f"evaluations.{evaluation['dataset']}.tasks", task, allowed)

    def measures_only(self):
        """Whether nothing is trained: the weights of `init` are measured."""
        return self.spec["samples_seen"] == 0 and bool(self.spec.get("init"))

    def _init(self):
        """The file of weights to start from, as it was planned; None: random ones."""
        init = self.spec.get("init")
        if not init:
            return None
        path = self.base / init["path"]
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadInput(f"cannot read the weights `{path}`: {error}; put them back, or plan again") from error
        if found != init["sha256"]:
            raise BadInput(
                f"the weights `{path}` have changed since the job was planned: their sha256 is {found}, the job says "
                f"{init['sha256']}; plan again"
            )
        return path

    def _vocabulary(self):
        """Of open_clip's own tokenizer, where that is the model's."""
        text = self.model["text_cfg"]
        foreign = text.get("hf_tokenizer_name") or text.get("hf_model_name")
        return VOCABULARY_MAX if foreign else text.get("vocab_size", VOCABULARY_MAX)

    def _tokenizer_files(self):
        """Of the tokenizer of Hugging Face that the model was planned with: none if it has none, or one that open_clip
        is to find by its name."""
        text = self.model["text_cfg"]
        named = next((key for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key)), None)
        if named and importlib.util.find_spec("transformers") is None:
            raise BadInput(
                f"`model.text_cfg.{named}` is {text[named]}, which open_clip reads by `transformers`, and "
                f"{sys.executable} lacks it: `{sys.executable} -m pip install transformers`"
            )
        planned = text.get("tokenizer_sha256")
        if not text.get("hf_tokenizer_name") or not planned:
            return {}
        path = self.base / text["hf_tokenizer_name"]
        try:
            tokenizer, beside = path.read_bytes(), path.with_name(SPECIAL)
            special = beside.read_bytes() if beside.is_file() else b""
        except OSError as error:
            raise BadInput(f"cannot read the tokenizer `{path}`: {error}; put it back, or plan again") from error
        found = hashlib.sha256(tokenizer + special).hexdigest()
        if found != planned:
            raise BadInput(
                f"the tokenizer `{path}` has changed since the job was planned: its sha256 is {found}, the job says "
                f"{planned}; plan again"
            )
        strip = (text.get("tokenizer_kwargs") or {}).get("strip_sep_token", False)
        return {TOKENIZER: tokenizer, SPECIAL: special or special_tokens(path, tokenizer, strip)}

    def path(self, source):
        return os.path.normpath(self.base / source["path"])

    def boundaries(self, every):
        """Steps after which something is due: the first that reaches each multiple of `every` samples."""
        return {math.ceil(at / self.batch) for at in range(every, self.spec["samples_seen"] + 1, every)}

    def checkpoint_steps(self):
        every = self.recipe["checkpoint_every_samples"]
        return {self.steps} | (self.boundaries(every) if every else set())

    def kept(self, default):
        """How many checkpoints stay on disk; None: all."""
        keep = self.recipe.get("keep_checkpoints", default)
        return None if keep == "all" else keep

    def evaluation_steps(self, evaluation):
        points = {math.ceil(at / self.batch) for at in evaluation["at_samples"]}
        return {step for step in points if 1 <= step <= self.steps} | {self.steps}

    def epoch_steps(self, resumed):
        """Steps of what open_clip_train calls an epoch here: it measures, saves and stops after whole ones, so they
        end where something is due, and at least EPOCHS times where the number of steps can be divided so."""
        due = self.checkpoint_steps().union(*map(self.evaluation_steps, self.spec["evaluations"]))
        common = math.gcd(self.steps, resumed, *due)
        return max(n for n in range(1, max(1, self.steps // EPOCHS) + 1) if common % n == 0)

    def model_files(self, folder):
        """The model's configuration for a folder of that path, and the files beside it."""
        config, files = json.loads(json.dumps(self.model)), dict(self.tokenizer_files)
        text = config["text_cfg"]
        text.pop("tokenizer_sha256", None)  # The plan's own; checked.
        if files:
            text["hf_tokenizer_name"] = str(folder)
        vocabulary = self._vocabulary()
        if vocabulary < VOCABULARY_MAX:
            name = f"bpe_{vocabulary}.txt.gz"
            files[name] = merges(vocabulary - UNMERGED)
            text["tokenizer_kwargs"] = {**(text.get("tokenizer_kwargs") or {}), "bpe_path": str(folder / name)}
        return config, files

    def flags(self, logs, epoch_steps, resume):
        """Of `open_clip_train.main`. The data are given by `data.py`: `--train-data` only says that there are some."""
        recipe = self.recipe
        beta1, beta2 = recipe["betas"]
        warmup = min(math.ceil(recipe["warmup_samples"] / self.batch), self.steps)
        flags = [
            "--model", MODEL, "--logs", str(logs), "--name", "job", "--report-to", "tensorboard",
            "--train-data", self.path(self.spec["data"]), "--epochs", str(self.steps // epoch_steps),
            "--batch-size", str(self.batch // (self.ranks * self.accum)), "--accum-freq", str(self.accum),
            "--lr", repr(recipe["lr"]), "--beta1", repr(beta1), "--beta2", repr(beta2), "--eps", repr(recipe["eps"]),
            "--wd", repr(recipe["weight_decay"]), "--warmup", str(warmup),
            "--lr-scheduler", {"cosine": "cosine", "constant": "const"}[recipe["schedule"]],
            "--precision", recipe["precision"], "--seed", str(self.spec["seed"]),
            "--device", self.device, "--log-every-n-steps", "1", "--save-frequency", "0", "--workers", "0",
        ]
        for key, value in recipe.get("preprocess", {}).items():
            values = value if isinstance(value, list) else [value]
            flags += [PREPROCESS[key], *(v if isinstance(v, str) else repr(v) for v in values)]
        if recipe["grad_clip_norm"] is not None:
            flags += ["--grad-clip-norm", repr(recipe["grad_clip_norm"])]
        if recipe.get("grad_checkpointing"):
            flags += ["--grad-checkpointing"]
        if self.ranks > 1:
            flags += ["--gather-with-grad"]  # Gradients of the loss of the whole batch.
        if self.ranks > 1 and self.batch > WHOLE_LOSS_MAX:
            flags += ["--local-loss"]  # The loss that is reported is then that of the first process's rows.
        if resume:
            flags += ["--resume", str(resume)]
        elif self.init:
            flags += ["--pretrained", str(self.init)]
        return flags


def merges(kept):
    """The first merges of open_clip's own vocabulary, as it reads them."""
    from open_clip.tokenizer import default_bpe

    lines = gzip.open(default_bpe()).read().decode().split("\n")[: 1 + kept]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def special_tokens(path, tokenizer, strip):
    """The file of special tokens that a tokenizer lacks: open_clip pads, and by `strip_sep_token` takes the separator
    out, by the names of those tokens. Which ones they are is clip-runner's rule (`runners/clip/src/tokenizer/file.rs`).
    """
    def unusable(reason):
        return BadInput(f"the tokenizer `{path}` can't be used: {reason}")

    try:
        content = json.loads(tokenizer)
        names = {entry if isinstance(entry, str) else entry[0] for entry in content["model"]["vocab"]}
        names |= {token["content"] for token in content.get("added_tokens") or []}
        padding = (content.get("padding") or {}).get("pad_token")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unusable(f"it is no tokenizer of Hugging Face ({error!r})") from error
    padding = padding or next((name for name in ("[PAD]", "<pad>") if name in names), None)
    separator = next((name for name in ("[SEP]", "</s>") if name in names), None)
    if padding is None:
        raise unusable(f"it has no padding; give a `{SPECIAL}` beside it that says its `pad_token`, and plan again")
    if strip and separator is None:
        raise unusable("`strip_sep_token` is set, and it has no separator; leave that out, and plan again")
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": padding}
    return json.dumps(special | ({"sep_token": separator} if strip else {}), indent=2).encode()


def refuse(key, found, allowed):
    raise BadInput(f"`{key}` is {found}, but {allowed}: open_clip_train can't do this job; clip-runner may")
