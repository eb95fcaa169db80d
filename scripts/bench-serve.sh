#!/usr/bin/env bash
# How long `sweep serve` takes for each view of a store of 10,000 jobs and 11 million rows of curves, to the last byte over HTTP, and
# what storing the end of a job costs there. Tables on standard output.
#
#   scripts/bench-serve.sh SWEEP     SWEEP: the `sweep` binary
#   RUNS=15                          requests a view, one after another, of which the median is told
#   BENCH_STORE=FOLDER               keeps the store there for further runs: making it takes minutes and 3 GB
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
sweep=$(realpath "$1")
psql=$(scripts/pg-bin.sh)/psql
[ -x "$psql" ] || psql=$(command -v psql) || { echo "error: no psql: install postgresql-client" >&2; exit 3; }
if [ -n "${BENCH_STORE:-}" ]; then
    mkdir -p "$BENCH_STORE"
    work=$(realpath "$BENCH_STORE")
else
    work=$(mktemp -d "${TMPDIR:-/tmp}/sweep-bench-XXXXXX")
fi
chmod 755 "$work"
cd "$work"
serve=
end() {
    [ -z "$serve" ] || kill "$serve" 2>/dev/null || true
    (cd "$work" && "$sweep" db stop) >/dev/null 2>&1 || true
    [ -n "${BENCH_STORE:-}" ] || rm -rf "$work"
}
trap end EXIT
"$sweep" db start >/dev/null
url=$("$sweep" db url)
ask() { "$psql" --quiet --no-psqlrc --no-align --tuples-only --set=ON_ERROR_STOP=1 "$@" "$url"; }
if [ "$(ask --command="SELECT count(*) FROM sweep WHERE name = 'big'")" = 0 ]; then
    echo "making the store takes some minutes" >&2
    ask --file="$root/scripts/bench-serve.sql"
fi
# A sweep that runs has a launcher and workers that are heard of.
ask --command="UPDATE sweep SET launcher_seen_at = now() WHERE name = 'big'" \
    --command="UPDATE attempt SET heartbeat_at = now() WHERE state = 'running'"
"$sweep" serve --port 0 --json >address.json 2>serve.log &
serve=$!
for _ in $(seq 1 100); do
    grep -q '"url"' address.json 2>/dev/null && break
    kill -0 "$serve" || { cat serve.log >&2; exit 3; }
    sleep 0.1
done
postgres=$(head -n 1 "$(find "$work/.sweep/postgres" -name postmaster.pid | head -n 1)")
long=$(ask --command="SELECT j.job_key FROM job j JOIN attempt a USING (job_id) WHERE a.state = 'finished' ORDER BY a.attempt_id DESC LIMIT 1")
echo "$(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(date +%F), load $(cut -d' ' -f1 /proc/loadavg)"
echo
python3 "$root/scripts/bench-serve.py" address.json "$serve" "$postgres" "$long" "${RUNS:-15}"
echo
"$psql" --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --file="$root/scripts/bench-serve-ends.sql" "$url" 2>&1 >/dev/null | sed -n 's/^.*NOTICE: *//p'
# What was rolled back is cleared away for the next run.
[ -z "${BENCH_STORE:-}" ] || ask --command="VACUUM (FULL, ANALYZE) job, attempt, event, metric_batch" --command="VACUUM metric"
