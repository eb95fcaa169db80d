//! Whether all that a job plans was measured when it ends: by this attempt or an earlier one, whoever stored it.

use protocol::{EvaluationTask, FailureKind};
use sqlx::PgConnection;

use super::attempt::{Claim, Ending};
use super::evaluation;
use crate::events::complete::{Measured, missing};

/// Kind of the history's entries that say that a task was not measured.
const KIND: &str = "unmeasured";

/// A task that a runner said not to have measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unmeasured {
    pub(super) dataset: String,
    pub(super) samples_seen: i64,
    pub(super) task: EvaluationTask,
    pub(super) reason: String,
}

/// Stores what was not measured, in the job's history; what is there already once.
pub(super) async fn unmeasured_insert(
    tx: &mut PgConnection,
    claim: &Claim,
    attempt_id: i64,
    rows: &[Unmeasured],
) -> Result<(), sqlx::Error> {
    for row in rows {
        let Unmeasured { dataset, samples_seen, task, reason } = row;
        let detail = format!("{} of {dataset} at {samples_seen} samples: {reason}", task.name());
        sqlx::query!(
            "INSERT INTO event (job_id, attempt_id, kind, detail)
             SELECT $1, $2, $3, $4
             WHERE NOT EXISTS (SELECT FROM event WHERE job_id = $1 AND attempt_id = $2 AND kind = $3 AND detail = $4)",
            claim.job_id,
            attempt_id,
            KIND,
            detail,
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// A curve has no gap: an attempt goes on from where an earlier one had come, or the job's parent, or begins at the
/// beginning.
async fn without_beginning(
    tx: &mut PgConnection,
    claim: &Claim,
    resumed_from: i64,
) -> Result<Option<Ending>, sqlx::Error> {
    if resumed_from == 0 {
        return Ok(None);
    }
    let reached = sqlx::query_scalar!(
        r#"SELECT greatest((SELECT max(samples_seen) FROM attempt WHERE job_id = $1 AND attempt_id <> $2),
                           (SELECT j.parent_samples FROM job j JOIN job p ON p.job_id = j.parent
                            WHERE j.job_id = $1 AND p.state = 'done'), 0) AS "reached!""#,
        claim.job_id,
        claim.attempt_id
    )
    .fetch_one(tx)
    .await?;
    let reason = format!(
        "the runner says that it went on from {resumed_from} samples, and no attempt before it had come further than \
         {reached}: what was trained until there is not known"
    );
    Ok((resumed_from > reached).then(|| failed(reason)))
}

/// An ending that no retry mends.
pub(super) fn failed(reason: String) -> Ending {
    Ending::Failed { kind: FailureKind::BadInput, reason, exit_code: None, stderr_tail: String::new() }
}

/// The ending as it is to be stored: a job that has finished without all that it plans has failed. `batch` is what the
/// ending comes with, and is stored; `resumed_from` where its attempt went on from.
pub(super) async fn checked(
    tx: &mut PgConnection,
    claim: &Claim,
    ending: &Ending,
    resumed_from: i64,
    batch: (&[evaluation::Row], &[Unmeasured]),
) -> Result<Option<Ending>, sqlx::Error> {
    let spec = &claim.spec;
    if !matches!(ending, Ending::Finished { .. }) {
        return Ok(None);
    }
    if let Some(failed) = without_beginning(tx, claim, resumed_from).await? {
        return Ok(Some(failed));
    }
    if spec.evaluations.is_empty() {
        return Ok(None);
    }
    let mut measured = Measured::default();
    for row in batch.0 {
        measured.add_metric(&row.dataset, row.samples_seen.cast_unsigned(), &row.measurement.metric);
    }
    for row in batch.1 {
        measured.add_unmeasured(&row.dataset, row.samples_seen.cast_unsigned(), row.task);
    }
    // Short jobs end with all that they have said.
    if missing(spec, &measured, 0).is_none() {
        return Ok(None);
    }
    let stored = sqlx::query!(
        r#"SELECT dataset AS "dataset!", metric AS "metric!", samples_seen AS "samples_seen!" FROM measurement
           WHERE job_id = $1"#,
        claim.job_id
    );
    for row in stored.fetch_all(&mut *tx).await? {
        measured.add_metric(&row.dataset, row.samples_seen.cast_unsigned(), &row.metric);
    }
    let unmeasured = sqlx::query_scalar!(
        r#"SELECT detail AS "detail!" FROM event WHERE job_id = $1 AND kind = $2 AND detail IS NOT NULL"#,
        claim.job_id,
        KIND
    );
    for detail in unmeasured.fetch_all(&mut *tx).await? {
        for plan in &spec.evaluations {
            let said =
                |task: &str, at: u64| detail.starts_with(&format!("{task} of {} at {at} samples: ", plan.dataset));
            for at in plan.at_samples.iter().copied().chain([spec.samples_seen]) {
                for task in plan.tasks.iter().filter(|task| said(task.name(), at)) {
                    measured.add_unmeasured(&plan.dataset, at, *task);
                }
            }
        }
    }
    let missing = missing(spec, &measured, 0);
    Ok(missing.map(|missing| failed(format!("the runner said `finished` too soon: {missing}"))))
}
