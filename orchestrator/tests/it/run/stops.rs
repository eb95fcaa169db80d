//! Stops on request: Ctrl-C, time limits, cancellation.

use nix::sys::signal::Signal;

use super::bench::{Bench, SPEC, wait_until};
use crate::harness::transcript;

#[test]
fn ctrl_c_stops_after_checkpoints_and_the_next_launch_resumes() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@40");
    bench.wait_for_checkpoint();
    launch.signal(Signal::SIGINT);
    let text = transcript(&launch.wait());
    assert!(text.starts_with("exit: 1") && text.contains("goes on from the checkpoints"), "{text}\n{}", bench.story());
    let live = "SELECT token FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert!(bench.ask(live).is_empty(), "{}", bench.story());
    assert!(!bench.ask("SELECT token FROM attempt WHERE state = 'stopped' AND exit_code = 75").is_empty());
    bench.finish();
    bench.assert_done_once();
    let resumed = "SELECT token FROM attempt WHERE state = 'finished' AND resumed_from_samples > 0";
    assert!(!bench.ask(resumed).is_empty(), "{}", bench.story());
}

#[test]
fn a_second_ctrl_c_detaches_and_the_workers_go_on() {
    let bench = Bench::new(SPEC);
    // At half a second a step, the launcher is gone long before any worker has stopped.
    let launch = bench.launch("delay@500");
    bench.wait_for("SELECT token FROM attempt WHERE state = 'running' AND samples_seen > 0 LIMIT 1");
    launch.signal(Signal::SIGINT);
    bench.wait_for("SELECT token FROM attempt WHERE stop_requested LIMIT 1");
    launch.signal(Signal::SIGINT);
    let text = transcript(&launch.wait());
    assert!(text.starts_with("exit: 1"), "{text}");
    let ended = || {
        let live = bench.ask("SELECT token FROM attempt WHERE state IN ('launched', 'running')");
        live.is_empty().then_some(())
    };
    wait_until(ended).unwrap_or_else(|| panic!("workers don't stop\n{}", bench.story()));
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn a_time_limit_cuts_a_job_into_pieces() {
    let bench = Bench::new(&format!("{SPEC}limits: {{time: 1s}}\n"));
    let output = bench.launch("delay@40").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    assert!(!bench.ask("SELECT token FROM attempt WHERE state = 'stopped' AND reason = 'time limit'").is_empty());
}

#[test]
fn a_cancelled_sweep_ends_and_can_be_taken_up_again() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@40");
    bench.wait_for_checkpoint();
    let cancelled = transcript(&bench.sweep(&["cancel", "tiny"]));
    assert!(cancelled.starts_with("exit: 0"), "{cancelled}");
    let text = transcript(&launch.wait());
    assert!(text.contains("4 cancelled"), "{text}\n{}", bench.story());
    assert_eq!(bench.ask("SELECT DISTINCT state FROM attempt"), ["cancelled"], "{}", bench.story());
    let retried = transcript(&bench.sweep(&["retry", "tiny", "--cancelled"]));
    assert!(retried.contains("4 of 4 jobs"), "{retried}");
    bench.finish();
    bench.assert_done_once();
}
