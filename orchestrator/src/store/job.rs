//! Jobs: their states, and what people ask of them.

use std::collections::BTreeMap;

use super::{JobProgress, Store, StoreError, doing};

/// Number of jobs by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateCounts {
    /// Not started.
    pub pending: i64,
    /// Claimed.
    pub running: i64,
    /// Done.
    pub done: i64,
    /// Failed.
    pub failed: i64,
    /// Cancelled.
    pub cancelled: i64,
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Jobs by state.
    pub counts: StateCounts,
    /// Forward GMACs x samples that are done, of jobs that are done, without what their parents train.
    pub gmacs_done: f64,
    /// Of all jobs.
    pub gmacs: f64,
}

impl Totals {
    /// Forward GMACs x samples that are done, with those of jobs that run.
    pub fn gmacs_reached<'a>(&self, running: impl IntoIterator<Item = &'a JobProgress>) -> f64 {
        self.gmacs_done + running.into_iter().map(|job| job.share_done() * job.gmacs).sum::<f64>()
    }
}

/// A job that people name by the first digits of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// Row.
    pub job_id: i64,
    /// 64 hex digits.
    pub job_key: String,
    /// State.
    pub state: String,
    /// Its attempts, oldest first: state and folder.
    pub attempts: Vec<(String, String)>,
}

/// What is known of a job's present and of its last attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStory {
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// Seconds since its result was stored.
    pub done_secs_ago: Option<f64>,
    /// Attempts so far.
    pub attempts: i64,
    /// State of the attempt that lives: `intent`, `launched` or `running`.
    pub live_state: Option<String>,
    /// Seconds since the last sign of life of its last attempt.
    pub live_secs: Option<f64>,
    /// Backend of its last attempt.
    pub backend: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Its worker's name on the backend.
    pub worker: Option<String>,
    /// The backend's name for the worker.
    pub handle: Option<String>,
    /// How the last attempt that has ended did.
    pub last_end: Option<String>,
    /// Seconds since a launcher was seen to drive a sweep of its.
    pub launcher_secs: Option<f64>,
    /// Key of its parent, while that is not done.
    pub waits_for: Option<String>,
}

impl StateCounts {
    /// All jobs.
    pub fn total(&self) -> i64 {
        self.pending + self.running + self.done + self.failed + self.cancelled
    }
}

