#!/usr/bin/env bash
# Fetches package archives with npm and packs them into pools: scripts/data.sh emoji|icons
#
# The recipe experiments/pools/NAME.json pins every archive by sha256. No install script runs: `npm pack` only downloads.
#   ARCHIVES    folder with (or for) the .tgz files   (default: data/archives)
#   DATA        folder that gets NAME/train, ...      (default: data)
#   SWEEP_POOL  a built sweep-pool                    (default: the one that was unpacked here, else cargo builds it)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf 'data: %s\n' "$*" >&2; }
die() { # what is wrong, way out, exit code
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit "${3:-3}"
}

name=${1:-}
recipe="$root/experiments/pools/$name.json"
if [ -z "$name" ] || [ ! -f "$recipe" ]; then
    known=$(cd "$root/experiments/pools" && echo *.json)
    die "\`$name\` is no pool recipe" "scripts/data.sh NAME, where NAME is one of: ${known//.json/}" 2
fi

archives=${ARCHIVES:-$root/data/archives}
out=${DATA:-$root/data}/$name
if [ -z "${SWEEP_POOL:-}" ] && [ -x "$root/bin/sweep-pool" ]; then
    SWEEP_POOL=$root/bin/sweep-pool
elif [ -z "${SWEEP_POOL:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --workspace --bin sweep-pool
    SWEEP_POOL=${CARGO_TARGET_DIR:-$root/target}/debug/sweep-pool
fi

# Nothing to fetch or pack: the usual case, and quick.
if "$SWEEP_POOL" check "$recipe" --out "$out"; then
    exit 0
fi

matches() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

mkdir -p "$archives"
sources=$("$SWEEP_POOL" sources "$recipe")
while IFS=$'\t' read -r package file sha256; do
    if matches "$archives/$file" "$sha256"; then
        say "$file is there"
        continue
    fi
    command -v npm >/dev/null || die "npm is not on PATH, and $archives/$file is missing or another version" \
        "install npm (Debian: the package npm), or put the archives there yourself and set ARCHIVES"
    say "fetching $package"
    # A folder of its own: an archive gets its name only when it is whole and the pinned one.
    part=$(mktemp -d "$archives/.part.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    npm pack --silent --ignore-scripts --pack-destination "$part" "$package" >/dev/null ||
        die "npm could not fetch $package" "check the network and npm's registry setting, then run this again"
    matches "$part/$file" "$sha256" ||
        die "$package is not the archive that $recipe pins (sha256 differs)" \
            "run this again; if it stays so, the registry serves another file than the one this was tested with"
    mv "$part/$file" "$archives/$file"
    rm -rf "$part"
done <<<"$sources"

say "packing $name into $out"
"$SWEEP_POOL" pack "$recipe" --archives "$archives" --out "$out"
