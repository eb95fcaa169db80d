//! Results that others published, as ordinary jobs: one transaction, known by key, so that importing again changes
//! nothing.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Store, StoreError, doing};
use crate::plan::canonical::canonical;

/// A data set that imported jobs trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedPool {
    /// As published: `LAION-2B`.
    pub name: String,
    /// Pairs, nominal, where it is known.
    pub samples: Option<i64>,
}

/// One measurement of an imported job.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedEvaluation {
    /// Data set measured on.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Samples seen when it was measured; `None`: at the end.
    pub samples_seen: Option<i64>,
    /// Fraction or nats.
    pub value: f64,
    /// Over the test items.
    pub standard_error: Option<f64>,
    /// What guessing gives.
    pub chance: Option<f64>,
    /// Test items.
    pub count: Option<i64>,
}

/// One trained model of a published study. What a table does not say is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportedJob {
    /// What it is, whatever file and sweep it comes in: its key is the hash of this.
    pub identity: Value,
    /// File, hash of the file, the row's own identifiers and hyper-parameters.
    pub detail: Value,
    /// Model's name, or that of the group that rows belong to.
    pub model: String,
    /// Data set trained on.
    pub pool: Option<ImportedPool>,
    /// Unique samples that it may have seen.
    pub data_size: Option<f64>,
    /// N.
    pub parameters: Option<f64>,
    /// Of the image tower.
    pub image_parameters: Option<f64>,
    /// Of the text tower.
    pub text_parameters: Option<f64>,
    /// D.
    pub samples_seen: Option<f64>,
    /// U.
    pub unique_samples: Option<f64>,
    /// C, forward GMACs x samples.
    pub gmacs_samples: Option<f64>,
    /// C, FLOPs of training.
    pub train_flops: Option<f64>,
    /// C, 6 N D.
    pub six_nd: Option<f64>,
    /// Seed.
    pub seed: i64,
    /// Seconds of training.
    pub train_secs: Option<f64>,
    /// GPUs at a time.
    pub gpus: Option<i32>,
    /// Measurements.
    pub evaluations: Vec<ImportedEvaluation>,
}

/// Jobs that become one sweep.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportedStudy {
    /// Name of the sweep.
    pub name: String,
    /// What it is.
    pub question: String,
    /// Kind of source: `openclip-2022`, `clip-benchmark`, `open-clip`, `csv`.
    pub source: &'static str,
    /// In the order of the source.
    pub jobs: Vec<ImportedJob>,
}

/// What an importer read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imported {
    /// Sweeps.
    pub studies: Vec<ImportedStudy>,
    /// What is odd in the source, each with the rows it is about.
    pub warnings: Vec<String>,
    /// Parts of the source that could not be read, which did not keep the others from being imported, and why.
    pub failed: Vec<String>,
}

/// What importing a study changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImportedCounts {
    /// Name of the sweep.
    pub sweep: String,
    /// Jobs in the source.
    pub jobs: u64,
    /// Of these, new.
    pub jobs_new: u64,
    /// Jobs of earlier imports that the sweep holds beside these, or that `replace` took out of it.
    pub jobs_other: u64,
    /// Measurements in the source.
    pub evaluations: u64,
    /// Of these, new.
    pub evaluations_new: u64,
    /// Measurements that are stored with another value, which stays.
    pub differing: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name is that of a sweep of ours.
    #[error("the sweep `{0}` was launched here; published rows are not mixed into it")]
    Launched(String),
    /// An aggregate that comes with `sweep`.
    #[error("the aggregate `{0}` comes with sweep and can't be redefined")]
    BuiltIn(String),
}

