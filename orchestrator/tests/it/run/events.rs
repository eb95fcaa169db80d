//! `sweep events`: what happened, in order and each once, for people and for programs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::bench::{Bench, SPEC};
use crate::harness::transcript;

/// Lines of `sweep events --json` with more arguments.
fn events(bench: &Bench, more: &[&str]) -> Vec<Value> {
    let output = bench.sweep(&[&["events", "--json"], more].concat());
    assert!(output.status.success(), "{}", transcript(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

fn cursor(event: &Value) -> &str {
    event["cursor"].as_str().expect("a cursor")
}

#[test]
fn the_history_of_a_job_is_told_in_order() {
    let bench = Bench::new(SPEC);
    bench.launch("crash@8").wait();
    bench.sweep(&["fit", "tiny", "--metric", "synthetic/acc1"]);
    let all = events(&bench, &["tiny"]);
    let first = all[0]["job_key"].as_str().expect("a job").to_owned();
    let of_first: Vec<Value> = all.iter().filter(|event| event["job_key"] == *first).cloned().collect();
    let told = kinds(&of_first).join(" ");
    assert!(told.starts_with("queued submitted claimed started checkpoint failed submitted claimed started"), "{told}");
    assert!(told.ends_with("finished"), "{told}");
    let by_kind = |kind: &str| of_first.iter().find(|event| event["kind"] == kind).expect(kind);
    assert_eq!(by_kind("failed")["failure_kind"], "crash");
    assert!(by_kind("failed")["reason"].as_str().is_some_and(|reason| reason.contains("exit code 1")), "{of_first:?}");
    assert_eq!(by_kind("started")["resumed_from_samples"], 0);
    assert_eq!(by_kind("checkpoint")["samples_seen"], 320);
    assert_eq!(by_kind("checkpoint")["step"], 5);
    assert_eq!(by_kind("measured")["dataset"], "synthetic");
    assert!(by_kind("measured")["values"]["acc1"].is_f64(), "{of_first:?}");
    assert_eq!(by_kind("finished")["attempt"], 2);
    let again = of_first.iter().filter(|event| event["kind"] == "started").nth(1).expect("a second attempt");
    assert_eq!(again["resumed_from_samples"], 320);
    assert_eq!(kinds(&all).last(), Some(&"fit"));
    assert!(all.last().expect("a fit")["verdict"].is_string(), "{all:?}");
    for event in &all {
        assert_eq!(event["schema"], "sweep.event/1");
        assert_eq!(event["sweeps"], serde_json::json!(["tiny"]));
    }
    // For people the same, a line each.
    let lines = bench.sweep(&["events", "tiny", "--kind", "failed,given_up"]);
    let lines = String::from_utf8(lines.stdout).expect("text");
    assert!(lines.lines().all(|line| line.contains(" #1 failed (crash) ")), "{lines}");
    assert_eq!(lines.lines().count(), 4);
    assert_eq!(events(&bench, &["--since", "2100-01-01"]).len(), 0);
    assert_eq!(events(&bench, &["--since", "1d"]).len(), all.len());
}

#[test]
fn a_program_goes_on_where_it_stopped_with_steps_of_curves_too() {
    let bench = Bench::new(SPEC);
    bench.finish();
    let all = events(&bench, &["--metrics"]);
    let cursors: BTreeSet<&str> = all.iter().map(cursor).collect();
    assert_eq!(cursors.len(), all.len(), "every event has a place of its own");
    let steps = all.iter().filter(|event| event["kind"] == "metrics").count();
    let stored = bench.ask("SELECT count(*)::text FROM (SELECT DISTINCT attempt_id, step FROM metric) step");
    assert_eq!(vec![steps.to_string()], stored);
    // Wherever it stops, in the middle of a batch of steps too, the rest follows.
    for place in (0..all.len()).step_by(7) {
        assert_eq!(events(&bench, &["--metrics", "--after", cursor(&all[place])]), all[place + 1..]);
    }
    let last = cursor(all.last().expect("there are some"));
    assert_eq!(events(&bench, &["--metrics", "--after", last]).len(), 0);
    // A cursor of steps holds for those who ask for none.
    let step = all.iter().find(|event| event["kind"] == "metrics").expect("a step");
    let rest = events(&bench, &["--after", cursor(step)]);
    let told = events(&bench, &[]);
    assert_eq!(rest, told[told.len() - rest.len()..]);
    let wrong = transcript(&bench.sweep(&["events", "--after", "yesterday"]));
    assert!(wrong.starts_with("exit: 2") && wrong.contains("as 1042-17"), "{wrong}");
}

/// A transaction that began first commits last: what it wrote must not be passed over, nor what others wrote be told
/// twice.
#[test]
fn transactions_that_commit_out_of_order_lose_nothing() {
    let bench = Bench::new(SPEC);
    bench.finish();
    let before = events(&bench, &[]);
    let after = cursor(before.last().expect("there are some")).to_owned();
    let note = "INSERT INTO event (job_id, kind, detail) SELECT min(job_id), 'given up', 'the first' FROM job";
    let first = bench.hold(note);
    bench.ask(
        "WITH told AS (INSERT INTO event (job_id, kind, detail) SELECT min(job_id), 'given up', 'the second' FROM job
                       RETURNING kind) SELECT kind FROM told",
    );
    assert_eq!(
        events(&bench, &["--after", &after]).len(),
        0,
        "the second waits for the first, which has a smaller place"
    );
    bench.release(first);
    let both = events(&bench, &["--after", &after]);
    let reasons: Vec<&Value> = both.iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, ["the first", "the second"]);
    assert_eq!(events(&bench, &["--after", cursor(&both[0])]), both[1..]);
}

#[test]
fn a_history_of_another_server_is_said() {
    let bench = Bench::new(SPEC);
    bench.finish();
    bench.ask("WITH moved AS (UPDATE event SET txid = 1000000000000 WHERE kind = 'finished' RETURNING kind) SELECT kind FROM moved");
    let said = transcript(&bench.sweep(&["events"]));
    assert!(said.starts_with("exit: 3") && said.contains("hint: make them its oldest"), "{said}");
    bench.ask("WITH moved AS (UPDATE event SET txid = 0 RETURNING kind) SELECT kind FROM moved");
    assert!(events(&bench, &[]).iter().any(|event| event["kind"] == "finished"));
}

/// A follower that is killed when it is dropped.
struct Follower(Child);

impl Follower {
    fn start(bench: &Bench, more: &[&str]) -> Follower {
        let mut command = bench.command(&[&["events", "--json", "-f"], more].concat());
        Follower(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sweep starts"))
    }

    fn lines(&mut self) -> impl Iterator<Item = Value> + use<> {
        let stdout = BufReader::new(self.0.stdout.take().expect("it is piped"));
        stdout.lines().map(|line| serde_json::from_str(&line.expect("text")).expect("a line is JSON"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_follower_sees_each_event_once_and_ends_when_it_is_asked_to() {
    let bench = Bench::new(SPEC);
    bench.sweep(&["db", "start"]);
    let mut follower = Follower::start(&bench, &[]);
    let mut lines = follower.lines();
    let launch = bench.launch("");
    let mut seen = Vec::new();
    while seen.iter().filter(|event: &&Value| event["kind"] == "finished").count() < 4 {
        seen.push(lines.next().expect("it goes on"));
    }
    launch.wait();
    assert_eq!(seen, events(&bench, &[])[..seen.len()]);
    kill(Pid::from_raw(follower.0.id().cast_signed()), Signal::SIGINT).expect("it is ours");
    assert_eq!(lines.count(), events(&bench, &[]).len() - seen.len());
    assert_eq!(follower.0.wait().expect("it ends").code(), Some(0));
    // One whose output nobody reads ends by itself, though nothing happens.
    let last = cursor(seen.last().expect("there are some"));
    let mut alone = Follower::start(&bench, &["--after", last]);
    drop(alone.0.stdout.take());
    assert_eq!(alone.0.wait().expect("it ends").code(), Some(0));
    let mut said = String::new();
    alone.0.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
}
