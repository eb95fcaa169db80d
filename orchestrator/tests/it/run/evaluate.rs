//! `sweep evaluate`: weights that are there are measured by jobs of their own, once, and the numbers stand where
//! training's would.

use std::fs;
use std::path::Path;

use super::bench::{Bench, SHELL_SPEC, clip_runner_is_built};
use crate::harness::transcript;

/// Trains, with a checkpoint at 32 samples that is dropped and one at 64, and measures `held` at the end; or measures
/// weights, whose text is the recall.
const BODY: &str = r#"
task() { grep -q "$1" "$job" && echo "$2"; }
measure() {
    data=$(sed -n 's/.*"dataset": "\(.*\)".*/\1/p' "$job")
    recall="{\"metric\":\"image_retrieval_recall@1\",\"value\":$1,\"standard_error\":0.01,\"chance\":0.1,\"count\":100}"
    acc='{"metric":"acc1","value":0.5}'
    rows=$(task zeroshot_retrieval "$recall"; task zeroshot_classification "$acc"; [ -z "$2" ] || echo "$2")
    skipped=$(task contrastive_loss '"contrastive_loss":"too few pairs"')
    echo "{\"event\":\"eval\",\"samples_seen\":$3,\"dataset\":\"$data\",\"measurements\":[$(echo $rows | sed 's/} {/},{/g')],\"unmeasured\":{$skipped}}"
}
job=$3
if grep -q '"samples_seen": 0,' "$job"; then
    weights=$(sed -n 's/.*"path": "\(.*model.safetensors\)".*/\1/p' "$job")
    started
    measure "$(cat "$weights")" "$EXTRA" 0
    echo '{"event":"finished","samples_seen":0,"train_secs":0,"eval_secs":1}'
    exit 0
fi
at=$(sed -n 's/.*"checkpoint_dir": "\(.*\)".*/\1/p' "$job")/samples-64
mkdir -p "$at"
cd "$at"
printf 0.25 > model.safetensors
printf '{"files":[{"name":"model.safetensors","sha256":"%s"}]}' $(sha256sum < model.safetensors | cut -c -64) > manifest.json
sum=$(sha256sum < manifest.json | cut -c -64)
started
echo '{"event":"checkpoint","step":1,"samples_seen":32,"path":"/gone/samples-32","sha256":"00"}'
echo '{"event":"checkpoint","step":1,"samples_seen":64,"path":"'"$at"'","sha256":"'$sum'"}'
grep -q '"dataset"' "$job" && measure 0.75 "" 64
finished
"#;

const INIT: &str = ", \"init\": true";

/// What stands for the trained jobs of `tiny`, as fits and figures see it.
const OBSERVED: &str =
    "SELECT concat_ws(' ', dataset, metric, value, standard_error, chance, count, samples_seen) FROM observation
                        WHERE sweep = 'tiny' ORDER BY 1";

fn said(bench: &Bench, args: &[&str]) -> String {
    transcript(&bench.sweep(args))
}

