-- How far a large sweep is, as its launcher counted last. Counting a hundred thousand jobs takes a core for a moment; the launcher
-- does it anyway.

CREATE TABLE sweep_totals (
    sweep_id   bigint PRIMARY KEY REFERENCES sweep ON DELETE CASCADE,
    pending    bigint NOT NULL,
    running    bigint NOT NULL,
    done       bigint NOT NULL,
    failed     bigint NOT NULL,
    cancelled  bigint NOT NULL,
    counted_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE sweep_totals IS 'Jobs by state of sweeps of more than 10,000 jobs, as their launchers counted last. The view sweep_progress uses them while they are fresh.';

CREATE VIEW sweep_progress AS
SELECT s.sweep_id, s.name AS sweep, s.question, n.pending, n.running, n.done, n.failed, n.cancelled,
       coalesce(extract(epoch FROM clock_timestamp() - t.counted_at), 0)::float8 AS counted_secs_ago
FROM sweep s
LEFT JOIN sweep_totals t
       ON t.sweep_id = s.sweep_id AND t.counted_at BETWEEN clock_timestamp() - interval '5 s' AND clock_timestamp()
CROSS JOIN LATERAL (
    SELECT t.pending, t.running, t.done, t.failed, t.cancelled WHERE t.sweep_id IS NOT NULL
    UNION ALL
    SELECT count(*) FILTER (WHERE j.state = 'pending'), count(*) FILTER (WHERE j.state = 'running'),
           count(*) FILTER (WHERE j.state = 'done'), count(*) FILTER (WHERE j.state = 'failed'),
           count(*) FILTER (WHERE j.state = 'cancelled')
    FROM sweep_job sj JOIN job j USING (job_id) WHERE sj.sweep_id = s.sweep_id
    HAVING t.sweep_id IS NULL) n;
COMMENT ON VIEW sweep_progress IS 'Jobs of each sweep by state: counted now, or by the launcher of a large sweep within the last five seconds.';
COMMENT ON COLUMN sweep_progress.sweep_id IS 'Row of the sweep.';
COMMENT ON COLUMN sweep_progress.sweep IS 'Name of the sweep.';
COMMENT ON COLUMN sweep_progress.question IS 'What it is to answer.';
COMMENT ON COLUMN sweep_progress.pending IS 'Jobs that wait.';
COMMENT ON COLUMN sweep_progress.running IS 'Jobs claimed by a worker.';
COMMENT ON COLUMN sweep_progress.done IS 'Jobs whose result is stored.';
COMMENT ON COLUMN sweep_progress.failed IS 'Jobs given up.';
COMMENT ON COLUMN sweep_progress.cancelled IS 'Jobs cancelled by request.';
COMMENT ON COLUMN sweep_progress.counted_secs_ago IS 'Age of the counts, seconds; 0: counted now.';
