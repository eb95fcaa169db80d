//! Results that others published, as ordinary jobs: one transaction, known by key, so that importing again changes
//! nothing.
//!
//! A row's key is that of its study (the sweep's name), the kind of source and what the row is in it: never of files
//! and folders, which move, nor of what was measured, which is corrected. So rows of two studies are never one job, and
//! a corrected file meets the rows that it corrects.

mod compare;
mod rows;

use std::collections::HashMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Store, StoreError, doing};
use crate::plan::canonical::canonical;
use compare::Difference;
use rows::{Given, Known};

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

/// Weights of an imported job that are there to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedCheckpoint {
    /// Samples seen at it; `None`: at the end.
    pub samples_seen: Option<i64>,
    /// Optimiser steps taken, 0 where it is not known.
    pub step: i64,
    /// The file.
    pub path: String,
    /// sha256 of its bytes.
    pub sha256: String,
}

/// One trained model of a published study. What a table does not say is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportedJob {
    /// Which row of its study it is, whatever file it stands in and whatever was measured: its key is the hash of this.
    pub identity: Value,
    /// What versions to 0.1 hashed in its place, by which their rows are found.
    pub former: Value,
    /// Where it stands, for messages; not stored.
    pub place: String,
    /// A run that may train on: further samples seen are growth, not another value.
    pub grows: bool,
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
    /// Checkpoints.
    pub checkpoints: Vec<ImportedCheckpoint>,
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
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct ImportedCounts {
    /// Name of the sweep.
    pub sweep: String,
    /// Jobs in the source.
    pub jobs: u64,
    /// Of these, new.
    pub jobs_new: u64,
    /// Of these, stored before and now with other columns or measurements: replaced, or trained further.
    pub jobs_changed: u64,
    /// Jobs of earlier imports that the sweep holds beside these, or that `replace` took out of it.
    pub jobs_other: u64,
    /// Measurements in the source.
    pub evaluations: u64,
    /// Of these, new.
    pub evaluations_new: u64,
    /// Of these, stored before with another value.
    pub evaluations_changed: u64,
    /// Measurements that `replace` took out, since the source no longer has them.
    pub evaluations_gone: u64,
    /// What else has to be said.
    pub notes: Vec<String>,
}

/// What an import may change of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: another value for a row is an error.
    Nothing,
    /// Values of the same rows.
    Values,
    /// These, and rows that the source does not have leave the sweep.
    All,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows that are stored with other values.
    #[error("{} values are stored otherwise than the source says; nothing was imported", conflicts.len())]
    Conflicts {
        /// Each with what is stored and what the source says.
        conflicts: Vec<String>,
    },
    /// The name is that of a sweep of ours.
    #[error("the sweep `{0}` was launched here; published rows are not mixed into it")]
    Launched(String),
    /// An aggregate that comes with `sweep`.
    #[error("the aggregate `{0}` comes with sweep and can't be redefined")]
    BuiltIn(String),
}

