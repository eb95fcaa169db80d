//! Fine-tuning as an evaluation and as a command, and the choice between two checkpoints, by the binary.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output};

use protocol::{
    Augmentation, DataSource, EvaluationPlan, EvaluationTask, Event, FineTuningPlan, Head, Job, Measurement, exit,
};

use crate::harness::{Bench, events, last_checkpoint, measured, run, runner, start, write_pool};

/// A job whose evaluation fine-tunes too, on other pairs than it is measured on.
fn tuned(bench: &Bench, name: &str) -> Job {
    let mut job = bench.job(name);
    let digest = write_pool(&bench.dir.path().join("train"), 64..256);
    let evaluation = &mut job.spec.evaluations[0];
    evaluation.tasks = vec![EvaluationTask::FineTuning, EvaluationTask::ZeroshotClassification];
    evaluation.at_samples.clear();
    evaluation.fine_tuning = Some(FineTuningPlan {
        train: DataSource { pool: "train".into(), path: "train".into(), digest },
        head: Head::Zeroshot,
        steps: 80,
        warmup_steps: 8,
        batch_size: 32,
        lr: 1e-3,
        layer_decay: 0.8,
        weight_decay: 0.1,
        grad_clip_norm: 1.0,
        augmentation: Augmentation::RandomResizedCrop,
        seed: 0,
    });
    job
}

fn plan(job: &mut Job) -> &mut FineTuningPlan {
    job.spec.evaluations[0].fine_tuning.as_mut().expect("set above")
}

fn value(rows: &[Measurement], metric: &str) -> f64 {
    rows.iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric}: {rows:?}")).value
}

fn left_out(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::Eval { unmeasured, .. } => unmeasured.get(&EvaluationTask::FineTuning).cloned(),
        _ => None,
    })
}

#[test]
fn fine_tuning_raises_accuracy_and_gives_the_same_again() {
    let bench = Bench::new();
    for head in [Head::Zeroshot, Head::Linear] {
        let mut job = tuned(&bench, &format!("{head:?}"));
        plan(&mut job).head = head;
        let (events, code) = run(&job);
        assert_eq!(code, exit::FINISHED, "{events:?}");
        let rows = measured(&events, 192);
        let names: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
        let of_task = ["ft_acc1", "ft_acc5", "ft_mean_per_class_recall", "acc1", "acc5", "mean_per_class_recall"];
        assert_eq!(names, of_task);
        let (zero_shot, after) = (value(&rows, "acc1"), value(&rows, "ft_acc1"));
        // Of 64 images: far more than four standard errors.
        assert!(after > zero_shot + 0.3, "{head:?}: {zero_shot} to {after}");
        assert!(rows[0].chance == Some(0.125) && rows[0].count == Some(64) && rows[0].standard_error.is_some());
        let mut again = tuned(&bench, &format!("{head:?} again"));
        plan(&mut again).head = head;
        assert_eq!(measured(&run(&again).0, 192), rows);
    }
}

#[test]
fn a_job_trains_as_if_it_had_not_been_fine_tuned() {
    let bench = Bench::new();
    let mut with = tuned(&bench, "with");
    with.spec.evaluations[0].at_samples = vec![64, 128];
    let mut without = with.clone();
    without.attempt_dir = bench.dir.path().join("without");
    without.checkpoint_dir = without.attempt_dir.join("checkpoints");
    let evaluation = without.spec.evaluations.remove(0);
    without.spec.evaluations = vec![evaluation.with_tasks(vec![EvaluationTask::ZeroshotClassification])];
    let ((of_one, _), (of_other, _)) = (run(&with), run(&without));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |events: &[Event]| fs::read(last_checkpoint(events).join(file)).expect("a checkpoint");
        assert!(bytes(&of_one) == bytes(&of_other), "{file} differs");
    }
    let zero_shot = |events: &[Event], at: u64| {
        let mut rows = measured(events, at);
        rows.retain(|row| !row.metric.starts_with("ft_"));
        rows
    };
    for at in [64, 128, 192] {
        assert_eq!(zero_shot(&of_one, at), zero_shot(&of_other, at));
        assert!(measured(&of_one, at).iter().any(|row| row.metric == "ft_acc1"));
    }
}

/// Reads what the child says until it has written a checkpoint, which is before the end's evaluation.
fn until_checkpoint(lines: &mut impl BufRead) -> String {
    let (mut said, mut line) = (String::new(), String::new());
    while !line.contains(r#""event":"checkpoint""#) {
        line.clear();
        assert!(lines.read_line(&mut line).expect("UTF-8") > 0, "it ended before a checkpoint: {said}");
        said += &line;
    }
    said
}

#[test]
fn a_job_that_is_killed_while_it_fine_tunes_measures_the_same_again() {
    let bench = Bench::new();
    let whole = measured(&run(&tuned(&bench, "whole")).0, 192);
    let mut job = tuned(&bench, "killed");
    let mut child = start(&job);
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    until_checkpoint(&mut lines);
    child.kill().expect("it is a child");
    child.wait().expect("it ends");
    (job.fence, job.attempt_dir) = (2, bench.dir.path().join("second"));
    let (second, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(second[0], Event::Started { resumed_from_samples: 192, .. }), "{second:?}");
    assert_eq!(measured(&second, 192), whole);
}

