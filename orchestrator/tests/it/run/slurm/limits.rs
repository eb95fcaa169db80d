//! Limits on jobs in the queue, on clusters that have some.

use std::fs;

use super::{SlurmBench, wait_until};
use crate::harness::transcript;

#[test]
fn a_submit_limit_is_waited_out_with_smaller_arrays() {
    // Slurm takes an array as a whole or not at all: one of four would never be accepted.
    let Some(slurm) = SlurmBench::told("worker_time: 0s, jobs: 8", &[("SLURM_CLUSTER_MAX_SUBMIT", "3")]) else {
        return;
    };
    let output = slurm.launch("delay@20").wait();
    let said = transcript(&output);
    assert!(output.status.success(), "{said}\n{}", slurm.story());
    assert!(said.contains("AssocMaxSubmitJobLimit"), "{said}");
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());

    // A limit on what one job may ask for never passes.
    slurm
        .cluster
        .slurm("sacctmgr", &["--immediate", "modify", "qos", "normal", "set", "Flags=DenyOnLimit", "MaxWall=5"]);
    slurm.bench.change_spec(&[("data_size: 500", "data_size: 500, seed: 1"), ("jobs: 8", "jobs: 8, time: 1h")]);
    let known =
        || slurm.cluster.slurm("scontrol", &["show", "assoc_mgr", "flags=qos"]).contains("MaxWallPJ=5").then_some(());
    wait_until(known).expect("the controller hears of it");
    let output = slurm.launch("").wait();
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(3), "{said}\n{}", slurm.story());
    assert!(said.contains("QOSMaxWallDurationPerJobLimit"), "{said}");
}

#[test]
fn a_queue_that_is_full_is_waited_out() {
    let told = [("SLURM_CLUSTER_MAX_JOBS", "6"), ("SLURM_CLUSTER_MIN_JOB_AGE", "2")];
    let Some(slurm) = SlurmBench::told("worker_time: 0s, jobs: 8", &told) else { return };
    // Somebody else's three.
    let held = ["--parsable", "--hold", "--array=0-2", "--output=/dev/null", "--wrap", "true"];
    let others = slurm.cluster.slurm("sbatch", &held);
    let launch = slurm.launch("");
    let refused = || {
        let log = fs::read_to_string(slurm.cluster.path().join("log/slurmctld")).unwrap_or_default();
        log.contains("MaxJobCount limit from slurm.conf reached").then_some(())
    };
    wait_until(refused).unwrap_or_else(|| panic!("there is room\n{}", slurm.story()));
    slurm.cluster.slurm("scancel", &[&others]);
    slurm.finish(launch);
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
}

#[test]
fn a_launch_that_detaches_leaves_with_what_there_was_room_for() {
    let told = [("SLURM_CLUSTER_MAX_SUBMIT", "3")];
    let Some(slurm) = SlurmBench::told("worker_time: 0s, jobs: 8, options: [--hold]", &told) else { return };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    let states = "SELECT concat_ws(' ', count(*), state, reason) FROM attempt GROUP BY state, reason ORDER BY 1";
    let left = ["1 stopped withdrawn before it started", "3 launched"];
    assert_eq!(slurm.bench.ask(states), left, "{}", slurm.story());
    slurm.cluster.release(&slurm.cluster.queue("PENDING"));
    slurm.bench.change_spec(&[(", options: [--hold]", "")]);
    slurm.finish(slurm.launch(""));
}
