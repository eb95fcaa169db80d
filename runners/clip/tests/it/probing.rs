//! Linear probes and data sets for retrieval, by the binary.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use protocol::{Choose, DataSource, EvaluationTask, Event, FailureKind, Job, ProbePlan, Shots, exit};

use crate::harness::{Bench, append, digest, last_checkpoint, measured, picture, run, runner, write_pool};

/// A job whose evaluation probes too: trained on a second pool, of other pairs than it is measured on.
fn probed(bench: &Bench, name: &str) -> Job {
    let mut job = bench.job(name);
    let train = write_pool(&bench.dir.path().join("probe"), 64..256);
    let evaluation = &mut job.spec.evaluations[0];
    evaluation.tasks = vec![EvaluationTask::LinearProbe, EvaluationTask::ZeroshotClassification];
    evaluation.at_samples.clear();
    let shots = vec![Shots::Each(1), Shots::Each(10), Shots::All, Shots::Each(1000)];
    let (lr, epochs) = (vec![0.1, 0.01], vec![5, 20]);
    let train = DataSource { pool: "probe".into(), path: "probe".into(), digest: train };
    let validation = None;
    evaluation.probe =
        Some(ProbePlan { train, validation, shots, choose: Choose::Validation, lr, epochs, batch_size: 64, seed: 0 });
    job
}

#[test]
fn probes_are_measured_at_every_number_of_shots_and_the_same_again() {
    let bench = Bench::new();
    let job = probed(&bench, "first");
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let rows = measured(&events, 192);
    let names: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
    let of = |shots: &str| ["acc1", "acc5", "mean_per_class_recall"].map(|metric| format!("lp_{metric}@{shots}"));
    let expected: Vec<String> = ["1shot", "10shot", "full"].into_iter().flat_map(of).collect();
    assert_eq!(names[..9], expected, "there are no 1,000 of a class");
    assert_eq!(names[9..], ["acc1", "acc5", "mean_per_class_recall"]);
    let said = left_out(&events).expect("it is in no measurement, so it is said");
    assert!(said.starts_with("1000shot: left out: class 0 has") && !said.contains(';'), "{said}");
    let full = rows.iter().find(|row| row.metric == "lp_acc1@full").expect("measured");
    // Six steps of training and a few of probing: far from all, and more than four standard errors of guessing.
    assert!(full.value > 0.125 + 4.0 * (0.125 * 0.875 / 64.0_f64).sqrt(), "{full:?}");
    assert!(full.chance == Some(0.125) && full.count == Some(64) && full.standard_error.is_some(), "{full:?}");
    let (again, _) = run(&probed(&bench, "again"));
    assert_eq!(measured(&again, 192), rows);
}

#[test]
fn a_probe_chosen_on_the_test_set_is_no_worse_there() {
    let bench = Bench::new();
    let mut job = probed(&bench, "by test");
    let probe = job.spec.evaluations[0].probe.as_mut().expect("a probe");
    (probe.choose, probe.shots) = (Choose::Test, vec![Shots::Each(1), Shots::All]);
    let mut single = job.clone();
    single.attempt_dir = bench.dir.path().join("single");
    let probe = single.spec.evaluations[0].probe.as_mut().expect("a probe");
    (probe.lr, probe.epochs) = (vec![0.01], vec![5]);
    let of = |job: &Job, metric: &str| {
        let rows = measured(&run(job).0, 192);
        rows.into_iter().find(|row| row.metric == metric).expect("measured").value
    };
    for metric in ["lp_acc1@1shot", "lp_acc1@full"] {
        assert!(of(&job, metric) >= of(&single, metric), "{metric}");
    }
}

#[test]
fn what_a_probe_can_not_do_is_said() {
    let bench = Bench::new();
    let mut job = probed(&bench, "few");
    job.spec.evaluations[0].probe.as_mut().expect("a probe").shots = vec![Shots::Each(1000)];
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    let said = left_out(&events);
    assert!(said.as_ref().is_some_and(|said| said.contains("1000shot: left out: class 0 has")), "{said:?}");

    let mut job = probed(&bench, "changed");
    job.spec.evaluations[0].probe.as_mut().expect("a probe").train.digest = "0".repeat(64);
    let (events, code) = run(&job);
    assert_eq!(code, exit::BAD_INPUT);
    let [Event::Failed { reason, kind: FailureKind::BadInput }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("`probe` has changed"), "{reason}");
}

