//! Imported rows in the database: what is stored of them, and the statements that write them, each for many at once.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{ImportedJob, ImportedPool, ImportedStudy, former_key, imported_key};

/// Jobs in one statement: their JSON has to stay far below what a value may hold.
const JOBS_AT_ONCE: usize = 5_000;
/// Measurements in one statement.
const EVALUATIONS_AT_ONCE: usize = 50_000;

/// Data set, metric and samples seen of a measurement.
pub(super) type Position = (String, String, i64);

/// What was measured at a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) standard_error: Option<f64>,
    pub(super) chance: Option<f64>,
    pub(super) count: Option<i64>,
}

/// A job of the source, as it would be stored.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) job: &'a ImportedJob,
    pub(super) key: String,
    former: String,
    /// Columns that are compared with what is stored.
    pub(super) compared: Value,
    /// All of them, and the key.
    columns: Value,
    /// With samples seen as stored: those of the job where the source does not say.
    pub(super) evaluations: Vec<(Position, Measured)>,
}

/// A job as it is stored.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) job_id: i64,
    /// Under a key of an older version.
    is_former: bool,
    /// By an older version, and in other sweeps too.
    pub(super) is_shared: bool,
    pub(super) columns: Value,
    pub(super) detail: Value,
    pub(super) evaluations: HashMap<Position, Measured>,
}

/// Measurements to take out.
#[derive(Debug, Default)]
pub(super) struct Gone {
    jobs: Vec<i64>,
    datasets: Vec<String>,
    metrics: Vec<String>,
    samples: Vec<i64>,
}

impl Gone {
    pub(super) fn extend(&mut self, job_id: i64, positions: &[Position]) {
        for (dataset, metric, samples) in positions {
            self.jobs.push(job_id);
            self.datasets.push(dataset.clone());
            self.metrics.push(metric.clone());
            self.samples.push(*samples);
        }
    }
}

pub(super) async fn insert_pools(tx: &mut PgConnection, study: &ImportedStudy) -> Result<(), sqlx::Error> {
    let mut pools: Vec<&ImportedPool> = study.jobs.iter().filter_map(|job| job.pool.as_ref()).collect();
    pools.sort_by(|a, b| (&a.name, a.samples).cmp(&(&b.name, b.samples)));
    pools.dedup();
    for pool in pools {
        sqlx::query!(
            "INSERT INTO pool (digest, name, path, samples) VALUES ($1, $2, '', $3) ON CONFLICT DO NOTHING",
            pool.digest(),
            pool.name,
            pool.samples
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

pub(super) fn given(study: &ImportedStudy) -> Vec<Given<'_>> {
    study.jobs.iter().map(|job| given_job(study, job)).collect()
}

fn given_job<'a>(study: &ImportedStudy, job: &'a ImportedJob) -> Given<'a> {
    let whole = |value: Option<f64>| value.map(|value| (value.round() as i64).max(1));
    let exact = |value: Option<f64>| value.filter(|value| value.fract() != 0.0);
    let size = |pool: &ImportedPool| pool.samples.map_or("unknown size".to_owned(), |samples| samples.to_string());
    let compared = json!({
        "model": job.model, "parameters": whole(job.parameters), "image_parameters": whole(job.image_parameters),
        "text_parameters": whole(job.text_parameters),
        "pool": job.pool.as_ref().map(|pool| format!("{}, {}", pool.name, size(pool))),
        "data_size": whole(job.data_size), "samples_seen": whole(job.samples_seen),
        "unique_samples": whole(job.unique_samples), "seed": job.seed, "gmacs_samples": job.gmacs_samples,
        "train_flops": job.train_flops, "six_nd": job.six_nd, "exact_n": exact(job.parameters),
        "exact_d": exact(job.samples_seen), "exact_u": exact(job.unique_samples), "train_secs": job.train_secs,
        "gpus": job.gpus,
    });
    let key = imported_key(study, &job.identity);
    let mut columns = compared.clone();
    columns["pool"] = json!(job.pool.as_ref().map(ImportedPool::digest));
    columns["job_key"] = json!(key);
    columns["detail"] = job.detail.clone();
    columns["spec"] = spec(job, study);
    let end = whole(job.samples_seen).unwrap_or(0);
    let evaluations = job.evaluations.iter().map(|row| {
        let position = (row.dataset.clone(), row.metric.clone(), row.samples_seen.unwrap_or(end));
        let (value, standard_error, chance, count) = (row.value, row.standard_error, row.chance, row.count);
        (position, Measured { value, standard_error, chance, count })
    });
    // A point of a curve may be the end by rounding to whole samples; a statement can't write one row twice.
    let mut seen = HashSet::new();
    let evaluations = evaluations.filter(|(position, _)| seen.insert(position.clone())).collect();
    Given { job, key, former: former_key(study.source, &job.former), compared, columns, evaluations }
}

