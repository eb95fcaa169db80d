//! What fits are given: rows of the view `observation`.

use super::{Store, StoreError};
use crate::fit::{Convention, Observation, Response};

/// A data set and metric that finished jobs of a sweep were measured on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MeasuredMetric {
    /// For example `fluent-emoji-flat`.
    pub dataset: String,
    /// For example `image_retrieval_recall@5`.
    pub metric: String,
    /// Finished jobs that have it.
    pub jobs: i64,
}

impl MeasuredMetric {
    /// As on the command line: `DATASET/METRIC`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.dataset, self.metric)
    }
}

impl Store {
    /// Data sets and metrics of a sweep's finished jobs, by name.
    pub async fn observation_metrics(&self, sweep: &str) -> Result<Vec<MeasuredMetric>, StoreError> {
        sqlx::query_as!(
            MeasuredMetric,
            r#"SELECT dataset AS "dataset!", metric AS "metric!", count(*) AS "jobs!"
               FROM observation WHERE sweep = $1 GROUP BY 1, 2 ORDER BY 1, 2"#,
            sweep
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|source| StoreError::Query { doing: "listing the metrics of a sweep", source })
    }

    /// The observations of one metric, C in one convention.
    pub async fn observation_list(
        &self,
        sweep: &str,
        dataset: &str,
        metric: &str,
        convention: Convention,
    ) -> Result<Vec<Observation>, StoreError> {
        let response = Response::of_metric(metric);
        let rows = sqlx::query!(
            r#"SELECT job_key AS "job_key!", model AS "model!", parameters AS "parameters!", samples_seen AS "samples_seen!",
                      unique_samples AS "unique_samples!", gmacs_samples AS "gmacs_samples!",
                        train_flops AS "train_flops!",
                      six_nd AS "six_nd!", error AS "error!", standard_error, chance, count
               FROM observation WHERE sweep = $1 AND dataset = $2 AND metric = $3 ORDER BY job_key"#,
            sweep,
            dataset,
            metric
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|source| StoreError::Query { doing: "reading the observations of a sweep", source })?;
        Ok(rows
            .into_iter()
            .map(|row| Observation {
                job_key: row.job_key,
                model: row.model,
                parameters: row.parameters as f64,
                samples_seen: row.samples_seen as f64,
                unique_samples: row.unique_samples as f64,
                compute: match convention {
                    Convention::GmacsSamples => row.gmacs_samples,
                    Convention::TrainFlops => row.train_flops,
                    Convention::SixNd => row.six_nd,
                },
                proxy_loss: f64::NAN,
                convention,
                error: row.error,
                standard_error: row.standard_error,
                chance_error: row.chance.map(|chance| response.error_of(chance)),
                count: row.count.map(|count| count as f64),
                gpu_hours: None,
            })
            .collect())
    }
}
