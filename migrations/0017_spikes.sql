-- What steps say of training beside the loss: time that waits for data.

CREATE FUNCTION metric_sum(of_job bigint, wanted text) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT sum(m.value) FROM metric m JOIN metric_name n USING (metric_id) JOIN attempt a USING (attempt_id)
    WHERE a.job_id = of_job AND n.name = wanted
$$;
COMMENT ON FUNCTION metric_sum IS 'Sum of what all attempts at a job have reported of a metric, parts that were trained twice included; NULL: nothing.';

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
       metric_sum(j.job_id, 'data_wait_secs') AS data_wait_secs
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON COLUMN result.data_wait_secs IS 'Seconds of train_secs in which training waited for its data, as far as reported, all attempts; NULL where the runner does not say.';
COMMENT ON COLUMN curve.metric IS 'loss (nats), lr, grad_norm (before clipping), logit_scale (ln of the factor), samples_per_sec, data_wait_secs (seconds since the last report that waited for data), ...';
COMMENT ON TABLE metric_name IS 'Names of training metrics: loss, lr, grad_norm, logit_scale, samples_per_sec, data_wait_secs, ...';
