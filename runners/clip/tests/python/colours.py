"""A small data set with classes: noise around a colour each, so that some are hard to tell apart."""

import hashlib
import io
import random
import subprocess
import tarfile

from PIL import Image

from clip_job import SWEEP_POOL

CLASSES = 7


def draw(folder, each, rng):
    for label in range(CLASSES):
        (folder / f"class-{label}").mkdir(parents=True)
        for nth in range(each):
            base = [90 + 14 * label, 200 - 11 * label, 128]
            pixels = bytes(max(0, min(255, round(rng.gauss(base[at % 3], 60)))) for at in range(32 * 32 * 3))
            Image.frombytes("RGB", (32, 32), pixels).save(folder / f"class-{label}" / f"{nth}.png")


def packed(folder):
    """The folder of the splits `train` and `test`."""
    rng = random.Random(2)
    for split, each in [("train", 30), ("test", 15)]:
        draw(folder / "images" / split, each, rng)
        command = ["pack", "images", folder / "images" / split, "--out", folder / "set", "--split", split]
        subprocess.run([SWEEP_POOL, *command], check=True, capture_output=True)
    return folder / "set"


def images(folder):
    """(key, picture, class) of a split, in hash order of the keys."""
    samples = {}
    with tarfile.open(folder / "0.tar") as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            samples.setdefault(key, {})[extension] = archive.extractfile(member).read()
    order = sorted(samples, key=lambda key: hashlib.sha256(key.encode()).digest())
    return [(key, Image.open(io.BytesIO(samples[key]["png"])), int(samples[key]["cls"])) for key in order]
