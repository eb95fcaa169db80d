"""What is true of the package as a wheel installs it (scripts/test-wheel.sh); from source there is nothing to test."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch

WHEEL = os.environ.get("SWEEP_KERNELS_WHEEL")
pytestmark = pytest.mark.skipif(WHEEL is None, reason="not installed from a wheel")


def test_the_library_is_the_wheels_own():
    import sweep_kernels
    assert pathlib.Path(sweep_kernels.__file__).parent == pathlib.Path(WHEEL)
    assert any(str(pathlib.Path(WHEEL) / "libsweep_kernels.so") in line for line in open("/proc/self/maps"))


def test_another_torch_is_refused_with_the_way_out(tmp_path):
    shutil.copytree(WHEEL, tmp_path / "sweep_kernels")
    (tmp_path / "sweep_kernels" / "TORCH").write_text("1.0.0\n")
    said = subprocess.run([sys.executable, "-c", "import sweep_kernels"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 1
    assert f"is for torch 1.0.0, and torch {torch.__version__} is installed: `pip install torch==1.0.0`" in said.stderr
