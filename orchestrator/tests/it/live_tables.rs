//! Tables of the live page go straight to the measurements, for speed: they have to say what the view `observation`
//! says.

use sqlx::Connection;
use sweep::store::page::{Table, Wanted};

use crate::harness::Project;

/// Two sweeps of the same cells, one of them with two seeds, which share a job. One job's end was measured by two
/// attempts, and by a third that got no further than that; one job has a data set that is called as an aggregate is;
/// one lacks a member of it; one is not done.
const STUDY: &str = "
INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'p', '/p', 100);
INSERT INTO sweep (name, spec) VALUES ('a', ''), ('b', ''), ('empty', '');
INSERT INTO aggregate (name) VALUES ('mean'), ('other');
INSERT INTO aggregate_member (name, dataset) VALUES ('mean', 'x'), ('mean', 'y'), ('other', 'x'), ('other', 'nowhere');
INSERT INTO job (job_key, state, fence, runner, runner_version, model, parameters, image_parameters, text_parameters, pool, data_size,
                 samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd)
SELECT repeat(to_hex(n), 64), CASE n WHEN 9 THEN 'running' ELSE 'done' END, CASE n WHEN 1 THEN 3 ELSE 1 END, 'clip', '1', 'm' || n % 3,
       10, 5, 5, repeat('a', 64), 50, 100, 50, n, 1000, 6000, 6000
FROM generate_series(1, 9) n;
INSERT INTO sweep_job SELECT CASE WHEN n <= 6 THEN 1 ELSE 2 END, n, n FROM generate_series(1, 9) n;
INSERT INTO sweep_job VALUES (2, 1, 10);
INSERT INTO attempt (job_id, token, state, backend, folder, fence, resumed_from_samples, samples_seen)
SELECT job_id, 'own ' || job_id, CASE state WHEN 'done' THEN 'finished' ELSE state END, 'local', '/', fence, 0, 100 FROM job;
INSERT INTO attempt (job_id, token, state, backend, folder, fence, resumed_from_samples, samples_seen) VALUES
    (1, 'first', 'lost', 'local', '/', 1, 0, 100), (1, 'second', 'lost', 'local', '/', 2, 50, 100);
INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error)
SELECT a.attempt_id, dataset, 'acc1', at, (a.job_id * a.job_id * 0.01 + ascii(dataset) * 0.001 + a.fence * 0.1) * at / 100,
       CASE WHEN a.job_id % 7 > 0 THEN 0.01 * a.job_id END
FROM attempt a, unnest(ARRAY['x', 'y', 'z', 'mean']) dataset, unnest(ARRAY[50, 100]) at
WHERE (dataset <> 'y' OR a.job_id <> 2) AND (dataset <> 'mean' OR a.job_id = 3);
INSERT INTO event (job_id, kind) SELECT job_id, 'finished' FROM job;";

fn lines(project: &Project, query: &str) -> String {
    project.ok(&["sql", "-f", "csv", query])
}

#[tokio::test]
async fn tables_of_whole_sweeps_are_as_the_view() {
    let project = Project::new();
    let _store = project.store().await;
    let options = sweep::store::private_postgres::ensure_running(&project.home()).expect("it starts").options();
    let mut connection = sqlx::PgConnection::connect_with(&options).await.expect("it answers");
    sqlx::raw_sql(STUDY).execute(&mut connection).await.expect("the script is right");
    let table = |table: Table, sweep: &str, dataset: &str| {
        let (metric, against) = (format!("{dataset}/acc1"), "b".to_owned());
        let wanted = Wanted { sweep: sweep.to_owned(), against, metric, ..Wanted::default() };
        format!("({}) shown", table.sql(&wanted).expect("names are any text"))
    };
    for sweep in ["a", "b", "empty"] {
        for dataset in ["x", "y", "z", "mean", "other", "nowhere"] {
            let expected = lines(
                &project,
                &format!(
                "SELECT job_key, round(value::numeric, 9) AS value, round(standard_error::numeric, 9) AS standard_error
                 FROM observation WHERE sweep = '{sweep}' AND dataset = '{dataset}' AND metric = 'acc1' ORDER BY 1"
            ),
            );
            for which in [Table::Jobs, Table::Changed] {
                let shown = lines(&project, &format!(
                    "SELECT job_key, round(value::numeric, 9) AS value, round(standard_error::numeric, 9) AS standard_error
                     FROM {} WHERE value IS NOT NULL ORDER BY 1",
                    table(which, sweep, dataset)
                ));
                assert_eq!(shown, expected, "{which:?} of {sweep} by {dataset}");
            }
        }
        let expected = lines(
            &project,
            &format!(
                "SELECT dataset, metric, count(*) AS jobs FROM observation
             WHERE sweep = '{sweep}' AND dataset NOT IN (SELECT name FROM aggregate) GROUP BY 1, 2 ORDER BY 1"
            ),
        );
        let shown = lines(
            &project,
            &format!(
                "SELECT * FROM {} WHERE dataset NOT IN (SELECT name FROM aggregate) ORDER BY 1",
                table(Table::Metrics, sweep, "x")
            ),
        );
        assert_eq!(shown, expected, "metrics of {sweep}");
    }
    let cells = "
        WITH cell AS (SELECT dataset, metric, model, avg(value) FILTER (WHERE sweep = 'a') AS value,
                             avg(value) FILTER (WHERE sweep = 'b') AS against
                      FROM observation WHERE sweep IN ('a', 'b') GROUP BY 1, 2, 3)";
    for dataset in ["x", "y", "mean", "other"] {
        let expected = lines(
            &project,
            &format!(
            "{cells} SELECT model, round(value::numeric, 9) AS value, round(against::numeric, 9) AS against FROM cell
             WHERE dataset = '{dataset}' ORDER BY 1"
        ),
        );
        let shown = lines(
            &project,
            &format!(
                "SELECT model, round(value::numeric, 9) AS value, round(against::numeric, 9) AS against FROM {} ORDER BY 1",
                table(Table::Compare, "a", dataset)
            ),
        );
        assert_eq!(shown, expected, "{dataset}");
    }
    let columns =
        "dataset, metric, cells, round(value::numeric, 9) AS value, round(difference::numeric, 9) AS difference,
                   round(difference_error::numeric, 9) AS error, cells_larger";
    let expected = lines(
        &project,
        &format!(
            "{cells} SELECT {columns} FROM (
             SELECT dataset, metric, count(*) AS cells, avg(value) AS value, avg(value - against) AS difference,
                    stddev_samp(value - against) / sqrt(count(*)) AS difference_error,
                    count(*) FILTER (WHERE value > against) AS cells_larger
             FROM cell WHERE value IS NOT NULL AND against IS NOT NULL GROUP BY 1, 2) over_cells ORDER BY 1"
        ),
    );
    assert!(expected.contains("\nmean,acc1,2,"), "{expected}");
    let shown =
        lines(&project, &format!("SELECT {columns} FROM {} ORDER BY 1", table(Table::CompareMetrics, "a", "x")));
    assert_eq!(shown, expected);
    // Where both sweeps have several seeds of a cell, they say how sure a difference is.
    let errors = lines(
        &project,
        &format!(
            "SELECT model, jobs, against_jobs, error_of, difference_error > 0 AS known FROM {} ORDER BY 1",
            table(Table::Compare, "a", "x")
        ),
    );
    assert_eq!(errors, "model,jobs,against_jobs,error_of,known\nm0,2,0,,\nm1,2,2,seeds,true\nm2,2,1,test items,true\n");
}
