//! Jobs: what is open, how far it is, and what people ask of it.

use std::collections::BTreeMap;

use super::{Store, StoreError, doing};

/// A job that is not done for a launcher: pending or running, or with an attempt that still lives.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenJob {
    /// Row.
    pub job_id: i64,
    /// 64 hex digits.
    pub job_key: String,
    /// `pending`, `running`, `failed`, `cancelled`.
    pub state: String,
    /// Attempts of kind `crash` that count against the limit.
    pub crashes: i64,
    /// Lost attempts that count.
    pub lost: i64,
    /// Attempts that count and stopped unasked no further than they resumed from.
    pub stalled: i64,
    /// When the last attempt ended, seconds since 1970 on the database's clock.
    pub last_end_secs: Option<f64>,
    /// What it said.
    pub last_reason: Option<String>,
    /// The attempt that lives.
    pub live: Option<LiveAttempt>,
}

/// An attempt that lives.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveAttempt {
    /// Name.
    pub token: String,
    /// `intent`, `launched` or `running`.
    pub state: String,
    /// Backend.
    pub backend: String,
    /// Machine.
    pub host: Option<String>,
    /// Slot.
    pub slot: Option<i32>,
    /// The backend's name for it.
    pub handle: Option<String>,
    /// Folder.
    pub folder: String,
    /// Whether it was asked to stop.
    pub stop_requested: bool,
    /// When it was recorded, seconds since 1970 on the database's clock.
    pub created_secs: f64,
}

/// A job for people: axes, state and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct JobProgress {
    /// 64 hex digits.
    pub job_key: String,
    /// State.
    pub state: String,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// Model.
    pub model: String,
    /// Samples to train on; `None`: an imported table does not say.
    pub samples_total: Option<i64>,
    /// Unique samples it may see; likewise.
    pub data_size: Option<i64>,
    /// Seed.
    pub seed: i64,
    /// C of the whole job, forward GMACs x samples.
    pub gmacs: f64,
    /// Samples seen at the last report of the last attempt.
    pub samples_seen: i64,
    /// Samples per second of the last attempt since it was claimed.
    pub samples_per_sec: Option<f64>,
    /// Training loss at the last report.
    pub loss: Option<f64>,
    /// Attempts.
    pub attempts: i64,
    /// Last words of the runner, where it failed.
    pub stderr_tail: Option<String>,
}

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
    /// Forward GMACs x samples that are done, of jobs that are done.
    pub gmacs_done: f64,
    /// Of all jobs.
    pub gmacs: f64,
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

impl JobProgress {
    /// Samples to train on, of a job that we train: it always has them.
    pub fn samples_of_ours(&self) -> i64 {
        self.samples_total.unwrap_or(0)
    }
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

