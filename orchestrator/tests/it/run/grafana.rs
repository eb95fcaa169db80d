//! `deploy/grafana.json`: every query of the dashboard runs as Grafana would send it, as the role that may only read,
//! and answers with rows.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::bench::{Bench, SPEC};
use crate::harness::transcript;

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("it is JSON")
}

/// A query as Grafana sends it: variables first (`${name:sqlstring}` in quotes, others as they are), then macros, as
/// `macros.go` of its data source for PostgreSQL has them.
fn filled(sql: &str, variables: &BTreeMap<String, String>) -> String {
    let mut sql = sql.replace("$__interval_ms", "60000").replace("$__interval", "1m");
    for (name, value) in variables {
        let quoted = format!("'{}'", value.replace('\'', "''"));
        sql = sql.replace(&format!("${{{name}:sqlstring}}"), &quoted);
    }
    let (from, to) = ("'2000-01-01T00:00:00Z'", "'2100-01-01T00:00:00Z'");
    while let Some(begin) = sql.find("$__") {
        let open = begin + sql[begin..].find('(').unwrap_or_else(|| panic!("no macro: {sql}"));
        let close = open + sql[open..].find(')').expect("it is closed");
        let arguments: Vec<&str> = sql[open + 1..close].split(',').map(str::trim).collect();
        let text = match (&sql[begin + 1..open], &arguments[..]) {
            ("__timeFilter", [column]) => format!("{column} BETWEEN {from} AND {to}"),
            ("__timeGroupAlias", [column, "1m"]) => format!("floor(extract(epoch from {column})/60)*60 AS \"time\""),
            (other, _) => panic!("a macro that this test does not know: {other}"),
        };
        sql.replace_range(begin..=close, &text);
    }
    assert!(!sql.contains('$'), "something is left to fill in: {sql}");
    sql
}

/// Rows of a query, run by `sweep sql` as `sweep_reader`.
fn rows(bench: &Bench, what: &str, sql: &str) -> Vec<serde_json::Map<String, Value>> {
    let output = bench.sweep(&["sql", "--format", "json", sql]);
    assert!(output.status.success(), "{what}: {sql}\n{}", transcript(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{what}: no rows in {answer}"));
    assert!(!rows.is_empty(), "{what} has no rows: {sql}");
    rows.iter().map(|row| row.as_object().expect("a row by columns").clone()).collect()
}

/// A time as Grafana takes it: seconds since 1970, or a time of the database.
fn instant(value: &Value) -> f64 {
    match value {
        Value::Number(secs) => secs.as_f64().expect("a number"),
        Value::String(text) => {
            let time = chrono::DateTime::parse_from_rfc3339(text).unwrap_or_else(|_| panic!("{text} is no time"));
            time.timestamp_micros() as f64 / 1e6
        }
        other => panic!("{other} is no time"),
    }
}

#[test]
fn every_query_of_the_dashboard_answers_with_rows() {
    let bench = Bench::new(SPEC);
    bench.finish();
    let fit = bench.sweep(&["fit", "tiny", "--metric", "synthetic/acc1"]);
    assert!(String::from_utf8_lossy(&fit.stdout).contains("stored      fit 1"), "{}", transcript(&fit));
    // One job more that failed, and one that runs.
    bench.ask(
        "WITH added AS (
             INSERT INTO job (job_key, state, reason, runner, runner_version, model, parameters, image_parameters,
                              text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops,
                              six_nd)
             SELECT repeat(given.key, 64), given.state, given.reason, runner, runner_version, model, parameters, image_parameters,
                    text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd
             FROM (SELECT * FROM job LIMIT 1) of_these,
                  (VALUES ('e', 'failed', 'it diverged'), ('f', 'running', NULL)) AS given (key, state, reason)
             RETURNING job_id, state),
         placed AS (INSERT INTO sweep_job SELECT (SELECT sweep_id FROM sweep), job_id, 100 FROM added),
         tried AS (
             INSERT INTO attempt (job_id, token, state, backend, host, folder, reason, claimed_at, heartbeat_at, ended_at)
             SELECT job_id, 'by-hand-' || state, state, 'local', 'host', '/nowhere', CASE state WHEN 'failed' THEN 'diverged' END,
                    now() - interval '1 minute', now(), CASE state WHEN 'failed' THEN now() END
             FROM added RETURNING job_id)
         SELECT count(*)::text FROM tried",
    );
    let dashboard = dashboard();
    let mut variables = BTreeMap::new();
    for variable in dashboard["templating"]["list"].as_array().expect("a list") {
        let name = variable["name"].as_str().expect("a name");
        let query = filled(variable["query"].as_str().expect("a query"), &variables);
        let first = rows(&bench, name, &query).remove(0);
        let value = first.values().next().and_then(Value::as_str).expect("a text").to_owned();
        variables.insert(name.to_owned(), value);
    }
    assert_eq!(variables["sweep"], "tiny");
    assert_eq!(variables["curve"], "loss");
    let mut count = 0;
    for panel in dashboard["panels"].as_array().expect("a list") {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array();
        assert_eq!(targets.is_none_or(Vec::is_empty), panel["type"] == "row", "{title}");
        for target in targets.into_iter().flatten() {
            let rows = rows(&bench, title, &filled(target["rawSql"].as_str().expect("a query"), &variables));
            if target["format"] == "time_series" {
                let times: Vec<f64> = rows.iter().map(|row| instant(&row["time"])).collect();
                assert!(times.is_sorted(), "{title}: time series have to be sorted: {times:?}");
                let has_value = |row: &serde_json::Map<String, Value>| {
                    row.iter().any(|(name, value)| name != "time" && name != "metric" && value.is_number())
                };
                assert!(rows.iter().any(has_value), "{title} has no value: {rows:?}");
            }
            // What overrides name by column is there, so that units are not lost with a renamed column.
            for rule in panel["fieldConfig"]["overrides"].as_array().expect("a list") {
                let column = rule["matcher"]["options"].as_str().expect("a name");
                let is_series = rows[0].contains_key("metric") && rows[0].contains_key("time");
                assert!(is_series || rows[0].contains_key(column), "{title} has no column {column}");
            }
            count += 1;
        }
    }
    assert!(count >= 15, "{count} queries were found");
    let grid = |panel: &Value| panel["gridPos"].as_object().expect("a place").clone();
    for panel in dashboard["panels"].as_array().expect("a list") {
        let place = grid(panel);
        let end = place["x"].as_i64().expect("a number") + place["w"].as_i64().expect("a number");
        assert!(end <= 24, "{}", panel["title"]);
    }
}