#[test]
fn a_stop_does_not_wait_for_the_last_step() {
    let bench = Bench::new();
    let mut job = tuned(&bench, "long");
    plan(&mut job).steps = 100_000_000;
    let mut child = start(&job);
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    until_checkpoint(&mut lines);
    let pid = i32::try_from(child.id()).expect("a process id");
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill runs").success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(exit::STOPPED), "{rest}");
    assert!(!rest.contains(r#""event":"eval""#), "what is not measured is not told: {rest}");
}

#[test]
fn what_can_not_be_fine_tuned_is_said() {
    let bench = Bench::new();
    let mut job = tuned(&bench, "diverges");
    plan(&mut job).lr = 1e30;
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let said = left_out(&events).expect("there is no number, so it is said");
    assert!(said.contains("fine-tuning diverged; try a lower `ft_lr`"), "{said}");
    assert!(measured(&events, 192).iter().all(|row| !row.metric.starts_with("ft_")));

    let mut job = tuned(&bench, "names");
    let names = bench.dir.path().join("train/classnames.txt");
    let text = fs::read_to_string(&names).expect("names");
    fs::write(&names, text.replace("green\nblue", "blue\ngreen")).expect("names");
    plan(&mut job).train.digest = crate::harness::digest(&bench.dir.path().join("train"));
    let (events, code) = run(&job);
    assert_eq!(code, exit::BAD_INPUT);
    let [Event::Failed { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("asks for fine_tuning, but line 2 of `classnames.txt` is `green`"), "{reason}");
}

fn command(name: &str, job: &Job) -> Command {
    let mut command = Command::new(runner());
    command.arg(name).arg("--job").arg(job.attempt_dir.join("job.json"));
    command
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn patching_fine_tunes_mixes_and_chooses() {
    let bench = Bench::new();
    let mut job = tuned(&bench, "job");
    // What is to stay as it was: other pairs, without a fine-tuning of their own.
    let control = EvaluationPlan {
        dataset: "control".into(),
        data: DataSource {
            pool: "control".into(),
            path: "control".into(),
            digest: write_pool(&bench.dir.path().join("control"), 300..420),
        },
        ..job.spec.evaluations[0].clone().with_tasks(vec![EvaluationTask::ZeroshotClassification])
    };
    job.spec.evaluations.push(control);
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let (checkpoint, out) = (last_checkpoint(&events), bench.dir.path().join("tuned"));
    let finetune = |from: &Path, out: &Path| {
        command("finetune", &job).arg("--from").arg(from).arg("--out").arg(out).output().expect("it runs")
    };
    let told = lines(&finetune(&checkpoint, &out));
    let rows = measured(&events, 192);
    assert_eq!(told.len(), 3);
    for line in &told {
        let metric = line["metric"].as_str().expect("a name");
        assert_eq!(line["value"].as_f64(), Some(value(&rows, metric)), "the same code: {metric}");
    }
    let again = finetune(&checkpoint, &out);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
    let random = command("finetune", &job).arg("--out").arg(bench.dir.path().join("x")).output().expect("it runs");
    assert!(String::from_utf8_lossy(&random.stderr).contains("with --from FOLDER"));

    let mut mixing = command("interpolate", &job);
    let mixed = lines(&mixing.args([&checkpoint, &out]).args(["--control", "control"]).output().expect("it runs"));
    let (choice, curve) = mixed.split_last().expect("lines");
    assert_eq!(curve.len(), 11 * 2 * 3, "no fine-tuning on the way");
    let at = |alpha: f64, dataset: &str| {
        let is = |line: &&serde_json::Value| {
            line["alpha"] == alpha && line["dataset"] == dataset && line["metric"] == "acc1"
        };
        curve.iter().find(is).expect("measured")["value"].as_f64().expect("a number")
    };
    // At the end the zero-shot accuracy is that of the fine-tuned tower.
    assert!((at(1.0, "squares") - value(&rows, "ft_acc1")).abs() < 1e-9);
    let allowed: Vec<f64> = (0..=10)
        .map(|tenth| f64::from(tenth) / 10.0)
        .filter(|a| at(0.0, "control") - at(*a, "control") <= 0.01)
        .collect();
    let best = allowed.iter().map(|alpha| at(*alpha, "squares")).fold(0.0, f64::max);
    let chosen = &choice["chosen"];
    assert_eq!((choice["control_dataset"].as_str(), chosen["mean"].as_f64()), (Some("control"), Some(best)));
    assert!(allowed.contains(&chosen["alpha"].as_f64().expect("a number")), "{choice}");
}

#[test]
fn a_linear_head_has_no_place_in_a_folder() {
    let bench = Bench::new();
    let mut job = tuned(&bench, "linear");
    plan(&mut job).head = Head::Linear;
    plan(&mut job).steps = 1;
    let (of_job, _) = events(&start(&job).wait_with_output().expect("it ends"));
    let output = command("finetune", &job)
        .arg("--from")
        .arg(last_checkpoint(&of_job))
        .arg("--out")
        .arg(bench.dir.path().join("out"))
        .output()
        .expect("it runs");
    assert!(!output.status.success() && !bench.dir.path().join("out").exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("plan it with `ft_head: zeroshot`"));
}
