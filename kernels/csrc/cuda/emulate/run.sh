#!/usr/bin/env bash
# run.sh FOLDER [CUTLASS CUDA]: builds the emulation there, with the address sanitizer, and runs it. Needs g++ and perl,
# no CUDA. Given CUTLASS's include folder and a CUDA home (make setup-cuda), Hopper's epilogues are emulated too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
mkdir -p "$out"
# A launch, kernel<<<...>>>(...), is the one thing that is not C++.
for name in panel hopper; do
    { printf '#line 1 "%s"\n' "$here/../$name.cu"; cat "$here/../$name.cu"; } |
        perl -0pe 's/(\w+)<<<([^;]*?)>>>\(([^;]*?)\);/emulate::launch($2, [=] { $1($3); });/gs' >"$out/$name.cpp"
done
"${CXX:-g++}" -std=c++17 -O1 -g -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined -I"$here" -I"$here/.." \
    "$out/panel.cpp" "$out/hopper.cpp" "$here/test.cpp" -o "$out/test"
ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0 "$out/test"
[ $# -ge 3 ] || exit 0
# CUTLASS's headers name CUDA's functions without declaring them. No sanitizer: they read two halves as one word.
"${CXX:-g++}" -std=c++17 -O1 -w -fpermissive -isystem "$2" -isystem "$3/include" -isystem "$3/include/cccl" \
    "$here/epilogue.cpp" -L"$3/lib64" -lcudart -Wl,-rpath,"$3/lib64" -o "$out/epilogue"
"$out/epilogue"
