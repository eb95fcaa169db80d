//! Loss spikes: counted, and gone back from if the job asks for it, to the same bytes however often it is interrupted.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::process::{Child, Command};

use protocol::{Event, FailureKind, Job, OnSpike, exit};

use crate::harness::{Bench, append, digest, events, last_checkpoint, measured, picture, run, runner, start};
use crate::ranks::{codes_of, run_ranks, start_ranks};

const COLOURS: [&str; 8] = ["red", "green", "blue", "yellow", "black", "purple", "orange", "grey"];
const PAIRS: usize = 8_700;
const BATCH: u64 = 32;
const STEPS: u64 = 240;
/// Steps between checkpoints.
const EVERY: u64 = 50;
/// Its batch is wrong: each caption names another colour. Reports, at which losses are looked at, are every 3 steps.
const BAD: u64 = 130;

/// A job of 240 steps over pairs that are seen once. The captions of the steps `bad` are wrong.
struct Study {
    bench: Bench,
    digest: String,
}

impl Study {
    fn new(bad: RangeInclusive<u64>) -> Study {
        let bench = Bench::new();
        let digest = write_pool(&bench, &HashSet::new());
        let study = Study { bench, digest };
        // Which keys a step sees depends on keys alone.
        let job = study.job("listed", OnSpike::GoOn);
        fs::create_dir_all(&job.attempt_dir).expect("attempt folder");
        let path = job.attempt_dir.join("job.json");
        fs::write(&path, serde_json::to_vec(&job).expect("JSON")).expect("job file");
        let mut command = Command::new(runner());
        let steps = format!("{}..{}", bad.start(), bad.end());
        let output = command.args(["batches", "--steps", &steps, "--job"]).arg(&path).output().expect("it runs");
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let keys = lines.lines().flat_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["keys"].as_array().expect("keys").clone()
        });
        let keys: HashSet<String> = keys.map(|key| key.as_str().expect("a key").to_owned()).collect();
        assert_eq!(keys.len() as u64, BATCH * (bad.end() - bad.start() + 1));
        let digest = write_pool(&study.bench, &keys);
        Study { digest, ..study }
    }

    fn job(&self, name: &str, on_spike: OnSpike) -> Job {
        let mut job = self.bench.job(name);
        let spec = &mut job.spec;
        (spec.data.path, spec.data.digest, spec.data_size) = ("many".into(), self.digest.clone(), PAIRS as u64);
        (spec.samples_seen, spec.evaluations[0].at_samples) = (BATCH * STEPS, vec![BATCH * 120]);
        (spec.recipe.checkpoint_every_samples, spec.recipe.on_spike) = (Some(BATCH * EVERY), on_spike);
        job
    }
}

fn write_pool(bench: &Bench, bad: &HashSet<String>) -> String {
    let pool = bench.dir.path().join("many");
    fs::create_dir_all(&pool).expect("pool folder");
    let pictures: Vec<Vec<u8>> = (0..72).map(picture).collect();
    let mut tar = tar::Builder::new(File::create(pool.join("00000.tar")).expect("shard"));
    for index in 0..PAIRS {
        let (key, kind) = (format!("{index:05}"), index % 72);
        let colour = COLOURS[if bad.contains(&key) { kind + 4 } else { kind } % 8];
        append(&mut tar, &format!("{key}.png"), &pictures[kind]);
        append(&mut tar, &format!("{key}.txt"), format!("a {colour} square at {}", kind / 8).as_bytes());
    }
    tar.finish().expect("shard");
    fs::write(pool.join("sizes.json"), format!(r#"{{"00000.tar": {PAIRS}}}"#)).expect("sizes");
    digest(&pool)
}

/// Step, loss, and the counts that it tells.
fn told(events: &[Event]) -> Vec<(u64, f64, [Option<f64>; 3])> {
    let told = events.iter().filter_map(|event| {
        let Event::Step { step, loss, metrics, .. } = event else { return None };
        let count = |name: &str| metrics.get(name).copied();
        Some((*step, *loss, ["spikes", "rollbacks", "skipped_samples"].map(count)))
    });
    told.collect()
}

fn assert_same_end(one: &[Event], other: &[Event]) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |events: &[Event]| fs::read(last_checkpoint(events).join(file)).expect("checkpoint");
        assert!(bytes(one) == bytes(other), "{file} differs");
    }
    assert_eq!(measured(one, BATCH * STEPS), measured(other, BATCH * STEPS));
    assert_eq!(told(one).last(), told(other).last());
}

fn kept(events: &[Event]) -> Vec<u64> {
    let steps = events.iter().filter_map(|event| match event {
        Event::Checkpoint { step, .. } => Some(*step),
        _ => None,
    });
    steps.collect()
}

/// Waits until the runner says on standard error that it went back, and does something to it then.
fn once_back(child: &mut Child, act: impl FnOnce(&mut Child)) {
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let back = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("back at ")));
    assert!(back.is_some(), "it never went back");
    act(child);
    lines.for_each(drop);
}

