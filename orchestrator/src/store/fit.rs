//! Fits, immutable: one row a combination of input rows, options and code.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Store, StoreError};
use crate::fit::{Fit, Options, Verdict};

/// Version of the code that fits: the package's, and the commit where the build was told (`SWEEP_GIT_COMMIT`).
pub fn code_version() -> String {
    match option_env!("SWEEP_GIT_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("{}+{commit}", env!("CARGO_PKG_VERSION")),
        _ => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// sha256 of the canonical JSON (sorted by job key and C) of the observations a fit's points were selected from.
pub fn input_hash(fit: &Fit) -> String {
    sha256(&serde_json::to_string(&fit.observations).expect("observations serialise"))
}

/// In 64 hex digits.
pub fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// Which rows a fit was made of.
#[derive(Debug, Clone, Copy)]
pub struct FitSource<'a> {
    /// Name of the sweep.
    pub sweep: &'a str,
    /// Data set.
    pub dataset: &'a str,
    /// Metric.
    pub metric: &'a str,
    /// SQL condition on the view `observation`; empty: all.
    pub condition: &'a str,
}

/// Where a fit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct StoredFit {
    /// `fit.fit_id`.
    pub fit_id: i64,
    /// Whether this call wrote it; `false`: the same fit was there.
    pub is_new: bool,
}

impl Store {
    /// Stores a fit, or finds the row of the same input, options and code. `None` if there is no such sweep.
    pub async fn fit_insert(
        &self,
        source: FitSource<'_>,
        options: &Options,
        fit: &Fit,
    ) -> Result<Option<StoredFit>, StoreError> {
        Ok(self.fits_insert(&[(source, options, fit)]).await?.pop().flatten())
    }

    /// The same of many, all or none: one commit, which is what most of the time of one goes into.
    pub async fn fits_insert(
        &self,
        fits: &[(FitSource<'_>, &Options, &Fit)],
    ) -> Result<Vec<Option<StoredFit>>, StoreError> {
        let failed = |source| StoreError::Query { doing: "storing a fit", source };
        let mut tx = self.pool.begin().await.map_err(failed)?;
        let mut stored = Vec::with_capacity(fits.len());
        for (source, options, fit) in fits {
            stored.push(insert(&mut tx, *source, options, fit).await.map_err(failed)?);
        }
        tx.commit().await.map_err(failed)?;
        Ok(stored)
    }
}

async fn insert(
    connection: &mut PgConnection,
    source: FitSource<'_>,
    options: &Options,
    fit: &Fit,
) -> Result<Option<StoredFit>, sqlx::Error> {
    let asked = serde_json::to_value(options).expect("options serialise");
    let (code_version, input_hash) = (code_version(), input_hash(fit));
    let FitSource { sweep, dataset, metric, condition } = source;
    let mut of = json!([sweep, dataset, metric, condition, asked, fit.compute.as_str(), code_version, input_hash]);
    if let (Value::Array(of), Verdict::TimeLimit) = (&mut of, fit.verdict) {
        // A clock ended it: it may end elsewhere the next time, and must not stand in the way of the whole fit.
        of.push(json!([fit.solution.best.theta, fit.resamples]));
    }
    let identity = sha256(&of.to_string());
    let parameters: Map<String, Value> = fit
        .parameters
        .iter()
        .map(|parameter| (parameter.name.to_owned(), serde_json::to_value(parameter).expect("numbers serialise")))
        .collect();
    let covariance = fit.solution.covariance.as_ref().map(|covariance| json!(covariance));
    let detail = json!({
        "theta": fit.solution.best.theta, "solution": fit.solution, "ceiling": fit.ceiling, "cautions": fit.cautions,
        "resamples": fit.resamples, "resamples_asked": fit.resamples_asked,
    });
    let observations = json!({ "rows": fit.observations, "points": fit.points, "excluded": fit.excluded });
    let inserted = sqlx::query_scalar!(
            r#"WITH added AS (
                   INSERT INTO fit (sweep_id, dataset, metric, points, compute, law, parameters, r2, verdict, seed,
                                    code_version, input_hash, observations, identity, law_name, objective, condition,
                                    options, covariance, detail, solver)
                   SELECT sweep_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
                   FROM sweep WHERE name = $1
                   ON CONFLICT DO NOTHING RETURNING fit_id)
               INSERT INTO event (kind, fit_id) SELECT 'fit', fit_id FROM added RETURNING fit_id AS "fit_id!""#,
            sweep,
            dataset,
            metric,
            options.points.to_string(),
            fit.compute.as_str(),
            fit.form().formula(),
            Value::Object(parameters),
            fit.r2,
            fit.verdict.as_str(),
            options.seed.cast_signed(),
            code_version,
            input_hash,
            observations,
            identity,
            fit.law.to_string(),
            fit.objective.to_string(),
            condition,
            asked,
            covariance,
            detail,
            fit.method.solver.as_str()
        )
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(fit_id) = inserted {
        return Ok(Some(StoredFit { fit_id, is_new: true }));
    }
    let found = sqlx::query_scalar!(
        "SELECT fit_id FROM fit JOIN sweep USING (sweep_id) WHERE sweep.name = $1 AND identity = $2",
        sweep,
        identity
    )
    .fetch_optional(&mut *connection)
    .await?;
    Ok(found.map(|fit_id| StoredFit { fit_id, is_new: false }))
}
