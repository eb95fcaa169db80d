//! Ladders of learning rates: run first, chosen from once, whatever is killed; the cells are planned with the choice.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::bench::{Bench, Launch};
use crate::harness::transcript;

/// The best rate of a model of width 64 is 2e-3, of width 32 it is 4e-3. A step takes 4 ms.
const SPEC: &str = "\
name: tiny
runner: synthetic
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [1280, 2560], data_size: 500}
recipe: {global_batch: 64, checkpoint_every: 320, lr: 1e-3, extra: {lr_best: 2e-3, delay: 4}}
evaluations: [{name: val, pool: val, tasks: contrastive_loss}]
tune: {lr_factors: [1, 2, 4], seeds: 2}
backend: {local: {slots: 2, threads_per_slot: 1}}
";

/// What was chosen.
const CHOICES: &str = "SELECT concat_ws(' ', model, data_size, samples_seen, factor, value, noise_of, tied, open) FROM tuning ORDER BY model";
/// Cells of the sweep with their learning rates.
const CELLS: &str = "SELECT concat_ws(' ', j.model, j.samples_seen, js.spec #>> '{recipe,lr}', j.state)
    FROM job j JOIN job_spec js USING (job_id) JOIN sweep_job USING (job_id) JOIN sweep s USING (sweep_id)
    WHERE s.name = 'tiny' ORDER BY j.model, j.samples_seen";

const TUNED: [&str; 4] = [
    "cpu-w32-l2 1280 0.004 done",
    "cpu-w32-l2 2560 0.004 done",
    "cpu-w64-l3 1280 0.002 done",
    "cpu-w64-l3 2560 0.002 done",
];

