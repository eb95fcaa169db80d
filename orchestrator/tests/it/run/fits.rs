//! The laws that a spec names are fitted when the last result is there, by whoever finds it there.

use std::fs;

use super::bench::{Bench, SPEC, wait_until};
use crate::harness::transcript;

/// Eight jobs, two laws that can be fitted and two that can't.
fn bench() -> Bench {
    let spec = SPEC.replace("[1280, 2560]", "[1280, 2560, 5120, 10240]");
    let fits = "fits:
  - {metric: synthetic/acc1, resamples: 100}
  - {metric: synthetic/loss@1024, law: power-d, points: pareto, resamples: 100, where: \"model = 'cpu-w64-l3'\"}
  - {metric: synthetic/acc9}
  - {metric: synthetic/loss@1024, where: seed > 0}
";
    Bench::new(&format!("{spec}{fits}"))
}

const FITS: &str = "SELECT concat_ws(' ', dataset, metric, law_name, points, nullif(condition, ''),
                                      jsonb_array_length(observations -> 'rows')) FROM fit ORDER BY fit_id";

const STORED: [&str; 2] = ["synthetic acc1 power all 8", "synthetic loss@1024 power-d pareto model = 'cpu-w64-l3' 4"];

fn told(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("fit ")).collect()
}

#[test]
fn the_last_result_has_the_laws_fitted_once() {
    let bench = bench();
    let said = bench.finish();
    assert_eq!(bench.ask(FITS), STORED);
    let lines = told(&said);
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].starts_with("fit synthetic/acc1: E = ") && lines[0].contains(", alpha -0."), "{said}");
    assert!(lines[0].contains('[') && lines[0].ends_with("; fit 1"), "{said}");
    assert!(lines[1].contains("* D^-0.") && lines[1].ends_with("; fit 2"), "{said}");
    assert!(lines[2].starts_with("fit synthetic/acc9 (power): none: there is no metric"), "{said}");
    assert!(lines[3].contains("none: no row of `tiny`"), "{said}");

    let again = bench.finish();
    assert!(again.contains("nothing left to do"), "{again}");
    assert!(told(&again)[..2].iter().all(|line| line.ends_with(", as before")), "{again}");
    assert_eq!(bench.ask(FITS), STORED);

    // What went missing is all that the next launch adds.
    let output = bench.sweep(&["launch", "sweep.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let fits = json["fits"].as_array().expect("fits");
    assert_eq!(fits.len(), 4);
    assert_eq!((&fits[0]["is_new"], &fits[0]["fit_id"]), (&false.into(), &1.into()));
    let alpha = fits[0]["parameters"].as_array().expect("parameters");
    let alpha = &alpha.iter().find(|one| one["name"] == "alpha").expect("alpha")["interval"];
    assert!(alpha["low"].as_f64() <= alpha["value"].as_f64() && alpha["value"].as_f64() <= alpha["high"].as_f64());
    assert!(fits[2]["error"].as_str().is_some_and(|error| error.contains("there is no metric")), "{json}");
    assert!(fits[2].get("fit_id").is_none() && output.status.success(), "{}", transcript(&output));
}

#[test]
fn a_launcher_that_was_not_there_at_the_end_fits_when_it_comes_back() {
    let bench = bench();
    // All at once: workers take no further jobs of a launcher that has left.
    bench.change_spec(&[("slots: 2", "slots: 8")]);
    let output = bench.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success() && told(&transcript(&output)).is_empty(), "{}", transcript(&output));
    let left = "SELECT count(*)::text FROM job WHERE state <> 'done'";
    let ended = wait_until(|| (bench.try_ask(left)? == ["0"]).then_some(()));
    assert!(ended.is_some(), "{:?}", bench.ask(left));
    assert!(bench.ask(FITS).is_empty());
    let said = bench.finish();
    assert!(said.contains("nothing left to do: 8 jobs done"), "{said}");
    assert_eq!(bench.ask(FITS), STORED);
}

#[test]
fn laws_that_are_none_are_refused_where_they_stand() {
    let bench = bench();
    let changed = fs::read_to_string(bench.path().join("sweep.yaml")).expect("it is there");
    let changed = changed.replace("law: power-d", "law: powerful").replace("synthetic/acc9", "acc9");
    fs::write(bench.path().join("sweep.yaml"), changed.replace("points: pareto", "points: bins:none")).expect("ours");
    let said = transcript(&bench.sweep(&["launch", "sweep.yaml"]));
    for words in ["exit: 2", "`fits[1].law`", "powerful", "`fits[1].points`", "`fits[2].metric`", "the data set too"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
