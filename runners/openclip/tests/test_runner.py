"""openclip-runner trains, measures, stops and goes on as the protocol says; open_clip does the training.

    make test-openclip
"""

import copy
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOKENIZERS = ROOT / "runners/clip/tests/tokenizers"
RUNNER = ROOT / "runners/openclip/openclip-runner"
SWEEP = os.environ["SWEEP"]
ENVIRONMENT = {**os.environ, "OPENCLIP_PYTHON": sys.executable}
sys.path[:0] = [str(RUNNER.parent), str(ROOT / "runners/clip/tests/python")]

from clip_job import FIXTURE, described, source, write_job  # noqa: E402
from openclip_runner import data, measure, pool  # noqa: E402  (its folder is no package's)
from openclip_runner.errors import BadInput  # noqa: E402
from openclip_runner.job import Job  # noqa: E402


@pytest.fixture(scope="module")
def spec():
    plan = {"templates": [], "at_samples": [350]}
    return {
        "runner": described(RUNNER, ENVIRONMENT),
        "model": {
            "name": "tiny",
            "config": {
                "embed_dim": 16,
                "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
                "text_cfg": {"context_length": 16, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1},
            },
        },
        "data": source(FIXTURE / "train"),
        "data_size": 250,
        "samples_seen": 1200,
        "seed": 3,
        "recipe": {
            "global_batch": 100, "lr": 0.002, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.1,
            "warmup_samples": 250, "schedule": "cosine", "precision": "fp32", "augmentation": "random_resized_crop",
            "grad_clip_norm": 1.0, "checkpoint_every_samples": 450,
        },
        "evaluations": [
            {"dataset": "seen", "data": source(FIXTURE / "train"), "tasks": ["zeroshot_retrieval"], **plan},
            {"dataset": "fluent", "data": source(FIXTURE / "fluent"), "tasks": ["zeroshot_classification"], **plan},
        ],
    }


def start(path):
    command = [RUNNER, "run", "--job", path]
    with open(path.with_name("stderr.log"), "w") as stderr:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENVIRONMENT)


