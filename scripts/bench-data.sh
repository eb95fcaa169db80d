#!/usr/bin/env bash
# Images a second of clip-runner's loader beside webdataset, Pillow and torchvision, on the same shards and one core:
# scripts/bench-data.sh [ROUNDS]
#
# Needs data/emoji and data/stamps (fetched, 173 MB) and a Python with PyTorch (2.5 GB, once).
#   DATA         folder of the pools          (default: data)
#   CLIP_RUNNER  a built clip-runner          (default: cargo builds it)
#   SWEEP_POOL   a built sweep-pool           (default: cargo builds it)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
export DATA=${DATA:-data}
if [ -z "${CLIP_RUNNER:-}" ] || [ -z "${SWEEP_POOL:-}" ]; then
  cargo build -p clip-runner -p pool
fi
CLIP_RUNNER=${CLIP_RUNNER:-$target/debug/clip-runner}
export SWEEP_POOL=${SWEEP_POOL:-$target/debug/sweep-pool}
[ -d "$DATA/emoji/train" ] || scripts/data.sh emoji
scripts/stamps.sh
venv=$(scripts/python-venv.sh)
"$venv/bin/python" runners/clip/bench/loader.py "$CLIP_RUNNER" "$DATA" "${1:-5}"
