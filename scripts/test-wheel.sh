#!/usr/bin/env bash
# Installs the wheel into a new environment, away from the sources, and runs the losses' tests there: scripts/test-wheel.sh WHEEL
# PyTorch and open_clip are those of `make test-python` (2.5 GB): the environment sees that one's packages, and not ours.
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=$(realpath "$1")
whole=$(scripts/python-venv.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$whole/bin/python" -m venv --without-pip "$work/venv"
packages=$(echo "$work"/venv/lib/python3*/site-packages)
echo "$whole"/lib/python3*/site-packages >"$packages/torch-and-open-clip.pth"
python3 -m pip --disable-pip-version-check --python "$work/venv/bin/python" install --quiet --no-deps --no-index "$wheel"
cp kernels/python/test_sweep_kernels.py kernels/python/test_wheel.py "$work/"
cd "$work"
env -u SWEEP_KERNELS_LIBRARY -u PYTHONPATH SWEEP_KERNELS_WHEEL="$packages/sweep_kernels" \
    venv/bin/python -m pytest -q -p no:cacheprovider test_sweep_kernels.py test_wheel.py
