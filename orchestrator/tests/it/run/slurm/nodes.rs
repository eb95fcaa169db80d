//! Nodes that fail, what is said of them, and what arrays leave behind, on a real cluster.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::SlurmBench;
use crate::harness::transcript;

/// Where jobs ran, by state.
const PLACES: &str = "SELECT concat_ws(' ', node, state, count(*)) FROM attempt GROUP BY node, state ORDER BY 1";

#[test]
fn a_node_that_breaks_its_jobs_is_avoided_by_them_and_then_by_all() {
    let options = "worker_time: 0s, setup: ['[ $SLURMD_NODENAME != node1 ] || export SYNTHETIC_FAULT=crash_always@3']";
    let Some(slurm) = SlurmBench::new(options) else { return };
    slurm.finish(slurm.launch(""));
    let broken = "SELECT concat_ws(' ', count(*) >= 2, bool_and(state = 'failed')) FROM attempt WHERE node = 'node1'";
    assert_eq!(slurm.bench.ask(broken), ["t t"], "{:?}\n{}", slurm.bench.ask(PLACES), slurm.story());
    let twice =
        "SELECT job_key FROM attempt JOIN job USING (job_id) WHERE node = 'node1' GROUP BY 1 HAVING count(*) > 1";
    assert_eq!(slurm.bench.ask(twice), [""; 0], "no job has gone back\n{}", slurm.story());
    // New jobs know from the beginning.
    slurm.bench.change_spec(&[("data_size: 500", "data_size: 600"), ("name: tiny", "name: more")]);
    let output = slurm.launch("").wait();
    let said = transcript(&output);
    assert!(output.status.success() && said.contains("two attempts have failed on node1"), "{said}\n{}", slurm.story());
    slurm.bench.assert_each_done_once();
    let again = "SELECT a.node FROM attempt a JOIN sweep_job USING (job_id) JOIN sweep USING (sweep_id)
                 WHERE name = 'more' AND (node = 'node1' OR node IS NULL)";
    assert_eq!(slurm.bench.ask(again), [""; 0], "{:?}\n{}", slurm.bench.ask(PLACES), slurm.story());
}

#[test]
fn the_only_node_is_used_whatever_has_failed_there() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--nodelist=node1]") else { return };
    slurm.finish(slurm.launch("crash@3"));
    assert_eq!(slurm.bench.ask(PLACES), ["node1 failed 4", "node1 finished 4"], "{}", slurm.story());
}

#[test]
fn a_worker_without_a_database_says_where_it_is() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, ship: spool, options: [--nodelist=node2]") else { return };
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.bench.ask(PLACES), ["node2 finished 4"], "{}", slurm.story());
}

#[test]
fn status_has_slurms_words() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("delay@60");
    let held = slurm.wait_for_all_to_be_held();
    let status = |args: &[&str]| {
        let output = slurm.sweep(&[&["status", "tiny"], args].concat());
        assert!(output.status.success(), "{}", transcript(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = status(&[]);
    assert!(said.contains("Slurm job 1_0: PENDING, JobHeldUser"), "{said}");
    slurm.cluster.release(&held);
    slurm.wait_for_all_to_run();
    let said = status(&[]);
    let running = said.lines().filter(|line| line.contains(": RUNNING on node")).count();
    assert!(running > 0, "{said}");
    let body: serde_json::Value = serde_json::from_str(&status(&["--json"])).expect("JSON");
    let live = body["jobs"].as_array().expect("jobs").iter().find(|job| job["slurm_state"] == "RUNNING");
    let live = live.unwrap_or_else(|| panic!("none runs: {body}"));
    assert!(live["node"].as_str().is_some_and(|node| node.starts_with("node")), "{live}");
    assert!(live["handle"].as_str().is_some_and(|handle| handle.starts_with("1_")), "{live}");
    slurm.finish(launch);
}

#[test]
fn what_the_controller_has_forgotten_the_accounts_know() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    slurm.wait_for_all_to_be_held();
    let name = slurm.cluster.slurm("squeue", &["--noheader", "--format", "%j"]);
    let name = name.lines().next().expect("an array waits");
    // One is ours by id alone.
    let accounts =
        format!("1_0|{name}|CANCELLED by 1000|None assigned\n1_1|sweep-0123|FAILED|node1\n1_2|{name}|RUNNING|node1\n");
    fs::write(slurm.wrappers.join("accounts"), accounts).expect("the project can be written to");
    slurm.cluster.run(&["restart-controller", "--wipe"]);
    slurm.bench.wait_for("SELECT 'cancelled' FROM job WHERE state = 'cancelled'");
    slurm.bench.wait_for("SELECT 'again' FROM attempt WHERE state = 'launched' HAVING count(*) = 3");
    slurm.cluster.release(&slurm.cluster.queue("PENDING"));
    slurm.finish_with_one_cancelled(launch);
    let lost = "SELECT concat_ws(' ', lost_to, reason) FROM attempt WHERE state = 'lost' ORDER BY 1";
    let gone = "unknown the worker is gone and its heartbeat has stopped";
    assert_eq!(
        slurm.bench.ask(lost),
        ["cancelled Slurm job 1_0 ended as CANCELLED", gone, gone, gone],
        "{}",
        slurm.story()
    );
    let asked = fs::read_to_string(slurm.wrappers.join("looked-up")).expect("it was asked");
    assert_eq!(asked.lines().count(), 1, "all in one call: {asked}");
}

#[test]
fn folders_of_old_arrays_are_removed() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let arrays = slurm.bench.path().join(".sweep/slurm");
    let folders = || {
        let entries = fs::read_dir(&arrays).expect("it is there").map(|entry| entry.expect("it is readable").path());
        let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    let age = || {
        let before = SystemTime::now() - Duration::from_hours(8 * 24);
        for folder in folders() {
            File::open(folder).and_then(|folder| folder.set_modified(before)).expect("it is ours");
        }
    };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success(), "{}", transcript(&output));
    let first = folders();
    // Old, but its jobs wait still.
    age();
    let launch = slurm.launch("");
    slurm.cluster.release(&slurm.wait_for_all_to_be_held());
    slurm.finish(launch);
    assert_eq!(folders(), first);
    age();
    slurm.bench.change_spec(&[("data_size: 500", "data_size: 600"), (", options: [--hold]", "")]);
    let output = slurm.launch("").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    assert!(!folders().contains(&first[0]) && folders().len() == 1, "{first:?} {:?}", folders());
}
