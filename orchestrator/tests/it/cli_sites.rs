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