#[test]
fn a_spike_is_counted_and_changes_nothing() {
    let study = Study::new(BAD..=BAD);
    let (events, code) = run(&study.job("counted", OnSpike::GoOn));
    assert_eq!(code, exit::FINISHED, "{:?}", events.last());
    let told = told(&events);
    assert_eq!(told.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), (3..=STEPS).step_by(3).collect::<Vec<_>>());
    for (step, _, counts) in &told {
        let spikes = (*step >= BAD).then_some(1.0);
        assert_eq!(*counts, [spikes, None, None], "step {step}");
    }
    // Without one the last step alone tells how many there were.
    let mut good = study.job("good", OnSpike::GoOn);
    good.spec.samples_seen = BATCH * 100;
    good.spec.evaluations.clear();
    let (events, _) = run(&good);
    let spikes: Vec<f64> = self::told(&events).iter().filter_map(|(.., counts)| counts[0]).collect();
    assert_eq!(spikes, [0.0]);
}

#[test]
fn a_job_goes_back_and_on_with_other_data_to_the_same_bytes() {
    let study = Study::new(BAD..=BAD);
    let job = |name: &str, fence| Job { fence, ..study.job(name, OnSpike::Rollback) };
    let (spiking, _) = run(&study.job("spiking", OnSpike::GoOn));
    let (whole, code) = run(&job("whole", 1));
    assert_eq!(code, exit::FINISHED, "{:?}", whole.last());
    // It is told once and in order, as if what was gone back from had not been.
    let steps = told(&whole);
    assert_eq!(steps.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), (3..=STEPS).step_by(3).collect::<Vec<_>>());
    assert_eq!(kept(&whole), [50, 100, 150, 200, STEPS]);
    let passed = (BATCH * (BAD - 100)) as f64;
    for (step, _, counts) in &steps {
        let known = (*step > 100).then_some([Some(1.0), Some(1.0), Some(passed)]);
        assert_eq!(*counts, known.unwrap_or_default(), "step {step}");
    }
    let most = |events: &[Event]| {
        told(events).iter().filter(|(step, ..)| *step > 100).map(|(_, loss, _)| *loss).fold(0.0, f64::max)
    };
    assert!(most(&whole) < 0.8 * most(&spiking), "{} and {}", most(&whole), most(&spiking));
    assert_eq!(measured(&whole, BATCH * 120).len(), measured(&spiking, BATCH * 120).len());
    // Up to the checkpoint both are the same.
    let until = |events: &[Event]| told(events).into_iter().filter(|(step, ..)| *step <= 100).collect::<Vec<_>>();
    assert_eq!(until(&whole), until(&spiking));

    // Killed right after it went back: the next attempt meets the spike again.
    let mut killed = start(&job("killed", 1));
    once_back(&mut killed, |child| child.kill().expect("kill"));
    let (said, _) = events(&with_code(killed));
    assert_eq!(kept(&said)[..2], [50, 100]);
    let (resumed, code) = run(&job("killed", 2));
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples >= BATCH * 100));
    assert_same_end(&whole, &resumed);

    // Asked to stop there: no checkpoint of its own, and the same again.
    let mut stopped = start(&job("stopped", 1));
    once_back(&mut stopped, |child| {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill").success());
    });
    let (said, code) = events(&stopped.wait_with_output().expect("it ends"));
    assert_eq!((code, &kept(&said)[..2]), (exit::STOPPED, &[50, 100][..]));
    let (resumed, _) = run(&job("stopped", 2));
    assert_same_end(&whole, &resumed);

    // Killed behind the spike: what was passed over is in the checkpoint.
    let mut killed = start(&job("behind", 1));
    for line in BufReader::new(killed.stdout.take().expect("piped")).lines() {
        let event: Event = serde_json::from_str(&line.expect("events")).expect("an event");
        if matches!(event, Event::Checkpoint { step: 150, .. }) {
            killed.kill().expect("kill");
        }
    }
    killed.wait().expect("ends");
    let (resumed, _) = run(&job("behind", 2));
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples >= BATCH * 150));
    assert_same_end(&whole, &resumed);
}

/// What a killed process had said; it has no exit code.
fn with_code(child: Child) -> std::process::Output {
    let mut output = child.wait_with_output().expect("it ends");
    output.status = std::os::unix::process::ExitStatusExt::from_raw(0);
    output
}

#[test]
fn ranks_go_back_together() {
    let study = Study::new(BAD..=BAD);
    let job = |name: &str, fence| Job { fence, ..study.job(name, OnSpike::Rollback) };
    let whole = run_ranks(&job("whole", 1), 2);
    let passed = (BATCH * (BAD - 100)) as f64;
    assert_eq!(told(&whole).last().expect("steps").2, [Some(1.0), Some(1.0), Some(passed)]);
    let mut ranks = start_ranks(&job("moved", 1), 2);
    let second = ranks[1].id().to_string();
    once_back(&mut ranks[0], |_| {
        assert!(Command::new("kill").args(["-TERM", &second]).status().expect("kill").success());
    });
    let first = ranks.remove(0).wait_with_output().expect("it ends");
    assert_eq!(codes_of(ranks), [Some(exit::STOPPED)]);
    let (said, code) = events(&first);
    assert_eq!((code, &kept(&said)[..2]), (exit::STOPPED, &[50, 100][..]));
    assert_same_end(&whole, &run_ranks(&job("moved", 2), 2));
}

#[test]
fn a_job_that_only_spikes_has_diverged() {
    let study = Study::new(BAD..=BAD + 20);
    let (events, code) = run(&study.job("hopeless", OnSpike::Rollback));
    assert_eq!(code, exit::FAILED);
    let Some(Event::Failed { reason, kind: FailureKind::Diverged }) = events.last() else { panic!("{events:?}") };
    assert!(reason.contains("after 10 rollbacks") && reason.contains("lower learning rate"), "{reason}");
    assert_eq!(kept(&events), [50, 100]);
}
