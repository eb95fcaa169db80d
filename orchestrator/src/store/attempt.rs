//! Attempts: recorded, launched, claimed, ended. Every write of a worker is fenced: if its claim is no longer the job's
//! last, or its attempt no longer runs, it changes nothing.
//!
//! Locks are taken in one order, job then attempt, so that no two transactions wait for each other.

use std::path::PathBuf;

use protocol::{FailureKind, JobSpec, ParentCheckpoint};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, Transaction};

use super::checkpoint::last_checkpoint;
use super::{Store, StoreError, doing};

/// A claimed attempt: what its worker needs, and the fence that its writes carry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    /// Row.
    pub attempt_id: i64,
    /// Row of the job.
    pub job_id: i64,
    /// Number of the claim.
    pub fence: i64,
    /// 64 hex digits.
    pub job_key: String,
    /// What to train.
    pub spec: JobSpec,
    /// N as planned.
    pub parameters: i64,
    /// Folder of the attempt.
    pub folder: PathBuf,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Threads for arithmetic.
    pub threads: i32,
    /// Where its parent left off, if it has one that is done.
    #[serde(default)]
    pub parent: Option<ParentCheckpoint>,
}

/// An earlier attempt of the same job.
#[derive(Debug, Clone)]
pub struct Predecessor {
    /// Row.
    pub attempt_id: i64,
    /// Name.
    pub token: String,
    /// Name of its worker process, if that has no attempt any more: nothing of it may be left running.
    pub ended_worker: Option<String>,
    /// Folder.
    pub folder: PathBuf,
    /// Number of its claim.
    pub fence: i64,
    /// Lines of its events that are stored.
    pub acked_events: i64,
    /// A later attempt has stored its spool: what was written there after that is a superseded worker's.
    pub spool_closed: bool,
}

/// What the database asks of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// Stop after a checkpoint.
    pub stop: bool,
    /// The job was cancelled.
    pub cancel: bool,
}

/// How an attempt ended, as its worker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    /// The job is done.
    Finished {
        /// Seconds in training steps.
        train_secs: f64,
        /// Seconds in evaluations.
        eval_secs: f64,
        /// Largest resident memory.
        peak_memory_bytes: Option<i64>,
    },
    /// It failed.
    Failed {
        /// Whether to try again.
        kind: FailureKind,
        /// One sentence.
        reason: String,
        /// Exit code of the runner, if it left with one.
        exit_code: Option<i32>,
        /// Its last words.
        stderr_tail: String,
    },
    /// Stopped on request, after a checkpoint.
    Stopped {
        /// [`Ending::ASKED`] or [`Ending::TIME_LIMIT`].
        reason: String,
    },
}

/// What an attempt took, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Energy {
    /// Joules of the GPUs that it was given, while it ran.
    pub gpu_joules: Option<f64>,
    /// Joules of all processor packages of its machine meanwhile, whatever else ran there.
    pub machine_cpu_joules: Option<f64>,
    /// Its threads over the machine's CPUs: the part of those that is counted as its own.
    pub cpu_share: Option<f64>,
}

impl Ending {
    /// Reason of an attempt that was stopped by a signal or by request.
    pub const ASKED: &'static str = "asked to stop";
    /// Reason of an attempt that was stopped because its time was over.
    pub const TIME_LIMIT: &'static str = "time limit";
    /// What the reason of an attempt begins with that ended for want of disk space: it costs nothing and is tried again
    /// later (the SQL function `job_history` looks for it).
    pub const NO_SPACE: &'static str = "no space left on the disk";
    /// What the reason of a crash begins with that the kernel's want of memory has led to: it has a budget of its own
    /// (`job_history` looks for it).
    pub const OUT_OF_MEMORY: &'static str = "out of memory";
}

impl Store {
    /// Stores that it ended without a word, and to what it was lost (a word of the column); its job is to be started
    /// again. `false`: it had ended already.
    pub async fn attempt_lost(
        &self,
        token: &str,
        reason: &str,
        lost_to: &str,
        node: Option<&str>,
    ) -> Result<bool, StoreError> {
        let dropped = Dropped { state: "lost", reason, lost_to: Some(lost_to), node };
        self.attempt_drop(token, &dropped, &["launched", "running"]).await
    }

