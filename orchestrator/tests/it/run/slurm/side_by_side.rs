//! Several jobs at one time in one Slurm job (`side_by_side`), on a real cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{SlurmBench, be_lied_to, preempt};
use crate::harness::transcript;
use crate::run::bench::{Bench, kill_worker, wait_until};
use crate::run::pilots;

/// Three together, so of four jobs one is in a Slurm job of its own.
const THREE: &str = "side_by_side: 3, worker_time: 0s";
const TWO: &str = "side_by_side: 2, worker_time: 0s";
/// Slow enough to be hit in the middle of anything.
const SLOWER: &str = "delay@300";

/// Attempts in each Slurm job, as numbers.
fn sizes(slurm: &SlurmBench) -> Vec<String> {
    slurm.bench.ask("SELECT count(*)::text FROM attempt GROUP BY handle ORDER BY 1")
}

/// The tokens of those that share a Slurm job, in the order of the plan.
fn together(slurm: &SlurmBench) -> Vec<String> {
    slurm.bench.ask(
        "SELECT token FROM attempt WHERE handle = (SELECT handle FROM attempt GROUP BY handle HAVING count(*) > 1
                                                   ORDER BY handle LIMIT 1) ORDER BY attempt_id",
    )
}

/// Processes whose environment or command line, whichever `file` is, holds this entry.
fn processes(file: &str, entry: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").expect("this is Linux");
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let holds = |pid: &i32| {
        let block = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        block.split(|&byte| byte == 0).any(|part| part == entry.as_bytes())
    };
    pids.filter(holds).collect()
}

fn runners(token: &str) -> Vec<i32> {
    processes("environ", &format!("SWEEP_ATTEMPT={token}"))
}

fn signal_runners(token: &str, signal: Signal) {
    let runners = runners(token);
    assert!(!runners.is_empty(), "the runner of {token} is gone");
    for pid in runners {
        kill(Pid::from_raw(pid), signal).expect("it is ours");
    }
}

/// The processes that hold several workers in this project.
fn holders(slurm: &SlurmBench) -> Vec<i32> {
    let arrays = slurm.bench.path().join(".sweep/slurm");
    let attempts = fs::read_dir(arrays).expect("it is there").filter_map(|array| Some(array.ok()?.path()));
    attempts.flat_map(|array| processes("cmdline", &array.join("attempts").display().to_string())).collect()
}

/// Arrays with several attempts a task.
fn arrays(slurm: &SlurmBench) -> Vec<PathBuf> {
    let arrays = fs::read_dir(slurm.bench.path().join(".sweep/slurm")).expect("it is there");
    arrays.filter_map(|array| Some(array.ok()?.path())).filter(|array| array.join("ended").exists()).collect()
}

#[test]
fn jobs_share_slurm_jobs_and_nothing_else_is_different() {
    let Some(slurm) = SlurmBench::new(THREE) else { return };
    slurm.finish(slurm.launch(""));
    assert_eq!((slurm.attempts(), sizes(&slurm)), (4, vec!["1".to_owned(), "3".to_owned()]), "{}", slurm.story());
    let array = arrays(&slurm).pop().expect("one has three");
    let script = fs::read_to_string(array.join("script.sh")).expect("it is there");
    assert!(script.contains("\n#SBATCH --array=0-0\n") && script.contains("\n#SBATCH --cpus-per-task=3\n"), "{script}");
    for token in together(&slurm) {
        let end = fs::read_to_string(array.join("ended").join(token)).expect("its end is noted");
        assert_eq!(end, "left with exit code 0\n");
    }
    let words = slurm.cluster.slurm("squeue", &["--states=all", "--array", "--noheader", "--format", "%T"]);
    assert_eq!(words, "COMPLETED\nCOMPLETED");
}

#[test]
fn an_array_has_several_tasks_of_several_jobs() {
    let Some(slurm) = SlurmBench::new(TWO) else { return };
    slurm.finish(slurm.launch(""));
    let handles = slurm.bench.ask("SELECT concat_ws(' ', handle, count(*)) FROM attempt GROUP BY handle ORDER BY 1");
    assert_eq!(handles, ["1_0 2", "1_1 2"], "{}", slurm.story());
}

