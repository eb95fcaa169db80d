//! What `sweep plan` says of pools that change.

use std::fs;

use super::cli_plan::{project, shown};

#[test]
fn a_pool_that_was_changed_in_place_makes_new_jobs_and_is_named() {
    let dir = project();
    let before = shown(dir.path(), &["plan", "x.yaml"]);
    assert!(!before.contains("changed"), "{before}");
    let path = dir.path().join("data/train/00000.tar");
    let mut bytes = fs::read(&path).expect("the shard");
    // The caption of the first pair.
    bytes[1024 + 512] = b'9';
    fs::write(&path, bytes).expect("the shard");
    let after = shown(dir.path(), &["plan", "x.yaml"]);
    assert!(after.contains("changed since it was read before: 00000.tar; jobs on it are new jobs"), "{after}");
    let keys = |shown: &str| -> Vec<String> {
        let rows = shown.lines().filter(|line| line.contains("  cpu-w"));
        rows.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    assert!(keys(&before).len() == 8 && keys(&before).iter().all(|key| !keys(&after).contains(key)), "{after}");
}
