-- Published studies and other people's runs as ordinary jobs, aggregates of data sets, and what runs cost in GPU-hours.
-- Imported rows are rows of job, attempt and evaluation like ours, so that every view and fit treats them alike.

ALTER TABLE sweep ADD COLUMN source text;
COMMENT ON COLUMN sweep.source IS 'NULL: launched by us. Else what it was imported from: openclip-2022, clip-benchmark, open-clip, csv.';

ALTER TABLE job
    ADD COLUMN source text,
    ADD COLUMN source_detail jsonb,
    ADD COLUMN exact_n double precision CHECK (exact_n > 0),
    ADD COLUMN exact_d double precision CHECK (exact_d > 0),
    ADD COLUMN exact_u double precision CHECK (exact_u > 0),
    ALTER COLUMN parameters DROP NOT NULL,
    ALTER COLUMN image_parameters DROP NOT NULL,
    ALTER COLUMN text_parameters DROP NOT NULL,
    ALTER COLUMN pool DROP NOT NULL,
    ALTER COLUMN data_size DROP NOT NULL,
    ALTER COLUMN samples_seen DROP NOT NULL,
    ALTER COLUMN unique_samples DROP NOT NULL,
    ALTER COLUMN gmacs_samples DROP NOT NULL,
    ALTER COLUMN train_flops DROP NOT NULL,
    ALTER COLUMN six_nd DROP NOT NULL,
    -- A published table may lack axes; a job of ours has them all and is trained, an imported one never is.
    ADD CONSTRAINT job_whole_unless_imported CHECK (
        source IS NOT NULL
        OR parameters IS NOT NULL AND image_parameters IS NOT NULL AND text_parameters IS NOT NULL AND pool IS NOT NULL
           AND data_size IS NOT NULL AND samples_seen IS NOT NULL AND unique_samples IS NOT NULL
           AND gmacs_samples IS NOT NULL AND train_flops IS NOT NULL AND six_nd IS NOT NULL),
    ADD CONSTRAINT job_done_if_imported CHECK (source IS NULL OR state = 'done');
COMMENT ON COLUMN job.source IS 'NULL: trained by us. Else what it was imported from: openclip-2022, clip-benchmark, open-clip, csv.';
COMMENT ON COLUMN job.source_detail IS 'Of an imported job: file, sha256 of the file, the row''s own identifiers and hyper-parameters.';
COMMENT ON COLUMN job.exact_n IS 'N of an imported table where it is no whole number; NULL: parameters.';
COMMENT ON COLUMN job.exact_d IS 'D of an imported table where it is no whole number; NULL: samples_seen.';
COMMENT ON COLUMN job.exact_u IS 'U of an imported table where it is no whole number; NULL: unique_samples.';
COMMENT ON COLUMN job.parameters IS 'N: parameters of both towers and logit_scale; as published, or NULL, for imported jobs.';
COMMENT ON COLUMN job.samples_seen IS 'D: samples to train on, repeats counted. NULL: an imported table does not say; its evaluations then stand at 0.';

-- Tables name data sets whose size they do not say.
ALTER TABLE pool ALTER COLUMN samples DROP NOT NULL;
COMMENT ON COLUMN pool.samples IS 'Pairs in the pool; of an imported one as published, NULL where unknown.';
COMMENT ON COLUMN pool.digest IS 'sha256 of manifest.json, or of the list of shards where there is none, or of an imported pool''s name and size.';
COMMENT ON COLUMN pool.path IS 'Folder of the shards when the pool was first planned with; empty for an imported one.';

ALTER TABLE attempt ADD COLUMN gpus integer CHECK (gpus > 0);
COMMENT ON COLUMN attempt.gpus IS 'GPUs that train_secs were spent on, all at a time. NULL: one if the device is a GPU.';

CREATE TABLE aggregate (
    name        text PRIMARY KEY,
    built_in    boolean NOT NULL DEFAULT false,
    definition  text NOT NULL DEFAULT ''
);
COMMENT ON TABLE aggregate IS 'A named set of data sets. The view observation shows the mean over the members as a data set of this name.';
COMMENT ON COLUMN aggregate.built_in IS 'Comes with sweep and can''t be redefined.';
COMMENT ON COLUMN aggregate.definition IS 'Where the membership comes from.';

CREATE TABLE aggregate_member (
    name     text NOT NULL REFERENCES aggregate ON DELETE CASCADE,
    dataset  text NOT NULL,
    PRIMARY KEY (name, dataset)
);
CREATE INDEX aggregate_member_by_dataset ON aggregate_member (dataset);
COMMENT ON TABLE aggregate_member IS 'Data sets of an aggregate. A job has the aggregate only where all of them were measured.';

-- Cherti et al. 2022, as the rows of its zeroshot_results.csv are reproduced by these members to 1e-15.
INSERT INTO aggregate (name, built_in, definition) VALUES
    ('imagenet_robustness', true, 'Cherti et al. 2022: mean over five shifted ImageNet sets'),
    ('vtab', true, 'Cherti et al. 2022, zero-shot: 19 sets, with sun397 and without cifar10'),
    ('vtab-probe', true, 'Cherti et al. 2022, linear probes: 19 sets, with cifar10 and without sun397'),
    ('vtab+', true, 'Cherti et al. 2022: 35 sets; voc2007_multilabel, measured by mean average precision, is not in the mean');
