//! What fits are given: rows of the views `observation` and `checkpoint_observation`.

use std::time::Duration;

use super::sql::{Answer, Question, SqlError, Values};
use super::{Store, StoreError, condition};
use crate::fit::{Convention, Observation, Response};

/// How long reading observations may take: a condition is the user's.
const TIMEOUT: Duration = Duration::from_mins(1);

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

/// Which observations to read.
#[derive(Debug, Clone, Copy)]
pub struct ObservationsOf<'a> {
    /// Name of the sweep.
    pub sweep: &'a str,
    /// Data set or aggregate.
    pub dataset: &'a str,
    /// Metric.
    pub metric: &'a str,
    /// How C is counted.
    pub convention: Convention,
    /// A boolean SQL expression over the columns of the view `observation`.
    pub condition: Option<&'a str>,
    /// Data set and metric whose error of the same job (and samples seen) becomes `proxy_loss`.
    pub proxy: Option<(&'a str, &'a str)>,
    /// Every measured point of training, D, U and C as they were there, instead of final ones. No aggregates.
    pub checkpoints: bool,
}

/// Why there are no observations.
#[derive(Debug, thiserror::Error)]
pub enum ObservationError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The condition is none.
    #[error("the condition `{condition}` can't be used: {reason}")]
    Condition {
        /// As given.
        condition: String,
        /// What PostgreSQL, or we, make of it.
        reason: String,
    },
}

/// Columns that a condition is mostly made of; the view has a few more.
pub const CONDITION_COLUMNS: &str = "model, pool, source, job_key, parameters, samples_seen, unique_samples, data_size, \
     epochs, n, d, u, gmacs_samples, train_flops, six_nd, gpu_hours, seed, value, error, standard_error, chance, count, \
     source_detail";

impl ObservationError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Condition { .. } => Some(format!(
                "write what follows WHERE in SQL, for example \"model = 'ViT-B-32' AND d < 1.3e10\"; columns: \
                 {CONDITION_COLUMNS}"
            )),
        }
    }
}

impl Store {
    /// Data sets (aggregates included) and metrics of a sweep's finished jobs, by name.
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

    /// The final observations of one metric, C in one convention, of the jobs for which `condition` holds.
    pub async fn observation_list(
        &self,
        sweep: &str,
        dataset: &str,
        metric: &str,
        convention: Convention,
        condition: Option<&str>,
    ) -> Result<Vec<Observation>, ObservationError> {
        let of = ObservationsOf { sweep, dataset, metric, convention, condition, proxy: None, checkpoints: false };
        self.observations(&of).await
    }

    /// Observations by job key and D. Rows lack axes that their source does not say: NaN.
    pub async fn observations(&self, of: &ObservationsOf<'_>) -> Result<Vec<Observation>, ObservationError> {
        let condition = of.condition.map(str::trim).filter(|condition| !condition.is_empty());
        let parsed = condition
            .map(|condition| {
                condition::parse(condition)
                    .map_err(|reason| ObservationError::Condition { condition: condition.to_owned(), reason })
            })
            .transpose()?;
        let text = query(of, parsed.as_deref());
        let question = Question { text: &text, timeout: TIMEOUT, rows_max: None };
        let answer = self.sql(&question).await.map_err(|error| refused(error, condition))?;
        Ok(decode(&answer, of))
    }
}

/// SQL for rows of the view `observation`, all its columns: of the metrics, or of all if there are none. Without
/// aggregates, where they are the mean of members, on demand.
pub fn export_query(sweep: &str, metrics: &[&MeasuredMetric], single_only: bool) -> String {
    let mut text = format!("SELECT * FROM observation WHERE sweep = {}", literal(sweep));
    if !metrics.is_empty() {
        let pairs: Vec<String> =
            metrics.iter().map(|m| format!("({}, {})", literal(&m.dataset), literal(&m.metric))).collect();
        text = format!("{text} AND (dataset, metric) IN ({})", pairs.join(", "));
    }
    if single_only {
        text += " AND dataset NOT IN (SELECT dataset FROM aggregate_measurement)";
    }
    text + " ORDER BY job_key, dataset, metric"
}

/// The condition stands in a subquery of its own, so it can only choose among the rows of the metric.
fn query(of: &ObservationsOf<'_>, condition: Option<&str>) -> String {
    let view = if of.checkpoints { "checkpoint_observation" } else { "observation" };
    let (sweep, dataset, metric) = (literal(of.sweep), literal(of.dataset), literal(of.metric));
    let proxy = match of.proxy {
        None => "NULL::float8".to_owned(),
        Some((dataset, metric)) => format!(
            "(SELECT other.error FROM {view} other WHERE other.sweep = {sweep} AND other.job_key = chosen.job_key \
             AND other.samples_seen IS NOT DISTINCT FROM chosen.samples_seen \
             AND other.dataset = {} AND other.metric = {} LIMIT 1)",
            literal(dataset),
            literal(metric)
        ),
    };
    format!(
        "SELECT job_key, model, n, d, u, {} AS c, error, standard_error, chance, count, gpu_hours, {proxy} AS proxy_loss \
         FROM (SELECT * FROM (SELECT * FROM {view} WHERE sweep = {sweep} AND dataset = {dataset} AND metric = {metric}) \
         AS observation WHERE (\n{}\n)) AS chosen ORDER BY job_key, d",
        of.convention.as_str(),
        condition.unwrap_or("true")
    )
}

pub(super) fn literal(text: &str) -> String {
    // E'' reads backslashes the same whatever `standard_conforming_strings` says.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn refused(error: SqlError, condition: Option<&str>) -> ObservationError {
    match (error, condition) {
        (SqlError::Store(error), _) => error.into(),
        (error, Some(condition)) => {
            ObservationError::Condition { condition: condition.to_owned(), reason: error.to_string() }
        }
        (error, None) => StoreError::Query {
            doing: "reading the observations of a sweep",
            source: sqlx::Error::Decode(error.to_string().into()),
        }
        .into(),
    }
}

fn decode(answer: &Answer, of: &ObservationsOf<'_>) -> Vec<Observation> {
    let response = Response::of_metric(of.metric);
    let column = |name: &str| answer.columns.iter().find(|column| column.name == name).map(|column| &column.values);
    let text = |name: &str, row: usize| match column(name) {
        Some(Values::Text(values)) => values[row].clone().unwrap_or_default(),
        _ => String::new(),
    };
    let real = |name: &str, row: usize| match column(name) {
        Some(Values::Float(values)) => values[row],
        Some(Values::Int(values)) => values[row].map(|value| value as f64),
        _ => None,
    };
    let axis = |name: &str, row: usize| real(name, row).unwrap_or(f64::NAN);
    (0..answer.rows)
        .map(|row| Observation {
            job_key: text("job_key", row),
            model: text("model", row),
            parameters: axis("n", row),
            samples_seen: axis("d", row),
            unique_samples: axis("u", row),
            compute: axis("c", row),
            convention: of.convention,
            error: axis("error", row),
            standard_error: real("standard_error", row),
            chance_error: real("chance", row).map(|chance| response.error_of(chance)),
            count: real("count", row),
            gpu_hours: real("gpu_hours", row),
            proxy_loss: axis("proxy_loss", row),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(literal(r"it's \ so"), r"E'it''s \\ so'");
    }
}
