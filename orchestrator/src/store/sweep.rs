//! Sweeps: the plan as rows. Everything is known by a key, so storing a plan again changes nothing.

use std::path::Path;

use protocol::JobSpec;

use super::{Store, StoreError, doing};
use crate::plan::Plan;

/// One sweep in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepSummary {
    /// Name.
    pub name: String,
    /// What it is to answer.
    pub question: String,
    /// Jobs.
    pub jobs: i64,
    /// Of these, done.
    pub done: i64,
    /// Failed.
    pub failed: i64,
    /// Claimed by a worker.
    pub running: i64,
    /// Cancelled.
    pub cancelled: i64,
}

impl Store {
    /// Stores pools, sweep and jobs of a plan in one transaction, and gives the sweep's row. Jobs that other sweeps
    /// asked for already are shared; jobs that the sweep no longer asks for leave it, but stay.
    pub async fn sweep_upsert(&self, plan: &Plan) -> Result<i64, StoreError> {
        let failed = doing("can't store the plan");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let mut pools: Vec<_> = plan.pools.iter().collect();
        pools.sort_by(|one, two| one.source.digest.cmp(&two.source.digest));
        for pool in pools {
            let manifest = pool.manifest.as_ref().map(|manifest| serde_json::json!(manifest));
            sqlx::query!(
                "INSERT INTO pool (digest, name, path, samples, manifest) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                pool.source.digest,
                pool.source.pool,
                pool.source.path.display().to_string(),
                pool.samples.cast_signed(),
                manifest,
            )
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        }
        let sweep_id = sqlx::query_scalar!(
            "INSERT INTO sweep (name, question, spec) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET question = excluded.question, spec = excluded.spec, updated_at = now()
             WHERE sweep.source IS NULL
             RETURNING sweep_id",
            plan.name,
            plan.question,
            plan.spec_source,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?
        .ok_or_else(|| StoreError::SweepImported { name: plan.name.clone() })?;

        let jobs = &plan.jobs;
        let keys: Vec<String> = jobs.iter().map(|job| job.job_key.clone()).collect();
        let specs = column(plan, |job| serde_json::json!(with_absolute_paths(&job.spec, &plan.base_dir)));
        // In the order of their keys, as pools are, so that two launches of overlapping sweeps can't wait for each
        // other in a circle.
        sqlx::query!(
            "INSERT INTO job (job_key, spec, runner, runner_version, model, parameters, image_parameters,
                              text_parameters, pool, data_size, samples_seen, unique_samples, seed,
                              gmacs_samples, train_flops, six_nd)
             SELECT given.* FROM unnest($1::text[], $2::jsonb[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                                        $7::bigint[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[],
                                        $12::bigint[], $13::bigint[], $14::float8[], $15::float8[], $16::float8[])
                  AS given (job_key, spec, runner, runner_version, model, parameters, image_parameters,
                            text_parameters, pool, data_size, samples_seen, unique_samples, seed,
                            gmacs_samples, train_flops, six_nd)
             ORDER BY given.job_key
             ON CONFLICT (job_key) DO NOTHING",
            &keys,
            &specs,
            &column(plan, |job| job.spec.runner.name.clone()),
            &column(plan, |job| job.spec.runner.version.clone()),
            &column(plan, |job| job.spec.model.name.clone()),
            &column(plan, |job| job.size.parameters().cast_signed()),
            &column(plan, |job| job.size.image_parameters.cast_signed()),
            &column(plan, |job| job.size.text_parameters.cast_signed()),
            &column(plan, |job| job.spec.data.digest.clone()),
            &column(plan, |job| job.spec.data_size.cast_signed()),
            &column(plan, |job| job.spec.samples_seen.cast_signed()),
            &column(plan, |job| job.unique_samples.cast_signed()),
            &column(plan, |job| job.spec.seed.cast_signed()),
            &column(plan, |job| job.compute.gmacs_samples),
            &column(plan, |job| job.compute.train_flops),
            &column(plan, |job| job.compute.six_nd),
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;

        // Paths are no part of a job's key: where the data lie now counts for what is still to run.
        sqlx::query!(
            "UPDATE job SET spec = given.spec FROM unnest($1::text[], $2::jsonb[]) AS given (job_key, spec)
             WHERE job.job_key = given.job_key AND job.state IN ('pending', 'failed', 'cancelled')
                   AND job.spec <> given.spec",
            &keys,
            &specs,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;

        sqlx::query!(
            "DELETE FROM sweep_job USING job
             WHERE sweep_job.sweep_id = $1 AND job.job_id = sweep_job.job_id AND job.job_key <> ALL ($2)",
            sweep_id,
            &keys,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        sqlx::query!(
            "INSERT INTO sweep_job (sweep_id, job_id, position)
             SELECT $1, job.job_id, (given.position - 1)::integer
             FROM unnest($2::text[]) WITH ORDINALITY AS given (job_key, position) JOIN job USING (job_key)
             ON CONFLICT (sweep_id, job_id) DO UPDATE SET position = excluded.position",
            sweep_id,
            &keys,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        Ok(sweep_id)
    }

    /// Row of the sweep with this name.
    pub async fn sweep_find(&self, name: &str) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar!("SELECT sweep_id FROM sweep WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await
            .map_err(doing("can't look up the sweep"))
    }

    /// All sweeps, by name, with the number of their jobs by state.
    pub async fn sweep_list(&self) -> Result<Vec<SweepSummary>, StoreError> {
        sqlx::query_as!(
            SweepSummary,
            r#"SELECT s.name, s.question, count(j.job_id) AS "jobs!",
                      count(*) FILTER (WHERE j.state = 'done') AS "done!",
                      count(*) FILTER (WHERE j.state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE j.state = 'running') AS "running!",
                      count(*) FILTER (WHERE j.state = 'cancelled') AS "cancelled!"
               FROM sweep s LEFT JOIN sweep_job USING (sweep_id) LEFT JOIN job j USING (job_id)
               GROUP BY s.sweep_id ORDER BY s.name"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't list the sweeps"))
    }
}

/// The spec with paths that hold whatever folder the next launcher starts in.
fn with_absolute_paths(spec: &JobSpec, base_dir: &Path) -> JobSpec {
    let mut spec = spec.clone();
    spec.data.path = base_dir.join(&spec.data.path);
    for evaluation in &mut spec.evaluations {
        evaluation.data.path = base_dir.join(&evaluation.data.path);
    }
    spec
}

/// One column of the jobs.
fn column<T>(plan: &Plan, value: impl Fn(&crate::plan::PlannedJob) -> T) -> Vec<T> {
    plan.jobs.iter().map(value).collect()
}