#[test]
fn workers_side_by_side_go_on_to_further_jobs_in_one_slurm_job() {
    let options = "side_by_side: 3, worker_time: 10m, jobs: 1";
    let Some(slurm) = SlurmBench::with_spec(pilots::SPEC, options) else { return };
    let output = slurm.launch("").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    assert_eq!(sizes(&slurm), ["12"], "{}", slurm.story());
    let workers = slurm.bench.ask("SELECT DISTINCT coalesce(worker, token) FROM attempt");
    assert_eq!(workers.len(), 3, "{}", slurm.story());
    let apart = Bench::new(pilots::SPEC);
    apart.finish();
    assert_eq!(slurm.bench.outcome(), apart.outcome(), "{}", slurm.story());
}

#[test]
fn shares_that_are_free_are_not_asked_for_again_while_others_are_used() {
    // Six jobs at a time at most: a worker that ends early is followed when all of its Slurm job have ended.
    let options = "side_by_side: 3, worker_time: 0s, jobs: 2";
    let Some(slurm) = SlurmBench::with_spec(pilots::SPEC, options) else { return };
    let output = slurm.launch("delay@20").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    assert_eq!(sizes(&slurm), ["3"; 4], "{}", slurm.story());
}

#[test]
fn a_worker_that_is_killed_is_missed_while_its_neighbours_go_on() {
    let Some(slurm) = SlurmBench::new(THREE) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    slurm
        .bench
        .wait_for("SELECT 'kept' FROM attempt a JOIN checkpoint USING (attempt_id) HAVING count(DISTINCT a.token) = 4");
    let tokens = together(&slurm);
    // However long it takes: neighbours are there all the while.
    tokens[1..].iter().for_each(|token| signal_runners(token, Signal::SIGSTOP));
    assert!(kill_worker(&tokens[0], Signal::SIGKILL));
    let reason = slurm.bench.wait_for("SELECT reason FROM attempt WHERE state = 'lost'");
    let words = without_numbers(&reason);
    assert_eq!(words, "the worker was killed by SIGKILL on nodeN, in Slurm job N_N beside others", "{}", slurm.story());
    assert!(runners(&tokens[0]).is_empty(), "its runner is left");
    slurm.bench.wait_for("SELECT 'again' FROM attempt WHERE fence = 2 AND state IN ('running', 'finished')");
    tokens[1..].iter().for_each(|token| signal_runners(token, Signal::SIGCONT));
    slurm.finish(launch);
    assert_eq!(slurm.attempts(), 5, "{}", slurm.story());
    let resumed = "SELECT count(*)::text FROM attempt WHERE state = 'finished' AND resumed_from_samples > 0";
    assert_eq!(slurm.bench.ask(resumed), ["1"], "{}", slurm.story());
}

/// A text with each number in it as `N`.
fn without_numbers(text: &str) -> String {
    let mut words = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if words.ends_with('N') => {}
            '0'..='9' => words.push('N'),
            c => words.push(c),
        }
    }
    words
}

#[test]
fn one_job_is_cancelled_and_its_neighbours_are_not() {
    for options in [THREE, "side_by_side: 3, worker_time: 0s, ship: spool"] {
        let Some(slurm) = SlurmBench::new(options) else { return };
        let launch = slurm.launch(SLOWER);
        slurm.wait_for_all_to_run();
        let token = together(&slurm).remove(1);
        let key = slurm.bench.ask(
            "SELECT left(job_key, 12) FROM attempt a JOIN job USING (job_id)
             WHERE handle = (SELECT handle FROM attempt GROUP BY handle HAVING count(*) > 1) ORDER BY attempt_id",
        );
        // So that it does not stop by what it hears in another way before it is told in ours.
        assert!(kill_worker(&token, Signal::SIGSTOP));
        let output = slurm.sweep(&["cancel", &key[1]]);
        assert!(output.status.success(), "{}", transcript(&output));
        let told = arrays(&slurm).iter().any(|array| array.join("stop").join(&token).exists());
        assert!(kill_worker(&token, Signal::SIGCONT));
        assert!(told, "{}", slurm.story());
        slurm.finish_with(launch, &["1 cancelled", "3 done"]);
        assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
    }
}

