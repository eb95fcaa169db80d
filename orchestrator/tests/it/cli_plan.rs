//! `sweep plan`, `init`, `schema` and `model` as people see them: no database, no libtorch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::harness::{shard, sweep, transcript};

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
pub(super) fn project() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (pool, samples) in [("train", 4_000), ("val", 600)] {
        let folder = dir.path().join("data").join(pool);
        fs::create_dir_all(&folder).expect("a folder");
        let bytes = shard(samples);
        fs::write(folder.join("00000.tar"), &bytes).expect("a shard");
        let length = bytes.len();
        let shard = format!(r#"{{"name": "00000.tar", "samples": {samples}, "bytes": {length}, "sha256": ""}}"#);
        let manifest = format!(
            r#"{{"schema": 1, "name": "{pool}", "samples": {samples}, "image_size": 32, "shards": [{shard}], "sources": [], "notes": []}}"#
        );
        fs::write(folder.join("manifest.json"), manifest).expect("a manifest");
    }
    runner(
        dir.path(),
        "own",
        r#"echo '{"name":"own","version":"1","protocol":1,"reads_data":true,"devices":["cpu"]}'"#,
    );
    fs::write(dir.path().join("x.yaml"), SPEC).expect("a spec");
    dir
}

fn runner(dir: &Path, name: &str, line: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// What `sweep args` shows in `dir`, with the folder's name taken out.
pub(super) fn shown(dir: &Path, args: &[&str]) -> String {
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
fn plan_help() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "-h"]), @r"
    exit: 0
    ----- stdout -----
    Show the jobs of a spec and what they cost; starts nothing

    Usage: sweep plan [OPTIONS] <SPEC>

    Arguments:
      <SPEC>  Spec to plan

    Options:
          --json               Print JSON, every job with every number
          --all                Show every job of a long plan
          --backend <BACKEND>  Where jobs would run, whatever the spec says [possible values: local,
                               slurm]
          --site <NAME>        Profile of the cluster, from `~/.config/sweep/sites.yaml`; implies
                               `--backend slurm`
          --without-runner     Don't ask the runner, which may not be built yet. What is done already is
                               then not told, since a job's key has the runner's version
      -h, --help               Print help (see more with '--help')
    ----- stderr -----
    ");
}

#[test]
fn plan_table() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "x.yaml"]), @r"
    exit: 0
    ----- stdout -----
    small: does it plan?
    runner own 1 ([DIR]/own)
    pool   train (4,000 pairs, data/train, digest 37c26e0cac2f)
    pool   val (600 pairs, data/val, digest e395598a394e)

     job       model            N    seen   data  unique  epochs  steps  GMACs x seen  train FLOPs   memory
     ebb74ffa  cpu-w32-l2  191.9k   8,064    500     500    16.1     63       1.221e1     7.125e10  188.2MB
     35eccb16  cpu-w32-l2  191.9k   8,064  4,000   4,000     2.0     63       1.221e1     7.125e10  200.0MB
     b0c98493  cpu-w32-l2  191.9k  32,000    500     500    64.0    250       4.847e1     2.827e11  188.2MB
     b6195f06  cpu-w32-l2  191.9k  32,000  4,000   4,000     8.0    250       4.847e1     2.827e11  200.0MB
     9ac6bce3  cpu-w64-l3  586.1k   8,064    500     500    16.1     63       6.491e1     3.839e11  224.0MB
     111d1053  cpu-w64-l3  586.1k   8,064  4,000   4,000     2.0     63       6.491e1     3.839e11  235.8MB
     2620de34  cpu-w64-l3  586.1k  32,000    500     500    64.0    250       2.576e2     1.523e12  224.0MB
     f5842db0  cpu-w64-l3  586.1k  32,000  4,000   4,000     8.0    250       2.576e2     1.523e12  235.8MB

    8 jobs, 160,256 samples seen; C = 7.664e2 GMACs x samples, 4.523e12 training FLOPs, 3.740e11 as 6ND
    time: not known before a first run on this machine has been measured
    budget: 0.5 % of 1.000e15 training FLOPs
    ----- stderr -----

    next: `sweep launch x.yaml`
    ");
}

#[test]
fn model_table() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B-32", "ViT-g-14", "cpu-w64-l3"]), @r"
    exit: 0
    ----- stdout -----
     model       parameters     image     text    GMACs    image     text  GFLOPs
     ViT-B-32       151.28M    87.85M   63.43M     7.40     4.41     2.98   14.78
     ViT-g-14      1366.68M  1012.65M  354.03M   290.74   267.18    23.57  581.15
     cpu-w64-l3       0.59M     0.17M    0.42M  0.00805  0.00286  0.00519  0.0159

    GMACs: forward, one image-text pair, LayerNorm counted (Cherti et al. 2022). GFLOPs: 2 x MACs without LayerNorm (OpenCLIP).
    ----- stderr -----
    ");
}

