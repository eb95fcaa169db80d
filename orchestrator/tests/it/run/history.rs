//! What of a job's past counts against its limits: the SQL function `job_history`.

use super::bench::Bench;

const ONE_JOB: &str = "\
name: one
runner: synthetic
grid: {model: cpu-w32-l2, samples_seen: 640, data_size: 500}
recipe: {global_batch: 64}
backend: {local: {slots: 1, threads_per_slot: 1}}
";

/// Ended attempts, one of each kind, that got no further.
const IN_VAIN: &str = "
    INSERT INTO attempt (job_id, token, state, backend, folder, failure_kind, lost_to, reason, stop_requested, ended_at)
    SELECT job_id, concat('v', row_number() OVER ()), past.state, 'slurm', '/nowhere', kind, lost_to, past.reason, asked, now()
    FROM job, (VALUES
        ('failed', 'crash', NULL, 'boom', false),
        ('failed', 'crash', NULL, 'out of memory: the runner was killed by SIGKILL', false),
        ('lost', NULL, NULL, 'of an older version', false),
        ('lost', NULL, 'unknown', 'gone', false),
        ('lost', NULL, 'node failure', 'NODE_FAIL', false),
        ('lost', NULL, 'out of memory', 'OUT_OF_MEMORY', false),
        ('lost', NULL, 'preemption', 'PREEMPTED', false),
        ('stopped', NULL, NULL, 'asked to stop', false),
        ('stopped', NULL, NULL, 'asked to stop', true),
        ('lost', NULL, 'walltime', 'TIMEOUT', false),
        ('stopped', NULL, NULL, 'time limit', false),
        ('stopped', NULL, NULL, 'no space left on the disk: x', false)) AS past (state, kind, lost_to, reason, asked)
    RETURNING token";

/// One more that was lost, and left a checkpoint.
const FURTHER: &str = "
    WITH made AS (
        INSERT INTO attempt (job_id, token, state, backend, folder, resumed_from_samples, lost_to, ended_at)
        SELECT job_id, 'further', 'lost', 'slurm', '/nowhere', 64, 'node failure', now() FROM job RETURNING attempt_id)
    INSERT INTO checkpoint (attempt_id, samples_seen, step, path, sha256)
    SELECT attempt_id, 128, 2, '/nowhere', '' FROM made RETURNING path";

const HISTORY: &str = "
    SELECT concat_ws(' ', crashes, lost, node_failures, out_of_memory, preempted, stalled, no_space, last_reason)
    FROM job, job_history(job_id, retries_granted)";

#[test]
fn each_cause_is_counted_since_the_last_attempt_that_got_further() {
    let bench = Bench::new(ONE_JOB);
    bench.finish();
    bench.ask("DELETE FROM attempt RETURNING token");
    assert_eq!(bench.ask(IN_VAIN).len(), 12);
    assert_eq!(bench.ask(HISTORY), ["1 2 1 2 2 2 1 no space left on the disk: x"]);
    // A checkpoint beyond where it began: losses are forgiven, crashes are not.
    assert_eq!(bench.ask(FURTHER).len(), 1);
    assert_eq!(bench.ask(HISTORY), ["1 0 0 0 0 0 1"]);
    // `sweep retry` forgives all.
    bench.ask("UPDATE job SET retries_granted = 13 RETURNING job_key");
    assert_eq!(bench.ask(HISTORY), ["0 0 0 0 0 0 0"]);
}
