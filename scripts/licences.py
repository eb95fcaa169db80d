"""Copies the licence texts of every crate that is part of the programs into a folder: scripts/licences.py OUT

The list of crates is `cargo metadata`'s, for x86-64 Linux, without those that only build or test. Crates in whose
package lies no text are listed with their licence's name and their repository.
"""

import json
import pathlib
import shutil
import subprocess
import sys

NAMES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def texts(folder):
    """Those of the crate, and of C sources that lie in it (zstd, bzip2, ring's)."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return sorted(path for path in found if path.is_file() and path.name.upper().startswith(NAMES))


def crates():
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    ours = set(metadata["workspace_members"])
    seen, left = set(), list(ours)
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        left += [dep["pkg"] for dep in nodes[one]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return sorted((packages[one] for one in seen - ours), key=lambda package: (package["name"], package["version"]))


def main(out):
    out.mkdir(parents=True)
    lines, bare = [], 0
    for package in crates():
        folder = pathlib.Path(package["manifest_path"]).parent
        name = f"{package['name']}-{package['version']}"
        files = texts(folder)
        for path in files:
            target = out / name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        bare += not files
        licence = package["license"] or "see its files"
        lines.append(f"{name}: {licence}; {package['repository'] or 'no repository named'}"
                     f"{'' if files else '; its package has no text'}\n")
    (out / "CRATES").write_text("".join(lines))
    print(f"licences: {len(lines)} crates, {bare} of them without a text in their package")


main(pathlib.Path(sys.argv[1]))
