//! The JSON that runners and `sweep` exchange: what the README shows is what the types read and write.

use proptest::prelude::*;
use protocol::{
    Choose, DataUsed, Description, EvaluationPlan, EvaluationTask, Event, FailureKind, FineTuningPlan, Job,
    Measurement, NamedModel, ProbePlan, Ranks, ServeRequest, Shots, Weights, shipped_model,
};

const README: &str = include_str!("../README.md");

/// Code blocks of the README under the given heading.
fn blocks(heading: &str) -> Vec<&'static str> {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().expect("split gives one part");
    section.split("```json\n").skip(1).map(|rest| rest.split("```").next().expect("a closed block")).collect()
}

#[test]
fn readme_job() {
    let [text] = blocks("job.json")[..] else { panic!("one block") };
    let job: Job = serde_json::from_str(text).expect("the example is a job");
    assert_eq!(job.protocol, protocol::PROTOCOL_VERSION);
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&job).expect("serialises"), value, "the example shows every field");
    assert_eq!(job.spec.steps() * job.spec.recipe.global_batch, job.spec.samples_seen);
    let (name, config) = shipped_model(&job.spec.model.name).expect("a shipped model");
    let shipped = NamedModel { name: name.to_owned(), config: serde_json::from_str(config).expect("parses") };
    assert_eq!(shipped.config.vision_cfg, job.spec.model.config.vision_cfg);
}

#[test]
fn readme_events() {
    let mut kinds = Vec::new();
    for line in blocks("Events").concat().lines() {
        let event: Event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(serde_json::to_value(&event).expect("serialises"), value);
        kinds.push(value["event"].as_str().expect("a name").to_owned());
    }
    assert_eq!(kinds, ["started", "step", "eval", "checkpoint", "finished", "failed"]);
}

#[test]
fn readme_description() {
    let [text] = blocks("describe")[..] else { panic!("one block") };
    let description: Description = serde_json::from_str(text).expect("the example is a description");
    assert_eq!(description.protocol, protocol::PROTOCOL_VERSION);
}

#[test]
fn readme_ranks() {
    let [text] = blocks("Ranks")[..] else { panic!("one block") };
    let ranks: Ranks = serde_json::from_str(text).expect("the example is what ranks share");
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&ranks).expect("serialises"), value, "the example shows every field");
    // A job of one process is written as ever, so that older runners read it.
    let mut job: Job = serde_json::from_str(blocks("job.json")[0]).expect("the example is a job");
    assert!(job.ranks.is_none() && !serde_json::to_string(&job).expect("serialises").contains("ranks"));
    job.ranks = Some(ranks);
    let text = serde_json::to_string(&job).expect("serialises");
    assert_eq!(serde_json::from_str::<Job>(&text).expect("parses"), job);
}

#[test]
fn readme_linear_probe() {
    let [text] = blocks("Linear probes")[..] else { panic!("one block") };
    let probe: ProbePlan = serde_json::from_str(text).expect("the example is a probe");
    assert_eq!(probe.shots, [Shots::Each(1), Shots::Each(5), Shots::Vtab1k, Shots::All]);
    let written: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&probe).expect("serialises"), written);
}

#[test]
fn readme_fine_tuning() {
    let [text] = blocks("Fine-tuning")[..] else { panic!("one block") };
    let plan: FineTuningPlan = serde_json::from_str(text).expect("the example is a fine-tuning");
    let written: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&plan).expect("serialises"), written, "the example shows every field");
    // A job without one is written as ever; the pool's name and folder are no identity.
    let mut job: Job = serde_json::from_str(blocks("job.json")[0]).expect("the example is a job");
    let before = job.spec.identity();
    assert!(!serde_json::to_string(&before).expect("serialises").contains("fine_tuning"));
    let evaluation = job.spec.evaluations[0].clone();
    let tasks = vec![EvaluationTask::FineTuning];
    job.spec.evaluations[0] =
        EvaluationPlan { fine_tuning: Some(plan), ..evaluation.clone() }.with_tasks(tasks.clone());
    let tuned = job.spec.identity();
    assert_ne!(tuned, before);
    assert_eq!(job.spec.evaluations[0].sources().count(), 2);
    for (at, source) in job.spec.evaluations[0].sources_mut().enumerate() {
        (source.path, source.pool) = (format!("elsewhere {at}").into(), "another".to_owned());
    }
    assert_eq!(job.spec.identity(), tuned);
    let others = job.spec.evaluations[0].clone().with_tasks(evaluation.tasks.clone());
    assert_eq!(others.fine_tuning, None, "other tasks read no pool of it");
}

