#!/usr/bin/env bash
# Compiles libsweep_kernels_cuda.so and says what each kernel takes. It shows that the code compiles and links, no more.
#
#   SWEEP_VENV          where setup-cuda.sh put the compiler (default: .venv)
#   SWEEP_CUDA_HOPPER   0: without the Hopper kernels, which take minutes
#   SWEEP_CUDA_OUT      build folder (default: kernels-cuda in the target folder)
#   KERNELS_CACHE       a folder that keeps objects by content
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(cd "${SWEEP_VENV:-.venv}" && pwd)
out=${SWEEP_CUDA_OUT:-${CARGO_TARGET_DIR:-target}/kernels-cuda}
cutlass=$venv/cutlass
[ "${SWEEP_CUDA_HOPPER:-1}" != 0 ] && [ -d "$cutlass" ] || cutlass=

mkdir -p "$out"
make --no-print-directory -s -j1 -f kernels/csrc/cuda.mk cuda OUT="$out" NVCC="$venv/cuda/bin/nvcc" CUTLASS="$cutlass"

logs=("$out/cuda/panel.o.log")
[ -z "$cutlass" ] || logs+=("$out"/cuda/hopper{,_bf16_*,_fp16_*}.o.log)
# Of ptxas's report: how many kernels (a target each), their largest number of registers, and every spill.
awk '
    FNR == 1 { file = FILENAME; sub(/.*\//, "", file); sub(/\.o\.log$/, "", file) }
    /Compiling entry function/ { kernels[file]++ }
    / bytes spill stores/ { spills[file] += $5 + $9 }
    / Used [0-9]+ registers/ { if ($5 > registers[file]) registers[file] = $5 }
    END {
        for (f in kernels) {
            printf "%-22s %3d kernels, up to %3d registers, %d bytes spilled\n", f, kernels[f], registers[f], spills[f]
        }
    }
' "${logs[@]}" | sort

# What is missing must come from the main library, and nothing else.
missing=$(nm -D --undefined-only "$out/libsweep_kernels_cuda.so" |
    awk '$2 !~ /@|^_ITM|^__gmon|^__cxa_finalize/ { print $2 }')
[ "$missing" = sweep_register_cuda ] || {
    printf 'error: libsweep_kernels_cuda.so lacks: %s\n' "${missing//$'\n'/ }" >&2
    exit 1
}
sums=$out/cuda/hopper_bf16_sums.o
if [ -n "$cutlass" ]; then
    if command -v "$venv/cuda/bin/cuobjdump" >/dev/null && command -v "$venv/cuda/bin/nvdisasm" >/dev/null; then
        PATH=$venv/cuda/bin:$PATH "$venv/cuda/bin/cuobjdump" -sass "$sums" | grep -q HGMMA || {
            echo "error: the Hopper kernels do not use Hopper's tensor cores (no HGMMA in $sums)" >&2
            exit 1
        }
    fi
    echo "compiled for sm_80, sm_90 and sm_90a; NO GPU RAN HERE"
else
    echo "compiled for sm_80, sm_90 (not for sm_90a: no CUTLASS, or SWEEP_CUDA_HOPPER=0); NO GPU RAN HERE"
fi
