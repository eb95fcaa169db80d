-- What an attempt was lost to, and on which node it was: each cause has a budget of its own, and broken nodes are avoided.

ALTER TABLE attempt
    ADD COLUMN lost_to text CHECK (lost_to IN ('preemption', 'node failure', 'out of memory', 'walltime', 'cancelled', 'unknown')),
    ADD COLUMN node    text;
COMMENT ON COLUMN attempt.lost_to IS 'What ended a lost attempt, as far as its backend knows. NULL: it was not lost, or by an older version.';
COMMENT ON COLUMN attempt.node IS 'Name of the machine that its worker ran on, as Slurm calls it where that started it. NULL: it is not known.';

CREATE INDEX attempt_by_node ON attempt (node, ended_at) WHERE node IS NOT NULL AND ended_at IS NOT NULL;

-- Attempts since the last that got further (left a checkpoint beyond where it began) count against the limits, all but
-- crashes, of which every one does: a long job is preempted and loses nodes as often as it takes.
DROP FUNCTION job_history;
CREATE FUNCTION job_history(of_job bigint, granted integer)
    RETURNS TABLE (crashes bigint, lost bigint, node_failures bigint, out_of_memory bigint, preempted bigint, stalled bigint,
                   no_space bigint, last_end_secs double precision, last_reason text)
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH counted AS MATERIALIZED (
        SELECT past.attempt_id, past.state, past.failure_kind, past.lost_to, past.reason, past.stop_requested, past.ended_at,
               EXISTS (SELECT FROM checkpoint c WHERE c.attempt_id = past.attempt_id
                       AND c.samples_seen > coalesce(past.resumed_from_samples, 0)) AS got_further
        FROM (SELECT a.*, row_number() OVER (ORDER BY a.attempt_id) AS nth FROM attempt a
              WHERE a.job_id = of_job AND a.ended_at IS NOT NULL) past
        WHERE past.nth > granted),
    marked AS (
        SELECT counted.*,
               counted.attempt_id > coalesce((SELECT max(attempt_id) FROM counted WHERE got_further), 0) AS in_vain,
               state = 'failed' AND coalesce(failure_kind, '') = 'crash' AND starts_with(coalesce(reason, ''), 'out of memory')
                   OR state = 'lost' AND coalesce(lost_to, '') = 'out of memory' AS for_memory
        FROM counted)
    SELECT count(*) FILTER (WHERE state = 'failed' AND failure_kind = 'crash' AND NOT for_memory),
           count(*) FILTER (WHERE in_vain AND state = 'lost' AND coalesce(lost_to, 'unknown') IN ('unknown', 'cancelled')),
           count(*) FILTER (WHERE in_vain AND state = 'lost' AND lost_to = 'node failure'),
           count(*) FILTER (WHERE in_vain AND for_memory),
           count(*) FILTER (WHERE in_vain AND (state = 'lost' AND lost_to = 'preemption'
                                               OR state = 'stopped' AND reason = 'asked to stop' AND NOT stop_requested)),
           count(*) FILTER (WHERE in_vain AND (state = 'lost' AND lost_to = 'walltime'
                                               OR state = 'stopped' AND reason IN ('time limit', 'the runner stopped itself'))),
           count(*) FILTER (WHERE state = 'stopped' AND starts_with(reason, 'no space left')),
           extract(epoch FROM max(ended_at))::float8,
           (array_agg(reason ORDER BY attempt_id DESC))[1]
    FROM marked
$$;
COMMENT ON FUNCTION job_history IS 'Attempts of a job that count against its limits: all crashes; since the last attempt that got further, those that were lost (worker killed or gone), lost to their node, to memory, to preemption (or stopped by a signal that nobody here sent), and stalled (walltime, time limit, stopped by the runner); those that ended for want of disk space; end and reason of the last.';