    /// The database's clock, seconds since 1970, and the jobs of a sweep that a launcher has to care for, in plan
    /// order.
    pub async fn job_open(&self, sweep_id: i64) -> Result<(f64, Vec<OpenJob>), StoreError> {
        let failed = doing("can't read the state of the sweep");
        let now = sqlx::query_scalar!(r#"SELECT extract(epoch FROM clock_timestamp())::float8 AS "now!""#)
            .fetch_one(&self.pool)
            .await
            .map_err(&failed)?;
        let rows = sqlx::query!(
            r#"SELECT j.job_id, j.job_key, j.state,
                      h.crashes AS "crashes!", h.lost AS "lost!", h.stalled AS "stalled!",
                      h.last_end_secs, h.last_reason,
                      a.token AS "token?", a.state AS "attempt_state?", a.backend AS "backend?", a.host AS "host?", a.slot AS "slot?",
                      a.handle AS "handle?", a.folder AS "folder?", a.stop_requested AS "stop_requested?",
                      extract(epoch FROM a.created_at)::float8 AS "created_secs?"
               FROM sweep_job sj JOIN job j USING (job_id)
               LEFT JOIN attempt a ON a.job_id = j.job_id AND a.state IN ('intent', 'launched', 'running')
               CROSS JOIN LATERAL (
                   SELECT count(*) FILTER (WHERE state = 'failed' AND failure_kind = 'crash') AS crashes,
                          count(*) FILTER (WHERE state = 'lost') AS lost,
                          count(*) FILTER (WHERE state = 'stopped' AND reason IN ('time limit', 'the runner stopped itself')
                                           AND samples_seen <= coalesce(resumed_from_samples, 0)) AS stalled,
                          extract(epoch FROM max(ended_at))::float8 AS last_end_secs,
                          (array_agg(reason ORDER BY attempt_id DESC))[1] AS last_reason
                   FROM (SELECT *, row_number() OVER (ORDER BY attempt_id) AS nth FROM attempt past
                         WHERE past.job_id = j.job_id AND past.ended_at IS NOT NULL) counted
                   WHERE nth > j.retries_granted) h
               WHERE sj.sweep_id = $1 AND (j.state IN ('pending', 'running') OR a.attempt_id IS NOT NULL)
               ORDER BY sj.position"#,
            sweep_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let open = rows.into_iter().map(|row| OpenJob {
            job_id: row.job_id,
            job_key: row.job_key,
            state: row.state,
            crashes: row.crashes,
            lost: row.lost,
            stalled: row.stalled,
            last_end_secs: row.last_end_secs,
            last_reason: row.last_reason,
            live: row.token.map(|token| LiveAttempt {
                token,
                state: row.attempt_state.unwrap_or_default(),
                backend: row.backend.unwrap_or_default(),
                host: row.host,
                slot: row.slot,
                handle: row.handle,
                folder: row.folder.unwrap_or_default(),
                stop_requested: row.stop_requested.unwrap_or_default(),
                created_secs: row.created_secs.unwrap_or(now),
            }),
        });
        Ok((now, open.collect()))
    }

    /// Live attempts on a host that this sweep doesn't ask for: of another sweep, or of cells its spec no longer has.
    /// Token, handle and whether it is an intent. Fresh ones are left to whoever launches them.
    pub async fn attempts_elsewhere(
        &self,
        backend: &str,
        host: &str,
        sweep_id: i64,
    ) -> Result<Vec<(String, Option<String>, bool)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT token, handle, state = 'intent' AS "intent!" FROM attempt a
               WHERE backend = $1 AND host = $2 AND state IN ('intent', 'launched', 'running')
                     AND created_at < now() - interval '30 s'
                     AND NOT EXISTS (SELECT FROM sweep_job sj WHERE sj.job_id = a.job_id AND sj.sweep_id = $3)"#,
            backend,
            host,
            sweep_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the attempts of other sweeps"))?;
        Ok(rows.into_iter().map(|row| (row.token, row.handle, row.intent)).collect())
    }

    /// Slots of a host that live attempts hold, whoever launched them.
    pub async fn slots_taken(&self, backend: &str, host: &str) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"SELECT count(*) AS "taken!" FROM attempt
               WHERE backend = $1 AND host = $2 AND state IN ('intent', 'launched', 'running')"#,
            backend,
            host
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't count the slots in use"))
    }

