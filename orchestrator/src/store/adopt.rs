//! Attempts that were made under another database, or before this one was restored from an older copy.

use std::path::PathBuf;

use super::attempt::{Claim, note};
use super::{Store, StoreError, doing};

/// An attempt as its folder tells of it.
#[derive(Debug, Clone)]
pub struct AdoptedAttempt {
    /// Its name, which is its folder's.
    pub token: String,
    /// Folder.
    pub folder: PathBuf,
    /// Number of its claim.
    pub fence: i64,
    /// When its job was written, seconds since 1970.
    pub begun_secs: Option<f64>,
    /// When its last event was.
    pub ended_secs: Option<f64>,
}

/// Reason of attempts that were adopted. `job_history` counts them against no limit.
const REASON: &str = "found in the job's folder; the database did not know it";

impl Store {
    /// Records attempts of the claimed job, ended and with nothing stored of their events yet, and gives the claim a
    /// fence of at least `fence_min`, which has to be above theirs. Gives it, the same when asked again. `None`: the
    /// claim is superseded.
    pub async fn attempt_adopt(
        &self,
        claim: &Claim,
        adopted: &[AdoptedAttempt],
        fence_min: i64,
    ) -> Result<Option<i64>, StoreError> {
        let failed = doing("can't take over earlier attempts of the job");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        // A claim whose fence has grown is one of which the last answer was lost: nobody else moves it.
        let current = sqlx::query_scalar!(
            r#"SELECT a.fence AS "fence!" FROM job j JOIN attempt a USING (job_id)
               WHERE a.attempt_id = $1 AND (a.state = 'running' OR a.ship = 'spool' AND a.state IN ('intent', 'launched'))
                     AND a.fence >= $2 AND a.fence = j.fence FOR UPDATE OF j, a"#,
            claim.attempt_id,
            claim.fence
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
        let Some(current) = current else { return Ok(None) };
        for attempt in adopted {
            // No process is known by the name of its worker: whether it was its own is not in the folder.
            let new = sqlx::query_scalar!(
                "INSERT INTO attempt (job_id, token, worker, state, backend, fence, folder, reason, created_at, claimed_at,
                                      heartbeat_at, ended_at)
                 VALUES ($1, $2, 'adopted-' || $2, 'stopped', 'adopted', $3, $4, $5, coalesce(to_timestamp($6), now()),
                         to_timestamp($6), greatest(to_timestamp($7), to_timestamp($6)),
                         coalesce(greatest(to_timestamp($7), to_timestamp($6)), now()))
                 ON CONFLICT (token) DO NOTHING RETURNING attempt_id",
                claim.job_id,
                attempt.token,
                attempt.fence,
                attempt.folder.display().to_string(),
                REASON,
                attempt.begun_secs,
                attempt.ended_secs
            )
            .fetch_optional(&mut *tx)
            .await
            .map_err(&failed)?;
            if let Some(attempt_id) = new {
                note(&mut tx, claim.job_id, attempt_id, "adopted", None).await.map_err(&failed)?;
            }
        }
        let fence = current.max(fence_min);
        sqlx::query!(
            "WITH moved AS (UPDATE attempt SET fence = $2 WHERE attempt_id = $1 RETURNING job_id)
             UPDATE job SET fence = $2 FROM moved WHERE job.job_id = moved.job_id",
            claim.attempt_id,
            fence
        )
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        Ok(Some(fence))
    }
}
