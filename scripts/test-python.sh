#!/usr/bin/env bash
# Builds the kernels against a whole PyTorch and tests their Python face.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(scripts/python-venv.sh)
torch=$(echo "$venv"/lib/python3*/site-packages/torch)
make --no-print-directory -s -C kernels/csrc OUT="$venv/kernels" TORCH="$torch" -j2
export SWEEP_KERNELS_LIBRARY=$venv/kernels/libsweep_kernels.so
"$venv/bin/python" -m pytest -q -p no:cacheprovider kernels/python "$@"