#[test]
fn classes_that_a_probe_can_not_have_are_refused() {
    let bench = Bench::new();
    let pool = bench.dir.path().join("probe");
    let refused = |name: &str, change: &dyn Fn()| {
        let mut job = probed(&bench, name);
        change();
        let evaluation = &mut job.spec.evaluations[0];
        evaluation.probe.as_mut().expect("a probe").train.digest = digest(&pool);
        let (events, code) = run(&job);
        assert_eq!(code, exit::BAD_INPUT, "{events:?}");
        let [Event::Failed { reason, kind: FailureKind::BadInput }] = &events[..] else { panic!("{events:?}") };
        reason.clone()
    };
    let names = pool.join("classnames.txt");
    let other = || {
        let text = std::fs::read_to_string(&names).expect("names");
        std::fs::write(&names, text.replace("green\nblue", "blue\ngreen")).expect("names");
    };
    let said = refused("names", &other);
    assert!(said.contains("line 2 of `classnames.txt` is `green` in pool") && said.contains("and `blue` in"), "{said}");
    let longer = || {
        let text = std::fs::read_to_string(&names).expect("names");
        std::fs::write(&names, text + "\npink\n").expect("names");
    };
    let said = refused("longer", &longer);
    assert!(said.contains("line 9 of `classnames.txt` is missing in pool") && said.contains("and `pink` in"), "{said}");
    let high = || {
        std::fs::remove_file(&names).expect("names");
        let mut tar = tar::Builder::new(File::create(pool.join("00001.tar")).expect("shard"));
        append(&mut tar, "high.png", &picture(0));
        append(&mut tar, "high.txt", b"a red square");
        append(&mut tar, "high.cls", b"4294967295");
        tar.finish().expect("shard");
        std::fs::write(pool.join("sizes.json"), r#"{"00000.tar": 192, "00001.tar": 1}"#).expect("sizes");
    };
    let said = refused("high", &high);
    assert!(said.contains("an image of class 4294967295, but the last class in"), "{said}");
}

/// Why a probe was not measured, or not at all of its numbers of shots.
fn left_out(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::Eval { unmeasured, .. } => unmeasured.get(&EvaluationTask::LinearProbe).cloned(),
        _ => None,
    })
}

#[test]
fn the_ends_of_a_curve_are_the_checkpoints() {
    let bench = Bench::new();
    let mut job = bench.job("one");
    job.spec.evaluations[0].tasks = vec![EvaluationTask::ZeroshotClassification];
    let (events, _) = run(&job);
    let (first, at_first) = (last_checkpoint(&events), measured(&events, 192));
    let mut other = bench.job("other");
    (other.spec.seed, other.spec.evaluations) = (12, job.spec.evaluations.clone());
    let (events, _) = run(&other);
    let (second, at_second) = (last_checkpoint(&events), measured(&events, 192));

    let (of_job, out) = (job.attempt_dir.join("job.json"), bench.dir.path().join("mixed"));
    let mut command = Command::new(runner());
    command.arg("interpolate").args([&first, &second]).args(["--alpha", "0,0.5,1"]);
    let output = command.arg("--job").arg(of_job).arg("--out").arg(&out).output().expect("clip-runner runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3 * 3, "{text}");
    let curve = |alpha: f64, metric: &str| {
        let line = lines.iter().find(|line| line["alpha"] == alpha && line["metric"] == metric).expect("measured");
        line["value"].as_f64().expect("a number")
    };
    for rows in [(0.0, at_first), (1.0, at_second)] {
        assert!(rows.1.iter().all(|row| curve(rows.0, &row.metric).total_cmp(&row.value).is_eq()), "{text}");
    }
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("weights");
    assert!(weights(&out.join("alpha-1")).len() == weights(&second).len());
    assert_ne!(weights(&out.join("alpha-0.5")), weights(&out.join("alpha-0")));
    let config = std::fs::read_to_string(out.join("alpha-0.5/open_clip_config.json")).expect("a configuration");
    assert!(config.contains("alpha-0.5/bpe_1024.txt.gz") && out.join("alpha-0.5/bpe_1024.txt.gz").is_file());
}

#[test]
fn several_captions_an_image_are_several_queries() {
    let bench = Bench::new();
    let mut job = bench.job("captions");
    let split = bench.dir.path().join("set/test");
    std::fs::create_dir_all(&split).expect("folder");
    let mut tar = tar::Builder::new(File::create(split.join("0.tar")).expect("shard"));
    for index in 0..16 {
        append(&mut tar, &format!("s{index}.png"), &picture(index));
        let captions = format!("picture {index}\nthe same, number {index}\na picture of many\n");
        append(&mut tar, &format!("s{index}.txt"), captions.as_bytes());
    }
    tar.finish().expect("shard");
    std::fs::write(split.join("nshards.txt"), "1\n").expect("count");
    std::fs::write(bench.dir.path().join("set/dataset_type.txt"), "retrieval\n").expect("kind");
    let digest = digest(&split);
    let evaluation = &mut job.spec.evaluations[0];
    evaluation.data = DataSource { pool: "set".into(), path: "set/test".into(), digest };
    evaluation.tasks = vec![EvaluationTask::ZeroshotRetrieval];
    evaluation.at_samples.clear();
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let rows = measured(&events, 192);
    let of = |metric: &str| rows.iter().find(|row| row.metric == metric).expect("measured");
    assert_eq!((of("image_retrieval_recall@1").count, of("text_retrieval_recall@1").count), (Some(48), Some(16)));
    // A text has one image of its own in 16; a caption that all images share is right for each of them.
    let chance = |metric: &str| of(metric).chance.expect("known");
    assert!((chance("image_retrieval_recall@1") - 1.0 / 16.0).abs() < 1e-12);
    assert!((chance("image_retrieval_recall_grouped@1") - (2.0 / 16.0 + 1.0) / 3.0).abs() < 1e-12);
    assert!((chance("text_retrieval_recall@1") - 3.0 / 48.0).abs() < 1e-12);
    assert!((chance("text_retrieval_recall_grouped@1") - 18.0 / 48.0).abs() < 1e-12);
}
