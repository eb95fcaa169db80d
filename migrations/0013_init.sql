-- Jobs that start from given weights, and jobs that only measure them: a checkpoint of another job, or of somebody else.

ALTER TABLE job
    ADD COLUMN init text CHECK (init ~ '^[0-9a-f]{64}$'),
    DROP CONSTRAINT job_whole_unless_imported,
    ADD CONSTRAINT job_whole_unless_imported CHECK (
        source IS NOT NULL
        OR parameters IS NOT NULL AND image_parameters IS NOT NULL AND text_parameters IS NOT NULL
           AND (pool IS NOT NULL AND data_size IS NOT NULL AND samples_seen IS NOT NULL AND unique_samples IS NOT NULL
                AND gmacs_samples IS NOT NULL AND train_flops IS NOT NULL AND six_nd IS NOT NULL
                OR init IS NOT NULL AND num_nonnulls(pool, data_size, samples_seen, unique_samples, gmacs_samples,
                                                     train_flops, six_nd) = 0));
COMMENT ON COLUMN job.init IS 'sha256 of the weights that the job starts from; NULL: random ones.';
COMMENT ON COLUMN job.samples_seen IS 'D: samples to train on, repeats counted. NULL: an imported table does not say, or the job only measures the weights of init; evaluations then stand at 0.';

ALTER TABLE evaluation ADD COLUMN measured_by bigint REFERENCES job (job_id) ON DELETE SET NULL;
COMMENT ON COLUMN evaluation.checkpoint IS 'sha256 of the checkpoint measured, where there was one: of its manifest, or of the file of weights.';
COMMENT ON COLUMN evaluation.measured_by IS 'The job that measured the checkpoint apart from training; NULL: the attempt itself did.';

-- Recorded before the measuring job is started; its measurements come to the trained job in the transaction that ends it.
CREATE TABLE companion (
    job_id        bigint NOT NULL REFERENCES job ON DELETE CASCADE,
    attempt_id    bigint NOT NULL,
    samples_seen  bigint NOT NULL,
    PRIMARY KEY (job_id, attempt_id, samples_seen),
    FOREIGN KEY (attempt_id, samples_seen) REFERENCES checkpoint ON DELETE CASCADE
);
CREATE INDEX companion_by_checkpoint ON companion (attempt_id, samples_seen);
COMMENT ON TABLE companion IS 'Jobs that measure checkpoints of other jobs: their measurements are copied to the attempt that wrote the checkpoint.';
COMMENT ON COLUMN companion.job_id IS 'The job that measures.';
COMMENT ON COLUMN companion.attempt_id IS 'The attempt that wrote the checkpoint.';
COMMENT ON COLUMN companion.samples_seen IS 'Samples seen at the checkpoint.';

CREATE OR REPLACE VIEW measurement AS
SELECT DISTINCT ON (a.job_id, e.dataset, e.metric, e.samples_seen)
       a.job_id, e.attempt_id, e.dataset, e.metric, e.samples_seen, e.value, e.standard_error, e.chance, e.count,
       e.checkpoint, e.recorded_at,
       e.measured_by
FROM evaluation e
JOIN attempt_current a USING (attempt_id)
WHERE a.superseded_after_samples IS NULL OR e.samples_seen <= a.superseded_after_samples
ORDER BY a.job_id, e.dataset, e.metric, e.samples_seen, a.fence DESC;
COMMENT ON COLUMN measurement.measured_by IS 'Row of the job that measured the checkpoint apart from training; NULL: the attempt itself did.';

-- Up to clip-runner 0.4.0 equal captions were right for one another under the plain names, which are CLIP_benchmark's
-- definition since.
UPDATE evaluation e
SET metric = replace(e.metric, '_retrieval_recall@', '_retrieval_recall_grouped@')
FROM attempt a JOIN job j USING (job_id)
WHERE a.attempt_id = e.attempt_id AND j.source IS NULL AND j.runner = 'clip'
      AND j.runner_version IN ('0.1.0', '0.2.0', '0.3.0', '0.4.0') AND e.metric LIKE '%\_retrieval\_recall@%';
