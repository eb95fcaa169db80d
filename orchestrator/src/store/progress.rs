//! How far jobs are, for people.

use super::{Store, StoreError, doing};

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
    /// Samples to train on; `None`: an imported table does not say, or the job only measures.
    pub samples_total: Option<i64>,
    /// Unique samples it may see; likewise.
    pub data_size: Option<i64>,
    /// Seed.
    pub seed: i64,
    /// C of the job, forward GMACs x samples, without what its parent trains.
    pub gmacs: f64,
    /// Samples that its parent trains on; 0 without one.
    pub parent_samples: i64,
    /// Key of its parent, while that is not done.
    pub waits_for: Option<String>,
    /// Whether other jobs of the sweep go on from it.
    pub is_trunk: bool,
    /// Samples seen at the last report of the last attempt.
    pub samples_seen: i64,
    /// Samples per second of the last attempt since it was claimed.
    pub samples_per_sec: Option<f64>,
    /// Training loss at the last report.
    pub loss: Option<f64>,
    /// Seconds that training waited for its data, all attempts; `None`: the runner does not say.
    pub data_wait_secs: Option<f64>,
    /// Loss spikes so far; `None`: the runner has not said.
    pub spikes: Option<i64>,
    /// How often it went back after one; `None`: it is not asked to.
    pub rollbacks: Option<i64>,
    /// Joules of its GPUs, all attempts that have ended; `None`: not known of all attempts.
    pub gpu_joules: Option<f64>,
    /// Joules of processor packages by its share of their machines; likewise.
    pub cpu_joules: Option<f64>,
    /// Attempts.
    pub attempts: i64,
    /// Last words of the runner, where it failed.
    pub stderr_tail: Option<String>,
    /// Of a live attempt: the host it is on, or the cluster.
    pub host: Option<String>,
    /// Of a live attempt: name of its backend.
    pub backend: Option<String>,
    /// Of a live attempt: name of its worker on the backend.
    pub worker: Option<String>,
    /// Of a live attempt: the backend's name for the worker, once it has one.
    pub handle: Option<String>,
    /// Of a live attempt: the machine that it runs on, once a worker has claimed it.
    pub node: Option<String>,
    /// Of a live attempt: seconds since its last sign of life, by the database's clock.
    pub silent_secs: Option<f64>,
}

/// Which jobs of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressFilter<'a> {
    /// Those in one of these states, in plan order, at most so many.
    States(&'a [&'a str], i64),
    /// Those that a worker has claimed.
    Running,
    /// These rows.
    Rows(&'a [i64]),
}

impl JobProgress {
    /// Samples to train on, of a job of ours; 0 where it only measures.
    pub fn samples_of_ours(&self) -> i64 {
        self.samples_total.unwrap_or(0)
    }

    /// Samples that it trains on itself, after its parent's; at least 1.
    pub fn own_samples(&self) -> i64 {
        (self.samples_of_ours() - self.parent_samples).max(1)
    }

    /// How much of what it trains itself is done, 0 to 1.
    pub fn share_done(&self) -> f64 {
        (self.samples_seen - self.parent_samples).max(0) as f64 / self.own_samples() as f64
    }
}

