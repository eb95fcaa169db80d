//! The history as a feed: what happened, in an order in which nothing is ever added in front of what was read.
//!
//! Entries are numbered before their transactions commit, which happens in any order. So they are ordered by the number
//! of their transaction first, and only those of transactions that have all ended are read: below the horizon, the
//! oldest transaction that may still write. A [`Cursor`] is a place in that order and holds for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Store, StoreError, doing};

/// A place in the history: behind the entry of this number, or in the middle of one that holds several steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the transaction that wrote the entry.
    txid: i64,
    /// Number of the entry.
    event_id: i64,
    /// Of steps of a curve: the last one that was read, where more of its entry follow.
    step: Option<i64>,
}

impl Cursor {
    /// Before everything.
    pub const START: Cursor = Cursor { txid: 0, event_id: 0, step: None };

    /// Behind all that was written below `horizon`, which [`Store::feed_horizon`] gives.
    pub fn at_horizon(horizon: i64) -> Cursor {
        Cursor { txid: horizon - 1, event_id: i64::MAX, step: None }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.txid, self.event_id)?;
        self.step.map_or(Ok(()), |step| write!(f, "-{step}"))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Cursor, String> {
        let wrong = || "a cursor is what `cursor` holds in a line of `sweep events --json`, as 1042-17".to_owned();
        let mut numbers = text.split('-').map(|part| part.parse::<u64>().ok().and_then(|n| i64::try_from(n).ok()));
        let mut next = || numbers.next().map(|number| number.ok_or_else(wrong)).transpose();
        let (txid, event_id, step) = (next()?, next()?, next()?);
        match (txid, event_id, next()?) {
            (Some(txid), Some(event_id), None) => Ok(Cursor { txid, event_id, step }),
            _ => Err(wrong()),
        }
    }
}

/// What of the history is asked for.
#[derive(Debug, Clone, Default)]
pub struct FeedFilter {
    /// Row of the one sweep whose jobs and fits are meant; `None`: all.
    pub sweep_id: Option<i64>,
    /// Only entries of these kinds, as the table has them; `None`: of all.
    pub kinds: Option<Vec<String>>,
    /// Steps of curves too.
    pub metrics: bool,
    /// Nothing that was written before.
    pub since: Option<DateTime<Utc>>,
}

/// One entry. What a kind does not have is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEntry {
    /// The place behind it.
    pub cursor: Cursor,
    /// When its transaction began, by the database's clock.
    pub at: DateTime<Utc>,
    /// Kind, as the table has it; `metrics`: one step of a curve.
    pub kind: String,
    /// Names of the sweeps that the job is in, or of the fit's.
    pub sweeps: Vec<String>,
    /// Key of the job.
    pub job_key: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Which of the job's attempts, from 1.
    pub attempt: Option<i64>,
    /// Machine of the attempt.
    pub node: Option<String>,
    /// Why, or what.
    pub detail: Option<String>,
    /// Of an attempt that failed: `diverged`, `bad_input` or `crash`.
    pub failure_kind: Option<String>,
    /// Of `started`: where it went on from.
    pub resumed_from_samples: Option<i64>,
    /// Of `started`: what it runs on.
    pub device: Option<String>,
    /// Of `checkpoint`, `measured`, `metrics` and ends of attempts: samples seen.
    pub samples_seen: Option<i64>,
    /// Of `checkpoint` and `metrics`: the optimiser step.
    pub step: Option<i64>,
    /// Of `checkpoint`: its folder.
    pub path: Option<String>,
    /// Of `checkpoint`: sha256 of its manifest.
    pub sha256: Option<String>,
    /// Of `finished`: seconds in training steps.
    pub train_secs: Option<f64>,
    /// Of `finished`: seconds in evaluations.
    pub eval_secs: Option<f64>,
    /// Of `measured` and `fit`: the data set.
    pub dataset: Option<String>,
    /// Of `measured` and `metrics`: name to value.
    pub values: Option<Map<String, Value>>,
    /// Of `fit`: its row.
    pub fit_id: Option<i64>,
    /// Of `fit`: the metric.
    pub metric: Option<String>,
    /// Of `fit`: the law's name.
    pub law: Option<String>,
    /// Of `fit`: the verdict.
    pub verdict: Option<String>,
    /// Of `fit`: R2.
    pub r2: Option<f64>,
}

/// Entries behind a cursor, the first so many.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPage {
    /// In order.
    pub entries: Vec<FeedEntry>,
    /// The place behind them, from which to read on.
    pub reached: Cursor,
    /// Whether that is the horizon.
    pub is_last: bool,
}

/// Entries that are read at a time.
const PAGE: i64 = 500;
/// With curves: an entry of those holds what a worker stored at once.
const PAGE_METRICS: i64 = 100;