fn json(bench: &Bench, args: &[&str]) -> serde_json::Value {
    let output = bench.sweep(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", transcript(&output)))
}

/// Kills a launch once this query gives a row.
fn kill_at(bench: &Bench, launch: Launch, sql: &'static str) {
    bench.wait_for(sql);
    launch.kill();
}

#[test]
fn a_launch_that_is_killed_again_and_again_comes_to_the_same_choice_and_cells() {
    let whole = Bench::new(SPEC);
    let said = whole.finish();
    assert!(said.contains("the ladder: 12 jobs done") && said.contains("tuned: cpu-w32-l2 with 500 unique"), "{said}");
    assert!(said.contains("warning: the lr of `cpu-w32-l2`, 4e-3, is the highest of its ladder"), "{said}");
    let choices = ["cpu-w32-l2 500 1280 4 0.004 seeds 1 highest", "cpu-w64-l3 500 1280 2 0.002 seeds 1"];
    assert_eq!(whole.ask(CHOICES), choices);
    assert_eq!(whole.ask(CELLS), TUNED);
    // 12 rungs, and of four cells two that were rungs.
    assert_eq!(whole.ask("SELECT count(*)::text FROM job"), ["14"]);
    assert_eq!(whole.ask("SELECT count(DISTINCT job_key)::text FROM observation WHERE sweep = 'tiny'"), ["4"]);

    let bench = Bench::new(SPEC);
    kill_at(&bench, bench.launch(""), "SELECT job_key FROM job WHERE state = 'done' LIMIT 1");
    kill_at(&bench, bench.launch(""), "SELECT job_key FROM job WHERE state = 'done' OFFSET 5 LIMIT 1");
    kill_at(&bench, bench.launch(""), "SELECT 'recorded' FROM tuning LIMIT 1");
    kill_at(&bench, bench.launch(""), "SELECT name FROM sweep WHERE name = 'tiny'");
    bench.finish();
    assert_eq!(bench.ask(CHOICES), choices);
    bench.assert_each_done_once();
    assert_eq!(bench.outcome(), whole.outcome());
    assert_eq!(
        bench.ask(
            "SELECT concat_ws(' ', model, s.name, count(*)) FROM tuning t JOIN tuning_rung USING (tuning_id)
                   JOIN sweep_tuning USING (tuning_id) JOIN sweep s USING (sweep_id) WHERE tuning_rung.measured IS NOT NULL
                   GROUP BY model, s.name ORDER BY 1"
        ),
        ["cpu-w32-l2 tiny 6", "cpu-w64-l3 tiny 6"]
    );

    // Once more is nothing, and says the choice again.
    let attempts = bench.ask("SELECT count(*)::text FROM attempt");
    let again = bench.finish();
    assert!(again.contains("nothing left to do: 4 jobs done") && !again.contains("the ladder"), "{again}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), attempts);
    let status = json(&bench, &["status", "tiny", "--json"]);
    assert_eq!((&status["tuned"][1]["model"], &status["tuned"][1]["factor"]), (&"cpu-w64-l3".into(), &2.0.into()));
    let plan = json(&bench, &["plan", "sweep.yaml", "--json"]);
    assert_eq!((&plan["tune"]["chosen"], &plan["tune"]["groups"][0]["factor"]), (&true.into(), &4.0.into()));
    assert!(plan["jobs"].as_array().expect("jobs").iter().all(|job| job["state"] == "done"), "{plan}");
    let report = bench.sweep(&["report", "tiny", "--quick"]);
    let page = std::fs::read_to_string(bench.path().join("reports/tiny/index.html")).expect("a page");
    assert!(page.contains("<h2>Tuning</h2>") && page.contains("+1.00"), "{}", transcript(&report));
}

#[test]
fn a_ladder_is_planned_dry_run_and_detached_before_its_cells() {
    let bench = Bench::new(SPEC);
    let plan = transcript(&bench.sweep(&["plan", "sweep.yaml"]));
    for words in ["12 jobs of sweep tiny-tune, 12 to run", "1e-3, 2e-3, 4e-3; not chosen yet", "tiny-tune:", "tiny:"] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    let dry = transcript(&bench.sweep(&["launch", "sweep.yaml", "--dry-run"]));
    assert!(dry.contains("the ladder comes first") && dry.contains("tiny-tune: 12 jobs: 12 to run"), "{dry}");
    let detached = transcript(&bench.sweep(&["launch", "sweep.yaml", "--detach"]));
    assert!(detached.starts_with("exit: 0") && detached.contains("`sweep launch sweep.yaml` comes back"), "{detached}");
    assert_eq!(bench.ask("SELECT name FROM sweep"), ["tiny-tune"]);
    bench.finish();
    assert_eq!(bench.ask(CELLS), TUNED);
    bench.assert_each_done_once();
    // Another sweep on the same ladder has its choice at once.
    bench.change_spec(&[("name: tiny", "name: other"), ("2560]", "2560, 5120]")]);
    let said = bench.finish();
    assert!(said.contains("tuned: cpu-w64-l3") && !said.contains("the ladder"), "{said}");
    assert_eq!(bench.ask("SELECT DISTINCT name FROM sweep ORDER BY name"), ["other", "tiny", "tiny-tune"]);
}

#[test]
fn rungs_that_diverge_are_left_out_and_too_few_choose_nothing() {
    let bench = Bench::new(SPEC);
    bench.change_spec(&[("delay: 4", "lr_max: 3e-3"), ("seeds: 2", "seeds: 1")]);
    let said = bench.finish();
    assert!(said.contains("of 3 rungs, 1 failed"), "{said}");
    assert!(said.contains("warning: the lr of `cpu-w64-l3`, 2e-3, has no finished rung above it"), "{said}");
    assert_eq!(
        bench.ask(CHOICES),
        ["cpu-w32-l2 500 1280 4 0.004 items 1 highest", "cpu-w64-l3 500 1280 2 0.002 items 1 higher failed"]
    );

    let bench = Bench::new(SPEC);
    bench.change_spec(&[("delay: 4", "lr_max: 1.5e-3"), ("seeds: 2", "seeds: 1")]);
    let ended = transcript(&bench.launch("").wait());
    assert!(ended.starts_with("exit: 1"), "{ended}");
    let flat = ended.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains(
            "no learning rate can be chosen by `val/loss@1024`: `cpu-w64-l3` with 500 unique samples: 1 of 3 rungs have \
             finished and were measured, 2 are needed"
        ),
        "{ended}"
    );
    assert_eq!(bench.ask("SELECT name FROM sweep"), ["tiny-tune"]);
    // What could be chosen is.
    assert_eq!(bench.ask("SELECT model FROM tuning"), ["cpu-w32-l2"]);

    // A metric that is not measured is said beside those that are.
    bench.change_spec(&[("lr_max: 1.5e-3", "lr_max: 1"), ("tune: {", "tune: {metric: loss@7, ")]);
    let ended = transcript(&bench.launch("").wait());
    assert!(ended.contains("measured is val/loss@1024"), "{ended}");
}

/// A shell runner that passes its jobs on, but for those with the largest learning rate while the file `no-memory` lies
/// in the project.
fn without_memory(bench: &Bench) {
    let synthetic = std::path::Path::new(env!("CARGO_BIN_EXE_sweep")).with_file_name("synthetic-runner");
    let synthetic = synthetic.display();
    let text = format!(
        "#!/bin/sh
if [ \"$1\" = describe ]; then {synthetic} describe | sed 's/\"serve\": *true/\"serve\":false/'; exit 0; fi
if [ -e {0}/no-memory ] && grep -q '\"lr\": *0.004' \"$3\"; then echo 'no memory' >&2; exit 1; fi
exec {synthetic} \"$@\"
",
        bench.path().display()
    );
    let path = bench.path().join("runner.sh");
    std::fs::write(&path, text).expect("the project can be written to");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("the file is ours");
    std::fs::write(bench.path().join("no-memory"), "").expect("the project can be written to");
}

#[test]
fn a_rung_that_is_retried_with_success_renews_the_choice() {
    let spec = SPEC.replace("runner: synthetic", "runner: ./runner.sh").replace("seeds: 2", "seeds: 1");
    let bench = Bench::new(&format!("{spec}limits: {{retries: 0}}\n"));
    without_memory(&bench);
    let said = bench.finish();
    let hint = "hint: a rung that failed for want of memory or a node: `sweep retry tiny-tune`, and the next launch chooses anew";
    assert!(said.contains("of 3 rungs, 1 failed") && said.contains(hint), "{said}");
    let small =
        "SELECT concat_ws(' ', t.factor, open, count(r.measured)) FROM tuning t JOIN tuning_rung r USING (tuning_id)
                 WHERE model = 'cpu-w32-l2' GROUP BY t.factor, open";
    assert_eq!(bench.ask(small), ["2 higher failed 2"]);
    let attempts = bench.ask("SELECT count(*)::text FROM attempt");
    // What failed stays as it is, and so does the choice.
    bench.finish();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), attempts);

    std::fs::remove_file(bench.path().join("no-memory")).expect("it is there");
    let retried = bench.sweep(&["retry", "tiny-tune"]);
    assert!(retried.status.success(), "{}", transcript(&retried));
    let plan = transcript(&bench.sweep(&["plan", "sweep.yaml"]));
    assert!(plan.contains("not chosen yet"), "{plan}");
    let said = bench.finish();
    assert!(said.contains("the ladder: ") && !said.contains("failed"), "{said}");
    assert_eq!(bench.ask(small), ["4 highest 3"]);
    assert_eq!(bench.ask(CELLS), TUNED);
    bench.finish();
    assert_eq!(bench.ask(small), ["4 highest 3"]);
}

