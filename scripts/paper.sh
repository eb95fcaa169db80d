#!/usr/bin/env bash
# `make paper`: the figures and tables of the 2022 study (Cherti et al., arXiv 2212.07143) from its published data.
#   scripts/paper.sh SWEEP [DIR] [OUT]
# SWEEP: the program. DIR: the CSVs of LAION-AI/scaling-laws-openclip [PAPER_DATA, or ../shared/data/scaling-laws-openclip].
# OUT: where to write [reports/openclip-2022]. Works in a private database of its own below OUT, which is gone afterwards.
set -euo pipefail

sweep=$(realpath "${1:?the sweep program is wanted: scripts/paper.sh SWEEP [DIR] [OUT]}")
data=${2:-${PAPER_DATA:-../shared/data/scaling-laws-openclip}}
out=${3:-reports/openclip-2022}

if [ ! -f "$data/zeroshot_results.csv" ]; then
    echo "error: the data of the 2022 study are not at $data (no zeroshot_results.csv there)" >&2
    printf '\nhint: git clone https://github.com/LAION-AI/scaling-laws-openclip, then PAPER_DATA=scaling-laws-openclip make paper\n' >&2
    exit 2
fi
data=$(realpath "$data")
mkdir -p "$out/tables"
out=$(realpath "$out")

# A database of its own: what else this project holds stays as it is. Short, for the socket's path; open, for a server
# that runs as another user.
work=$(mktemp -d /tmp/sweep-paper-XXXXXX)
chmod 755 "$work"
cd "$work"
unset DATABASE_URL
export SWEEP_HOME="$work/.sweep"
finish() {
    "$sweep" db stop >/dev/null 2>&1 || true
    cd /
    rm -rf "$work"
}
trap finish EXIT

say() { echo "paper: $1" >&2; }
# Only what goes wrong is worth reading: the study's inconsistencies are told by `sweep import` itself.
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

imagenet=imagenet1k/acc1
coco=mscoco_captions/image_retrieval_recall@5
ours=openclip-2022
theirs=openclip-2022-openai
models="ViT-B-32 ViT-B-16 ViT-L-14 ViT-H-14 ViT-g-14 ViT-G-14"
# Samples seen as the study counts them (figures.ipynb, forecast cell): 1e9, 32 epochs of LAION-80M and of LAION-400M, 84 of
# LAION-400M, and twice that.
samples="1B:1000000000 3B:2560013280 13B:13034626688 34B:34215895056 68B:68431790112"

say "import"
quietly "$sweep" import openclip-2022 "$data"

say "tables/runs.csv"
query="SELECT model, pool AS data, samples_seen, gmacs_samples, round(gpu_hours)::bigint AS gpu_hours,
    (metrics->>'$imagenet')::float8 AS imagenet_acc1, (metrics->>'$coco')::float8 AS coco_image_recall_at_5
    FROM result WHERE sweep = '$ours'
    UNION ALL SELECT 'total', NULL, NULL, NULL, round(sum(gpu_hours))::bigint, NULL, NULL FROM result WHERE sweep = '$ours'
    ORDER BY gmacs_samples NULLS LAST"
quietly "$sweep" sql "$query" -o "$out/tables/runs.csv"

# One metric a task: accuracy, the two recalls, mean average precision where several labels are right.
say "tables/fits.csv: every task and metric by the study's own rule, bins:5"
"$sweep" sql -f csv "SELECT DISTINCT dataset, metric FROM observation WHERE sweep = '$ours' AND dataset <> 'vtab-probe'
    AND metric IN ('acc1', 'image_retrieval_recall@5', 'text_retrieval_recall@5', 'mean_average_precision')
    AND (metric <> 'acc1' OR dataset <> 'voc2007_multilabel') ORDER BY 1, 2" | tail -n +2 >"$work/metrics"
while IFS=, read -r dataset metric; do
    # Exit code 1 is a verdict, which the table names.
    "$sweep" fit "$ours" --metric "$dataset/$metric" --points bins:5 >/dev/null 2>"$work/log" || [ $? -eq 1 ] ||
        { cat "$work/log" >&2; exit 1; }
