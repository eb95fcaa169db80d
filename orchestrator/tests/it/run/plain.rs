//! Sweeps that nothing goes wrong with, and runners that fail by themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::bench::{Bench, SPEC};
use crate::harness::transcript;

#[test]
fn a_sweep_runs_once_and_a_second_launch_has_nothing_to_do() {
    let bench = Bench::new(SPEC);
    assert!(bench.finish().ends_with("4 jobs done\n"));
    bench.assert_done_once();
    let again = bench.sweep(&["launch", "sweep.yaml", "--json"]);
    insta::assert_snapshot!(transcript(&again), @r#"
    exit: 0
    ----- stdout -----
    {
      "schema": "sweep.launch/1",
      "sweep": "tiny",
      "outcome": "complete",
      "pending": 0,
      "running": 0,
      "done": 4,
      "failed": 0,
      "cancelled": 0,
      "failures": []
    }
    ----- stderr -----
    nothing left to do: 4 jobs done
    "#);
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["4"]);
}

#[test]
fn status_shows_sweeps_and_jobs() {
    let bench = Bench::new(SPEC);
    let nothing = transcript(&bench.sweep(&["status"]));
    assert!(nothing.contains("exit: 0") && nothing.contains("no sweep has been launched here yet"), "{nothing}");
    bench.finish();
    insta::assert_snapshot!(transcript(&bench.sweep(&["status"])), @r"
    exit: 0
    ----- stdout -----
     sweep  jobs  done  running  failed  question
     tiny      4     4        0       0
    ----- stderr -----
    ");
    let jobs = bench.sweep(&["status", "tiny", "--json"]);
    let jobs: serde_json::Value = serde_json::from_slice(&jobs.stdout).expect("JSON");
    assert_eq!(jobs["schema"], "sweep.status/1");
    assert_eq!(jobs["jobs"][0]["state"], "done");
    assert_eq!(jobs["jobs"][3]["samples_seen"], 2560);
    insta::assert_snapshot!(transcript(&bench.sweep(&["status", "tony"])), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: there is no sweep `tony` here

    hint: these are here: tiny
    ");
}

#[test]
fn explain_says_what_a_job_is_doing() {
    let bench = Bench::new(SPEC);
    let explain = |key: &str| transcript(&bench.sweep(&["explain", key]));
    let launch = bench.launch("delay@100");
    bench.wait_for_checkpoint();
    let key = |state: &'static str| bench.ask(state).into_iter().next().expect("there is one");
    let running = key("SELECT left(job_key, 12) FROM job WHERE state = 'running'");
    let waiting = key("SELECT left(job_key, 12) FROM job WHERE state = 'pending' ORDER BY job_id DESC");
    assert!(explain(&running).contains(&format!("{running} is running: on local ")), "{}", explain(&running));
    assert!(explain(&waiting).contains("a launcher is there and has it wait"), "{}", explain(&waiting));
    launch.kill();
    bench.ask("UPDATE sweep SET launcher_seen_at = now() - interval '1 min'");
    let said = explain(&waiting);
    assert!(said.contains("nobody launches its sweep") && said.contains("hint: `sweep launch SPEC`"), "{said}");
    bench.finish();
    assert!(explain(&running).contains(&format!("{running} is done: its result was stored ")), "{}", explain(&running));
    bench.ask("UPDATE job SET state = 'failed', reason = 'it diverged'");
    let json = bench.sweep(&["explain", &running, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["schema"], &json["because"]), (&"sweep.explain/1".into(), &"it diverged".into()));
}

#[test]
fn a_dry_run_starts_nothing() {
    let bench = Bench::new(SPEC);
    insta::assert_snapshot!(transcript(&bench.sweep(&["launch", "sweep.yaml", "--dry-run"])), @r"
    exit: 0
    ----- stdout -----
    ----- stderr -----
    tiny: 4 jobs: 4 to run (4 of them new), 0 running, 0 jobs done
    ");
    assert!(!bench.path().join(".sweep").exists());
}

#[test]
fn a_crash_is_retried_from_the_checkpoint() {
    let bench = Bench::new(SPEC);
    let output = bench.launch("crash@8,garbage@3").wait();
    assert!(output.status.success(), "{}", transcript(&output));
    bench.assert_done_once();
    let attempts = bench.ask(
        "SELECT string_agg(concat_ws(' ', state, failure_kind, resumed_from_samples), ', ' ORDER BY attempt_id)
         FROM attempt GROUP BY job_id",
    );
    assert_eq!(attempts, ["failed crash 0, finished 320"; 4]);
}

#[test]
fn a_job_that_keeps_crashing_fails_with_its_last_words_and_can_be_retried() {
    let bench = Bench::new(&format!("{SPEC}limits: {{retries: 1}}\n"));
    let output = bench.launch("crash_always@7").wait();
    let text = transcript(&output);
    assert!(text.starts_with("exit: 1"), "{text}");
    assert!(text.contains("the runner left with exit code 1 (2 attempts failed, 1 retries allowed)"), "{text}");
    assert!(text.contains("  | simulated crash at step 7") && text.contains("`sweep retry tiny`"), "{text}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["8"]);

    let job = bench.ask("SELECT left(job_key, 12) FROM job ORDER BY job_id LIMIT 1").remove(0);
    let logs = transcript(&bench.sweep(&["logs", &job, "--attempt", "1"]));
    assert!(logs.contains("simulated crash at step 7"), "{logs}");
    let events = transcript(&bench.sweep(&["logs", &job, "--events"]));
    assert!(events.contains("\"event\":\"started\""), "{events}");

    let nothing = transcript(&bench.launch("").wait());
    assert!(
        nothing.starts_with("exit: 1") && nothing.contains("nothing left to do: 0 jobs done, 4 failed"),
        "{nothing}"
    );
    let retried = transcript(&bench.sweep(&["retry", "tiny", "--failed"]));
    assert!(retried.contains("4 of 4 jobs are to run again"), "{retried}");
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn a_loss_that_is_no_number_fails_the_job_at_once() {
    let bench = Bench::new(SPEC);
    let text = transcript(&bench.launch("nan@4").wait());
    assert!(text.starts_with("exit: 1") && text.contains("loss is NaN at step 4"), "{text}");
    assert_eq!(bench.ask("SELECT DISTINCT concat_ws(' ', state, reason) FROM job"), ["failed loss is NaN at step 4"]);
    assert_eq!(bench.ask("SELECT DISTINCT concat_ws(' ', state, failure_kind) FROM attempt"), ["failed diverged"]);
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["4"]);
}

#[test]
fn two_launches_of_overlapping_specs_run_each_job_once() {
    let bench = Bench::new(SPEC);
    let other = SPEC.replace("name: tiny", "name: other").replace("[cpu-w32-l2, cpu-w64-l3]", "cpu-w64-l3");
    fs::write(bench.path().join("other.yaml"), other).expect("the project can be written to");
    let (one, two) = (bench.launch("delay@5"), bench.launch_spec("other.yaml", "delay@5"));
    for output in [one.wait(), two.wait()] {
        assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    }
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt WHERE claimed_at IS NOT NULL"), ["4"]);
    let shared =
        "SELECT concat_ws(' ', name, count(*)) FROM sweep JOIN sweep_job USING (sweep_id) GROUP BY name ORDER BY 1";
    assert_eq!(bench.ask(shared), ["other 2", "tiny 4"]);
}

/// A runner of one's own in 20 lines of shell.
const SHELL_RUNNER: &str = r#"#!/bin/sh
# Usage: describe | run --job job.json
if [ "$1" = describe ]; then
    echo '{"name": "shell", "version": "1", "protocol": 1, "reads_data": false, "devices": ["cpu"]}'
    exit 0
fi
field() { grep -o "\"$1\": *[0-9]*" "$job" | head -n 1 | grep -o '[0-9]*$'; }
job=$3
samples=$(field samples_seen)
batch=$(field global_batch)
echo "training $samples samples" >&2
echo '{"event": "started", "parameters": PARAMETERS, "resumed_from_samples": 0, "device": "sh"}'
seen=0
while [ "$seen" -lt "$samples" ]; do
    seen=$((seen + batch))
    echo "{\"event\": \"step\", \"step\": $((seen / batch)), \"samples_seen\": $seen, \"loss\": 1.5}"
done
echo "{\"event\": \"eval\", \"samples_seen\": $seen, \"dataset\": \"sh\", \"measurements\": [{\"metric\": \"acc1\", \"value\": 0.5}]}"
echo "{\"event\": \"finished\", \"samples_seen\": $seen, \"train_secs\": 0.1, \"eval_secs\": 0}"
"#;

fn shell_runner(bench: &Bench, parameters: &str) {
    let path = bench.path().join("runner.sh");
    fs::write(&path, SHELL_RUNNER.replace("PARAMETERS", parameters)).expect("the project can be written to");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

const SHELL_SPEC: &str = "\
name: shell
runner: ./runner.sh
grid: {model: cpu-w32-l2, samples_seen: 640, data_size: 500}
recipe: {global_batch: 64}
";

#[test]
fn a_runner_is_twenty_lines_of_shell() {
    let bench = Bench::new(SHELL_SPEC);
    let model = bench.sweep(&["model", "cpu-w32-l2", "--json"]);
    let model: serde_json::Value = serde_json::from_slice(&model.stdout).expect("JSON");
    let parameters = model.pointer("/models/0/parameters").or_else(|| model.pointer("/parameters"));
    shell_runner(&bench, &parameters.expect("it says").to_string());
    bench.finish();
    let result = "SELECT concat_ws(' ', state, train_loss, metrics->>'sh/acc1', attempts) FROM result";
    assert_eq!(bench.ask(result), ["done 1.5 0.5 1"]);
    assert_eq!(bench.ask("SELECT count(*)::text FROM curve"), ["10"]);
}

#[test]
fn a_runner_that_builds_another_model_is_refused() {
    let bench = Bench::new(SHELL_SPEC);
    shell_runner(&bench, "12");
    let text = transcript(&bench.launch("").wait());
    assert!(text.starts_with("exit: 1") && text.contains("the runner built 12 parameters, the plan has"), "{text}");
}
