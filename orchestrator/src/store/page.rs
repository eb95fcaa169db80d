//! SQL of the live page (`sweep serve`): each table of it is one query, which the page shows, so that it can be run
//! again as it is (`sweep sql`).

mod compare;
mod measured;

use super::condition;
use super::observation::literal;

/// Points of a curve that the page draws.
pub const CURVE_POINTS: usize = 120;
/// And of the small ones of running jobs.
const SPARK_POINTS: usize = 60;
/// Curves of running jobs that the page draws.
pub const CURVES: usize = 48;
/// Latest attempts and fits that it lists.
const LATEST: usize = 200;
/// Seconds without a sign of life after which the page says so of an attempt or a launcher.
pub const SILENT_SECS: f64 = 60.0;
/// Latest events that changed cells are looked for in.
const EVENTS: usize = 1000;

/// A table of the page. Its name stands in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Names of all sweeps.
    Names,
    /// All sweeps.
    Sweeps,
    /// The same of one.
    Sweep,
    /// Jobs of a sweep, with the metric where one is wanted.
    Jobs,
    /// The same of those that something has happened to lately.
    Changed,
    /// What jobs of a sweep were measured on.
    Metrics,
    /// Its attempts that live.
    Running,
    /// Their losses, thinned.
    Curves,
    /// Its latest attempts.
    Attempts,
    /// Its stored fits.
    Fits,
    /// Measurements at the end of jobs, those for which the condition holds.
    Results,
    /// One job.
    Job,
    /// Its metrics of training, thinned.
    JobCurves,
    /// Its attempts.
    JobAttempts,
    /// Its checkpoints.
    Checkpoints,
    /// What was measured of it.
    Measurements,
    /// What happened to it.
    Events,
    /// Cells that two sweeps share, by the metric.
    Compare,
    /// Metrics that two sweeps share.
    CompareMetrics,
}

/// What a table is of, as URLs say it. What a table has no use for is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Wanted {
    /// Name of a sweep.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sweep: String,
    /// Another sweep.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub against: String,
    /// First digits of a job's key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// `DATASET/METRIC`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metric: String,
    /// Condition on the view `observation`.
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// Column that the results are in the order of, a `-` before it for the largest first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub order: String,
    /// Results that a page shows; files have all.
    #[serde(skip)]
    pub rows_max: Option<usize>,
}

/// Columns of [`Table::Results`].
pub const RESULT_COLUMNS: &[&str] = &[
    "job_key",
    "model",
    "n",
    "d",
    "u",
    "epochs",
    "seed",
    "gmacs_samples",
    "dataset",
    "metric",
    "value",
    "standard_error",
    "error",
    "gpu_hours",
    "pool",
    "source",
];

impl Table {
    const ALL: &[(&str, Table)] = &[
        ("names", Table::Names),
        ("sweeps", Table::Sweeps),
        ("sweep", Table::Sweep),
        ("jobs", Table::Jobs),
        ("changed", Table::Changed),
        ("metrics", Table::Metrics),
        ("running", Table::Running),
        ("curves", Table::Curves),
        ("attempts", Table::Attempts),
        ("fits", Table::Fits),
        ("results", Table::Results),
        ("job", Table::Job),
        ("job-curves", Table::JobCurves),
        ("job-attempts", Table::JobAttempts),
        ("checkpoints", Table::Checkpoints),
        ("measurements", Table::Measurements),
        ("events", Table::Events),
        ("compare", Table::Compare),
        ("compare-metrics", Table::CompareMetrics),
    ];

