//! `--solver` and `--time-limit` by the binary: the solvers side by side, what is stored, what a limit cuts short.

use std::fmt::Write as _;

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{Project, transcript};

/// Chinchilla's law, 1 % off to both sides in turn.
fn table() -> String {
    let mut text = "size,tokens,loss\n".to_owned();
    for (i, n) in [1e6, 4e6, 1.6e7, 6.4e7].into_iter().enumerate() {
        for (j, d) in [1e7, 4e7, 1.6e8, 6.4e8].into_iter().enumerate() {
            let off = 1.0 + 0.01 * ((7 * i + 5 * j) % 4) as f64 - 0.015;
            let loss = off * (1.69 + 406.4 / f64::powf(n, 0.34) + 410.7 / f64::powf(d, 0.28));
            let _ = writeln!(text, "{n},{d},{loss}");
        }
    }
    text
}

async fn imported(text: &str, loss: &str) -> Project {
    let project = Project::new();
    project.store().await;
    std::fs::write(project.path().join("table.csv"), text).unwrap();
    let map = ["--map", "n=size", "--map", "d=tokens", "--map", "c=6*n*d", "--map", loss, "--compute", "six_nd"];
    project.ok(&[&["import", "csv", "table.csv", "--name", "table"][..], &map].concat());
    project
}

fn json(project: &Project, args: &[&str]) -> (Value, Option<i32>) {
    let output = project.output(args);
    let value = serde_json::from_slice(&output.stdout);
    (value.unwrap_or_else(|error| panic!("{args:?}: {error}: {}", transcript(&output))), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn solvers_are_compared_chosen_and_stored() {
    let project = imported(&table(), "loss=loss").await;
    let fit = ["fit", "table", "--metric", "table/loss", "--law", "chinchilla"];
    let with = |more: &[&'static str]| [&fit[..], more].concat();

    let output = project.output(&with(&["--solver", "all"]));
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    // The times differ from run to run.
    let shown: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let solver = ["newton ", "lbfgs ", "trust-region "].iter().any(|solver| line.starts_with(solver));
            if solver { format!("{}{:>10}{}", &line[..58], "T", &line[68..]) } else { line.to_owned() }
        })
        .collect();
    assert_snapshot!(shown.join("\n"), @r"
    metric      table/loss
    law         L = E + A/N^alpha + B/D^beta   (chinchilla, by ls-log)
    points      16 of 16 rows

    solver             objective above least parameter    hits        ms  status                 A           B           E       alpha        beta
    newton          0.0019631032      < 1e-9    < 1e-9   100 %         T  converged        442.639     374.293     1.64032    0.346428    0.273176
    lbfgs           0.0019631032      < 1e-9    < 1e-9   100 %         T  converged        442.639     374.293     1.64032    0.346428    0.273176
    trust-region    0.0019631032      < 1e-9    < 1e-9   100 %         T  converged        442.639     374.293     1.64032    0.346428    0.273176

    minima      0.00196310: newton 32, lbfgs 32, trust-region 32
    verdict     the solvers agree (objectives within 1e-6 of the least, parameters within 0.001)
    stored      nothing: fit with one of them for intervals and a row
    ");

    let (found, code) = json(&project, &with(&["--solver", "all", "--json"]));
    assert_eq!(
        (found["schema"].as_str(), found["agree"].as_bool(), code),
        (Some("sweep.solvers/1"), Some(true), Some(0))
    );
    assert!(found["solvers"].as_array().unwrap().iter().all(|one| one["seconds"].as_f64().unwrap() > 0.0));

    // Where L-BFGS can't end: the others are right, and it is named.
    let output = project.output(&with(&["--solver", "all", "--objective", "lad"]));
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the solvers disagree: "), "{}", transcript(&output));

    // Each is a row of its own.
    for solver in ["newton", "lbfgs", "trust-region"] {
        let args = [&fit[..], &["--resamples", "20", "--solver", solver, "--json"]].concat();
        let (fitted, _) = json(&project, &args);
        assert_eq!((&fitted["solver"], &fitted["options"]["solver"]), (&solver.into(), &solver.into()));
        assert_eq!(fitted["stored"]["is_new"], true);
    }
    let rows = project.ok(&["sql", "--format", "csv", "SELECT solver, options->>'solver' FROM fit ORDER BY fit_id"]);
    assert!(rows.ends_with("newton,newton\nlbfgs,lbfgs\ntrust-region,trust-region\n"), "{rows}");
    let output = project.output(&with(&["--solver", "adam"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(transcript(&output).contains("allowed are newton, lbfgs, trust-region and all"), "{}", transcript(&output));

    // Every command that fits takes one.
    let place = ["--parameters", "2.56e8", "--samples", "1e10"];
    for (command, more) in [
        ("forecast", &place[..]),
        ("frontier", &["--budget", "1e18"]),
        ("influence", &[]),
        ("isoflop", &["--tolerance", "0.5"]),
        ("backtest", &["--only", "--hold-out", "rolling:C"]),
    ] {
        let args =
            ["table", "--metric", "table/loss", "--law", "chinchilla", "--resamples", "20", "--solver", "trust-region"];
        let output = project.output(&[&[command][..], &args, more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_is_said_and_stands_in_nobodys_way() {
    let project = imported(&table(), "loss=loss").await;
    let fit = ["fit", "table", "--metric", "table/loss", "--law", "chinchilla", "--resamples", "20", "--json"];
    let (cut, code) = json(&project, &[&fit[..], &["--time-limit", "1e-9"]].concat());
    assert_eq!((cut["verdict"].as_str(), code), (Some("time_limit"), Some(1)), "{cut}");
    assert_eq!(cut["solution"]["status"], "time_limit");
    let (whole, code) = json(&project, &[&fit[..], &["--time-limit", "3600"]].concat());
    assert_eq!((whole["solution"]["status"].as_str(), code), (Some("converged"), Some(0)), "{whole}");
    assert_eq!(whole["stored"]["is_new"], true);
    // The limit changes nothing that is asked for.
    assert_eq!(json(&project, &fit).0["stored"]["fit_id"], whole["stored"]["fit_id"]);
    let output = project.output(&[&["backtest"], &fit[1..6], &["--only", "--time-limit", "1e-9"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(transcript(&output).contains("out of time: what is given here was cut short"), "{}", transcript(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constant_error_is_no_scaling() {
    let rows = (0..8).map(|at| format!("{},{},0.3\n", 1e6 * f64::from(1 << at), 2e7 * f64::from(1 << at)));
    let project = imported(&format!("size,tokens,acc\n{}", rows.collect::<String>()), "accuracy=acc").await;
    let (fitted, code) = json(&project, &["fit", "table", "--metric", "table/accuracy", "--json"]);
    assert_eq!((fitted["verdict"].as_str(), code), (Some("no_scaling"), Some(0)), "{fitted}");
}