    /// How far a sweep is.
    pub async fn job_totals(&self, sweep_id: i64) -> Result<Totals, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE state = 'pending') AS "pending!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      count(*) FILTER (WHERE state = 'done') AS "done!",
                      count(*) FILTER (WHERE state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!",
                      coalesce(sum(gmacs_samples) FILTER (WHERE state = 'done'), 0) AS "gmacs_done!",
                      coalesce(sum(gmacs_samples) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS "gmacs!"
               FROM sweep_job JOIN job USING (job_id) WHERE sweep_id = $1"#,
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

    /// Jobs of a sweep in plan order, with how far they are; only those in one of `states`.
    pub async fn job_progress(&self, sweep_id: i64, states: &[&str]) -> Result<Vec<JobProgress>, StoreError> {
        let states: Vec<String> = states.iter().map(|&state| state.to_owned()).collect();
        sqlx::query_as!(
            JobProgress,
            r#"SELECT j.job_key, j.state, j.reason, j.model, j.samples_seen AS samples_total, j.data_size, j.seed,
                      coalesce(j.gmacs_samples, 0) AS "gmacs!", coalesce(a.samples_seen, 0) AS "samples_seen!",
                      (a.samples_seen - coalesce(a.resumed_from_samples, 0))
                          / nullif(extract(epoch FROM coalesce(a.ended_at, now()) - a.claimed_at)::float8, 0)
                          AS samples_per_sec,
                      (SELECT m.value FROM metric m JOIN metric_name n USING (metric_id)
                       WHERE m.attempt_id = a.attempt_id AND n.name = 'loss' ORDER BY m.step DESC LIMIT 1) AS loss,
                      (SELECT count(*) FROM attempt every WHERE every.job_id = j.job_id) AS "attempts!",
                      a.stderr_tail AS "stderr_tail?"
               FROM sweep_job sj JOIN job j USING (job_id)
               LEFT JOIN LATERAL (SELECT * FROM attempt last WHERE last.job_id = j.job_id AND last.fence IS NOT NULL
                                  ORDER BY last.fence DESC LIMIT 1) a ON true
               WHERE sj.sweep_id = $1 AND j.state = ANY ($2) ORDER BY sj.position"#,
            sweep_id,
            &states
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the jobs of the sweep"))
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

    /// Rows of a sweep's jobs.
    pub async fn job_ids(&self, sweep_id: i64) -> Result<Vec<i64>, StoreError> {
        sqlx::query_scalar!("SELECT job_id FROM sweep_job WHERE sweep_id = $1 ORDER BY position", sweep_id)
            .fetch_all(&self.pool)
            .await
            .map_err(doing("can't read the jobs of the sweep"))
    }

    /// Cancels jobs that are pending or running, and asks their workers to stop. Attempts of cancelled jobs that nobody
    /// has heard of for two minutes end at once (their host may be gone for good); should such a worker come back, its
    /// writes change nothing. Gives the number of jobs, and the tokens of attempts that live.
    pub async fn job_cancel(&self, job_ids: &[i64]) -> Result<(i64, Vec<String>), StoreError> {
        let row = sqlx::query!(
            r#"WITH cancelled AS (
                   UPDATE job SET state = 'cancelled', reason = 'cancelled by request'
                   WHERE job_id = ANY ($1) AND state IN ('pending', 'running') RETURNING job_id),
               concerned AS (
                   SELECT job_id FROM cancelled
                   UNION SELECT job_id FROM job WHERE job_id = ANY ($1) AND state = 'cancelled'),
               living AS (
                   SELECT attempt_id, state = 'intent'
                          OR coalesce(heartbeat_at, launched_at, created_at) < now() - interval '2 min' AS silent
                   FROM attempt
                   WHERE job_id IN (SELECT job_id FROM concerned) AND state IN ('intent', 'launched', 'running')),
               stopping AS (
                   UPDATE attempt SET stop_requested = true,
                          state = CASE WHEN living.silent THEN 'cancelled' ELSE attempt.state END,
                          ended_at = CASE WHEN living.silent THEN now() END
                   FROM living
                   WHERE attempt.attempt_id = living.attempt_id AND state IN ('intent', 'launched', 'running')
                   RETURNING token),
               noted AS (INSERT INTO event (job_id, kind) SELECT job_id, 'cancelled' FROM cancelled)
               SELECT (SELECT count(*) FROM cancelled) AS "cancelled!",
                      coalesce((SELECT array_agg(token) FROM stopping), '{}') AS "tokens!""#,
            job_ids
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't cancel jobs"))?;
        Ok((row.cancelled, row.tokens))
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
               noted AS (INSERT INTO event (job_id, kind) SELECT job_id, 'retry granted' FROM retried)
               SELECT count(*) AS "retried!" FROM retried"#,
            job_ids,
            &states
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't retry jobs"))
    }
}
