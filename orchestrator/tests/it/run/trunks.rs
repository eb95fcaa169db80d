//! `schedule: constant-cooldown`: jobs that go on from other jobs' checkpoints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;

use super::bench::{Bench, kill_worker};
use crate::harness::transcript;

/// Three cells of 20, 40 and 80 steps, and the pieces of their trunk, of 16, 32 and 64.
const SPEC: &str = "\
name: trunk
runner: synthetic
grid: {model: cpu-w32-l2, samples_seen: [1280, 2560, 5120], data_size: 500}
recipe: {global_batch: 64, warmup: 128, schedule: constant-cooldown, cooldown: 20%, checkpoint_every: 320}
backend: {local: {slots: 2, threads_per_slot: 1}}
";

/// Samples seen, where it was to begin, where each of its attempts began.
const COURSES: &str = "SELECT concat_ws(' ', j.samples_seen, j.parent_samples, string_agg(a.resumed_from_samples::text, ',' ORDER BY attempt_id))
     FROM job j JOIN attempt a USING (job_id) GROUP BY job_id ORDER BY j.samples_seen";

/// What was measured of the cells, and their curves behind the trunk.
const CELLS: &str = "SELECT concat_ws(' ', job_key, dataset, metric, value) FROM observation
     UNION ALL
     SELECT concat_ws(' ', job_key, metric, step, value) FROM curve
     WHERE job_key IN (SELECT job_key FROM observation) AND samples_seen > 0.8 * samples_seen_total AND metric <> 'loss' ORDER BY 1";

#[test]
fn cells_go_on_from_the_trunk_and_are_those_of_a_sweep_without_one() {
    let bench = Bench::new(SPEC);
    let plan = transcript(&bench.sweep(&["plan", "sweep.yaml"]));
    for words in
        ["6 jobs, 5,888 samples seen", "trunks: 3 of the jobs", "3 cells would take", "34 % are saved", "(trunk)"]
    {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    bench.finish();
    bench.assert_each_done_once();
    assert_eq!(
        bench.ask(COURSES),
        ["1024 0 0", "1280 1024 1024", "2048 1024 1024", "2560 2048 2048", "4096 2048 2048", "5120 4096 4096"]
    );
    let samples = "SELECT DISTINCT samples_seen::text FROM observation ORDER BY 1";
    assert_eq!(bench.ask(samples), ["1280", "2560", "5120"], "the trunk is no cell");
    let lineage = "SELECT concat_ws(' ', from_samples, to_samples) FROM lineage JOIN job j USING (job_key)
                   WHERE j.samples_seen = 5120 ORDER BY from_samples";
    assert_eq!(bench.ask(lineage), ["0 1024", "1024 2048", "2048 4096", "4096 5120"]);
    let trunks = "SELECT concat_ws(' ', samples_seen, left(parent, 0) IS NOT NULL) FROM result WHERE is_trunk ORDER BY samples_seen";
    assert_eq!(bench.ask(trunks), ["1024 f", "2048 t", "4096 t"]);

    let alone = Bench::new(&SPEC.replace("runner: synthetic", "runner: ./alone"));
    write_runner_without_branches(alone.path());
    alone.finish();
    assert_eq!(alone.ask("SELECT count(*)::text FROM job"), ["3"]);
    assert_eq!(bench.ask(CELLS), alone.ask(CELLS));
    assert!(bench.ask(CELLS).len() > 6);
}

/// The synthetic runner, that can't go on from another job's checkpoint.
fn write_runner_without_branches(folder: &Path) {
    let runner = Path::new(env!("CARGO_BIN_EXE_sweep")).with_file_name("synthetic-runner");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = describe ] || exec {0} \"$@\"\n{0} describe | sed 's/,\"branches\":true//; s/,\"serve\":true//'\n",
        runner.display()
    );
    fs::write(folder.join("alone"), text).expect("the project can be written to");
    fs::set_permissions(folder.join("alone"), fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

#[test]
fn what_is_planned_where_the_cooldown_begins_is_measured_there() {
    let bench = Bench::new(&SPEC.replace(
        "backend:",
        "evaluations: [{name: held, pool: held, tasks: zeroshot_retrieval, at_samples: [80%]}]\nbackend:",
    ));
    bench.finish();
    bench.assert_each_done_once();
    let places =
        "SELECT DISTINCT concat_ws(' ', j.samples_seen, m.samples_seen) FROM measurement m JOIN job j USING (job_id)
                  WHERE j.samples_seen = 5120 ORDER BY 1";
    assert_eq!(bench.ask(places), ["5120 4096", "5120 5120"]);
}

#[test]
fn launcher_and_workers_are_killed_and_the_same_rows_result() {
    let whole = Bench::new(SPEC);
    whole.finish();
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@20");
    let token = bench.wait_for_checkpoint();
    launch.kill();
    assert!(kill_worker(&token, Signal::SIGKILL));
    let launch = bench.launch("delay@20");
    // In a cell's own part.
    let token = bench.wait_for(
        "SELECT coalesce(a.worker, a.token) FROM attempt a JOIN job j USING (job_id)
         WHERE a.state = 'running' AND j.parent IS NOT NULL AND a.samples_seen > j.parent_samples",
    );
    assert!(kill_worker(&token, Signal::SIGKILL));
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_each_done_once();
    assert_eq!(bench.outcome(), whole.outcome());
}

#[test]
fn what_goes_on_from_a_trunk_that_fails_is_given_up_and_retried_with_it() {
    let bench = Bench::new(&format!("{SPEC}limits: {{retries: 0}}\n"));
    let output = bench.launch("crash_always@20").wait();
    let text = transcript(&output);
    assert!(text.starts_with("exit: 1"), "{text}");
    // Step 20 is in the second piece, and in the first cell.
    let states = "SELECT concat_ws(' ', samples_seen, state, (reason LIKE 'job %, which it goes on from, has failed: %')) FROM job
                  ORDER BY samples_seen";
    assert_eq!(
        bench.ask(states),
        ["1024 done", "1280 failed f", "2048 failed f", "2560 failed t", "4096 failed t", "5120 failed t"]
    );
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["3"], "the others were never started");
    assert!(bench.sweep(&["retry", "trunk"]).status.success());
    bench.finish();
    assert_eq!(bench.ask("SELECT DISTINCT state FROM job"), ["done"]);
}

