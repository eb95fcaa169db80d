//! Checkpoints as runners report them.

use protocol::ParentCheckpoint;
use serde::Serialize;
use sqlx::PgConnection;

use super::{Store, StoreError, doing};

/// One checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) step: i64,
    pub(super) samples_seen: i64,
    pub(super) path: String,
    pub(super) sha256: String,
}

/// One checkpoint as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointRow {
    /// Samples seen.
    pub samples_seen: i64,
    /// Optimiser steps taken.
    pub step: i64,
    /// Its folder, as the runner said it.
    pub path: String,
    /// sha256 of its manifest.
    pub sha256: String,
}

impl Store {
    /// Checkpoints that runners have reported for a job, by samples seen; of several at one place, the last.
    pub async fn checkpoint_list(&self, job_key: &str) -> Result<Vec<CheckpointRow>, StoreError> {
        sqlx::query_as!(
            CheckpointRow,
            "SELECT DISTINCT ON (c.samples_seen) c.samples_seen, c.step, c.path, c.sha256
             FROM checkpoint c JOIN attempt a USING (attempt_id) JOIN job j USING (job_id)
             WHERE j.job_key = $1 ORDER BY c.samples_seen, c.attempt_id DESC",
            job_key
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the checkpoints of the job"))
    }
}

/// The checkpoint at the end of a job that is done, where one was reported.
pub(super) async fn last_checkpoint(
    tx: &mut PgConnection,
    job_id: i64,
) -> Result<Option<ParentCheckpoint>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT c.path AS "path!", c.sha256 AS "sha256!", c.samples_seen AS "samples_seen!"
         FROM job j JOIN checkpoint_current c USING (job_id, samples_seen)
         WHERE j.job_id = $1 AND j.state = 'done' ORDER BY c.fence DESC LIMIT 1"#,
        job_id
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| ParentCheckpoint {
        path: row.path.into(),
        sha256: row.sha256,
        samples_seen: row.samples_seen.cast_unsigned(),
    }))
}

/// Stores checkpoints of an attempt; those that are there already stay as they are.
pub(super) async fn insert(tx: &mut PgConnection, attempt_id: i64, rows: &[Row]) -> Result<(), sqlx::Error> {
    for row in rows {
        sqlx::query!(
            "WITH added AS (
                 INSERT INTO checkpoint (attempt_id, samples_seen, step, path, sha256) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING RETURNING attempt_id, samples_seen)
             INSERT INTO event (attempt_id, kind, samples_seen) SELECT attempt_id, 'checkpoint', samples_seen FROM added",
            attempt_id,
            row.samples_seen,
            row.step,
            row.path,
            row.sha256,
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

impl Store {
    /// Folders of the checkpoints of a job that were reported by those who had the claim at the time, by name.
    /// `current_only`: without those of which a later attempt did the same part again.
    pub async fn checkpoint_paths(&self, job_id: i64, current_only: bool) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            "SELECT c.path FROM checkpoint c JOIN attempt_current a USING (attempt_id)
             WHERE a.job_id = $1 AND (NOT $2 OR a.superseded_after_samples IS NULL OR c.samples_seen <= a.superseded_after_samples)",
            job_id,
            current_only
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up the checkpoints of the job"))
    }

    /// Samples seen at the checkpoints of a job that no later attempt did again.
    pub async fn checkpoint_positions(&self, job_id: i64) -> Result<Vec<i64>, StoreError> {
        sqlx::query_scalar!(
            r#"SELECT samples_seen AS "samples_seen!" FROM checkpoint_current WHERE job_id = $1"#,
            job_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up the checkpoints of the job"))
    }

    /// A checkpoint that the runner of this job has reported for another job, if it has.
    pub async fn checkpoint_example(&self, job_id: i64) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            "SELECT c.path FROM job own JOIN job other ON (other.runner, other.runner_version) = (own.runner, own.runner_version)
             JOIN attempt a ON a.job_id = other.job_id JOIN checkpoint c USING (attempt_id)
             WHERE own.job_id = $1 AND other.job_id <> $1 LIMIT 1",
            job_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up a checkpoint of the runner"))
    }
}