#[test]
fn advice_adds_a_model_that_is_new_to_the_ladder_and_moves_no_ladder() {
    let bench = Bench::new(&SPEC.replace("delay: 4", "delay: 0"));
    bench.finish();
    let advise = |more: &[&str]| {
        let place = ["--metric", "val/loss@1024", "--model", "cpu-w96-l4", "--samples", "20480", "--data", "500"];
        let how = ["--law", "power", "--resamples", "10", "--budget", "1e9", "--jobs", "1", "--no-replicates"];
        transcript(&bench.sweep(&[&["advise", "sweep.yaml"], &place[..], &how, more].concat()))
    };
    let new = ["--candidates-model", "cpu-w96-l4", "--candidates-samples", "5120", "-o", "next.yaml"];
    let said = advise(&new);
    assert!(said.starts_with("exit: 0"), "{said}");
    let new_to_ladder =
        "`cpu-w96-l4` with 500 unique samples is new to the ladder (`tune`): a launch runs 6 jobs for it first";
    assert!(said.contains(new_to_ladder), "{said}");
    let ended = transcript(&bench.launch_spec("next.yaml", "").wait());
    assert!(ended.starts_with("exit: 0") && ended.contains("tuned: cpu-w96-l4"), "{ended}");
    assert_eq!(bench.ask(CELLS)[..4], TUNED);
    assert_eq!(bench.ask(CELLS).len(), 5);

    let said = advise(&["--candidates-model", "cpu-w32-l2", "--candidates-samples", "640", "-o", "other.yaml"]);
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let moves = "fewer samples seen than the ladder (`tune`) of `cpu-w32-l2` with 500 unique samples";
    assert!(said.starts_with("exit: 2") && flat.contains(moves) && flat.contains("ask for at least 1,280"), "{said}");
    assert!(!bench.path().join("other.yaml").exists());
}
