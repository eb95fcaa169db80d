//! What a GPU trains is what a CPU trains, but for rounding. `scripts/gpu/check.sh` runs this on a machine with a GPU;
//! elsewhere two threads are held against one.

use std::collections::BTreeMap;
use std::process::Command;

use protocol::{Augmentation, Description, Event, Job, Precision, exit};

use crate::harness::{Bench, measured, run, runner};

/// Steps' losses and gradients' norms, and what was measured at the end.
struct Trained {
    losses: Vec<f64>,
    norms: Vec<f64>,
    measured: BTreeMap<String, f64>,
}

fn trained(job: &Job) -> Trained {
    let (events, code) = run(job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let mut found = Trained { losses: Vec::new(), norms: Vec::new(), measured: BTreeMap::new() };
    for event in &events {
        if let Event::Step { loss, metrics, .. } = event {
            found.losses.push(*loss);
            found.norms.push(metrics["grad_norm"]);
        }
    }
    let end = measured(&events, job.spec.samples_seen);
    found.measured = end.into_iter().map(|row| (row.metric, row.value)).collect();
    found
}

fn furthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
#[expect(clippy::print_stderr, reason = "says what it compared, and how far apart that was")]
fn a_gpu_trains_what_a_cpu_trains() {
    let said = Command::new(runner()).arg("describe").output().expect("clip-runner starts");
    let described: Description = serde_json::from_slice(&said.stdout).expect("a description");
    let other = described.devices.first().filter(|device| device.starts_with("cuda"));
    eprintln!("beside a CPU's thread: {}", other.map_or("two threads, since no GPU is here", |device| device));
    let bench = Bench::new();
    // Rounding of float32, and of bfloat16 in every product.
    for (precision, tolerance) in [(Precision::Fp32, 1e-3), (Precision::AmpBf16, 3e-2)] {
        for parts in [1, 2] {
            let job = |name: &str| {
                let mut job = bench.job(&format!("{name}-{precision:?}-{parts}"));
                (job.spec.recipe.precision, job.spec.recipe.accum_freq) = (precision, parts);
                job.spec.recipe.grad_checkpointing = parts > 1 && name == "other";
                job.spec.recipe.augmentation = Augmentation::RandomResizedCrop;
                job.spec.samples_seen = 320;
                job
            };
            let mut elsewhere = job("other");
            match other {
                Some(gpu) => elsewhere.resources.device.clone_from(gpu),
                None => elsewhere.resources.threads = 2,
            }
            let (here, there) = (trained(&job("cpu")), trained(&elsewhere));
            let case = format!("{precision:?} in {parts} parts");
            assert_eq!(here.losses.len(), 10, "{case}");
            let [losses, norms] = [furthest(&there.losses, &here.losses), furthest(&there.norms, &here.norms)];
            eprintln!("{case}: losses differ by {losses:.1e}, gradients' norms by {norms:.1e}");
            assert!(losses < tolerance && norms < 10.0 * tolerance, "{case}: {losses} {norms}");
            // Of 64 pairs some may change places.
            for (metric, value) in &here.measured {
                assert!((there.measured[metric] - value).abs() <= 3.5 / 64.0, "{case}: {metric}");
            }
        }
    }
}
