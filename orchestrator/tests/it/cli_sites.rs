//! Profiles of sites as `sweep plan --site` reads them.

use std::fs;

use super::cli_plan::{project, shown};
use super::harness::{sweep, transcript};

#[test]
fn profiles_of_sites() {
    let dir = project();
    let sites = dir.path().join("sites.yaml");
    let plan = |site: &str| {
        let mut command = sweep(dir.path(), &["plan", "x.yaml", "--site", site]);
        // Nothing of Slurm is to be found there.
        let output =
            command.env("SWEEP_SITES", &sites).env("PATH", dir.path().join("data")).output().expect("sweep runs");
        transcript(&output).replace(&*dir.path().to_string_lossy(), "[DIR]")
    };
    let absent = plan("home");
    assert!(absent.contains("there is no file [DIR]/sites.yaml") && absent.contains("partition: gpu"), "{absent}");

    fs::write(&sites, "home: {partition: long, cpus: 8, time: 2h, environment: {NCCL_DEBUG: INFO}}\n").expect("ours");
    let said = plan("home");
    let row = |key: &str| said.lines().find(|line| line.trim_start().starts_with(key)).unwrap_or_default().to_owned();
    assert!(row("partition ").contains("long") && row("partition ").contains("site home"), "{said}");
    assert!(row("time ").contains("2 h 0 min") && row("memory ").contains("estimate: "), "{said}");
    assert!(said.contains("not checked whether the cluster has as much: there is no Slurm here"), "{said}");
    // A job is the same wherever it runs.
    let jobs =
        |said: &str| said.lines().filter(|line| line.contains(" cpu-w")).map(|line| line[..9].to_owned()).collect();
    let (here, there): (Vec<String>, Vec<String>) = (jobs(&shown(dir.path(), &["plan", "x.yaml"])), jobs(&said));
    assert_eq!((here.len(), &here), (8, &there));

    let unknown = plan("hom");
    assert!(unknown.contains("there is no site `hom` in [DIR]/sites.yaml"), "{unknown}");
    assert!(unknown.contains("did you mean `home`? sites there: `home`"), "{unknown}");
    fs::write(&sites, "home:\n  partitio: long\n  environment: {PGPASSWORD: x, 1A: b}\n").expect("ours");
    let wrong = plan("home");
    assert!(wrong.contains("sites.yaml:2:3") && wrong.contains("did you mean `partition`?"), "{wrong}");
    fs::write(&sites, "home:\n  environment: {PGPASSWORD: x, 1A: b}\n").expect("ours");
    let wrong = plan("home");
    assert!(wrong.contains("sites.yaml:2:17") && wrong.contains("leads to the database"), "{wrong}");
    assert!(wrong.contains("`1A` is no name of a variable") && wrong.contains("2 mistakes"), "{wrong}");
}

#[test]
fn several_nodes_need_a_runner_that_shares_a_job() {
    let dir = project();
    let (spec, runner) = (dir.path().join("x.yaml"), dir.path().join("own"));
    let plain = fs::read_to_string(&spec).expect("a spec");
    let with = |options: &str| {
        let text = plain.replacen("limits:", &format!("backend: {{slurm: {{{options}}}}}\nlimits:"), 1);
        fs::write(&spec, text).expect("ours");
        shown(dir.path(), &["plan", "x.yaml"])
    };
    insta::assert_snapshot!(with("nodes: 3, cpus: 8"), @r#"
    exit: 2
    ----- stdout -----
    ----- stderr -----
      × `backend.slurm.nodes` is 3, but runner `own` trains a job in one process
       ╭─[x.yaml:8:26]
     7 │ evaluations: [{pool: data/val, tasks: [zeroshot_retrieval]}]
     8 │ backend: {slurm: {nodes: 3, cpus: 8}}
       ·                          ┬
       ·                          ╰── allowed with this runner: 1
     9 │ limits: {compute: 1e15}
       ╰────
      help: a runner that shares a job says `"ranks": true` in `describe`: runners/protocol

    error: x.yaml: 1 mistake
    "#);
    let local = plain.replacen("limits:", "backend: {local: {ranks: 2}}\nlimits:", 1);
    fs::write(&spec, local).expect("ours");
    let said = shown(dir.path(), &["plan", "x.yaml"]);
    assert!(said.contains("`backend.local.ranks` is 2, but runner `own` trains a job in one process"), "{said}");
    let sites = dir.path().join("sites.yaml");
    fs::write(&sites, "home: {nodes: 2}\n").expect("ours");
    fs::write(&spec, &plain).expect("ours");
    let mut command = sweep(dir.path(), &["plan", "x.yaml", "--site", "home"]);
    let said = transcript(&command.env("SWEEP_SITES", &sites).output().expect("sweep runs"));
    assert!(said.contains("`nodes` of site `home` is 2, but runner `own` trains a job in one process"), "{said}");

    let describe = fs::read_to_string(&runner).expect("a script").replace("[\"cpu\"]", "[\"cpu\"],\"ranks\":true");
    fs::write(&runner, describe).expect("ours");
    let said = with("nodes: 3, cpus: 8, memory: 2G");
    let row = |key: &str| said.lines().find(|line| line.trim_start().starts_with(key)).unwrap_or_default().to_owned();
    assert!(row("slurm:").ends_with("each 3 nodes of 8 CPUs, 2G, 1 h 0 min"), "{said}");
    assert!(row("nodes ").contains("3 ") && row("nodes ").ends_with("spec"), "{said}");
    let said = with("nodes: 3, container: [apptainer, exec, image.sif]");
    assert!(said.contains("x.yaml:8:26") && said.contains("`container` would hold the first of them alone"), "{said}");
    let said = with("side_by_side: 2, nodes: 3");
    assert!(said.contains("`backend.slurm.side_by_side` is 2, but each job is over 3 nodes"), "{said}");
    fs::write(&sites, "home: {nodes: 2, side_by_side: 4}\n").expect("ours");
    fs::write(&spec, &plain).expect("ours");
    let mut command = sweep(dir.path(), &["plan", "x.yaml", "--site", "home"]);
    let said = transcript(&command.env("SWEEP_SITES", &sites).output().expect("sweep runs"));
    assert!(said.contains("`side_by_side` of site `home` is 4, but each job is over 2 nodes"), "{said}");
}