fn spec(job: &ImportedJob, study: &ImportedStudy) -> Value {
    json!({ "imported": job.identity, "study": study.name })
}

/// What is stored of these jobs, by position: under their keys, or in this sweep under those of an older version.
pub(super) async fn known(
    tx: &mut PgConnection,
    sweep_id: i64,
    given: &[Given<'_>],
) -> Result<HashMap<usize, Known>, sqlx::Error> {
    let keys: Vec<String> = given.iter().map(|row| row.key.clone()).collect();
    let formers: Vec<String> = given.iter().map(|row| row.former.clone()).collect();
    let found = sqlx::query!(
        r#"WITH given AS (SELECT * FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS given (key, former, nth)),
           found AS (
               SELECT nth, job_id, false AS is_former FROM given JOIN job ON job_key = given.key
               UNION ALL
               SELECT nth, job_id, true FROM given JOIN job ON job_key = given.former
               JOIN sweep_job USING (job_id) WHERE sweep_id = $1)
           SELECT DISTINCT ON (found.nth) found.nth AS "nth!", j.job_id, found.is_former AS "is_former!",
                  found.is_former AND EXISTS (SELECT FROM sweep_job other
                                              WHERE other.job_id = j.job_id AND other.sweep_id <> $1) AS "is_shared!",
                  jsonb_build_object(
                      'model', j.model, 'parameters', j.parameters, 'image_parameters', j.image_parameters,
                      'text_parameters', j.text_parameters,
                      'pool', p.name || ', ' || coalesce(p.samples::text, 'unknown size'), 'data_size', j.data_size,
                      'samples_seen', j.samples_seen, 'unique_samples', j.unique_samples, 'seed', j.seed,
                      'gmacs_samples', j.gmacs_samples, 'train_flops', j.train_flops, 'six_nd', j.six_nd,
                      'exact_n', j.exact_n, 'exact_d', j.exact_d, 'exact_u', j.exact_u, 'train_secs', a.train_secs,
                      'gpus', a.gpus) AS "columns!",
                  coalesce(j.source_detail, '{}') AS "detail!"
           FROM found JOIN job j USING (job_id) JOIN attempt a ON a.job_id = j.job_id AND a.fence = 1
           LEFT JOIN pool p ON p.digest = j.pool
           ORDER BY found.nth, found.is_former"#,
        sweep_id,
        &keys,
        &formers
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut known = HashMap::new();
    let mut positions = HashMap::new();
    for row in found {
        let at = (row.nth - 1) as usize;
        positions.insert(row.job_id, at);
        let (is_former, is_shared) = (row.is_former, row.is_shared);
        let evaluations = HashMap::new();
        let (job_id, columns, detail) = (row.job_id, row.columns, row.detail);
        known.insert(at, Known { job_id, is_former, is_shared, columns, detail, evaluations });
    }
    let ids: Vec<i64> = positions.keys().copied().collect();
    let rows = sqlx::query!(
        "SELECT a.job_id, e.dataset, e.metric, e.samples_seen, e.value, e.standard_error, e.chance, e.count
         FROM attempt a JOIN evaluation e USING (attempt_id) WHERE a.job_id = ANY ($1) AND e.measured_by IS NULL",
        &ids
    )
    .fetch_all(&mut *tx)
    .await?;
    for row in rows {
        let measured =
            Measured { value: row.value, standard_error: row.standard_error, chance: row.chance, count: row.count };
        let known = positions.get(&row.job_id).and_then(|at| known.get_mut(at)).expect("these jobs were asked for");
        known.evaluations.insert((row.dataset, row.metric, row.samples_seen), measured);
    }
    Ok(known)
}

/// Takes jobs out of a sweep.
pub(super) async fn leave(tx: &mut PgConnection, sweep_id: i64, jobs: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM sweep_job WHERE sweep_id = $1 AND job_id = ANY ($2)", sweep_id, jobs)
        .execute(tx)
        .await
        .map(|_| ())
}

/// Gives jobs of older versions their key.
pub(super) async fn rekey(
    tx: &mut PgConnection,
    given: &[Given<'_>],
    known: &HashMap<usize, Known>,
) -> Result<(), sqlx::Error> {
    let former: Vec<(&Given<'_>, i64)> =
        known.iter().filter(|(_, known)| known.is_former).map(|(at, known)| (&given[*at], known.job_id)).collect();
    if former.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = former.iter().map(|(_, job_id)| *job_id).collect();
    let keys: Vec<String> = former.iter().map(|(row, _)| row.key.clone()).collect();
    let specs: Vec<Value> = former.iter().map(|(row, _)| row.columns["spec"].clone()).collect();
    sqlx::query!(
        "WITH given AS (SELECT * FROM unnest($1::bigint[], $2::text[], $3::jsonb[]) AS given (job_id, key, spec)),
              keyed AS (UPDATE job SET job_key = given.key FROM given WHERE job.job_id = given.job_id),
              named AS (UPDATE attempt SET token = 'import-' || given.key FROM given WHERE attempt.job_id = given.job_id)
         UPDATE job_spec SET spec = given.spec FROM given WHERE job_spec.job_id = given.job_id",
        &ids,
        &keys,
        &specs
    )
    .execute(tx)
    .await
    .map(|_| ())
}

/// Jobs, each with its one attempt. JSON keeps the numbers to the last bit: serde_json and PostgreSQL both write and
/// read the shortest text of a double.
pub(super) async fn insert_jobs(tx: &mut PgConnection, source: &str, new: &[&Given<'_>]) -> Result<(), sqlx::Error> {
    for some in new.chunks(JOBS_AT_ONCE) {
        let columns: Vec<&Value> = some.iter().map(|row| &row.columns).collect();
        sqlx::query!(
            "WITH given AS (
                 SELECT * FROM jsonb_to_recordset($1) AS given (
                     job_key text, detail jsonb, spec jsonb, model text, parameters bigint, image_parameters bigint,
                     text_parameters bigint, pool text, data_size bigint, samples_seen bigint, unique_samples bigint,
                     seed bigint, gmacs_samples float8, train_flops float8, six_nd float8, exact_n float8, exact_d float8,
                     exact_u float8, train_secs float8, gpus integer)),
             added AS (
                 INSERT INTO job (job_key, state, fence, runner, runner_version, model, parameters, image_parameters,
                                  text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples,
                                  train_flops, six_nd, done_at, source, source_detail, exact_n, exact_d, exact_u)
                 SELECT job_key, 'done', 1, 'import', $2, model, parameters, image_parameters, text_parameters, pool,
                        data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd, now(), $3,
                        detail, exact_n, exact_d, exact_u
                 FROM given
                 RETURNING job_id, job_key),
             attempted AS (
                 INSERT INTO attempt (job_id, token, state, backend, fence, folder, resumed_from_samples, samples_seen,
                                      train_secs, gpus, ended_at)
                 SELECT job_id, 'import-' || job_key, 'finished', 'import', 1, '', 0, coalesce(samples_seen, 0),
                        train_secs, gpus, now()
                 FROM added JOIN given USING (job_key)),
             noted AS (INSERT INTO event (job_id, kind, detail) SELECT job_id, 'imported', $3 FROM added)
             INSERT INTO job_spec (job_id, spec) SELECT job_id, spec FROM added JOIN given USING (job_key)",
            json!(columns),
            env!("CARGO_PKG_VERSION"),
            source
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Writes the columns of jobs that are stored.
pub(super) async fn update_jobs(tx: &mut PgConnection, changed: &[&Given<'_>]) -> Result<(), sqlx::Error> {
    for some in changed.chunks(JOBS_AT_ONCE) {
        let columns: Vec<&Value> = some.iter().map(|row| &row.columns).collect();
        sqlx::query!(
            "WITH given AS (
                 SELECT * FROM jsonb_to_recordset($1) AS given (
                     job_key text, detail jsonb, model text, parameters bigint, image_parameters bigint,
                     text_parameters bigint, pool text, data_size bigint, samples_seen bigint, unique_samples bigint,
                     seed bigint, gmacs_samples float8, train_flops float8, six_nd float8, exact_n float8, exact_d float8,
                     exact_u float8, train_secs float8, gpus integer)),
             changed AS (
                 UPDATE job SET model = given.model, parameters = given.parameters,
                        image_parameters = given.image_parameters, text_parameters = given.text_parameters,
                        pool = given.pool, data_size = given.data_size, samples_seen = given.samples_seen,
                        unique_samples = given.unique_samples, seed = given.seed, gmacs_samples = given.gmacs_samples,
                        train_flops = given.train_flops, six_nd = given.six_nd, done_at = now(),
                        source_detail = given.detail, exact_n = given.exact_n, exact_d = given.exact_d,
                        exact_u = given.exact_u
                 FROM given WHERE job.job_key = given.job_key
                 RETURNING job.job_id, job.job_key),
             noted AS (INSERT INTO event (job_id, kind, detail) SELECT job_id, 'imported', 'changed' FROM changed)
             UPDATE attempt SET samples_seen = coalesce(given.samples_seen, 0), train_secs = given.train_secs,
                    gpus = given.gpus, ended_at = now()
             FROM changed JOIN given USING (job_key) WHERE attempt.job_id = changed.job_id",
            json!(columns)
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

pub(super) async fn delete_evaluations(tx: &mut PgConnection, gone: &Gone) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM evaluation e
         USING unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS gone (job_id, dataset, metric, samples_seen)
         JOIN attempt a USING (job_id)
         WHERE e.attempt_id = a.attempt_id AND e.dataset = gone.dataset AND e.metric = gone.metric
               AND e.samples_seen = gone.samples_seen",
        &gone.jobs,
        &gone.datasets,
        &gone.metrics,
        &gone.samples
    )
    .execute(tx)
    .await
    .map(|_| ())
}

/// Writes measurements, each of a job and by its position there; one that is stored gets the value.
pub(super) async fn write_evaluations(
    tx: &mut PgConnection,
    measured: &[(&Given<'_>, usize)],
) -> Result<(), sqlx::Error> {
    for some in measured.chunks(EVALUATIONS_AT_ONCE) {
        let rows = || some.iter().map(|(row, nth)| &row.evaluations[*nth]);
        let keys: Vec<String> = some.iter().map(|(row, _)| row.key.clone()).collect();
        let datasets: Vec<String> = rows().map(|(position, _)| position.0.clone()).collect();
        let metrics: Vec<String> = rows().map(|(position, _)| position.1.clone()).collect();
        let samples: Vec<i64> = rows().map(|(position, _)| position.2).collect();
        let values: Vec<f64> = rows().map(|(_, row)| row.value).collect();
        let errors: Vec<Option<f64>> = rows().map(|(_, row)| row.standard_error).collect();
        let chances: Vec<Option<f64>> = rows().map(|(_, row)| row.chance).collect();
        let counts: Vec<Option<i64>> = rows().map(|(_, row)| row.count).collect();
        sqlx::query!(
            "INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count)
             SELECT a.attempt_id, given.dataset, given.metric, given.samples_seen, given.value, given.standard_error,
                    given.chance, given.count
             FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::float8[], $6::float8[], $7::float8[],
                         $8::bigint[])
                  AS given (job_key, dataset, metric, samples_seen, value, standard_error, chance, count)
             JOIN job j USING (job_key)
             JOIN attempt a ON a.job_id = j.job_id AND a.fence = 1
             ON CONFLICT (attempt_id, dataset, metric, samples_seen) DO UPDATE
             SET value = excluded.value, standard_error = excluded.standard_error, chance = excluded.chance,
                 count = excluded.count, measured_by = NULL, recorded_at = now()",
            &keys,
            &datasets,
            &metrics,
            &samples,
            &values,
            &errors as &[Option<f64>],
            &chances as &[Option<f64>],
            &counts as &[Option<i64>]
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Stores where checkpoints lie; of one that is stored with other bytes nothing changes, and it is told.
pub(super) async fn write_checkpoints(tx: &mut PgConnection, given: &[Given<'_>]) -> Result<Vec<String>, sqlx::Error> {
    let mut notes = Vec::new();
    for row in given {
        let end = row.compared["samples_seen"].as_i64().unwrap_or(0);
        for checkpoint in &row.job.checkpoints {
            let written = sqlx::query!(
                "INSERT INTO checkpoint (attempt_id, samples_seen, step, path, sha256)
                 SELECT a.attempt_id, $2, $3, $4, $5 FROM job j JOIN attempt a ON a.job_id = j.job_id AND a.fence = 1
                 WHERE j.job_key = $1
                 ON CONFLICT (attempt_id, samples_seen) DO UPDATE SET path = excluded.path
                 WHERE checkpoint.sha256 = excluded.sha256",
                row.key,
                checkpoint.samples_seen.unwrap_or(end),
                checkpoint.step,
                checkpoint.path,
                checkpoint.sha256,
            )
            .execute(&mut *tx)
            .await?;
            if written.rows_affected() == 0 {
                notes.push(format!(
                    "{}: {} has other bytes than when it was imported before: the stored one stays",
                    row.job.place, checkpoint.path
                ));
            }
        }
    }
    Ok(notes)
}

/// Puts jobs into a sweep, those that are not in it at its end.
pub(super) async fn join_sweep(tx: &mut PgConnection, sweep_id: i64, given: &[Given<'_>]) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = given.iter().map(|row| row.key.clone()).collect();
    sqlx::query!(
        "INSERT INTO sweep_job (sweep_id, job_id, position)
         SELECT $1, job.job_id,
                (coalesce((SELECT max(position) FROM sweep_job WHERE sweep_id = $1), -1) + given.position)::integer
         FROM unnest($2::text[]) WITH ORDINALITY AS given (job_key, position) JOIN job USING (job_key)
         ON CONFLICT (sweep_id, job_id) DO NOTHING",
        sweep_id,
        &keys
    )
    .execute(tx)
    .await
    .map(|_| ())
}

/// Counts the jobs of a sweep that are none of these, and takes them out on demand.
pub(super) async fn others(
    tx: &mut PgConnection,
    sweep_id: i64,
    given: &[Given<'_>],
    take_out: bool,
) -> Result<u64, sqlx::Error> {
    let keys: Vec<String> = given.iter().map(|row| row.key.clone()).collect();
    let others = sqlx::query_scalar!(
        "SELECT sj.job_id FROM sweep_job sj JOIN job j USING (job_id)
         WHERE sj.sweep_id = $1 AND NOT EXISTS (SELECT FROM unnest($2::text[]) AS given (key) WHERE given.key = j.job_key)",
        sweep_id,
        &keys
    )
    .fetch_all(&mut *tx)
    .await?;
    if take_out {
        leave(tx, sweep_id, &others).await?;
    }
    Ok(others.len() as u64)
}

/// Deletes imported jobs that no sweep has any more: what was measured of them would stand in views like results.
pub(super) async fn delete_orphans(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM job WHERE source IS NOT NULL
         AND NOT EXISTS (SELECT FROM sweep_job WHERE sweep_job.job_id = job.job_id)"
    )
    .execute(tx)
    .await
    .map(|_| ())
}
