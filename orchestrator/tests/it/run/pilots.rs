//! Workers that go on to the next job, and runners that serve one job after another.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;

use super::bench::{Bench, kill_present_runner, kill_runner, kill_worker, wait_until};
use crate::harness::transcript;

/// Twelve jobs of 20 steps on two slots, a checkpoint every fifth.
pub(super) const SPEC: &str = "\
name: tiny
runner: synthetic
grid: {model: cpu-w32-l2, samples_seen: 1280, data_size: 500, seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}
recipe: {global_batch: 64, checkpoint_every: 320}
backend: {local: {slots: 2, threads_per_slot: 1}}
";

const WORKERS: &str = "SELECT count(DISTINCT coalesce(worker, token))::text FROM attempt";

/// Every job done by one finished attempt, none alive, with the outcome that a worker and a runner process a job give.
fn assert_as_with_a_worker_a_job(bench: &Bench) {
    bench.assert_each_done_once();
    let apart = Bench::new(&SPEC.replace("threads_per_slot: 1", "threads_per_slot: 1, worker_time: 0s"));
    apart.finish();
    assert_eq!(apart.ask(WORKERS), ["12"], "{}", apart.story());
    assert_eq!(bench.outcome(), apart.outcome(), "{}", bench.story());
}

#[test]
fn a_worker_goes_on_to_the_next_job_and_nothing_else_is_different() {
    let bench = Bench::new(SPEC);
    bench.finish();
    assert_as_with_a_worker_a_job(&bench);
    assert_eq!(bench.ask(WORKERS), ["2"], "{}", bench.story());
    let slots =
        bench.ask("SELECT concat_ws(' ', slot, count(DISTINCT worker)) FROM attempt GROUP BY slot ORDER BY slot");
    assert_eq!(slots, ["0 1", "1 1"], "{}", bench.story());
    let early = "SELECT b.token FROM attempt a JOIN attempt b ON a.worker = b.worker AND a.attempt_id < b.attempt_id
                 WHERE b.claimed_at < a.ended_at";
    assert!(bench.ask(early).is_empty(), "a worker has one job at a time\n{}", bench.story());
}

#[test]
fn a_worker_that_is_killed_between_its_jobs_loses_one_attempt() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@20");
    let worker = bench.wait_for(
        "SELECT a.worker FROM attempt a JOIN checkpoint USING (attempt_id) WHERE a.state = 'running' AND a.worker <> a.token LIMIT 1",
    );
    assert!(kill_worker(&worker, Signal::SIGKILL));
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert_as_with_a_worker_a_job(&bench);
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt WHERE state = 'lost'"), ["1"], "{}", bench.story());
    assert_eq!(kill_runner(&worker), 0, "a runner is left");
}

#[test]
fn a_runner_that_is_killed_between_its_jobs_is_replaced() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@20");
    let worker = bench.wait_for("SELECT worker FROM attempt WHERE state = 'running' AND worker <> token LIMIT 1");
    kill_present_runner(&worker);
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert_as_with_a_worker_a_job(&bench);
    // None if it had just ended its job.
    let failed = bench.ask("SELECT count(*)::text FROM attempt WHERE state = 'failed'");
    assert!(failed == ["0"] || failed == ["1"], "{failed:?}\n{}", bench.story());
}

#[test]
fn a_stop_reaches_the_job_at_hand_and_no_other_is_begun() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@20");
    bench.wait_for("SELECT worker FROM attempt WHERE state = 'running' AND worker <> token LIMIT 1");
    launch.signal(Signal::SIGINT);
    let text = transcript(&launch.wait());
    assert!(text.contains("goes on from the checkpoints"), "{text}\n{}", bench.story());
    let live = "SELECT token FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert!(bench.ask(live).is_empty(), "{}", bench.story());
    let open: usize = bench.ask("SELECT count(*)::text FROM job WHERE state = 'pending'")[0].parse().expect("a number");
    assert!(open >= 4, "{open} jobs are left\n{}", bench.story());
    bench.finish();
    assert_as_with_a_worker_a_job(&bench);
}

#[test]
fn no_further_job_is_begun_when_no_launcher_drives_the_sweep() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@20");
    bench.wait_for("SELECT worker FROM attempt WHERE state = 'running' AND worker <> token LIMIT 1");
    launch.kill();
    // As if a quarter of a minute had passed.
    bench.ask("UPDATE sweep SET launcher_seen_at = launcher_seen_at - interval '1 min'");
    let ended = || bench.ask("SELECT token FROM attempt WHERE state = 'running'").is_empty().then_some(());
    wait_until(ended).unwrap_or_else(|| panic!("workers go on\n{}", bench.story()));
    assert!(!bench.ask("SELECT job_key FROM job WHERE state = 'pending'").is_empty(), "{}", bench.story());
    bench.finish();
    assert_as_with_a_worker_a_job(&bench);
}

