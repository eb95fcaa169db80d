"""The runner that runners/protocol/README.md shows is one.

    make test-openclip
"""

import json
import re
import signal
import subprocess
import sys

import pytest

from test_runner import ENVIRONMENT, ROOT, SWEEP

README = (ROOT / "runners/protocol/README.md").read_text()


@pytest.fixture
def runner(tmp_path):
    code = re.search(r"\n## A trainer of one's own\n.*?```python\n(.*?)```", README, re.S)[1]
    path = tmp_path / "mine.py"
    path.write_text(code.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    path.chmod(0o755)
    return path


def test_sweep_accepts_it(runner, tmp_path):
    command = [SWEEP, "runner", "check", runner, "--json"]
    checked = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    report = json.loads(checked.stdout)
    assert report["verdict"]["done"]
    assert [line["event"] for line in report["lines"]] == [
        "started", *["step"] * 4, "checkpoint", *["step"] * 4, "checkpoint", "finished",
    ]
    losses = [json.loads(line["line"])["loss"] for line in report["lines"] if line["event"] == "step"]
    assert losses[-1] < losses[0]


def test_it_stops_and_goes_on(runner, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    text = {"context_length": 16, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    job = {
        "spec": {
            "model": {"config": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}, "seed": 1,
            "data_size": 64, "samples_seen": 32000,
            "recipe": {
                "global_batch": 32, "lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.2,
                "checkpoint_every_samples": None,
            },
        },
        "checkpoint_dir": "checkpoints", "base_dir": str(tmp_path), "resources": {"threads": 1},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))

    def start():
        return subprocess.Popen([runner, "run", "--job", tmp_path / "job.json"], stdout=subprocess.PIPE, text=True)

    process, events = start(), []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("step") == 3 and events[-1]["event"] == "step":
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert events[-1]["event"] == "checkpoint"
    process = start()
    assert json.loads(process.stdout.readline())["resumed_from_samples"] == events[-1]["samples_seen"]
    assert json.loads(process.stdout.readline())["step"] == events[-1]["step"] + 1
    process.kill()
    process.wait()
