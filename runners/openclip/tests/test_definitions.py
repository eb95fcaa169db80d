"""Pools and measurements are those of clip-runner, so that one spec means the same under both runners.

    make test-openclip
"""

import io
import json
import subprocess
import tarfile

import open_clip
import pytest

from test_runner import BadInput, measure, pool
from clip_job import FIXTURE, RECIPE, SWEEP_POOL, job_spec, run, source  # test_runner has said where it lies


def write_shard(path, members):
    """`members`: (name, bytes), or (name, None) for a link."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "elsewhere"
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content or b""))


@pytest.fixture(scope="module")
def images():
    with tarfile.open(FIXTURE / "train/00000.tar") as archive:
        return [archive.extractfile(member).read() for member in archive if member.name.endswith(".png")]


def test_an_awkward_pool_is_read_alike(tmp_path, images):
    png = images[0]
    write_shard(tmp_path / "a.tar", [
        ("./plain.png", png), ("./plain.txt", b" a cat \n"),
        ("folder/deep.PNG", png), ("folder/deep.txt", "\u00e9t\u00e9\u3000".encode()),
        ("classed.png", png), ("classed.cls", b"+1\n"),
        ("both.png", png), ("both.cls", b"0"), ("both.txt", b"a dog"), ("both.json", b"{}"),
        ("two.jpg", png), ("two.png", images[1]), ("two.txt", b"two images"),
        ("unclassed.png", png), ("unclassed.cls", b"one"), ("unclassed.txt", b"text"),
        ("blank.png", png), ("blank.txt", b"\xe2\x80\x8b \n"), ("latin.png", png), ("latin.txt", b"\xe9t\xe9"),
        ("silent.png", png), ("lonely.txt", b"no image"), ("dotted.v2.png", png), ("dotted.txt", b"a dot"),
        ("linked.png", None), ("linked.txt", b"a link"), ("words.png", b"no image at all"), ("words.txt", b"words"),
        ("apart.png", png), ("other.png", png), ("other.txt", b"between"), ("apart.txt", b"too late"),
        ("twice.png", png), ("twice.txt", b"once"), ("twice.png", png), ("twice.txt", b"again"),
        (".hidden.png", png), ("readme", b"no sample"), ("long.png", png), ("long.txt", b"x" * (1 << 20) + b"y"),
    ])
    write_shard(tmp_path / "b.tar", [("plain.png", images[2]), ("plain.txt", b"the same key in another shard")])
    (tmp_path / "classnames.txt").write_bytes("first\r\n second \n\n".encode())
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\n\nthe {}\n")
    planned = source(tmp_path)
    found = pool.open_pool(planned["path"], planned["digest"], "awkward")
    report = json.loads(subprocess.run(
        [SWEEP_POOL, "inspect", tmp_path, "--json"], check=True, capture_output=True
    ).stdout)
    assert len(found.pairs) == report["samples"] == 8
    assert {pair.key for pair in found.pairs if pair.key.endswith("plain")} == {"a.tar/plain", "b.tar/plain"}
    assert [pair.caption for pair in found.pairs if pair.key == "classed"] == ["second"]
    assert found.templates == ["a {c}", "the {}"]


@pytest.fixture
def split(tmp_path, images):
    """(split in CLIP_benchmark's layout, the pool that it was made of)."""
    whole = tmp_path / "whole"
    whole.mkdir()
    for shard in range(2):
        members = [(f"{shard}.png", images[shard]), (f"{shard}.cls", str(shard).encode())]
        write_shard(whole / f"{shard}.tar", members)
    (whole / "classnames.txt").write_text("cat\ndog\n")
    (whole / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    subprocess.run([SWEEP_POOL, "benchmark", whole, "--out", tmp_path / "data"], check=True, capture_output=True)
    return tmp_path / "data/test", whole


def test_a_split_in_clip_benchmarks_layout_is_read_alike(split):
    planned, whole = map(source, split)
    assert not (split[0] / "classnames.txt").exists() and (split[0] / "nshards.txt").exists()
    found = pool.open_pool(planned["path"], planned["digest"], "split")
    assert planned["digest"] == whole["digest"]
    assert (found.class_names, found.templates) == (["cat", "dog"], ["a {c}"])
    assert sorted(pair.caption for pair in found.pairs) == ["cat", "dog"]


@pytest.mark.parametrize("file, text, words", [
    ("test/nshards.txt", "3\n", "nshards.txt`: it gives 3 shards, and `2.tar` is not there; fetch what is missing"),
    ("test/nshards.txt", "1\n", "it gives 1 shards, and 2 lie beside it"),
    ("test/nshards.txt", "two\n", "`two` is no number of shards"),
    ("dataset_type.txt", "Multilabel\n", "data/dataset_type.txt` says `multilabel`, but this runner reads"),
])
def test_a_split_that_is_not_read_says_why(split, file, text, words):
    planned = source(split[0])
    (split[0].parent / file).write_text(text)
    with pytest.raises(BadInput) as refused:
        pool.open_pool(planned["path"], planned["digest"], "split")
    assert words in str(refused.value)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, images):
    """(job's spec, checkpoint, what clip-runner measured) of a pool of 1,100 pairs with equal captions among them."""
    folder = tmp_path_factory.mktemp("measured")
    held_out = folder / "pool"
    held_out.mkdir()
    write_shard(held_out / "0.tar", [
        member for index in range(1100) for member in (
            (f"{index}.png", images[index % 50]), (f"{index}.txt", f"picture {index % 50}".encode()),
            (f"{index}.cls", str(index % 50 % 7).encode()),
        )
    ])
    (held_out / "classnames.txt").write_text("".join(f"picture {index}\n" for index in range(7)))
    spec = job_spec(
        {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": {"context_length": 16, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1},
        },
        data=source(held_out), data_size=1100, samples_seen=13200, seed=1,
        recipe={**RECIPE, "global_batch": 110, "lr": 0.003, "schedule": "constant"},
        evaluations=[{
            "dataset": "all", "data": source(held_out), "templates": ["a {}", "the {c}"], "at_samples": [],
            "tasks": ["zeroshot_classification", "zeroshot_retrieval", "contrastive_loss"],
        }],
    )
    path, evals, words, code = run(folder, spec)
    assert code == 0, words
    return spec, path, evals[-1]["measurements"]


def test_the_same_weights_measure_the_same(measured):
    spec, path, theirs = measured
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    plan = spec["evaluations"][0]
    found = pool.open_pool(plan["data"]["path"], plan["data"]["digest"], "all")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    measuring = measure.Measuring(model, preprocess, tokenizer, "drop", "fp32", "cpu")
    ours, unmeasured = measuring.measure(measure.held_out(plan, found, set()))
    assert not unmeasured
    assert [row["metric"] for row in ours] == [row["metric"] for row in theirs]
    for row, theirs in zip(ours, theirs, strict=True):
        assert row["count"] == theirs["count"]
        # One of 1,100 queries may change sides by rounding.
        near = 1e-5 if row["metric"].startswith("loss") else 1.5 / 1100
        for field in ("value", "standard_error", "chance"):
            assert abs(row[field] - theirs[field]) < (near if field == "value" else 1e-4), (row, theirs)
    assert ours[-1]["value"] < ours[-1]["chance"] - 0.05, "there is something to measure"