#[test]
fn a_longer_cell_goes_on_from_the_trunk_that_is_there() {
    let bench = Bench::new(&SPEC.replace(", 5120", ""));
    bench.finish();
    let plan = transcript(&bench.sweep(&["extend", "sweep.yaml", "--samples-seen", "5120"]));
    for words in ["4 done (reused)", "1 of the new cells go on from a trunk", "next: `sweep launch sweep.yaml`"] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    bench.finish();
    bench.assert_each_done_once();
    assert_eq!(bench.ask(COURSES)[4..], ["4096 2048 2048", "5120 4096 4096"]);
    let whole = Bench::new(SPEC);
    whole.finish();
    assert_eq!(bench.outcome(), whole.outcome());
}

#[test]
fn extend_says_why_a_cosine_begins_at_the_beginning() {
    let bench = Bench::new(&SPEC.replace("warmup: 128, schedule: constant-cooldown, cooldown: 20%, ", ""));
    let said = transcript(&bench.sweep(&["extend", "sweep.yaml", "--samples-seen", "10240", "--dry-run"]));
    assert!(said.contains("1 of the new cells begin at the beginning: `schedule: cosine`"), "{said}");
    let spec = fs::read_to_string(bench.path().join("sweep.yaml")).expect("it is there");
    assert!(said.contains("as it was") && !spec.contains("10240"), "{said}");
    let none = transcript(&bench.sweep(&["extend", "sweep.yaml", "--samples-seen", "many"]));
    assert!(none.starts_with("exit: 2") && none.contains("many"), "{none}");
}

#[test]
fn a_trunk_whose_checkpoints_are_gone_is_not_waited_for() {
    let bench = Bench::new(&SPEC.replace("[1280, 2560, 5120]", "1280"));
    bench.finish();
    let folder = bench.ask(
        "SELECT path FROM checkpoint JOIN attempt USING (attempt_id) JOIN job USING (job_id) WHERE parent IS NULL",
    );
    for path in folder {
        fs::remove_dir_all(bench.path().join(path)).expect("it was there");
    }
    bench.change_spec(&[("1280", "[1280, 2560]")]);
    bench.finish();
    bench.assert_each_done_once();
    assert_eq!(bench.ask(COURSES)[2..], ["2048 0 0", "2560 2048 2048"], "from the beginning, and stored so");
    let whole = Bench::new(&SPEC.replace(", 5120", ""));
    whole.finish();
    assert_eq!(bench.ask(CELLS), whole.ask(CELLS));
}

#[test]
fn workers_without_a_database_are_told_where_their_trunk_ends() {
    let bench = Bench::new(&SPEC.replace("slots: 2,", "slots: 2, ship: spool,"));
    bench.finish();
    bench.assert_each_done_once();
    let whole = Bench::new(SPEC);
    whole.finish();
    assert_eq!(bench.outcome(), whole.outcome());
    assert_eq!(bench.ask("SELECT DISTINCT ship FROM attempt"), ["spool"]);
}

#[test]
fn explain_and_status_say_what_a_job_waits_for() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@100");
    bench.wait_for("SELECT token FROM attempt WHERE state = 'running' AND samples_seen > 0");
    let keys = bench.ask("SELECT left(job_key, 12) FROM job WHERE samples_seen <= 1280 ORDER BY samples_seen");
    let said = transcript(&bench.sweep(&["explain", &keys[1]]));
    assert!(said.contains(&format!("it goes on from job {}, which is not done yet", keys[0])), "{said}");
    let status = transcript(&bench.sweep(&["status", "trunk"]));
    assert!(status.contains(&format!("goes on from {}", keys[0])), "{status}");
    launch.kill();
}

/// A job that takes long at the beginning of the plan does not keep those far behind it from being started.
#[test]
fn one_slow_job_does_not_hold_up_what_is_far_behind_it() {
    let seeds: Vec<String> = (0..450).map(|seed| seed.to_string()).collect();
    let bench = Bench::new(&format!(
        "name: long\nrunner: synthetic\ngrid: {{model: cpu-w32-l2, samples_seen: 1280, data_size: 500, seed: [{}]}}\n\
         recipe: {{global_batch: 64}}\n\
         overrides: [{{where: {{seed: 0}}, set: {{extra: {{delay: 60000}}}}}}, \
         {{where: {{seed: [{}]}}, set: {{extra: {{nothing: 1}}}}}}]\n\
         backend: {{local: {{slots: 2, threads_per_slot: 1, worker_time: 0s}}}}\n",
        seeds.join(", "),
        seeds[1..].join(", ")
    ));
    let launch = bench.launch("");
    bench.wait_for("SELECT 'all' FROM job HAVING count(*) FILTER (WHERE state = 'done') = 449");
    assert_eq!(bench.ask("SELECT state FROM job WHERE seed = 0"), ["running"]);
    launch.kill();
}