/// sha256 of what a source's row is, 64 hex digits.
pub fn imported_key(source: &str, identity: &Value) -> String {
    let text = canonical(&json!({ "imported": source, "row": identity }));
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

impl ImportedPool {
    /// Its size as an axis.
    pub fn size(&self) -> Option<f64> {
        self.samples.map(|samples| samples as f64)
    }

    /// sha256 of name and size, since there is no manifest.
    pub fn digest(&self) -> String {
        let size = self.samples.map_or("unknown".to_owned(), |samples| samples.to_string());
        let text = format!("published data set {} of {size} pairs", self.name);
        format!("{:x}", Sha256::digest(text.as_bytes()))
    }
}

/// Rows of a study that were in the database before or are now.
#[derive(Debug, Default)]
struct Columns {
    keys: Vec<String>,
    jobs: Vec<Value>,
}

impl Store {
    /// Stores studies in one transaction: all of them or none. With `replace`, jobs of earlier imports leave the
    /// sweeps.
    pub async fn import_studies(
        &self,
        studies: &[ImportedStudy],
        replace: bool,
    ) -> Result<Vec<ImportedCounts>, ImportError> {
        let failed = doing("can't store the imported rows");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let mut all = Vec::new();
        for study in studies {
            let Some(sweep_id) = sweep_for(&mut tx, study).await.map_err(&failed)? else {
                return Err(ImportError::Launched(study.name.clone()));
            };
            all.push(import_one(&mut tx, sweep_id, study, replace).await.map_err(&failed)?);
        }
        tx.commit().await.map_err(&failed)?;
        Ok(all)
    }

    /// Defines aggregates, each a name and its data sets. One that is there already gets the new members. Gives how
    /// many are new or changed.
    pub async fn aggregates_define(&self, aggregates: &[(String, Vec<String>)]) -> Result<u64, ImportError> {
        let failed = doing("can't store the aggregates");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let mut changed = 0;
        for (name, members) in aggregates {
            let built_in = sqlx::query_scalar!("SELECT built_in FROM aggregate WHERE name = $1 FOR UPDATE", name)
                .fetch_optional(&mut *tx)
                .await
                .map_err(&failed)?;
            if built_in == Some(true) {
                return Err(ImportError::BuiltIn(name.clone()));
            }
            sqlx::query!("INSERT INTO aggregate (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
                .execute(&mut *tx)
                .await
                .map_err(&failed)?;
            let gone =
                sqlx::query!("DELETE FROM aggregate_member WHERE name = $1 AND dataset <> ALL ($2)", name, members)
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
            let new = sqlx::query!(
                "INSERT INTO aggregate_member (name, dataset) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
                name,
                members
            )
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
            changed += u64::from(gone.rows_affected() + new.rows_affected() > 0);
        }
        tx.commit().await.map_err(&failed)?;
        Ok(changed)
    }

    /// Every aggregate with its members, by name.
    pub async fn aggregates(&self) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT name, array_agg(dataset ORDER BY dataset) AS "members!" FROM aggregate_member GROUP BY name ORDER BY name"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the aggregates"))?;
        Ok(rows.into_iter().map(|row| (row.name, row.members)).collect())
    }
}

/// The sweep of a study, new or imported before; `None`: one of ours has the name.
async fn sweep_for(tx: &mut PgConnection, study: &ImportedStudy) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sweep (name, question, spec, source) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
        study.name,
        study.question,
        format!("# imported with `sweep import {}`: there is nothing to launch\n", study.source),
        study.source
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!("SELECT sweep_id, source FROM sweep WHERE name = $1 FOR UPDATE", study.name)
        .fetch_one(&mut *tx)
        .await?;
    Ok(row.source.map(|_| row.sweep_id))
}

async fn import_one(
    tx: &mut PgConnection,
    sweep_id: i64,
    study: &ImportedStudy,
    replace: bool,
) -> Result<ImportedCounts, sqlx::Error> {
    for pool in study.jobs.iter().filter_map(|job| job.pool.as_ref()) {
        sqlx::query!(
            "INSERT INTO pool (digest, name, path, samples) VALUES ($1, $2, '', $3) ON CONFLICT DO NOTHING",
            pool.digest(),
            pool.name,
            pool.samples
        )
        .execute(&mut *tx)
        .await?;
    }
    let columns = columns(study);
    let jobs_new = insert_jobs(tx, study.source, &columns).await?;
    sqlx::query!(
        "INSERT INTO sweep_job (sweep_id, job_id, position)
         SELECT $1, job.job_id, (coalesce((SELECT max(position) FROM sweep_job WHERE sweep_id = $1), -1) + given.position)::integer
         FROM unnest($2::text[]) WITH ORDINALITY AS given (job_key, position) JOIN job USING (job_key)
         ON CONFLICT (sweep_id, job_id) DO NOTHING",
        sweep_id,
        &columns.keys
    )
    .execute(&mut *tx)
    .await?;
    let jobs_other = others(tx, sweep_id, &columns.keys, replace).await?;
    let (evaluations_new, differing) = insert_evaluations(tx, study, &columns.keys).await?;
    Ok(ImportedCounts {
        sweep: study.name.clone(),
        jobs: study.jobs.len() as u64,
        jobs_new,
        jobs_other,
        evaluations: study.jobs.iter().map(|job| job.evaluations.len() as u64).sum(),
        evaluations_new,
        differing,
    })
}

