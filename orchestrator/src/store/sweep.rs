//! Sweeps: the plan as rows. Everything is known by a key, so storing a plan again changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::{EvaluationPlan, JobSpec};
use sqlx::{PgConnection, Postgres, Transaction};

use super::{StateCounts, Store, StoreError, doing};
use crate::plan::{Plan, PlannedJob};

/// Jobs of one transaction.
const JOBS_AT_A_TIME: usize = 2000;

/// How much of a plan is stored.
#[derive(Debug)]
pub struct StoredPlan {
    /// Row of the sweep.
    pub sweep_id: i64,
    /// Rows of the jobs that are stored, which are the first of the plan.
    job_ids: Vec<i64>,
}

/// How far a sweep is.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepSummary {
    /// Row.
    pub sweep_id: i64,
    /// Name.
    pub name: String,
    /// What it is to answer.
    pub question: String,
    /// Jobs by state.
    pub counts: StateCounts,
    /// Age of the counts, seconds; 0: counted now.
    pub counted_secs_ago: f64,
}

impl Store {
    /// Stores pools and sweep of a plan, and the first of its jobs, in one transaction, so that these can be started;
    /// [`Store::sweep_store_rest`] stores what is left. Jobs that other sweeps asked for already are shared.
    pub async fn sweep_begin(&self, plan: &Plan) -> Result<StoredPlan, StoreError> {
        let failed = doing("can't store the plan");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let sweep_id = upsert(&mut tx, plan).await.map_err(&failed)?;
        let sweep_id = sweep_id.ok_or_else(|| StoreError::SweepImported { name: plan.name.clone() })?;
        let mut stored = StoredPlan { sweep_id, job_ids: Vec::with_capacity(plan.jobs.len()) };
        next_part(tx, plan, &mut stored).await.map_err(&failed)?;
        Ok(stored)
    }

    /// Stores the next jobs of a plan, part by part, each for good. `stored` says how far it is: after an error it can
    /// be called again. In the end, jobs that the sweep no longer asks for leave it, but stay.
    pub async fn sweep_store_rest(&self, plan: &Plan, stored: &mut StoredPlan) -> Result<(), StoreError> {
        let failed = doing("can't store the plan");
        if stored.job_ids.len() >= plan.jobs.len() {
            return Ok(());
        }
        // Without it queries are planned for the few rows that there were, until the server looks by itself. Only the
        // owner may; it is no more than a help.
        let analyze = async || drop(sqlx::raw_sql("ANALYZE job; ANALYZE sweep_job").execute(&self.pool).await);
        analyze().await;
        while stored.job_ids.len() < plan.jobs.len() {
            let tx = self.pool.begin().await.map_err(&failed)?;
            next_part(tx, plan, stored).await.map_err(&failed)?;
        }
        analyze().await;
        Ok(())
    }

    /// Row of the sweep with this name.
    pub async fn sweep_find(&self, name: &str) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar!("SELECT sweep_id FROM sweep WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await
            .map_err(doing("can't look up the sweep"))
    }

    /// The YAML of a sweep as last launched; `None`: it was imported.
    pub async fn sweep_spec(&self, sweep_id: i64) -> Result<Option<String>, StoreError> {
        let row = sqlx::query!("SELECT source, spec FROM sweep WHERE sweep_id = $1", sweep_id)
            .fetch_one(&self.pool)
            .await
            .map_err(doing("can't read the spec of the sweep"))?;
        Ok(row.source.is_none().then_some(row.spec))
    }

