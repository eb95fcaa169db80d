//! Jobs that start from weights, and jobs that only measure them.

use std::fs;

use protocol::{Event, FailureKind, Job, Weights, exit};
use sha2::{Digest as _, Sha256};

use crate::harness::{Bench, last_checkpoint, run};

/// The weights of a checkpoint, under a name of their own.
fn weights_of(events: &[Event], job: &Job) -> Weights {
    let from = last_checkpoint(events).join("model.safetensors");
    let path = job.base_dir.join("weights.safetensors");
    fs::copy(from, &path).expect("a checkpoint");
    let sha256 = format!("{:x}", Sha256::digest(fs::read(&path).expect("it was copied")));
    Weights { path: "weights.safetensors".into(), sha256 }
}

fn losses(events: &[Event]) -> Vec<f64> {
    events.iter().filter_map(|event| if let Event::Step { loss, .. } = event { Some(*loss) } else { None }).collect()
}

#[test]
fn given_weights_are_measured_as_in_training_and_trained_on() {
    let bench = Bench::new();
    let job = bench.job("trained");
    let (trained, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    let measured = |events: &[Event], at: u64| {
        let eval = events.iter().find_map(|event| match event {
            Event::Eval { samples_seen, measurements, unmeasured, .. } if *samples_seen == at => {
                Some((measurements.clone(), unmeasured.clone()))
            }
            _ => None,
        });
        eval.expect("it was measured")
    };

    let mut only = bench.job("measured");
    only.spec.init = Some(weights_of(&trained, &job));
    only.spec.samples_seen = 0;
    // Nothing of the pool to train on is needed.
    only.spec.data.path = "nowhere".into();
    only.spec.evaluations[0].at_samples.clear();
    let (events, code) = run(&only);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    assert!(matches!(events[0], Event::Started { resumed_from_samples: 0, data: None, .. }), "{:?}", events[0]);
    assert_eq!(measured(&events, 0), measured(&trained, 192), "the same bits");
    assert!(matches!(events.last(), Some(Event::Finished { samples_seen: 0, .. })));

    let mut on = bench.job("on");
    on.spec.init.clone_from(&only.spec.init);
    let (events, code) = run(&on);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    assert!(losses(&events)[0] < losses(&trained)[0], "{:?} after {:?}", losses(&events), losses(&trained));
}

#[test]
fn weights_that_are_gone_changed_or_of_another_model_fail_the_job() {
    let bench = Bench::new();
    let job = bench.job("trained");
    let (trained, _) = run(&job);
    let given = weights_of(&trained, &job);
    let refused = |name: &str, change: &dyn Fn(&mut Job)| {
        let mut job = bench.job(name);
        job.spec.init = Some(given.clone());
        change(&mut job);
        let (events, code) = run(&job);
        assert_eq!(code, exit::BAD_INPUT, "{events:?}");
        match events.last() {
            Some(Event::Failed { reason, kind: FailureKind::BadInput }) => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let wider = refused("wider", &|job| job.spec.model.config.text_cfg.context_length = 16);
    assert!(wider.contains("`positional_embedding` is [12, 32] in the file, [16, 32] in the model"), "{wider}");
    let gone = refused("gone", &|job| job.spec.init.as_mut().expect("set").path = "other.pt".into());
    assert!(gone.contains("other.pt") && gone.contains("No such file"), "{gone}");
    let nothing = refused("nothing", &|job| (job.spec.init, job.spec.samples_seen) = (None, 0));
    assert!(nothing.contains("`samples_seen` is 0") && nothing.contains("no `init` to measure"), "{nothing}");
    fs::write(job.base_dir.join("weights.safetensors"), "others").expect("it is ours");
    let changed = refused("changed", &|_| ());
    assert!(changed.contains("have changed since the job was planned") && changed.contains("plan again"), "{changed}");
}