impl Store {
    /// The oldest transaction that may still write: the history is complete below it.
    pub async fn feed_horizon(&self) -> Result<i64, StoreError> {
        let row = sqlx::query!(
            r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "horizon!",
                      greatest((SELECT max(txid) FROM event), (SELECT max(txid) FROM metric_batch))
                          >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS of_another"#
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't read the history"))?;
        if row.of_another == Some(true) {
            return Err(StoreError::HistoryOfAnother);
        }
        Ok(row.horizon)
    }

    /// The next entries of the history behind `after`, below `horizon`.
    pub async fn feed_page(&self, filter: &FeedFilter, after: Cursor, horizon: i64) -> Result<FeedPage, StoreError> {
        let failed = doing("can't read the history");
        let limit = if filter.metrics { PAGE_METRICS } else { PAGE };
        let rows = sqlx::query!(
            r#"SELECT e.txid AS "txid!", e.event_id AS "event_id!", e.at AS "at!", e.kind AS "kind!", e.attempt_id,
                      e.first_step, e.last_step, j.job_key AS "job_key?", j.model AS "model?",
                      CASE WHEN f.fit_id IS NOT NULL THEN ARRAY[(SELECT name FROM sweep WHERE sweep_id = f.sweep_id)]
                           ELSE ARRAY(SELECT s.name FROM sweep_job sj JOIN sweep s USING (sweep_id)
                                      WHERE sj.job_id = j.job_id ORDER BY s.name) END AS "sweeps!",
                      CASE WHEN a.attempt_id IS NOT NULL
                           THEN (SELECT count(*) FROM attempt n WHERE n.job_id = a.job_id AND n.attempt_id <= a.attempt_id)
                           END AS attempt,
                      a.node AS "node?",
                      CASE WHEN e.kind <> 'measured' THEN e.detail END AS detail,
                      CASE WHEN e.kind = 'failed' THEN a.failure_kind END AS failure_kind,
                      CASE WHEN e.kind = 'started' THEN a.resumed_from_samples END AS resumed_from_samples,
                      CASE WHEN e.kind = 'started' THEN a.device END AS device,
                      coalesce(e.samples_seen,
                               CASE WHEN e.kind IN ('finished', 'failed', 'stopped', 'lost') THEN a.samples_seen END)
                          AS samples_seen,
                      c.step AS "step?", c.path AS "path?", c.sha256 AS "sha256?",
                      CASE WHEN e.kind = 'finished' THEN a.train_secs END AS train_secs,
                      CASE WHEN e.kind = 'finished' THEN a.eval_secs END AS eval_secs,
                      CASE WHEN e.kind = 'measured' THEN e.detail ELSE f.dataset END AS dataset,
                      CASE WHEN e.kind = 'measured'
                           THEN (SELECT jsonb_object_agg(m.metric, m.value) FROM evaluation m
                                 WHERE m.attempt_id = e.attempt_id AND m.dataset = e.detail
                                       AND m.samples_seen = e.samples_seen) END AS "values: Values",
                      f.fit_id AS "fit_id?", f.metric AS "metric?", f.law_name AS "law?", f.verdict AS "verdict?", f.r2 AS "r2?"
               FROM ((SELECT txid, event_id, at, kind, job_id, attempt_id, detail, samples_seen, fit_id,
                             NULL::bigint AS first_step, NULL::bigint AS last_step
                      FROM event
                      WHERE (txid, event_id) > ($1, $2) AND txid < $4
                            AND ($5::text[] IS NULL OR kind = ANY ($5)) AND ($6::timestamptz IS NULL OR at >= $6)
                            AND ($7::bigint IS NULL
                                 OR EXISTS (SELECT FROM sweep_job sj
                                            WHERE sj.sweep_id = $7
                                                  AND sj.job_id = coalesce(event.job_id, (SELECT own.job_id FROM attempt own
                                                                           WHERE own.attempt_id = event.attempt_id)))
                                 OR EXISTS (SELECT FROM fit own WHERE own.fit_id = event.fit_id AND own.sweep_id = $7))
                      ORDER BY txid, event_id LIMIT $8)
                     UNION ALL
                     (SELECT txid, event_id, at, 'metrics', NULL, attempt_id, NULL, NULL, NULL, first_step, last_step
                      FROM metric_batch
                      WHERE $9 AND ((txid, event_id) > ($1, $2) OR $3::bigint IS NOT NULL AND (txid, event_id) = ($1, $2))
                            AND txid < $4 AND ($6::timestamptz IS NULL OR at >= $6)
                            AND ($7::bigint IS NULL
                                 OR EXISTS (SELECT FROM sweep_job sj JOIN attempt own USING (job_id)
                                            WHERE sj.sweep_id = $7 AND own.attempt_id = metric_batch.attempt_id))
                      ORDER BY txid, event_id LIMIT $8)) e
               LEFT JOIN attempt a USING (attempt_id)
               LEFT JOIN job j ON j.job_id = coalesce(e.job_id, a.job_id)
               LEFT JOIN checkpoint c ON e.kind = 'checkpoint' AND c.attempt_id = e.attempt_id AND c.samples_seen = e.samples_seen
               LEFT JOIN fit f ON f.fit_id = e.fit_id
               ORDER BY e.txid, e.event_id LIMIT $8"#,
            after.txid,
            after.event_id,
            after.step,
            horizon,
            filter.kinds.as_deref(),
            filter.since,
            filter.sweep_id,
            limit,
            filter.metrics,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let end = Cursor::at_horizon(horizon);
        let reached = match rows.last() {
            Some(row) if i64::try_from(rows.len()) == Ok(limit) => {
                Cursor { txid: row.txid, event_id: row.event_id, step: None }
            }
            _ if (end.txid, end.event_id) > (after.txid, after.event_id) => end,
            _ => after,
        };
        let is_last = i64::try_from(rows.len()).is_ok_and(|read| read < limit);
        let batches: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.event_id, row.attempt_id?, row.first_step?, row.last_step?)))
            .collect();
        let mut steps = self.steps_of(&batches).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let entry = FeedEntry {
                cursor: Cursor { txid: row.txid, event_id: row.event_id, step: None },
                at: row.at,
                kind: row.kind,
                sweeps: row.sweeps,
                job_key: row.job_key,
                model: row.model,
                attempt: row.attempt,
                node: row.node,
                detail: row.detail,
                failure_kind: row.failure_kind,
                resumed_from_samples: row.resumed_from_samples,
                device: row.device,
                samples_seen: row.samples_seen,
                step: row.step,
                path: row.path,
                sha256: row.sha256,
                train_secs: row.train_secs,
                eval_secs: row.eval_secs,
                dataset: row.dataset,
                values: row.values.map(|values| values.0),
                fit_id: row.fit_id,
                metric: row.metric,
                law: row.law,
                verdict: row.verdict,
                r2: row.r2,
            };
            match row.last_step {
                None => entries.push(entry),
                Some(last) => {
                    let read = after.step.filter(|_| (after.txid, after.event_id) == (row.txid, row.event_id));
                    let steps = steps.remove(&row.event_id).unwrap_or_default();
                    entries.extend(steps.into_iter().filter(|step| read.is_none_or(|read| step.number > read)).map(
                        |step| {
                            let more = (step.number < last).then_some(step.number);
                            FeedEntry {
                                cursor: Cursor { step: more, ..entry.cursor },
                                step: Some(step.number),
                                samples_seen: Some(step.samples_seen),
                                values: Some(step.values),
                                ..entry.clone()
                            }
                        },
                    ));
                }
            }
        }
        Ok(FeedPage { entries, reached, is_last })
    }

    /// The steps of curves of batches (number, attempt, first step, last step), by number.
    async fn steps_of(&self, batches: &[(i64, i64, i64, i64)]) -> Result<BTreeMap<i64, Vec<CurveStep>>, StoreError> {
        if batches.is_empty() {
            return Ok(BTreeMap::new());
        }
        let column = |of: fn(&(i64, i64, i64, i64)) -> i64| batches.iter().map(of).collect::<Vec<_>>();
        let rows = sqlx::query!(
            r#"SELECT given.event_id AS "event_id!", m.step AS "step!", min(m.samples_seen) AS "samples_seen!",
                      jsonb_object_agg(n.name, m.value) AS "values!: Values"
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                    AS given (event_id, attempt_id, first_step, last_step)
               CROSS JOIN metric_name n
               JOIN metric m ON m.attempt_id = given.attempt_id AND m.metric_id = n.metric_id
                             AND m.step BETWEEN given.first_step AND given.last_step
               GROUP BY given.event_id, m.step ORDER BY given.event_id, m.step"#,
            &column(|batch| batch.0),
            &column(|batch| batch.1),
            &column(|batch| batch.2),
            &column(|batch| batch.3),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read curves"))?;
        let mut steps: BTreeMap<i64, Vec<CurveStep>> = BTreeMap::new();
        for row in rows {
            let step = CurveStep { number: row.step, samples_seen: row.samples_seen, values: row.values.0 };
            steps.entry(row.event_id).or_default().push(step);
        }
        Ok(steps)
    }
}

/// Name to value, as JSON.
type Values = sqlx::types::Json<Map<String, Value>>;

/// One step of a curve.
struct CurveStep {
    number: i64,
    samples_seen: i64,
    values: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for cursor in [Cursor::START, Cursor { txid: 7, event_id: 9, step: Some(3) }, Cursor::at_horizon(12)] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "7", "7-", "7-x", "-7-9", "7-9-1-2", "7-99999999999999999999", "7 - 9"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
