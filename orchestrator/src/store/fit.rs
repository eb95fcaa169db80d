//! Fits, immutable: one row a combination of input rows, options and code.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Store, StoreError};
use crate::fit::{Fit, Options};

/// Version of the code that fits: the package's, and the commit where the build was told (`SWEEP_GIT_COMMIT`).
pub fn code_version() -> String {
    match option_env!("SWEEP_GIT_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("{}+{commit}", env!("CARGO_PKG_VERSION")),
        _ => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// sha256 of the canonical JSON (sorted by job key and C) of the observations a fit's points were selected from.
pub fn input_hash(fit: &Fit) -> String {
    let rows = serde_json::to_string(&fit.observations).expect("observations serialise");
    format!("{:x}", Sha256::digest(rows.as_bytes()))
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
        sweep: &str,
        dataset: &str,
        metric: &str,
        options: &Options,
        fit: &Fit,
    ) -> Result<Option<StoredFit>, StoreError> {
        let failed = |source| StoreError::Query { doing: "storing a fit", source };
        let points = options.points.to_string();
        let compute = fit.compute.as_str();
        let seed = options.seed.cast_signed();
        let (code_version, input_hash) = (code_version(), input_hash(fit));
        let parameters = json!({
            "parameters": fit.parameters, "resamples": fit.resamples, "resamples_asked": fit.resamples_asked,
            "solution": fit.solution, "cautions": fit.cautions,
        });
        let observations = json!({ "rows": fit.observations, "points": fit.points, "excluded": fit.excluded });
        let inserted = sqlx::query_scalar!(
            r#"INSERT INTO fit (sweep_id, dataset, metric, points, compute, law, parameters, r2, verdict, seed, code_version,
                                input_hash, observations)
               SELECT sweep_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM sweep WHERE name = $1
               ON CONFLICT DO NOTHING RETURNING fit_id"#,
            sweep,
            dataset,
            metric,
            points,
            compute,
            fit.form().formula(),
            parameters,
            fit.r2,
            fit.verdict.as_str(),
            seed,
            code_version,
            input_hash,
            observations
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        if let Some(fit_id) = inserted {
            return Ok(Some(StoredFit { fit_id, is_new: true }));
        }
        let found = sqlx::query_scalar!(
            "SELECT fit_id FROM fit JOIN sweep USING (sweep_id)
             WHERE sweep.name = $1 AND dataset = $2 AND metric = $3 AND points = $4 AND compute = $5 AND law = $6
               AND seed = $7 AND code_version = $8 AND input_hash = $9",
            sweep,
            dataset,
            metric,
            points,
            compute,
            fit.form().formula(),
            seed,
            code_version,
            input_hash
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(found.map(|fit_id| StoredFit { fit_id, is_new: false }))
    }
}
