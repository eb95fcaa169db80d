-- Learning rates that were chosen by ladders, and what they were chosen from.

CREATE TABLE tuning (
    tuning_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tuning_key   text NOT NULL UNIQUE CHECK (tuning_key ~ '^[0-9a-f]{64}$'),
    model        text NOT NULL,
    data_size    bigint NOT NULL CHECK (data_size > 0),
    samples_seen bigint NOT NULL CHECK (samples_seen > 0),
    parameter    text NOT NULL CHECK (parameter = 'lr'),
    factor       double precision NOT NULL CHECK (factor > 0),
    value        double precision NOT NULL CHECK (value > 0),
    dataset      text NOT NULL,
    metric       text NOT NULL,
    measured     double precision NOT NULL,
    noise        double precision CHECK (noise >= 0),
    noise_of     text CHECK (noise_of IN ('seeds', 'items')),
    tied         bigint NOT NULL CHECK (tied >= 1),
    open         text CHECK (open IN ('lowest', 'highest', 'lower failed', 'higher failed')),
    chosen_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((noise IS NULL) = (noise_of IS NULL))
);
COMMENT ON TABLE tuning IS 'Values of the recipe that were chosen by a ladder (tune in a spec), before the cells that have them were planned. A choice stays as it was made.';
COMMENT ON COLUMN tuning.tuning_key IS 'sha256 of what it was made from: jobs of the ladder by factor, data set and metric. Sweeps with the same ladder share it.';
COMMENT ON COLUMN tuning.model IS 'Name of the model.';
COMMENT ON COLUMN tuning.data_size IS 'Unique samples that a job of the ladder may see.';
COMMENT ON COLUMN tuning.samples_seen IS 'Samples seen of each job of the ladder: the fewest of the sweep with this model and data size.';
COMMENT ON COLUMN tuning.parameter IS 'What was chosen: lr, the peak learning rate.';
COMMENT ON COLUMN tuning.factor IS 'Chosen, as a factor on what the recipe has; cells of the same model and data size have it on theirs.';
COMMENT ON COLUMN tuning.value IS 'The same as the value at samples_seen.';
COMMENT ON COLUMN tuning.dataset IS 'Data set that decided.';
COMMENT ON COLUMN tuning.metric IS 'Metric that decided.';
COMMENT ON COLUMN tuning.measured IS 'By that metric, the mean over seeds of the rung that was chosen.';
COMMENT ON COLUMN tuning.noise IS 'Standard error of measured; NULL: nothing says it.';
COMMENT ON COLUMN tuning.noise_of IS 'seeds: spread over seeds, pooled over rungs; items: over test items, as the runner said, which is the same test for all rungs.';
COMMENT ON COLUMN tuning.tied IS 'Rungs within noise of the best one, itself counted; of these the nearest to the recipe was taken.';
COMMENT ON COLUMN tuning.open IS 'Why the best may lie beyond: the rung is the lowest or highest of the ladder, or the next one failed; NULL: rungs on both sides are worse or tied.';
COMMENT ON COLUMN tuning.chosen_at IS 'When it was recorded.';

CREATE TABLE tuning_rung (
    tuning_id bigint NOT NULL REFERENCES tuning (tuning_id) ON DELETE CASCADE,
    job_id    bigint NOT NULL REFERENCES job (job_id),
    factor    double precision NOT NULL CHECK (factor > 0),
    value     double precision NOT NULL CHECK (value > 0),
    measured  double precision,
    PRIMARY KEY (tuning_id, job_id)
);
CREATE INDEX tuning_rung_by_job ON tuning_rung (job_id);
COMMENT ON TABLE tuning_rung IS 'Jobs that a choice was made from.';
COMMENT ON COLUMN tuning_rung.factor IS 'On what the recipe has.';
COMMENT ON COLUMN tuning_rung.value IS 'The value that it was trained with.';
COMMENT ON COLUMN tuning_rung.measured IS 'What it measured, by the metric that decided; NULL: it failed, and did not count.';

CREATE TABLE sweep_tuning (
    sweep_id  bigint NOT NULL REFERENCES sweep (sweep_id) ON DELETE CASCADE,
    tuning_id bigint NOT NULL REFERENCES tuning (tuning_id),
    PRIMARY KEY (sweep_id, tuning_id)
);
CREATE INDEX sweep_tuning_by_tuning ON sweep_tuning (tuning_id);
COMMENT ON TABLE sweep_tuning IS 'Which choices the cells of a sweep were planned with when it was launched last.';
