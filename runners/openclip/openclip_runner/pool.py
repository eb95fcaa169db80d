"""What a pool holds: the pairs of its shards in the order of sha256(key), and the digest that job.json names it by.

The rules are those of the crate `runners/shards`. They are written anew here, so the digest is computed from what this
reader read: where it equals the job's, both read the same keys, captions, classes and images.
"""

import collections
import dataclasses
import hashlib
import os
import re
import struct
import tarfile

from openclip_runner.errors import BadInput

IMAGES = ("jpg", "jpeg", "png", "webp")
CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
# Of CLIP_benchmark's layout: a split (`test/0.tar`) with this file has the other small ones in the folder above.
DATASET_TYPE, SHARD_COUNT = "dataset_type.txt", "nshards.txt"
TEXT_MAX = 1 << 20
# Unicode's white space, byte-order marks and NULs.
SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
TRIMMED = SPACE + "\ufeff\0"
INVISIBLE = re.compile(
    f"[{SPACE}\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]*"
)


@dataclasses.dataclass
class Pair:
    key: str
    shard: str
    offset: int
    length: int
    caption: str
    label: int | None


@dataclasses.dataclass
class Pool:
    """Pairs in the order of sha256(key)."""

    pairs: list
    class_names: list
    templates: list
    skipped: dict


def open_pool(folder, digest, name):
    """The pool in `folder`, if it is the one that the job was planned for."""
    shards = sorted(entry for entry in _listed(folder) if entry.endswith(".tar") and not entry.startswith("."))
    if not shards:
        raise BadInput(f"pool `{name}`: `{folder}` has no shard (*.tar)")
    _check_shard_count(folder, shards, name)
    kind = " ".join(_lines(folder, DATASET_TYPE)).lower() or "classification"
    if kind != "classification":
        raise BadInput(
            f"pool `{name}`: `{_beside(folder, DATASET_TYPE)}` says `{kind}`, but this runner reads `classification` "
            "alone: clip-runner may measure it"
        )
    class_names, templates = _class_names(folder), [line for line in _lines(folder, TEMPLATES) if line]
    found = hashlib.sha256(b"pool 1\n")
    for lines in (class_names, templates):
        found.update(struct.pack("<Q", len(lines)))
        for line in lines:
            _text(found, line)
    samples = []
    for shard in shards:
        path = os.path.join(folder, shard)
        try:
            in_shard = list(_samples(path, class_names))
        except (tarfile.TarError, OSError) as error:
            raise BadInput(f"pool `{name}`: `{path}` can't be read: {error}") from error
        samples.extend((shard, key, content) for key, content in in_shard)
        _text(found, shard)
        _text(found, _content(path, in_shard))
    if found.hexdigest() != digest:
        raise BadInput(
            f"pool `{name}`: the digest of what this runner reads of `{folder}` is {found.hexdigest()}, the job says "
            f"{digest}: it has changed since the job was planned (plan again), or has a tar file that Python's "
            "`tarfile` reads in another way (pack it again)"
        )
    uses = collections.Counter(key for _, key, _ in samples)
    pairs, skipped = [], collections.Counter()
    for shard, key, content in samples:
        if isinstance(content, str):
            skipped[content] += 1
            continue
        key = key if uses[key] == 1 else f"{shard}/{key}"
        pairs.append(Pair(key, os.path.join(folder, shard), *content))
    pairs.sort(key=lambda pair: hashlib.sha256(pair.key.encode(errors="surrogateescape")).digest())
    return Pool(pairs, class_names, templates, dict(skipped))


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError as error:
        raise BadInput(f"cannot list the pool `{folder}`: {error}") from error


def _check_shard_count(folder, shards, name):
    """A split that was fetched in part would be another pool without a word."""
    path = os.path.join(folder, SHARD_COUNT)
    if not os.path.exists(path):
        return
    said, reason, there = " ".join(_lines(folder, SHARD_COUNT)), None, set(shards)
    if not re.fullmatch(r"\+?[0-9]+", said):
        reason = f"`{said}` is no number of shards"
    elif missing := next((nth for nth in map("{}.tar".format, range(int(said))) if nth not in there), None):
        reason = f"it gives {said} shards, and `{missing}` is not there"
    elif len(shards) > int(said):
        reason = f"it gives {said} shards, and {len(shards)} lie beside it"
    if reason:
        raise BadInput(
            f"pool `{name}`: `{path}`: {reason}; fetch what is missing, or delete {SHARD_COUNT} and plan again: all "
            "shards of the folder are read then"
        )


