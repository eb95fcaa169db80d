//! Measurements on held-out data.

use protocol::Measurement;
use sqlx::PgConnection;

/// One measurement and where in training it was made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) dataset: String,
    pub(super) samples_seen: i64,
    pub(super) measurement: Measurement,
}

/// Stores measurements of an attempt, each with the checkpoint of the same position where there is one.
pub(super) async fn insert(tx: &mut PgConnection, attempt_id: i64, rows: &[Row]) -> Result<(), sqlx::Error> {
    for Row { dataset, samples_seen, measurement } in rows {
        sqlx::query!(
            "INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count, checkpoint)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
                     (SELECT sha256 FROM checkpoint WHERE attempt_id = $1 AND samples_seen = $4))
             ON CONFLICT DO NOTHING",
            attempt_id,
            dataset,
            measurement.metric,
            samples_seen,
            measurement.value,
            measurement.standard_error,
            measurement.chance,
            measurement.count.map(u64::cast_signed),
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