    /// As in URLs.
    pub fn name(self) -> &'static str {
        Table::ALL.iter().find(|(_, table)| *table == self).expect("every table has a name").0
    }

    /// The table of that name.
    pub fn of_name(name: &str) -> Option<Table> {
        Table::ALL.iter().find(|(known, _)| *known == name).map(|(_, table)| *table)
    }

    /// One statement, or what is wrong with what is wanted. Texts are literals in it; a condition is parsed and printed
    /// again.
    pub fn sql(self, wanted: &Wanted) -> Result<String, String> {
        let (sweep, against) = (literal(&wanted.sweep), literal(&wanted.against));
        let (dataset, metric) = metric_of(wanted);
        let (thinned, latest, events) = (thinned(SPARK_POINTS), LATEST.to_string(), EVENTS.to_string());
        let (curves, silent) = (CURVES.to_string(), SILENT_SECS.to_string());
        // Values that hold names of others come first; no name begins as another that is after it does.
        let of = |text: &str, named: &str| {
            let of_these = fill(measured::ENDED, &[("named", named)]);
            let this = [("dataset", &*dataset), ("metric", &*metric)];
            let measured = fill(measured::MEASURED, &this);
            let ours = [("thinned", &*thinned), ("curves", &*curves), ("latest", &*latest), ("events", &*events)];
            let parts = [("ended", &*of_these), ("single", measured::SINGLE), ("measured", &*measured)];
            let names = [("sweep", &*sweep), ("against", &*against), ("named", named)];
            fill(text, &[&ours[..], &parts, &names, &this].concat())
        };
        let of_sweep = |text: &str| of(text, &sweep);
        let of_both = |text: &str| of(text, &format!("{sweep}, {against}"));
        let totals = |only: &str| fill(SWEEPS, &[("silent", &*silent), ("only", only)]);
        let has_metric = !wanted.metric.is_empty();
        let of_job = |text: &str| -> Result<String, String> {
            let job = job_row(wanted)?;
            Ok(fill(text, &[("thinned", &*self::thinned(CURVE_POINTS)), ("job", &*job)]))
        };
        Ok(match self {
            Table::Names => "SELECT name AS sweep, question, source FROM sweep ORDER BY name".to_owned(),
            Table::Sweeps => totals("sweep_id IS NOT NULL"),
            Table::Sweep => totals(&format!("sweep_id = (SELECT sweep_id FROM sweep WHERE name = {sweep})")),
            Table::Jobs => of_sweep(&measured::jobs(has_metric)),
            Table::Changed => of_sweep(&measured::changed(has_metric)),
            Table::Metrics => of_sweep(measured::METRICS),
            Table::Running => format!(
                "SELECT {RUNNING}\nWHERE a.state IN ('intent', 'launched', 'running') AND s.name = {sweep}\nORDER BY a.state DESC, sj.position"
            ),
            Table::Curves => of_sweep(CURVES_SQL),
            Table::Attempts => {
                format!("SELECT {ATTEMPT}\nWHERE s.name = {sweep}\nORDER BY a.attempt_id DESC LIMIT {LATEST}")
            }
            Table::Fits => of_sweep(FITS),
            Table::Results => results(wanted)?,
            Table::Job => of_job(JOB)?,
            Table::JobCurves => of_job(JOB_CURVES)?,
            Table::JobAttempts => of_job(JOB_ATTEMPTS)?,
            Table::Checkpoints => of_job(CHECKPOINTS)?,
            Table::Measurements => of_job(MEASUREMENTS)?,
            Table::Events => of_job(JOB_EVENTS)?,
            Table::Compare => of_both(compare::COMPARE),
            Table::CompareMetrics => of_both(compare::COMPARE_METRICS),
        })
    }
}

/// The data set and the metric of `DATASET/METRIC`: data sets' names may have slashes.
pub fn split_metric(metric: &str) -> Option<(&str, &str)> {
    metric.rsplit_once('/')
}

/// The text with each `$name` replaced by its value, once: what is in a value is not looked at again, since a name that
/// somebody gave a sweep may look like one of ours.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = values.iter().find_map(|(name, value)| Some((*value, part.strip_prefix(name)?)));
        let (value, rest) = value.expect("each name in a text of ours is given");
        filled.extend([value, rest]);
    }
    filled
}

fn metric_of(wanted: &Wanted) -> (String, String) {
    let (dataset, metric) = split_metric(&wanted.metric).unwrap_or(("", ""));
    (literal(dataset), literal(metric))
}

fn job_row(wanted: &Wanted) -> Result<String, String> {
    let is_key = (4..=64).contains(&wanted.job.len()) && wanted.job.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key {
        let first = wanted.job.to_ascii_lowercase();
        // A range, so that the index on keys serves.
        Ok(format!(
            "(SELECT job_id FROM job WHERE job_key BETWEEN '{first:0<64}' AND '{first:f<64}' ORDER BY job_key LIMIT 1)"
        ))
    } else {
        Err(format!("`{}` is no job: a job is named by 4 or more first digits of its key", wanted.job))
    }
}

