#!/usr/bin/env bash
# Fuzzes the readers of bytes that others wrote, one after another. What is found is a file in fuzz/artifacts/TARGET.
#   FUZZ_SECS       seconds for each target (60)
#   FUZZ_TARGETS    which (event shard spec table weights)
#   FUZZ_SANITIZER  address, or none: builds faster and finds what panics or hangs (address)
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-fuzz >/dev/null; then
  echo "fuzz: cargo-fuzz is not installed: run \`cargo install cargo-fuzz\`" >&2
  exit 3
fi
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzz: there is no nightly compiler, which libFuzzer needs: run \`rustup toolchain install nightly\`" >&2
  exit 3
fi

for target in ${FUZZ_TARGETS:-event shard spec table weights}; do
  corpus="fuzz/corpus/$target"
  mkdir -p "$corpus"
  case "$target" in
  spec) cp orchestrator/src/spec/template.yaml experiments/*.yaml "$corpus/" ;;
  event) sed -n '/^{"event"/p' runners/protocol/README.md >"$corpus/readme" ;;
  table) printf 'n,loss,acc,group\n1e6,2.5,0.5,a\n' >"$corpus/plain" ;;
  shard)
    folder="$(mktemp -d)"
    printf 'words' >"$folder/0.txt"
    printf '\377\330\377\340 and so on' >"$folder/0.jpg"
    tar --format=pax -C "$folder" -cf "$corpus/pax" 0.jpg 0.txt
    tar --format=gnu -C "$folder" -cf "$corpus/gnu" 0.jpg 0.txt
    rm -r "$folder"
    ;;
  weights)
    cp runners/clip/tests/weights.pt "$corpus/torch"
    printf '\065\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}1234' >"$corpus/safetensors"
    ;;
  *)
    echo "fuzz: there is no target $target; there are event, shard, spec, table and weights" >&2
    exit 2
    ;;
  esac
  # It needs no data frames and no database's client, which take long to instrument.
  features=()
  case "$target" in shard | weights) features=(--no-default-features) ;; esac
  (
    cd fuzz
    cargo +nightly fuzz run "${features[@]}" --sanitizer "${FUZZ_SANITIZER:-address}" "$target" "corpus/$target" -- \
      -max_total_time="${FUZZ_SECS:-60}" -timeout=10 -rss_limit_mb=4096 -max_len=16384
  )
done
