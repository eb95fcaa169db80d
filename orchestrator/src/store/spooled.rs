//! Attempts whose workers reach no database (`ship: spool`): the launcher claims for them and says that they live.
//!
//! The fence is given before the worker starts, and goes with it in a file. An attempt counts as running once its
//! worker was seen.

use sqlx::PgConnection;

use super::attempt::{Claim, ClaimRow, Orders};
use super::{Store, StoreError, doing};

/// What the database says to a worker that was seen.
#[derive(Debug, Clone)]
pub struct SeenWorker {
    /// Name of its attempt.
    pub token: String,
    /// For the worker.
    pub orders: Orders,
}

impl Store {
    /// Gives fences to recorded attempts, one higher than their jobs have, and the claims that go with them. Asked
    /// again for the same attempts, it gives the same. Attempts that have ended, or are claimed in another way, are
    /// left out.
    pub async fn attempt_grant(&self, tokens: &[String]) -> Result<Vec<(String, Claim)>, StoreError> {
        let failed = doing("can't give a fence to an attempt");
        sqlx::query!(
            "WITH locked AS MATERIALIZED (
                 SELECT j.job_id, j.fence, a.attempt_id FROM job j JOIN attempt a USING (job_id)
                 WHERE a.token = ANY ($1) AND a.state IN ('intent', 'launched') AND a.fence IS NULL AND j.state = 'pending'
                 ORDER BY j.job_id FOR UPDATE OF j),
             granted AS (
                 UPDATE attempt a SET fence = locked.fence + 1, ship = 'spool' FROM locked
                 WHERE a.attempt_id = locked.attempt_id AND a.state IN ('intent', 'launched') AND a.fence IS NULL
                 RETURNING a.job_id, a.fence)
             UPDATE job SET fence = granted.fence FROM granted WHERE job.job_id = granted.job_id",
            tokens
        )
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        claims_of(&mut connection, tokens).await.map_err(&failed)
    }

    /// Says that the workers of these attempts were seen: those that had not been have claimed their attempts. Gives
    /// those whose claims count. `nodes`: the machine of each, or nothing.
    pub async fn attempt_seen(&self, tokens: &[String], nodes: &[String]) -> Result<Vec<SeenWorker>, StoreError> {
        let rows = sqlx::query!(
            r#"WITH locked AS MATERIALIZED (
                   SELECT j.job_id, j.fence, j.state, a.attempt_id, a.state AS before, given.node
                   FROM unnest($1::text[], $2::text[]) AS given (token, node) JOIN attempt a USING (token)
                   JOIN job j USING (job_id)
                   WHERE a.ship = 'spool' AND a.state IN ('intent', 'launched', 'running')
                   ORDER BY j.job_id FOR UPDATE OF j),
               seen AS (
                   UPDATE attempt a SET state = 'running', claimed_at = coalesce(claimed_at, now()), heartbeat_at = now(),
                          node = coalesce(nullif(locked.node, ''), a.node)
                   FROM locked
                   WHERE a.attempt_id = locked.attempt_id AND a.fence = locked.fence
                         AND a.state IN ('intent', 'launched', 'running')
                   RETURNING a.job_id, a.attempt_id, a.token, a.stop_requested, locked.before,
                             locked.state = 'cancelled' AS cancelled),
               moved AS (
                   UPDATE job SET state = 'running', reason = NULL FROM seen
                   WHERE job.job_id = seen.job_id AND job.state = 'pending'),
               noted AS (
                   INSERT INTO event (job_id, attempt_id, kind)
                   SELECT job_id, attempt_id, 'claimed' FROM seen WHERE before <> 'running')
               SELECT token, stop_requested, cancelled AS "cancelled!" FROM seen"#,
            tokens,
            nodes
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't store heartbeats"))?;
        let seen = rows.into_iter().map(|row| SeenWorker {
            token: row.token,
            orders: Orders { stop: row.stop_requested, cancel: row.cancelled },
        });
        Ok(seen.collect())
    }
}

/// Claims of attempts that live, as long as they count.
async fn claims_of(tx: &mut PgConnection, tokens: &[String]) -> Result<Vec<(String, Claim)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT a.token, a.attempt_id, a.job_id, a.fence AS "fence!", j.job_key, js.spec, j.parameters AS "parameters!",
                  a.folder, a.device AS "device!", a.threads AS "threads!", j.parent
           FROM attempt a JOIN job j USING (job_id) JOIN job_spec js USING (job_id)
           WHERE a.token = ANY ($1) AND a.ship = 'spool' AND a.state IN ('intent', 'launched') AND a.fence = j.fence"#,
        tokens
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut claims = Vec::with_capacity(rows.len());
    for row in rows {
        let claim = ClaimRow {
            attempt_id: row.attempt_id,
            job_id: row.job_id,
            fence: row.fence,
            job_key: row.job_key,
            spec: row.spec,
            parameters: row.parameters,
            folder: row.folder,
            device: row.device,
            threads: row.threads,
            parent: row.parent,
        };
        claims.push((row.token, claim.into_claim(tx).await?));
    }
    Ok(claims)
}