INSERT INTO aggregate_member (name, dataset)
SELECT 'imagenet_robustness', unnest(ARRAY['imagenetv2', 'imagenet_sketch', 'imagenet-a', 'imagenet-r', 'objectnet']);
INSERT INTO aggregate_member (name, dataset)
SELECT aggregate, dataset
FROM unnest(ARRAY['vtab', 'vtab-probe', 'vtab+']) aggregate,
     unnest(ARRAY['vtab/caltech101', 'vtab/cifar100', 'vtab/clevr_count_all', 'vtab/clevr_closest_object_distance',
                  'vtab/diabetic_retinopathy', 'vtab/dmlab', 'vtab/dsprites_label_orientation', 'vtab/dsprites_label_x_position',
                  'vtab/dtd', 'vtab/eurosat', 'vtab/kitti_closest_vehicle_distance', 'vtab/flowers', 'vtab/pets', 'vtab/pcam',
                  'vtab/resisc45', 'vtab/smallnorb_label_azimuth', 'vtab/smallnorb_label_elevation', 'vtab/svhn']) dataset;
INSERT INTO aggregate_member (name, dataset) VALUES ('vtab', 'sun397'), ('vtab-probe', 'vtab/cifar10');
INSERT INTO aggregate_member (name, dataset)
SELECT 'vtab+', unnest(ARRAY['imagenet1k', 'imagenetv2', 'imagenet_sketch', 'imagenet-a', 'imagenet-r', 'objectnet', 'fer2013',
                             'voc2007', 'sun397', 'cars', 'fgvc_aircraft', 'mnist', 'stl10', 'gtsrb', 'country211', 'renderedsst2',
                             'vtab/cifar10']);

CREATE VIEW job_cost AS
SELECT a.job_id,
       sum(spent.secs)::double precision AS train_secs,
       sum(spent.secs * coalesce(a.gpus, CASE WHEN a.device LIKE 'cuda%' THEN 1 END) / 3600)::double precision AS gpu_hours
FROM attempt a
CROSS JOIN LATERAL (SELECT coalesce(a.train_secs, extract(epoch FROM coalesce(a.heartbeat_at, a.ended_at) - a.claimed_at)) AS secs) spent
GROUP BY a.job_id;
COMMENT ON VIEW job_cost IS 'What training cost, all attempts: seconds, and seconds x GPUs as hours (NULL: no GPU is known of).';

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
       (SELECT p.name FROM pool p WHERE p.digest = j.pool) AS pool
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON COLUMN result.gpu_hours IS 'Hours of training x GPUs, all attempts; NULL where no GPU is known of.';
COMMENT ON COLUMN result.source IS 'NULL: trained by us. Else what it was imported from.';
COMMENT ON COLUMN result.pool IS 'Name of the data set trained on.';

CREATE VIEW final_measurement AS
SELECT m.job_id, m.dataset, m.metric, m.value, m.standard_error, m.chance, m.count
FROM measurement m
JOIN job j USING (job_id)
WHERE j.state = 'done' AND m.samples_seen = coalesce(j.samples_seen, 0);
COMMENT ON VIEW final_measurement IS 'Measurements at the end of finished jobs, single data sets only.';

CREATE VIEW aggregate_measurement AS
SELECT f.job_id, g.name AS dataset, f.metric, avg(f.value) AS value,
       CASE WHEN count(f.standard_error) = count(*) THEN sqrt(sum(f.standard_error ^ 2)) / count(*) END AS standard_error,
       CASE WHEN count(f.chance) = count(*) THEN avg(f.chance) END AS chance,
       NULL::bigint AS count
FROM (SELECT name, count(*) AS members FROM aggregate_member GROUP BY name) g
JOIN aggregate_member member USING (name)
JOIN final_measurement f ON f.dataset = member.dataset
GROUP BY f.job_id, g.name, g.members, f.metric
HAVING count(*) = g.members
       AND NOT EXISTS (SELECT FROM final_measurement own
                       WHERE own.job_id = f.job_id AND own.dataset = g.name AND own.metric = f.metric);
COMMENT ON VIEW aggregate_measurement IS 'Means over the members of aggregates, of jobs that were measured on all of them.';

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
       (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id) AS gpu_hours,
       j.source_detail
FROM (SELECT * FROM final_measurement UNION ALL SELECT * FROM aggregate_measurement) m
JOIN job j USING (job_id)
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON VIEW observation IS 'What a fit uses: one row a sweep, finished job, data set (or aggregate) and metric.';
COMMENT ON COLUMN observation.dataset IS 'Data set that was measured on, or an aggregate of several.';
COMMENT ON COLUMN observation.n IS 'N as a number for fits: parameters.';
COMMENT ON COLUMN observation.d IS 'D as a number for fits: samples_seen.';
COMMENT ON COLUMN observation.u IS 'U as a number for fits: unique_samples.';
COMMENT ON COLUMN observation.epochs IS 'D / U.';
COMMENT ON COLUMN observation.pool IS 'Name of the data set trained on.';
COMMENT ON COLUMN observation.source IS 'NULL: trained by us. Else what it was imported from.';
COMMENT ON COLUMN observation.gpu_hours IS 'Hours of training x GPUs, all attempts; NULL where no GPU is known of.';
COMMENT ON COLUMN observation.source_detail IS 'Of an imported job: file, the row''s own identifiers and hyper-parameters.';

CREATE VIEW checkpoint_observation AS
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
       share.of_d * (SELECT c.gpu_hours FROM job_cost c WHERE c.job_id = j.job_id) AS gpu_hours,
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
WHERE j.state = 'done' AND (j.samples_seen IS NULL OR m.samples_seen BETWEEN 1 AND j.samples_seen);
COMMENT ON VIEW checkpoint_observation IS 'Like observation, but at every point of training that was measured: D, U, C and GPU-hours up to there. Checkpoints of one job share its key. No aggregates.';
