//! Rules of the recipe in `sweep plan`, as people see them.

use std::fs;

use super::cli_plan::{project, shown};
use super::harness::sweep;

const SPEC: &str = "\
name: ruled
runner: ./own
data: {pool: data/train}
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: 2k}
recipe:
  global_batch: {rule: 'samples_seen^0.5', round: 32}
  lr: {rule: '1e-3 * (width/64)^-0.5'}
  warmup: {rule: '4 * global_batch'}
overrides:
  - where: {model: cpu-w64-l3}
    set: {weight_decay: {rule: '0.1 * layers / 3'}}
";

#[test]
fn what_rules_come_to() {
    let dir = project();
    fs::write(dir.path().join("x.yaml"), SPEC).expect("a spec");
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @r#"
    exit: 0
    ----- stdout -----
    ruled
    runner own 1 ([DIR]/own)
    pool   train (4,000 pairs, data/train, digest 37c26e0cac2f)
    rule   global_batch = samples_seen^0.5
    rule   lr = 1e-3 * (width/64)^-0.5
    rule   warmup = 4 * global_batch
    rule   weight_decay = 0.1 * layers / 3

     job       model            N    seen   data  unique  epochs  batch          lr  warmup  decay  steps  GMACs x seen  train FLOPs   memory
     92e4fe96  cpu-w32-l2  191.9k   8,064  2,000   2,000     4.0     96  1.41421e-3     384    0.2     84       1.221e1     7.125e10  188.9MB
     7f8cb5c9  cpu-w32-l2  191.9k  32,064  2,000   2,000    16.0    192  1.41421e-3     768    0.2    167       4.856e1     2.833e11  202.1MB
     da2284c5  cpu-w64-l3  586.1k   8,064  2,000   2,000     4.0     96        1e-3     384    0.1     84       6.491e1     3.839e11  217.3MB
     dfb6aedb  cpu-w64-l3  586.1k  32,064  2,000   2,000    16.0    192        1e-3     768    0.1    167       2.581e2     1.526e12  252.6MB

    4 jobs, 80,256 samples seen; C = 3.838e2 GMACs x samples, 2.265e12 training FLOPs, 1.873e11 as 6ND
    time: not known before a first run on this machine has been measured
    ----- stderr -----

    next: `sweep launch x.yaml`
    "#);
    let planned = sweep(dir.path(), &["plan", "x.yaml", "--json"]).output().expect("sweep runs");
    let json: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    assert_eq!(json["rules"]["lr"][0], "1e-3 * (width/64)^-0.5");
    let lr = |job: usize| json["jobs"][job]["recipe"]["lr"].as_f64();
    assert_eq!((lr(0), lr(3)), (Some(1.41421e-3), Some(1e-3)));
    assert_eq!(json["jobs"][0]["recipe"]["global_batch"], 96);
}

#[test]
fn what_rules_may_not_say_has_a_line_and_a_column() {
    let dir = project();
    let mistakes = |old: &str, new: &str| {
        assert!(SPEC.contains(old), "{old}");
        fs::write(dir.path().join("x.yaml"), SPEC.replacen(old, new, 1)).expect("a spec");
        shown(dir.path(), &["plan", "x.yaml"])
    };
    insta::assert_snapshot!(mistakes("(width/64)", "(widht/64)"), @r#"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `recipe.lr.rule` names `widht`
       ╭─[x.yaml:7:14]
     6 │   global_batch: {rule: 'samples_seen^0.5', round: 32}
     7 │   lr: {rule: '1e-3 * (widht/64)^-0.5'}
       ·              ────────────┬───────────
       ·                          ╰── did you mean `width`?
     8 │   warmup: {rule: '4 * global_batch'}
       ╰────
      help: names here: `width`, `layers`, `text_width`, `text_layers`, `embed_dim`, `parameters`,
            `data_size`, `unique_samples`, `samples_seen`, `global_batch`, `steps`

    error: x.yaml: 1 mistake
    "#);
    let said = |old: &str, new: &str, words: [&str; 2]| {
        let text = mistakes(old, new).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.iter().all(|words| text.contains(words)), "{text}");
    };
    let given =
        "`overrides[0].set.weight_decay.rule` gives -1 for `cpu-w64-l3` with 8,000 samples seen of 2,000 unique";
    said("0.1 * layers / 3", "2 - layers", [given, "[x.yaml:11:32]"]);
    said("samples_seen^0.5", "2 * steps", ["`recipe.global_batch.rule` names `steps`", "[x.yaml:6:24]"]);
}
