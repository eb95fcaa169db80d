-- The store of scripts/bench-serve.sh: a sweep of 10,000 jobs (20 models x 25 numbers of samples seen x 20 seeds), one of 5,000
-- of the same cells, 11 million rows of curves, of which one curve has a million, and three measurements a job that has ended.
-- Numbers are made of rows' own, so that every store is the same.
BEGIN;
SET LOCAL synchronous_commit = off;
INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'bench', '', 2000000);
INSERT INTO sweep (name, question, spec, launcher_seen_at) VALUES
    ('big', 'How fast is the live page?', E'name: big\nrunner: synthetic\ngrid: {model: cpu-w32-l2, samples_seen: 1280, data_size: 500}\nrecipe: {global_batch: 64}\nlimits: {compute: 1e19}\n', now()),
    ('half', 'And beside half as many jobs?', E'name: half\n', NULL);
INSERT INTO aggregate (name, definition) VALUES ('bench-mean', 'the two data sets of scripts/bench-serve.sql');
INSERT INTO aggregate_member (name, dataset) VALUES ('bench-mean', 'bench-a'), ('bench-mean', 'bench-b');

CREATE TEMP TABLE cell ON COMMIT DROP AS
SELECT s AS sweep, i, i % 20 AS model, i / 20 % 25 AS size, i / 500 AS seed,
       encode(sha256(convert_to(s || '/' || i, 'UTF8')), 'hex') AS job_key,
       round(1e6 * 1.5 ^ (i % 20))::bigint AS n, round(1280 * 1.3 ^ (i / 20 % 25))::bigint AS d,
       CASE WHEN s = 'half' OR i % 25 > 0 OR i < 50 THEN 'done'
            WHEN i % 1000 = 0 THEN 'failed' WHEN i % 250 = 25 THEN 'running' ELSE 'pending' END AS state
FROM (SELECT 'big' AS s, i FROM generate_series(0, 9999) i UNION ALL SELECT 'half', i FROM generate_series(0, 4999) i) given;

INSERT INTO job (job_key, state, reason, fence, runner, runner_version, model, parameters, image_parameters, text_parameters,
                 pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd, done_at)
SELECT job_key, state, CASE state WHEN 'failed' THEN 'the runner crashed: exit code 1' END, CASE WHEN i % 20 = 7 THEN 2 ELSE 1 END, 'clip', '0.5.0',
       'bench-' || lpad(model::text, 2, '0'), n, n / 2, n / 2, repeat('a', 64), 2000000, d, least(d, 2000000),
       CASE sweep WHEN 'big' THEN seed ELSE 100 + seed END, n * d / 1e9, 6e9 * n * d / 1e9, 6.0 * n * d,
       CASE state WHEN 'done' THEN now() - interval '1 day' + i * interval '1 s' END
FROM cell ORDER BY sweep, i;
INSERT INTO job_spec SELECT job_id, jsonb_build_object('model', model, 'seed', seed, 'samples_seen', samples_seen) FROM job;
INSERT INTO sweep_job (sweep_id, job_id, position)
SELECT s.sweep_id, j.job_id, c.i FROM cell c JOIN job j USING (job_key) JOIN sweep s ON s.name = c.sweep;

-- One in twenty had an attempt before, which was lost.
INSERT INTO attempt (job_id, token, state, backend, host, slot, fence, folder, device, threads, resumed_from_samples, samples_seen,
                     lost_to, reason, train_secs, created_at, claimed_at, heartbeat_at, ended_at)
SELECT j.job_id, 'lost-' || c.job_key, 'lost', 'slurm', 'bench', 0, 1, '/nowhere', 'cuda:0', 4, 0, c.d / 4, 'preemption', 'preempted', 60,
       now() - interval '3 days', now() - interval '3 days', now() - interval '2 days', now() - interval '2 days'
FROM cell c JOIN job j USING (job_key) WHERE c.i % 20 = 7 AND c.state = 'done' ORDER BY j.job_id;
INSERT INTO attempt (job_id, token, state, backend, host, slot, fence, folder, device, threads, resumed_from_samples, samples_seen,
                     exit_code, train_secs, gpu_joules, created_at, launched_at, claimed_at, heartbeat_at, ended_at)
SELECT j.job_id, 'own-' || c.job_key, CASE c.state WHEN 'done' THEN 'finished' ELSE c.state END, 'slurm', 'bench', 0, j.fence, '/nowhere', 'cuda:0',
       4, CASE WHEN c.i % 20 = 7 THEN c.d / 5 ELSE 0 END, CASE c.state WHEN 'done' THEN c.d ELSE c.d / 2 END,
       CASE c.state WHEN 'done' THEN 0 WHEN 'failed' THEN 1 END, CASE c.state WHEN 'running' THEN NULL ELSE 100 + c.i % 50 END, 1e4,
       now() - interval '1 day', now() - interval '1 day', now() - interval '1 day', now(),
       CASE c.state WHEN 'running' THEN NULL ELSE now() - interval '1 day' + c.i * interval '1 s' END
FROM cell c JOIN job j USING (job_key) WHERE c.state <> 'pending' ORDER BY j.job_id;

INSERT INTO metric_name (name) VALUES ('loss'), ('lr') ON CONFLICT DO NOTHING;
INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
SELECT a.attempt_id, m.metric_id, step, a.samples_seen * step / steps, 3 + 5 / ln(2 + step) + (a.attempt_id * 37 + step * 61) % 101 / 500.0
FROM attempt a
CROSS JOIN LATERAL (SELECT CASE WHEN a.attempt_id = (SELECT max(attempt_id) FROM attempt WHERE state = 'finished') THEN 500000 ELSE 350 END AS steps) many
CROSS JOIN metric_name m CROSS JOIN LATERAL generate_series(1, many.steps) step
WHERE m.name IN ('loss', 'lr') ORDER BY 1, 2, 3;

INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count)
SELECT a.attempt_id, 'bench-' || dataset.name, 'acc1', j.samples_seen,
       0.9 - dataset.worse - 2 / ln(j.gmacs_samples * 1e3 + 20) + (j.job_id * 7919 + dataset.place * 17) % 101 / 4000.0, 0.004, 0.001, 10000
FROM attempt a JOIN job j USING (job_id)
CROSS JOIN (VALUES ('a', 1, 0.0), ('b', 2, 0.1), ('c', 3, 0.2)) dataset (name, place, worse)
WHERE a.state = 'finished' ORDER BY 1, 2;
INSERT INTO checkpoint (attempt_id, samples_seen, step, path, sha256)
SELECT attempt_id, samples_seen, 350, '/nowhere/last', repeat('c', 64) FROM attempt WHERE state = 'finished';
INSERT INTO event (job_id, attempt_id, kind)
SELECT a.job_id, a.attempt_id, kind
FROM attempt a CROSS JOIN unnest(ARRAY['intent', 'claimed', CASE a.state WHEN 'running' THEN 'started' ELSE a.state END]) kind
ORDER BY coalesce(a.ended_at, a.claimed_at), a.attempt_id;
COMMIT;
VACUUM ANALYZE pool, sweep, job, job_spec, sweep_job, attempt, metric_name, metric, evaluation, checkpoint, event, aggregate_member;
