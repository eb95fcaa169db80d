//! Training curves for the eye: thinned where they lie, so that a look costs the same however long they are.

use std::collections::BTreeMap;

use super::{Store, StoreError, doing};

/// A point of a curve: samples seen and value.
pub type Point = (i64, f64);

impl Store {
    /// Training loss of these jobs at `points` evenly spread places of what each has done so far (fewer where fewer
    /// steps were reported), by key. Each is one look into the index: nothing is averaged. Parts that a later attempt
    /// did again are as it did them.
    pub async fn loss_curves(
        &self,
        job_keys: &[String],
        points: u16,
    ) -> Result<BTreeMap<String, Vec<Point>>, StoreError> {
        let rows = sqlx::query!(
            r#"WITH loss AS MATERIALIZED (SELECT metric_id FROM metric_name WHERE name = 'loss'),
                    reached AS MATERIALIZED (
                        SELECT j.job_id, j.job_key, max(last.step) AS step
                        FROM job j JOIN attempt a USING (job_id) CROSS JOIN loss
                        CROSS JOIN LATERAL (SELECT m.step FROM metric m
                                            WHERE m.attempt_id = a.attempt_id AND m.metric_id = loss.metric_id
                                            ORDER BY m.step DESC LIMIT 1) last
                        WHERE j.job_key = ANY ($1) AND a.fence IS NOT NULL
                        GROUP BY j.job_id)
               SELECT DISTINCT r.job_key, at.step AS "step!", at.samples_seen AS "samples_seen!", at.value AS "value!"
               FROM reached r CROSS JOIN loss CROSS JOIN generate_series(1, $2) n
               CROSS JOIN LATERAL (
                   SELECT m.step, m.samples_seen, m.value
                   FROM attempt_current a
                   CROSS JOIN LATERAL (
                       SELECT step, samples_seen, value FROM metric
                       WHERE attempt_id = a.attempt_id AND metric_id = loss.metric_id AND step <= r.step * n / $2
                             AND (a.superseded_after_samples IS NULL OR samples_seen <= a.superseded_after_samples)
                       ORDER BY step DESC LIMIT 1) m
                   WHERE a.job_id = r.job_id
                   ORDER BY m.step DESC, a.fence DESC LIMIT 1) at
               ORDER BY r.job_key, 2"#,
            job_keys,
            i32::from(points)
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read curves"))?;
        let mut curves: BTreeMap<String, Vec<Point>> = BTreeMap::new();
        for row in rows {
            curves.entry(row.job_key).or_default().push((row.samples_seen, row.value));
        }
        Ok(curves)
    }
}