    /// Stores that it was never started and isn't going to be. `false`: a worker has claimed it, or it has ended.
    pub async fn attempt_withdraw(&self, token: &str) -> Result<bool, StoreError> {
        let dropped = Dropped { state: "stopped", reason: "withdrawn before it started", lost_to: None, node: None };
        self.attempt_drop(token, &dropped, &["intent", "launched"]).await
    }

    async fn attempt_drop(&self, token: &str, end: &Dropped<'_>, from: &[&str]) -> Result<bool, StoreError> {
        let failed = doing("can't record the end of an attempt");
        let from: Vec<String> = from.iter().map(|&state| state.to_owned()).collect();
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        lock_job_of(&mut tx, token).await.map_err(&failed)?;
        let dropped = sqlx::query!(
            "UPDATE attempt SET state = $2, reason = $3, ended_at = now(), lost_to = $5, node = coalesce($6, node)
             WHERE token = $1 AND state = ANY ($4) RETURNING attempt_id, job_id",
            token,
            end.state,
            end.reason,
            &from,
            end.lost_to,
            end.node,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
        if let Some(row) = &dropped {
            sqlx::query!("UPDATE job SET state = 'pending' WHERE job_id = $1 AND state = 'running'", row.job_id)
                .execute(&mut *tx)
                .await
                .map_err(&failed)?;
            note(&mut tx, row.job_id, row.attempt_id, end.state, Some(end.reason)).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)?;
        Ok(dropped.is_some())
    }

    /// Asks the workers of these attempts to stop after a checkpoint.
    pub async fn attempt_request_stop(&self, tokens: &[String]) -> Result<(), StoreError> {
        sqlx::query!("UPDATE attempt SET stop_requested = true WHERE token = ANY ($1)", tokens)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(doing("can't ask attempts to stop"))
    }

    /// Claims an attempt for the calling process, known by `nonce`, on machine `node`: the job's fence grows by one and
    /// is its from now on. Asked again by the same process (the answer was lost, perhaps after the commit), it gives
    /// the same claim. `None`: there is nothing to claim (another process has it, it has ended or was withdrawn, or the
    /// job is no longer pending).
    pub async fn attempt_claim(&self, token: &str, nonce: &str, node: &str) -> Result<Option<Claim>, StoreError> {
        let failed = doing("can't claim the attempt");
        sqlx::query!(
            r#"WITH locked AS MATERIALIZED (
                   SELECT job_id, fence, state FROM job WHERE job_id = (SELECT job_id FROM attempt WHERE token = $1) FOR UPDATE),
               claimed AS (
                   UPDATE attempt a
                   SET state = 'running', fence = locked.fence + 1, claim_nonce = $2, node = $3, claimed_at = now(),
                       heartbeat_at = now()
                   FROM locked
                   WHERE a.token = $1 AND a.job_id = locked.job_id AND locked.state = 'pending'
                         AND a.state IN ('intent', 'launched') AND a.ship = 'database'
                   RETURNING a.attempt_id, a.job_id, a.fence),
               moved AS (
                   UPDATE job SET fence = claimed.fence, state = 'running', reason = NULL FROM claimed
                   WHERE job.job_id = claimed.job_id)
               INSERT INTO event (job_id, attempt_id, kind) SELECT job_id, attempt_id, 'claimed' FROM claimed"#,
            token,
            nonce,
            node
        )
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        claimed_by(&mut connection, token, nonce).await.map_err(&failed)
    }

