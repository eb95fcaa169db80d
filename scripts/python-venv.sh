#!/usr/bin/env bash
# A Python environment with PyTorch whole (2.5 GB to download) and open_clip, for the Python face of the kernels and for
# benchmarks against Python peers; the product itself needs neither. Prints its folder.
#
#   SWEEP_PYTHON_VENV   the environment's folder (default: .venv-python)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${SWEEP_PYTHON_VENV:-.venv-python}
want=$(sha256sum <scripts/requirements-python.txt)
if [ "$(cat "$venv/.requirements.sha256" 2>/dev/null || true)" != "$want" ]; then
  echo "python: PyTorch 2.11.0 and open_clip 3.3.0 into $venv (2.5 GB to download, once)" >&2
  [ -x "$venv/bin/python" ] || python3 -m venv --without-pip "$venv"
  python3 -m pip --disable-pip-version-check --python "$venv/bin/python" install --quiet --no-warn-script-location \
    -r scripts/requirements-python.txt >&2 || {
    printf 'error: pip could not install scripts/requirements-python.txt\n\nhint: check the network and the free disk (6 GB), then run it again\n' >&2
    exit 3
  }
  printf '%s\n' "$want" >"$venv/.requirements.sha256"
fi
(cd "$venv" && pwd)
