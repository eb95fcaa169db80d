//! Several processes at one job: what they train is what one process trains, but for the order of sums.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use protocol::{Event, Job, Loss, ParentCheckpoint, Ranks, Weights, exit};
use safetensors::SafeTensors;

use crate::harness::{Bench, events, last_checkpoint, measured, run, runner, start};

/// Starts `world` processes on a job.
pub(crate) fn start_ranks(job: &Job, world: usize) -> Vec<Child> {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let master_port = socket.local_addr().expect("it is bound").port();
    drop(socket);
    let ranks = Ranks { world_size: world, master_addr: "127.0.0.1".into(), master_port };
    let job = Job { ranks: Some(ranks), ..job.clone() };
    std::fs::create_dir_all(&job.attempt_dir).expect("attempt folder");
    let path = job.attempt_dir.join("job.json");
    std::fs::write(&path, serde_json::to_vec(&job).expect("JSON")).expect("job file");
    (0..world)
        .map(|rank| {
            let mut command = Command::new(runner());
            command.args(["run", "--job"]).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
            command.env("WORLD_SIZE", world.to_string());
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", master_port.to_string());
            command.spawn().expect("clip-runner starts")
        })
        .collect()
}

/// Exit codes of all ranks; all but the first have said nothing on standard output.
pub(crate) fn codes_of(ranks: impl IntoIterator<Item = Child>) -> Vec<Option<i32>> {
    let code = |child: Child| {
        let output = child.wait_with_output().expect("clip-runner ends");
        assert!(output.stdout.is_empty(), "events are rank 0's: {}", String::from_utf8_lossy(&output.stdout));
        output.status.code()
    };
    ranks.into_iter().map(code).collect()
}

/// Runs a job on `world` ranks to its end, and gives rank 0's events.
pub(crate) fn run_ranks(job: &Job, world: usize) -> Vec<Event> {
    let mut ranks = start_ranks(job, world);
    let first = ranks.remove(0).wait_with_output().expect("clip-runner ends");
    assert_eq!(codes_of(ranks), vec![Some(exit::FINISHED); world - 1]);
    let (events, code) = events(&first);
    assert_eq!(code, exit::FINISHED, "{}", String::from_utf8_lossy(&first.stderr));
    events
}

fn floats(checkpoint: &Path, file: &str) -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(checkpoint.join(file)).expect("checkpoint");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut all: Vec<(String, Vec<f32>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (words, _) = view.data().as_chunks();
            (name, words.iter().map(|word| f32::from_le_bytes(*word)).collect())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The difference of two checkpoints' parameters, relative to their size (Euclidean norms over all of them).
fn apart(one: &[Event], other: &[Event]) -> f64 {
    let read = |events: &[Event]| floats(&last_checkpoint(events), "model.safetensors");
    let (one, other) = (read(one), read(other));
    assert_eq!(one.iter().map(|t| &t.0).collect::<Vec<_>>(), other.iter().map(|t| &t.0).collect::<Vec<_>>());
    let values = |all: &[(String, Vec<f32>)]| -> Vec<f64> {
        all.iter().flat_map(|(_, values)| values).map(|value| f64::from(*value)).collect()
    };
    let (one, other) = (values(&one), values(&other));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut one.iter().zip(&other).map(|(a, b)| a - b)) / norm(&mut one.iter().copied())
}

/// What both measured at a position differs by one item of the test at most.
fn assert_same_numbers(one: &[Event], other: &[Event], at: u64) {
    let (one, other) = (measured(one, at), measured(other, at));
    assert_eq!(one.len(), other.len());
    for (a, b) in one.iter().zip(&other) {
        let item = 1.0 / a.count.expect("a share of so many") as f64;
        assert!(a.metric == b.metric && (a.value - b.value).abs() <= item + 1e-12, "{a:?}, {b:?}");
    }
}

/// 50 steps of `batch` samples. At a rate of 1e-4: AdamW divides by the size of gradients, so that those which are
/// nothing but rounding move parameters too, by up to the rate. (At the 2e-3 of other tests one process ends 1e-5 from
/// itself when `accum_freq` changes the order of its sums.)
fn fifty(bench: &Bench, name: &str, batch: u64) -> Job {
    let mut job = bench.job(name);
    (job.spec.recipe.global_batch, job.spec.recipe.lr) = (batch, 1e-4);
    job.spec.samples_seen = batch * 50;
    job.spec.evaluations[0].at_samples = vec![batch * 20];
    job
}