#[test]
fn one_job_of_several_that_wait_is_cancelled_and_never_begins() {
    let Some(slurm) = SlurmBench::new("side_by_side: 2, worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    slurm.bench.wait_for("SELECT 'all' FROM attempt WHERE state = 'launched' HAVING count(*) = 4");
    let held = slurm.cluster.queue("PENDING");
    assert_eq!(held.len(), 2, "{}", slurm.story());
    let key = slurm.bench.ask("SELECT left(job_key, 12) FROM job JOIN attempt USING (job_id) ORDER BY attempt_id");
    let output = slurm.sweep(&["cancel", &key[0]]);
    assert!(output.status.success(), "{}", transcript(&output));
    assert_eq!(slurm.cluster.queue("PENDING"), held, "{}", slurm.story());
    slurm.cluster.release(&held);
    slurm.finish_with(launch, &["1 cancelled", "3 done"]);
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn a_slurm_job_cancelled_by_hand_cancels_all_of_its_jobs() {
    let Some(slurm) = SlurmBench::new(TWO) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    slurm.cluster.slurm("scancel", &["1_1"]);
    slurm.finish_with(launch, &["2 cancelled", "2 done"]);
    let retried = slurm.bench.sweep(&["retry", "tiny"]);
    assert!(retried.status.success(), "{}", transcript(&retried));
    slurm.finish(slurm.launch(""));
}

#[test]
fn a_waiting_slurm_job_cancelled_by_hand_cancels_all_of_its_jobs() {
    let Some(slurm) = SlurmBench::new("side_by_side: 2, worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    slurm.bench.wait_for("SELECT 'all' FROM attempt WHERE state = 'launched' HAVING count(*) = 4");
    slurm.cluster.slurm("scancel", &["1_0"]);
    slurm.cluster.slurm("scontrol", &["release", "1_1"]);
    slurm.finish_with(launch, &["2 cancelled", "2 done"]);
}

#[test]
fn a_stop_takes_waiting_slurm_jobs_of_several_jobs_out_of_the_queue() {
    let Some(slurm) = SlurmBench::new("side_by_side: 2, worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    slurm.bench.wait_for("SELECT 'all' FROM attempt WHERE state = 'launched' HAVING count(*) = 4");
    slurm.stop_what_waits(launch);
}

#[test]
fn a_stop_reaches_all_workers() {
    let Some(slurm) = SlurmBench::new(THREE) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    slurm.stop(launch);
    assert_eq!(slurm.ends(), ["4 stopped asked to stop"], "{}", slurm.story());
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.ends(), ["4 finished", "4 stopped asked to stop"], "{}", slurm.story());
}

#[test]
fn preempted_jobs_side_by_side_go_on_from_their_checkpoints() {
    preempt(THREE);
}

#[test]
fn jobs_side_by_side_longer_than_their_time_are_a_chain_of_submissions() {
    let Some(slurm) = SlurmBench::new("side_by_side: 2, worker_time: 0s, time: 60s") else { return };
    slurm.finish(slurm.launch("delay@1000"));
    slurm.assert_stopped_by_time();
}

#[test]
fn a_slurm_job_whose_first_process_is_killed_leaves_nothing_running() {
    let Some(slurm) = SlurmBench::new(THREE) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    let tokens = together(&slurm);
    let holders = holders(&slurm);
    assert_eq!(holders.len(), 1, "{}", slurm.story());
    kill(Pid::from_raw(holders[0]), Signal::SIGKILL).expect("it is ours");
    let gone = || tokens.iter().all(|token| runners(token).is_empty() && !kill_worker(token, Signal::SIGCONT));
    wait_until(|| gone().then_some(())).unwrap_or_else(|| panic!("workers are left\n{}", slurm.story()));
    slurm.finish(launch);
    let lost = slurm.bench.ask("SELECT DISTINCT token FROM attempt WHERE state = 'lost'");
    assert_eq!(lost.into_iter().collect::<BTreeSet<_>>(), tokens.into_iter().collect(), "{}", slurm.story());
}

#[test]
fn workers_side_by_side_that_reach_no_database_leave_the_same_rows() {
    let Some(slurm) = SlurmBench::new("side_by_side: 3, worker_time: 0s, ship: spool") else { return };
    slurm.finish(slurm.launch(""));
    let ends = slurm.bench.ask("SELECT concat_ws(' ', count(*), ship, state) FROM attempt GROUP BY ship, state");
    assert_eq!(ends, ["4 spool finished"], "{}", slurm.story());
    assert_eq!(sizes(&slurm), ["1", "3"], "{}", slurm.story());
}

/// A line of a file below `/proc/PID` of the runner, for each of those that share a Slurm job.
fn lines_of_runners(slurm: &SlurmBench, file: &str, separator: char, name: &str) -> BTreeSet<Option<String>> {
    let line = |token: String| {
        let pid = runners(&token).pop().unwrap_or_else(|| panic!("no runner of {token}\n{}", slurm.story()));
        let block = fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
        let text = String::from_utf8_lossy(&block).into_owned();
        text.split(separator).find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    together(slurm).into_iter().map(line).collect()
}

fn two<T: Ord>(first: T, second: T) -> BTreeSet<Option<T>> {
    BTreeSet::from([Some(first), Some(second)])
}

#[test]
fn each_worker_has_its_own_gpu_and_its_own_cpu() {
    // Confined, as by a site's cgroups.
    let options = "side_by_side: 2, gpus: 1, worker_time: 0s, setup: ['taskset --cpu-list --pid 0,1 $$']";
    let Some(slurm) = SlurmBench::new(options) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    let gpus = lines_of_runners(&slurm, "environ", '\0', "CUDA_VISIBLE_DEVICES=");
    assert_eq!(gpus, two("0".to_owned(), "1".to_owned()), "{}", slurm.story());
    let cpus = lines_of_runners(&slurm, "status", '\n', "Cpus_allowed_list:");
    assert_eq!(cpus, two("0".to_owned(), "1".to_owned()), "{}", slurm.story());
    slurm.finish(launch);
}

#[test]
fn an_allocation_with_too_few_gpus_is_said_where_each_job_is_looked_for() {
    // As where `gpus` is not what the site gives.
    let options = "side_by_side: 2, gpus: 1, worker_time: 0s, setup: ['export CUDA_VISIBLE_DEVICES=0']";
    let Some(slurm) = SlurmBench::new(options) else { return };
    let launch = slurm.launch("");
    let jobs = slurm.bench.path().join(".sweep/jobs");
    let attempts =
        || fs::read_dir(&jobs).into_iter().flatten().filter_map(|job| fs::read_dir(job.ok()?.path()).ok()).flatten();
    let logs = || attempts().filter_map(|attempt| fs::read_to_string(attempt.ok()?.path().join("worker.log")).ok());
    let told = || logs().filter(|log| log.contains("need 2 GPUs, 1 each, and CUDA_VISIBLE_DEVICES is `0`")).count();
    wait_until(|| (told() == 4).then_some(())).unwrap_or_else(|| panic!("{} are told\n{}", told(), slurm.story()));
    slurm.bench.wait_for("SELECT reason FROM attempt WHERE state = 'lost' AND reason LIKE '%ended as FAILED%'");
    launch.kill();
}

#[test]
fn a_launcher_that_comes_back_finds_all_workers_of_a_slurm_job() {
    let Some(slurm) = SlurmBench::new(THREE) else { return };
    let launch = slurm.launch(SLOWER);
    slurm.wait_for_all_to_run();
    launch.kill();
    slurm.finish(slurm.launch(SLOWER));
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn whatever_sbatch_says_each_job_side_by_side_is_done_once() {
    be_lied_to(THREE, &["accepted-and-silent", "accepted-and-killed", "away"]);
}

#[test]
fn a_plan_says_what_a_slurm_job_of_several_jobs_asks_for() {
    let Some(slurm) = SlurmBench::new("side_by_side: 2, gpus: 1, cpus: 2, memory: 500M, jobs: 1") else { return };
    let said = transcript(&slurm.sweep(&["plan", "sweep.yaml"]));
    assert!(said.contains("at most 1 Slurm job at one time, each 2 x (2 CPUs, 1 GPU, 500M), 1 h 0 min"), "{said}");
    slurm.bench.change_spec(&[("side_by_side: 2", "side_by_side: 3")]);
    let output = slurm.sweep(&["plan", "sweep.yaml"]);
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`cpus`: 3 x 2 = 6 is asked, and the most there is is 4 on a node"), "{said}");
}
