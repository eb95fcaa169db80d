#!/usr/bin/env bash
# Fetches what scripts/gpu/check.sh needs on a machine without a package index, into gpu-carry/ (git ignores it): CUTLASS's
# headers and the wheels of the peers; with a libtorch set up here (make setup), the Rust tests and clip-runner as binaries too.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p gpu-carry/wheels
python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest gpu-carry/wheels --require-hashes \
  -r scripts/gpu/requirements.txt
if [ -n "${LIBTORCH:-}" ] || [ -d "${SWEEP_VENV:-.venv}/libtorch" ]; then
  export LIBTORCH=${LIBTORCH:-$(cd "${SWEEP_VENV:-.venv}" && pwd)/libtorch}
  binary=$(cargo test --quiet -p kernels --features torch --test loss --no-run --message-format=json |
    python3 -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])')
  objcopy --strip-debug "$binary" gpu-carry/loss-tests
  # The tests start the runner, so building them builds both.
  cargo test --quiet -p clip-runner --test it --no-run --message-format=json |
    python3 -c 'import json, sys; [print(m["target"]["name"], m["executable"]) for m in map(json.loads, sys.stdin) if m.get("executable")]' |
    while read -r name binary; do
      case $name in it) name=runner-tests ;; clip-runner) ;; *) continue ;; esac
      objcopy --strip-debug "$binary" "gpu-carry/$name"
    done
  git describe --always --dirty >gpu-carry/commit
fi
du -sh gpu-carry