    /// Ended attempts of the same job that a worker had claimed, oldest first.
    pub async fn attempt_predecessors(&self, claim: &Claim) -> Result<Vec<Predecessor>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT attempt_id, token, folder, fence AS "fence!", acked_events, spool_closed,
                    CASE WHEN NOT EXISTS (SELECT FROM attempt other
                                          WHERE coalesce(other.worker, other.token) = coalesce(a.worker, a.token)
                                                AND other.state IN ('intent', 'launched', 'running'))
                         THEN coalesce(worker, token) END AS ended_worker
             FROM attempt a
             WHERE job_id = $1 AND attempt_id <> $2 AND fence IS NOT NULL ORDER BY fence"#,
            claim.job_id,
            claim.attempt_id,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up earlier attempts"))?;
        let predecessors = rows.into_iter().map(|row| Predecessor {
            attempt_id: row.attempt_id,
            token: row.token,
            ended_worker: row.ended_worker,
            folder: row.folder.into(),
            fence: row.fence,
            acked_events: row.acked_events,
            spool_closed: row.spool_closed,
        });
        Ok(predecessors.collect())
    }

    /// Stores that the spools of these attempts were read to their ends: nothing written there later counts.
    pub async fn attempt_close_spools(&self, claim: &Claim, attempt_ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE attempt SET spool_closed = true
             WHERE attempt_id = ANY ($2) AND EXISTS (SELECT FROM job WHERE job_id = $1 AND fence = $3)",
            claim.job_id,
            attempt_ids,
            claim.fence
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(doing("can't close the spools of earlier attempts"))
    }

    /// Says that the worker lives, and asks for orders. `None`: the claim is superseded.
    pub async fn attempt_beat(&self, claim: &Claim) -> Result<Option<Orders>, StoreError> {
        let row = sqlx::query!(
            r#"UPDATE attempt a SET heartbeat_at = now() FROM job j
               WHERE a.attempt_id = $1 AND a.state = 'running' AND a.fence = $2 AND j.job_id = a.job_id AND j.fence = $2
               RETURNING a.stop_requested, j.state = 'cancelled' AS "cancelled!""#,
            claim.attempt_id,
            claim.fence,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(doing("can't send a heartbeat"))?;
        Ok(row.map(|row| Orders { stop: row.stop_requested, cancel: row.cancelled }))
    }
}

/// The claim of the process `nonce` to the attempt `token`, as long as it counts.
pub(super) async fn claimed_by(tx: &mut PgConnection, token: &str, nonce: &str) -> Result<Option<Claim>, sqlx::Error> {
    let row = sqlx::query_as!(
        ClaimRow,
        r#"SELECT a.attempt_id, a.job_id, a.fence AS "fence!", j.job_key, js.spec, j.parameters AS "parameters!", a.folder,
                  a.device AS "device!", a.threads AS "threads!", j.parent
           FROM attempt a JOIN job j USING (job_id) JOIN job_spec js USING (job_id)
           WHERE a.token = $1 AND a.state = 'running' AND a.claim_nonce = $2 AND a.fence = j.fence"#,
        token,
        nonce
    )
    .fetch_optional(&mut *tx)
    .await?;
    match row {
        Some(row) => row.into_claim(tx).await.map(Some),
        None => Ok(None),
    }
}

/// A [`Claim`] as it is read.
pub(super) struct ClaimRow {
    pub(super) attempt_id: i64,
    pub(super) job_id: i64,
    pub(super) fence: i64,
    pub(super) job_key: String,
    pub(super) spec: serde_json::Value,
    pub(super) parameters: i64,
    pub(super) folder: String,
    pub(super) device: String,
    pub(super) threads: i32,
    pub(super) parent: Option<i64>,
}

impl ClaimRow {
    pub(super) async fn into_claim(self, tx: &mut PgConnection) -> Result<Claim, sqlx::Error> {
        let parent = match self.parent {
            Some(parent) => last_checkpoint(tx, parent).await?,
            None => None,
        };
        Ok(Claim {
            parent,
            attempt_id: self.attempt_id,
            job_id: self.job_id,
            fence: self.fence,
            job_key: self.job_key,
            spec: serde_json::from_value(self.spec).map_err(|error| sqlx::Error::Decode(error.into()))?,
            parameters: self.parameters,
            folder: self.folder.into(),
            device: self.device,
            threads: self.threads,
        })
    }
}

