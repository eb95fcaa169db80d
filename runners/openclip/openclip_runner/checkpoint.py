"""Checkpoints: what `open_clip_train` saves, in a folder that `open_clip` loads (`local-dir:`), with a manifest that
hashes it. A folder gets its name when it is whole and on the disk."""

import hashlib
import json
import os
import pathlib
import re
import shutil

import safetensors.torch
import torch

from openclip_runner import events

# open_clip_train's own file, for `--resume`. `sweep checkpoint` copies what is called optimizer on request alone.
TRAINING, MODEL, CONFIG, MANIFEST = "optimizer.pt", "model.safetensors", "open_clip_config.json", "manifest.json"
# Where the job says nothing of it.
KEPT = 2


def publish(job, saved, step, losses, preprocess):
    """Makes a checkpoint of the file that open_clip_train saved; gives its folder and the sha256 of its manifest."""
    name = f"samples-{step * job.batch}-fence-{job.fence}"
    folder, temporary = job.checkpoint_dir / name, job.checkpoint_dir / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = torch.load(saved, map_location="cpu")["state_dict"]
    state = {key.removeprefix("module."): value.clone().contiguous() for key, value in state.items()}
    safetensors.torch.save_file(state, temporary / MODEL)
    config, files = job.model_files(folder)
    for file, content in files.items():
        (temporary / file).write_bytes(content)
    (temporary / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2))
    shutil.move(saved, temporary / TRAINING)
    manifest = {
        "schema": 1, "job_key": job.key, "fence": job.fence, "step": step, "samples_seen": step * job.batch,
        "losses": losses, "files": [entry(path) for path in sorted(temporary.iterdir())],
    }
    text = json.dumps(manifest, indent=2).encode()
    (temporary / MANIFEST).write_bytes(text)
    for path in [*temporary.iterdir(), temporary]:
        flush(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    flush(job.checkpoint_dir)
    kept = job.kept(KEPT)
    for _, _, old in there(job)[:-kept] if kept else []:
        shutil.rmtree(old, ignore_errors=True)
    return str(folder), hashlib.sha256(text).hexdigest()


def newest(job):
    """(manifest, open_clip_train's file) of the newest checkpoint that verifies, or None."""
    for _, fence, folder in reversed(there(job)):
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest["job_key"] != job.key:
                raise ValueError("it is another job's")
            for file in manifest["files"]:
                if entry(folder / file["name"]) != file:
                    raise ValueError(f"`{file['name']}` is damaged")
            return manifest, folder / TRAINING
        except (OSError, ValueError, KeyError) as error:
            events.say(f"passing over checkpoint {folder}: {error}")
    return None


def there(job):
    """(samples, fence, folder) of the job's checkpoints that are not a later attempt's, oldest first."""
    found = []
    for folder in job.checkpoint_dir.iterdir() if job.checkpoint_dir.is_dir() else []:
        match = re.fullmatch(r"samples-(\d+)-fence-(\d+)", folder.name)
        if match and int(match[2]) <= job.fence:
            found.append((int(match[1]), int(match[2]), folder))
    return sorted(found)


def resumable(job, path, epoch, folder):
    """A copy of open_clip_train's file that says `epoch`, with the names of as many processes as train now."""
    saved = torch.load(path, map_location="cpu")
    plain = {key.removeprefix("module."): value for key, value in saved["state_dict"].items()}
    saved["state_dict"] = {f"module.{key}": value for key, value in plain.items()} if job.ranks > 1 else plain
    saved["epoch"] = epoch
    target = folder / "resume.pt"
    torch.save(saved, target)
    return target


def entry(path):
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256}


def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
