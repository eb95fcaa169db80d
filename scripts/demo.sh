#!/usr/bin/env bash
# The demo from a clean clone: what can be shown is shown as soon as it is there. libtorch is fetched while the first programs compile,
# pairs are packed and the study is planned before the trainer is built. Ctrl-C and start again as you like.
#   scripts/demo.sh FOLDER-OF-PROGRAMS
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$1
sweep=$programs/sweep
venv=${SWEEP_VENV:-.venv}
step() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)) >&2; }
data() { SWEEP_POOL=$programs/sweep-pool scripts/data.sh emoji; }

scripts/setup.sh --check && missing=0 || missing=$?
[ "$missing" -le 1 ] || exit "$missing"
if [ "$missing" = 0 ] && [ -x "$sweep" ]; then
    cargo build --workspace
    data
else
    # Its words come when it is done: until then those of a download and of the compiler would be one over the other.
    mkdir -p "$venv"
    log=$venv/setup.log
    TMPDIR=$(realpath "$venv") scripts/setup.sh >"$log" 2>&1 &
    fetching=$!
    trap 'pkill -P "$fetching"; kill "$fetching"' EXIT
    step "1 of 5: build the packer; meanwhile libtorch is fetched where it is missing (550 MB, words in $log)"
    cargo build --workspace --bin sweep-pool
    step "2 of 5: fetch and pack 5,200 emoji with their names"
    data
    step "3 of 5: build sweep, and plan the study"
    cargo build --workspace --bin sweep
    "$sweep" plan --without-runner experiments/emoji.yaml
    while kill -0 "$fetching" 2>/dev/null; do
        step "waiting for libtorch: $(du -sm "$venv" | cut -f 1) MB of about 2,000 are fetched or unpacked"
        sleep 10
    done
    trap - EXIT
    wait "$fetching" || {
        cat "$log" >&2
        exit 3
    }
    step "4 of 5: build the trainer on libtorch"
    cargo build --workspace
    step "5 of 5: train 24 models, fit, report"
fi
"$sweep" launch experiments/emoji.yaml
"$sweep" report emoji
cat >&2 <<EOF

Three things to try next:
  $sweep sql "SELECT model, samples_seen, data_size, train_loss, metrics FROM result WHERE sweep = 'emoji'"
  $sweep fit emoji --metric fluent-emoji-flat/image_retrieval_recall@5 --points pareto
  $sweep plan experiments/icons.yaml
EOF