def _beside(folder, name):
    """Where the small file `name` of a pool is: for a split without one, in the folder above."""
    own = os.path.join(folder, name)
    if os.path.exists(own) or not os.path.exists(os.path.join(folder, SHARD_COUNT)):
        return own
    return os.path.join(os.path.dirname(os.path.normpath(folder)), name)


def _lines(folder, name):
    path = _beside(folder, name)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"`{path}` can't be read: {error}; save it as UTF-8, and plan again") from error
    return [line.strip(TRIMMED) for line in (lines[:-1] if lines[-1] == "" else lines)]


def _class_names(folder):
    lines = _lines(folder, CLASS_NAMES)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _samples(path, class_names):
    """(key, content) of each sample in order; the content is (offset, length, caption, class), or why there is none."""
    groups, first, links = [], {}, []
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            base = member.name.removeprefix("./")
            folder, slash, file = base.rpartition("/")
            stem, dot, extension = file.partition(".")
            if not dot or not stem:
                continue
            key, extension = folder + slash + stem, extension.lower()
            role = "image" if extension in IMAGES else {"txt": "caption", "cls": "class"}.get(extension)
            if member.issym() or member.islnk():
                if role:
                    links.append((key, role))
                continue
            if not member.isfile():
                continue
            if not groups or groups[-1]["key"] != key or extension in groups[-1]["extensions"]:
                first.setdefault(key, len(groups))
                groups.append({"key": key, "extensions": set(), "repeated": first[key] != len(groups)})
            group = groups[-1]
            group["extensions"].add(extension)
            if role and role not in group:
                bytes_wanted = member.size if role != "image" else 16
                read = role == "image" or member.size <= TEXT_MAX
                start = archive.fileobj.tell()
                archive.fileobj.seek(member.offset_data)
                group[role] = (member, archive.fileobj.read(bytes_wanted) if read else b"")
                archive.fileobj.seek(start)
    for key, role in links:
        if key not in first:
            first[key] = len(groups)
            groups.append({"key": key, "extensions": set(), "repeated": False})
        groups[first[key]].setdefault(role, "link")
    for group in groups:
        yield group["key"], _pair(group, class_names)


def _pair(group, class_names):
    if group["repeated"]:
        apart = "image" not in group or ("caption" not in group and "class" not in group)
        return "members apart" if apart else "key twice in its shard"
    for role in ("image", "caption", "class"):
        found = group.get(role)
        if found == "link":
            return "a link"
        if found and found[0].issparse():
            return "a sparse file"
        if found and role != "image" and found[0].size > TEXT_MAX:
            return "too long a text"
    if "image" not in group:
        dotted = any("." in extension and extension.rpartition(".")[2] in IMAGES for extension in group["extensions"])
        return "no image, a dot in its name" if dotted else "no image"
    label = None
    if "class" in group:
        text = group["class"][1].decode(errors="replace").strip(TRIMMED)
        if not re.fullmatch(r"\+?[0-9]+", text) or int(text) >= 1 << 32:
            return "class is no number"
        label = int(text)
    if "caption" in group:
        try:
            caption = group["caption"][1].decode().strip(TRIMMED)
        except UnicodeDecodeError:
            return "caption is not UTF-8"
    elif label is not None and label < len(class_names):
        caption = class_names[label]
    else:
        return "no caption"
    if INVISIBLE.fullmatch(caption):
        return "empty caption"
    member, start = group["image"]
    webp = start.startswith(b"RIFF") and start[8:12] == b"WEBP"
    if not (webp or start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))):
        return "not an image"
    return member.offset_data, member.size, caption, label


def _content(path, samples):
    texts = hashlib.sha256()
    for key, content in samples:
        _text(texts, key)
        if isinstance(content, str):
            texts.update(b"\0")
            continue
        _, length, caption, label = content
        texts.update(b"\1")
        _text(texts, caption)
        texts.update(struct.pack("<QQ", (1 << 64) - 1 if label is None else label, length))
    content_hash = hashlib.sha256(texts.hexdigest().encode())
    with open(path, "rb") as file:
        for _, content in samples:
            if not isinstance(content, str):
                file.seek(content[0])
                content_hash.update(hashlib.sha256(file.read(content[1])).digest())
    return content_hash.hexdigest()


def _text(hash_of, text):
    encoded = text.encode(errors="surrogateescape")
    hash_of.update(struct.pack("<Q", len(encoded)) + encoded)