/// The same in one line, without the bars of wrapped errors.
fn flat(text: &str) -> String {
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_data_set_is_added_to_a_finished_sweep_once() {
    let bench = Bench::with_shell_runner(SHELL_SPEC, INIT, BODY);
    bench.finish();
    assert_eq!(bench.ask(OBSERVED), [""; 0]);
    let more = ["evaluate", "tiny", "--pool", "val", "--task", "zeroshot_retrieval", "--task", "contrastive_loss"];
    let first = said(&bench, &more);
    assert!(first.starts_with("exit: 0") && first.contains("image_retrieval_recall@1"), "{first}");
    let row = "val image_retrieval_recall@1 0.25 0.01 0.1 100 64";
    assert_eq!(bench.ask(OBSERVED), [row], "{}", bench.story());
    // With the checkpoint's hash, and who measured it.
    let by = bench.ask(
        "SELECT concat_ws(' ', k.samples_seen, by.state, by.samples_seen IS NULL) FROM evaluation e JOIN checkpoint k
         ON k.attempt_id = e.attempt_id AND k.sha256 = e.checkpoint JOIN job by ON by.job_id = e.measured_by",
    );
    assert_eq!(by, ["64 done t"]);
    assert_eq!(bench.ask("SELECT metrics::text FROM result WHERE sweep = 'tiny'").len(), 1);

    // Again: no attempt more, the stored numbers; what can't be measured is not tried for ever.
    let again = said(&bench, &more);
    assert!(again.contains("nothing left to do: 1 job done") && again.contains("0.2500"), "{again}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["2"]);

    // A task more is a job for that task alone.
    let wider = said(&bench, &[&more[..], &["--task", "zeroshot_classification", "--json"]].concat());
    assert!(wider.contains("\"schema\": \"sweep.evaluate/1\""), "{wider}");
    assert_eq!(bench.ask(OBSERVED), ["val acc1 0.5 64", row]);
    let tasks = bench.ask(
        "SELECT (job_spec.spec -> 'evaluations' -> 0 -> 'tasks')::text FROM job_spec JOIN job USING (job_id) WHERE init IS NOT NULL
         ORDER BY job_id",
    );
    assert_eq!(tasks[1], "[\"contrastive_loss\", \"zeroshot_classification\"]", "{tasks:?}");

    let every = said(&bench, &[&more[..], &["--at", "every_checkpoint"]].concat());
    assert!(every.contains("1 of 2 checkpoints are not kept any more"), "{every}");
}

#[test]
fn a_value_that_contradicts_what_is_stored_is_an_error() {
    let spec =
        format!("{SHELL_SPEC}evaluations: [{{pool: held, tasks: [zeroshot_retrieval]}}]\nlimits: {{retries: 0}}\n");
    let bench = Bench::with_shell_runner(&spec, INIT, BODY);
    bench.finish();
    let all = said(&bench, &["evaluate", "tiny"]);
    assert!(all.contains("nothing is left to measure") && all.contains("0.7500"), "{all}");
    // A job for a task more that says something else of the other one, at its end.
    bench.change_runner(&[("\"$EXTRA\"", "'{\"metric\":\"image_retrieval_recall@1\",\"value\":0.5}'")]);
    let other = said(&bench, &["evaluate", "tiny", "--task", "zeroshot_classification"]);
    assert!(other.starts_with("exit: 1"), "{other}");
    for words in ["image_retrieval_recall@1` of `held` at 64 samples", "is 0.5 here, and 0.75 is stored"] {
        assert!(other.contains(words), "{words}: {other}");
    }
    assert_eq!(bench.ask(OBSERVED), ["held image_retrieval_recall@1 0.75 0.01 0.1 100 64"]);
    assert_eq!(bench.ask("SELECT state FROM job WHERE init IS NOT NULL"), ["failed"]);

    // A job that is done, and is taken for a checkpoint anew.
    bench.ask("UPDATE job SET state = 'done' WHERE init IS NOT NULL RETURNING state");
    let done = said(&bench, &["evaluate", "tiny", "--task", "zeroshot_classification"]);
    assert!(done.starts_with("exit: 1") && done.contains("is 0.5 here, and 0.75 is stored"), "{done}");
    assert_eq!(bench.ask(OBSERVED).len(), 1);
}

#[test]
fn what_cannot_be_measured_is_said() {
    let bench = Bench::with_shell_runner(SHELL_SPEC, "", BODY);
    bench.finish();
    let no_init = said(&bench, &["evaluate", "tiny", "--pool", "val"]);
    assert!(no_init.contains("exit: 2") && no_init.contains("`shell` can't measure given weights"), "{no_init}");
    let none = said(&bench, &["evaluate", "tinny", "--pool", "val"]);
    assert!(none.contains("exit: 2") && none.contains("did you mean `tiny`?"), "{none}");
    let model = said(&bench, &["evaluate", "--checkpoint", "x.pt", "--pool", "val"]);
    assert!(model.contains("exit: 2") && model.contains("hint: add --model"), "{model}");
    let spec = SHELL_SPEC.replace("samples_seen: 64", "samples_seen: 0");
    fs::write(bench.path().join("zero.yaml"), &spec).expect("it is ours");
    let zero = flat(&said(&bench, &["plan", "zero.yaml"]));
    assert!(zero.contains("is 0, and there are no weights to measure"), "{zero}");
    let spec = spec.replace("global_batch: 64", "global_batch: 64, init: x.pt");
    fs::write(bench.path().join("zero.yaml"), format!("{spec}evaluations: [{{pool: v, tasks: zeroshot_retrieval}}]\n"))
        .expect("it is ours");
    let missing = flat(&said(&bench, &["plan", "zero.yaml"]));
    assert!(missing.contains("`recipe.init` are no weights: can't read"), "{missing}");
    fs::write(bench.path().join("x.pt"), "weights").expect("it is ours");
    let refused = flat(&said(&bench, &["plan", "zero.yaml"]));
    assert!(refused.contains("runner `shell` starts from random ones"), "{refused}");
}

/// Two short jobs of real training.
const CLIP: &str = "\
name: clip
runner: clip
data: {pool: POOLS/train, name: fixture}
grid: {model: cpu-w32-l2, samples_seen: 1024, data_size: 256, seed: [0, 1]}
recipe: {global_batch: 64, lr: 1e-3, augmentation: flip_shift, context_length: 16, checkpoint_every: 512}
evaluations: [{name: val, pool: POOLS/val, tasks: [zeroshot_retrieval], at_samples: [512]}]
backend: {local: {slots: 1, threads_per_slot: 1}}
";

#[test]
fn clip_runner_measures_its_checkpoints_as_it_did_in_training() {
    if !clip_runner_is_built() {
        return;
    }
    let pools = concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/pool/fixture");
    let bench = Bench::new(&CLIP.replace("POOLS", pools));
    bench.finish();
    // Both checkpoints of both jobs by jobs of their own, under another name: the numbers are the same.
    let (val, fluent) = (format!("{pools}/val"), format!("{pools}/fluent"));
    let again = ["evaluate", "clip", "--pool", &val, "--task", "zeroshot_retrieval", "--dataset", "again"];
    let all = said(&bench, &[&again[..], &["--at", "every_checkpoint"]].concat());
    assert!(all.starts_with("exit: 0"), "{all}\n{}", bench.story());
    let differing = "SELECT concat_ws(' ', one.metric, one.samples_seen, one.value, other.value)
         FROM measurement one JOIN measurement other USING (job_id, metric, samples_seen)
         WHERE one.dataset = 'val' AND other.dataset = 'again' AND one.value <> other.value";
    assert_eq!(bench.ask(differing), [""; 0]);
    let places =
        "SELECT count(*)::text FROM (SELECT DISTINCT job_id, samples_seen FROM measurement WHERE dataset = 'again') x
         WHERE samples_seen > 0";
    assert_eq!(bench.ask(places), ["4"]);

    // A checkpoint given by its path, with the model that lies beside it.
    let path = bench.ask("SELECT path FROM checkpoint WHERE samples_seen = 1024 ORDER BY path LIMIT 1").remove(0);
    let by_path = ["evaluate", "--checkpoint", &path, "--pool", &val, "--pool", &fluent];
    let one = said(&bench, &by_path);
    assert!(one.starts_with("exit: 0") && one.contains("mean_per_class_recall"), "{one}\n{}", bench.story());
    let attempts = bench.ask("SELECT count(*)::text FROM attempt");
    let twice = said(&bench, &by_path);
    assert!(twice.contains("nothing left to do: 1 job done") && twice.contains("mean_per_class_recall"), "{twice}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), attempts);
    let hash = "SELECT DISTINCT (e.checkpoint = j.init)::text FROM evaluation e JOIN attempt USING (attempt_id) JOIN job j USING (job_id)
                WHERE j.samples_seen IS NULL";
    assert_eq!(bench.ask(hash), ["true"]);

    // The same bytes as a run of open_clip's trainer has them, imported and measured: a row of the imported job.
    let run = bench.path().join("oc");
    fs::create_dir_all(run.join("checkpoints")).expect("it is ours");
    fs::copy(Path::new(&path).join("model.safetensors"), run.join("checkpoints/epoch_2.pt")).expect("it is ours");
    let params =
        "model: cpu-w32-l2\nname: oc\nresume: None\nepochs: 2\ntrain_num_samples: 512\nbatch_size: 64\nworld_size: 1\n";
    fs::write(run.join("params.txt"), params).expect("it is ours");
    let results = "{\"imagenet-zeroshot-val-top1\": 0.3, \"epoch\": 2}\n";
    fs::write(run.join("checkpoints/results.jsonl"), results).expect("it is ours");
    let config = format!("{path}/open_clip_config.json");
    let imported =
        ["evaluate", "oc", "--pool", &val, "--task", "zeroshot_retrieval", "--dataset", "again", "--model", &config];
    for args in
        [&["import", "open-clip", "oc", "--name", "oc"][..], &imported, &["import", "open-clip", "oc", "--name", "oc"]]
    {
        let said = said(&bench, args);
        assert!(said.starts_with("exit: 0"), "{said}\n{}", bench.story());
    }
    let observed = bench.ask(
        "SELECT concat_ws(' ', metric, value) FROM observation WHERE sweep = 'oc' AND dataset = 'again'
         EXCEPT SELECT concat_ws(' ', metric, value) FROM observation WHERE sweep = 'clip' AND dataset = 'val' AND seed = 0
         EXCEPT SELECT concat_ws(' ', metric, value) FROM observation WHERE sweep = 'clip' AND dataset = 'val' AND seed = 1",
    );
    let rows = bench.ask("SELECT count(*)::text FROM observation WHERE sweep = 'oc' AND dataset = 'again'");
    assert_eq!((observed, rows), (Vec::new(), vec!["12".to_owned()]));

    // A run whose arguments say how its images were made ready, and what was changed of its model.
    let arguments = "name: other\nforce_context_length: 16\nimage_mean: [0.5, 0.25, 0.5]\nimage_resize_mode: squash\n";
    let more = params.replace("name: oc\n", arguments) + "force_quick_gelu: True\n";
    fs::write(run.join("params.txt"), &more).expect("it is ours");
    let other = ["evaluate", "other", "--pool", &val, "--task", "zeroshot_retrieval"];
    for args in [&["import", "open-clip", "oc", "--name", "other"][..], &other] {
        let said = said(&bench, args);
        assert!(said.starts_with("exit: 0"), "{said}\n{}", bench.story());
    }
    let seen = bench.ask(
        "SELECT concat_ws(' ', js.spec #>> '{recipe,preprocess,mean}', js.spec #>> '{recipe,preprocess,resize_mode}',
                          js.spec #>> '{model,config,quick_gelu}', js.spec #>> '{model,config,text_cfg,context_length}')
         FROM job_spec js JOIN sweep_job USING (job_id) JOIN sweep USING (sweep_id) WHERE name LIKE 'other-evaluate-%'",
    );
    assert_eq!(seen, ["[0.5, 0.25, 0.5] squash true 16"]);
    fs::write(run.join("params.txt"), more.replace("squash", "crop").replace("other", "third")).expect("it is ours");
    let imported = said(&bench, &["import", "open-clip", "oc", "--name", "third"]);
    assert!(imported.starts_with("exit: 0"), "{imported}");
    let refused = flat(&said(&bench, &["evaluate", "third", "--pool", &val, "--task", "zeroshot_retrieval"]));
    assert!(refused.contains("exit: 2") && refused.contains("unknown variant `crop`"), "{refused}");

    // A sweep that starts from it, and is another one for that.
    fs::copy(Path::new(&path).join("model.safetensors"), bench.path().join("start.safetensors")).expect("it is ours");
    bench.change_spec(&[("name: clip\n", "name: on\n"), ("lr: 1e-3", "lr: 1e-3, init: start.safetensors")]);
    bench.finish();
    let begun = bench.ask("SELECT (init IS NOT NULL)::text FROM job JOIN sweep_job USING (job_id) JOIN sweep USING (sweep_id) WHERE name = 'on'");
    assert_eq!(begun, ["true", "true"]);
    let lower = bench.ask(
        "SELECT (max(one.value) FILTER (WHERE sweep = 'on') < min(one.value) FILTER (WHERE sweep = 'clip'))::text
         FROM curve one JOIN result USING (job_key) WHERE metric = 'loss' AND step = 1",
    );
    assert_eq!(lower, ["true"], "it goes on from what was learnt");
    bench.change_spec(&[("context_length: 16", "context_length: 24")]);
    let misfit = flat(&said(&bench, &["plan", "sweep.yaml"]));
    assert!(misfit.contains("`positional_embedding` is [16, 32] in the file, [24, 32] in the model"), "{misfit}");
}

#[test]
fn probes_and_fine_tuning_are_added_to_a_finished_sweep_once() {
    if !clip_runner_is_built() {
        return;
    }
    let pools = concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/pool/fixture");
    let bench = Bench::new(&CLIP.replace("POOLS", pools).replace("seed: [0, 1]", "seed: 0"));
    bench.finish();
    let (val, fluent) = (format!("{pools}/val"), format!("{pools}/fluent"));
    let bare = said(&bench, &["evaluate", "clip", "--task", "fine_tuning"]);
    assert!(bare.contains("exit: 2") && bare.contains("`fine_tuning` has nothing to train on for `val`"), "{bare}");
    let tasks = ["--task", "fine_tuning", "--task", "linear_probe", "--shots", "1", "--shots", "vtab1k"];
    let more = [&["evaluate", "clip", "--pool", &fluent, "--train", &val], &tasks[..], &["--ft", "lr=1e-3"]].concat();
    let asked = |steps: &str| said(&bench, &[&more[..], &["--ft", steps]].concat());
    let first = asked("steps=3");
    assert!(first.starts_with("exit: 0") && first.contains("ft_acc1"), "{first}\n{}", bench.story());
    let metrics = "SELECT DISTINCT metric FROM observation WHERE sweep = 'clip' AND dataset = 'fluent'
                   AND (metric LIKE 'ft%' OR metric LIKE 'lp%') ORDER BY 1";
    let measured = bench.ask(metrics);
    assert_eq!(measured[..3], ["ft_acc1", "ft_acc5", "ft_mean_per_class_recall"], "{first}");
    // There are no 1,000 images, and the reason is kept.
    assert!(measured.iter().all(|metric| !metric.ends_with("@vtab1k")), "{measured:?}");
    let reason = bench.ask("SELECT detail FROM event WHERE kind = 'unmeasured'");
    assert!(reason.iter().any(|reason| reason.contains("vtab1k: left out: it takes 1000 images")), "{reason:?}");

    let attempts = bench.ask("SELECT count(*)::text FROM attempt");
    let again = asked("steps=3");
    assert!(again.contains("nothing left to do: 1 job done"), "{again}");
    let otherwise = flat(&asked("steps=4"));
    assert!(otherwise.contains("the fine-tuned image tower of `fluent` in job"), "{otherwise}");
    assert!(otherwise.contains("was trained otherwise") && otherwise.contains("`--dataset NAME`"), "{otherwise}");
    let unknown = flat(&said(&bench, &[&more[..], &["--ft", "stepps=4"]].concat()));
    assert!(unknown.contains("exit: 2") && unknown.contains("ft_stepps"), "{unknown}");
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), attempts, "none of these started anything");
}
