//! What runners say, as rows: curves, measurements and checkpoints of one batch of events, in one fenced transaction.

use protocol::Event;
use sqlx::PgConnection;

use super::attempt::{Claim, Ending, Orders, attempt_end};
use super::{Store, StoreError, checkpoint, doing, evaluation};

/// A run of consecutive events of one attempt, by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    names: Vec<String>,
    steps: Vec<i64>,
    samples_seen: Vec<i64>,
    values: Vec<f64>,
    pub(super) evaluations: Vec<evaluation::Row>,
    pub(super) checkpoints: Vec<checkpoint::Row>,
    started: Option<(i64, String)>,
    position: i64,
    acked_events: i64,
}

impl Batch {
    /// Columns of `events`, of which the last is line `acked_events` of the attempt's spool. A loss that is no number
    /// is left out: it fails the job, and no curve wants it.
    pub fn new(events: &[Event], acked_events: i64) -> Batch {
        let mut batch = Batch { acked_events, ..Batch::default() };
        for event in events {
            match event {
                Event::Started { resumed_from_samples, device, .. } => {
                    batch.started = Some((resumed_from_samples.cast_signed(), device.clone()));
                    batch.reach(*resumed_from_samples);
                }
                Event::Step { step, samples_seen, loss, metrics } => {
                    batch.reach(*samples_seen);
                    let loss = std::iter::once(("loss", loss)).filter(|(_, loss)| loss.is_finite());
                    for (name, &value) in loss.chain(metrics.iter().map(|(name, value)| (name.as_str(), value))) {
                        batch.names.push(name.to_owned());
                        batch.steps.push(step.cast_signed());
                        batch.samples_seen.push(samples_seen.cast_signed());
                        batch.values.push(value);
                    }
                }
                Event::Eval { samples_seen, dataset, measurements } => {
                    batch.reach(*samples_seen);
                    batch.evaluations.extend(measurements.iter().map(|measurement| evaluation::Row {
                        dataset: dataset.clone(),
                        samples_seen: samples_seen.cast_signed(),
                        measurement: measurement.clone(),
                    }));
                }
                Event::Checkpoint { step, samples_seen, path, sha256 } => {
                    batch.reach(*samples_seen);
                    batch.checkpoints.push(checkpoint::Row {
                        step: step.cast_signed(),
                        samples_seen: samples_seen.cast_signed(),
                        path: path.display().to_string(),
                        sha256: sha256.clone(),
                    });
                }
                Event::Finished { .. } | Event::Failed { .. } => {}
            }
        }
        batch
    }

    /// A batch of nothing that takes a job over at `samples_seen`: all of its predecessors' rows up to there stay.
    pub fn takeover(samples_seen: u64, device: &str) -> Batch {
        let position = samples_seen.cast_signed();
        Batch { started: Some((position, device.to_owned())), position, ..Batch::default() }
    }

    fn reach(&mut self, samples_seen: u64) {
        self.position = self.position.max(samples_seen.cast_signed());
    }
}

impl Store {
    /// Stores a batch of events of `attempt_id` (the claim's own, or one before it that ended with unsent events) and
    /// how far its spool is stored; with `ending`, ends the claimed attempt in the same transaction. Events that are
    /// stored already change nothing. `None`: the claim is superseded, nothing was written.
    pub async fn events_store(
        &self,
        claim: &Claim,
        attempt_id: i64,
        batch: &Batch,
        ending: Option<&Ending>,
    ) -> Result<Option<Orders>, StoreError> {
        let failed = doing("can't store events");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        if ending.is_some() {
            sqlx::query_scalar!("SELECT job_id FROM job WHERE job_id = $1 FOR UPDATE", claim.job_id)
                .fetch_one(&mut *tx)
                .await
                .map_err(&failed)?;
        }
        let fenced = sqlx::query!(
            r#"SELECT a.stop_requested, j.state = 'cancelled' AS "cancelled!" FROM attempt a JOIN job j USING (job_id)
               WHERE a.attempt_id = $1 AND a.state = 'running' AND a.fence = $2 AND j.fence = $2 FOR UPDATE OF a"#,
            claim.attempt_id,
            claim.fence,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
        let Some(orders) = fenced else { return Ok(None) };
        metrics_insert(&mut tx, attempt_id, batch).await.map_err(&failed)?;
        evaluation::insert(&mut tx, attempt_id, &batch.evaluations).await.map_err(&failed)?;
        checkpoint::insert(&mut tx, attempt_id, &batch.checkpoints).await.map_err(&failed)?;
        let (resumed_from, device) = batch.started.clone().unzip();
        sqlx::query!(
            "UPDATE attempt SET acked_events = greatest(acked_events, $2), samples_seen = greatest(samples_seen, $3),
                    resumed_from_samples = coalesce($4, resumed_from_samples), device = coalesce($5, device)
             WHERE attempt_id = $1",
            attempt_id,
            batch.acked_events,
            batch.position,
            resumed_from,
            device,
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        sqlx::query!("UPDATE attempt SET heartbeat_at = now() WHERE attempt_id = $1", claim.attempt_id)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        if let Some(ending) = ending {
            attempt_end(&mut tx, claim, ending).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)?;
        Ok(Some(Orders { stop: orders.stop_requested, cancel: orders.cancelled }))
    }
}

async fn metrics_insert(tx: &mut PgConnection, attempt_id: i64, batch: &Batch) -> Result<(), sqlx::Error> {
    if batch.names.is_empty() {
        return Ok(());
    }
    // In the order of their names, so that two workers with the same new names can't wait for each other in a circle.
    sqlx::query!(
        "INSERT INTO metric_name (name)
         SELECT DISTINCT given.name FROM unnest($1::text[]) AS given (name)
         WHERE NOT EXISTS (SELECT FROM metric_name known WHERE known.name = given.name) ORDER BY given.name
         ON CONFLICT DO NOTHING",
        &batch.names
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
         SELECT $1, metric_id, given.step, given.samples_seen, given.value
         FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::float8[]) AS given (name, step, samples_seen, value)
         JOIN metric_name USING (name)
         ON CONFLICT DO NOTHING",
        attempt_id,
        &batch.names,
        &batch.steps,
        &batch.samples_seen,
        &batch.values,
    )
    .execute(&mut *tx)
    .await
    .map(drop)
}
