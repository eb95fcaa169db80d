//! `kill -9` in the middle of a sweep: of the launcher, a worker, a runner, the database, and of several at once.

use nix::sys::signal::{Signal, kill};

use super::bench::{Bench, SPEC, kill_runner, kill_worker};
use crate::harness::transcript;

/// Slow enough to be hit in the middle: a second or two a job.
const SLOW: &str = "delay@40";

#[test]
fn the_launcher_is_killed_and_the_next_one_adopts_the_workers() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    let token = bench.wait_for_checkpoint();
    launch.kill();
    bench.finish();
    bench.assert_done_once();
    let adopted = bench.ask("SELECT concat_ws(' ', token, state) FROM attempt WHERE state = 'finished'");
    assert!(adopted.contains(&format!("{token} finished")), "{adopted:?}\n{}", bench.story());
}

#[test]
fn a_worker_is_killed_and_its_job_goes_on_from_the_checkpoint() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    let token = bench.wait_for_checkpoint();
    assert!(kill_worker(&token, Signal::SIGKILL));
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    let resumed = "SELECT count(*)::text FROM attempt WHERE state = 'finished' AND resumed_from_samples >= 320";
    assert_eq!(bench.ask(resumed), ["1"], "{}", bench.story());
    assert!(bench.finish().contains("nothing left to do"));
}

#[test]
fn a_runner_is_killed_and_retried() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    let token = bench.wait_for_checkpoint();
    assert_eq!(kill_runner(&token), 1);
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT reason FROM attempt WHERE state = 'failed'"), ["the runner was killed by SIGKILL"]);
    assert!(bench.finish().contains("nothing left to do"));
}

#[test]
fn the_database_is_killed_and_nothing_is_lost_or_doubled() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    bench.wait_for_checkpoint();
    kill(bench.postmaster(), Signal::SIGKILL).expect("it is ours");
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    assert_eq!(
        bench.ask("SELECT count(*)::text FROM attempt WHERE claimed_at IS NOT NULL"),
        ["4"],
        "{}",
        bench.story()
    );
    assert!(bench.finish().contains("nothing left to do"));
}

#[test]
fn everything_is_killed_at_once() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    let token = bench.wait_for_checkpoint();
    let postmaster = bench.postmaster();
    launch.kill();
    kill(postmaster, Signal::SIGKILL).expect("it is ours");
    kill_worker(&token, Signal::SIGKILL);
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn a_worker_that_died_before_it_could_deliver_the_end_is_spoken_for() {
    let bench = Bench::new(SPEC);
    bench.finish();
    // As if it had died after the runner's last word: nothing behind the first line is stored, its attempt seems to
    // run.
    let undone = bench.ask(
        "WITH a AS (UPDATE attempt SET state = 'running', acked_events = 1, ended_at = NULL, exit_code = NULL
                    WHERE job_id = 1 RETURNING attempt_id),
              j AS (UPDATE job SET state = 'running', done_at = NULL WHERE job_id = 1),
              m AS (DELETE FROM metric USING a WHERE metric.attempt_id = a.attempt_id),
              e AS (DELETE FROM evaluation USING a WHERE evaluation.attempt_id = a.attempt_id)
         SELECT attempt_id::text FROM a",
    );
    assert_eq!(undone.len(), 1);
    bench.finish();
    bench.assert_done_once();
    let attempts = bench.ask(
        "SELECT concat_ws(' ', a.state, a.resumed_from_samples = j.samples_seen, a.samples_seen = j.samples_seen)
         FROM attempt a JOIN job j USING (job_id) WHERE job_id = 1 ORDER BY attempt_id",
    );
    assert_eq!(attempts, ["lost f t", "finished t t"]);
}
