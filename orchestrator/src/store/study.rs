//! Everything a report shows of one sweep.

use super::tuning;
use super::{Store, StoreError, doing};

pub use ::report::study::{CurvePoint, Study, StudyJob, StudyMeasurement, StudyPool};

/// Points of a curve that a report keeps: each is the mean of what was reported between it and the one before.
pub const CURVE_POINTS: i32 = 100;

impl Store {
    /// A digest of all rows that a report of these sweeps is drawn from.
    pub async fn study_digest(&self, sweeps: &[&str]) -> Result<String, StoreError> {
        let names: Vec<String> = sweeps.iter().map(|&name| name.to_owned()).collect();
        sqlx::query_scalar!(
            r#"WITH jobs AS MATERIALIZED (
                   SELECT j.*, s.name AS of_sweep, sj.position FROM job j JOIN sweep_job sj USING (job_id)
                   JOIN sweep s USING (sweep_id) WHERE s.name = ANY ($1)),
               attempts AS MATERIALIZED (SELECT * FROM attempt WHERE job_id IN (SELECT job_id FROM jobs)),
               part AS (
                   SELECT md5(concat_ws('|', name, question, spec, source)) AS digest FROM sweep WHERE name = ANY ($1)
                   UNION ALL SELECT md5(jobs::text) FROM jobs
                   UNION ALL SELECT md5(attempts::text) FROM attempts
                   UNION ALL SELECT md5(string_agg(concat_ws('|', m.metric_id, m.step, m.samples_seen, m.value), ';'
                                                   ORDER BY m.metric_id, m.step) || m.attempt_id)
                             FROM metric m WHERE m.attempt_id IN (SELECT attempt_id FROM attempts) GROUP BY m.attempt_id
                   UNION ALL SELECT md5(e::text) FROM evaluation e WHERE e.attempt_id IN (SELECT attempt_id FROM attempts)
                   UNION ALL SELECT md5(p::text) FROM pool p
                   UNION ALL SELECT md5(concat_ws('|', s.name, t::text)) FROM tuning t JOIN sweep_tuning USING (tuning_id)
                             JOIN sweep s USING (sweep_id) WHERE s.name = ANY ($1)
                   UNION ALL SELECT md5(concat_ws('|', name, dataset)) FROM aggregate_member)
               SELECT coalesce(md5(string_agg(digest, '' ORDER BY digest)), '') AS "digest!" FROM part"#,
            &names
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't look at what the report is drawn from"))
    }

    /// Names of all sweeps.
    pub async fn study_names(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!("SELECT name FROM sweep ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(|source| StoreError::Query { doing: "listing the sweeps", source })
    }

    /// Reads a sweep in one snapshot; `None` if there is none of that name.
    pub async fn study_read(&self, name: &str) -> Result<Option<Study>, StoreError> {
        self.study_read_rows(name)
            .await
            .map_err(|source| StoreError::Query { doing: "reading a sweep for its report", source })
    }

    async fn study_read_rows(&self, name: &str) -> Result<Option<Study>, sqlx::Error> {
        let mut snapshot = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let Some(sweep) = sqlx::query!(r#"SELECT question, spec, now() AS "now!" FROM sweep WHERE name = $1"#, name)
            .fetch_optional(&mut *snapshot)
            .await?
        else {
            return Ok(None);
        };
        let jobs = sqlx::query_as!(
            StudyJob,
            r#"SELECT j.job_key, j.state, j.reason, last.stderr_tail AS "stderr_tail?", j.runner, j.runner_version, j.model,
                      j.parameters, j.samples_seen, j.data_size, j.unique_samples, j.seed, j.gmacs_samples,
                        j.train_flops,
                      j.six_nd, j.parent_samples, r.is_trunk AS "is_trunk!", r.train_loss, r.train_secs, r.spikes, r.rollbacks, r.skipped_samples, r.data_wait_secs, r.gpu_hours, r.gpu_joules, r.cpu_joules, j.source, r.pool, r.eval_secs, coalesce(r.attempts, 0) AS "attempts!",
                      last.folder AS "folder?", last.device AS "device?", j.done_at
               FROM job j
               JOIN sweep_job sj USING (job_id)
               JOIN sweep s USING (sweep_id)
               JOIN result r ON r.sweep = s.name AND r.job_key = j.job_key
               LEFT JOIN LATERAL (SELECT a.stderr_tail, a.folder, a.device FROM attempt a WHERE a.job_id = j.job_id
                                  ORDER BY a.attempt_id DESC LIMIT 1) last ON true
               WHERE s.name = $1 ORDER BY sj.position, j.job_key"#,
            name
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let curves = sqlx::query_as!(
            CurvePoint,
            r#"SELECT c.job_key AS "job_key!", avg(c.samples_seen)::double precision AS "samples_seen!", avg(c.value) AS "loss!"
               FROM curve c
               JOIN job j USING (job_key)
               JOIN sweep_job sj USING (job_id)
               JOIN sweep s USING (sweep_id)
               WHERE s.name = $1 AND c.metric = 'loss'
               GROUP BY c.job_key, width_bucket(c.samples_seen::double precision, 0, c.samples_seen_total + 1, $2)
               ORDER BY 1, 2"#,
            name,
            CURVE_POINTS
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let measurements = sqlx::query_as!(
            StudyMeasurement,
            r#"SELECT job_key AS "job_key!", dataset AS "dataset!", metric AS "metric!", value AS "value!", standard_error,
                      chance, count
               FROM observation WHERE sweep = $1 ORDER BY dataset, metric, job_key"#,
            name
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let pools = sqlx::query_as!(
            StudyPool,
            r#"WITH asked AS (SELECT j.pool, js.spec FROM job j LEFT JOIN job_spec js USING (job_id) JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id)
                              WHERE s.name = $1)
               SELECT p.name, p.digest, p.path, p.samples, p.manifest FROM pool p
               WHERE p.digest IN (SELECT pool FROM asked)
                  OR p.digest IN (SELECT jsonb_path_query(spec, '$.evaluations[*].**.digest') #>> '{}' FROM asked)
               ORDER BY p.name, p.digest"#,
            name
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let tuned = tuning::list(&mut snapshot, name).await?;
        let tuned_cells = tuning::cells(&mut snapshot, name).await?;
        snapshot.commit().await?;
        Ok(Some(Study {
            name: name.to_owned(),
            question: sweep.question,
            spec: sweep.spec,
            jobs,
            curves,
            measurements,
            pools,
            tuned,
            tuned_cells,
            read_at: sweep.now,
        }))
    }
}
