#!/usr/bin/env bash
# Fetches a small set of photographs with captions and packs it into data/stamps/test: Tux Paint's stamps, as Debian
# ships them (tuxpaint-stamps-default, GPL-2, 161 MB). They are fetched, never kept in this repository.
#   DATA        folder that gets stamps/   (default: data)
#   SWEEP_POOL  a built sweep-pool         (default: cargo builds it)
# Their backgrounds are transparent: `alpha: white` in a recipe lays them on white.
set -euo pipefail

version=2022.06.04-1
sha256=6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
die() { # what is wrong, way out
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 3
}
data=${DATA:-$root/data}
out=$data/stamps
if [ -d "$out/test" ]; then
    printf 'stamps: %s is there\n' "$out/test" >&2
    exit 0
fi
if [ -z "${SWEEP_POOL:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" -p pool --bin sweep-pool
    SWEEP_POOL=${CARGO_TARGET_DIR:-$root/target}/debug/sweep-pool
fi

archive=$data/archives/tuxpaint-stamps-default_$version.deb
matches() { [ -f "$archive" ] && [ "$(sha256sum "$archive" | cut -d ' ' -f 1)" = "$sha256" ]; }
mkdir -p "$data/archives"
work=$(mktemp -d "$data/archives/.stamps.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! matches; then
    command -v apt-get >/dev/null || die "apt-get is not on PATH, and $archive is missing" \
        "put Debian's package tuxpaint-stamps-default, version $version, there"
    printf 'stamps: fetching tuxpaint-stamps-default %s (161 MB)\n' "$version" >&2
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "tuxpaint-stamps-default=$version") ||
        die "apt-get could not fetch tuxpaint-stamps-default $version" "run \`apt-get update\`, then this again"
    mv "$work"/tuxpaint-stamps-default_*.deb "$archive"
    matches || die "$archive is not the package that was tested with (sha256 differs)" "remove it and run this again"
fi

command -v dpkg-deb >/dev/null || die "dpkg-deb is not on PATH" "install dpkg, which unpacks Debian's packages"
dpkg-deb -x "$archive" "$work"
stamps=$work/usr/share/tuxpaint/stamps
# PICTURE.png and PICTURE.txt, whose first line is English; letters, flags and the like are no photographs.
{
    printf 'filepath\ttitle\n'
    find "$stamps" -name '*.png' ! -name '*_mirror*' ! -path '*/symbols/*' ! -path '*/cartoon/*' | LC_ALL=C sort |
        while read -r picture; do
            text=${picture%.png}.txt
            [ -f "$text" ] || continue
            caption=$(head -n 1 "$text" | tr -d '\r\t' | tr '"' "'")
            [ -z "$caption" ] || printf '%s\t%s\n' "$picture" "$caption"
        done
} >"$work/stamps.csv"
"$SWEEP_POOL" pack csv "$work/stamps.csv" --out "$out" --split test