#[test]
fn one_two_and_four_ranks_train_the_same_parameters() {
    let bench = Bench::new();
    let job = |name: &str| fifty(&bench, name, 32);
    let (alone, code) = run(&job("alone"));
    assert_eq!(code, exit::FINISHED);
    for (world, loss, parts) in [(2, Loss::Fused, 1), (4, Loss::Fused, 1), (2, Loss::Fused, 2), (2, Loss::Reference, 1)]
    {
        let mut job = job(&format!("{world}-{loss:?}-{parts}"));
        (job.spec.recipe.loss, job.spec.recipe.accum_freq) = (loss, parts);
        let ranks = run_ranks(&job, world);
        let off = apart(&alone, &ranks);
        assert!(off < 1e-6, "{world} ranks, {loss:?} in {parts} parts: {off}");
        assert_same_numbers(&alone, &ranks, 32 * 20);
        assert_same_numbers(&alone, &ranks, 32 * 50);
        let Event::Started { device, data, .. } = &ranks[0] else { panic!("{ranks:?}") };
        assert_eq!(device, &format!("{world} ranks, each cpu (1 thread)"));
        let Event::Started { data: whole, .. } = &alone[0] else { panic!("{alone:?}") };
        assert_eq!(data, whole);
        // The norm of the gradient of all ranks, and the loss of all their pairs.
        for (a, b) in steps(&alone).zip(steps(&ranks)) {
            assert!((a.0 - b.0).abs() < 1e-5 * a.0 && (a.1 - b.1).abs() < 1e-4 * a.1, "{a:?}, {b:?}");
        }
        assert_eq!(steps(&ranks).count(), 50);
    }
}

#[test]
fn the_sigmoid_loss_over_ranks() {
    let bench = Bench::new();
    let job = |name: &str| {
        let mut job = fifty(&bench, name, 32);
        job.spec.recipe.loss = Loss::Siglip;
        let config = &mut job.spec.model.config;
        (config.init_logit_scale, config.init_logit_bias) = (Some(10_f64.ln()), Some(-10.0));
        job
    };
    let (alone, code) = run(&job("alone"));
    assert_eq!(code, exit::FINISHED);
    let off = apart(&alone, &run_ranks(&job("three"), 3));
    assert!(off < 1e-6, "{off}");
}

/// Loss and gradient norm of each step.
fn steps(events: &[Event]) -> impl Iterator<Item = (f64, f64)> {
    events.iter().filter_map(|event| match event {
        Event::Step { loss, metrics, .. } => Some((*loss, metrics["grad_norm"])),
        _ => None,
    })
}

#[test]
fn a_batch_that_is_no_multiple_of_the_ranks() {
    let bench = Bench::new();
    let job = |name: &str| {
        let mut job = fifty(&bench, name, 30);
        job.spec.recipe.augmentation = protocol::Augmentation::RandomResizedCrop;
        job
    };
    let (alone, _) = run(&job("alone"));
    let off = apart(&alone, &run_ranks(&job("four"), 4));
    assert!(off < 1e-6, "shares of 8, 8, 7, 7: {off}");
}

#[test]
fn stopped_on_four_ranks_and_resumed_on_two() {
    let bench = Bench::new();
    let job = |name: &str, fence| Job { fence, ..fifty(&bench, name, 32) };
    let (alone, _) = run(&job("alone", 1));

    // One rank alone is asked, and not the first: all stop after the same step.
    let mut ranks = start_ranks(&job("moved", 1), 4);
    let mut said = Vec::new();
    for line in BufReader::new(ranks[0].stdout.take().expect("piped")).lines() {
        said.push(serde_json::from_str::<Event>(&line.expect("events")).expect("an event"));
        if matches!(said.last(), Some(Event::Step { step: 5, .. })) {
            let asked = Command::new("kill").args(["-TERM", &ranks[2].id().to_string()]).status().expect("kill");
            assert!(asked.success());
        }
    }
    assert_eq!(codes_of(ranks), [Some(exit::STOPPED); 4]);
    let Some(&Event::Checkpoint { samples_seen: kept, .. }) = said.last() else { panic!("{said:?}") };
    assert!((32 * 5..32 * 50).contains(&kept), "stopped before the end");

    let resumed = run_ranks(&job("moved", 2), 2);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples == kept));
    let off = apart(&alone, &resumed);
    assert!(off < 1e-6, "{off}");
    assert_same_numbers(&alone, &resumed, 32 * 50);
    // Checkpoints tell nothing of ranks: one process goes on from the same.
    let newest = last_checkpoint(&resumed);
    std::fs::remove_dir_all(&newest).expect("it was there");
    let (by_one, code) = run(&job("moved", 3));
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(by_one[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples == kept));
    assert!(apart(&alone, &by_one) < 1e-6);
}

