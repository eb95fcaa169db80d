#!/usr/bin/env bash
# run.sh FOLDER: builds the emulation there, with the address sanitizer, and runs it. Needs g++ and perl, no CUDA.
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
