-- Jobs that go on from another job's checkpoint: cells of a constant-cooldown schedule and the trunk that they share.

ALTER TABLE job
    ADD COLUMN parent         bigint REFERENCES job (job_id) ON DELETE SET NULL,
    ADD COLUMN parent_samples bigint NOT NULL DEFAULT 0 CHECK (parent_samples >= 0 AND parent_samples <= coalesce(samples_seen, 0));
CREATE INDEX job_by_parent ON job (parent) WHERE parent IS NOT NULL;
COMMENT ON COLUMN job.parent IS 'The job whose last checkpoint it goes on from, and which it waits for; NULL: it begins at the beginning. Changes no result: trained alone it would be the same.';
COMMENT ON COLUMN job.parent_samples IS 'Samples of samples_seen that its parent trains on; 0 without one.';

CREATE VIEW lineage AS
WITH RECURSIVE up (job_id, part, parent, from_samples, to_samples) AS (
    SELECT j.job_id, j.job_id, j.parent, j.parent_samples, j.samples_seen FROM job j WHERE j.parent IS NOT NULL
    UNION ALL
    SELECT up.job_id, p.job_id, p.parent, p.parent_samples, up.from_samples FROM up JOIN job p ON p.job_id = up.parent)
SELECT j.job_key, part.job_key AS part_key, up.from_samples, up.to_samples
FROM up JOIN job j ON j.job_id = up.job_id JOIN job part ON part.job_id = up.part;
COMMENT ON VIEW lineage IS 'Which job trained which part of each job that has a parent: one row a job and part.';
COMMENT ON COLUMN lineage.job_key IS 'The job.';
COMMENT ON COLUMN lineage.part_key IS 'The job that trained the part: itself, its parent, and so on.';
COMMENT ON COLUMN lineage.from_samples IS 'Samples seen where the part begins.';
COMMENT ON COLUMN lineage.to_samples IS 'Samples seen where it ends.';

CREATE VIEW branch AS
SELECT sj.sweep_id, j.parent AS trunk, j.job_id FROM job j JOIN sweep_job sj USING (job_id) WHERE j.parent IS NOT NULL;
COMMENT ON VIEW branch IS 'Jobs of a sweep that go on from another job: one row a sweep and job. The other one is a trunk of that sweep.';
COMMENT ON COLUMN branch.sweep_id IS 'The sweep.';
COMMENT ON COLUMN branch.trunk IS 'The job that it goes on from.';
COMMENT ON COLUMN branch.job_id IS 'The job.';

-- A checkpoint counts as other rows of its attempt do.
CREATE VIEW checkpoint_current AS
SELECT a.job_id, c.attempt_id, a.fence, c.samples_seen, c.step, c.path, c.sha256
FROM checkpoint c
JOIN attempt_current a USING (attempt_id)
WHERE a.superseded_after_samples IS NULL OR c.samples_seen <= a.superseded_after_samples;
COMMENT ON VIEW checkpoint_current IS 'Checkpoints without those of which a later attempt did the same part again. Where attempts meet, both may have one: the later has the higher fence.';
COMMENT ON COLUMN checkpoint_current.job_id IS 'The job.';
COMMENT ON COLUMN checkpoint_current.attempt_id IS 'The attempt that wrote it.';
COMMENT ON COLUMN checkpoint_current.fence IS 'Fence of that attempt.';
COMMENT ON COLUMN checkpoint_current.samples_seen IS 'Samples seen.';
COMMENT ON COLUMN checkpoint_current.step IS 'Optimiser steps taken.';
COMMENT ON COLUMN checkpoint_current.path IS 'Its folder, as the runner said it.';
COMMENT ON COLUMN checkpoint_current.sha256 IS 'sha256 of its manifest.';

-- What training a job cost with all that it goes on from.
CREATE FUNCTION whole_gpu_hours(of_job bigint) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH RECURSIVE up (job_id, parent) AS (
        SELECT j.job_id, j.parent FROM job j WHERE j.job_id = of_job
        UNION ALL
        SELECT p.job_id, p.parent FROM up JOIN job p ON p.job_id = up.parent)
    SELECT CASE WHEN count(cost.gpu_hours) = count(*) THEN sum(cost.gpu_hours) END
    FROM up LEFT JOIN LATERAL (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = up.job_id) cost ON true
$$;
COMMENT ON FUNCTION whole_gpu_hours IS 'Hours of training x GPUs of a job and of all that it goes on from; NULL where no GPU is known of for one of them.';

-- The trunk of a sweep is no cell of it.
CREATE OR REPLACE VIEW observation AS
SELECT s.name AS sweep, j.job_key, j.model, j.parameters, j.samples_seen, j.data_size, j.unique_samples, j.seed,
       j.gmacs_samples, j.train_flops, j.six_nd,
       m.dataset, m.metric, m.value,
       CASE WHEN m.metric LIKE 'loss%' THEN m.value ELSE 1 - m.value END AS error,
       m.standard_error, m.chance, m.count,
       coalesce(j.exact_n, j.parameters) AS n,
       coalesce(j.exact_d, j.samples_seen) AS d,
       coalesce(j.exact_u, j.unique_samples) AS u,
       coalesce(j.exact_d, j.samples_seen) / coalesce(j.exact_u, j.unique_samples) AS epochs,
       (SELECT p.name FROM pool p WHERE p.digest = j.pool) AS pool,
       j.source,
       CASE WHEN j.parent IS NULL THEN (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id)
            ELSE whole_gpu_hours(j.job_id) END AS gpu_hours,
       j.source_detail
