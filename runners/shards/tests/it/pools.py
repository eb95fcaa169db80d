"""Writes random shards with `tarfile` and says what WebDataset's rules make of them.

pools.py FOLDER SEED COUNT: FOLDER/N.tar and FOLDER/expected.json, {"N.tar": [[key, usable], ...]} in the shard's order.
"""
import io
import json
import random
import re
import sys
import tarfile
from pathlib import Path

IMAGES = ("jpg", "jpeg", "png", "webp")
PNG = b"\x89PNG\r\n\x1a\n and so on"


def key(rng: random.Random) -> str:
    alphabet = rng.choice(["abc", "ABCxyz019_-", "äöü文字🐢é", "a b~(+)"])
    base = "".join(rng.choice(alphabet) for _ in range(rng.choice([1, 3, 8, 90, 101, 140])))
    if rng.random() < 0.2:
        base += "." + str(rng.randrange(3))
    folders = ["d" * rng.choice([1, 60]) + rng.choice(["", ".v2"]) for _ in range(rng.choice([0, 0, 1, 3]))]
    return rng.choice(["", "", "./"]) + "/".join([*folders, base])


def members(rng: random.Random):
    """Names and kinds: mostly pairs side by side, with every disorder now and then."""
    found = []
    keys = []
    for _ in range(rng.randrange(12)):
        name = rng.choice(keys) if keys and rng.random() < 0.15 else key(rng)
        keys.append(name)
        parts = [rng.choice(["jpg", "JPG", "png", "jpeg", "webp"]), rng.choice(["txt", "TXT"])]
        if rng.random() < 0.3:
            parts.append(rng.choice(["json", "cls.bak", "seg.png"]))
        if rng.random() < 0.1:
            parts.remove(rng.choice(parts))
        if rng.random() < 0.1:
            parts.append(rng.choice(parts))
        rng.shuffle(parts)
        found += [(f"{name}.{part}", rng.choice(["file"] * 12 + ["symlink", "hardlink"])) for part in parts]
        if rng.random() < 0.1:
            found.append((rng.choice(["README", ".DS_Store", "folder", "k.", "__info__"]), rng.choice(["file", "dir"])))
    if rng.random() < 0.1:
        rng.shuffle(found)
    return found


def write(rng: random.Random) -> bytes:
    to = io.BytesIO()
    form = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=to, mode="w", format=form) as tar:
        for name, kind in members(rng):
            info = tarfile.TarInfo(name)
            data = b""
            if kind == "file":
                text = rng.choice(["words", "words", "e\u0301t\u00e9", "", " \n", "\ufeff", "x" * 700])
                data = text.encode() if name.lower().endswith("txt") else PNG + bytes(rng.randrange(1500))
            info.size = len(data)
            info.type = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "dir": tarfile.DIRTYPE}.get(
                kind, tarfile.REGTYPE
            )
            if kind in ("symlink", "hardlink"):
                info.linkname = key(rng)
            if form == tarfile.PAX_FORMAT and rng.random() < 0.3:
                info.mtime = 1.5
                info.pax_headers = {"comment": "ü" * rng.randrange(300)}
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:
                continue  # A name that this form has no place for.
    return to.getvalue()


def read(path: Path):
    samples, current = [], None
    with tarfile.open(path, "r:", ignore_zeros=True) as tar:
        for member in tar:
            if not member.isreg():
                continue
            name = member.name[2:] if member.name.startswith("./") else member.name
            match = re.match(r"^((?:.*/|)[^./]+)[.]([^/]*)$", name)
            if not match:
                continue
            prefix, suffix = match[1], match[2].lower()
            if current is None or prefix != current["key"] or suffix in current:
                current = {"key": prefix}
                samples.append(current)
            current[suffix] = tar.extractfile(member).read()
    seen, told = set(), []
    for sample in samples:
        caption = sample.get("txt", b"").decode().strip().strip("\ufeff")
        usable = any(image in sample for image in IMAGES) and caption != "" and sample["key"] not in seen
        seen.add(sample["key"])
        told.append([sample["key"], usable])
    return told


def main():
    folder, rng, count = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
    expected = {}
    for at in range(count):
        path = folder / f"{at:05}.tar"
        path.write_bytes(b"".join(write(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))))
        expected[path.name] = read(path)
    (folder / "expected.json").write_text(json.dumps(expected))


main()
