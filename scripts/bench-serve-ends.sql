-- What the history costs at the end of a job, for scripts/bench-serve.sh: the statements that end one (an attempt and its job change,
-- its last batch of 64 steps is stored), without and with the entries of the history, each for 2,000 jobs of the store that is
-- there. Rolled back.
BEGIN;
DO $$
DECLARE
    jobs bigint[]; one bigint; begun timestamptz; secs double precision[] := '{}'; with_history boolean; round integer; step bigint := 10000000;
BEGIN
    SELECT array_agg(job_id) INTO jobs FROM (SELECT job_id FROM job WHERE state = 'done' ORDER BY job_id LIMIT 2000) first;
    FOR round IN 1..3 LOOP
        FOREACH with_history IN ARRAY ARRAY[false, true] LOOP
            step := step + 1000;
            begun := clock_timestamp();
            FOREACH one IN ARRAY jobs LOOP
                INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
                SELECT a.attempt_id, n.metric_id, step + s, s, 1.5 FROM generate_series(1, 32) s, metric_name n,
                       LATERAL (SELECT attempt_id FROM attempt WHERE job_id = one ORDER BY attempt_id DESC LIMIT 1) a
                WHERE n.name IN ('loss', 'lr');
                UPDATE attempt SET ended_at = clock_timestamp() WHERE job_id = one AND state = 'finished';
                UPDATE job SET state = 'done', done_at = clock_timestamp() WHERE job_id = one;
                IF with_history THEN
                    INSERT INTO metric_batch (attempt_id, first_step, last_step)
                    SELECT attempt_id, 1, 32 FROM attempt WHERE job_id = one ORDER BY attempt_id DESC LIMIT 1;
                    INSERT INTO event (job_id, attempt_id, kind)
                    SELECT one, attempt_id, 'finished' FROM attempt WHERE job_id = one ORDER BY attempt_id DESC LIMIT 1;
                END IF;
            END LOOP;
            secs := secs || extract(epoch FROM clock_timestamp() - begun)::float8;
        END LOOP;
    END LOOP;
    RAISE NOTICE 'end of a job without the history % ms, with it % ms (least of three times 2,000)',
        round((least(secs[1], secs[3], secs[5]) / 2)::numeric, 3), round((least(secs[2], secs[4], secs[6]) / 2)::numeric, 3);
END
$$;
ROLLBACK;