/// Compute in both conventions: budgets are in FLOPs. What attempts cost is summed as far as it is known.
const SWEEPS: &str = "\
WITH work AS (
    SELECT sj.sweep_id, count(*) AS jobs,
           count(*) FILTER (WHERE j.state = 'pending') AS pending, count(*) FILTER (WHERE j.state = 'running') AS running,
           count(*) FILTER (WHERE j.state = 'done') AS done, count(*) FILTER (WHERE j.state = 'failed') AS failed,
           count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled,
           sum(own.part * j.gmacs_samples) AS gmacs_planned,
           sum(own.part * j.gmacs_samples) FILTER (WHERE j.state = 'done') AS gmacs_done,
           sum(own.part * j.gmacs_samples) FILTER (WHERE j.state IN ('pending', 'running')) AS gmacs_open,
           sum(own.part * j.train_flops) AS flops_planned, sum(own.part * j.train_flops) FILTER (WHERE j.state = 'done') AS flops_done,
           max(j.done_at) AS last_done_at
    FROM sweep_job sj JOIN job j USING (job_id)
    CROSS JOIN LATERAL (SELECT 1 - j.parent_samples::float8 / nullif(j.samples_seen, 0) AS part) own
    WHERE sj.$only GROUP BY sj.sweep_id),
live AS (
    SELECT sj.sweep_id, count(*) AS attempts, sum(j.gmacs_samples * own.part) AS gmacs_partly, sum(j.train_flops * own.part) AS flops_partly,
           sum(j.gmacs_samples / nullif(j.samples_seen, 0) * (a.samples_seen - coalesce(a.resumed_from_samples, 0))
               / nullif(extract(epoch FROM now() - a.claimed_at)::float8, 0)) AS gmacs_per_sec,
           count(*) FILTER (WHERE greatest(a.created_at, a.launched_at, a.claimed_at, a.heartbeat_at) < now() - interval '$silent s') AS silent
    FROM attempt a JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id)
    CROSS JOIN LATERAL (SELECT (a.samples_seen - j.parent_samples)::float8 / nullif(j.samples_seen, 0) AS part) own
    WHERE a.state IN ('intent', 'launched', 'running') AND sj.$only GROUP BY sj.sweep_id),
cost AS (
    SELECT sj.sweep_id, sum(spent.secs) / 3600 AS train_hours,
           sum(spent.secs * coalesce(a.gpus, CASE WHEN a.device LIKE 'cuda%' THEN 1 END)) / 3600 AS gpu_hours,
           sum(coalesce(a.gpu_joules, 0) + coalesce(a.machine_cpu_joules * a.cpu_share, 0)) / 3.6e6 AS kwh
    FROM sweep_job sj JOIN attempt a USING (job_id)
    CROSS JOIN LATERAL (SELECT coalesce(a.train_secs, extract(epoch FROM coalesce(a.heartbeat_at, a.ended_at) - a.claimed_at)::float8) AS secs) spent
    WHERE sj.$only GROUP BY sj.sweep_id)
SELECT s.name AS sweep, s.question, s.source, CASE WHEN s.source IS NULL THEN s.spec END AS spec, coalesce(work.jobs, 0) AS jobs,
       work.pending, work.running, work.done, work.failed, work.cancelled, work.gmacs_planned,
       coalesce(work.gmacs_done, 0) + coalesce(live.gmacs_partly, 0) AS gmacs_spent, work.flops_planned,
       coalesce(work.flops_done, 0) + coalesce(live.flops_partly, 0) AS flops_spent,
       CASE WHEN work.running > 0 AND live.gmacs_per_sec > 0
            THEN (work.gmacs_open - coalesce(live.gmacs_partly, 0)) / live.gmacs_per_sec END AS secs_left,
       cost.train_hours, cost.gpu_hours, nullif(cost.kwh, 0) AS kwh, coalesce(live.attempts, 0) AS live_attempts,
       coalesce(live.silent, 0) AS silent_attempts,
       extract(epoch FROM now() - s.launcher_seen_at)::float8 AS launcher_secs_ago, s.created_at, work.last_done_at
FROM sweep s LEFT JOIN work USING (sweep_id) LEFT JOIN live USING (sweep_id) LEFT JOIN cost USING (sweep_id)
WHERE s.$only
ORDER BY work.running > 0 DESC NULLS LAST, greatest(s.updated_at, work.last_done_at) DESC, s.name";

const RUNNING: &str = "\
j.job_key, j.model, j.samples_seen AS samples_total, j.parent_samples, j.data_size, j.seed, a.attempt_id, a.state,
       a.samples_seen, coalesce(a.node, a.host) AS host, a.slot, a.device, a.backend,
       (a.samples_seen - coalesce(a.resumed_from_samples, 0))
           / nullif(extract(epoch FROM now() - a.claimed_at)::float8, 0) AS samples_per_sec,
       extract(epoch FROM now() - greatest(a.created_at, a.launched_at, a.claimed_at, a.heartbeat_at))::float8 AS silent_secs