#[test]
fn ranks_whose_peer_is_killed_leave_and_the_job_resumes() {
    let bench = Bench::new();
    let job = |name: &str, fence| {
        let mut job = Job { fence, ..fifty(&bench, name, 32) };
        job.spec.recipe.checkpoint_every_samples = Some(32 * 7);
        job
    };
    let (alone, _) = run(&job("alone", 1));
    // Rank 1 dies, then rank 0, which is the one that speaks.
    for (fence, dies, at) in [(1, 1, 32 * 14), (2, 0, 32 * 21)] {
        let mut ranks = start_ranks(&job("killed", fence), 3);
        let mut said = Vec::new();
        for line in BufReader::new(ranks[0].stdout.take().expect("piped")).lines() {
            let Ok(event) = serde_json::from_str::<Event>(&line.expect("events")) else { break };
            if matches!(event, Event::Checkpoint { samples_seen, .. } if samples_seen == at) {
                ranks[dies].kill().expect("kill");
            }
            said.push(event);
        }
        ranks.remove(dies).wait().expect("ends");
        assert_eq!(codes_of(ranks), [Some(exit::FAILED); 2]);
        let told = said.iter().any(|event| {
            matches!(event, Event::Failed { reason, kind: protocol::FailureKind::Crash } if reason.contains("rank 1 is gone"))
        });
        assert_eq!(told, dies == 1, "{said:?}");
    }
    let resumed = run_ranks(&job("killed", 3), 3);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples >= 32 * 21));
    assert!(apart(&alone, &resumed) < 1e-6);
}

#[test]
fn ranks_go_on_from_a_parent_and_measure_given_weights() {
    let bench = Bench::new();
    let mut trunk = fifty(&bench, "trunk", 32);
    (trunk.job_key, trunk.spec.samples_seen) = ("6".repeat(64), 32 * 30);
    trunk.spec.recipe.schedule = protocol::Schedule::Constant;
    let (events, _) = run(&trunk);
    let Some(Event::Checkpoint { path, sha256, samples_seen, .. }) =
        events.iter().rfind(|event| matches!(event, Event::Checkpoint { .. })).cloned()
    else {
        panic!("{events:?}")
    };
    let branch = |name: &str| {
        let mut job = fifty(&bench, name, 32);
        job.parent = Some(ParentCheckpoint { path: path.clone(), sha256: sha256.clone(), samples_seen });
        job.spec.recipe.schedule = protocol::Schedule::ConstantCooldown;
        job.spec.recipe.cooldown_samples = 32 * 20;
        job
    };
    let (alone, _) = run(&branch("alone"));
    let ranks = run_ranks(&branch("ranks"), 2);
    assert!(matches!(ranks[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples == 32 * 30));
    assert!(apart(&alone, &ranks) < 1e-6);

    // Rank 0 alone has anything to do.
    let weights = last_checkpoint(&ranks).join("model.safetensors");
    let hash = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(std::fs::read(&weights).expect("weights")));
    let sha256 = hash.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let measuring = |name: &str| {
        let mut job = bench.job(name);
        job.spec.init = Some(Weights { path: weights.clone(), sha256 });
        (job.spec.samples_seen, job.spec.evaluations[0].at_samples) = (0, Vec::new());
        job
    };
    assert_eq!(measured(&run_ranks(&measuring("measured"), 2), 0), measured(&ranks, 32 * 50));
}

#[test]
fn a_process_that_is_not_told_its_rank_says_so() {
    let bench = Bench::new();
    let mut job = bench.job("lost");
    job.ranks = Some(Ranks { world_size: 2, master_addr: "127.0.0.1".into(), master_port: 1 });
    let (events, code) = events(&start(&job).wait_with_output().expect("clip-runner ends"));
    assert_eq!(code, exit::BAD_INPUT);
    assert!(
        matches!(&events[..], [Event::Failed { reason, .. }] if reason.contains("RANK is not set") && reason.contains("2 ranks")),
        "{events:?}"
    );
}
