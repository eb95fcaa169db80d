//! `ship: spool`: workers that reach no database, and a launcher that stores what they leave.

use nix::sys::signal::Signal;

use super::bench::{Bench, SPEC, kill_worker};
use crate::harness::transcript;

/// Slow enough to be hit in the middle.
const SLOW: &str = "delay@40";
/// The attempt of a job that is under way and has left a checkpoint.
const UNDER_WAY: &str =
    "SELECT a.token FROM attempt a JOIN checkpoint USING (attempt_id) WHERE a.state = 'running' LIMIT 1";

fn spooled() -> Bench {
    Bench::new(&SPEC.replace("slots: 2,", "slots: 2, ship: spool,"))
}

/// All jobs are done once, with the rows of a run whose workers had the database.
fn assert_as_connected(bench: &Bench) {
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT DISTINCT ship FROM attempt"), ["spool"], "{}", bench.story());
    let connected = Bench::new(SPEC);
    connected.finish();
    assert_eq!(bench.outcome(), connected.outcome());
}

#[test]
fn the_same_rows_result_as_with_a_database() {
    let bench = spooled();
    bench.finish();
    assert_as_connected(&bench);
    assert!(bench.finish().contains("nothing left to do"));
}

#[test]
fn no_worker_connects() {
    let bench = spooled();
    // The workers' environment, not the launcher's: whoever asked it would get no answer.
    let launch = bench.launch(SLOW);
    bench.wait_for(UNDER_WAY);
    let workers = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'sweep-worker'";
    assert_eq!(bench.ask(workers), ["0"]);
    assert!(launch.wait().status.success(), "{}", bench.story());
}

#[test]
fn the_launcher_is_killed_and_the_next_one_stores_what_the_workers_left() {
    let bench = spooled();
    let launch = bench.launch(SLOW);
    let token = bench.wait_for(UNDER_WAY);
    launch.kill();
    bench.finish();
    assert_as_connected(&bench);
    let adopted = bench.ask("SELECT token FROM attempt WHERE state = 'finished'");
    assert!(adopted.contains(&token), "{adopted:?}\n{}", bench.story());
}

#[test]
fn a_worker_is_killed_and_its_job_goes_on_from_the_checkpoint() {
    let bench = spooled();
    let launch = bench.launch(SLOW);
    let token = bench.wait_for(UNDER_WAY);
    assert!(kill_worker(&token, Signal::SIGKILL));
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert_as_connected(&bench);
    let resumed = "SELECT fence::text FROM attempt WHERE state = 'finished' AND resumed_from_samples >= 320";
    assert_eq!(bench.ask(resumed), ["2"], "{}", bench.story());
}

#[test]
fn the_database_is_killed_and_nothing_is_missing() {
    let bench = spooled();
    let launch = bench.launch(SLOW);
    bench.wait_for(UNDER_WAY);
    nix::sys::signal::kill(bench.postmaster(), Signal::SIGKILL).expect("it is ours");
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert_as_connected(&bench);
}

#[test]
fn what_a_worker_says_after_it_was_given_up_does_not_count() {
    let bench = spooled();
    let launch = bench.launch(SLOW);
    bench.wait_for(UNDER_WAY);
    launch.kill();
    // As if it had been silent for too long, on a node that was cut off.
    let lost = bench.ask(
        "WITH lost AS (UPDATE attempt SET state = 'lost', ended_at = now() WHERE state = 'running' RETURNING job_id, token)
         UPDATE job SET state = 'pending' FROM lost WHERE job.job_id = lost.job_id RETURNING token",
    );
    bench.finish();
    assert_as_connected(&bench);
    let still_lost = bench.ask("SELECT token FROM attempt WHERE state = 'lost' ORDER BY attempt_id");
    assert_eq!(still_lost.len(), lost.len(), "{}", bench.story());
}

#[test]
fn cancelled_jobs_stop_after_a_checkpoint() {
    let bench = spooled();
    let launch = bench.launch("delay@100");
    bench.wait_for(UNDER_WAY);
    let output = bench.sweep(&["cancel", "tiny"]);
    assert!(output.status.success(), "{}", transcript(&output));
    launch.wait();
    let left = "SELECT state FROM job WHERE state <> 'cancelled' UNION ALL
                SELECT state FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert!(bench.ask(left).is_empty(), "{}", bench.story());
}
