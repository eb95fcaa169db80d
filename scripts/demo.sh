#!/usr/bin/env bash
# The demo after the build: run what is not done, fit, report. Ctrl-C and start again as you like.
set -euo pipefail
sweep=$1
"$sweep" launch experiments/emoji.yaml
"$sweep" report emoji
cat >&2 <<EOF

Three things to try next:
  $sweep sql "SELECT model, samples_seen, data_size, train_loss, metrics FROM result WHERE sweep = 'emoji'"
  $sweep fit emoji --metric fluent-emoji-flat/image_retrieval_recall@5 --points pareto
  $sweep plan experiments/icons.yaml
EOF
