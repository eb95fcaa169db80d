//! Checkpoints as runners report them.

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

/// Stores checkpoints of an attempt; those that are there already stay as they are.
pub(super) async fn insert(tx: &mut PgConnection, attempt_id: i64, rows: &[Row]) -> Result<(), sqlx::Error> {
    for row in rows {
        sqlx::query!(
            "INSERT INTO checkpoint (attempt_id, samples_seen, step, path, sha256) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
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
