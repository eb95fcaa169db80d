#!/usr/bin/env bash
# How fast jobs are planned, stored, started and told of, on this machine, beside HyperQueue's rate of `/bin/true` in the same
# run. One table on standard output.
#
#   scripts/bench-orchestrator.sh SWEEP      SWEEP: the `sweep` binary, with `sweep-worker` and `synthetic-runner` beside it
#   JOBS=400 CELLS=100000 WATCH_SECS=30      sizes
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
sweep=$(realpath "$1")
make_venv HyperQueue
(install scripts/requirements-hyperqueue.txt bench-orchestrator) || say "HyperQueue is left out"
jobs=${JOBS:-400} cells=${CELLS:-100000} watch=${WATCH_SECS:-30}
# A test says it: it has the rows of a thousand workers that a machine can't run.
live=$(SWEEP_MANY_SECS=60 cargo test --workspace --test it a_thousand_live_attempts -- --nocapture 2>&1 |
    sed -n 's/^launcher of 1000 live attempts: \(.*\) % of a core.*/\1/p')
work=$(mktemp -d "${TMPDIR:-/tmp}/sweep-bench-XXXXXX")
chmod 755 "$work"
end() {
    (cd "$work" && "$sweep" db stop) >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap end EXIT
row() { printf '| %-58s | %12s |\n' "$1" "$2"; }
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{printf "%.2f", $1 - $2}'; }

spec() { # NAME SEEDS RUNNER WORKER_TIME EXTRA SHIP
    printf 'name: %s\nrunner: %s\ngrid: {model: cpu-w32-l2, samples_seen: 64, data_size: 500, seed: [%s]}\n' \
        "$1" "$3" "$(seq -s, 1 "$2")"
    printf 'recipe: {global_batch: 64%s}\nbackend: {local: {slots: %s, threads_per_slot: 1, worker_time: %s, ship: %s}}\n' \
        "${5:-}" "$(nproc)" "$4" "${6:-database}"
}
synthetic=$(dirname "$sweep")/synthetic-runner
# Jobs that say that they started and finished, and nothing else: what is measured is the machinery. What differs is part of a
# job's name, so that no two sweeps share jobs.
nothing() { printf ', extra: {nothing: %s}' "$1"; }
cat >"$work/plain.sh" <<R
#!/bin/sh
# The same runner without \`serve\`: a process a job.
[ "\$1" != describe ] || { "$synthetic" describe | sed 's/,"serve":true//'; exit; }
exec "$synthetic" "\$@"
R
chmod +x "$work/plain.sh"
cat >"$work/chatty.sh" <<'R'
#!/bin/sh
# Says 200,000 steps with two metrics each as fast as it can.
[ "$1" != describe ] || {
    echo '{"name": "chatty", "version": "1", "protocol": 1, "reads_data": false, "devices": ["cpu"]}'
    exit 0
}
echo '{"event":"started","parameters":191873,"resumed_from_samples":0,"device":"sh"}'
seq 1 200000 | awk '{printf "{\"event\":\"step\",\"step\":%d,\"samples_seen\":%d,\"loss\":1.5,\"metrics\":{\"lr\":0.001}}\n", $1, $1 * 64}'
echo '{"event":"finished","samples_seen":12800000,"train_secs":1,"eval_secs":0}'
R
chmod +x "$work/chatty.sh"
cat >"$work/chatty.yaml" <<'R'
name: chatty
runner: ./chatty.sh
grid: {model: cpu-w32-l2, samples_seen: 12800000, data_size: 500}
recipe: {global_batch: 64}
backend: {local: {slots: 1, threads_per_slot: 1}}
R
spec workers "$jobs" "$synthetic" 0s "$(nothing 1)" >"$work/workers.yaml"
spec spooled "$jobs" "$synthetic" 0s "$(nothing 5)" spool >"$work/spooled.yaml"
spec runners "$((5 * jobs))" ./plain.sh 1m "$(nothing 2)" >"$work/runners.yaml"
spec serve "$((10 * jobs))" "$synthetic" 1m "$(nothing 3)" >"$work/serve.yaml"
spec stored "$((5 * jobs))" "$synthetic" 1m >"$work/stored.yaml"
spec big "$cells" "$synthetic" 1m "$(nothing 4)" >"$work/big.yaml"
spec cells 13600 "$synthetic" 1m >"$work/cells.yaml"
cd "$work"
ask() { "$sweep" sql --format csv "$1" | tail -n 1; }

echo "$(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(date +%F)"
echo
row "what" "measured"
row "---" "---:"
begun=$(now)
"$sweep" plan cells.yaml >/dev/null 2>&1
row "plan 13,600 cells, s" "$(since "$begun")"
begun=$(now)
"$sweep" plan big.yaml >/dev/null 2>&1
row "plan $cells cells, s" "$(since "$begun")"
"$sweep" db start 2>/dev/null
rate() { # NAME WHAT
    "$sweep" launch "$1.yaml" 2>/dev/null
    row "$2" "$(ask "SELECT round(count(*) / extract(epoch FROM max(ended_at) - min(a.created_at)), 1)
        FROM attempt a JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id) WHERE s.name = '$1'")"
}
rate workers "jobs/s that do nothing: a worker and a runner process a job"
rate spooled "the same, workers without a database (ship: spool)"
rate runners "the same, workers that go on, a runner process a job"
rate serve "the same, workers that go on, runners that serve"
rate stored "jobs/s with curve, evaluation, checkpoint: runners that serve"
"$sweep" launch chatty.yaml 2>/dev/null
row "metric rows/s through one worker" "$(ask "SELECT round(m.n / extract(epoch FROM a.ended_at - a.claimed_at)) FROM
    (SELECT attempt_id, count(*) AS n FROM metric GROUP BY 1 ORDER BY 2 DESC LIMIT 1) m JOIN attempt a USING (attempt_id)")"

