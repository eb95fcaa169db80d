//! Jobs one after another in one process.

use std::fs;
use std::io::{BufRead, BufReader};

use protocol::{Event, Job, exit};

use crate::harness::{Bench, events, last_checkpoint, run, start_serving};

/// What has to be the same however a job is run: all but times, and paths, which hold the job's own name.
fn essence(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Step { step, loss, metrics, .. } => {
            format!("{step} {} {} {}", loss.to_bits(), metrics["lr"].to_bits(), metrics["logit_scale"].to_bits())
        }
        Event::Checkpoint { step, .. } => format!("checkpoint {step}"),
        Event::Finished { samples_seen, .. } => format!("finished {samples_seen}"),
        event => serde_json::to_string(event).expect("JSON"),
    };
    events.iter().map(line).collect()
}

fn weights(events: &[Event]) -> Vec<u8> {
    fs::read(last_checkpoint(events).join("model.safetensors")).expect("weights")
}

/// Jobs that differ in what is kept from one to the next: data size, seed, model, evaluations.
fn jobs(bench: &Bench, prefix: &str) -> Vec<Job> {
    let job = |name: &str, change: &dyn Fn(&mut Job)| {
        let mut job = bench.job(&format!("{prefix}-{name}"));
        change(&mut job);
        job
    };
    vec![
        job("first", &|_| {}),
        job("fewer", &|job| job.spec.data_size = 40),
        job("wider", &|job| job.spec.model.config.vision_cfg.width *= 2),
        job("templates", &|job| job.spec.evaluations[0].templates = vec!["{}".to_owned()]),
        job("vocabulary", &|job| job.spec.model.config.text_cfg.vocab_size += 100),
        job("again", &|job| job.spec.seed = 12),
    ]
}

#[test]
fn a_job_gives_the_same_weights_and_numbers_whatever_ran_before_it() {
    let bench = Bench::new();
    let served = jobs(&bench, "served");
    let output = start_serving(&served.iter().collect::<Vec<_>>()).wait_with_output().expect("clip-runner ends");
    let (all, code) = events(&output);
    assert_eq!(code, exit::FINISHED, "{}", String::from_utf8_lossy(&output.stderr));
    let parts: Vec<&[Event]> = all.split_inclusive(|event| matches!(event, Event::Finished { .. })).collect();
    assert_eq!(parts.len(), served.len());
    for (part, alone) in parts.iter().zip(jobs(&bench, "alone")) {
        let (expected, code) = run(&alone);
        assert_eq!((code, essence(part)), (exit::FINISHED, essence(&expected)), "{:?}", alone.attempt_dir);
        assert!(weights(part) == weights(&expected), "{:?}", alone.attempt_dir);
    }
}

#[test]
fn a_job_that_fails_ends_the_process_as_it_would_alone() {
    let bench = Bench::new();
    let (mut refused, after) = (bench.job("refused"), bench.job("after"));
    refused.spec.data.digest = "0".repeat(64);
    let first = bench.job("first");
    let output = start_serving(&[&first, &refused, &after]).wait_with_output().expect("clip-runner ends");
    let (all, code) = events(&output);
    assert_eq!(code, exit::BAD_INPUT);
    assert!(matches!(all.last(), Some(Event::Failed { reason, .. }) if reason.contains("has changed")), "{all:?}");
    assert_eq!(all.iter().filter(|event| matches!(event, Event::Finished { .. })).count(), 1);
}

#[test]
fn sigterm_stops_the_job_after_a_checkpoint() {
    let bench = Bench::new();
    let mut long = bench.job("long");
    long.spec.samples_seen = 32 * 100_000;
    let mut child = start_serving(&[&long]);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let step = lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains("\"step\""));
    assert!(step.is_some());
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    let rest: Vec<Event> = lines
        .map(|line| line.expect("a line"))
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert!(matches!(rest.last(), Some(Event::Checkpoint { .. })), "{rest:?}");
    assert_eq!(child.wait().expect("it ends").code(), Some(exit::STOPPED));
}