impl Store {
    /// States of those of the jobs that are stored, by key.
    pub async fn job_states(&self, job_keys: &[String]) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = sqlx::query!("SELECT job_key, state FROM job WHERE job_key = ANY($1)", job_keys)
            .fetch_all(&self.pool)
            .await
            .map_err(doing("reading the states of jobs"))?;
        Ok(rows.into_iter().map(|row| (row.job_key, row.state)).collect())
    }

    /// How far a sweep is.
    pub async fn job_totals(&self, sweep_id: i64) -> Result<Totals, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE state = 'pending') AS "pending!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      count(*) FILTER (WHERE state = 'done') AS "done!",
                      count(*) FILTER (WHERE state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!",
                      coalesce(sum(own.gmacs) FILTER (WHERE state = 'done'), 0) AS "gmacs_done!",
                      coalesce(sum(own.gmacs) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS "gmacs!"
               FROM sweep_job JOIN job USING (job_id)
               CROSS JOIN LATERAL (SELECT gmacs_samples * (1 - parent_samples::float8 / samples_seen) AS gmacs) own
               WHERE sweep_id = $1"#,
            sweep_id
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't count the jobs"))?;
        let counts = StateCounts {
            pending: row.pending,
            running: row.running,
            done: row.done,
            failed: row.failed,
            cancelled: row.cancelled,
        };
        Ok(Totals { counts, gmacs_done: row.gmacs_done, gmacs: row.gmacs })
    }

    /// Jobs with one of these keys, by state.
    pub async fn job_counts(&self, keys: &[String]) -> Result<StateCounts, StoreError> {
        sqlx::query_as!(
            StateCounts,
            r#"SELECT count(*) FILTER (WHERE state = 'pending') AS "pending!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      count(*) FILTER (WHERE state = 'done') AS "done!",
                      count(*) FILTER (WHERE state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!"
               FROM job WHERE job_key = ANY ($1)"#,
            keys
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't count the jobs"))
    }

    /// Gives a job up. No effect unless it is pending.
    pub async fn job_fail(&self, job_id: i64, reason: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH failed AS (UPDATE job SET state = 'failed', reason = $2 WHERE job_id = $1 AND state = 'pending'
                             RETURNING job_id)
             INSERT INTO event (job_id, kind, detail) SELECT job_id, 'given up', $2 FROM failed",
            job_id,
            reason
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(doing("can't give the job up"))
    }

    /// Jobs whose key starts with `prefix`, at most a handful, with their attempts.
    pub async fn job_find(&self, prefix: &str) -> Result<Vec<JobDetail>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT j.job_id, j.job_key, j.state,
                      coalesce(array_agg(a.state ORDER BY a.attempt_id) FILTER (WHERE a.token IS NOT NULL), '{}')
                          AS "states!",
                      coalesce(array_agg(a.folder ORDER BY a.attempt_id) FILTER (WHERE a.token IS NOT NULL), '{}')
                          AS "folders!"
               FROM job j LEFT JOIN attempt a USING (job_id)
               WHERE starts_with(j.job_key, $1) GROUP BY j.job_id ORDER BY j.job_key LIMIT 6"#,
            prefix
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up the job"))?;
        let detail = rows.into_iter().map(|row| JobDetail {
            job_id: row.job_id,
            job_key: row.job_key,
            state: row.state,
            attempts: row.states.into_iter().zip(row.folders).collect(),
        });
        Ok(detail.collect())
    }

    /// What is known of a job; `None`: there is no such row.
    pub async fn job_story(&self, job_id: i64) -> Result<Option<JobStory>, StoreError> {
        sqlx::query_as!(
            JobStory,
            r#"SELECT j.reason, extract(epoch FROM now() - j.done_at)::float8 AS done_secs_ago,
                      (SELECT count(*) FROM attempt a WHERE a.job_id = j.job_id) AS "attempts!",
                      CASE WHEN last.state IN ('intent', 'launched', 'running') THEN last.state END AS live_state,
                      extract(epoch FROM now() - greatest(last.created_at, last.launched_at, last.claimed_at,
                                                          last.heartbeat_at))::float8 AS live_secs,
                      last.backend AS "backend?", last.host, coalesce(last.worker, last.token) AS worker, last.handle,
                      (SELECT concat_ws(', ', a.state, a.reason) FROM attempt a
                       WHERE a.job_id = j.job_id AND a.ended_at IS NOT NULL ORDER BY a.attempt_id DESC LIMIT 1) AS last_end,
                      (SELECT min(extract(epoch FROM now() - s.launcher_seen_at))::float8
                       FROM sweep s JOIN sweep_job USING (sweep_id) WHERE job_id = j.job_id) AS launcher_secs,
                      (SELECT p.job_key FROM job p
                       WHERE p.job_id = j.parent AND p.state <> 'done'
                             AND EXISTS (SELECT FROM sweep_job own JOIN sweep_job parents USING (sweep_id)
                                         WHERE own.job_id = j.job_id AND parents.job_id = p.job_id)) AS waits_for
               FROM job j
               LEFT JOIN LATERAL (SELECT * FROM attempt a WHERE a.job_id = j.job_id ORDER BY a.attempt_id DESC LIMIT 1) last
                         ON true
               WHERE j.job_id = $1"#,
            job_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(doing("can't read what became of the job"))
    }

    /// Rows of a sweep's jobs.
    pub async fn job_ids(&self, sweep_id: i64) -> Result<Vec<i64>, StoreError> {
        sqlx::query_scalar!("SELECT job_id FROM sweep_job WHERE sweep_id = $1 ORDER BY position", sweep_id)
            .fetch_all(&self.pool)
            .await
            .map_err(doing("can't read the jobs of the sweep"))
    }

    /// Cancels jobs that are pending or running, and asks their workers to stop. Attempts of cancelled jobs that no
    /// worker has claimed, which none can any more, or that nobody has heard of for `silent_secs` (their host may be
    /// gone for good), end at once; should such a worker come back, its writes change nothing. Gives the number of
    /// jobs.
    pub async fn job_cancel(&self, job_ids: &[i64], reason: &str, silent_secs: f64) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"WITH locked AS MATERIALIZED (
                   SELECT job_id, state FROM job WHERE job_id = ANY ($1) ORDER BY job_id FOR UPDATE),
               cancelled AS (
                   UPDATE job SET state = 'cancelled', reason = $3
                   FROM locked WHERE job.job_id = locked.job_id AND locked.state IN ('pending', 'running')
                   RETURNING job.job_id),
               living AS (
                   SELECT attempt_id, attempt.state IN ('intent', 'launched')
                          OR greatest(heartbeat_at, claimed_at, launched_at, created_at) < now() - make_interval(secs => $2)
                          AS silent
                   FROM attempt JOIN locked USING (job_id)
                   WHERE locked.state IN ('pending', 'running', 'cancelled')
                         AND attempt.state IN ('intent', 'launched', 'running')),
               stopping AS (
                   UPDATE attempt SET stop_requested = true,
                          state = CASE WHEN living.silent THEN 'cancelled' ELSE attempt.state END,
                          reason = CASE WHEN living.silent THEN 'cancelled' END,
                          ended_at = CASE WHEN living.silent THEN now() END
                   FROM living
                   WHERE attempt.attempt_id = living.attempt_id AND state IN ('intent', 'launched', 'running')),
               noted AS (INSERT INTO event (job_id, kind) SELECT job_id, 'cancelled' FROM cancelled),
               uncounted AS (DELETE FROM sweep_totals)
               SELECT count(*) AS "cancelled!" FROM cancelled"#,
            job_ids,
            silent_secs,
            reason
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't cancel jobs"))
    }

    /// Open jobs whose attempt on one of these workers was stopped although we did not ask for it, and that were not
    /// given another go since.
    pub async fn job_stopped_on(&self, workers: &[String]) -> Result<Vec<i64>, StoreError> {
        sqlx::query_scalar!(
            "SELECT j.job_id FROM attempt a JOIN job j USING (job_id)
             WHERE coalesce(a.worker, a.token) = ANY ($1) AND a.state = 'stopped' AND NOT a.stop_requested
                   AND j.state IN ('pending', 'running')
                   AND j.retries_granted < (SELECT count(*) FROM attempt e
                                            WHERE e.job_id = a.job_id AND e.ended_at IS NOT NULL
                                                  AND e.attempt_id <= a.attempt_id)",
            workers
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look up the jobs of cancelled workers"))
    }

    /// Gives jobs in one of `states` another go, with a fresh budget of retries. Gives their number.
    pub async fn job_retry(&self, job_ids: &[i64], states: &[&str]) -> Result<i64, StoreError> {
        let states: Vec<String> = states.iter().map(|&state| state.to_owned()).collect();
        sqlx::query_scalar!(
            r#"WITH retried AS (
                   UPDATE job SET state = 'pending', reason = NULL,
                          retries_granted = (SELECT count(*) FROM attempt WHERE attempt.job_id = job.job_id
                                             AND ended_at IS NOT NULL)
                   WHERE job_id = ANY ($1) AND state = ANY ($2)
                   RETURNING job_id),
               noted AS (INSERT INTO event (job_id, kind) SELECT job_id, 'retry granted' FROM retried),
               uncounted AS (DELETE FROM sweep_totals)
               SELECT count(*) AS "retried!" FROM retried"#,
            job_ids,
            &states
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't retry jobs"))
    }
}
