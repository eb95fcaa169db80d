//! What runners say, as rows: curves, measurements and checkpoints of one batch of events, in one fenced transaction.

use protocol::{DataUsed, Event};
use sqlx::PgConnection;

use super::attempt::{Claim, Ending, Energy, Orders, attempt_end, claimed_by};
use super::next::{NextRequest, take_next};
use super::{Store, StoreError, checkpoint, companion, doing, evaluation, listener, planned};

/// A run of consecutive events of one attempt, by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    names: Vec<String>,
    steps: Vec<i64>,
    samples_seen: Vec<i64>,
    values: Vec<f64>,
    pub(super) evaluations: Vec<evaluation::Row>,
    unmeasured: Vec<planned::Unmeasured>,
    pub(super) checkpoints: Vec<checkpoint::Row>,
    started: Option<(i64, String)>,
    /// What is trained on.
    data: Option<DataUsed>,
    position: i64,
    acked_events: i64,
}

/// The end of an attempt, and what its worker would do next.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// How it ended.
    pub ending: &'a Ending,
    /// What it took.
    pub energy: Energy,
    /// Asks for another job; it is given only after one that finished.
    pub next: Option<&'a NextRequest>,
}

/// What came of storing a batch.
#[derive(Debug, Clone)]
pub struct Stored {
    /// For the attempt whose claim it was.
    pub orders: Orders,
    /// Why an attempt that said that it had finished is stored as failed.
    pub not_done: Option<String>,
    /// The claim to the next job, if one was asked for and there is one.
    pub next: Option<Claim>,
}

