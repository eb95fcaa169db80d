//! Two sweeps side by side: cells that are alike (same model, D and U), each the mean over its seeds.

/// One metric, cell by cell. What a difference is worth is told by how far seeds are apart, where both sweeps have
/// several, else by the test items, where it is known of all.
pub(super) const COMPARE: &str = "\
WITH $ended,
$measured
SELECT model, d, u, value, against, value - against AS difference,
       CASE WHEN jobs > 1 AND against_jobs > 1 THEN sqrt(spread / jobs + against_spread / against_jobs)
            ELSE sqrt(squares / jobs ^ 2 + against_squares / against_jobs ^ 2) END AS difference_error,
       CASE WHEN jobs > 1 AND against_jobs > 1 THEN 'seeds' WHEN squares + against_squares IS NOT NULL THEN 'test items' END AS error_of,
       jobs, against_jobs, gmacs_samples
FROM (SELECT j.model, coalesce(j.exact_d, j.samples_seen) AS d,
             coalesce(j.exact_u, j.unique_samples, j.exact_d, j.samples_seen) AS u,
             avg(m.value) FILTER (WHERE s.name = $sweep) AS value, avg(m.value) FILTER (WHERE s.name = $against) AS against,
             var_samp(m.value) FILTER (WHERE s.name = $sweep) AS spread,
             var_samp(m.value) FILTER (WHERE s.name = $against) AS against_spread,
             CASE WHEN bool_and(m.standard_error IS NOT NULL) FILTER (WHERE s.name = $sweep)
                  THEN sum(m.standard_error ^ 2) FILTER (WHERE s.name = $sweep) END AS squares,
             CASE WHEN bool_and(m.standard_error IS NOT NULL) FILTER (WHERE s.name = $against)
                  THEN sum(m.standard_error ^ 2) FILTER (WHERE s.name = $against) END AS against_squares,
             count(*) FILTER (WHERE s.name = $sweep) AS jobs, count(*) FILTER (WHERE s.name = $against) AS against_jobs,
             avg(j.gmacs_samples) AS gmacs_samples
      FROM sweep s JOIN sweep_job sj USING (sweep_id) JOIN job j USING (job_id) JOIN measured m USING (job_id)
      WHERE s.name IN ($named)
      GROUP BY 1, 2, 3) cell
ORDER BY d, model, u";

/// All metrics and aggregates at once. Cells are numbers until the end: names would be compared for every row. The
/// standard error is of the mean difference over cells, which are pairs.
pub(super) const COMPARE_METRICS: &str = "\
WITH $ended,
$single,
own AS MATERIALIZED (SELECT job_id, dataset, metric FROM single WHERE dataset IN (SELECT name FROM aggregate_member)),
every AS (
    SELECT job_id, dataset, metric, value FROM single
    UNION ALL
    SELECT single.job_id, member.name, single.metric, avg(single.value)
    FROM single JOIN aggregate_member member USING (dataset)
    JOIN (SELECT name, count(*) AS members FROM aggregate_member GROUP BY name) whole USING (name)
    WHERE NOT EXISTS (SELECT FROM own WHERE own.job_id = single.job_id AND own.dataset = member.name AND own.metric = single.metric)
    GROUP BY single.job_id, member.name, whole.members, single.metric
    HAVING count(*) = whole.members),
place AS MATERIALIZED (
    SELECT sj.job_id, s.name = $sweep AS ours, s.name = $against AS theirs,
           dense_rank() OVER (ORDER BY j.model, coalesce(j.exact_d, j.samples_seen),
                                       coalesce(j.exact_u, j.unique_samples, j.exact_d, j.samples_seen)) AS cell
    FROM sweep s JOIN sweep_job sj USING (sweep_id) JOIN job j USING (job_id)
    WHERE s.name IN ($named) AND j.state = 'done'),
cell AS (
    SELECT every.dataset, every.metric, place.cell, avg(every.value) FILTER (WHERE place.ours) AS value,
           avg(every.value) FILTER (WHERE place.theirs) AS against
    FROM place JOIN every USING (job_id)
    GROUP BY 1, 2, 3)
SELECT dataset, metric, count(*) AS cells, avg(value) AS value, avg(against) AS against, avg(value - against) AS difference,
       stddev_samp(value - against) / sqrt(count(*)) AS difference_error, count(*) FILTER (WHERE value > against) AS cells_larger
FROM cell WHERE value IS NOT NULL AND against IS NOT NULL
GROUP BY dataset, metric ORDER BY dataset, metric";
