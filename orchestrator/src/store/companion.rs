//! Jobs that measure checkpoints of other jobs, and what they measure as rows of those that were trained.
//!
//! Which checkpoints a job measures is recorded before it is started. Its measurements are copied in the transaction
//! that ends it; those of a job that is done already, in the transaction that records it. Both lock the measuring job
//! first, so that one of the two sees the other.

use protocol::JobSpec;
use serde::Serialize;
use sqlx::PgConnection;

use super::{StateCounts, Store, StoreError, doing, sweep};
use crate::plan::{Plan, PlannedJob};

/// A checkpoint of a job.
#[derive(Debug, Clone)]
pub struct CheckpointOf {
    /// The job that was trained.
    pub job_key: String,
    /// Its model's name.
    pub model: String,
    /// What was trained; `None`: it was imported.
    pub spec: Option<JobSpec>,
    /// Of an imported run, arguments that change its model or what that makes of an image.
    pub sees: Option<std::collections::BTreeMap<String, String>>,
    /// Whether the job is done: nothing more comes of it.
    pub done: bool,
    /// Whether other jobs of the sweep go on from it.
    pub is_trunk: bool,
    /// Samples of the whole job, where they are known.
    pub samples_total: Option<i64>,
    /// The attempt that wrote the checkpoint.
    pub attempt_id: i64,
    /// Samples seen at it.
    pub samples_seen: i64,
    /// Its folder or file, as the runner said it.
    pub path: String,
    /// Its sha256, as the runner said it.
    pub sha256: String,
    /// What is measured there already: data set and metric.
    pub measured: Vec<(String, String)>,
}

/// A measurement as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasurementRow {
    /// The job that was trained, or that only measures.
    pub job_key: String,
    /// Its model's name.
    pub model: String,
    /// Samples seen when it was measured; 0 of a job that only measures.
    pub samples_seen: i64,
    /// Data set.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Accuracies and recalls are fractions; losses are nats.
    pub value: f64,
    /// Over the test items.
    pub standard_error: Option<f64>,
    /// What guessing gives.
    pub chance: Option<f64>,
    /// Test items.
    pub count: Option<i64>,
    /// sha256 of the checkpoint, where there was one.
    pub checkpoint: Option<String>,
    /// Key of the job that measured it apart from training.
    pub measured_by: Option<String>,
}

/// A checkpoint and the job that is to measure it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Key of the job that measures.
    pub job_key: String,
    /// The attempt that wrote the checkpoint.
    pub attempt_id: i64,
    /// Samples seen at it.
    pub samples_seen: i64,
}

/// Jobs of a sweep that measure checkpoints of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct CompanionProgress {
    /// Name of the sweep that they are in.
    pub sweep: String,
    /// By state.
    pub counts: StateCounts,
}

