//! What training has cost so far, for the estimates of `sweep plan`.

use super::{Store, StoreError};

/// Measured speed of one model on one kind of slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    /// Runner's name.
    pub runner: String,
    /// Model's name.
    pub model: String,
    /// As the runner reported it: `cpu`, or the GPU's name.
    pub device: String,
    /// Threads of the slot, where the runner was given a number.
    pub threads: Option<i32>,
    /// Seconds of training per sample seen, over all attempts counted.
    pub secs_per_sample: f64,
    /// Finished attempts that it is measured over.
    pub attempts: i64,
}

impl Store {
    /// One row a runner, model, device and number of threads that has finished attempts.
    pub async fn throughput_list(&self) -> Result<Vec<Throughput>, StoreError> {
        sqlx::query_as!(
            Throughput,
            r#"SELECT j.runner, j.model, a.device AS "device!", a.threads,
                      sum(a.train_secs) / sum(a.samples_seen - coalesce(a.resumed_from_samples, 0)) AS "secs_per_sample!",
                      count(*) AS "attempts!"
               FROM attempt a
               JOIN job j USING (job_id)
               WHERE a.state = 'finished' AND a.train_secs > 0 AND a.device IS NOT NULL
                     AND a.samples_seen > coalesce(a.resumed_from_samples, 0)
               GROUP BY j.runner, j.model, a.device, a.threads
               ORDER BY j.runner, j.model, a.device, a.threads"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|source| StoreError::Query { doing: "reading measured throughput", source })
    }
}
