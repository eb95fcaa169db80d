//! `sweep plan`, `init`, `schema`, `model` and help as people see them: no database, no libtorch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::harness::{sweep, transcript};

const SPEC: &str = "\
name: small
question: does it plan?
runner: ./own
data: {pool: data/train}
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
recipe: {global_batch: 128, lr: 1e-3}
evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
limits: {compute: 1e15}
";

/// A folder with two pools and a runner that can only say who it is.
fn project() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (pool, samples) in [("train", 4_000), ("val", 600)] {
        let folder = dir.path().join("data").join(pool);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("00000.tar"), [0; 1024]).expect("a shard");
        fs::write(folder.join("sizes.json"), format!("{{\"00000.tar\": {samples}}}")).expect("sizes");
    }
    runner(dir.path(), "own", r#"echo '{"name":"own","version":"1","protocol":1,"reads_data":true,"devices":["cpu"]}'"#);
    fs::write(dir.path().join("x.yaml"), SPEC).expect("a spec");
    dir
}

fn runner(dir: &Path, name: &str, line: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// What `sweep args` shows in `dir`, with the folder's name taken out.
fn shown(dir: &Path, args: &[&str]) -> String {
    let output = sweep(dir, args).output().expect("sweep runs");
    let folder = dir.canonicalize().expect("a folder");
    transcript(&output).replace(&*folder.to_string_lossy(), "[DIR]").replace(&*dir.to_string_lossy(), "[DIR]")
}

/// What `sweep plan` says of [`SPEC`] with one change.
fn changed(old: &str, new: &str) -> String {
    let dir = project();
    assert!(SPEC.contains(old), "{old}");
    fs::write(dir.path().join("x.yaml"), SPEC.replacen(old, new, 1)).expect("a spec");
    shown(dir.path(), &["plan", "x.yaml"])
}

#[test]
fn help() {
    insta::assert_snapshot!(shown(project().path(), &["--help"]), @"@@help@@");
}

#[test]
fn plan_help() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "-h"]), @"@@plan_help@@");
}

#[test]
fn plan_table() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "x.yaml"]), @"@@plan_table@@");
}

#[test]
fn model_table() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B-32", "ViT-g-14", "cpu-w64-l3"]), @"@@model_table@@");
}

#[test]
fn model_json() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B-32", "--json"]), @"@@model_json@@");
}

#[test]
fn model_unknown() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B32"]), @"@@model_unknown@@");
}

#[test]
fn misspelt_model() {
    insta::assert_snapshot!(changed("cpu-w64-l3", "cpu-w64-13"), @"@@misspelt_model@@");
}

#[test]
fn misspelt_key() {
    insta::assert_snapshot!(changed("lr:", "learning_rate: 1e-3, warmupp:"), @"@@misspelt_key@@");
}

#[test]
fn wrong_quantity() {
    insta::assert_snapshot!(changed("32k]", "12kk, 2.5]"), @"@@wrong_quantity@@");
}

#[test]
fn wrong_word() {
    insta::assert_snapshot!(changed("lr: 1e-3", "schedule: cosin"), @"@@wrong_word@@");
}

#[test]
fn missing_key() {
    insta::assert_snapshot!(changed("global_batch: 128, ", ""), @"@@missing_key@@");
}

#[test]
fn slurm_comes_next() {
    insta::assert_snapshot!(changed("limits:", "backend: slurm\nlimits:"), @"@@slurm_comes_next@@");
}

#[test]
fn twice() {
    insta::assert_snapshot!(changed("limits:", "name: again\nlimits:"), @"@@twice@@");
}

#[test]
fn tab() {
    insta::assert_snapshot!(changed("grid: {", "grid:\n\tmodel: {"), @"@@tab@@");
}

#[test]
fn several_contradictions() {
    insta::assert_snapshot!(changed("lr: 1e-3", "warmup: 10k, image_size: 30"), @"@@several_contradictions@@");
}

#[test]
fn pool_too_small() {
    insta::assert_snapshot!(changed("500, all", "500, 5k"), @"@@pool_too_small@@");
}

#[test]
fn no_pool() {
    insta::assert_snapshot!(changed("data/train", "data/trian"), @"@@no_pool@@");
}

