//! `sweep-pool` as a command: words, exit codes, JSON.

use std::process::{Command, Output};

use crate::support::{fixture, inspect, small_pool};

fn sweep_pool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sweep-pool")).args(arguments).output().unwrap()
}

#[test]
fn inspect_tells_counts_and_digest_as_json() {
    let cache = tempfile::tempdir().unwrap();
    let pool = fixture("fluent");
    let output =
        sweep_pool(&["inspect", pool.to_str().unwrap(), "--json", "--cache-dir", cache.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["samples"], &report["classes"], &report["shards"]), (&100.into(), &101.into(), &1.into()));
    assert_eq!(report["digest"].as_str().map(str::len), Some(64));
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_missing_pool_is_bad_input_with_a_way_out() {
    let output = sweep_pool(&["inspect", "no/such/pool"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("error: there is no pool folder `no/such/pool`") && error.contains("hint: "), "{error}");
}

#[test]
fn index_writes_what_a_plan_elsewhere_believes() {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path(), 4);
    let output = sweep_pool(&["index", dir.path().to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["pairs"], &report["shards"]), (&4.into(), &1.into()));
    assert_eq!(report["digest"], inspect(dir.path()).unwrap().identity.digest.as_str());
    assert!(dir.path().join("sweep.index").is_file());
    let output = sweep_pool(&["index", dir.path().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 pairs in 1 shards, digest "), "{output:?}");
}