#[test]
fn model_json() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B-32", "--json"]), @r#"
    exit: 0
    ----- stdout -----
    {
      "schema": "sweep.model/1",
      "name": "ViT-B-32",
      "parameters": 151277313,
      "image_parameters": 87849216,
      "text_parameters": 63428096,
      "gmacs": 7.398501888,
      "image_gmacs": 4.41380352,
      "text_gmacs": 2.984698368,
      "gflops": 14.777163776,
      "not_trained": []
    }
    ----- stderr -----
    "#);
}

#[test]
fn model_unknown() {
    insta::assert_snapshot!(shown(project().path(), &["model", "ViT-B32"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: no model is called `ViT-B32`

    hint: did you mean `ViT-B-32`? `sweep model` lists all; a file is named by its path, `./ViT-B32.json`
    ");
}

#[test]
fn misspelt_model() {
    insta::assert_snapshot!(changed("cpu-w64-l3", "cpu-w64-13"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `grid.model[1]` can't be `cpu-w64-13`
       ╭─[x.yaml:5:28]
     4 │ data: {pool: data/train}
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-13], samples_seen: [8k, 32k], data_size: [500, all]}
       ·                            ─────┬────
       ·                                 ╰── allowed: a name that `sweep model` lists, or the path of a JSON file
     6 │ recipe: {global_batch: 128, lr: 1e-3}
       ╰────
      help: did you mean `cpu-w64-l3`?

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn misspelt_key() {
    insta::assert_snapshot!(changed("lr:", "learning_rate: 1e-3, warmupp:"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `recipe.learning_rate` is no key of this section
       ╭─[x.yaml:6:29]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {global_batch: 128, learning_rate: 1e-3, warmupp: 1e-3}
       ·                             ──────┬──────
       ·                                   ╰── unknown
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────
      help: keys here: `global_batch`, `lr`, `betas`, `eps`, `weight_decay`, `warmup`, `schedule`,
            `cooldown`, `precision`, `loss`, `accum_freq`, `grad_checkpointing`, `augmentation`,
            `alpha`, `image_mean`, `image_std`, `interpolation`, `resize_mode`, `image_size`,
            `context_length`, `grad_clip_norm`, `on_spike`, `checkpoint_every`, `keep_checkpoints`,
            `init`, `extra`

      × `recipe.warmupp` is no key of this section
       ╭─[x.yaml:6:50]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {global_batch: 128, learning_rate: 1e-3, warmupp: 1e-3}
       ·                                                  ───┬───
       ·                                                     ╰── did you mean `warmup`?
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────
      help: keys here: `global_batch`, `lr`, `betas`, `eps`, `weight_decay`, `warmup`, `schedule`,
            `cooldown`, `precision`, `loss`, `accum_freq`, `grad_checkpointing`, `augmentation`,
            `alpha`, `image_mean`, `image_std`, `interpolation`, `resize_mode`, `image_size`,
            `context_length`, `grad_clip_norm`, `on_spike`, `checkpoint_every`, `keep_checkpoints`,
            `init`, `extra`

    error: x.yaml: 2 mistakes
    ");
}

#[test]
fn wrong_quantity() {
    insta::assert_snapshot!(changed("32k]", "12kk, 2.5]"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `grid.samples_seen[1]` can't be `12kk`
       ╭─[x.yaml:5:60]
     4 │ data: {pool: data/train}
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 12kk, 2.5], data_size: [500, all]}
       ·                                                            ──┬─
       ·                                                              ╰── allowed: a whole number from 0 to 1e15, such as `500`, `128k`, `3e6` or `2B`
     6 │ recipe: {global_batch: 128, lr: 1e-3}
       ╰────
      help: not a number

      × `grid.samples_seen[2]` can't be `2.5`
       ╭─[x.yaml:5:66]
     4 │ data: {pool: data/train}
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 12kk, 2.5], data_size: [500, all]}
       ·                                                                  ─┬─
       ·                                                                   ╰── allowed: a whole number from 0 to 1e15, such as `500`, `128k`, `3e6` or `2B`
     6 │ recipe: {global_batch: 128, lr: 1e-3}
       ╰────
      help: not whole

    error: x.yaml: 2 mistakes
    ");
}

#[test]
fn wrong_word() {
    insta::assert_snapshot!(changed("lr: 1e-3", "schedule: cosin"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `recipe.schedule` can't be `cosin`
       ╭─[x.yaml:6:39]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {global_batch: 128, schedule: cosin}
       ·                                       ──┬──
       ·                                         ╰── allowed: `cosine`, `constant` or `constant-cooldown`
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────
      help: did you mean `cosine`?

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn missing_key() {
    insta::assert_snapshot!(changed("global_batch: 128, ", ""), @r#"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `recipe.global_batch` is missing: samples a step, over all devices; also the number of
      │ contrasts
       ╭─[x.yaml:6:1]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {lr: 1e-3}
       · ───┬──
       ·    ╰── add `global_batch:` here
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────
      help: allowed: a whole number from 1 to 1e15, such as `500`, `128k`, `3e6` or `2B`; or `{rule:
            "..."}` with an expression

    error: x.yaml: 1 mistake
    "#);
}

#[test]
fn what_slurm_is_asked_for() {
    let of = |options: &str| {
        let said = changed("limits:", &format!("backend: {options}\nlimits:"));
        said.lines().find(|line| line.starts_with("slurm:")).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    insta::assert_snapshot!(of("slurm"), @"slurm: at most 8 Slurm jobs at one time, each 1 CPU, 832M, 1 h 0 min");
    insta::assert_snapshot!(of("{slurm: {partition: gpu, gpus: 1, cpus: 8, memory: 16G, time: 90m}}"), @"slurm: at most 8 Slurm jobs at one time, each 8 CPUs, 1 GPU, 16G, 1 h 30 min, partition gpu");
}

#[test]
fn what_slurm_is_not_to_be_asked_for() {
    let of = |options: &str| changed("limits:", &format!("backend: {{slurm: {options}}}\nlimits:"));
    insta::assert_snapshot!(of("{time: 5s}"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `backend.slurm.time` can't be `5s`
       ╭─[x.yaml:8:25]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {time: 5s}}
       ·                         ─┬
       ·                          ╰── allowed: a time with its unit, such as `90s`, `30m`, `2h` or `1d`, at least 60s
     9 │ limits: {compute: 1e15}
       ╰────

    error: x.yaml: 1 mistake
    ");
    insta::assert_snapshot!(of("{partition: a b, memory: 16 GB, options: [--array=1-3, exclusive]}"), @r#"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `backend.slurm.partition` is `"a b"`
       ╭─[x.yaml:8:30]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {partition: a b, memory: 16 GB, options: [--array=1-3, exclusive]}}
       ·                              ─┬─
       ·                               ╰── one word, as `sbatch` takes it
     9 │ limits: {compute: 1e15}
       ╰────

      × `backend.slurm.memory` is `16 GB`, which is no amount of memory
       ╭─[x.yaml:8:43]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {partition: a b, memory: 16 GB, options: [--array=1-3, exclusive]}}
       ·                                           ──┬──
       ·                                             ╰── a whole number and `K`, `M`, `G` or `T`, such as `16G`
     9 │ limits: {compute: 1e15}
       ╰────

      × `backend.slurm.options[0]` is `--array`, which is set for every worker
       ╭─[x.yaml:8:60]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {partition: a b, memory: 16 GB, options: [--array=1-3, exclusive]}}
       ·                                                            ─────┬─────
       ·                                                                 ╰── leave it out; `time` and `nodes` have keys of their own, and a node has one task
     9 │ limits: {compute: 1e15}
       ╰────

      × `backend.slurm.options[1]` is `"exclusive"`
       ╭─[x.yaml:8:73]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {partition: a b, memory: 16 GB, options: [--array=1-3, exclusive]}}
       ·                                                                         ────┬────
       ·                                                                             ╰── one option, such as `--exclusive`
     9 │ limits: {compute: 1e15}
       ╰────

    error: x.yaml: 4 mistakes
    "#);
}

#[test]
fn twice() {
    insta::assert_snapshot!(changed("limits:", "name: again\nlimits:"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `name` is there twice
       ╭─[x.yaml:8:1]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ name: again
       · ──┬─
       ·   ╰── remove one of the two
     9 │ limits: {compute: 1e15}
       ╰────

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn tab() {
    insta::assert_snapshot!(changed("grid: {", "grid:\n\tmodel: {"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × this can't be read as YAML: found character that cannot start any token, while scanning for
      │ the next token
       ╭─[x.yaml:6:1]
     5 │ grid:
     6 │     model: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
       · ────┬────
       ·     ╰── here
     7 │ recipe: {global_batch: 128, lr: 1e-3}
       ╰────
      help: there is a tab in this line: indent with spaces, YAML allows no tabs

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn several_contradictions() {
    insta::assert_snapshot!(changed("lr: 1e-3", "warmup: 10k, image_size: 30"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × a warm-up of 10,000 samples is longer than the 8,064 samples that `cpu-w32-l2` sees
       ╭─[x.yaml:6:37]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {global_batch: 128, warmup: 10k, image_size: 30}
       ·                                     ─┬─
       ·                                      ╰── at most the samples seen, or a share of them such as `10%`
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────

      × `cpu-w32-l2` can't be built: `vision_cfg.image_size` is 30, which patches of 8 x 8 pixels do
      │ not tile
       ╭─[x.yaml:6:54]
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
     6 │ recipe: {global_batch: 128, warmup: 10k, image_size: 30}
       ·                                                      ─┬
       ·                                                       ╰── change this
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
       ╰────

    error: x.yaml: 2 mistakes
    ");
}

#[test]
fn pool_too_small() {
    insta::assert_snapshot!(changed("500, all", "500, 5k"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `grid.data_size[1]` is 5,000, but pool `train` holds 4,000 pairs
       ╭─[x.yaml:5:83]
     4 │ data: {pool: data/train}
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, 5k]}
       ·                                                                                   ─┬
       ·                                                                                    ╰── at most the pool's size, or `all`
     6 │ recipe: {global_batch: 128, lr: 1e-3}
       ╰────

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn no_pool() {
    insta::assert_snapshot!(changed("data/train", "data/trian"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `data.pool` is no pool: there is no folder `[DIR]/data/trian`
       ╭─[x.yaml:4:14]
     3 │ runner: ./own
     4 │ data: {pool: data/trian}
       ·              ─────┬────
       ·                   ╰── allowed: a folder of shards
     5 │ grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, all]}
       ╰────
      help: relative paths start where `sweep` is called; for the demo's pools: `make data`

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn over_budget() {
    insta::assert_snapshot!(changed("1e15", "1e12"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × the sweep needs 4.523e12 training FLOPs, `limits.compute` allows 1.000e12
       ╭─[x.yaml:8:19]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ limits: {compute: 1e12}
       ·                   ──┬─
       ·                     ╰── 4.5 times less than needed
       ╰────
      help: allow more, or drop cells: `exclude` leaves some out

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn no_runner() {
    insta::assert_snapshot!(changed("./own", "./none"), @r"
    exit: 3
    ----- stdout -----
    ----- stderr -----
    error: no runner `./none`: looked for `[DIR]/none`

    hint: `make build` builds clip-runner; a runner of your own is named by its path, with a `/` in it
    ");
}

#[test]
fn no_spec() {
    insta::assert_snapshot!(shown(project().path(), &["plan", "none.yaml"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: can't read spec none.yaml
      caused by: No such file or directory (os error 2)

    hint: `sweep init` writes a spec to start from
    ");
}

#[test]
fn empty_spec() {
    let dir = project();
    fs::write(dir.path().join("x.yaml"), "\n").expect("a spec");
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × the spec is empty
      help: `sweep init` writes a spec to start from

    error: x.yaml: 1 mistake
    ");
}

#[test]
fn runner_of_another_protocol() {
    let dir = project();
    runner(dir.path(), "own", r#"echo '{"name":"own","version":"1","protocol":99,"reads_data":true,"devices":[]}'"#);
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @r"
    exit: 3
    ----- stdout -----
    ----- stderr -----
    error: `[DIR]/own` speaks runner protocol 99, this `sweep` speaks 1

    hint: build `sweep` and the runner from the same version
    ");
}

#[test]
fn runner_that_fails() {
    let dir = project();
    runner(dir.path(), "own", "echo 'no libtorch here' >&2; exit 3");
    insta::assert_snapshot!(shown(dir.path(), &["plan", "x.yaml"]), @r"
    exit: 3
    ----- stdout -----
    ----- stderr -----
    error: `[DIR]/own describe` failed (exit status: 3): no libtorch here

    hint: a runner answers `RUNNER describe` with one JSON object: see runners/protocol/README.md
    ");
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
    let text = SPEC.replace("1e15", "1e17").replace("data_size:", &format!("seed: {seeds:?}, data_size:"));
    fs::write(dir.path().join("x.yaml"), text).expect("a spec");
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
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments").join(name)).expect("there");
        fs::write(dir.path().join(name), text.replace("runner: clip", "runner: ./own")).expect("a spec");
        let said = shown(dir.path(), &["plan", name]);
        assert!(said.contains("`data.pool` is no pool: there is no folder"), "{said}");
    }
}
