-- Schema of `sweep`. Forward only: a file that has landed never changes (sqlx checks its hash); see README.md.
-- States are text with a CHECK, so that plain SQL reads well. All times are the database's clock.

CREATE TABLE pool (
    digest      text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    name        text NOT NULL,
    path        text NOT NULL,
    samples     bigint NOT NULL CHECK (samples > 0),
    manifest    jsonb,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pool IS 'A named image-text data set in WebDataset shards, known by the sha256 of its manifest.';
COMMENT ON COLUMN pool.digest IS 'sha256 of manifest.json, or of the list of shards where there is none (64 hex digits).';
COMMENT ON COLUMN pool.path IS 'Folder of the shards when the pool was first planned with.';
COMMENT ON COLUMN pool.samples IS 'Pairs in the pool.';

CREATE TABLE sweep (
    sweep_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    question    text NOT NULL DEFAULT '',
    spec        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sweep IS 'One spec: a named grid of jobs. Jobs are shared between sweeps by their key.';
COMMENT ON COLUMN sweep.spec IS 'The YAML as last launched.';

CREATE TABLE job (
    job_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_key           text NOT NULL UNIQUE CHECK (job_key ~ '^[0-9a-f]{64}$'),
    state             text NOT NULL DEFAULT 'pending'
                      CHECK (state IN ('pending', 'running', 'done', 'failed', 'cancelled')),
    reason            text,
    fence             bigint NOT NULL DEFAULT 0,
    retries_granted   integer NOT NULL DEFAULT 0,
    spec              jsonb NOT NULL,
    runner            text NOT NULL,
    runner_version    text NOT NULL,
    model             text NOT NULL,
    parameters        bigint NOT NULL,
    image_parameters  bigint NOT NULL,
    text_parameters   bigint NOT NULL,
    pool              text NOT NULL REFERENCES pool (digest),
    data_size         bigint NOT NULL CHECK (data_size > 0),
    samples_seen      bigint NOT NULL CHECK (samples_seen > 0),
    unique_samples    bigint NOT NULL CHECK (unique_samples > 0),
    seed              bigint NOT NULL,
    gmacs_samples     double precision NOT NULL,
    train_flops       double precision NOT NULL,
    six_nd            double precision NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    done_at           timestamptz
);
COMMENT ON TABLE job IS 'One grid cell and seed: the science. Its key is the hash of everything that changes the result.';
COMMENT ON COLUMN job.state IS 'pending, running (a worker has claimed an attempt), done (its fenced result is here), failed, cancelled.';
COMMENT ON COLUMN job.reason IS 'Why the job failed or was cancelled.';
COMMENT ON COLUMN job.fence IS 'Number of the last claim. Writes that carry a smaller one change nothing.';
COMMENT ON COLUMN job.retries_granted IS 'Attempts before the last `sweep retry`: they no longer count against the limits.';
COMMENT ON COLUMN job.spec IS 'protocol::JobSpec: all that was hashed into job_key, and the paths of the data.';
COMMENT ON COLUMN job.parameters IS 'N: parameters of both towers and logit_scale.';
COMMENT ON COLUMN job.data_size IS 'Unique samples of the pool that the job may see.';
COMMENT ON COLUMN job.samples_seen IS 'D: samples to train on, repeats counted.';
COMMENT ON COLUMN job.unique_samples IS 'U: the smaller of data_size and samples_seen.';
COMMENT ON COLUMN job.gmacs_samples IS 'C as in Cherti et al. 2022: forward GMACs per pair (LayerNorm counted) x samples seen.';
COMMENT ON COLUMN job.train_flops IS 'C: 3 x 2 x forward MACs per pair (attention in, LayerNorm out) x samples seen, FLOPs.';
COMMENT ON COLUMN job.six_nd IS 'C: 6 x N x samples seen.';

CREATE TABLE sweep_job (
    sweep_id  bigint NOT NULL REFERENCES sweep ON DELETE CASCADE,
    job_id    bigint NOT NULL REFERENCES job ON DELETE CASCADE,
    position  integer NOT NULL,
    PRIMARY KEY (sweep_id, job_id)
);
CREATE INDEX sweep_job_by_job ON sweep_job (job_id);
COMMENT ON TABLE sweep_job IS 'Which jobs a sweep asks for, in the order of its plan.';

CREATE TABLE attempt (
    attempt_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id               bigint NOT NULL REFERENCES job ON DELETE CASCADE,
    token                text NOT NULL UNIQUE,
    state                text NOT NULL DEFAULT 'intent'
                         CHECK (state IN ('intent', 'launched', 'running', 'finished', 'failed', 'stopped', 'lost', 'cancelled')),
    backend              text NOT NULL,
    host                 text,
    slot                 integer,
    handle               text,
    fence                bigint,
    folder               text NOT NULL,
    device               text,
    threads              integer,
    stop_requested       boolean NOT NULL DEFAULT false,
    resumed_from_samples bigint,
    samples_seen         bigint NOT NULL DEFAULT 0,
    acked_events         bigint NOT NULL DEFAULT 0,
    exit_code            integer,
    failure_kind         text CHECK (failure_kind IN ('diverged', 'bad_input', 'crash')),
    reason               text,
    stderr_tail          text,
    train_secs           double precision,
    eval_secs            double precision,
    peak_memory_bytes    bigint,
    created_at           timestamptz NOT NULL DEFAULT now(),
    launched_at          timestamptz,
    claimed_at           timestamptz,
    heartbeat_at         timestamptz,
    ended_at             timestamptz
);
-- At most one live attempt a job and one a slot, whoever launches.
CREATE UNIQUE INDEX attempt_live ON attempt (job_id) WHERE state IN ('intent', 'launched', 'running');
CREATE UNIQUE INDEX attempt_slot ON attempt (host, slot)
    WHERE backend = 'local' AND state IN ('intent', 'launched', 'running');
CREATE INDEX attempt_by_job ON attempt (job_id);
COMMENT ON TABLE attempt IS 'One execution of a job. Recorded before the backend is asked to start it.';
COMMENT ON COLUMN attempt.token IS 'Random name that the backend knows the worker by, so that it can be found again.';
COMMENT ON COLUMN attempt.state IS 'intent (recorded), launched (backend accepted), running (claimed), then finished, failed, stopped (checkpointed on request), lost or cancelled.';
COMMENT ON COLUMN attempt.handle IS 'The backend''s own name for it: process id and start time, or Slurm job id.';
COMMENT ON COLUMN attempt.fence IS 'Claim number; NULL until a worker claims it.';
COMMENT ON COLUMN attempt.folder IS 'job.json, events.jsonl, stderr.log.';
COMMENT ON COLUMN attempt.acked_events IS 'Lines of events.jsonl that have been stored.';
COMMENT ON COLUMN attempt.resumed_from_samples IS 'Samples seen at the checkpoint that this attempt started from; 0 for a fresh start.';
COMMENT ON COLUMN attempt.samples_seen IS 'Samples seen at its last report.';
COMMENT ON COLUMN attempt.train_secs IS 'Seconds in training steps.';
COMMENT ON COLUMN attempt.eval_secs IS 'Seconds in evaluations.';

CREATE TABLE checkpoint (
    attempt_id    bigint NOT NULL REFERENCES attempt ON DELETE CASCADE,
    samples_seen  bigint NOT NULL,
    step          bigint NOT NULL,
    path          text NOT NULL,
    sha256        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (attempt_id, samples_seen)
);
COMMENT ON TABLE checkpoint IS 'Checkpoints as reported; sha256 is that of their manifest.';

CREATE TABLE metric_name (
    metric_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE
);
COMMENT ON TABLE metric_name IS 'Names of training metrics: loss, lr, logit_scale, samples_per_sec, ...';

CREATE TABLE metric (
    attempt_id    bigint NOT NULL REFERENCES attempt ON DELETE CASCADE,
    metric_id     integer NOT NULL REFERENCES metric_name,
    step          bigint NOT NULL,
    samples_seen  bigint NOT NULL,
    value         double precision NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (attempt_id, metric_id, step)
);
COMMENT ON TABLE metric IS 'Training curves, raw: every attempt. The view curve hides what a later attempt did again.';

CREATE TABLE evaluation (
    attempt_id      bigint NOT NULL REFERENCES attempt ON DELETE CASCADE,
    dataset         text NOT NULL,
    metric          text NOT NULL,
    samples_seen    bigint NOT NULL,
    value           double precision NOT NULL,
    standard_error  double precision,
    chance          double precision,
    count           bigint,
    checkpoint      text,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (attempt_id, dataset, metric, samples_seen)
);
COMMENT ON TABLE evaluation IS 'Measurements on held-out data, raw: every attempt.';
COMMENT ON COLUMN evaluation.value IS 'Accuracies and recalls are fractions; losses are nats.';
COMMENT ON COLUMN evaluation.standard_error IS 'Over the test items; binomial for accuracies.';
COMMENT ON COLUMN evaluation.chance IS 'What guessing gives.';
COMMENT ON COLUMN evaluation.count IS 'Test items.';
COMMENT ON COLUMN evaluation.checkpoint IS 'sha256 of the checkpoint measured, where there was one.';

CREATE TABLE event (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint REFERENCES job ON DELETE CASCADE,
    attempt_id  bigint REFERENCES attempt ON DELETE CASCADE,
    kind        text NOT NULL,
    detail      text,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_by_job ON event (job_id, event_id);
COMMENT ON TABLE event IS 'What happened to jobs and attempts, append-only: planned, intent, launched, claimed, finished, failed, lost, ...';

CREATE TABLE fit (
    fit_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sweep_id      bigint NOT NULL REFERENCES sweep ON DELETE CASCADE,
    dataset       text NOT NULL,
    metric        text NOT NULL,
    points        text NOT NULL,
    compute       text NOT NULL CHECK (compute IN ('gmacs_samples', 'train_flops', 'six_nd')),
    law           text NOT NULL,
    parameters    jsonb NOT NULL,
    r2            double precision,
    verdict       text NOT NULL,
    seed          bigint NOT NULL,
    code_version  text NOT NULL,
    input_hash    text NOT NULL,
    observations  jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX fit_identity
    ON fit (sweep_id, dataset, metric, points, compute, law, seed, code_version, input_hash);
COMMENT ON TABLE fit IS 'A law with parameters and intervals, and the rows it was fitted to. Never changed once written.';
COMMENT ON COLUMN fit.points IS 'Which points: all, pareto or bins:K.';
COMMENT ON COLUMN fit.compute IS 'Convention of C.';
COMMENT ON COLUMN fit.law IS 'The formula, for example E = beta * C^alpha.';
COMMENT ON COLUMN fit.parameters IS 'Name to value and 95 % interval, full precision.';
COMMENT ON COLUMN fit.verdict IS 'scaling, no scaling, or why the fit should not be trusted.';
COMMENT ON COLUMN fit.input_hash IS 'sha256 of observations.rows.';
COMMENT ON COLUMN fit.observations IS '{rows: what points were selected from, points: what the law goes through, excluded: rows left out and why}.';

-- An attempt's rows count up to where a later attempt of the same job took over.
CREATE VIEW attempt_current AS
SELECT a.attempt_id, a.job_id, a.fence,
       (SELECT min(later.resumed_from_samples) FROM attempt later
        WHERE later.job_id = a.job_id AND later.fence > a.fence AND later.resumed_from_samples IS NOT NULL)
           AS superseded_after_samples
FROM attempt a
WHERE a.fence IS NOT NULL;
COMMENT ON VIEW attempt_current IS 'Attempts that were claimed, and the samples seen after which a later attempt took over (NULL: never).';

CREATE VIEW curve AS
SELECT j.job_key, j.model, j.samples_seen AS samples_seen_total, j.data_size, j.seed,
       n.name AS metric, m.step, m.samples_seen, m.value,
       m.samples_seen::double precision / j.samples_seen * j.gmacs_samples AS gmacs_samples,
       m.recorded_at
FROM metric m
JOIN metric_name n USING (metric_id)
JOIN attempt_current a USING (attempt_id)
JOIN job j USING (job_id)
WHERE a.superseded_after_samples IS NULL OR m.samples_seen <= a.superseded_after_samples;
COMMENT ON VIEW curve IS 'Training curves: one row a job, metric and step, each once however often the job was resumed.';
COMMENT ON COLUMN curve.samples_seen IS 'Samples seen at this point of the curve.';
COMMENT ON COLUMN curve.samples_seen_total IS 'Samples seen at the end of the job.';
COMMENT ON COLUMN curve.gmacs_samples IS 'C spent up to this point, forward GMACs x samples.';
COMMENT ON COLUMN curve.job_key IS 'sha256 of everything that changes the job''s result (64 hex digits).';
COMMENT ON COLUMN curve.model IS 'Name of the model''s configuration.';
COMMENT ON COLUMN curve.data_size IS 'Unique samples of the pool that the job may see.';
COMMENT ON COLUMN curve.seed IS 'Seed of initialisation, data order and augmentation.';
COMMENT ON COLUMN curve.metric IS 'loss (nats), lr, logit_scale, samples_per_sec, ...';
COMMENT ON COLUMN curve.step IS 'Optimiser steps done.';
COMMENT ON COLUMN curve.value IS 'The metric at this step.';
COMMENT ON COLUMN curve.recorded_at IS 'When it was stored, by the database''s clock.';

CREATE VIEW measurement AS
SELECT DISTINCT ON (a.job_id, e.dataset, e.metric, e.samples_seen)
       a.job_id, e.attempt_id, e.dataset, e.metric, e.samples_seen, e.value, e.standard_error, e.chance, e.count,
       e.checkpoint, e.recorded_at
FROM evaluation e
JOIN attempt_current a USING (attempt_id)
WHERE a.superseded_after_samples IS NULL OR e.samples_seen <= a.superseded_after_samples
ORDER BY a.job_id, e.dataset, e.metric, e.samples_seen, a.fence DESC;
COMMENT ON VIEW measurement IS 'Measurements on held-out data at every point of training: one row a job, data set, metric and samples seen.';
COMMENT ON COLUMN measurement.job_id IS 'The job.';
COMMENT ON COLUMN measurement.attempt_id IS 'The attempt that measured it.';
COMMENT ON COLUMN measurement.dataset IS 'Data set that was measured on.';
COMMENT ON COLUMN measurement.metric IS 'What was measured: acc1, image_retrieval_recall@5, loss@1024, ...';
COMMENT ON COLUMN measurement.samples_seen IS 'Samples seen when it was measured.';
COMMENT ON COLUMN measurement.value IS 'Accuracies and recalls are fractions; losses are nats.';
COMMENT ON COLUMN measurement.standard_error IS 'Of value, over the test items; binomial for accuracies.';
COMMENT ON COLUMN measurement.chance IS 'What guessing gives.';
COMMENT ON COLUMN measurement.count IS 'Test items.';
COMMENT ON COLUMN measurement.checkpoint IS 'sha256 of the checkpoint measured, where there was one.';
COMMENT ON COLUMN measurement.recorded_at IS 'When it was stored, by the database''s clock.';

CREATE VIEW result AS
SELECT s.name AS sweep, j.job_key, j.state, j.model, j.parameters, j.image_parameters, j.text_parameters,
       j.samples_seen, j.data_size, j.unique_samples, j.samples_seen::double precision / j.unique_samples AS epochs, j.seed,
       j.gmacs_samples, j.train_flops, j.six_nd,
       (SELECT c.value FROM curve c WHERE c.job_key = j.job_key AND c.metric = 'loss' ORDER BY c.step DESC LIMIT 1)
           AS train_loss,
       (SELECT jsonb_object_agg(m.dataset || '/' || m.metric, m.value) FROM measurement m
        WHERE m.job_id = j.job_id AND m.samples_seen = j.samples_seen) AS metrics,
       (SELECT sum(coalesce(a.train_secs, extract(epoch FROM coalesce(a.heartbeat_at, a.ended_at) - a.claimed_at)))
        FROM attempt a WHERE a.job_id = j.job_id)::double precision AS train_secs,
       (SELECT sum(a.eval_secs) FROM attempt a WHERE a.job_id = j.job_id) AS eval_secs,
       (SELECT count(*) FROM attempt a WHERE a.job_id = j.job_id) AS attempts,
       j.reason, j.done_at
FROM job j
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id);
COMMENT ON VIEW result IS 'One row a sweep and job: axes, compute in every convention, final metrics, cost.';
COMMENT ON COLUMN result.parameters IS 'N: parameters of both towers and logit_scale.';
COMMENT ON COLUMN result.samples_seen IS 'D: samples trained on, repeats counted.';
COMMENT ON COLUMN result.unique_samples IS 'U: different samples trained on.';
COMMENT ON COLUMN result.epochs IS 'D / U.';
COMMENT ON COLUMN result.gmacs_samples IS 'C as in Cherti et al. 2022: forward GMACs per pair (LayerNorm counted) x samples seen.';
COMMENT ON COLUMN result.train_flops IS 'C: 3 x 2 x forward MACs per pair x samples seen, FLOPs.';
COMMENT ON COLUMN result.six_nd IS 'C: 6 x N x samples seen.';
COMMENT ON COLUMN result.train_loss IS 'Training loss at the last report, nats; depends on the batch size.';
COMMENT ON COLUMN result.metrics IS 'Final measurements: {"dataset/metric": value}; accuracies are fractions, losses nats.';
COMMENT ON COLUMN result.train_secs IS 'Seconds in training steps, all attempts; of one that did not finish, its whole time.';
COMMENT ON COLUMN result.sweep IS 'Name of the sweep.';
COMMENT ON COLUMN result.job_key IS 'sha256 of everything that changes the job''s result (64 hex digits).';
COMMENT ON COLUMN result.state IS 'pending, running, done, failed or cancelled.';
COMMENT ON COLUMN result.model IS 'Name of the model''s configuration.';
COMMENT ON COLUMN result.image_parameters IS 'Parameters of the image tower.';
COMMENT ON COLUMN result.text_parameters IS 'Parameters of the text tower.';
COMMENT ON COLUMN result.data_size IS 'Unique samples of the pool that the job may see.';
COMMENT ON COLUMN result.seed IS 'Seed of initialisation, data order and augmentation.';
COMMENT ON COLUMN result.eval_secs IS 'Seconds in evaluations, all attempts.';
COMMENT ON COLUMN result.attempts IS 'Executions so far.';
COMMENT ON COLUMN result.reason IS 'Why the job failed or was cancelled.';
COMMENT ON COLUMN result.done_at IS 'When the result was stored.';

CREATE VIEW observation AS
SELECT s.name AS sweep, j.job_key, j.model, j.parameters, j.samples_seen, j.data_size, j.unique_samples, j.seed,
       j.gmacs_samples, j.train_flops, j.six_nd,
       m.dataset, m.metric, m.value,
       CASE WHEN m.metric LIKE 'loss%' THEN m.value ELSE 1 - m.value END AS error,
       m.standard_error, m.chance, m.count
FROM measurement m
JOIN job j USING (job_id)
JOIN sweep_job sj USING (job_id)
JOIN sweep s USING (sweep_id)
WHERE j.state = 'done' AND m.samples_seen = j.samples_seen;
COMMENT ON VIEW observation IS 'What a fit uses: one row a sweep, finished job, data set and metric.';
COMMENT ON COLUMN observation.error IS 'What a law is fitted to: 1 - value for accuracies and recalls, the value itself for losses.';
COMMENT ON COLUMN observation.standard_error IS 'Of value (and of error) over the test items.';
COMMENT ON COLUMN observation.sweep IS 'Name of the sweep.';
COMMENT ON COLUMN observation.job_key IS 'sha256 of everything that changes the job''s result (64 hex digits).';
COMMENT ON COLUMN observation.model IS 'Name of the model''s configuration.';
COMMENT ON COLUMN observation.parameters IS 'N: parameters of both towers and logit_scale.';
COMMENT ON COLUMN observation.samples_seen IS 'D: samples trained on, repeats counted.';
COMMENT ON COLUMN observation.data_size IS 'Unique samples of the pool that the job may see.';
COMMENT ON COLUMN observation.unique_samples IS 'U: different samples trained on.';
COMMENT ON COLUMN observation.seed IS 'Seed of initialisation, data order and augmentation.';
COMMENT ON COLUMN observation.gmacs_samples IS 'C as in Cherti et al. 2022: forward GMACs per pair (LayerNorm counted) x samples seen.';
COMMENT ON COLUMN observation.train_flops IS 'C: 3 x 2 x forward MACs per pair x samples seen, FLOPs.';
COMMENT ON COLUMN observation.six_nd IS 'C: 6 x N x samples seen.';
COMMENT ON COLUMN observation.dataset IS 'Data set that was measured on.';
COMMENT ON COLUMN observation.metric IS 'What was measured: acc1, image_retrieval_recall@5, loss@1024, ...';
COMMENT ON COLUMN observation.value IS 'Accuracies and recalls are fractions; losses are nats.';
COMMENT ON COLUMN observation.chance IS 'What guessing gives.';
COMMENT ON COLUMN observation.count IS 'Test items.';