def finish(path):
    process = start(path)
    events = [json.loads(line) for line in process.stdout]
    return process.wait(), events


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory):
    """(folder, events) of a job that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    code, events = finish(write_job(folder, spec))
    assert code == 0, (folder / "attempt-1/stderr.log").read_text()
    return folder, events


def curve(events):
    """What is reported of steps, but for the time they took."""
    rows = {}
    for event in events:
        if event["event"] == "step":
            timed = ("samples_per_sec", "data_wait_secs")
            metrics = {name: value for name, value in event["metrics"].items() if name not in timed}
            rows[event["step"]] = (event["samples_seen"], event["loss"], metrics)
    return rows


def weights(folder, at):
    folder = next((folder / "checkpoints").glob(f"samples-{at}-*"))
    return (folder / "model.safetensors").read_bytes()


def test_a_job_is_trained_and_measured_as_planned(whole, spec):
    folder, events = whole
    assert [event["event"] for event in events if event["event"] not in ("step", "checkpoint")] == [
        "started", "eval", "eval", "eval", "eval", "finished",
    ]
    assert [event["samples_seen"] for event in events if event["event"] == "checkpoint"] == [500, 900, 1200]
    # 350 and 450 samples are reached by the step to 400 and to 500.
    assert [event["samples_seen"] for event in events if event["event"] == "eval"] == [400, 400, 1200, 1200]
    rows = curve(events)
    assert sorted(rows) == list(range(1, 13))
    # open_clip's schedule: up to `lr` over 3 steps, then half a cosine.
    assert [round(rows[step][2]["lr"], 9) for step in (1, 3, 4)] == [0.000666667, 0.002, 0.002]
    assert rows[12][1] < rows[1][1] - 0.3, "it learns"
    assert events[0]["data"] == {"pairs": 250}


def test_a_checkpoint_is_a_folder_for_open_clip(whole, spec):
    folder, events = whole
    path = [event["path"] for event in events if event["event"] == "checkpoint"][-1]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    assert events[0]["parameters"] == sum(p.numel() for p in model.parameters())
    found = pool.open_pool(spec["data"]["path"], spec["data"]["digest"], "train")
    measuring = measure.Measuring(model, preprocess, tokenizer, "drop", "fp32", "cpu")
    rows, _ = measuring.measure(measure.held_out(spec["evaluations"][0], found, set()))
    last = [event for event in events if event["event"] == "eval" and event["dataset"] == "seen"][-1]
    for ours, reported in zip(rows, last["measurements"], strict=True):
        assert ours["metric"] == reported["metric"]
        assert abs(ours["value"] - reported["value"]) < 1e-9
    manifest = json.loads(pathlib.Path(path, "manifest.json").read_text())
    assert {entry["name"] for entry in manifest["files"]} == {
        "bpe_1000.txt.gz", "model.safetensors", "open_clip_config.json", "optimizer.pt",
    }


def test_a_stopped_job_goes_on_to_the_same_end(whole, spec, tmp_path):
    process = start(write_job(tmp_path, spec))
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("step") == 6:  # Of the step, and of the checkpoint that follows.
            process.send_signal(signal.SIGTERM)
    while process.poll() is None:  # Further stops, however late, change nothing.
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 75
    assert events[-1]["event"] == "checkpoint"
    code, rest = finish(write_job(tmp_path, spec, fence=2))
    assert code == 0
    assert rest[0]["resumed_from_samples"] == events[-1]["samples_seen"] < 1200
    assert curve(events + rest) == curve(whole[1])
    assert weights(tmp_path, 1200) == weights(whole[0], 1200)


def test_a_killed_job_goes_on_from_the_newest_whole_checkpoint(whole, spec, tmp_path):
    # Evaluations at other samples are no part of what is trained.
    process = start(write_job(tmp_path, spec))
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "checkpoint" and events[-1]["samples_seen"] == 900:
            process.kill()
    assert process.wait() == -signal.SIGKILL
    next((tmp_path / "checkpoints").glob("samples-900-*/model.safetensors")).write_bytes(b"damaged")
    code, rest = finish(write_job(tmp_path, spec, fence=2))
    assert code == 0 and rest[0]["resumed_from_samples"] == 500
    assert curve(events + rest) == curve(whole[1])
    assert weights(tmp_path, 1200) == weights(whole[0], 1200)


def test_epochs_of_several_steps_measure_and_save_where_planned(spec, tmp_path):
    many = copy.deepcopy(spec)
    many["recipe"] |= {"global_batch": 8, "warmup_samples": 300, "checkpoint_every_samples": 1600}
    many |= {"data_size": 100, "samples_seen": 3200}
    many["evaluations"][0]["at_samples"] = [790]  # Reached by the 99th step of 400, so epochs are of one step.
    del many["evaluations"][1:]
    code, events = finish(write_job(tmp_path / "whole", many))
    assert code == 0
    many["evaluations"][0]["at_samples"] = [800]  # Epochs are of two.
    process = start(write_job(tmp_path / "stopped", many))
    stopped = []
    for line in process.stdout:
        stopped.append(json.loads(line))
        if stopped[-1]["event"] == "step" and stopped[-1]["step"] == 100:
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert [event["samples_seen"] for event in stopped if event["event"] == "eval"] == [800]
    assert stopped[-1]["samples_seen"] < 3200 and stopped[-1]["samples_seen"] % 16 == 0
    many["recipe"]["checkpoint_every_samples"] = None
    code, rest = finish(write_job(tmp_path / "stopped", many, fence=2))
    assert code == 0
    assert [event["samples_seen"] for event in rest if event["event"] == "checkpoint"] == [3200]
    assert curve(stopped + rest) == curve(events) and len(curve(events)) == 100
    assert weights(tmp_path / "stopped", 3200) == weights(tmp_path / "whole", 3200)


def test_other_settings_train(spec, whole, tmp_path):
    changed = copy.deepcopy(spec)
    changed["recipe"] |= {
        "accum_freq": 4, "precision": "amp_bf16", "augmentation": "none", "alpha": "white", "schedule": "constant",
        "loss": "reference", "weight_decay": 0.0, "grad_checkpointing": True,
    }
    changed["samples_seen"], changed["evaluations"] = 500, []
    code, events = finish(write_job(tmp_path, changed))
    assert code == 0
    rows = curve(events)
    assert [round(row[2]["lr"], 6) for row in rows.values()] == [0.000667, 0.001333, 0.002, 0.002, 0.002]
    assert abs(rows[1][1] - curve(whole[1])[1][1]) < 0.05, "the same model sees the same pairs, whole or in parts"


def test_images_become_numbers_as_the_recipe_says(spec, tmp_path):
    changed = copy.deepcopy(spec)
    changed["recipe"]["preprocess"] = {
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 1.0], "interpolation": "bilinear", "resize_mode": "squash",
    }
    changed |= {"samples_seen": 300, "evaluations": [spec["evaluations"][0]]}
    code, events = finish(write_job(tmp_path, changed))
    assert code == 0, (tmp_path / "attempt-1/stderr.log").read_text()
    said = next(tmp_path.glob("attempt-1/open_clip-*/job/params.txt")).read_text().splitlines()
    assert {
        "image_mean: [0.5, 0.5, 0.5]", "image_std: [0.25, 0.5, 1.0]", "image_interpolation: bilinear",
        "image_resize_mode: squash",
    } <= set(said)
    path = [event["path"] for event in events if event["event"] == "checkpoint"][-1]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    white = preprocess(Image.new("RGB", (80, 40), "white"))
    assert white.shape == (3, 32, 32)
    assert torch.allclose(white.mean((1, 2)), torch.tensor([2.0, 1.0, 0.5]))
    wide = Image.new("RGB", (80, 40))
    wide.paste("white", (0, 0, 10, 40))
    assert preprocess(wide)[2, 16, 0] > 0.4, "nothing is cut off"
    found = pool.open_pool(changed["data"]["path"], changed["data"]["digest"], "train")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    measuring = measure.Measuring(model, preprocess, tokenizer, "drop", "fp32", "cpu")
    rows, _ = measuring.measure(measure.held_out(changed["evaluations"][0], found, set()))
    last = [event for event in events if event["event"] == "eval"][-1]
    assert [row["value"] for row in rows] == pytest.approx([row["value"] for row in last["measurements"]], abs=1e-9)


def loaded(folder, spec, name="new"):
    return Job(write_job(folder / name, spec), spec["runner"]["version"])


def test_a_smaller_vocabulary_keeps_the_tokenizers_settings(spec, tmp_path):
    changed = copy.deepcopy(spec)
    changed["model"]["config"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    config, files = loaded(tmp_path, changed).model_files(tmp_path)
    assert config["text_cfg"]["tokenizer_kwargs"] == {
        "clean": "canonicalize", "bpe_path": str(tmp_path / "bpe_1000.txt.gz"),
    }
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "bpe_1000.txt.gz").write_bytes(files["bpe_1000.txt.gz"])
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert (tokenizer("A_cat, (b)!") == tokenizer("a cat b")).all()


def with_tokenizer(spec, folder, name, kwargs=None):
    """The job's spec with a tokenizer of Hugging Face, as `sweep plan` writes it."""
    changed = copy.deepcopy(spec)
    files = [path for file in ("tokenizer.json", "tokenizer_config.json") if (path := folder / name / file).exists()]
    changed["model"]["config"]["text_cfg"] |= {
        "context_length": 12, "vocab_size": 300, "no_causal_mask": True, "pool_type": "last",
        "hf_tokenizer_name": f"{name}/tokenizer.json", "tokenizer_kwargs": kwargs or {},
        "tokenizer_sha256": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest(),
    }
    return changed