FROM attempt a JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id) JOIN sweep s USING (sweep_id)";

const ATTEMPT: &str = "\
a.attempt_id, j.job_key, j.model, a.state, a.backend, coalesce(a.node, a.host) AS host, a.slot, a.device, a.samples_seen,
       a.resumed_from_samples, a.created_at, a.ended_at, a.train_secs, a.exit_code, a.failure_kind, a.lost_to, a.reason
FROM attempt a JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id) JOIN sweep s USING (sweep_id)";

/// A metric `n` of an attempt `a` at evenly spaced steps, each found by the index: as fast for a million rows as for a
/// hundred.
fn thinned(points: usize) -> String {
    let last = points - 1;
    format!(
        "\
CROSS JOIN LATERAL (SELECT min(m.step) AS first, max(m.step) AS last FROM metric m
                    WHERE m.attempt_id = a.attempt_id AND m.metric_id = n.metric_id) range
CROSS JOIN generate_series(0, {last}) part
CROSS JOIN LATERAL (SELECT m.step, m.samples_seen, m.value FROM metric m
                    WHERE m.attempt_id = a.attempt_id AND m.metric_id = n.metric_id
                          AND m.step >= range.first + (range.last - range.first) * part / {last}
                    ORDER BY m.step LIMIT 1) p"
    )
}

const CURVES_SQL: &str = "\
SELECT DISTINCT ON (live.position, live.job_key, p.step) live.job_key, p.samples_seen, p.value AS loss
FROM (SELECT sj.position, j.job_id, j.job_key FROM attempt a JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id)
      JOIN sweep s USING (sweep_id) WHERE a.state = 'running' AND s.name = $sweep ORDER BY sj.position LIMIT $curves) live
JOIN attempt_current a USING (job_id)
JOIN metric_name n ON n.name = 'loss'
$thinned
WHERE a.superseded_after_samples IS NULL OR p.samples_seen <= a.superseded_after_samples
ORDER BY live.position, live.job_key, p.step, a.fence DESC";

const FITS: &str = "\
SELECT f.fit_id, f.created_at, f.dataset, f.metric, f.law_name, f.law, f.points, f.objective, f.compute, f.condition,
       jsonb_array_length(f.observations -> 'rows') AS jobs, f.r2, f.verdict, f.parameters, f.code_version
FROM fit f JOIN sweep s USING (sweep_id)
WHERE s.name = $sweep
ORDER BY f.fit_id DESC LIMIT $latest";

fn results(wanted: &Wanted) -> Result<String, String> {
    let condition = match wanted.condition.trim() {
        "" => "true".to_owned(),
        condition => condition::parse(condition)?,
    };
    let name = wanted.order.strip_prefix('-').unwrap_or(&wanted.order);
    let order = match RESULT_COLUMNS.iter().find(|column| **column == name) {
        Some(column) if wanted.order.starts_with('-') => format!("{column} DESC NULLS LAST, "),
        Some(column) => format!("{column}, "),
        None if name.is_empty() => String::new(),
        None => return Err(format!("`{name}` is no column to order by; these are: {}", RESULT_COLUMNS.join(", "))),
    };
    let of_metric = match metric_of(wanted) {
        _ if wanted.metric.is_empty() => String::new(),
        (dataset, metric) => format!(" AND dataset = {dataset} AND metric = {metric}"),
    };
    // What a job cost is then looked up for these alone.
    let limit = wanted.rows_max.map_or(String::new(), |rows| format!("\nLIMIT {rows}"));
    let rows = format!("SELECT * FROM observation WHERE sweep = {}{of_metric}", literal(&wanted.sweep));
    Ok(format!(
        "SELECT {}\nFROM ({rows}) AS observation\nWHERE (\n{condition}\n)\nORDER BY {order}dataset, metric, d, n, job_key{limit}",
        RESULT_COLUMNS.join(", ")
    ))
}

const JOB: &str = "\
SELECT j.job_key, j.state, j.reason, j.runner, j.runner_version, j.model, coalesce(j.exact_n, j.parameters) AS n,
       coalesce(j.exact_d, j.samples_seen) AS d, j.data_size, coalesce(j.exact_u, j.unique_samples) AS u, j.seed, j.gmacs_samples,
       j.train_flops, j.six_nd, (SELECT p.name FROM pool p WHERE p.digest = j.pool) AS pool, j.source, j.source_detail,
       (SELECT p.job_key FROM job p WHERE p.job_id = j.parent) AS parent, j.parent_samples, j.skipped, j.created_at, j.done_at,
       c.train_secs, c.gpu_hours, c.gpu_joules, c.cpu_joules, coalesce(js.spec, j.spec) AS spec,
       (SELECT string_agg(s.name, ' ' ORDER BY s.name) FROM sweep_job sj JOIN sweep s USING (sweep_id) WHERE sj.job_id = j.job_id) AS sweeps