/// Counts the jobs of a sweep that have none of these keys, and takes them out on demand.
async fn others(tx: &mut PgConnection, sweep_id: i64, keys: &[String], replace: bool) -> Result<u64, sqlx::Error> {
    if replace {
        let gone = sqlx::query!(
            "DELETE FROM sweep_job USING job
             WHERE sweep_id = $1 AND job.job_id = sweep_job.job_id AND job.job_key <> ALL ($2)",
            sweep_id,
            keys
        )
        .execute(tx)
        .await?;
        return Ok(gone.rows_affected());
    }
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "others!" FROM sweep_job JOIN job USING (job_id)
           WHERE sweep_id = $1 AND job_key <> ALL ($2)"#,
        sweep_id,
        keys
    )
    .fetch_one(tx)
    .await
    .map(i64::cast_unsigned)
}

fn columns(study: &ImportedStudy) -> Columns {
    let whole = |value: Option<f64>| value.map(|value| (value.round() as i64).max(1));
    let exact = |value: Option<f64>| value.filter(|value| value.fract() != 0.0);
    let mut columns = Columns::default();
    for job in &study.jobs {
        let key = imported_key(study.source, &job.identity);
        columns.jobs.push(json!({
            "job_key": key, "detail": job.detail, "spec": { "imported": job.identity }, "model": job.model,
            "parameters": whole(job.parameters), "image_parameters": whole(job.image_parameters),
            "text_parameters": whole(job.text_parameters), "pool": job.pool.as_ref().map(ImportedPool::digest),
            "data_size": whole(job.data_size), "samples_seen": whole(job.samples_seen),
            "unique_samples": whole(job.unique_samples), "seed": job.seed, "gmacs_samples": job.gmacs_samples,
            "train_flops": job.train_flops, "six_nd": job.six_nd, "exact_n": exact(job.parameters),
            "exact_d": exact(job.samples_seen), "exact_u": exact(job.unique_samples), "train_secs": job.train_secs,
            "gpus": job.gpus,
        }));
        columns.keys.push(key);
    }
    columns
}

/// Jobs, each with its one attempt. JSON keeps the numbers to the last bit: serde_json and PostgreSQL both write and
/// read the shortest text of a double.
async fn insert_jobs(tx: &mut PgConnection, source: &str, columns: &Columns) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"WITH given AS (
               SELECT * FROM jsonb_to_recordset($1) AS given (
                   job_key text, detail jsonb, spec jsonb, model text, parameters bigint, image_parameters bigint,
                   text_parameters bigint, pool text, data_size bigint, samples_seen bigint, unique_samples bigint, seed bigint,
                   gmacs_samples float8, train_flops float8, six_nd float8, exact_n float8, exact_d float8, exact_u float8,
                   train_secs float8, gpus integer)),
           added AS (
               INSERT INTO job (job_key, state, fence, runner, runner_version, model, parameters, image_parameters,
                                text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops,
                                six_nd, done_at, source, source_detail, exact_n, exact_d, exact_u)
               SELECT DISTINCT ON (job_key) job_key, 'done', 1, 'import', $2, model, parameters, image_parameters,
                      text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops,
                      six_nd, now(), $3, detail, exact_n, exact_d, exact_u
               FROM given ORDER BY job_key
               ON CONFLICT (job_key) DO NOTHING
               RETURNING job_id, job_key),
           attempted AS (
               INSERT INTO attempt (job_id, token, state, backend, fence, folder, resumed_from_samples, samples_seen, train_secs,
                                    gpus, ended_at)
               SELECT DISTINCT ON (job_key) job_id, 'import-' || job_key, 'finished', 'import', 1, '', 0,
                      coalesce(samples_seen, 0), train_secs, gpus, now()
               FROM added JOIN given USING (job_key) ORDER BY job_key),
           described AS (
               INSERT INTO job_spec (job_id, spec)
               SELECT DISTINCT ON (job_key) job_id, spec FROM added JOIN given USING (job_key) ORDER BY job_key),
           noted AS (INSERT INTO event (job_id, kind, detail) SELECT job_id, 'imported', $3 FROM added)
           SELECT count(*) AS "added!" FROM added"#,
        json!(columns.jobs),
        env!("CARGO_PKG_VERSION"),
        source
    )
    .fetch_one(&mut *tx)
    .await
    .map(i64::cast_unsigned)
}

