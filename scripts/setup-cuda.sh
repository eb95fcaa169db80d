#!/usr/bin/env bash
# Sets up what compiling the CUDA kernels needs, in the same virtual environment as setup.sh. Run again, it checks and
# does nothing. No GPU and no driver are needed to compile.
#
#   SWEEP_VENV   the environment's folder (default: .venv)
#
# Makes $venv/cuda, laid out as a CUDA toolkit is (bin/nvcc, include, lib64), and $venv/cutlass, CUTLASS's headers.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh

[ "$(uname -sm)" = "Linux x86_64" ] || die "the CUDA compiler is pinned for Linux on x86-64, this is $(uname -sm)" \
    "install CUDA 13.0 and build kernels/csrc with NVCC set to its nvcc"
need g++ "as the compiler behind nvcc" g++
make_venv "the CUDA compiler"
installed scripts/requirements-cuda.txt || say "nvcc 13.0.88 and CUTLASS 4.2 from PyPI (110 MB to download, once)"
install scripts/requirements-cuda.txt setup-cuda

# The wheels share one folder, which lacks the names a linker looks for.
toolkit=$packages/nvidia/cu13
mkdir -p "$venv/cuda/lib64"
for folder in bin include lib nvvm; do link "$toolkit/$folder" "$venv/cuda/$folder"; done
link "$toolkit/lib/libcudart.so.13" "$venv/cuda/lib64/libcudart.so.13"
link libcudart.so.13 "$venv/cuda/lib64/libcudart.so"
for library in libcudadevrt.a libcudart_static.a; do link "$toolkit/lib/$library" "$venv/cuda/lib64/$library"; done
link "$packages/cutlass_library/source/include" "$venv/cutlass"

"$venv/cuda/bin/nvcc" --version >/dev/null || die "nvcc is there but does not run" \
    "remove $venv and run make setup-cuda again"
[ -f "$venv/cutlass/cutlass/version.h" ] || die "CUTLASS's headers are not where they should be" \
    "remove $venv/.requirements-cuda.txt.sha256 and run make setup-cuda again"
say "CUDA compiler ready"
