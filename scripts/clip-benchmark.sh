#!/usr/bin/env bash
# Runs Python with CLIP_benchmark, PyTorch and open_clip; arguments are Python's:
#   scripts/clip-benchmark.sh -m pytest -q runners/clip/tests/clip_benchmark      make test-clip-benchmark
#
#   SWEEP_BENCHMARK_VENV   the environment's folder (default: .venv-clip-benchmark); it sees that of scripts/python-venv.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/python-venv.sh)
venv=${SWEEP_BENCHMARK_VENV:-.venv-clip-benchmark}
want=$(sha256sum <scripts/requirements-clip-benchmark.txt)
if [ "$(cat "$venv/.requirements.sha256" 2>/dev/null || true)" != "$want" ]; then
  echo "python: CLIP_benchmark 1.6.2 into $venv (70 MB to download, once)" >&2
  [ -x "$venv/bin/python" ] || "$python/bin/python" -m venv --without-pip "$venv"
  # Its own packages come first, so that its numpy hides the other one.
  echo "$python"/lib/python3*/site-packages >"$(echo "$venv"/lib/python3*/site-packages)/python-venv.pth"
  python3 -m pip --disable-pip-version-check --python "$venv/bin/python" install --quiet --no-warn-script-location --no-deps \
    --ignore-installed -r scripts/requirements-clip-benchmark.txt >&2 || {
    printf 'error: pip could not install scripts/requirements-clip-benchmark.txt\n\nhint: check the network, then run it again\n' >&2
    exit 3
  }
  printf '%s\n' "$want" >"$venv/.requirements.sha256"
fi
exec "$venv/bin/python" "$@"
