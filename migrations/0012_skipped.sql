-- What a job passed over to find the pairs that it trained on.

ALTER TABLE job ADD COLUMN skipped jsonb;
COMMENT ON COLUMN job.skipped IS 'Samples of the pool that could not be used, by what is wrong with them: {"undecodable image": 2}; NULL: none, or not known.';

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
       j.skipped
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON COLUMN result.skipped IS 'Samples of the pool that could not be used, by what is wrong with them; NULL: none, or not known.';