#[test]
fn readme_serve_request() {
    let [text] = blocks("Serve")[..] else { panic!("one block") };
    let request: ServeRequest = serde_json::from_str(text).expect("the example is a request");
    assert!(request.job.is_absolute());
    assert_eq!(serde_json::to_string(&request).expect("serialises"), text.trim());
}

#[test]
fn tasks_are_called_in_words_as_in_json() {
    for task in EvaluationTask::ALL {
        assert_eq!(serde_json::to_value(task).expect("JSON"), task.name());
        assert_eq!(EvaluationTask::named(task.name()), Some(task));
    }
}

#[test]
fn paths_are_no_part_of_the_identity() {
    let mut job: Job = serde_json::from_str(blocks("job.json")[0]).expect("the example is a job");
    let before = job.spec.identity();
    job.spec.data.path = "elsewhere".into();
    job.spec.evaluations[0].data.path = "elsewhere".into();
    assert_eq!(job.spec.identity(), before);
    assert!(!serde_json::to_string(&before).expect("serialises").contains("probe"), "no trace in jobs without one");

    let data = job.spec.evaluations[0].data.clone();
    let (lr, epochs) = (vec![0.1, 0.01], vec![10, 40]);
    let shots = vec![Shots::Each(5), Shots::All];
    let validation = Some(data.clone());
    let probe =
        ProbePlan { train: data, validation, shots, choose: Choose::Test, lr, epochs, batch_size: 256, seed: 0 };
    assert_eq!(
        (probe.passes_max(), ProbePlan { choose: Choose::Validation, ..probe.clone() }.passes_max()),
        (100, 740)
    );
    job.spec.evaluations[0].probe = Some(probe);
    let probed = job.spec.identity();
    let text = serde_json::to_string(&probed).expect("serialises");
    assert!(text.contains(r#""shots":[5,"all"],"choose":"test""#), "{text}");
    assert_eq!(serde_json::from_str::<protocol::JobSpec>(&text).expect("parses"), probed);
    for wrong in ["0", "\"five\"", "-1"] {
        assert!(
            serde_json::from_str::<Shots>(wrong).is_err_and(|error| error.to_string().contains("`all` or `vtab1k`")),
            "{wrong}"
        );
    }
    for (at, source) in job.spec.evaluations[0].sources_mut().enumerate() {
        source.path = format!("elsewhere {at}").into();
    }
    assert_eq!(job.spec.identity(), probed);
    let probe = job.spec.evaluations[0].probe.as_mut().expect("set above");
    probe.train.digest = "0".repeat(64);
    assert_ne!(job.spec.identity(), probed);
    job.spec.data.digest = "0".repeat(64);
    assert_ne!(job.spec.identity(), before);
}

#[test]
fn what_is_no_number_survives() {
    let text = r#"{"event":"step","step":1,"samples_seen":2,"loss":null}"#;
    let Event::Step { loss, .. } = serde_json::from_str(text).expect("null is NaN") else { panic!("a step") };
    assert!(loss.is_nan());
    for (written, value) in [("inf", f64::INFINITY), ("-inf", f64::NEG_INFINITY)] {
        let text = format!(r#"{{"event":"step","step":1,"samples_seen":2,"loss":"{written}"}}"#);
        let event: Event = serde_json::from_str(&text).expect("infinities have names");
        assert!(matches!(event, Event::Step { loss, .. } if loss.total_cmp(&value).is_eq()));
        assert!(serde_json::to_string(&event).expect("serialises").contains(&format!("\"{written}\"")));
    }
    assert!(serde_json::from_str::<Event>(&text.replace("null", "\"many\"")).is_err());
    assert!(serde_json::from_str::<Event>(&text.replace("null", "1, \"surprise\": 2")).is_err());
}

fn event() -> impl Strategy<Value = Event> {
    let number = prop_oneof![any::<i32>().prop_map(f64::from), -1e300..1e300_f64];
    let measurement =
        (".*", number.clone(), prop::option::of(number.clone()), prop::option::of(any::<u64>())).prop_map(
            |(metric, value, standard_error, count)| Measurement { metric, value, standard_error, chance: None, count },
        );
    let data = (any::<u64>(), prop::collection::btree_map(".*", any::<u64>(), 0..4))
        .prop_map(|(pairs, skipped)| DataUsed { pairs, skipped });
    prop_oneof![
        (any::<u64>(), any::<u64>(), ".*", prop::option::of(data)).prop_map(
            |(parameters, resumed_from_samples, device, data)| Event::Started {
                parameters,
                resumed_from_samples,
                device,
                data
            }
        ),
        (any::<u64>(), any::<u64>(), number.clone(), prop::collection::btree_map(".*", number.clone(), 0..4))
            .prop_map(|(step, samples_seen, loss, metrics)| Event::Step { step, samples_seen, loss, metrics }),
        (any::<u64>(), ".*", prop::collection::vec(measurement, 0..4)).prop_map(
            |(samples_seen, dataset, measurements)| Event::Eval {
                samples_seen,
                dataset,
                measurements,
                unmeasured: [(EvaluationTask::ContrastiveLoss, "too small".to_owned())].into(),
            }
        ),
        (any::<u64>(), any::<u64>(), "[a-z/]*", "[0-9a-f]{64}").prop_map(|(step, samples_seen, path, sha256)| {
            Event::Checkpoint { step, samples_seen, path: path.into(), sha256 }
        }),
        (any::<u64>(), number.clone(), number, prop::option::of(any::<u64>())).prop_map(
            |(samples_seen, train_secs, eval_secs, peak_memory_bytes)| Event::Finished {
                samples_seen,
                train_secs,
                eval_secs,
                peak_memory_bytes
            }
        ),
        (".*", prop_oneof![Just(FailureKind::Diverged), Just(FailureKind::BadInput), Just(FailureKind::Crash)])
            .prop_map(|(reason, kind)| Event::Failed { reason, kind }),
    ]
}

proptest! {
    #[test]
    fn events_round_trip(event in event()) {
        let text = serde_json::to_string(&event).expect("serialises");
        prop_assert!(!text.contains('\n'), "one line");
        prop_assert_eq!(serde_json::from_str::<Event>(&text).expect("parses"), event);
    }
}

#[test]
fn a_job_without_weights_is_written_as_ever_and_paths_are_no_identity() {
    let mut job: Job = serde_json::from_str(blocks("job.json")[0]).expect("the example is a job");
    assert!(job.spec.init.is_none() && !serde_json::to_string(&job).expect("serialises").contains("init"));
    let weights = |path: &str, digit: &str| Some(Weights { path: path.into(), sha256: digit.repeat(64) });
    let mut identity = |init| {
        job.spec.init = init;
        let text = serde_json::to_string(&job).expect("serialises");
        assert_eq!(serde_json::from_str::<Job>(&text).expect("parses"), job);
        job.spec.identity()
    };
    assert_eq!(identity(weights("a.pt", "1")), identity(weights("b.pt", "1")));
    assert_ne!(identity(weights("a.pt", "1")), identity(weights("a.pt", "2")));
    job.spec.samples_seen = 0;
    let measured = job.spec.identity();
    job.spec.seed += 1;
    job.spec.recipe.lr *= 2.0;
    job.spec.data.digest = "3".repeat(64);
    assert_eq!(job.spec.identity(), measured);
    job.spec.evaluations[0].data.digest = "3".repeat(64);
    assert_ne!(job.spec.identity(), measured);
}
