//! A job that goes on from another's checkpoint ends as one that was trained alone.

use std::fs;
use std::io::{BufRead, BufReader};

use protocol::{Event, Job, ParentCheckpoint, Schedule, exit};

use crate::harness::{Bench, last_checkpoint, measured, run, start};

const STEPS: u64 = 200;

/// 200 steps, of which the last 40 cool down; measured in the middle of those too.
fn cooled(bench: &Bench, name: &str) -> Job {
    let mut job = bench.job(name);
    job.spec.samples_seen = 32 * STEPS;
    (job.spec.recipe.schedule, job.spec.recipe.cooldown_samples) = (Schedule::ConstantCooldown, 32 * 40);
    job.spec.evaluations[0].at_samples = vec![32 * 160, 32 * 180];
    job
}

/// What comes before its cooldown, as a job of its own.
fn trunk(bench: &Bench, name: &str) -> Job {
    let mut job = cooled(bench, name);
    job.job_key = "6".repeat(64);
    job.spec = job.spec.trunk().expect("a part before the cooldown");
    assert_eq!((job.spec.samples_seen, job.spec.recipe.schedule), (32 * 160, Schedule::Constant));
    job
}

fn end_of(events: &[Event]) -> ParentCheckpoint {
    let found = events.iter().rev().find_map(|event| match event {
        Event::Checkpoint { samples_seen, path, sha256, .. } => {
            Some(ParentCheckpoint { path: path.clone(), sha256: sha256.clone(), samples_seen: *samples_seen })
        }
        _ => None,
    });
    found.expect("a checkpoint")
}

fn assert_same_end(alone: &[Event], branch: &[Event]) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |events: &[Event]| fs::read(last_checkpoint(events).join(file)).expect("checkpoint");
        assert!(bytes(alone) == bytes(branch), "{file} differs");
    }
    for at in [32 * 160, 32 * 180, 32 * STEPS] {
        assert_eq!(measured(alone, at), measured(branch, at));
    }
}

fn resumed_from(events: &[Event]) -> u64 {
    let Event::Started { resumed_from_samples, .. } = events[0] else { panic!("{events:?}") };
    resumed_from_samples
}

#[test]
fn a_branch_ends_with_the_bytes_of_a_job_trained_alone() {
    let bench = Bench::new();
    let (alone, code) = run(&cooled(&bench, "alone"));
    assert_eq!(code, exit::FINISHED);
    let rates: Vec<f64> = alone
        .iter()
        .filter_map(|e| if let Event::Step { metrics, .. } = e { Some(metrics["lr"]) } else { None })
        .collect();
    let peak = cooled(&bench, "x").spec.recipe.lr;
    assert!((rates[79] - peak).abs() < 1e-12 && rates[99] < 0.03 * peak && rates[89] < 0.55 * peak, "{rates:?}");

    let (whole, _) = run(&trunk(&bench, "trunk"));
    let branch = Job { parent: Some(end_of(&whole)), ..cooled(&bench, "branch") };
    let (events, code) = run(&branch);
    assert_eq!((code, resumed_from(&events)), (exit::FINISHED, 32 * 160));
    assert_same_end(&alone, &events);

    // The trunk is killed on the way.
    let often = |fence| {
        let mut job = Job { fence, ..trunk(&bench, "killed") };
        job.spec.recipe.checkpoint_every_samples = Some(32 * 7);
        job
    };
    let mut killed = start(&often(1));
    for line in BufReader::new(killed.stdout.take().expect("piped")).lines() {
        let event: Event = serde_json::from_str(&line.expect("events")).expect("an event");
        if matches!(event, Event::Checkpoint { step: 77, .. }) {
            killed.kill().expect("kill");
        }
    }
    killed.wait().expect("ends");
    let (resumed, _) = run(&often(2));
    assert!(resumed_from(&resumed) >= 32 * 77);
    let branch = Job { parent: Some(end_of(&resumed)), ..cooled(&bench, "of-killed") };
    let (events, _) = run(&branch);
    assert_eq!(resumed_from(&events), 32 * 160);
    assert_same_end(&alone, &events);
    // Its own checkpoint, once there is one, comes before the parent's.
    let (again, _) = run(&Job { fence: 2, ..branch });
    assert_eq!(resumed_from(&again), 32 * STEPS);
}

#[test]
fn without_its_parents_checkpoint_a_job_begins_at_the_beginning() {
    let bench = Bench::new();
    let (alone, _) = run(&cooled(&bench, "alone"));
    let (whole, _) = run(&trunk(&bench, "trunk"));
    let parent = end_of(&whole);
    let another =
        Job { parent: Some(ParentCheckpoint { sha256: "0".repeat(64), ..parent.clone() }), ..cooled(&bench, "a") };
    let (events, code) = run(&another);
    assert_eq!((code, resumed_from(&events)), (exit::FINISHED, 0));
    assert_same_end(&alone, &events);
    fs::remove_dir_all(&parent.path).expect("it was there");
    let (events, code) = run(&Job { parent: Some(parent), ..cooled(&bench, "gone") });
    assert_eq!((code, resumed_from(&events)), (exit::FINISHED, 0));
    assert_same_end(&alone, &events);
}