done <"$work/metrics"
number="(parameters->'%s'->>'%s')::float8"
column() { printf "$number AS %s" "$1" "$2" "$3"; }
query="SELECT dataset, metric, $(column alpha value alpha), $(column alpha low alpha_low), $(column alpha high alpha_high),
    $(column beta value beta), $(column beta low beta_low), $(column beta high beta_high), r2, verdict
    FROM fit JOIN sweep USING (sweep_id) WHERE name = '$ours' AND points = 'bins:5' AND law_name = 'power'
    ORDER BY dataset, metric"
quietly "$sweep" sql "$query" -o "$out/tables/fits.csv"

say "index.html: laws, comparison, forecasts, choice of points"
forecasts=()
for model in $models; do
    for seen in $samples; do
        [ "$model:$seen" = ViT-G-14:68B:68431790112 ] || forecasts+=(--forecast "$model:${seen#*:}")
    done
done
# The figures forecast the first job named: the study's largest.
"$sweep" report "$ours" -o "$out" --metric "$imagenet" --metric "$coco" --points bins:5 --against "$theirs" \
    --forecast ViT-G-14:68431790112 "${forecasts[@]}" >/dev/null

say "tables/forecasts.csv"
echo "metric,model,samples,forecast,law_low,law_high,run_low,run_high" >"$out/tables/forecasts.csv"
for metric in "$imagenet" "$coco"; do
    for model in $models; do
        for seen in $samples; do
            "$sweep" forecast "$ours" --metric "$metric" --points bins:5 --model "$model" --samples "${seen#*:}" |
                awk -v head="$metric,$model,${seen%%:*}" '
                    { text = $0 }
                    text ~ /^(law|one job) .* % \[/ {
                        match(text, /[0-9.]+ % \[[0-9.-]+, [0-9.-]+\]/)
                        split(substr(text, RSTART, RLENGTH), part, /[^0-9.-]+/)
                        if (text ~ /^law/) { value = part[1]; law = part[2] "," part[3] } else { run = part[2] "," part[3] }
                    }
                    END { print head "," value "," law "," run }' >>"$out/tables/forecasts.csv"
        done
    done
done

say "plots: SVG and PNG"
target=(--model ViT-G-14 --samples 68431790112)
quietly "$sweep" plot "$ours" comparison --metric "$imagenet" --also "$coco" --points bins:5 --against "$theirs" -o "$out/plots"
plots() {
    local name=$1 metric=$2 published=$3
    quietly "$sweep" plot "$ours" law policies residuals profile pairs backtest --metric "$metric" --points bins:5 \
        "${target[@]}" --reference "$published:published" -o "$out/plots/$name"
    quietly "$sweep" plot "$ours" law residuals frontier models budget --metric "$metric" --law additive "${target[@]}" \
        -o "$out/plots/$name-additive"
}
plots imagenet "$imagenet" 81.92
plots coco "$coco" 76.99

say "tables/README.md"
markdown() { awk -F, 'NR == 1 { rule = $0; gsub(/[^,]+/, "---", rule); gsub(/,/, " | ", rule) }
    { line = $0; gsub(/,/, " | ", line); print "| " line " |" } NR == 1 { print "| " rule " |" }' "$1"; }
{
    echo "# Tables of the 2022 study"
    echo
    echo "From its published data by \`make paper\`. Intervals are 95 %, of a bootstrap by run that chooses points anew."
    printf '\n## Runs, with A100 GPU-hours\n\n'
    markdown "$out/tables/runs.csv"
    printf '\n## Laws E = beta C^alpha by the rule of the study (bins:5)\n\n'
    markdown "$out/tables/fits.csv"
    printf '\nNot scaling, or the wrong way:\n\n'
    awk -F, 'NR > 1 && $NF != "scaling" { print "- " $1 "/" $2 ": " $NF ", alpha " $3 " [" $4 ", " $5 "]" }' "$out/tables/fits.csv"
    printf '\n## Forecasts by these laws, in %%\n\n'
    markdown "$out/tables/forecasts.csv"
} >"$out/tables/README.md"

total=$(awk -F, '$1 == "total" { print $5 }' "$out/tables/runs.csv")
say "29 runs, $total A100 GPU-hours; $(($(wc -l <"$out/tables/fits.csv") - 1)) laws"
echo "$out/index.html"
