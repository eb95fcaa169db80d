//! Jobs by several processes on this machine.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bench::{Bench, SPEC, kill_worker, ranks_of, wait_until, words_of_ranks};
use crate::harness::transcript;

/// The jobs of [`SPEC`], each by three processes; a worker a job, or one for all.
fn bench(more: &str) -> Bench {
    let ranks = format!("{{local: {{ranks: 3, slots: 2, threads_per_slot: 3{more}}}}}");
    Bench::new(&SPEC.replace("{local: {slots: 2, threads_per_slot: 1}}", &ranks))
}

#[test]
fn three_ranks_give_the_numbers_of_one_process() {
    let bench = bench("");
    bench.finish();
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT DISTINCT threads::text FROM attempt"), ["1"], "3 threads of a job, by 3 ranks");
    for token in bench.ask("SELECT token FROM attempt JOIN job USING (job_id) WHERE job.samples_seen = 1280") {
        let words = words_of_ranks(&bench, &token);
        for line in
            ["rank 0 of 3 drew 6 losses", "[rank 1] rank 1 of 3 drew 7 losses", "[rank 2] rank 2 of 3 drew 7 losses"]
        {
            assert!(words.lines().any(|said| said == line), "{line}: {words}\n{}", bench.story());
        }
    }
}

#[test]
fn a_rank_that_is_killed_ends_its_attempt_and_the_job_goes_on() {
    let bench = bench("");
    let launch = bench.launch("delay@60");
    let token = bench.wait_for_checkpoint();
    let ranks = ranks_of(&token);
    let names: Vec<&str> = ranks.iter().map(|(rank, _)| rank.as_str()).collect();
    assert_eq!(names, ["0", "1", "2"], "{}", bench.story());
    kill(Pid::from_raw(ranks[1].1), Signal::SIGKILL).expect("it is ours");
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    let reason = bench.ask("SELECT concat_ws(' ', state, failure_kind, reason) FROM attempt WHERE state <> 'finished'");
    assert_eq!(reason, ["failed crash the runner was killed by SIGKILL"], "{}", bench.story());
    let words = words_of_ranks(&bench, &token);
    assert!(words.contains("[rank 1] the runner was killed by SIGKILL"), "{words}");
    assert_eq!(ranks_of(&token), [], "nothing is left");
    let resumed = "SELECT count(*)::text FROM attempt WHERE state = 'finished' AND resumed_from_samples > 0";
    assert_ne!(bench.ask(resumed), ["0"], "{}", bench.story());
}

#[test]
fn a_worker_that_is_killed_leaves_no_rank_behind() {
    let bench = bench(", worker_time: 0s");
    let launch = bench.launch("delay@60");
    let token = bench.wait_for_checkpoint();
    assert_eq!(ranks_of(&token).len(), 3, "{}", bench.story());
    assert!(kill_worker(&token, Signal::SIGKILL));
    wait_until(|| ranks_of(&token).is_empty().then_some(()))
        .unwrap_or_else(|| panic!("ranks are left\n{}", bench.story()));
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
}

#[test]
fn a_stop_reaches_all_ranks() {
    let bench = bench(", worker_time: 0s");
    let launch = bench.launch("delay@60");
    let token = bench.wait_for_checkpoint();
    launch.signal(Signal::SIGINT);
    let text = transcript(&launch.wait());
    assert!(text.starts_with("exit: 1"), "{text}\n{}", bench.story());
    let words = words_of_ranks(&bench, &token);
    let stopped = words.lines().filter(|line| line.contains("stopped on request")).count();
    assert_eq!((stopped, ranks_of(&token)), (3, Vec::new()), "{words}\n{}", bench.story());
    let codes = bench.ask("SELECT DISTINCT concat_ws(' ', state, exit_code) FROM attempt WHERE state <> 'finished'");
    assert_eq!(codes, ["stopped 75"], "{}", bench.story());
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn ranks_of_a_job_that_diverges_are_ended() {
    let bench = bench("");
    let output = bench.launch("nan@7,delay@20").wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), bench.story());
    let ends = bench.ask("SELECT DISTINCT concat_ws(' ', state, reason) FROM attempt");
    assert_eq!(ends, ["failed loss is NaN at step 7"], "{}", bench.story());
    for token in bench.ask("SELECT token FROM attempt") {
        assert_eq!(ranks_of(&token), [], "{}", bench.story());
    }
}
