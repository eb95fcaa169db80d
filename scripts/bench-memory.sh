#!/usr/bin/env bash
# Peak memory of trainings on this CPU beside what `sweep plan` says of them, one table: scripts/bench-memory.sh
#
#   DATA          folder of the pools                  (default: data)
#   SWEEP         a built sweep, clip-runner beside it (default: cargo builds both)
#   SWEEP_POOL    a built sweep-pool                   (default: cargo builds it)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
export DATA=${DATA:-data}
if [ -z "${SWEEP:-}" ]; then
  cargo build -p sweep -p clip-runner -p pool
  SWEEP=$target/debug/sweep
fi
export SWEEP_POOL=${SWEEP_POOL:-$target/debug/sweep-pool}
[ -d "$DATA/emoji/train" ] || scripts/data.sh emoji
python3 runners/clip/bench/memory.py "$SWEEP" "$DATA/emoji/train"
