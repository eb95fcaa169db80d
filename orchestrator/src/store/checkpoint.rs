//! Checkpoints as runners report them.

use sqlx::PgConnection;

/// One checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) step: i64,
    pub(super) samples_seen: i64,
    pub(super) path: String,
    pub(super) sha256: String,
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