/// Ends the claimed attempt and moves its job on, in the caller's transaction, which holds both rows' locks.
/// `cancelled`: the job was cancelled meanwhile.
pub(super) async fn attempt_end(
    tx: &mut PgConnection,
    claim: &Claim,
    (ending, energy): (&Ending, Energy),
    cancelled: bool,
) -> Result<(), sqlx::Error> {
    let end = match ending {
        _ if cancelled => {
            EndColumns { state: "cancelled", job: "cancelled", reason: Some("cancelled"), ..EndColumns::default() }
        }
        Ending::Finished { train_secs, eval_secs, peak_memory_bytes } => EndColumns {
            state: "finished",
            job: "done",
            exit_code: Some(0),
            train_secs: Some(*train_secs),
            eval_secs: Some(*eval_secs),
            peak_memory_bytes: *peak_memory_bytes,
            ..EndColumns::default()
        },
        Ending::Failed { kind, reason, exit_code, stderr_tail } => {
            let (kind, job) = match kind {
                FailureKind::Diverged => ("diverged", "failed"),
                FailureKind::BadInput => ("bad_input", "failed"),
                FailureKind::Crash => ("crash", "pending"),
            };
            EndColumns {
                state: "failed",
                job,
                kind: Some(kind),
                reason: Some(reason),
                exit_code: *exit_code,
                stderr_tail: Some(stderr_tail),
                ..EndColumns::default()
            }
        }
        Ending::Stopped { reason } => EndColumns {
            state: "stopped",
            job: "pending",
            reason: Some(reason),
            exit_code: Some(protocol::exit::STOPPED),
            ..EndColumns::default()
        },
    };
    sqlx::query!(
        "WITH ended AS (
             UPDATE attempt SET state = $2, failure_kind = $3, reason = $4, exit_code = $5, stderr_tail = $6,
                    train_secs = $7, eval_secs = $8, peak_memory_bytes = $9, gpu_joules = $12, machine_cpu_joules = $13,
                    cpu_share = $14, ended_at = now()
             WHERE attempt_id = $1),
         moved AS (
             UPDATE job SET state = $11, reason = CASE $11 WHEN 'failed' THEN $4 ELSE reason END,
                    done_at = CASE $11 WHEN 'done' THEN now() END
             WHERE job_id = $10)
         INSERT INTO event (job_id, attempt_id, kind, detail) VALUES ($10, $1, $2, $4)",
        claim.attempt_id,
        end.state,
        end.kind,
        end.reason,
        end.exit_code,
        end.stderr_tail,
        end.train_secs,
        end.eval_secs,
        end.peak_memory_bytes,
        claim.job_id,
        end.job,
        energy.gpu_joules,
        energy.machine_cpu_joules,
        energy.cpu_share,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The end of an attempt as its launcher records it.
struct Dropped<'a> {
    state: &'a str,
    reason: &'a str,
    lost_to: Option<&'a str>,
    node: Option<&'a str>,
}

/// Columns of an end.
#[derive(Default)]
struct EndColumns<'a> {
    state: &'static str,
    job: &'static str,
    kind: Option<&'static str>,
    reason: Option<&'a str>,
    exit_code: Option<i32>,
    stderr_tail: Option<&'a str>,
    train_secs: Option<f64>,
    eval_secs: Option<f64>,
    peak_memory_bytes: Option<i64>,
}

/// Locks the job of an attempt: always before the attempt itself.
async fn lock_job_of(tx: &mut Transaction<'_, Postgres>, token: &str) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT job_id FROM job WHERE job_id = (SELECT job_id FROM attempt WHERE token = $1) FOR UPDATE",
        token
    )
    .fetch_optional(&mut **tx)
    .await
    .map(drop)
}

/// One line of the history.
pub(super) async fn note(
    tx: &mut PgConnection,
    job_id: i64,
    attempt_id: i64,
    kind: &str,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO event (job_id, attempt_id, kind, detail) VALUES ($1, $2, $3, $4)",
        job_id,
        attempt_id,
        kind,
        detail,
    )
    .execute(tx)
    .await
    .map(drop)
}
