"""CLIP_benchmark's own command line, unchanged, on our pools and checkpoints gives our numbers; its files go in and out.

    make test-clip-benchmark
"""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from clip_job import FIXTURE, SWEEP_POOL, evaluation, job_spec, trained  # noqa: E402  (in another folder)

SWEEP = os.environ["SWEEP"]


def call(*command, cwd=None):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
    return run.stdout


def benchmark(*arguments, cwd=None):
    return call(sys.executable, "-m", "clip_benchmark.cli", *arguments, cwd=cwd)


def members(folder):
    """{key: {extension: bytes}} of a pool, in its own order."""
    samples = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                samples.setdefault(key, {})[extension] = archive.extractfile(member).read()
    return samples


def write(folder, samples, above):
    """A split of one shard, by Python's tarfile."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for nth, sample in enumerate(samples):
            for extension, data in sample.items():
                member = tarfile.TarInfo(f"s{nth:07}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    (folder / "nshards.txt").write_text("1\n")
    for name, text in above.items():
        (folder.parent / name).write_text(text)


def npy(vector):
    to = io.BytesIO()
    numpy.save(to, vector)
    return to.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three data sets in CLIP_benchmark's layout: a pool of ours laid out, several captions, several classes."""
    folder = tmp_path_factory.mktemp("sets")
    call(SWEEP_POOL, "benchmark", FIXTURE / "val", "--out", folder / "classes")
    drawn = members(FIXTURE / "train")
    # Keys are made of vendor and name: two drawings of one name are left apart, so that no two texts are equal.
    captions = {}
    for sample in drawn.values():
        captions.setdefault(sample["txt"].decode().strip(), sample)
    several = [
        {"png": sample["png"], "txt": f"{caption}\na picture of {caption}\nthe emoji: {caption}".encode()}
        for caption, sample in captions.items()
    ]
    write(folder / "captions/test", several, {"dataset_type.txt": "retrieval\n"})
    rng = numpy.random.default_rng(0)
    labels = [
        {"png": sample["png"], "npy": npy((rng.random(5) < 0.3).astype(kind))}
        for sample, kind in zip(drawn.values(), [numpy.int64, numpy.float32, numpy.bool_] * 40)
    ]
    above = {
        "dataset_type.txt": "multilabel\n",
        "classnames.txt": "face\nanimal\nflag\nfood\nhand\n",
        "zeroshot_classification_templates.txt": "a picture of a {c}\nthe {c}\n",
    }
    write(folder / "labels/test", labels, above)
    return folder


TASKS = {"classes": "zeroshot_classification", "captions": "zeroshot_retrieval", "labels": "zeroshot_classification"}


@pytest.fixture(scope="module")
def measured(sets, tmp_path_factory):
    """(folder of a checkpoint, {data set: {metric: value}} as clip-runner measured it)"""
    folder = tmp_path_factory.mktemp("job")
    return trained(folder, job_spec(samples_seen=6000, evaluations=[
        evaluation(name, sets / name / "test", task) for name, task in TASKS.items()
    ]))


@pytest.fixture(scope="module")
def theirs(measured, sets, tmp_path_factory):
    """Folder of the files that CLIP_benchmark wrote, by its command line."""
    folder = tmp_path_factory.mktemp("theirs")
    for name, task in TASKS.items():
        benchmark(
            "eval", "--dataset", f"wds/{name}", "--dataset_root", sets / name, "--task", task,
            "--model", f"local-dir:{measured[0]}", "--pretrained", "", "--no_amp", "--recall_k", 1, 5, 10,
            "--num_workers", 0, "--output", folder / f"{name}.json",
        )
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_its_numbers_are_ours(name, measured, theirs):
    found, ours = json.loads((theirs / f"{name}.json").read_text())["metrics"], measured[1][name]
    items = {"classes": 100, "captions": 300, "labels": None}[name]
    assert found, "it measured"
    for metric, value in found.items():
        # One item may change sides by rounding; an average precision changes by less.
        most = 1.01 / items if items else 2e-3
        assert abs(ours[metric] - value) <= most, (metric, value, ours[metric])
    if name == "classes":
        assert set(found) == {"acc1", "acc5", "mean_per_class_recall"} == set(ours)
    elif name == "labels":
        assert set(found) == {"mean_average_precision"} == set(ours) and 0.2 < ours["mean_average_precision"] < 0.7
    else:
        assert set(found) == {metric for metric in ours if "grouped" not in metric}
        assert 0.02 < ours["image_retrieval_recall@5"] < 0.9, "there is something to measure"


def rows(path):
    with open(path) as file:
        numbers = {"acc1", "acc5", "mean_per_class_recall", "mean_average_precision"}
        said = {}
        for row in csv.DictReader(file):
            for metric, value in row.items():
                if value and (metric in numbers or "recall@" in metric):
                    # `wds/` says how it was read, not what it is: sweep leaves it out, as CLIP_benchmark does in file names.
                    said[row["dataset"].removeprefix("wds/"), row["task"], row["language"], metric] = float(value)
        return said


def test_its_files_go_in_and_out(theirs, tmp_path):
    """JSON -> `clip_benchmark build` -> CSV -> sweep -> JSON -> `build` again: the same numbers to the last digit."""
    benchmark("build", theirs, "--output", tmp_path / "first.csv")
    try:
        call(SWEEP, "import", "clip-benchmark", tmp_path / "first.csv", "--name", "cb", cwd=tmp_path)
        call(SWEEP, "export", "cb", "--format", "clip-benchmark", "--output", "out", cwd=tmp_path)
        call(SWEEP, "import", "clip-benchmark", theirs, "--name", "json", cwd=tmp_path)
        call(SWEEP, "export", "json", "--format", "clip-benchmark", "--output", "out-json", cwd=tmp_path)
    finally:
        subprocess.run([SWEEP, "db", "stop"], cwd=tmp_path, capture_output=True)
    first = rows(tmp_path / "first.csv")
    assert len(first) == 3 + 6 + 1
    for out in ["out", "out-json"]:
        benchmark("build", tmp_path / out, "--output", tmp_path / f"{out}.csv")
        assert rows(tmp_path / f"{out}.csv") == first, out
