"""What `sweep model` says of each configuration that comes with open_clip, as a table.

    scripts/kernels-python.sh runners/clip/tests/python/configurations.py      writes docs/openclip-models.md
"""

import json
import os
import pathlib
import re
import subprocess

import open_clip

FILE = pathlib.Path(__file__).resolve().parents[4] / "docs/openclip-models.md"
CONFIGS = sorted((pathlib.Path(open_clip.__file__).parent / "model_configs").glob("*.json"))
HEADING = """# OpenCLIP's configurations

Every file of open_clip 3.3.0's `model_configs`, as `sweep model FILE` takes it. Written by
`runners/clip/tests/python/configurations.py` and compared by `make test-openclip`, which also compares parameters and GFLOPs
with open_clip's own, exactly.

- **trained**: built by clip-runner.
- **tokenizer**: trained, with a folder that holds its `tokenizer.json` named as `hf_tokenizer_name`, or with OpenAI's encoding in its place.
- **counted**: parameters and compute are right, and `runner: clip` refuses it when it plans.
- **refused**: the setting is not known here.

| configuration | | parameters | GFLOPs | because of |
|---|---|---|---|---|
"""


def shown(path):
    """(what `sweep model --json` says, or None; its words where it refuses)"""
    run = subprocess.run([os.environ["SWEEP"], "model", path, "--json"], capture_output=True, text=True)
    if run.returncode == 0:
        return json.loads(run.stdout), ""
    assert run.returncode == 2, run.stderr
    return None, " ".join(run.stderr.split())


def kind(row):
    if row is None:
        return "refused"
    if not row["not_trained"]:
        return "trained"
    return "tokenizer" if all("hf_tokenizer_name" in why for why in row["not_trained"]) else "counted"


def line(path):
    row, words = shown(path)
    of = kind(row)
    if row is None:
        key = re.search(r"`((?:vision_cfg|text_cfg|multimodal_cfg)[a-z_.]*)`", words)
        return f"| {path.stem} | {of} | | | `{key[1]}` |\n"
    because = re.search("`([a-z_.]+)`", row["not_trained"][0])[1] if row["not_trained"] else ""
    numbers = f"{row['parameters']:,} | {row['gflops']:.2f}"
    return f"| {path.stem} | {of} | {numbers} | {f'`{because}`' if because else ''} |\n"


def table():
    return HEADING + "".join(line(path) for path in CONFIGS)


if __name__ == "__main__":
    FILE.write_text(table())
