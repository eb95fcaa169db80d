//! Jobs over several nodes on a real cluster: a process of the runner a node.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{SLOW, SlurmBench, preempt, wait_until};
use crate::harness::transcript;
use crate::run::bench::{kill_worker, ranks_of, words_of_ranks};

const THREE_NODES: &str = "nodes: 3, worker_time: 0s";

#[test]
fn preempted_jobs_over_three_nodes_go_on_from_their_checkpoints() {
    preempt(THREE_NODES);
}

#[test]
fn a_job_over_three_nodes_gives_the_numbers_of_one_process() {
    let Some(slurm) = SlurmBench::new(THREE_NODES) else { return };
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
    for token in slurm.bench.ask("SELECT token FROM attempt JOIN job USING (job_id) WHERE job.samples_seen = 1280") {
        let words = words_of_ranks(&slurm.bench, &token);
        for line in
            ["rank 0 of 3 drew 6 losses", "[rank 1] rank 1 of 3 drew 7 losses", "[rank 2] rank 2 of 3 drew 7 losses"]
        {
            assert!(words.lines().any(|said| said == line), "{line}: {words}\n{}", slurm.story());
        }
    }
    let nodes = slurm.cluster.slurm("squeue", &["--states=all", "--array", "--noheader", "--format", "%N"]);
    assert_eq!(nodes, ["node[1-3]"; 4].join("\n"));
}

#[test]
fn ranks_need_no_database_on_any_node() {
    let Some(slurm) = SlurmBench::new("nodes: 3, worker_time: 0s, ship: spool") else { return };
    slurm.finish(slurm.launch(""));
    let ends = slurm.bench.ask("SELECT concat_ws(' ', count(*), ship, state) FROM attempt GROUP BY ship, state");
    assert_eq!(ends, ["4 spool finished"], "{}", slurm.story());
}

#[test]
fn a_worker_over_three_nodes_goes_on_to_further_jobs() {
    let Some(slurm) = SlurmBench::new("nodes: 3, worker_time: 5m, jobs: 1") else { return };
    slurm.finish(slurm.launch(""));
    let workers = slurm.bench.ask("SELECT DISTINCT coalesce(worker, token) FROM attempt");
    assert_eq!(workers.len(), 1, "{}", slurm.story());
}

#[test]
fn a_rank_that_is_killed_ends_its_attempt_and_the_job_goes_on() {
    let Some(slurm) = SlurmBench::new(THREE_NODES) else { return };
    let launch = slurm.launch(SLOW);
    let token = slurm.bench.wait_for_checkpoint();
    let ranks = ranks_of(&token);
    let names: Vec<&str> = ranks.iter().map(|(rank, _)| rank.as_str()).collect();
    assert_eq!(names, ["0", "1", "2"], "{}", slurm.story());
    kill(Pid::from_raw(ranks[1].1), Signal::SIGKILL).expect("it is ours");
    slurm.finish(launch);
    let reason =
        slurm.bench.ask("SELECT concat_ws(' ', state, failure_kind, reason) FROM attempt WHERE state <> 'finished'");
    assert_eq!(reason, ["failed crash the runner was killed by SIGKILL"], "{}", slurm.story());
    let words = words_of_ranks(&slurm.bench, &token);
    assert!(words.contains("[rank 1] the runner was killed by SIGKILL"), "{words}");
    assert_eq!(ranks_of(&token), [], "nothing is left");
    let resumed = "SELECT count(*)::text FROM attempt WHERE state = 'finished' AND resumed_from_samples > 0";
    assert_ne!(slurm.bench.ask(resumed), ["0"], "{}", slurm.story());
}

#[test]
fn a_worker_that_is_killed_leaves_no_rank_behind() {
    let Some(slurm) = SlurmBench::new(THREE_NODES) else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    let token = slurm.bench.ask("SELECT token FROM attempt ORDER BY attempt_id").remove(0);
    assert_eq!(ranks_of(&token).len(), 3);
    assert!(kill_worker(&token, Signal::SIGKILL));
    let gone = || ranks_of(&token).is_empty().then_some(());
    wait_until(gone).unwrap_or_else(|| panic!("ranks are left\n{}", slurm.story()));
    slurm.finish(launch);
}

#[test]
fn ranks_of_a_job_that_diverges_are_killed() {
    let Some(slurm) = SlurmBench::new(THREE_NODES) else { return };
    let output = slurm.launch("nan@7,delay@20").wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), slurm.story());
    assert_eq!(slurm.ends(), ["4 failed loss is NaN at step 7"], "{}", slurm.story());
    for token in slurm.bench.ask("SELECT token FROM attempt") {
        assert_eq!(ranks_of(&token), [], "{}", slurm.story());
    }
}

#[test]
fn a_stop_reaches_all_ranks() {
    let Some(slurm) = SlurmBench::new(THREE_NODES) else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    slurm.stop(launch);
    assert_eq!(slurm.ends(), ["4 stopped asked to stop"], "{}", slurm.story());
    for token in slurm.bench.ask("SELECT token FROM attempt") {
        let words = words_of_ranks(&slurm.bench, &token);
        let stopped = words.lines().filter(|line| line.contains("stopped on request")).count();
        assert_eq!((stopped, ranks_of(&token)), (3, Vec::new()), "{words}\n{}", slurm.story());
    }
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.ends(), ["4 finished", "4 stopped asked to stop"], "{}", slurm.story());
}

#[test]
fn a_job_over_three_nodes_longer_than_its_time_goes_on() {
    let Some(slurm) = SlurmBench::new("nodes: 3, worker_time: 0s, time: 60s") else { return };
    slurm.finish(slurm.launch("delay@1000"));
    slurm.assert_stopped_by_time();
}