    /// All sweeps by name, or the one of this name. Counts of large ones are their launcher's while these are fresh.
    pub async fn sweep_list(&self, name: Option<&str>) -> Result<Vec<SweepSummary>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT sweep_id AS "sweep_id!", sweep AS "name!", question AS "question!", pending AS "pending!",
                      running AS "running!", done AS "done!", failed AS "failed!", cancelled AS "cancelled!",
                      counted_secs_ago AS "counted_secs_ago!"
               FROM sweep_progress WHERE $1::text IS NULL OR sweep = $1 ORDER BY sweep"#,
            name
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't list the sweeps"))?;
        let summary = rows.into_iter().map(|row| SweepSummary {
            sweep_id: row.sweep_id,
            name: row.name,
            question: row.question,
            counts: StateCounts {
                pending: row.pending,
                running: row.running,
                done: row.done,
                failed: row.failed,
                cancelled: row.cancelled,
            },
            counted_secs_ago: row.counted_secs_ago,
        });
        Ok(summary.collect())
    }

    /// Stores what the launcher of a sweep counted, for [`Store::sweep_list`]; `None`: they are to be counted anew.
    pub async fn sweep_note_counts(&self, sweep_id: i64, counts: Option<&StateCounts>) -> Result<(), StoreError> {
        let failed = doing("can't note how far the sweep is");
        let Some(counts) = counts else {
            let forget = sqlx::query!("DELETE FROM sweep_totals WHERE sweep_id = $1", sweep_id);
            return forget.execute(&self.pool).await.map(drop).map_err(failed);
        };
        let StateCounts { pending, running, done, failed: given_up, cancelled } = *counts;
        sqlx::query!(
            "WITH quiet AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
             INSERT INTO sweep_totals SELECT $1, $2, $3, $4, $5, $6, clock_timestamp() FROM quiet
             ON CONFLICT (sweep_id) DO UPDATE SET
                 pending = excluded.pending, running = excluded.running, done = excluded.done, failed = excluded.failed,
                 cancelled = excluded.cancelled, counted_at = excluded.counted_at",
            sweep_id,
            pending,
            running,
            done,
            given_up,
            cancelled
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }
}

/// Stores pools and sweep of a plan, and locks the sweep; `None`: one of that name was imported.
pub(super) async fn upsert(tx: &mut PgConnection, plan: &Plan) -> Result<Option<i64>, sqlx::Error> {
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
        .await?;
    }
    sqlx::query_scalar!(
        "INSERT INTO sweep (name, question, spec) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET question = excluded.question, spec = excluded.spec, updated_at = now()
         WHERE sweep.source IS NULL
         RETURNING sweep_id",
        plan.name,
        plan.question,
        plan.spec_source,
    )
    .fetch_optional(tx)
    .await
}

