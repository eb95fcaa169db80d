#!/usr/bin/env bash
# On a machine with a GPU, nvcc and PyTorch: builds the kernels, tests them, then measures them and a training of ViT-B-32 beside
# their peers. One command, meant to take under 10 minutes on one H100 with 16 cores. Tables go to standard output, to
# $OUT/RESULTS.md (losses) and to $OUT/TRAINING.md.
#
#   PARTS      what to do: tests, sanitizer, losses, training (default: all; always builds)
#   OUT        folder for tables and logs (default: gpu-out)
#   NVCC       the compiler (default: nvcc on PATH)
#   CUTLASS    CUTLASS's include folder (default: from gpu-carry/, which scripts/gpu/prepare.sh fills)
#   SIZES      B:D pairs to measure the losses at
#   MODEL      model to train (default: ViT-B-32)
#   BATCH      samples a step (default: 1024)
#   STEPS      steps that are timed (default: 200)
#   ROUNDS     rounds of all variants in turn (default: 1)
#   BUILD      folder of build output (default: gpu-build)
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${OUT:-gpu-out}" && cd "${OUT:-gpu-out}" && pwd)
build=$(mkdir -p "${BUILD:-gpu-build}" && cd "${BUILD:-gpu-build}" && pwd)
nvcc=$(command -v "${NVCC:-nvcc}") || { printf 'error: no nvcc\n\nhint: set NVCC, or make setup-cuda\n' >&2; exit 3; }
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
# Whether part $1 is to be done; what is asked for by name and can't be done, for want of $2, is an error.
wanted() {
  case " ${PARTS:-tests sanitizer losses training} " in *" $1 "*) ;; *) return 1 ;; esac
  [ "${2:-here}" = here ] && { step "$1"; return 0; }
  [ -z "${PARTS:-}" ] || { printf 'error: no part %s without %s\n' "$1" "$2" >&2; exit 3; }
  step "$1: left out, there is no $2"
  return 1
}
there() { if command -v "$1" >/dev/null; then echo here; else echo "$1"; fi; }
for part in ${PARTS:-}; do
  case $part in tests|sanitizer|losses|training) ;; *)
    printf 'error: no part is called %s; allowed: tests, sanitizer, losses, training\n' "$part" >&2
    exit 2 ;;
  esac
done

step "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$nvcc" --version | tail -n 2
python3 -c 'import torch; print("PyTorch", torch.__version__, "sees", torch.cuda.get_device_name())'
python3 -c 'import pytest, regex, torchvision' || {
  printf 'error: this PyTorch lacks what the peers need\n\nhint: pip install pytest regex torchvision\n' >&2
  exit 3
}
torch=$(python3 -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')

step "carried wheels"
site=$build/site
[ -d "$site" ] || [ ! -d gpu-carry/wheels ] ||
  python3 -m pip install --quiet --no-index --no-deps --target "$site" gpu-carry/wheels/*.whl
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
cutlass=${CUTLASS:-$site/cutlass_library/source/include}
[ -d "$cutlass" ] || { echo "CUTLASS is not there: the fused kernels for Hopper are left out"; cutlass=; }

step "build"
make --no-print-directory -C kernels/csrc OUT="$build/kernels" TORCH="$torch" NVCC="$nvcc" CUTLASS="$cutlass" -j"$(nproc)" all cuda \
  >"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log"; exit 1; }
export SWEEP_KERNELS_LIBRARY=$build/kernels/libsweep_kernels.so

failed=0
if wanted tests; then
  python3 -m pytest -q -p no:cacheprovider kernels/python 2>&1 | tee "$out/python-tests.log" | tail -n 15 || failed=1
  if [ -x gpu-carry/loss-tests ]; then
    LD_LIBRARY_PATH=$build/kernels:$torch/lib timeout 240 gpu-carry/loss-tests 2>&1 | tee "$out/loss-tests.log" | tail -n 25 || failed=1
  fi
fi

if wanted sanitizer "$(there compute-sanitizer)"; then
  for tool in memcheck racecheck; do
    timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 python3 kernels/python/smoke.py 2>&1 | tail -n 3 || failed=1
  done
fi

where="$(nvidia-smi --query-gpu=name --format=csv,noheader), driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader), $(date -u +%F)"
if wanted losses; then
  {
    echo "$where"
    for size in ${SIZES:-4096:768 16384:768 32768:512 32768:768 32768:1024 65536:512}; do
      timeout 60 python3 kernels/python/bench.py --device cuda --batch "${size%:*}" --depth "${size#*:}" --rounds 7 2>>"$out/bench.log" ||
        echo "(B:D = $size did not end: see bench.log)"
    done
  } | tee "$out/RESULTS.md"
fi

# Last, since it takes longest: what came before is on disk already.
export CLIP_RUNNER=$PWD/gpu-carry/clip-runner
if wanted training "$(there "$CLIP_RUNNER")"; then
  echo "clip-runner of commit $(cat gpu-carry/commit)"
  LD_LIBRARY_PATH=$build/kernels:$torch/lib timeout 120 gpu-carry/runner-tests --nocapture devices:: 2>&1 | tee "$out/runner-tests.log" || failed=1
  {
    echo "$where"
    LD_LIBRARY_PATH=$build/kernels:$torch/lib timeout 400 python3 runners/clip/bench/step.py --device cuda \
      --models "${MODEL:-ViT-B-32}" --batch "${BATCH:-1024}" --steps "${STEPS:-200}" --rounds "${ROUNDS:-1}" 2>"$out/training.log" ||
      { echo "(it did not end: see training.log)"; tail -n 20 "$out/training.log" >&2; false; }
  } | tee "$out/TRAINING.md" || failed=1
fi
step "done"
[ "$failed" = 0 ] || { echo "SOME CHECKS FAILED: see above and $out" >&2; exit 1; }
