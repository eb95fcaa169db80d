//! Checkpoints measured apart from training, while it goes on: each once, whatever is killed, and to the same values.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use super::bench::{Bench, clip_runner_is_built};
use crate::harness::transcript;

/// Trains two steps, with a checkpoint after each whose text is the recall that is measured of it.
/// Between them it waits at the gate `go`. The first attempt may fall at the gate `fall` behind the second one; the
/// next goes on from the first.
const BODY: &str = r#"
job=$3
here=$(dirname "$0")
field() { sed -n "s/.*\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$job" | head -n 1; }
measure() {
    echo "{\"event\":\"eval\",\"samples_seen\":0,\"dataset\":\"$(field dataset)\",\"measurements\":[{\"metric\":\"image_retrieval_recall@1\",\"value\":$(cat "$(sed -n 's/.*"path": "\(.*model.safetensors\)".*/\1/p' "$job")")}]}"
}
checkpoint() {
    at="$(field checkpoint_dir)/samples-$1-fence-$(field fence)"
    mkdir -p "$at"
    printf "$2" > "$at/model.safetensors"
    sum=$(sha256sum < "$at/model.safetensors" | cut -c -64)
    printf '{"files":[{"name":"model.safetensors","sha256":"%s"}]}' "$sum" > "$at/manifest.json"
    sum=$(sha256sum < "$at/manifest.json" | cut -c -64)
    echo "{\"event\":\"checkpoint\",\"step\":$(($1 / 32)),\"samples_seen\":$1,\"path\":\"$at\",\"sha256\":\"$sum\"}"
}
wait_at() { if [ -p "$here/$1" ]; then read -r _ < "$here/$1"; fi; }
if grep -q '"samples_seen": 0,' "$job"; then
    started
    measure
    echo '{"event":"finished","samples_seen":0,"train_secs":0,"eval_secs":1}'
    exit 0
fi
if [ "$(field fence)" = 1 ]; then
    started
    checkpoint 32 0.25
    wait_at go
    if [ -p "$here/fall" ]; then
        checkpoint 64 0.125
        wait_at fall
        exit 1
    fi
else
    started | sed 's/"resumed_from_samples": 0/"resumed_from_samples": 32/'
fi
checkpoint 64 0.5
finished
"#;

const SPEC: &str = "\
name: tiny
runner: ./runner.sh
grid: {model: cpu-w32-l2, samples_seen: 64, data_size: 500}
recipe: {global_batch: 32, checkpoint_every: 32}
evaluations: [{pool: val, tasks: zeroshot_retrieval, evaluate: every_checkpoint}]
backend: {local: {slots: 1, threads_per_slot: 1}}
";

const INIT: &str = ", \"init\": true";

/// What is measured of the job that is trained.
const MEASURED: &str =
    "SELECT concat_ws(' ', dataset, m.samples_seen, value, j.state) FROM measurement m JOIN job j USING (job_id)
                        WHERE j.init IS NULL ORDER BY m.samples_seen";

fn gate(bench: &Bench, name: &str) {
    let made = Command::new("mkfifo").arg(bench.path().join(name)).status().expect("mkfifo is there");
    assert!(made.success());
}

/// Lets whoever waits at a gate go on.
fn open(bench: &Bench, name: &str) {
    fs::write(bench.path().join(name), "\n").expect("the gate is there");
}