/// sha256 of the study and of what its row is, 64 hex digits.
fn imported_key(study: &ImportedStudy, identity: &Value) -> String {
    let text = canonical(&json!({ "imported": study.source, "study": study.name, "row": identity }));
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// The key of versions to 0.1, which did not know the study.
fn former_key(source: &str, identity: &Value) -> String {
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

impl Store {
    /// Stores studies in one transaction: all of them or none.
    pub async fn import_studies(
        &self,
        studies: &[ImportedStudy],
        replace: Replace,
    ) -> Result<Vec<ImportedCounts>, ImportError> {
        let failed = doing("can't store the imported rows");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let mut all = Vec::new();
        let mut conflicts = Vec::new();
        for study in studies {
            let Some(sweep_id) = sweep_for(&mut tx, study).await.map_err(&failed)? else {
                return Err(ImportError::Launched(study.name.clone()));
            };
            let (counts, differing) = import_one(&mut tx, sweep_id, study, replace).await.map_err(&failed)?;
            all.push(counts);
            conflicts.extend(differing);
        }
        if !conflicts.is_empty() && replace == Replace::Nothing {
            return Err(ImportError::Conflicts { conflicts });
        }
        rows::delete_orphans(&mut tx).await.map_err(&failed)?;
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

/// Stores a study, unless it contradicts what is stored and may not replace it; the contradictions come with the
/// counts.
async fn import_one(
    tx: &mut PgConnection,
    sweep_id: i64,
    study: &ImportedStudy,
    replace: Replace,
) -> Result<(ImportedCounts, Vec<String>), sqlx::Error> {
    rows::insert_pools(tx, study).await?;
    let given = rows::given(study);
    let mut known = rows::known(tx, sweep_id, &given).await?;
    let mut counts = ImportedCounts {
        sweep: study.name.clone(),
        jobs: given.len() as u64,
        evaluations: given.iter().map(|row| row.evaluations.len() as u64).sum(),
        ..ImportedCounts::default()
    };
    let differences: HashMap<usize, Difference> =
        known.iter().map(|(at, known)| (*at, compare::difference(&given[*at], known))).collect();
    let mut conflicts: Vec<(usize, &String)> =
        differences.iter().flat_map(|(at, found)| found.conflicts.iter().map(|text| (*at, text))).collect();
    conflicts.sort_by_key(|(at, _)| *at);
    let conflicts: Vec<String> = conflicts.into_iter().map(|(_, text)| text.clone()).collect();
    if !conflicts.is_empty() && replace == Replace::Nothing {
        return Ok((counts, conflicts));
    }
    leave_shared(tx, sweep_id, &mut known, &mut counts).await?;
    rows::rekey(tx, &given, &known).await?;
    write(tx, &given, &known, &differences, replace, study, &mut counts).await?;
    rows::join_sweep(tx, sweep_id, &given).await?;
    counts.notes.extend(rows::write_checkpoints(tx, &given).await?);
    counts.jobs_other = rows::others(tx, sweep_id, &given, replace == Replace::All).await?;
    Ok((counts, conflicts))
}

/// Jobs that versions to 0.1 let several imports share: this sweep gets its own, with the measurements of this source.
async fn leave_shared(
    tx: &mut PgConnection,
    sweep_id: i64,
    known: &mut HashMap<usize, Known>,
    counts: &mut ImportedCounts,
) -> Result<(), sqlx::Error> {
    let shared: Vec<i64> = known.values().filter(|known| known.is_shared).map(|known| known.job_id).collect();
    known.retain(|_, known| !known.is_shared);
    if !shared.is_empty() {
        rows::leave(tx, sweep_id, &shared).await?;
        counts.notes.push(format!(
            "{} jobs were shared with other sweeps by an older version of sweep; this one now has its own, with the \
             measurements of this source alone: import again what else they were measured on",
            shared.len()
        ));
    }
    Ok(())
}

/// Writes what is new and what differs.
async fn write(
    tx: &mut PgConnection,
    given: &[Given<'_>],
    known: &HashMap<usize, Known>,
    differences: &HashMap<usize, Difference>,
    replace: Replace,
    study: &ImportedStudy,
    counts: &mut ImportedCounts,
) -> Result<(), sqlx::Error> {
    let is_replacing = replace != Replace::Nothing;
    let (mut new, mut changed, mut measured, mut gone) = (Vec::new(), Vec::new(), Vec::new(), rows::Gone::default());
    let (mut gained_jobs, mut gained) = (0, 0);
    for (at, row) in given.iter().enumerate() {
        let (Some(known), Some(found)) = (known.get(&at), differences.get(&at)) else {
            new.push(row);
            measured.extend((0..row.evaluations.len()).map(|nth| (row, nth)));
            counts.evaluations_new += row.evaluations.len() as u64;
            continue;
        };
        measured.extend(found.new.iter().map(|nth| (row, *nth)));
        counts.evaluations_new += found.new.len() as u64;
        let mut is_changed = found.is_grown;
        if is_replacing {
            measured.extend(found.changed.iter().map(|nth| (row, *nth)));
            counts.evaluations_changed += found.changed.len() as u64;
            counts.evaluations_gone += found.gone.len() as u64;
            is_changed |= !found.conflicts.is_empty() || !found.gone.is_empty() || found.is_shorter;
            gone.extend(known.job_id, &found.gone);
        } else if found.is_shorter {
            counts.notes.push(format!(
                "{}: stored is a later state of this run, with further samples seen, and stays; `--replace` goes back",
                row.job.place
            ));
        }
        if is_changed {
            changed.push(row);
        } else if !found.new.is_empty() {
            gained_jobs += 1;
            gained += found.new.len();
        }
    }
    if gained > 0 {
        counts.notes.push(format!(
            "{gained_jobs} jobs of an earlier import of `{}` have {gained} measurements more; if these are of another study, \
             it needs a name of its own (`--name`)",
            study.name
        ));
    }
    (counts.jobs_new, counts.jobs_changed) = (new.len() as u64, changed.len() as u64);
    rows::insert_jobs(tx, study.source, &new).await?;
    rows::update_jobs(tx, &changed).await?;
    rows::delete_evaluations(tx, &gone).await?;
    rows::write_evaluations(tx, &measured).await
}