/// Gives how many measurements are new, and which are stored with another value.
async fn insert_evaluations(
    tx: &mut PgConnection,
    study: &ImportedStudy,
    keys: &[String],
) -> Result<(u64, Vec<String>), sqlx::Error> {
    let rows: Vec<(&String, &ImportedEvaluation)> = keys
        .iter()
        .zip(&study.jobs)
        .flat_map(|(key, job)| job.evaluations.iter().map(move |evaluation| (key, evaluation)))
        .collect();
    let job_keys: Vec<String> = rows.iter().map(|(key, _)| (*key).clone()).collect();
    let datasets: Vec<String> = rows.iter().map(|(_, row)| row.dataset.clone()).collect();
    let metrics: Vec<String> = rows.iter().map(|(_, row)| row.metric.clone()).collect();
    let samples: Vec<Option<i64>> = rows.iter().map(|(_, row)| row.samples_seen).collect();
    let values: Vec<f64> = rows.iter().map(|(_, row)| row.value).collect();
    let errors: Vec<Option<f64>> = rows.iter().map(|(_, row)| row.standard_error).collect();
    let chances: Vec<Option<f64>> = rows.iter().map(|(_, row)| row.chance).collect();
    let counts: Vec<Option<i64>> = rows.iter().map(|(_, row)| row.count).collect();
    let differing = sqlx::query!(
        r#"SELECT j.job_key, e.dataset, e.metric, e.value, given.value AS "offered!"
           FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::float8[])
                AS given (job_key, dataset, metric, samples_seen, value)
           JOIN job j USING (job_key)
           JOIN attempt a ON a.job_id = j.job_id AND a.fence = 1
           JOIN evaluation e ON e.attempt_id = a.attempt_id AND e.dataset = given.dataset AND e.metric = given.metric
                AND e.samples_seen = coalesce(given.samples_seen, j.samples_seen, 0)
           WHERE e.value IS DISTINCT FROM given.value ORDER BY 1, 2, 3"#,
        &job_keys,
        &datasets,
        &metrics,
        &samples as &[Option<i64>],
        &values
    )
    .fetch_all(&mut *tx)
    .await?;
    let differing = differing
        .iter()
        .map(|row| {
            let (job, stored, offered) = (&row.job_key[..12], row.value, row.offered);
            format!("job {job}, {}/{}: {stored} is stored and stays, the file says {offered}", row.dataset, row.metric)
        })
        .collect();
    let added = sqlx::query!(
        "INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count)
         SELECT a.attempt_id, given.dataset, given.metric, coalesce(given.samples_seen, j.samples_seen, 0), given.value,
                given.standard_error, given.chance, given.count
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::float8[], $6::float8[], $7::float8[], $8::bigint[])
              AS given (job_key, dataset, metric, samples_seen, value, standard_error, chance, count)
         JOIN job j USING (job_key)
         JOIN attempt a ON a.job_id = j.job_id AND a.fence = 1
         ON CONFLICT DO NOTHING",
        &job_keys,
        &datasets,
        &metrics,
        &samples as &[Option<i64>],
        &values,
        &errors as &[Option<f64>],
        &chances as &[Option<f64>],
        &counts as &[Option<i64>]
    )
    .execute(&mut *tx)
    .await?;
    Ok((added.rows_affected(), differing))
}