#[test]
fn jobs_that_fail_are_the_launchers_to_try_again() {
    let bench = Bench::new(&SPEC.replace("320}", "320, extra: {crash: 7}}"));
    bench.finish();
    let attempts = "SELECT DISTINCT concat_ws(' ', count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'finished'))
                    FROM attempt GROUP BY job_id";
    assert_eq!(bench.ask(attempts), ["1 1"], "{}", bench.story());
    // A worker ends with a job that does not finish: what made that fail may lie with the worker or its machine.
    let went_on = "SELECT b.token FROM attempt a JOIN attempt b ON b.worker = a.worker AND b.attempt_id > a.attempt_id
                   WHERE a.state = 'failed'";
    assert!(bench.ask(went_on).is_empty(), "{}", bench.story());
}

/// A runner in shell that says that it serves, and does `body` for the job in `$job`.
fn serving(body: &str) -> Bench {
    let spec = "name: tiny\nrunner: ./runner.sh\n\
                grid: {model: cpu-w32-l2, samples_seen: 64, data_size: 500, seed: [0, 1, 2, 3, 4]}\n\
                recipe: {global_batch: 64}\nbackend: {local: {slots: 1, threads_per_slot: 1}}\nlimits: {retries: 0}\n";
    let body = format!(
        "jobs=0
while read -r line; do
    job=$(echo \"$line\" | cut -d'\"' -f4)
    jobs=$((jobs + 1))
    {body}
done"
    );
    Bench::with_shell_runner(spec, ", \"serve\": true", &body)
}

#[test]
fn words_go_to_the_job_that_they_are_about() {
    let bench = serving("started; echo \"pid $$ job $job\" >&2; sleep 0.2; finished");
    bench.finish();
    let mut pids = Vec::new();
    for folder in bench.ask("SELECT folder FROM attempt") {
        let words = fs::read_to_string(format!("{folder}/stderr.log")).expect("it is there");
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(words.trim_end().ends_with(&format!("job {folder}/job.json")), "{folder}: {words}");
        pids.extend(words.split(' ').nth(1).map(str::to_owned));
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "one process served them all: {pids:?}");
}

#[test]
fn a_runner_that_leaves_after_each_job_costs_no_attempt() {
    for leave in ["exit 0", "exit 1", "sleep 0.1; exit 0"] {
        let bench = serving(&format!("started; finished; {leave}"));
        bench.finish();
        assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["5"], "{leave}: {}", bench.story());
    }
}

#[test]
fn a_served_job_that_fails_says_why_and_ends_its_worker_only() {
    let bench = serving(
        "started; [ $jobs = 2 ] || { finished; continue; }
         echo 'what went wrong' >&2; sleep 0.1; echo '{\"event\": \"failed\", \"reason\": \"no luck\", \"kind\": \"bad_input\"}'; exit 2",
    );
    let output = bench.launch("").wait();
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    // Of each two jobs of a worker the second fails.
    let states = bench.ask("SELECT concat_ws(' ', state, reason, stderr_tail) FROM attempt ORDER BY attempt_id");
    let (finished, failed) = ("finished".to_owned(), "failed no luck what went wrong".to_owned());
    assert_eq!(states, [&finished, &failed, &finished, &failed, &finished].map(Clone::clone), "{}", bench.story());
    assert_eq!(bench.ask(WORKERS), ["3"], "{}", bench.story());
}

#[test]
fn an_event_between_jobs_is_not_taken_for_the_next_ones() {
    let bench = serving(
        "started; finished; [ $jobs = 1 ] && echo '{\"event\":\"step\",\"step\":1,\"samples_seen\":64,\"loss\":1}'",
    );
    let output = bench.launch("").wait();
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    // Of each two jobs of a worker the second.
    let failed = bench.ask("SELECT reason FROM attempt WHERE state = 'failed'");
    let named = failed.iter().filter(|reason| reason.contains("said `step` before `started`")).count();
    assert_eq!((failed.len(), named), (2, 2), "{failed:?}\n{}", bench.story());
    assert_eq!(bench.ask("SELECT count(*)::text FROM curve"), ["0"], "{}", bench.story());
}

#[test]
fn a_runner_that_was_asked_to_stop_and_finished_gets_no_further_job() {
    let bench = serving("trap '' TERM; started; echo $$ >&2; sleep 1.3; finished");
    let spec = fs::read_to_string(bench.path().join("sweep.yaml")).expect("it is there");
    let spec = spec.replace("{retries: 0}", "{retries: 0, time: 1s}");
    fs::write(bench.path().join("sweep.yaml"), spec).expect("the project can be written to");
    bench.finish();
    let folders = bench.ask("SELECT folder FROM attempt WHERE state = 'finished'");
    let pids = folders.iter().map(|folder| fs::read_to_string(format!("{folder}/stderr.log")).expect("it is there"));
    assert_eq!(pids.collect::<BTreeSet<_>>().len(), 5, "{}", bench.story());
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["5"], "{}", bench.story());
}

#[test]
fn a_runner_that_does_not_leave_is_sent_away() {
    let bench = serving("started; finished; [ $jobs = 5 ] && sleep 1000");
    bench.finish();
    for worker in bench.ask("SELECT DISTINCT worker FROM attempt") {
        let gone = || (!kill_worker(&worker, Signal::SIGCONT)).then_some(());
        wait_until(gone).unwrap_or_else(|| panic!("the worker does not leave\n{}", bench.story()));
        assert_eq!(kill_runner(&worker), 0, "its runner is left");
    }
}
