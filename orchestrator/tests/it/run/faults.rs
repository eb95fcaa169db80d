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
fn a_clock_that_was_set_back_does_not_keep_the_dead_alive() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch(SLOW);
    let token = bench.wait_for_checkpoint();
    launch.kill();
    assert!(kill_worker(&token, Signal::SIGKILL));
    // To all that compares with it: whatever is stored was an hour later.
    bench.ask(
        "UPDATE attempt SET created_at = created_at + interval '1 h', launched_at = launched_at + interval '1 h',
                claimed_at = claimed_at + interval '1 h', heartbeat_at = heartbeat_at + interval '1 h'",
    );
    bench.finish();
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt WHERE state = 'lost'"), ["1"], "{}", bench.story());
}

#[test]
fn a_launcher_without_descriptors_gives_nobody_up() {
    let bench = Bench::new(&SPEC.replace("slots: 2", "slots: 4"));
    let launch = bench.launch("delay@100");
    bench.wait_for("SELECT 'all' FROM attempt HAVING count(*) FILTER (WHERE samples_seen > 0) = 4");
    // It can't look into /proc any more, connect to the database, or start anything.
    launch.limit_descriptors(5);
    bench.wait_for("SELECT 'far' FROM attempt HAVING min(samples_seen) > 640");
    launch.limit_descriptors(1024);
    let output = launch.wait();
    assert!(output.status.success(), "{}", transcript(&output));
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["4"], "{}", bench.story());
    bench.assert_done_once();
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

#[test]
fn slots_of_dead_attempts_of_another_sweep_are_taken_back() {
    let bench = Bench::new(SPEC);
    kill_everything_under_way(&bench);
    // A minute later, somebody launches another sweep, and never the first again.
    bench.ask(
        "UPDATE attempt SET created_at = created_at - interval '1 min', launched_at = launched_at - interval '1 min',
                claimed_at = claimed_at - interval '1 min', heartbeat_at = heartbeat_at - interval '1 min' RETURNING token",
    );
    let other = SPEC.replace("tiny", "other").replace("data_size: 500", "data_size: 500, seed: 1");
    std::fs::write(bench.path().join("other.yaml"), other).expect("the project can be written to");
    let output = bench.launch_spec("other.yaml", "").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert!(!bench.ask("SELECT token FROM attempt WHERE state = 'lost'").is_empty(), "{}", bench.story());
    bench.finish();
}

#[test]
fn attempts_of_a_host_that_is_gone_end_with_cancel() {
    let bench = Bench::new(SPEC);
    kill_everything_under_way(&bench);
    bench.ask(
        "UPDATE attempt SET host = 'gone', created_at = created_at - interval '1 h', launched_at = launched_at - interval '1 h',
                claimed_at = claimed_at - interval '1 h', heartbeat_at = heartbeat_at - interval '1 h' RETURNING token",
    );
    let cancelled = transcript(&bench.sweep(&["cancel", "tiny"]));
    assert!(cancelled.starts_with("exit: 0"), "{cancelled}");
    let live = "SELECT token FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert!(bench.ask(live).is_empty(), "{}", bench.story());
    assert!(bench.sweep(&["retry", "tiny"]).status.success());
    bench.finish();
    bench.assert_done_once();
}

/// Both slots busy, then `kill -9` of the launcher, the workers and (with them) the runners.
fn kill_everything_under_way(bench: &Bench) {
    let launch = bench.launch("delay@500");
    bench.wait_for("SELECT 'both' FROM attempt WHERE state = 'running' AND samples_seen > 0 HAVING count(*) = 2");
    launch.kill();
    for token in bench.ask("SELECT token FROM attempt WHERE state = 'running'") {
        assert!(kill_worker(&token, Signal::SIGKILL));
    }
}