@pytest.fixture
def transformers_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.fixture
def base(tmp_path):
    """A job's folder with the tokenizers in it."""
    shutil.copytree(TOKENIZERS, tmp_path / "new", ignore=shutil.ignore_patterns("*golden*"))
    return tmp_path


def test_a_tokenizer_file_goes_to_open_clip_as_a_folder(spec, base, transformers_there):
    job = loaded(base, with_tokenizer(spec, TOKENIZERS, "wordpiece", {"strip_sep_token": True}))
    config, files = job.model_files(base / "logs")
    text = config["text_cfg"]
    assert text["hf_tokenizer_name"] == str(base / "logs") and "tokenizer_sha256" not in text
    assert text["tokenizer_kwargs"] == {"strip_sep_token": True}
    assert files == {
        name: (TOKENIZERS / "wordpiece" / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")
    }


def test_a_tokenizer_without_names_of_special_tokens_gets_them(spec, base, transformers_there):
    for name, padding, separator in (("wordpiece", "[PAD]", "[SEP]"), ("unigram", "<pad>", "</s>")):
        (base / "new" / name / "tokenizer_config.json").unlink()
        planned = with_tokenizer(spec, base / "new", name, {"strip_sep_token": True})
        path = write_job(base / "new" / f"of-{name}", planned)
        job = json.loads(path.read_text()) | {"base_dir": str(base / "new")}
        path.write_text(json.dumps(job))
        special = json.loads(Job(path, spec["runner"]["version"]).tokenizer_files["tokenizer_config.json"])
        assert (special["pad_token"], special["sep_token"]) == (padding, separator)


def test_a_tokenizer_that_is_another_or_gone_is_refused(spec, base, transformers_there):
    planned = with_tokenizer(spec, TOKENIZERS, "wordpiece")
    (base / "new/wordpiece/tokenizer_config.json").write_text("{}")
    with pytest.raises(BadInput, match="wordpiece/tokenizer.json` has changed since the job was planned: .*plan again"):
        loaded(base, planned)
    with pytest.raises(BadInput, match="cannot read the tokenizer"):
        loaded(base, planned, "elsewhere")


def test_a_python_without_transformers_is_told_what_to_install(spec, base, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="hf_tokenizer_name` is wordpiece/tokenizer.json.* -m pip install transformers"):
        loaded(base, with_tokenizer(spec, TOKENIZERS, "wordpiece"))


@pytest.mark.parametrize("case", range(4))
def test_a_job_with_a_tokenizer_file_is_trained(spec, base, case):
    pytest.importorskip("transformers")
    golden = json.loads((TOKENIZERS / "golden.json").read_text())
    made = golden["cases"][case]
    changed = with_tokenizer(spec, TOKENIZERS, made["tokenizer"], made["kwargs"])
    changed |= {"samples_seen": 200, "evaluations": [spec["evaluations"][0]]}
    code, events = finish(write_job(base / "new", changed))
    assert code == 0, (base / "new/attempt-1/stderr.log").read_text()
    path = [event["path"] for event in events if event["event"] == "checkpoint"][-1]
    assert open_clip.get_tokenizer(f"local-dir:{path}")(golden["captions"]).tolist() == made["ids"]
    open_clip.create_model_and_transforms(f"local-dir:{path}")


REFUSED = [
    ("recipe", "loss", "siglip", "`recipe.loss` is siglip, but must be `fused` or `reference`"),
    ("recipe", "schedule", "constant_cooldown", "`recipe.schedule` is constant_cooldown, but must be `cosine`"),
    ("recipe", "preprocess", {"fill": 1}, "`recipe.preprocess.fill` is 1, but is no setting that this runner knows"),
    ("recipe", "augmentation", "flip_shift", "`recipe.augmentation` is flip_shift, but must be `none`"),
    ("recipe", "global_batch", 70, "`samples_seen` is 1200, but must be a multiple"),
    ("recipe", "accum_freq", 3, "`recipe.global_batch` is 100, but must be a multiple of 1 ranks x 3 parts"),
    ("recipe", "extra", {"dropout": 0.5}, "`recipe.extra` is dropout, but must be empty"),
    ("recipe", "layer_decay", 0.5, "`recipe.layer_decay` is 0.5, but is no setting that this runner knows"),
    (None, "data_size", 301, "`data_size` is 301, but the pool has 300 pairs"),
    ("runner", "version", "0", "planned for runner openclip 0, this is openclip 1+open_clip-"),
    ("data", "digest", "0" * 64, "it has changed since the job was planned"),
]


@pytest.mark.parametrize("part, key, value, words", REFUSED, ids=lambda value: str(value)[:20])
def test_what_open_clip_cannot_do_is_refused(spec, tmp_path, part, key, value, words):
    changed = copy.deepcopy(spec)
    (changed[part] if part else changed)[key] = value
    code, events = finish(write_job(tmp_path, changed))
    assert code == 2
    assert [event["event"] for event in events] == ["failed"]
    assert events[0]["kind"] == "bad_input" and words in events[0]["reason"], events


def test_a_python_without_open_clip_says_so(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    environment = {**ENVIRONMENT, "OPENCLIP_PYTHON": str(bare)}
    said = subprocess.run([RUNNER, "describe"], capture_output=True, text=True, env=environment)
    assert said.returncode == 1 and "lacks torch, open_clip" in said.stderr and "OPENCLIP_PYTHON" in said.stderr


def test_describe_says_which_settings_are_taken():
    said = subprocess.run([RUNNER, "describe"], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    accepts = json.loads(said.stdout)["accepts"]
    assert accepts["schedule"] == ["cosine", "constant"] and accepts["extra"] == []
    assert "linear_probe" not in accepts["tasks"]


def run_ranks(folder, spec, count, fence=1, stop_at=None):
    """(exit codes, events of rank 0) of a job by several processes, started as `sweep-worker` starts them."""
    path = write_job(folder, spec, fence=fence, ranks=count)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(count):
        environment = ENVIRONMENT | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost",
            "MASTER_PORT": port,
        }
        with open(path.with_name(f"stderr-{rank}.log"), "w") as stderr:
            processes.append(subprocess.Popen(
                [RUNNER, "run", "--job", path], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
            ))
    events = []
    for line in processes[0].stdout:
        events.append(json.loads(line))
        if stop_at and events[-1].get("step") == stop_at:  # Of the step, and of the checkpoint that follows.
            processes[1].send_signal(signal.SIGTERM)
    others = [process.communicate()[0] for process in processes[1:]]
    assert not any(others), "rank 0 alone speaks"
    return [process.wait() for process in processes], events


def test_two_processes_train_what_one_does(whole, spec, tmp_path):
    codes, events = run_ranks(tmp_path / "two", spec, 2)
    assert codes == [0, 0], (tmp_path / "two/attempt-1/stderr-0.log").read_text()
    one, two = curve(whole[1]), curve(events)
    assert sorted(two) == sorted(one)
    # DDP sums gradients in another order; the crops, the order and the loss are those of the whole batch.
    assert [two[step][1] for step in two] == pytest.approx([one[step][1] for step in one], rel=1e-5)
    ours, theirs = (safetensors.torch.load(weights(folder, 1200)) for folder in (tmp_path / "two", whole[0]))
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-4), name
    # A stop of one is a stop of all, after the same step, and goes on to the same end.
    codes, begun = run_ranks(tmp_path / "stopped", spec, 2, stop_at=6)
    assert codes == [75, 75] and begun[-1]["event"] == "checkpoint"
    codes, rest = run_ranks(tmp_path / "stopped", spec, 2, fence=2)
    assert codes == [0, 0] and rest[0]["resumed_from_samples"] == begun[-1]["samples_seen"]
    assert curve(begun + rest) == two
    assert weights(tmp_path / "stopped", 1200) == weights(tmp_path / "two", 1200)


def test_a_job_starts_from_weights_and_measures_them(whole, spec, tmp_path):
    last = [event["path"] for event in whole[1] if event["event"] == "checkpoint"][-1]
    file = pathlib.Path(last, "model.safetensors")
    started = copy.deepcopy(spec)
    started["init"] = {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    started["recipe"] |= {"lr": 0.0, "warmup_samples": 0}
    started["samples_seen"] = 300
    code, events = finish(write_job(tmp_path / "on", started))
    assert code == 0, (tmp_path / "on/attempt-1/stderr.log").read_text()
    assert curve(events)[1][1] < curve(whole[1])[1][1] - 0.3, "it goes on from what was learnt"

    # Nothing is trained: the numbers are those of the end of training.
    started["samples_seen"], started["data"] = 0, {"pool": "", "path": "", "digest": ""}
    code, events = finish(write_job(tmp_path / "measured", started))
    assert code == 0, (tmp_path / "measured/attempt-1/stderr.log").read_text()
    assert [event["event"] for event in events] == ["started", "eval", "eval", "finished"]
    trained = {event["dataset"]: event["measurements"] for event in whole[1] if event["event"] == "eval"}
    for event in events[1:3]:
        assert event["samples_seen"] == 0 and event["measurements"] == trained[event["dataset"]]

    for change, words in (
        ({"sha256": "0" * 64}, "have changed since the job was planned"),
        ({"path": "gone"}, "cannot read the weights"),
    ):
        wrong = copy.deepcopy(started)
        wrong["init"] |= change
        code, events = finish(write_job(tmp_path / words[:4], wrong))
        assert code == 2 and words in events[0]["reason"], events
    started["model"]["config"]["text_cfg"]["context_length"] = 20
    code, events = finish(write_job(tmp_path / "longer", started))
    assert code == 2 and "`positional_embedding` is [16, 32] in" in events[0]["reason"], events


def test_as_many_checkpoints_stay_as_the_job_says(spec, tmp_path):
    for keep, kept in (("all", 3), (1, 1)):
        changed = copy.deepcopy(spec)
        changed["recipe"] |= {"keep_checkpoints": keep, "checkpoint_every_samples": 100}
        changed |= {"samples_seen": 300, "evaluations": []}
        code, _ = finish(write_job(tmp_path / str(keep), changed))
        assert code == 0
        assert len(list((tmp_path / str(keep) / "checkpoints").glob("samples-*"))) == kept


def test_a_loss_that_is_no_number_is_a_divergence(spec, tmp_path):
    changed = copy.deepcopy(spec)
    changed["recipe"] |= {"lr": 1e30, "grad_clip_norm": None}
    code, events = finish(write_job(tmp_path, changed))
    assert code == 1 and events[-1]["kind"] == "diverged", events[-1]


def test_sweep_accepts_what_it_says(tmp_path):
    command = [SWEEP, "runner", "check", RUNNER, "--pool", FIXTURE / "train"]
    checked = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "verdict     the job would be done" in checked.stdout


def test_each_pass_holds_every_pair_once_and_ranks_share_a_batch(spec):
    found = pool.open_pool(spec["data"]["path"], spec["data"]["digest"], "train")
    pairs = found.pairs[:250]
    positions = data.Positions(pairs, 3, "drop", lambda image: torch.zeros(1), lambda caption: [caption])
    passes = [[positions[250 * turn + place][1] for place in range(250)] for turn in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(pair.caption for pair in pairs)
    assert passes[0] != passes[1]