FROM job j LEFT JOIN job_spec js USING (job_id) LEFT JOIN job_cost c ON c.job_id = j.job_id
WHERE j.job_id = $job";

const JOB_CURVES: &str = "\
SELECT DISTINCT ON (n.name, p.step) n.name AS metric, p.step, p.samples_seen, p.value
FROM attempt_current a
CROSS JOIN metric_name n
$thinned
WHERE a.job_id = $job AND range.last IS NOT NULL
      AND (a.superseded_after_samples IS NULL OR p.samples_seen <= a.superseded_after_samples)
ORDER BY n.name, p.step, a.fence DESC";

const JOB_ATTEMPTS: &str = "\
SELECT a.attempt_id, row_number() OVER (ORDER BY a.attempt_id) AS nth, a.state, a.backend, coalesce(a.node, a.host) AS host, a.slot,
       a.device, a.threads, a.samples_seen, a.resumed_from_samples, a.created_at, a.claimed_at, a.heartbeat_at, a.ended_at,
       a.train_secs, a.eval_secs, a.peak_memory_bytes, a.exit_code, a.failure_kind, a.lost_to, a.reason, a.folder, a.stderr_tail
FROM attempt a WHERE a.job_id = $job ORDER BY a.attempt_id";

const CHECKPOINTS: &str = "\
SELECT c.samples_seen, c.step, c.attempt_id, c.path, c.sha256, c.created_at
FROM checkpoint c JOIN attempt a USING (attempt_id) WHERE a.job_id = $job ORDER BY c.samples_seen, c.attempt_id";

const MEASUREMENTS: &str = "\
SELECT m.dataset, m.metric, m.samples_seen, m.value, m.standard_error, m.chance, m.count, m.recorded_at
FROM measurement m WHERE m.job_id = $job ORDER BY m.dataset, m.metric, m.samples_seen";

const JOB_EVENTS: &str = "\
SELECT e.at, e.kind, e.detail, e.attempt_id FROM event e WHERE e.job_id = $job ORDER BY e.event_id DESC LIMIT 200";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_stays_a_text() {
        let evil = Wanted {
            sweep: "x' OR true --".to_owned(),
            against: "\\' OR true --".to_owned(),
            metric: "a'b/c\\'d".to_owned(),
            ..Wanted::default()
        };
        for table in
            [Table::Jobs, Table::Changed, Table::Metrics, Table::Running, Table::Curves, Table::Attempts, Table::Fits]
        {
            let text = table.sql(&evil).expect("names are any text");
            assert!(text.contains("E'x'' OR true --'"), "{text}");
        }
        let crossed = Wanted { sweep: "$against".to_owned(), against: "' OR true --".to_owned(), ..Wanted::default() };
        let text = Table::CompareMetrics.sql(&crossed).expect("names are any text");
        assert!(text.contains("E'$against'") && text.contains("E''' OR true --'"), "{text}");
        let text = Table::Compare.sql(&evil).expect("names are any text");
        assert!(text.contains(r"E'\\'' OR true --'") && text.contains(r"E'c\\''d'"), "{text}");
    }

    #[test]
    fn a_job_is_named_by_digits_alone() {
        for job in ["", "abc", "abcd'", "abcd--", &"a".repeat(65)] {
            let wanted = Wanted { job: job.to_owned(), ..Wanted::default() };
            assert!(Table::Job.sql(&wanted).is_err(), "{job}");
        }
    }

    #[test]
    fn an_order_is_a_column() {
        let wanted = |order: &str| Wanted { order: order.to_owned(), ..Wanted::default() };
        let text = Table::Results.sql(&wanted("-value")).expect("it is a column");
        assert!(text.contains("ORDER BY value DESC"), "{text}");
        assert!(Table::Results.sql(&wanted("1; DROP TABLE job")).is_err());
        assert!(Table::Results.sql(&Wanted { condition: "1) OR (1".to_owned(), ..Wanted::default() }).is_err());
    }

    #[test]
    fn names_name_tables() {
        for (name, table) in Table::ALL {
            assert_eq!((table.name(), Table::of_name(name)), (*name, Some(*table)));
        }
    }
}
