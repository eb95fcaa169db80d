-- What training says of itself beside the loss: time that waits for data, energy, loss spikes and what became of them.

ALTER TABLE attempt
    ADD COLUMN gpu_joules         double precision CHECK (gpu_joules >= 0),
    ADD COLUMN machine_cpu_joules double precision CHECK (machine_cpu_joules >= 0),
    ADD COLUMN cpu_share          double precision CHECK (cpu_share > 0 AND cpu_share <= 1);
COMMENT ON COLUMN attempt.gpu_joules IS 'Energy of the GPUs that it was given from its start to its end (NVML), whatever else ran on them; NULL: not known.';
COMMENT ON COLUMN attempt.machine_cpu_joules IS 'Energy of all processor packages of its machine from its start to its end (RAPL), whatever else ran there: not the job''s own. NULL: not known.';
COMMENT ON COLUMN attempt.cpu_share IS 'Its threads over the CPUs of the machine: the part of machine_cpu_joules that is counted as the job''s.';

CREATE OR REPLACE VIEW job_cost AS
SELECT a.job_id,
       sum(spent.secs)::double precision AS train_secs,
       sum(spent.secs * coalesce(a.gpus, CASE WHEN a.device LIKE 'cuda%' THEN 1 END) / 3600)::double precision AS gpu_hours,
       CASE WHEN bool_and(a.gpu_joules IS NOT NULL) FILTER (WHERE a.fence IS NOT NULL) THEN sum(a.gpu_joules) END AS gpu_joules,
       CASE WHEN bool_and(a.machine_cpu_joules IS NOT NULL) FILTER (WHERE a.fence IS NOT NULL)
            THEN sum(a.machine_cpu_joules * a.cpu_share) END AS cpu_joules
FROM attempt a
CROSS JOIN LATERAL (SELECT coalesce(a.train_secs, extract(epoch FROM coalesce(a.heartbeat_at, a.ended_at) - a.claimed_at)) AS secs) spent
GROUP BY a.job_id;
COMMENT ON VIEW job_cost IS 'What a job cost, all attempts: seconds of training, and seconds x GPUs as hours (NULL: no GPU is known of); joules of its GPUs, and of processor packages by its share of their machines'' CPUs (NULL: not known of every attempt that a worker had).';

CREATE FUNCTION metric_sum(of_job bigint, wanted text) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT sum(m.value) FROM metric m JOIN metric_name n USING (metric_id) JOIN attempt a USING (attempt_id)
    WHERE a.job_id = of_job AND n.name = wanted
$$;
COMMENT ON FUNCTION metric_sum IS 'Sum of what all attempts at a job have reported of a metric, parts that were trained twice included; NULL: nothing.';

CREATE FUNCTION metric_last(of_key text, wanted text) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT c.value FROM curve c WHERE c.job_key = of_key AND c.metric = wanted ORDER BY c.step DESC LIMIT 1
$$;
COMMENT ON FUNCTION metric_last IS 'A metric at the last step of a job''s curve that reported it; NULL: none did.';

CREATE FUNCTION metric_last_count(of_key text, wanted text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value BETWEEN 0 AND 1e15 THEN value::bigint END FROM metric_last(of_key, wanted) AS value
$$;
COMMENT ON FUNCTION metric_last_count IS 'metric_last of what is counted; NULL where a runner says what is no count.';

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
       EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = sj.sweep_id) AS is_trunk,
       metric_sum(j.job_id, 'data_wait_secs') AS data_wait_secs,
       (SELECT c.gpu_joules FROM job_cost c WHERE c.job_id = j.job_id) AS gpu_joules,
       (SELECT c.cpu_joules FROM job_cost c WHERE c.job_id = j.job_id) AS cpu_joules,
       metric_last_count(j.job_key, 'spikes') AS spikes,
       metric_last_count(j.job_key, 'rollbacks') AS rollbacks,
       metric_last_count(j.job_key, 'skipped_samples') AS skipped_samples
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON COLUMN result.data_wait_secs IS 'Seconds of train_secs in which training waited for its data, as far as reported, all attempts; NULL where the runner does not say.';
COMMENT ON COLUMN result.gpu_joules IS 'Energy of its GPUs, training and evaluation, all attempts, without those of its parent; NULL: not known of all of them.';
COMMENT ON COLUMN result.cpu_joules IS 'Energy of processor packages while it ran, by its share of their machines'' CPUs (threads over CPUs), all attempts; NULL: not known of all of them.';
COMMENT ON COLUMN result.spikes IS 'Loss spikes so far, as the runner defines them (clip-runner: seven robust deviations above the median of the last 128 steps); NULL: it has not said.';
COMMENT ON COLUMN result.rollbacks IS 'How often training went back to a checkpoint after one (recipe.on_spike: rollback); NULL: it is not asked to.';
COMMENT ON COLUMN result.skipped_samples IS 'Samples that it passed over then: they were trained on and forgotten, and are in no C.';
COMMENT ON COLUMN curve.metric IS 'loss (nats), lr, grad_norm (before clipping), logit_scale (ln of the factor), samples_per_sec, data_wait_secs (seconds since the last report that waited for data), spikes (loss spikes so far), ...';
COMMENT ON TABLE metric_name IS 'Names of training metrics: loss, lr, grad_norm, logit_scale, samples_per_sec, data_wait_secs, ...';
