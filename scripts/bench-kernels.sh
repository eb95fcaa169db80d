#!/usr/bin/env bash
# The contrastive losses beside open_clip's in one process on this CPU, one table; arguments go to kernels/python/bench.py:
#   scripts/bench-kernels.sh --batch 8192 --threads 2
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(scripts/python-venv.sh)
torch=$(echo "$venv"/lib/python3*/site-packages/torch)
make --no-print-directory -s -C kernels/csrc OUT="$venv/kernels" TORCH="$torch" -j2
export SWEEP_KERNELS_LIBRARY=$venv/kernels/libsweep_kernels.so
"$venv/bin/python" kernels/python/bench.py "$@"
