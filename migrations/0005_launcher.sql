-- Launchers read by need: what lives, and the next jobs in plan order. Which worker process and which machine an attempt is on.

ALTER TABLE attempt
    ADD COLUMN worker  text,
    ADD COLUMN machine text;
COMMENT ON COLUMN attempt.worker IS 'Token of the attempt that its worker process was started for, by which the backend knows the process: its own, unless a worker took several jobs one after another. NULL in rows of older versions: its own.';
COMMENT ON COLUMN attempt.machine IS 'Boot id and PID namespace of the host: two machines, boots or containers may have one host name. NULL: not known.';

-- A slot belongs to a machine: after a reboot, or in another container of the same name, slots are free. A worker that took
-- further jobs holds them all in its one slot.
DROP INDEX attempt_slot;
CREATE UNIQUE INDEX attempt_slot ON attempt (host, coalesce(machine, ''), slot)
    WHERE backend = 'local' AND state IN ('intent', 'launched', 'running') AND coalesce(worker, token) = token;

CREATE INDEX sweep_job_by_position ON sweep_job (sweep_id, position);
CREATE INDEX job_open ON job (job_id) WHERE state IN ('pending', 'running');

ALTER TABLE sweep ADD COLUMN launcher_seen_at timestamptz;
COMMENT ON COLUMN sweep.launcher_seen_at IS 'When a launcher last drove this sweep. Workers take further jobs of it only while that is recent.';

-- What became of a job's attempts, those before the last `sweep retry` left out. One row.
CREATE FUNCTION job_history(of_job bigint, granted integer)
    RETURNS TABLE (crashes bigint, lost bigint, stalled bigint, no_space bigint, last_end_secs double precision, last_reason text)
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT count(*) FILTER (WHERE counted.state = 'failed' AND counted.failure_kind = 'crash'),
           count(*) FILTER (WHERE counted.state = 'lost'),
           count(*) FILTER (WHERE counted.state = 'stopped' AND counted.reason IN ('time limit', 'the runner stopped itself')
                            AND counted.samples_seen <= coalesce(counted.resumed_from_samples, 0)),
           count(*) FILTER (WHERE counted.state = 'stopped' AND starts_with(counted.reason, 'no space left')),
           extract(epoch FROM max(counted.ended_at))::float8,
           (array_agg(counted.reason ORDER BY counted.attempt_id DESC))[1]
    FROM (SELECT past.*, row_number() OVER (ORDER BY past.attempt_id) AS nth FROM attempt past
          WHERE past.job_id = of_job AND past.ended_at IS NOT NULL) counted
    WHERE counted.nth > granted
$$;
COMMENT ON FUNCTION job_history IS 'Attempts of a job that count against its limits: crashes, lost, stalled (stopped unasked without getting further), ended for want of disk space; end and reason of the last.';

-- A spec takes more room than all else of a job. Out of line, jobs are counted and listed in a fraction of the reads, and a
-- change of state does not write the spec again.
ALTER TABLE job SET (toast_tuple_target = 256, fillfactor = 80);
ALTER TABLE attempt SET (fillfactor = 80);
