//! What specs and sites ask of Slurm, as it reaches the runner.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::SlurmBench;
use crate::harness::{sweep, transcript};

/// Environment of an attempt's runner, as the prefix and the script left it.
fn seen(slurm: &SlurmBench) -> String {
    fs::read_to_string(slurm.bench.path().join("seen")).unwrap_or_default()
}

/// A runner that notes what it is given, and does what the synthetic one does.
fn noting_runner(slurm: &SlurmBench) {
    let synthetic = std::path::Path::new(env!("CARGO_BIN_EXE_sweep")).with_file_name("synthetic-runner");
    let place = slurm.bench.path().join("seen");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = describe ] || echo \"$1 MARK=$MARK NOTE=$NOTE BOTH=$BOTH SETUP=$SETUP PARTITION=$SLURM_JOB_PARTITION\" >>{}\nexec {} \"$@\"\n",
        place.display(),
        synthetic.display()
    );
    let path = slurm.bench.path().join("runner.sh");
    fs::write(&path, text).expect("the project can be written to");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("the file is ours");
    slurm.bench.change_spec(&[("runner: synthetic", "runner: ./runner.sh")]);
}

#[test]
fn environment_setup_and_container_reach_the_runner() {
    let options =
        "worker_time: 0s, environment: {NOTE: 'a b'}, setup: ['export SETUP=$NOTE'], container: [env, MARK=1]";
    let Some(slurm) = SlurmBench::new(options) else { return };
    noting_runner(&slurm);
    let output = slurm.launch("").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    let seen = seen(&slurm);
    assert_eq!(seen.lines().count(), 4, "{seen}");
    for line in seen.lines() {
        assert!(line.ends_with("MARK=1 NOTE=a b BOTH= SETUP=a b PARTITION=low"), "{line}");
    }
}

#[test]
fn a_site_says_what_the_spec_leaves_out() {
    let Some(slurm) = SlurmBench::new("environment: {BOTH: spec}, worker_time: 0s") else { return };
    noting_runner(&slurm);
    let sites = slurm.bench.path().join("sites.yaml");
    fs::write(&sites, "here: {partition: high, setup: [export SETUP=site], environment: {BOTH: site, NOTE: site}}\n")
        .expect("the project can be written to");
    let mut launch = sweep(slurm.bench.path(), &["launch", "sweep.yaml", "--site", "here"]);
    let output = launch.env("SLURM_CONF", slurm.cluster.conf()).env("SWEEP_SITES", &sites).output().expect("it runs");
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    let seen = seen(&slurm);
    for line in seen.lines() {
        assert!(line.ends_with("MARK= NOTE=site BOTH=spec SETUP=site PARTITION=high"), "{line}");
    }
}

#[test]
fn the_next_sweep_asks_for_the_time_that_the_last_one_measured() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, jobs: 8") else { return };
    let script = |sweep_of: &str| {
        let output = slurm.sweep(&["launch", "sweep.yaml", "--dry-run"]);
        assert!(output.status.success(), "{sweep_of}: {}", transcript(&output));
        fs::read_to_string(slurm.bench.path().join(".sweep/slurm/dry-run/script.sh")).expect("a script")
    };
    assert!(script("first").contains("\n#SBATCH --time=60\n"), "nothing was measured: an hour");
    slurm.finish(slurm.launch(""));
    // As of a runner that computes on the CPU, at 6.4 samples a second: 400 s for the longest job.
    slurm.bench.ask("UPDATE attempt SET device = 'cpu', train_secs = samples_seen / 6.4 RETURNING token");
    slurm.bench.change_spec(&[("data_size: 500", "data_size: 500, seed: 1")]);
    // 400 s x 1.5 and 120 s for the start, in steps of five minutes.
    let next = script("next");
    assert!(next.contains("\n#SBATCH --time=15\n"), "{next}");
    let said = transcript(&slurm.sweep(&["plan", "sweep.yaml"]));
    assert!(said.contains("the longest job takes 400 s as measured"), "{said}");
}
