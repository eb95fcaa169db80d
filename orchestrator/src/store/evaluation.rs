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

/// Stores measurements of an attempt, each with the checkpoint of the same position where there is one; of a job that
/// only measures, with its weights.
pub(super) async fn insert(tx: &mut PgConnection, attempt_id: i64, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Row) -> Option<f64>| rows.iter().map(of).collect::<Vec<_>>();
    let datasets: Vec<String> = rows.iter().map(|row| row.dataset.clone()).collect();
    let metrics: Vec<String> = rows.iter().map(|row| row.measurement.metric.clone()).collect();
    let positions: Vec<i64> = rows.iter().map(|row| row.samples_seen).collect();
    let values: Vec<f64> = rows.iter().map(|row| row.measurement.value).collect();
    let counts: Vec<Option<i64>> = rows.iter().map(|row| row.measurement.count.map(u64::cast_signed)).collect();
    sqlx::query!(
        "WITH given_weights AS MATERIALIZED (
             SELECT j.init FROM attempt a JOIN job j USING (job_id) WHERE a.attempt_id = $1 AND j.samples_seen IS NULL),
         added AS (
             INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count,
                                     checkpoint)
             SELECT $1, given.*, coalesce((SELECT sha256 FROM checkpoint
                                           WHERE attempt_id = $1 AND samples_seen = given.samples_seen),
                                          (SELECT init FROM given_weights))
             FROM unnest($2::text[], $3::text[], $4::bigint[], $5::float8[], $6::float8[], $7::float8[], $8::bigint[])
                  AS given (dataset, metric, samples_seen, value, standard_error, chance, count)
             ON CONFLICT DO NOTHING RETURNING attempt_id, dataset, samples_seen)
         INSERT INTO event (attempt_id, kind, detail, samples_seen)
         SELECT DISTINCT attempt_id, 'measured', dataset, samples_seen FROM added",
        attempt_id,
        &datasets,
        &metrics,
        &positions,
        &values,
        &column(|row| row.measurement.standard_error) as &[Option<f64>],
        &column(|row| row.measurement.chance) as &[Option<f64>],
        &counts as &[Option<i64>],
    )
    .execute(tx)
    .await
    .map(drop)
}
