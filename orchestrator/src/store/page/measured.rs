//! What jobs were measured on at their ends, of whole sweeps: straight from the measurements, since the view
//! `observation` goes through those of all sweeps.

/// Attempts at jobs of sweeps `$named` that are done, with the place of the measurements that count. `many`: a job that
/// was claimed several times, of whose attempts the last that measured its end is the one that counts; only there they
/// have to be told apart, which takes a sort.
pub(super) const ENDED: &str = "\
ended AS MATERIALIZED (
    SELECT a.attempt_id, a.job_id, a.fence, coalesce(j.samples_seen, 0) AS samples_seen, j.fence > 1 AS many
    FROM job j JOIN attempt a USING (job_id)
    WHERE j.state = 'done' AND j.job_id IN (SELECT sj.job_id FROM sweep s JOIN sweep_job sj USING (sweep_id) WHERE s.name IN ($named)))";

/// All that those jobs were measured on, by `ended`.
pub(super) const SINGLE: &str = "\
single AS MATERIALIZED (
    SELECT ended.job_id, e.dataset, e.metric, e.value
    FROM ended JOIN evaluation e USING (attempt_id, samples_seen)
    WHERE NOT ended.many
          OR NOT EXISTS (SELECT FROM attempt later JOIN evaluation again USING (attempt_id)
                         WHERE later.job_id = ended.job_id AND later.fence > ended.fence AND again.dataset = e.dataset
                               AND again.metric = e.metric AND again.samples_seen = e.samples_seen))";

/// One metric of those jobs, by `ended`: where a data set has none of that name, the mean over the members of the
/// aggregate that has, as in the view.
pub(super) const MEASURED: &str = "\
own AS MATERIALIZED (
    SELECT DISTINCT ON (ended.job_id) ended.job_id, e.value, e.standard_error
    FROM ended JOIN evaluation e USING (attempt_id, samples_seen)
    WHERE e.dataset = $dataset AND e.metric = $metric
    ORDER BY ended.job_id, ended.fence DESC),
part AS (
    SELECT DISTINCT ON (ended.job_id, e.dataset) ended.job_id, e.value, e.standard_error
    FROM aggregate_member member JOIN evaluation e USING (dataset) JOIN ended USING (attempt_id, samples_seen)
    WHERE member.name = $dataset AND e.metric = $metric
    ORDER BY ended.job_id, e.dataset, ended.fence DESC),
measured AS (
    SELECT job_id, value, standard_error FROM own
    UNION ALL
    SELECT job_id, avg(value), CASE WHEN count(standard_error) = count(*) THEN sqrt(sum(standard_error ^ 2)) / count(*) END
    FROM part WHERE NOT EXISTS (SELECT FROM own WHERE own.job_id = part.job_id)
    GROUP BY job_id HAVING count(*) = (SELECT count(*) FROM aggregate_member whole WHERE whole.name = $dataset))";

/// Of an aggregate: jobs that may have it at most.
pub(super) const METRICS: &str = "\
WITH $ended,
$single,
measured AS MATERIALIZED (SELECT dataset, metric, count(*) AS jobs FROM single GROUP BY dataset, metric)
SELECT dataset, metric, jobs FROM measured
UNION ALL
SELECT member.name, measured.metric, min(measured.jobs) FROM aggregate_member member JOIN measured USING (dataset)
WHERE NOT EXISTS (SELECT FROM measured own WHERE own.dataset = member.name AND own.metric = measured.metric)
GROUP BY member.name, measured.metric
HAVING count(*) = (SELECT count(*) FROM aggregate_member whole WHERE whole.name = member.name)
ORDER BY dataset, metric";

const JOB_COLUMNS: &str = "\
SELECT j.job_key, j.state, j.model, coalesce(j.exact_n, j.parameters) AS n, coalesce(j.exact_d, j.samples_seen) AS d,
       j.data_size, j.seed, j.gmacs_samples, j.reason, j.done_at";

/// Jobs of a sweep, with the metric where one is wanted.
pub(super) fn jobs(has_metric: bool) -> String {
    let (with, value, join) = if has_metric {
        ("WITH $ended,\n$measured\n", "m.value, m.standard_error", "\nLEFT JOIN measured m USING (job_id)")
    } else {
        ("", NO_VALUE, "")
    };
    format!(
        "{with}{JOB_COLUMNS}, {value}
FROM sweep s JOIN sweep_job sj USING (sweep_id) JOIN job j USING (job_id){join}
WHERE s.name = $sweep
ORDER BY sj.position, j.job_key"
    )
}

const NO_VALUE: &str = "NULL::float8 AS value, NULL::float8 AS standard_error";

/// The same of those that something has happened to lately, which are few: each is looked up by itself.
pub(super) fn changed(has_metric: bool) -> String {
    let (value, join) = if has_metric {
        (
            "coalesce(m.value, g.value) AS value,
       CASE WHEN m.value IS NULL THEN g.standard_error ELSE m.standard_error END AS standard_error",
            "
LEFT JOIN LATERAL (SELECT e.value, e.standard_error FROM attempt a JOIN evaluation e USING (attempt_id)
                   WHERE a.job_id = j.job_id AND e.dataset = $dataset AND e.metric = $metric
                         AND e.samples_seen = coalesce(j.samples_seen, 0)
                   ORDER BY a.fence DESC LIMIT 1) m ON j.state = 'done'
LEFT JOIN LATERAL (SELECT avg(part.value) AS value,
                          CASE WHEN count(part.standard_error) = count(*)
                               THEN sqrt(sum(part.standard_error ^ 2)) / count(*) END AS standard_error
                   FROM aggregate_member member
                   CROSS JOIN LATERAL (SELECT e.value, e.standard_error FROM attempt a JOIN evaluation e USING (attempt_id)
                                       WHERE a.job_id = j.job_id AND e.dataset = member.dataset AND e.metric = $metric
                                             AND e.samples_seen = coalesce(j.samples_seen, 0)
                                       ORDER BY a.fence DESC LIMIT 1) part
                   WHERE member.name = $dataset
                   HAVING count(*) = (SELECT count(*) FROM aggregate_member whole WHERE whole.name = $dataset)) g ON j.state = 'done'",
        )
    } else {
        (NO_VALUE, "")
    };
    format!(
        "{JOB_COLUMNS}, {value}
FROM sweep s JOIN sweep_job sj USING (sweep_id) JOIN job j USING (job_id){join}
WHERE s.name = $sweep
      AND j.job_id IN (SELECT job_id FROM (SELECT job_id FROM event ORDER BY event_id DESC LIMIT $events) latest)
ORDER BY sj.position, j.job_key"
    )
}
