-- Fits of before 0013 to recalls of clip-runner 0.1.0 to 0.4.0 were fits to grouped ones: they are named as their rows are
-- since. Those that have rows of anybody else keep their name. What they were known by was made of the old name.
DO $$
DECLARE
    renamed timestamptz;
BEGIN
    -- Only sqlx notes when a migration was applied.
    IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
        EXECUTE 'SELECT installed_on FROM _sqlx_migrations WHERE version = 13' INTO renamed;
    END IF;
    UPDATE fit
    SET metric = replace(metric, '_retrieval_recall@', '_retrieval_recall_grouped@'), identity = 'before 0015: ' || identity
    WHERE metric LIKE '%\_retrieval\_recall@%' AND created_at < coalesce(renamed, now())
          AND NOT EXISTS (
              SELECT FROM jsonb_array_elements(observations -> 'rows') given
              LEFT JOIN job j ON j.job_key = given ->> 'job_key'
              WHERE (j.source IS NULL AND j.runner = 'clip' AND j.runner_version IN ('0.1.0', '0.2.0', '0.3.0', '0.4.0'))
                    IS NOT TRUE);
END
$$;