FROM (SELECT * FROM final_measurement UNION ALL SELECT * FROM aggregate_measurement) m
JOIN job j USING (job_id)
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id)
WHERE NOT EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = sj.sweep_id);
COMMENT ON COLUMN observation.gpu_hours IS 'Hours of training x GPUs, all attempts, those of what it goes on from too; NULL where no GPU is known of.';

-- Points of a cell; C up to them is the whole's, and so are GPU-hours.
CREATE OR REPLACE VIEW checkpoint_observation AS
SELECT s.name AS sweep, j.job_key, j.model, j.parameters, m.samples_seen, j.data_size,
       CASE WHEN j.unique_samples IS NOT NULL THEN least(j.unique_samples, m.samples_seen) END AS unique_samples, j.seed,
       share.of_d * j.gmacs_samples AS gmacs_samples, share.of_d * j.train_flops AS train_flops, share.of_d * j.six_nd AS six_nd,
       m.dataset, m.metric, m.value,
       CASE WHEN m.metric LIKE 'loss%' THEN m.value ELSE 1 - m.value END AS error,
       m.standard_error, m.chance, m.count,
       coalesce(j.exact_n, j.parameters) AS n,
       position.d AS d,
       position.u,
       position.d / position.u AS epochs,
       (SELECT p.name FROM pool p WHERE p.digest = j.pool) AS pool,
       j.source,
       CASE WHEN j.parent IS NULL THEN share.of_d * (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id)
            ELSE whole_gpu_hours(j.parent)
                 + (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id)
                   * (m.samples_seen - j.parent_samples)::double precision / (j.samples_seen - j.parent_samples) END AS gpu_hours,
       j.source_detail
FROM measurement m
JOIN job j USING (job_id)
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id)
CROSS JOIN LATERAL (SELECT CASE WHEN m.samples_seen = j.samples_seen THEN coalesce(j.exact_d, j.samples_seen)
                                WHEN j.samples_seen IS NOT NULL THEN m.samples_seen END::double precision AS d) seen
-- least() leaves NULLs out, so an unknown U has to be seen to.
CROSS JOIN LATERAL (SELECT seen.d, CASE WHEN coalesce(j.exact_u, j.unique_samples) IS NOT NULL
                                        THEN least(coalesce(j.exact_u, j.unique_samples), seen.d) END AS u) position
CROSS JOIN LATERAL (SELECT CASE WHEN j.samples_seen IS NULL OR m.samples_seen = j.samples_seen THEN 1
                                ELSE m.samples_seen::double precision / j.samples_seen END AS of_d) share
WHERE j.state = 'done' AND (j.samples_seen IS NULL OR m.samples_seen BETWEEN 1 AND j.samples_seen)
      AND NOT EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = sj.sweep_id);
COMMENT ON VIEW checkpoint_observation IS 'Like observation, but at every point of training that was measured: D, U, C and GPU-hours up to there. Checkpoints of one job share its key. No aggregates, and no trunks: their points belong to several cells.';

CREATE OR REPLACE VIEW result AS
SELECT s.name AS sweep, j.job_key, j.state, j.model, j.parameters, j.image_parameters, j.text_parameters,
       j.samples_seen, j.data_size, j.unique_samples, j.samples_seen::double precision / j.unique_samples AS epochs, j.seed,
       j.gmacs_samples, j.train_flops, j.six_nd,
       (SELECT c.value FROM curve c WHERE c.job_key = j.job_key AND c.metric = 'loss' ORDER BY c.step DESC LIMIT 1)
           AS train_loss,
       (SELECT jsonb_object_agg(m.dataset || '/' || m.metric, m.value) FROM measurement m
        WHERE m.job_id = j.job_id AND m.samples_seen = coalesce(j.samples_seen, 0)) AS metrics,
       (SELECT c.train_secs FROM job_cost c WHERE c.job_id = j.job_id) AS train_secs,
       (SELECT sum(a.eval_secs) FROM attempt a WHERE a.job_id = j.job_id) AS eval_secs,
       (SELECT count(*) FROM attempt a WHERE a.job_id = j.job_id) AS attempts,
       j.reason, j.done_at,
       (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id) AS gpu_hours,
       j.source,
       (SELECT p.name FROM pool p WHERE p.digest = j.pool) AS pool,
       j.skipped,
       (SELECT p.job_key FROM job p WHERE p.job_id = j.parent) AS parent,
       j.parent_samples,
       EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = sj.sweep_id) AS is_trunk
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON COLUMN result.train_secs IS 'Seconds in training steps, all attempts, without those of its parent; of one that did not finish, its whole time.';
COMMENT ON COLUMN result.parent IS 'Key of the job whose last checkpoint it goes on from; NULL: it begins at the beginning.';
COMMENT ON COLUMN result.parent_samples IS 'Samples of samples_seen that its parent trains on: they are counted in C, and cost this job nothing.';
COMMENT ON COLUMN result.is_trunk IS 'Whether other jobs of the sweep go on from it: it is a part of them, and no observation.';