impl Store {
    /// Checkpoints of a sweep's jobs, or of those that are done, which no later attempt did again, in plan order, by
    /// samples seen; of several at one place, the last. Without those that are `known` by attempt and samples seen.
    pub async fn companion_checkpoints(
        &self,
        sweep_id: i64,
        done_only: bool,
        known: &[(i64, i64)],
    ) -> Result<Vec<CheckpointOf>, StoreError> {
        let failed = doing("can't read the checkpoints of the sweep");
        let (attempts, positions): (Vec<i64>, Vec<i64>) = known.iter().copied().unzip();
        let rows = sqlx::query!(
            r#"SELECT j.job_key, j.model, CASE WHEN j.source IS NULL THEN js.spec END AS "spec?",
                      CASE WHEN j.source IS NOT NULL THEN jsonb_strip_nulls(
                          coalesce(j.source_detail->'sees', '{}')
                          || jsonb_build_object('force_image_size', j.source_detail->'params'->'force_image_size',
                                                'force_context_length', j.source_detail->'params'->'force_context_length'))
                      END AS "sees?",
                      j.state = 'done' AS "done!", j.samples_seen AS samples_total,
                      EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = $1) AS "is_trunk!",
                      c.attempt_id AS "attempt_id!", c.samples_seen AS "samples_seen!", c.path AS "path!", c.sha256 AS "sha256!",
                      ARRAY(SELECT m.dataset FROM measurement m WHERE m.job_id = j.job_id AND m.samples_seen = c.samples_seen
                            ORDER BY m.dataset, m.metric) AS "datasets!",
                      ARRAY(SELECT m.metric FROM measurement m WHERE m.job_id = j.job_id AND m.samples_seen = c.samples_seen
                            ORDER BY m.dataset, m.metric) AS "metrics!"
               FROM sweep_job sj JOIN job j USING (job_id) LEFT JOIN job_spec js USING (job_id)
               CROSS JOIN LATERAL (
                   SELECT DISTINCT ON (c.samples_seen) c.attempt_id, c.samples_seen, c.path, c.sha256
                   FROM checkpoint_current c WHERE c.job_id = j.job_id ORDER BY c.samples_seen, c.fence DESC) c
               WHERE sj.sweep_id = $1 AND (j.state = 'done' OR NOT $2)
                     AND NOT EXISTS (SELECT FROM unnest($3::bigint[], $4::bigint[]) AS known (attempt_id, samples_seen)
                                     WHERE known.attempt_id = c.attempt_id AND known.samples_seen = c.samples_seen)
               ORDER BY sj.position, c.samples_seen"#,
            sweep_id,
            done_only,
            &attempts,
            &positions
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let spec = row.spec.map(serde_json::from_value).transpose();
            let spec = spec.map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
            let sees = row.sees.map(serde_json::from_value).transpose();
            let sees = sees.map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
            found.push(CheckpointOf {
                job_key: row.job_key,
                model: row.model,
                spec,
                sees,
                done: row.done,
                is_trunk: row.is_trunk,
                samples_total: row.samples_total,
                attempt_id: row.attempt_id,
                samples_seen: row.samples_seen,
                path: row.path,
                sha256: row.sha256,
                measured: row.datasets.into_iter().zip(row.metrics).collect(),
            });
        }
        Ok(found)
    }

    /// Jobs that were recorded to measure checkpoints of these attempts, and their specs.
    pub async fn companion_specs(&self, attempts: &[i64]) -> Result<Vec<(Companion, JobSpec)>, StoreError> {
        let failed = doing("can't read what measures the checkpoints");
        let rows = sqlx::query!(
            r#"SELECT j.job_key, c.attempt_id, c.samples_seen, js.spec
               FROM companion c JOIN job j USING (job_id) JOIN job_spec js USING (job_id)
               WHERE c.attempt_id = ANY ($1)"#,
            attempts
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let parsed = rows.into_iter().map(|row| {
            let (job_key, attempt_id, samples_seen) = (row.job_key, row.attempt_id, row.samples_seen);
            Ok((Companion { job_key, attempt_id, samples_seen }, serde_json::from_value(row.spec)?))
        });
        parsed.collect::<Result<_, serde_json::Error>>().map_err(|error| failed(sqlx::Error::Decode(error.into())))
    }

    /// What is measured of these jobs, by job, position, data set and metric.
    pub async fn measurement_list(&self, job_keys: &[String]) -> Result<Vec<MeasurementRow>, StoreError> {
        sqlx::query_as!(
            MeasurementRow,
            r#"SELECT j.job_key, j.model, m.samples_seen AS "samples_seen!", m.dataset AS "dataset!", m.metric AS "metric!",
                      m.value AS "value!", m.standard_error, m.chance, m.count, m.checkpoint,
                      (SELECT by.job_key FROM job by WHERE by.job_id = m.measured_by) AS measured_by
               FROM unnest($1::text[]) WITH ORDINALITY AS given (job_key, place)
               JOIN job j USING (job_key) JOIN measurement m USING (job_id)
               ORDER BY given.place, m.samples_seen, m.dataset, m.metric"#,
            job_keys
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read what was measured"))
    }

    /// Records which checkpoints stored jobs measure, and copies what those that are done have measured. Recording it
    /// again changes nothing. Gives what a copy would contradict, in words, in place of recording it.
    pub async fn companion_record(&self, companions: &[Companion]) -> Result<Option<String>, StoreError> {
        let failed = doing("can't record what is to be measured");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let contradiction = record(&mut tx, companions).await.map_err(&failed)?;
        if contradiction.is_none() {
            tx.commit().await.map_err(&failed)?;
        }
        Ok(contradiction)
    }

    /// Adds jobs that measure checkpoints to the sweep of the plan, behind those that it has, and records what they
    /// measure, as [`Store::companion_record`] does, in one transaction. What is there already stays as it is. Gives
    /// the sweep.
    pub async fn companion_add(
        &self,
        plan: &Plan,
        companions: &[Companion],
    ) -> Result<Result<i64, String>, StoreError> {
        let failed = doing("can't record what is to be measured");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let sweep_id = sweep::upsert(&mut tx, plan).await.map_err(&failed)?;
        let sweep_id = sweep_id.ok_or_else(|| StoreError::SweepImported { name: plan.name.clone() })?;
        let keys: Vec<String> = plan.jobs.iter().map(|job| job.job_key.clone()).collect();
        let mut jobs: Vec<&PlannedJob> = plan.jobs.iter().collect();
        jobs.sort_by(|one, two| one.job_key.cmp(&two.job_key));
        sweep::jobs_upsert(&mut tx, &jobs, &plan.base_dir).await.map_err(&failed)?;
        sqlx::query!(
            "WITH last AS MATERIALIZED (SELECT coalesce(max(position), -1) AS position FROM sweep_job WHERE sweep_id = $1)
             INSERT INTO sweep_job (sweep_id, job_id, position)
             SELECT $1, job.job_id, (last.position + row_number() OVER (ORDER BY given.nth))::integer
             FROM unnest($2::text[]) WITH ORDINALITY AS given (job_key, nth) JOIN job USING (job_key), last
             WHERE NOT EXISTS (SELECT FROM sweep_job WHERE sweep_id = $1 AND job_id = job.job_id)",
            sweep_id,
            &keys
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        if let Some(contradiction) = record(&mut tx, companions).await.map_err(&failed)? {
            return Ok(Err(contradiction));
        }
        tx.commit().await.map_err(&failed)?;
        Ok(Ok(sweep_id))
    }

    /// How far the measuring of checkpoints of a sweep's jobs apart from training is, by sweeps that do it.
    pub async fn companion_progress(&self, sweep_id: i64) -> Result<Vec<CompanionProgress>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT by_sweep.name, count(*) FILTER (WHERE j.state = 'pending') AS "pending!",
                      count(*) FILTER (WHERE j.state = 'running') AS "running!",
                      count(*) FILTER (WHERE j.state = 'done') AS "done!",
                      count(*) FILTER (WHERE j.state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE j.state = 'cancelled') AS "cancelled!"
               FROM (SELECT DISTINCT c.job_id FROM sweep_job sj JOIN attempt a USING (job_id) JOIN companion c USING (attempt_id)
                     WHERE sj.sweep_id = $1) measuring
               JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id) JOIN sweep by_sweep USING (sweep_id)
               GROUP BY by_sweep.name ORDER BY by_sweep.name"#,
            sweep_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't count what measures the sweep"))?;
        let progress = rows.into_iter().map(|row| CompanionProgress {
            sweep: row.name,
            counts: StateCounts {
                pending: row.pending,
                running: row.running,
                done: row.done,
                failed: row.failed,
                cancelled: row.cancelled,
            },
        });
        Ok(progress.collect())
    }
}

