//! What a sweep has taken so far, and whether anybody drives it.

use super::{Store, StoreError, doing};

/// What the attempts of a sweep's jobs have taken, living ones included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Activity {
    /// Seconds since a launcher was seen to drive it; `None`: never.
    pub launcher_secs: Option<f64>,
    /// Jobs that were done within the last hour.
    pub done_last_hour: i64,
    /// Seconds of training.
    pub train_secs: f64,
    /// Hours of training times GPUs; `None`: no GPU is known of.
    pub gpu_hours: Option<f64>,
    /// Joules of GPUs and of processor packages by the jobs' shares, of those attempts of which they are known; `None`:
    /// of none.
    pub joules: Option<f64>,
    /// Attempts that failed.
    pub failed: i64,
    /// Attempts that were lost.
    pub lost: i64,
    /// Attempts that stopped: asked to, or at a time limit.
    pub stopped: i64,
}

impl Store {
    /// What a sweep has taken so far: one look at all attempts of its jobs.
    pub async fn sweep_activity(&self, sweep_id: i64) -> Result<Activity, StoreError> {
        sqlx::query_as!(
            Activity,
            r#"SELECT (SELECT extract(epoch FROM now() - launcher_seen_at)::float8 FROM sweep WHERE sweep_id = $1) AS launcher_secs,
                      (SELECT count(*) FROM sweep_job JOIN job USING (job_id)
                       WHERE sweep_job.sweep_id = $1 AND done_at > now() - interval '1 hour') AS "done_last_hour!",
                      coalesce(sum(spent.secs), 0)::float8 AS "train_secs!",
                      sum(spent.secs * coalesce(a.gpus, CASE WHEN a.device LIKE 'cuda%' THEN 1 END) / 3600)::float8 AS gpu_hours,
                      sum(coalesce(a.gpu_joules, 0) + coalesce(a.machine_cpu_joules * a.cpu_share, 0))
                          FILTER (WHERE a.gpu_joules IS NOT NULL OR a.machine_cpu_joules IS NOT NULL) AS joules,
                      count(*) FILTER (WHERE a.state = 'failed') AS "failed!",
                      count(*) FILTER (WHERE a.state = 'lost') AS "lost!",
                      count(*) FILTER (WHERE a.state = 'stopped') AS "stopped!"
               FROM sweep_job sj JOIN attempt a USING (job_id)
               CROSS JOIN LATERAL (SELECT coalesce(a.train_secs, extract(epoch FROM coalesce(a.heartbeat_at, a.ended_at)
                                                                                    - a.claimed_at)) AS secs) spent
               WHERE sj.sweep_id = $1"#,
            sweep_id
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't read what the sweep has taken"))
    }
}