row "launcher of 1,000 live attempts on Slurm, % of a core" "${live:-not had}"
begun=$(now)
"$sweep" launch big.yaml 2>launch.log &
launch=$!
until [ "$(ask "SELECT count(*) FROM job j JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id)
               WHERE s.name = 'big' AND j.state = 'done' AND done_at > s.created_at" 2>/dev/null || echo 0)" -gt 0 ]; do
    kill -0 "$launch" || { cat launch.log >&2; exit 1; }
    sleep 0.1
done
row "first of $cells new jobs done after, s (planned, stored, run)" "$(since "$begun")"
row "first of $cells jobs started after storing begins, s" "$(ask "SELECT round(extract(epoch FROM min(a.claimed_at) - s.updated_at)::numeric, 2)
    FROM attempt a JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id) WHERE s.name = 'big' GROUP BY s.updated_at")"
for _ in $(seq 1 "$watch"); do
    begun=$(now)
    "$sweep" status big --limit 50 >/dev/null 2>&1
    since "$begun" >>status.times
    echo >>status.times
    sleep 0.5
done
row "\`status big\` meanwhile, median, s" "$(sort -n status.times | awk '{t[NR] = $1} END {print t[int((NR + 1) / 2)]}')"
row "\`status big\` meanwhile, longest of $watch, s" "$(sort -n status.times | tail -n 1)"
row "jobs/s of $cells meanwhile" "$(ask "SELECT round(count(*) / extract(epoch FROM max(ended_at) - min(ended_at)), 1)
    FROM attempt JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id) WHERE s.name = 'big' AND ended_at > s.created_at")"
row "launcher, largest resident memory, MB" "$(awk '/VmHWM/ {printf "%.0f", $2 / 1024}' "/proc/$launch/status")"
kill -TERM "$launch"
wait "$launch" || true

if installed scripts/requirements-hyperqueue.txt; then
    "$venv/bin/python" - "$(nproc)" >hyperqueue 2>/dev/null <<'P'
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

TASKS = 2000
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=int(sys.argv[1])))
    client = cluster.client()
    job = Job()
    for _ in range(TASKS):
        job.program(["/bin/true"])
    begun = time.monotonic()
    client.wait_for_jobs([client.submit(job)])
    print(f"{TASKS / (time.monotonic() - begun):.0f}")
P
    row "HyperQueue 0.27.0: /bin/true tasks/s, nothing kept on disk" "$(tail -n 1 hyperqueue)"
else
    row "HyperQueue" "not had"
fi
