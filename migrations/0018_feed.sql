-- The history as a feed that programs can follow and go on with: in which transaction each entry was written, entries of what
-- runners report, and which steps of curves came with which transaction.
--
-- Numbers of entries are given before transactions commit, which they do in any order, so "after the last number seen" would pass
-- over what commits late. Transactions have numbers too, and all below pg_snapshot_xmin(pg_current_snapshot()) have ended: what is
-- below it is complete, and ordered by (txid, event_id) nothing is ever added in front of what was read.

ALTER TABLE event
    ADD COLUMN txid         bigint NOT NULL DEFAULT 0,
    ADD COLUMN samples_seen bigint,
    ADD COLUMN fit_id       bigint REFERENCES fit ON DELETE CASCADE;
ALTER TABLE event ALTER COLUMN txid SET DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX event_by_transaction ON event (txid, event_id);
COMMENT ON TABLE event IS 'What happened to jobs and attempts, append-only: queued, intent, claimed, started, checkpoint, measured, finished, failed, lost, ..., and fit. `sweep events` reads it.';
COMMENT ON COLUMN event.job_id IS 'The job; NULL in entries of what a runner reported (the attempt says it), whose transactions must not wait for the job''s row.';
COMMENT ON COLUMN event.txid IS 'Number of the transaction that wrote it; 0: before version 18 of the schema.';
COMMENT ON COLUMN event.samples_seen IS 'Of checkpoint and measured: where in training.';
COMMENT ON COLUMN event.fit_id IS 'Of fit: which.';

CREATE TABLE metric_batch (
    txid       bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    event_id   bigint NOT NULL DEFAULT nextval('event_event_id_seq'),
    attempt_id bigint NOT NULL REFERENCES attempt ON DELETE CASCADE,
    first_step bigint NOT NULL,
    last_step  bigint NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (txid, event_id)
);
CREATE INDEX metric_batch_by_attempt ON metric_batch (attempt_id);
COMMENT ON TABLE metric_batch IS 'Which steps of an attempt''s curves were stored in which transaction, for `sweep events --metrics`. Curves of before version 18 of the schema have none.';
COMMENT ON COLUMN metric_batch.txid IS 'Number of the transaction.';
COMMENT ON COLUMN metric_batch.event_id IS 'Its place among the entries of the table event, by whose counter it is numbered.';
COMMENT ON COLUMN metric_batch.first_step IS 'First step of the table metric that it added.';
COMMENT ON COLUMN metric_batch.last_step IS 'Last step that it added.';
