//! What ladders have chosen, and from which jobs.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{Store, StoreError, doing};
use crate::plan::{Chosen, Group, RungResult};

pub use ::report::study::{TunedCell, Tuning};

/// A choice that is to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewTuning<'a> {
    /// Its ladder.
    pub group: &'a Group,
    /// Data set that decides.
    pub dataset: &'a str,
    /// And metric.
    pub metric: &'a str,
    /// What was chosen.
    pub chosen: &'a Chosen,
    /// From these.
    pub results: &'a [RungResult],
}

impl Store {
    /// Factors that are recorded for these ladders, by key. Not one that a rung had failed for and is to run again,
    /// or has been measured since: that is chosen anew.
    pub async fn tuning_factors(&self, keys: &[String]) -> Result<BTreeMap<String, f64>, StoreError> {
        let rows = sqlx::query!(
            "SELECT tuning_key, factor FROM tuning t
             WHERE tuning_key = ANY($1) AND NOT EXISTS (
                 SELECT FROM tuning_rung r JOIN job j USING (job_id)
                 WHERE r.tuning_id = t.tuning_id AND r.measured IS NULL
                       AND (j.state IN ('pending', 'running') OR j.state = 'done' AND EXISTS (
                           SELECT FROM final_measurement m
                           WHERE m.job_id = r.job_id AND m.dataset = t.dataset AND m.metric = t.metric)))",
            keys
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read what ladders have chosen"))?;
        Ok(rows.into_iter().map(|row| (row.tuning_key, row.factor)).collect())
    }

    /// Final measurements of jobs that are done.
    pub async fn tuning_results(
        &self,
        job_keys: &[String],
        dataset: &str,
        metric: &str,
    ) -> Result<Vec<RungResult>, StoreError> {
        sqlx::query_as!(
            RungResult,
            r#"SELECT j.job_key AS "job_key!", m.value AS "value!", m.standard_error
               FROM final_measurement m JOIN job j USING (job_id)
               WHERE j.job_key = ANY($1) AND j.state = 'done' AND m.dataset = $2 AND m.metric = $3 ORDER BY j.job_key"#,
            job_keys,
            dataset,
            metric
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read what the ladder has measured"))
    }

    /// Records choices with the jobs they were made from, all or none, in the place of those that were made before.
    pub async fn tuning_record(&self, choices: &[NewTuning<'_>]) -> Result<(), StoreError> {
        let failed = doing("can't record what the ladder has chosen");
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        for &NewTuning { group, dataset, metric, chosen, results } in choices {
            let tuning_id = sqlx::query_scalar!(
                "INSERT INTO tuning (tuning_key, model, data_size, samples_seen, parameter, factor, value, dataset, metric,
                                     measured, noise, noise_of, tied, open)
                 VALUES ($1, $2, $3, $4, 'lr', $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (tuning_key) DO UPDATE SET factor = excluded.factor, value = excluded.value,
                     measured = excluded.measured, noise = excluded.noise, noise_of = excluded.noise_of,
                     tied = excluded.tied, open = excluded.open, chosen_at = now()
                 RETURNING tuning_id",
                group.key,
                group.model,
                group.data_size.cast_signed(),
                group.samples_seen.cast_signed(),
                chosen.factor,
                chosen.lr,
                dataset,
                metric,
                chosen.value,
                chosen.noise.map(|(error, _)| error),
                chosen.noise.map(|(_, of)| of.as_str()),
                i64::try_from(chosen.tied).unwrap_or(i64::MAX),
                chosen.open.map(crate::plan::Open::as_str)
            )
            .fetch_one(&mut *tx)
            .await
            .map_err(&failed)?;
            let rungs = group.rungs.iter().flat_map(|rung| rung.job_keys.iter().map(move |key| (rung, key)));
            for (rung, key) in rungs {
                let measured = results.iter().find(|result| result.job_key == *key).map(|result| result.value);
                sqlx::query!(
                    "INSERT INTO tuning_rung SELECT $1, job_id, $3, $4, $5 FROM job WHERE job_key = $2
                     ON CONFLICT (tuning_id, job_id) DO UPDATE SET measured = excluded.measured",
                    tuning_id,
                    key,
                    rung.factor,
                    rung.lr,
                    measured
                )
                .execute(&mut *tx)
                .await
                .map_err(&failed)?;
            }
        }
        tx.commit().await.map_err(&failed)
    }

    /// Notes the choices that the cells of a sweep are planned with: these and no others.
    pub async fn tuning_use(&self, sweep_id: i64, keys: &[String]) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH gone AS (DELETE FROM sweep_tuning USING tuning t
                           WHERE t.tuning_id = sweep_tuning.tuning_id AND sweep_id = $1 AND t.tuning_key <> ALL($2))
             INSERT INTO sweep_tuning SELECT $1, tuning_id FROM tuning WHERE tuning_key = ANY($2) ON CONFLICT DO NOTHING",
            sweep_id,
            keys
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(doing("can't note what the cells are tuned by"))
    }

    /// The choices that a sweep's cells were planned with, by model and data size.
    pub async fn tuning_list(&self, sweep: &str) -> Result<Vec<Tuning>, StoreError> {
        let failed = doing("can't read what the sweep is tuned by");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        list(&mut connection, sweep).await.map_err(failed)
    }
}

pub(super) async fn list(connection: &mut PgConnection, sweep: &str) -> Result<Vec<Tuning>, sqlx::Error> {
    sqlx::query_as!(
        Tuning,
        r#"SELECT t.model, t.data_size, t.samples_seen, t.parameter, t.factor, t.value, t.dataset, t.metric, t.measured,
                  t.noise, t.noise_of, t.tied, t.open, r.rungs AS "rungs!", r.failed AS "rungs_failed!"
           FROM tuning t JOIN sweep_tuning USING (tuning_id) JOIN sweep s USING (sweep_id)
           CROSS JOIN LATERAL (SELECT count(*) AS rungs, count(*) FILTER (WHERE NOT whole) AS failed
                               FROM (SELECT bool_and(measured IS NOT NULL) AS whole FROM tuning_rung
                                     WHERE tuning_rung.tuning_id = t.tuning_id GROUP BY factor) rung) r
           WHERE s.name = $1 ORDER BY t.model, t.data_size"#,
        sweep
    )
    .fetch_all(connection)
    .await
}

/// Cells of a sweep beside what was tuned for their models, in the order of its plan.
pub(super) async fn cells(connection: &mut PgConnection, sweep: &str) -> Result<Vec<TunedCell>, sqlx::Error> {
    sqlx::query_as!(
        TunedCell,
        r#"SELECT j.job_key, j.model, t.data_size, j.samples_seen AS "samples_seen!", j.seed,
                  (js.spec #>> '{recipe,lr}')::double precision AS "lr!", t.value AS tuned_lr,
                  t.samples_seen AS tuned_samples
           FROM sweep s JOIN sweep_tuning USING (sweep_id) JOIN tuning t USING (tuning_id)
           JOIN sweep_job sj USING (sweep_id) JOIN job j USING (job_id) JOIN job_spec js USING (job_id)
           WHERE s.name = $1 AND j.model = t.model AND j.data_size = t.data_size AND j.samples_seen > 0
                 AND NOT EXISTS (SELECT FROM branch WHERE branch.trunk = j.job_id AND branch.sweep_id = s.sweep_id)
           ORDER BY sj.position"#,
        sweep
    )
    .fetch_all(connection)
    .await
}