impl Store {
    /// Jobs of a sweep in plan order, with how far they are.
    pub async fn job_progress(
        &self,
        sweep_id: i64,
        filter: ProgressFilter<'_>,
    ) -> Result<Vec<JobProgress>, StoreError> {
        let failed = doing("can't read the jobs of the sweep");
        // The rows first: how far each is takes several looks.
        let rows = match filter {
            ProgressFilter::Rows(rows) => rows.to_vec(),
            ProgressFilter::Running => sqlx::query_scalar!(
                "SELECT sj.job_id FROM attempt a JOIN sweep_job sj USING (job_id)
                 WHERE sj.sweep_id = $1 AND a.state = 'running'",
                sweep_id
            )
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?,
            ProgressFilter::States(states, limit) => {
                let states: Vec<String> = states.iter().map(|&state| state.to_owned()).collect();
                sqlx::query_scalar!(
                    "SELECT sj.job_id FROM sweep_job sj JOIN job j USING (job_id)
                     WHERE sj.sweep_id = $1 AND j.state = ANY ($2) ORDER BY sj.position LIMIT $3",
                    sweep_id,
                    &states,
                    limit
                )
                .fetch_all(&self.pool)
                .await
                .map_err(&failed)?
            }
        };
        sqlx::query_as!(
            JobProgress,
            r#"SELECT j.job_key, j.state, j.reason, j.model, j.samples_seen AS samples_total, j.data_size, j.seed,
                      coalesce(j.gmacs_samples * (1 - j.parent_samples::float8 / j.samples_seen), 0) AS "gmacs!",
                      j.parent_samples,
                      (SELECT p.job_key FROM job p JOIN sweep_job parents USING (job_id)
                       WHERE p.job_id = j.parent AND p.state <> 'done' AND parents.sweep_id = $1) AS waits_for,
                      EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = $1) AS "is_trunk!",
                      coalesce(a.samples_seen, j.parent_samples, 0) AS "samples_seen!",
                      (a.samples_seen - coalesce(a.resumed_from_samples, 0))
                          / nullif(extract(epoch FROM coalesce(a.ended_at, now()) - a.claimed_at)::float8, 0)
                          AS samples_per_sec,
                      (SELECT m.value FROM metric m JOIN metric_name n USING (metric_id)
                       WHERE m.attempt_id = a.attempt_id AND n.name = 'loss' ORDER BY m.step DESC LIMIT 1) AS loss,
                      metric_sum(j.job_id, 'data_wait_secs') AS data_wait_secs,
                      metric_last_count(j.job_key, 'spikes') AS spikes,
                      metric_last_count(j.job_key, 'rollbacks') AS rollbacks,
                      cost.gpu_joules AS "gpu_joules?", cost.cpu_joules AS "cpu_joules?",
                      (SELECT count(*) FROM attempt every WHERE every.job_id = j.job_id) AS "attempts!",
                      a.stderr_tail AS "stderr_tail?",
                      live.host AS "host?", live.backend AS "backend?", live.worker AS "worker?", live.handle AS "handle?",
                      live.node AS "node?",
                      greatest(extract(epoch FROM clock_timestamp() - live.seen_at)::float8, 0) AS "silent_secs?"
               FROM unnest($2::bigint[]) AS given (job_id)
               JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id)
               LEFT JOIN LATERAL (SELECT * FROM attempt last WHERE last.job_id = j.job_id AND last.fence IS NOT NULL
                                  ORDER BY last.fence DESC LIMIT 1) a ON true
               LEFT JOIN LATERAL (SELECT c.gpu_joules, c.cpu_joules FROM job_cost c WHERE c.job_id = j.job_id) cost ON true
               LEFT JOIN LATERAL (SELECT host, backend, coalesce(worker, token) AS worker, handle, node,
                                         greatest(created_at, launched_at, claimed_at, heartbeat_at) AS seen_at
                                  FROM attempt WHERE attempt.job_id = j.job_id AND state IN ('intent', 'launched', 'running'))
                         live ON true
               WHERE sj.sweep_id = $1 ORDER BY sj.position"#,
            sweep_id,
            &rows
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)
    }

    /// Number of the last entry of the history.
    pub async fn event_last(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar!(r#"SELECT coalesce(max(event_id), 0) AS "last!" FROM event"#)
            .fetch_one(&self.pool)
            .await
            .map_err(doing("can't read the history"))
    }

    /// Entries of the history after `after` by which jobs of a sweep ended, and the jobs' rows: the first `limit`.
    pub async fn event_job_ends(&self, sweep_id: i64, after: i64, limit: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT e.event_id, e.job_id AS "job_id!"
               FROM (SELECT * FROM event WHERE event_id > $2 ORDER BY event_id) e
               JOIN sweep_job sj USING (job_id) JOIN job j USING (job_id)
               WHERE sj.sweep_id = $1 AND e.kind IN ('finished', 'failed', 'given up', 'cancelled')
                     AND j.state IN ('done', 'failed', 'cancelled')
               ORDER BY e.event_id LIMIT $3"#,
            sweep_id,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the history"))?;
        Ok(rows.into_iter().map(|row| (row.event_id, row.job_id)).collect())
    }
}