impl Batch {
    /// Columns of `events`, of which the last is line `acked_events` of the attempt's spool. A loss that is no number,
    /// in training or measured, is left out: it fails the job, and no curve wants it.
    pub fn new(events: &[Event], acked_events: i64) -> Batch {
        let mut batch = Batch { acked_events, ..Batch::default() };
        for event in events {
            match event {
                Event::Started { resumed_from_samples, device, data, .. } => {
                    batch.data.clone_from(data);
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
                Event::Eval { samples_seen, dataset, measurements, unmeasured } => {
                    batch.reach(*samples_seen);
                    let samples_seen = samples_seen.cast_signed();
                    let finite = measurements.iter().filter(|measurement| measurement.value.is_finite());
                    batch.evaluations.extend(finite.map(|measurement| evaluation::Row {
                        dataset: dataset.clone(),
                        samples_seen,
                        measurement: measurement.clone(),
                    }));
                    batch.unmeasured.extend(unmeasured.iter().map(|(task, reason)| planned::Unmeasured {
                        dataset: dataset.clone(),
                        samples_seen,
                        task: *task,
                        reason: reason.clone(),
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
    /// how far its spool is stored; with `end`, ends the claimed attempt in the same transaction and claims the next
    /// job, if one is asked for. A job that has finished without a measurement that it plans is stored as failed.
    /// Events that are stored already change nothing, nor does an end. `None`: the claim is superseded, nothing was
    /// written.
    pub async fn events_store(
        &self,
        claim: &Claim,
        attempt_id: i64,
        batch: &Batch,
        end: Option<End<'_>>,
    ) -> Result<Option<Stored>, StoreError> {
        let failed = doing("can't store events");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        // A start changes the job too: the data used, and the parent of one that begins before its end.
        let Some(orders) = fenced(&mut tx, claim, end.is_some() || batch.started.is_some()).await.map_err(&failed)?
        else {
            return match end.and_then(|end| end.next) {
                // An earlier try may have got through, its answer lost.
                Some(next) => {
                    let next = claimed_by(&mut tx, &next.token, &next.nonce).await.map_err(&failed)?;
                    Ok(next.map(|next| Stored { orders: Orders::default(), not_done: None, next: Some(next) }))
                }
                None => Ok(None),
            };
        };
        // In the order in which the history is to tell it: what it begins with, then what came of it.
        let resumed_from = progress_update(&mut tx, claim, attempt_id, batch).await.map_err(&failed)?;
        metrics_insert(&mut tx, attempt_id, batch).await.map_err(&failed)?;
        checkpoint::insert(&mut tx, attempt_id, &batch.checkpoints).await.map_err(&failed)?;
        if !batch.checkpoints.is_empty() {
            listener::tell_of_checkpoint(&mut tx).await.map_err(&failed)?;
        }
        evaluation::insert(&mut tx, attempt_id, &batch.evaluations).await.map_err(&failed)?;
        planned::unmeasured_insert(&mut tx, claim, attempt_id, &batch.unmeasured).await.map_err(&failed)?;
        if let Some(data) = &batch.data {
            data_update(&mut tx, claim.job_id, data).await.map_err(&failed)?;
        }
        let mut next = None;
        let mut not_done = None;
        if let Some(end) = end {
            let last = (&batch.evaluations[..], &batch.unmeasured[..]);
            not_done = planned::checked(&mut tx, claim, end.ending, resumed_from, last).await.map_err(&failed)?;
            let measuring = claim.spec.measures_only() && matches!(end.ending, Ending::Finished { .. });
            if measuring && not_done.is_none() {
                let contradiction = companion::contradiction(&mut tx, claim.job_id).await.map_err(&failed)?;
                not_done = contradiction.map(planned::failed);
            }
            let ending = not_done.as_ref().unwrap_or(end.ending);
            attempt_end(&mut tx, claim, (ending, end.energy), orders.cancel).await.map_err(&failed)?;
            if measuring && not_done.is_none() && !orders.cancel {
                companion::copy(&mut tx, claim.job_id).await.map_err(&failed)?;
            }
            next = match end.next.filter(|_| matches!(ending, Ending::Finished { .. })) {
                Some(request) => take_next(&mut tx, claim, request).await.map_err(&failed)?,
                None => None,
            };
            if next.is_none() {
                // The slot is free: for launchers to fill, or to see that all is done.
                listener::tell(&mut tx).await.map_err(&failed)?;
            }
        }
        tx.commit().await.map_err(&failed)?;
        let not_done = not_done.and_then(|ending| match ending {
            Ending::Failed { reason, .. } => Some(reason),
            Ending::Finished { .. } | Ending::Stopped { .. } => None,
        });
        Ok(Some(Stored { orders, not_done, next }))
    }
}

/// Locks the claimed attempt, and before it its job if that is to change; asks for orders. `None`: the claim is
/// superseded.
async fn fenced(tx: &mut PgConnection, claim: &Claim, with_job: bool) -> Result<Option<Orders>, sqlx::Error> {
    if with_job {
        return sqlx::query!(
            r#"SELECT a.stop_requested, j.state = 'cancelled' AS "cancelled!" FROM job j JOIN attempt a USING (job_id)
               WHERE a.attempt_id = $1
                     AND (a.state = 'running' OR a.ship = 'spool' AND a.state IN ('intent', 'launched')) AND a.fence = $2 AND j.fence = $2 FOR UPDATE OF j, a"#,
            claim.attempt_id,
            claim.fence,
        )
        .fetch_optional(tx)
        .await
        .map(|row| row.map(|row| Orders { stop: row.stop_requested, cancel: row.cancelled }));
    }
    sqlx::query!(
        r#"SELECT a.stop_requested, j.state = 'cancelled' AS "cancelled!" FROM attempt a JOIN job j USING (job_id)
           WHERE a.attempt_id = $1
                 AND (a.state = 'running' OR a.ship = 'spool' AND a.state IN ('intent', 'launched')) AND a.fence = $2 AND j.fence = $2 FOR UPDATE OF a"#,
        claim.attempt_id,
        claim.fence,
    )
    .fetch_optional(tx)
    .await
    .map(|row| row.map(|row| Orders { stop: row.stop_requested, cancel: row.cancelled }))
}

/// How far an attempt is; and that the claim's worker lives. Gives where the attempt had gone on from.
async fn progress_update(
    tx: &mut PgConnection,
    claim: &Claim,
    attempt_id: i64,
    batch: &Batch,
) -> Result<i64, sqlx::Error> {
    let (resumed_from, device) = batch.started.clone().unzip();
    let from = sqlx::query_scalar!(
        "WITH alive AS (UPDATE attempt SET heartbeat_at = now() WHERE attempt_id = $6 AND attempt_id <> $1),
              -- It has begun before the parent's end: it goes on from nothing of the parent.
              alone AS (UPDATE job SET parent = NULL, parent_samples = 0 WHERE job_id = $7 AND parent_samples > $4),
              noted AS (INSERT INTO event (attempt_id, kind) SELECT attempt_id, 'started' FROM attempt
                        WHERE attempt_id = $1 AND $4::bigint IS NOT NULL AND resumed_from_samples IS NULL)
         UPDATE attempt SET acked_events = greatest(acked_events, $2), samples_seen = greatest(samples_seen, $3),
                resumed_from_samples = coalesce($4, resumed_from_samples), device = coalesce($5, device),
                heartbeat_at = CASE attempt_id WHEN $6 THEN now() ELSE heartbeat_at END
         WHERE attempt_id = $1 RETURNING resumed_from_samples",
        attempt_id,
        batch.acked_events,
        batch.position,
        resumed_from,
        device,
        claim.attempt_id,
        claim.job_id,
    )
    .fetch_optional(tx)
    .await?;
    Ok(from.flatten().unwrap_or(0))
}

/// U of the result is what was trained on, also where the plan counted pairs whose images turned out unusable.
async fn data_update(tx: &mut PgConnection, job_id: i64, data: &DataUsed) -> Result<(), sqlx::Error> {
    let skipped = (!data.skipped.is_empty()).then(|| serde_json::json!(data.skipped));
    sqlx::query!(
        "UPDATE job SET unique_samples = least($2, samples_seen), skipped = $3
         WHERE job_id = $1 AND (unique_samples <> least($2, samples_seen) OR skipped IS DISTINCT FROM $3)",
        job_id,
        data.pairs.cast_signed(),
        skipped,
    )
    .execute(tx)
    .await
    .map(drop)
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
        "WITH added AS (
             INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
             SELECT $1, metric_id, given.step, given.samples_seen, given.value
             FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::float8[]) AS given (name, step, samples_seen, value)
             JOIN metric_name USING (name)
             ON CONFLICT DO NOTHING RETURNING step)
         INSERT INTO metric_batch (attempt_id, first_step, last_step)
         SELECT $1, min(step), max(step) FROM added HAVING count(*) > 0",
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