/// Stores the jobs of a plan that follow those of `stored`, and their places in the sweep, and commits. With the last
/// of them, what is not in the plan leaves the sweep.
async fn next_part(mut tx: Transaction<'_, Postgres>, plan: &Plan, stored: &mut StoredPlan) -> Result<(), sqlx::Error> {
    let begun = stored.job_ids.len();
    let part = &plan.jobs[begun..plan.jobs.len().min(begun + JOBS_AT_A_TIME)];
    // In the order of their keys, as pools are, so that two launches of overlapping sweeps can't wait for each other in
    // a circle.
    let mut order: Vec<usize> = (0..part.len()).collect();
    order.sort_by(|&one, &two| part[one].job_key.cmp(&part[two].job_key));
    let jobs: Vec<&PlannedJob> = order.iter().map(|&index| &part[index]).collect();
    jobs_upsert(&mut tx, &jobs, &plan.base_dir).await?;
    parents_set(&mut tx, &jobs).await?;
    let positions: Vec<i32> = order.iter().map(|&index| i32::try_from(begun + index).unwrap_or(i32::MAX)).collect();
    let job_ids = sqlx::query_scalar!(
        r#"WITH given AS MATERIALIZED (
               SELECT job.job_id, given.position FROM unnest($2::text[], $3::integer[]) AS given (job_key, position)
               JOIN job USING (job_key)),
           placed AS (
               INSERT INTO sweep_job (sweep_id, job_id, position) SELECT $1, job_id, position FROM given ORDER BY job_id
               ON CONFLICT (sweep_id, job_id) DO UPDATE SET position = excluded.position
               WHERE sweep_job.position <> excluded.position)
           SELECT job_id AS "job_id!" FROM given"#,
        stored.sweep_id,
        &column(&jobs, |job| job.job_key.clone()),
        &positions,
    )
    .fetch_all(&mut *tx)
    .await?;
    if begun + part.len() == plan.jobs.len() {
        let all = [&stored.job_ids[..], &job_ids].concat();
        sqlx::query!(
            "DELETE FROM sweep_job WHERE sweep_id = $1 AND job_id NOT IN (SELECT * FROM unnest($2::bigint[]))",
            stored.sweep_id,
            &all
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    stored.job_ids.extend(job_ids);
    Ok(())
}

/// Stores jobs that are not there yet; where the data lie now counts for those that are still to run, since paths are
/// no part of a job's key. A spec is written out only where it is needed: of many jobs that is what takes the time.
pub(super) async fn jobs_upsert(
    tx: &mut PgConnection,
    jobs: &[&PlannedJob],
    base_dir: &Path,
) -> Result<(), sqlx::Error> {
    let known = sqlx::query!(
        "SELECT job_key, state FROM job WHERE job_key = ANY ($1)",
        &column(jobs, |job| job.job_key.clone())
    )
    .fetch_all(&mut *tx)
    .await?;
    let known: BTreeMap<String, String> = known.into_iter().map(|row| (row.job_key, row.state)).collect();
    let state_of = |job: &PlannedJob| known.get(&job.job_key).map(String::as_str);
    let spec_of = |job: &PlannedJob| {
        serde_json::to_string(&with_absolute_paths(job.spec.to_job_spec(), base_dir))
            .expect("a spec is made of plain fields")
    };
    let new: Vec<&PlannedJob> = jobs.iter().copied().filter(|job| state_of(job).is_none()).collect();
    if !new.is_empty() {
        sqlx::query!(
            "WITH given AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                         $7::bigint[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[],
                         $12::bigint[], $13::bigint[], $14::float8[], $15::float8[], $16::float8[], $17::text[])
                  AS given (job_key, spec, runner, runner_version, model, parameters, image_parameters,
                            text_parameters, pool, data_size, samples_seen, unique_samples, seed,
                            gmacs_samples, train_flops, six_nd, init)),
             added AS (
                 INSERT INTO job (job_key, runner, runner_version, model, parameters, image_parameters,
                                  text_parameters, pool, data_size, samples_seen, unique_samples, seed,
                                  gmacs_samples, train_flops, six_nd, init)
                 SELECT job_key, runner, runner_version, model, parameters, image_parameters,
                        text_parameters, pool, data_size, samples_seen, unique_samples, seed,
                        gmacs_samples, train_flops, six_nd, init
                 FROM given ORDER BY job_key
                 ON CONFLICT (job_key) DO NOTHING
                 RETURNING job_id, job_key),
             noted AS (INSERT INTO event (job_id, kind) SELECT job_id, 'queued' FROM added)
             INSERT INTO job_spec (job_id, spec) SELECT job_id, spec::jsonb FROM added JOIN given USING (job_key)",
            &column(&new, |job| job.job_key.clone()),
            &column(&new, spec_of),
            &column(&new, |job| job.spec.runner.name.clone()),
            &column(&new, |job| job.spec.runner.version.clone()),
            &column(&new, |job| job.spec.model.name.clone()),
            &column(&new, |job| job.size.parameters().cast_signed()),
            &column(&new, |job| job.size.image_parameters.cast_signed()),
            &column(&new, |job| job.size.text_parameters.cast_signed()),
            &trained(&new, |job| job.spec.data.digest.clone()) as &[Option<String>],
            &trained(&new, |job| job.spec.data_size.cast_signed()) as &[Option<i64>],
            &trained(&new, |job| job.spec.samples_seen.cast_signed()) as &[Option<i64>],
            &trained(&new, |job| job.unique_samples.cast_signed()) as &[Option<i64>],
            &column(&new, |job| job.spec.seed.cast_signed()),
            &trained(&new, |job| job.compute.gmacs_samples) as &[Option<f64>],
            &trained(&new, |job| job.compute.train_flops) as &[Option<f64>],
            &trained(&new, |job| job.compute.six_nd) as &[Option<f64>],
            &column(&new, |job| job.spec.init.as_ref().map(|init| init.sha256.clone())) as &[Option<String>],
        )
        .execute(&mut *tx)
        .await?;
    }
    let to_run = |job: &&PlannedJob| matches!(state_of(job), Some("pending" | "failed" | "cancelled"));
    let to_run: Vec<&PlannedJob> = jobs.iter().copied().filter(to_run).collect();
    if !to_run.is_empty() {
        sqlx::query!(
            // Another sweep may ask for all checkpoints of a job that they share: they stay.
            r#"UPDATE job_spec SET spec = told.spec
             FROM unnest($1::text[], $2::text[]) AS given (job_key, spec) JOIN job USING (job_key)
             JOIN job_spec was USING (job_id)
             CROSS JOIN LATERAL (
                 SELECT CASE WHEN was.spec #>> '{recipe,keep_checkpoints}' = 'all'
                             THEN jsonb_set(given.spec::jsonb, '{recipe,keep_checkpoints}', '"all"')
                             ELSE given.spec::jsonb END AS spec) told
             WHERE job_spec.job_id = job.job_id AND job.state IN ('pending', 'failed', 'cancelled')
                   AND job_spec.spec <> told.spec"#,
            &column(&to_run, |job| job.job_key.clone()),
            &column(&to_run, spec_of),
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Says which jobs go on from which, of those that were never attempted: others stay with what they began with. A
/// parent stands before its jobs in a plan, so it is stored.
async fn parents_set(tx: &mut PgConnection, jobs: &[&PlannedJob]) -> Result<(), sqlx::Error> {
    let (keys, parents): (Vec<String>, Vec<String>) =
        jobs.iter().filter_map(|job| Some((job.job_key.clone(), job.parent.as_ref()?.job_key.clone()))).unzip();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH locked AS MATERIALIZED (
             SELECT job.job_id, given.parent_key
             FROM unnest($1::text[], $2::text[]) AS given (job_key, parent_key) JOIN job USING (job_key)
             WHERE job.state = 'pending' AND job.fence = 0
                   AND NOT EXISTS (SELECT FROM attempt a WHERE a.job_id = job.job_id AND a.state IN ('intent', 'launched', 'running'))
             ORDER BY job_key FOR UPDATE OF job)
         UPDATE job SET parent = p.job_id, parent_samples = p.samples_seen
         FROM locked JOIN job p ON p.job_key = locked.parent_key
         WHERE job.job_id = locked.job_id AND job.parent IS DISTINCT FROM p.job_id",
        &keys,
        &parents
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The spec with paths that hold whatever folder the next launcher starts in.
fn with_absolute_paths(mut spec: JobSpec, base_dir: &Path) -> JobSpec {
    spec.data.path = base_dir.join(&spec.data.path);
    let text = &mut spec.model.config.text_cfg;
    if let (Some(name), Some(_)) = (&mut text.hf_tokenizer_name, &text.tokenizer_sha256) {
        *name = base_dir.join(&*name).to_string_lossy().into_owned();
    }
    if let Some(init) = &mut spec.init {
        init.path = base_dir.join(&init.path);
    }
    for source in spec.evaluations.iter_mut().flat_map(EvaluationPlan::sources_mut) {
        source.path = base_dir.join(&source.path);
    }
    spec
}

/// One column of the jobs, of what only jobs that train have.
fn trained<T>(jobs: &[&PlannedJob], value: impl Fn(&PlannedJob) -> T) -> Vec<Option<T>> {
    column(jobs, |job| (!job.spec.measures_only()).then(|| value(job)))
}

/// One column of the jobs.
fn column<T>(jobs: &[&PlannedJob], value: impl Fn(&PlannedJob) -> T) -> Vec<T> {
    jobs.iter().map(|job| value(job)).collect()
}
