#!/usr/bin/env bash
# cached.sh OUTPUT SOURCE COMPILER ARGUMENT...: compiles SOURCE to OUTPUT; what the compiler says goes to OUTPUT.log,
# and is shown if it fails. With KERNELS_CACHE set to a folder, an object made before from the same source, headers,
# compiler and flags is copied instead: the Hopper kernels take minutes.
set -euo pipefail
output=$1 source=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

key() { # flags without file names, so that the same sources in another clone are the same
    local word
    for word in "$@"; do
        case $word in
        "$1" | "$output" | "$source" | -I* | /*) ;;
        *) printf '%s\n' "$word" ;;
        esac
    done
    printf '%s\n' "${KERNELS_CACHE_KEY:-}"
    "$1" --version
    sha256sum <"$source"
    (cd "$here" && LC_ALL=C sha256sum -- *.h cuda/*.h cuda/*.cuh)
}

entry=
if [ -n "${KERNELS_CACHE:-}" ]; then
    entry=$KERNELS_CACHE/$(basename "$output")-$(key "$@" | sha256sum | cut -d ' ' -f 1)
    if [ -f "$entry" ]; then
        cp "$entry.log" "$output.log"
        cp "$entry" "$output"
        exit
    fi
fi
"$@" >"$output.log" 2>&1 || {
    cat "$output.log" >&2
    rm -f "$output"
    exit 1
}
[ -z "$entry" ] || {
    mkdir -p "$KERNELS_CACHE"
    cp "$output.log" "$entry.log"
    cp "$output" "$entry.$$"
    mv "$entry.$$" "$entry"
}