#[test]
fn over_budget() {
    insta::assert_snapshot!(changed("1e15", "1e12"), @"@@over_budget@@");
}

#[test]
fn no_runner() {
    insta::assert_snapshot!(changed("./own", "./none"), @"@@no_runner@@");
}

#[test]
fn no_spec() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "none.yaml"]), @"@@no_spec@@");
}

#[test]
fn empty_spec() {
    let dir = project();
    fs::write(dir.path().join("x.yaml"), "\n").expect("a spec");
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @"@@empty_spec@@");
}

#[test]
fn runner_of_another_protocol() {
    let dir = project();
    runner(dir.path(), "own", r#"echo '{"name":"own","version":"1","protocol":99,"reads_data":true,"devices":[]}'"#);
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @"@@runner_of_another_protocol@@");
}

#[test]
fn runner_that_fails() {
    let dir = project();
    runner(dir.path(), "own", "echo 'no libtorch here' >&2; exit 3");
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @"@@runner_that_fails@@");
}

#[test]
fn plan_json() {
    let dir = project();
    let output = sweep(dir.path(), &["plan", "x.yaml", "--json"]).output().expect("sweep runs");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["schema"], "sweep.plan/1");
    assert_eq!(plan["totals"]["jobs"], 8);
    let jobs = plan["jobs"].as_array().expect("a list");
    assert_eq!(jobs.len(), 8);
    for job in jobs {
        assert_eq!(job["job_key"].as_str().map(str::len), Some(64));
        assert_eq!(job["steps"].as_u64().map(|steps| steps * 128), job["samples_seen"].as_u64());
        for field in ["gmacs_samples", "train_flops", "six_nd", "memory_bytes", "epochs"] {
            assert!(job[field].as_f64().is_some_and(|value| value > 0.0), "{field}");
        }
    }
}

#[test]
fn long_plans_skip_the_middle() {
    let dir = project();
    let seeds: Vec<u32> = (0..1_250).collect();
    fs::write(dir.path().join("x.yaml"), SPEC.replace("data_size:", &format!("seed: {seeds:?}, data_size:")))
        .expect("a spec");
    let text = shown(dir.path(), &["plan", "x.yaml"]);
    assert!(text.contains(" ... 9,940 more; `--all` or `--json` shows every job\n"), "{text}");
    assert!(text.contains("10,000 jobs"), "{text}");
    assert!(shown(dir.path(), &["plan", "x.yaml", "--all"]).lines().count() > 10_000);
}

#[test]
fn init_writes_once_and_plans() {
    let dir = project();
    assert!(shown(dir.path(), &["init"]).contains("wrote sweep.yaml"));
    assert!(shown(dir.path(), &["init"]).contains("error: sweep.yaml is there already"));
    let written = fs::read_to_string(dir.path().join("sweep.yaml")).expect("written");
    let printed = sweep(dir.path(), &["init", "-"]).output().expect("sweep runs");
    assert_eq!(String::from_utf8_lossy(&printed.stdout), written);
    fs::create_dir(dir.path().join("data/emoji")).expect("a folder");
    for pool in ["train", "val"] {
        fs::rename(dir.path().join("data").join(pool), dir.path().join("data/emoji").join(pool)).expect("moved");
    }
    fs::write(dir.path().join("sweep.yaml"), written.replace("runner: clip", "runner: ./own")).expect("a spec");
    assert!(shown(dir.path(), &["plan", "sweep.yaml"]).contains("8 jobs"));
}

#[test]
fn schema_is_json() {
    let output = sweep(project().path(), &["schema"]).output().expect("sweep runs");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["grid"]["required"], serde_json::json!(["model", "samples_seen"]));
}

/// The experiments that come with the project, as far as they go without their data.
#[test]
fn experiments_are_specs() {
    let dir = project();
    for name in ["emoji.yaml", "icons.yaml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments").join(name)).expect("there");
        fs::write(dir.path().join(name), text.replace("runner: clip", "runner: ./own")).expect("a spec");
        let said = shown(dir.path(), &["plan", name]);
        assert!(said.contains("`data.pool` is no pool: there is no folder"), "{said}");
    }
}
