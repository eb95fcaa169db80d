#!/usr/bin/env bash
# Builds the kernels against a whole PyTorch, then runs Python with them; arguments are Python's:
#   scripts/kernels-python.sh -m pytest -q kernels/python                      make test-python
#   scripts/kernels-python.sh kernels/python/bench.py --batch 8192             make bench-kernels
#   scripts/kernels-python.sh kernels/python/accuracy.py                       the table of kernels/README.md
#   scripts/kernels-python.sh kernels/python/curves.py                         its figure
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(scripts/python-venv.sh)
torch=$(echo "$venv"/lib/python3*/site-packages/torch)
make --no-print-directory -s -C kernels/csrc OUT="$venv/kernels" TORCH="$torch" -j2
SWEEP_KERNELS_LIBRARY=$venv/kernels/libsweep_kernels.so exec "$venv/bin/python" "$@"
