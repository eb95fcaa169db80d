"""Jobs for runners, as `sweep-worker` writes them, and what clip-runner makes of one."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[4]
FIXTURE = ROOT / "runners/pool/fixture"  # packed at 32 pixels, so that nobody resizes anything; 300 pairs to train on
CLIP_RUNNER, SWEEP_POOL = os.environ["CLIP_RUNNER"], os.environ["SWEEP_POOL"]

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 4096, "width": 64, "heads": 2, "layers": 2},
}
RECIPE = {
    "global_batch": 100, "lr": 0.002, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.1, "warmup_samples": 500,
    "schedule": "cosine", "precision": "fp32", "augmentation": "none", "grad_clip_norm": None,
    "checkpoint_every_samples": None,
}


def source(folder):
    report = subprocess.run([SWEEP_POOL, "inspect", folder, "--json"], check=True, capture_output=True).stdout
    return {"pool": pathlib.Path(folder).name, "path": str(folder), "digest": json.loads(report)["digest"]}


def described(runner, env=None):
    """What the planner takes of `describe`."""
    said = subprocess.run([runner, "describe"], check=True, capture_output=True, env=env).stdout
    return {name: json.loads(said)[name] for name in ("name", "version")}


def job_spec(config=TINY, **fields):
    """A job of clip-runner on the fixture; `fields` in place of what it has by itself."""
    return {
        "runner": described(CLIP_RUNNER), "model": {"name": "tiny", "config": config}, "data": source(FIXTURE / "train"),
        "data_size": 300, "seed": 3, "recipe": RECIPE, **fields,
    }


def evaluation(dataset, folder, task, **fields):
    """A data set that is measured at the end."""
    return {
        "dataset": dataset, "data": source(folder), "tasks": [task], "templates": [], "at_samples": [], **fields,
    }


def write_job(folder, spec, fence=1, ranks=None):
    attempt = folder / f"attempt-{fence}"
    attempt.mkdir(parents=True, exist_ok=True)
    job = {
        "protocol": 1, "job_key": "5" * 64, "fence": fence, "spec": spec, "attempt_dir": str(attempt),
        "checkpoint_dir": str(folder / "checkpoints"), "base_dir": str(folder),
        "resources": {"device": "cpu", "threads": 1},
    }
    if ranks:
        job["ranks"] = {"world_size": ranks, "master_addr": "localhost", "master_port": 1}
    path = attempt / "job.json"
    path.write_text(json.dumps(job))
    return path


def run(folder, spec):
    """(clip-runner's last checkpoint, if it wrote one, its `eval` events, its words, its exit code)"""
    ended = subprocess.run([CLIP_RUNNER, "run", "--job", write_job(folder, spec)], capture_output=True, text=True)
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    paths = [event["path"] for event in events if event["event"] == "checkpoint"]
    evals = [event for event in events if event["event"] == "eval"]
    return paths[-1] if paths else None, evals, ended.stderr, ended.returncode


def trained(folder, spec):
    """(last checkpoint, {data set: {metric: value}}) of a job that ends well."""
    path, evals, words, code = run(folder, spec)
    assert code == 0, words
    return path, {event["dataset"]: {row["metric"]: row["value"] for row in event["measurements"]} for event in evals}
