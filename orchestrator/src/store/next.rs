//! A worker that takes the next job of its sweep by itself, with the end of the last one.

use sqlx::PgConnection;

use super::attempt::{Claim, ClaimRow};

/// A launcher that was not seen for so long does not drive its sweep any more: nobody would see to retries.
pub const LAUNCHER_SECS: f64 = 15.0;

/// What a worker asks for with the end of an attempt: the next job of a sweep, for the same slot.
#[derive(Debug, Clone)]
pub struct NextRequest {
    /// Row of the sweep.
    pub sweep_id: i64,
    /// Name of the attempt to be. Asking again under the same name gives the same attempt.
    pub token: String,
    /// Of the worker's process: see [`super::Store::attempt_claim`].
    pub nonce: String,
    /// Folder of all state; the attempt gets its own below `jobs/`.
    pub home: String,
}

/// Claims for the worker of `ended`, which has just ended, the next job of the sweep, in plan order, that was never
/// attempted, in the caller's transaction. `None`: there is none, or no launcher drives the sweep, or the worker was
/// asked to stop.
///
/// The 100 jobs behind the last one are looked at, which is more than other workers run; where none of them is to be
/// had (another launch has done them), the launcher looks further. Jobs that were attempted before are the launcher's
/// to start: when, and whether at all, is its policy. So are jobs whose parent is not done.
pub(super) async fn take_next(
    tx: &mut PgConnection,
    ended: &Claim,
    request: &NextRequest,
) -> Result<Option<Claim>, sqlx::Error> {
    let row = sqlx::query_as!(
        ClaimRow,
        r#"WITH last AS MATERIALIZED (
               SELECT a.*, sj.position FROM attempt a JOIN sweep_job sj USING (job_id) JOIN sweep s USING (sweep_id)
               WHERE a.attempt_id = $1 AND sj.sweep_id = $2 AND NOT a.stop_requested
                     AND s.launcher_seen_at BETWEEN clock_timestamp() - make_interval(secs => $6)
                                              AND clock_timestamp() + make_interval(secs => $6)),
           next AS MATERIALIZED (
               SELECT j.job_id, j.job_key, j.parameters, j.parent FROM
                   (SELECT job_id, position FROM sweep_job WHERE sweep_id = $2 AND position > (SELECT position FROM last)
                    ORDER BY position LIMIT 100) near
                   JOIN job j USING (job_id)
               WHERE j.state = 'pending' AND j.fence = 0
                     AND (j.parent IS NULL OR EXISTS (SELECT FROM job p WHERE p.job_id = j.parent AND p.state = 'done'))
                     AND NOT EXISTS (SELECT FROM attempt a WHERE a.job_id = j.job_id AND a.state IN ('intent', 'launched', 'running'))
               ORDER BY near.position LIMIT 1 FOR UPDATE OF j SKIP LOCKED),
           taken AS (
               INSERT INTO attempt (job_id, token, worker, backend, host, machine, slot, handle, node, folder, device, threads,
                                    state, fence, claim_nonce, launched_at, claimed_at, heartbeat_at)
               SELECT next.job_id, $3, coalesce(last.worker, last.token), last.backend, last.host, last.machine, last.slot,
                      last.handle, last.node, concat($5::text, '/jobs/', left(next.job_key, 12), '/', $3::text),
                      $7, $8, 'running', 1, $4, now(), now(), now()
               FROM last, next
               ON CONFLICT DO NOTHING
               RETURNING attempt_id, job_id, fence, folder, device, threads),
           moved AS (
               UPDATE job SET fence = 1, state = 'running', reason = NULL FROM taken WHERE job.job_id = taken.job_id),
           noted AS (
               INSERT INTO event (job_id, attempt_id, kind) SELECT job_id, attempt_id, 'claimed' FROM taken)
           SELECT taken.attempt_id, taken.job_id, taken.fence AS "fence!", next.job_key, js.spec,
                  next.parameters AS "parameters!", taken.folder, taken.device AS "device!", taken.threads AS "threads!",
                  next.parent
           FROM taken JOIN next USING (job_id) JOIN job_spec js USING (job_id)"#,
        ended.attempt_id,
        request.sweep_id,
        request.token,
        request.nonce,
        request.home,
        LAUNCHER_SECS,
        ended.device,
        ended.threads,
    )
    .fetch_optional(&mut *tx)
    .await?;
    match row {
        Some(row) => row.into_claim(tx).await.map(Some),
        None => Ok(None),
    }
}