/// The same in one line, without the bars of wrapped errors.
fn flat(text: &str) -> String {
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_launch_that_is_killed_measures_each_checkpoint_once() {
    let bench = Bench::with_shell_runner(SPEC, INIT, BODY);
    gate(&bench, "go");
    let launch = bench.launch("");
    // While training holds the only slot.
    let first = bench.wait_for(
        "SELECT concat_ws(' ', m.samples_seen, value, j.state) FROM measurement m JOIN job j USING (job_id)
         WHERE j.init IS NULL",
    );
    assert_eq!(first, "32 0.25 running");
    let status = transcript(&bench.sweep(&["status", "tiny"]));
    assert!(status.contains("its checkpoints, by tiny-evaluate-") && status.contains("1 measured"), "{status}");
    launch.kill();
    let again = bench.launch("");
    open(&bench, "go");
    let ended = transcript(&again.wait());
    assert!(
        ended.starts_with("exit: 0") && ended.contains("its checkpoints: 2 jobs done"),
        "{ended}\n{}",
        bench.story()
    );
    assert_eq!(bench.ask(MEASURED), ["val 32 0.25 done", "val 64 0.5 done"]);
    bench.assert_each_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["3"], "{}", bench.story());

    let last = bench.sweep(&["launch", "sweep.yaml", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&last.stdout).expect("JSON");
    assert_eq!((&said["done"], &said["companions"]["done"]), (&1.into(), &2.into()), "{said}");
    let status = bench.sweep(&["status", "tiny", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["companions"], serde_json::json!([said["companions"]]));
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["3"]);
    // The job that trains is the one that it is without.
    let keys = |bench: &Bench| {
        let plan = bench.sweep(&["plan", "sweep.yaml", "--json"]);
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("JSON");
        (plan["jobs"][0]["job_key"].clone(), plan["checkpoints"]["kept"].clone())
    };
    let (with, kept) = keys(&bench);
    assert_eq!(kept, 2);
    bench.change_spec(&[("evaluations", "# evaluations")]);
    assert_eq!(keys(&bench), (with, serde_json::Value::Null));
}

#[test]
fn what_a_later_attempt_does_again_is_measured_again() {
    let bench = Bench::with_shell_runner(SPEC, INIT, BODY);
    gate(&bench, "fall");
    let launch = bench.launch("");
    let early =
        "SELECT value::text FROM measurement m JOIN job j USING (job_id) WHERE j.init IS NULL AND m.samples_seen = 64";
    assert_eq!(bench.wait_for(early), "0.125");
    open(&bench, "fall");
    let ended = transcript(&launch.wait());
    assert!(
        ended.starts_with("exit: 0") && ended.contains("its checkpoints: 3 jobs done"),
        "{ended}\n{}",
        bench.story()
    );
    assert_eq!(bench.ask(MEASURED), ["val 32 0.25 done", "val 64 0.5 done"]);
}

#[test]
fn a_sweep_that_runs_is_followed_and_left() {
    let spec = SPEC.replace("evaluations", "# evaluations");
    let bench = Bench::with_shell_runner(&spec, INIT, BODY);
    gate(&bench, "go");
    let launch = bench.launch("");
    bench.wait_for_checkpoint();
    let follow = ["evaluate", "tiny", "--pool", "val", "--task", "zeroshot_retrieval", "--follow"];
    let following = bench.start(&follow);
    let first = bench.wait_for("SELECT value::text FROM measurement m JOIN job j USING (job_id) WHERE j.init IS NULL");
    assert_eq!(first, "0.25");
    following.signal(Signal::SIGINT);
    let left = transcript(&following.wait());
    assert!(left.starts_with("exit: 1") && left.contains("`sweep evaluate tiny --follow ...` goes on"), "{left}");
    let following = bench.start(&follow);
    open(&bench, "go");
    let all = transcript(&following.wait());
    assert!(all.starts_with("exit: 0") && all.contains("0.5000") && all.contains("0.2500"), "{all}\n{}", bench.story());
    assert!(launch.wait().status.success());
    assert_eq!(bench.ask(MEASURED), ["val 32 0.25 done", "val 64 0.5 done"]);
    let again = transcript(&bench.sweep(&follow));
    assert!(again.contains("nothing left to do: 2 jobs done"), "{again}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["3"]);
}

#[test]
fn contradictions_are_said_with_their_place() {
    let bench = Bench::with_shell_runner(SPEC, "", BODY);
    let plan = |bench: &Bench| flat(&transcript(&bench.sweep(&["plan", "sweep.yaml"])));
    let unable = plan(&bench);
    assert!(
        unable.contains("sweep.yaml:5:") && unable.contains("runner `shell` can't measure given weights"),
        "{unable}"
    );
    bench.change_runner(&[("[\"cpu\"]", "[\"cpu\"], \"init\": true")]);
    assert!(plan(&bench).contains("2 checkpoints, about 4.6 MB"), "{}", plan(&bench));
    bench.change_spec(&[("checkpoint_every: 32", "checkpoint_every: 32, keep_checkpoints: 3")]);
    let dropped = plan(&bench);
    assert!(dropped.contains("sweep.yaml:4:") && dropped.contains("`recipe.keep_checkpoints` is 3, and"), "{dropped}");
    bench.change_spec(&[(", keep_checkpoints: 3", ""), ("tasks:", "at_samples: [32], tasks:")]);
    let positions = plan(&bench);
    assert!(positions.contains("sweep.yaml:5:") && positions.contains("at_samples` has no use"), "{positions}");
    bench.change_spec(&[("at_samples: [32], ", ""), ("every_checkpoint", "each")]);
    let word = plan(&bench);
    assert!(word.contains("sweep.yaml:5:") && word.contains("allowed: `training` or `every_checkpoint`"), "{word}");
    bench.change_spec(&[(", evaluate: each", ""), ("backend:", "companions: {parallel: 2}\nbackend:")]);
    let nobody = plan(&bench);
    assert!(nobody.contains("sweep.yaml:6:") && nobody.contains("speaks of jobs that nothing asks for"), "{nobody}");
}

/// Two short jobs of real training, measured by themselves and apart.
const CLIP: &str = "\
name: clip
runner: clip
data: {pool: POOLS/train, name: fixture}
grid: {model: cpu-w32-l2, samples_seen: 1024, data_size: 256, seed: [0, 1]}
recipe: {global_batch: 64, lr: 1e-3, augmentation: flip_shift, context_length: 16, checkpoint_every: 256}
evaluations:
- {name: val, pool: POOLS/val, tasks: [zeroshot_retrieval, contrastive_loss], at_samples: [256, 512, 768]}
- {name: apart, pool: POOLS/val, tasks: [zeroshot_retrieval, contrastive_loss], evaluate: every_checkpoint}
companions: {parallel: 2, backend: {local: {slots: 2, threads_per_slot: 1}}}
backend: {local: {slots: 1, threads_per_slot: 1}}
";

#[test]
fn companions_of_clip_runner_measure_what_training_does() {
    if !clip_runner_is_built() {
        return;
    }
    let bench = Bench::new(&CLIP.replace("POOLS", concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/pool/fixture")));
    let launch = bench.launch("");
    // In the middle of it all.
    bench.wait_for("SELECT 'measured' FROM measurement WHERE dataset = 'apart' LIMIT 1");
    launch.kill();
    bench.finish();
    let differing = "SELECT concat_ws(' ', metric, samples_seen, inside.value, apart.value)
         FROM (SELECT * FROM measurement WHERE dataset = 'val') inside
         FULL JOIN (SELECT * FROM measurement WHERE dataset = 'apart' AND samples_seen > 0) apart
              USING (job_id, metric, samples_seen)
         WHERE inside.value IS DISTINCT FROM apart.value";
    assert_eq!(bench.ask(differing), [""; 0], "{}", bench.story());
    let places =
        "SELECT count(*)::text FROM (SELECT DISTINCT job_id, samples_seen FROM measurement WHERE dataset = 'apart') x
                  WHERE samples_seen > 0";
    assert_eq!(bench.ask(places), ["8"]);
    bench.assert_each_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt WHERE state = 'finished'"), ["10"]);
}