/// Records in a transaction which checkpoints stored jobs measure: see [`Store::companion_record`].
async fn record(tx: &mut PgConnection, companions: &[Companion]) -> Result<Option<String>, sqlx::Error> {
    let keys: Vec<String> = companions.iter().map(|companion| companion.job_key.clone()).collect();
    let attempts: Vec<i64> = companions.iter().map(|companion| companion.attempt_id).collect();
    let positions: Vec<i64> = companions.iter().map(|companion| companion.samples_seen).collect();
    let jobs = sqlx::query!("SELECT job_id, state FROM job WHERE job_key = ANY ($1) ORDER BY job_id FOR UPDATE", &keys)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query!(
        "INSERT INTO companion (job_id, attempt_id, samples_seen)
         SELECT job.job_id, given.attempt_id, given.samples_seen
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS given (job_key, attempt_id, samples_seen)
         JOIN job USING (job_key)
         ON CONFLICT DO NOTHING",
        &keys,
        &attempts,
        &positions
    )
    .execute(&mut *tx)
    .await?;
    for job in jobs.iter().filter(|job| job.state == "done") {
        if let Some(contradiction) = contradiction(tx, job.job_id).await? {
            return Ok(Some(contradiction));
        }
        copy(tx, job.job_id).await?;
    }
    Ok(None)
}

/// A value that a job has measured of a checkpoint, and another one that is there.
pub(super) async fn contradiction(tx: &mut PgConnection, job_id: i64) -> Result<Option<String>, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT trained.job_key, m.dataset AS "dataset!", m.metric AS "metric!", c.samples_seen,
                  m.value AS "measured!", there.value AS "stored!"
           FROM companion c
           JOIN measurement m USING (job_id)
           JOIN attempt a ON a.attempt_id = c.attempt_id
           JOIN job trained ON trained.job_id = a.job_id
           JOIN measurement there ON there.job_id = a.job_id AND there.samples_seen = c.samples_seen
                                     AND there.dataset = m.dataset AND there.metric = m.metric
           WHERE c.job_id = $1 AND there.value <> m.value
           ORDER BY m.dataset, m.metric LIMIT 1"#,
        job_id
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.map(|row| {
        format!(
            "`{}` of `{}` at {} samples of job {} is {} here, and {} is stored",
            row.metric,
            row.dataset,
            row.samples_seen,
            &row.job_key[..12],
            row.measured,
            row.stored
        )
    }))
}

/// Gives the trained jobs what a job has measured of their checkpoints; what they have stays.
pub(super) async fn copy(tx: &mut PgConnection, job_id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH added AS (
             INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count,
                                     checkpoint, measured_by)
             SELECT c.attempt_id, m.dataset, m.metric, c.samples_seen, m.value, m.standard_error, m.chance, m.count,
                    k.sha256, m.job_id
             FROM companion c
             JOIN measurement m USING (job_id)
             JOIN attempt a ON a.attempt_id = c.attempt_id
             JOIN checkpoint k ON k.attempt_id = c.attempt_id AND k.samples_seen = c.samples_seen
             WHERE c.job_id = $1
                   AND NOT EXISTS (SELECT FROM measurement there
                                   WHERE there.job_id = a.job_id AND there.samples_seen = c.samples_seen
                                         AND there.dataset = m.dataset AND there.metric = m.metric)
             ON CONFLICT DO NOTHING RETURNING attempt_id, dataset, samples_seen)
         INSERT INTO event (attempt_id, kind, detail, samples_seen)
         SELECT DISTINCT attempt_id, 'measured', dataset, samples_seen FROM added",
        job_id
    )
    .execute(tx)
    .await
    .map(drop)
}
