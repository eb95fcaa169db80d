//! Plans from specs and made-up inputs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::{DataSource, Description, Preprocess, ResizeMode, Shots};

use super::*;
use crate::spec::{self, Source, SpecError};

mod accepts;
mod memory_limit;
mod rules;
mod trunks;
mod tune;

fn inputs() -> Inputs {
    let pool = |name: &str, samples| PoolInfo {
        source: DataSource { pool: name.to_owned(), path: name.into(), digest: format!("{samples:064}") },
        samples,
        skipped: BTreeMap::new(),
        changed: Vec::new(),
        manifest: None,
    };
    Inputs {
        runner: Description {
            name: "clip".to_owned(),
            version: "1".to_owned(),
            protocol: protocol::PROTOCOL_VERSION,
            reads_data: true,
            devices: vec!["cpu".to_owned()],
            serve: false,
            ranks: false,
            init: false,
            branches: false,
            rolls_back: false,
            accepts: BTreeMap::new(),
        },
        companion_runner: None,
        runner_path: "clip-runner".into(),
        pools: [("train".to_owned(), pool("train", 4_000)), ("val".to_owned(), pool("val", 600))].into(),
        model_files: BTreeMap::new(),
        weights: BTreeMap::new(),
        secs_per_sample: [("cpu-w32-l2".to_owned(), 1e-3)].into(),
        site: None,
        tuned: BTreeMap::new(),
        memory: None,
        base_dir: ".".into(),
    }
}

fn planned(text: &str) -> Result<Plan, SpecError> {
    let spec = spec::parse(&Source::new("x.yaml", text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
    plan(&spec, &inputs())
}

fn good(text: &str) -> Plan {
    planned(text).unwrap_or_else(|error| panic!("{:?}", error.mistakes))
}

fn bad(text: &str) -> Vec<String> {
    planned(text).expect_err("a mistake").mistakes.into_iter().map(|mistake| mistake.message).collect()
}

fn keys(plan: &Plan) -> BTreeSet<String> {
    plan.jobs.iter().map(|job| job.job_key.clone()).collect()
}

const SPEC: &str = "\
name: x
data: {pool: train}
grid: {model: [cpu-w64-l3, cpu-w32-l2], samples_seen: [8k, 1k], data_size: [500, all]}
recipe: {global_batch: 128, lr: 1e-3}
evaluations: [{pool: val, tasks: [zeroshot_retrieval], at_samples: [50%, 4k, 8064]}]
";

#[test]
fn what_a_probe_is_trained_on_is_part_of_the_job() {
    let probed = |train: &str, more: &str| {
        let tasks = format!("tasks: [zeroshot_retrieval, linear_probe], train: {train}, shots: [5, all]{more}");
        SPEC.replace("tasks: [zeroshot_retrieval]", &tasks)
    };
    let plan = good(&probed("train", ""));
    let probe = plan.jobs[0].spec.evaluations[0].probe.clone().expect("a probe");
    assert_eq!(probe.train, inputs().pools["train"].source);
    assert_eq!(probe.shots, [Shots::Each(5), Shots::All]);
    let trained_on = |digest: &str| {
        let mut other = inputs();
        let pool =
            PoolInfo { source: DataSource { digest: digest.repeat(64), ..probe.train.clone() }, ..pool_of(&other) };
        other.pools.insert("own".to_owned(), pool);
        let spec = spec::parse(&Source::new("x.yaml", &probed("own", ""))).expect("a spec");
        super::plan(&spec, &other).expect("a plan")
    };
    assert_eq!(keys(&trained_on("1")), keys(&trained_on("1")));
    assert!(keys(&trained_on("1")).is_disjoint(&keys(&trained_on("2"))));
    assert_eq!(trained_on("1").pools.len(), 3, "it is stored and shown");
    assert!(keys(&plan).is_disjoint(&keys(&good(&probed("train", ", choose: test")))));
    assert!(keys(&plan).is_disjoint(&keys(&good(SPEC))));
    assert_eq!(
        bad(&probed("val", "")),
        ["`train` holds the same images as `pool`: what is trained would know its test"]
    );
    let both = good(&probed("train", ", ft_steps: 70").replace("linear_probe", "linear_probe, fine_tuning"));
    let tuning = both.jobs[0].spec.evaluations[0].fine_tuning.clone().expect("a fine-tuning");
    assert_eq!((tuning.train, tuning.steps, tuning.warmup_steps), (inputs().pools["train"].source.clone(), 70, 7));
    assert_eq!(both.jobs[0].spec.evaluations[0].probe, Some(probe), "one `train` is both's");
    assert_eq!(both.pools.len(), plan.pools.len());
}

fn pool_of(inputs: &Inputs) -> PoolInfo {
    inputs.pools["train"].clone()
}

#[test]
fn jobs_of_a_plan() {
    let plan = good(SPEC);
    assert_eq!(plan.jobs.len(), 8);
    assert!(
        plan.jobs.windows(2).all(|pair| pair[0].compute.train_flops <= pair[1].compute.train_flops),
        "cheapest first"
    );
    let job = plan.jobs.last().expect("jobs");
    assert_eq!(job.spec.model.name, "cpu-w64-l3");
    assert_eq!((job.spec.samples_seen, job.spec.steps()), (8_064, 63));
    assert_eq!((job.spec.data_size, job.unique_samples), (4_000, 4_000));
    assert_eq!(job.spec.recipe.warmup_samples, 806);
    assert_eq!(job.spec.evaluations[0].at_samples, [4_096], "on whole batches, once, the end left to the end");
    assert_eq!(job.secs, None);
    let size = job.spec.model.config.size();
    assert_eq!(job.compute, size.compute(8_064));
    let first = &plan.jobs[0];
    assert_eq!(first.spec.samples_seen, 1_024);
    assert_eq!(first.secs, Some(1.024));
    assert_eq!(plan.jobs[1].unique_samples, 1_024, "no more than are seen");
    assert_eq!(plan.pools.len(), 2);
}

#[test]
fn key_is_fixed() {
    // A change here makes every stored result unreachable: raise it only with a reason.
    let plan = good(
        "name: x\ndata: {pool: train}\ngrid: {model: cpu-w32-l2, samples_seen: 1k, data_size: 500}\nrecipe: {global_batch: 100}\n",
    );
    let text = canonical::canonical(&serde_json::to_value(plan.jobs[0].spec.to_job_spec().identity()).expect("JSON"));
    assert_eq!(
        text,
        r#"{"data":{"digest":"0000000000000000000000000000000000000000000000000000000000004000","path":"","pool":""},"data_size":500,"evaluations":[],"model":{"config":{"embed_dim":32,"text_cfg":{"context_length":32,"heads":1,"layers":2,"vocab_size":4096,"width":32},"vision_cfg":{"head_width":32,"image_size":32,"layers":2,"patch_size":8,"width":32}},"name":"cpu-w32-l2"},"recipe":{"augmentation":"random_resized_crop","betas":[0.9,0.98],"checkpoint_every_samples":null,"eps":1e-6,"global_batch":100,"grad_clip_norm":null,"lr":0.0005,"precision":"fp32","schedule":"cosine","warmup_samples":100,"weight_decay":0.2},"runner":{"name":"clip","version":"1"},"samples_seen":1000,"seed":0}"#
    );
    assert_eq!(plan.jobs[0].job_key, job_key(&plan.jobs[0].spec.to_job_spec()));
    assert_eq!(plan.jobs[0].job_key.len(), 64);
}

/// Everything that a job says, but where its files lie and what only decides how it gets there.
#[test]
fn every_field_of_a_job_changes_its_key() {
    let spec = "name: x\ndata: {pool: train}\ngrid: {model: cpu-w32-l2, samples_seen: 1k, data_size: 500}\n\
                recipe: {global_batch: 100, grad_clip_norm: 1, accum_freq: 2, loss: reference, alpha: white, keep_checkpoints: 3, \
                grad_checkpointing: true, extra: {momentum: 0.5}}\n\
                evaluations: [{pool: val, tasks: [linear_probe, fine_tuning], train: train, shots: 5, \
                templates: ['a {}'], at_samples: [500]}]\n\
                limits: {skipped: 10%}\n";
    let job = good(spec).jobs[0].spec.to_job_spec();
    let before = job_key(&job);
    let job = serde_json::to_value(&job).expect("JSON");
    let free = [
        "/data/path",
        "/data/pool",
        "/evaluations/0/data/path",
        "/evaluations/0/data/pool",
        "/evaluations/0/probe/train/path",
        "/evaluations/0/probe/train/pool",
        "/evaluations/0/fine_tuning/train/path",
        "/evaluations/0/fine_tuning/train/pool",
        "/recipe/checkpoint_every_samples",
        "/recipe/grad_checkpointing",
        "/recipe/keep_checkpoints",
        "/skipped_max",
    ];
    let mut leaves = Vec::new();
    collect(&job, String::new(), &mut leaves);
    assert!(leaves.len() > 55 && free.iter().all(|path| leaves.iter().any(|leaf| leaf == path)), "{leaves:?}");
    for leaf in leaves {
        let mut changed = 0;
        let old = job.pointer(&leaf).expect("a leaf").clone();
        for new in others(&leaf, &old) {
            let mut other = job.clone();
            *other.pointer_mut(&leaf).expect("a leaf") = new;
            // What the field can't hold is no job.
            let Ok(other) = serde_json::from_value(other) else { continue };
            changed += 1;
            assert_eq!(job_key(&other) == before, free.contains(&leaf.as_str()), "{leaf}");
        }
        assert!(changed > 0, "{leaf}: {old} was not changed");
    }
}

/// Paths of numbers and texts.
fn collect(value: &serde_json::Value, path: String, leaves: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(value, format!("{path}/{name}"), leaves));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{path}/{index}"), leaves));
        }
        _ => leaves.push(path),
    }
}

/// Other values of a field's kind: any number or text, and the words that its enumeration may have.
fn others(path: &str, old: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::json;
    match old {
        serde_json::Value::Number(number) if number.is_u64() => vec![json!(number.as_u64().map(|number| number + 1))],
        serde_json::Value::Number(_) => vec![json!(0.123)],
        serde_json::Value::Bool(value) => vec![json!(!value)],
        serde_json::Value::Null => vec![json!(7), json!(0.5)],
        _ if path.ends_with("/loss") => vec![json!("fused")],
        _ if path.ends_with("/precision") => vec![json!("amp_bf16")],
        _ if path.ends_with("/schedule") => vec![json!("constant")],
        _ if path.ends_with("/augmentation") => vec![json!("none"), json!("flip_shift")],
        _ if path.ends_with("/alpha") => vec![json!("drop")],
        _ if path.ends_with("/choose") => vec![json!("test")],
        _ if path.ends_with("/head") => vec![json!("linear")],
        _ if path.contains("/tasks/") => vec![json!("contrastive_loss")],
        _ => vec![json!("another")],
    }
}

#[test]
fn keys_follow_the_result() {
    let before = keys(&good(SPEC));
    let reordered = "\
evaluations: [{at_samples: [8.064k, 4e3, 50%], tasks: zeroshot_retrieval, pool: val}]
recipe: {lr: 0.001, eps: 1e-06, global_batch: 128, weight_decay: 0.20}
grid: {data_size: [all, 500], samples_seen: [1000, 8_000], model: [cpu-w32-l2, cpu-w64-l3]}
data: {pool: train}
name: another
question: why
";
    assert_eq!(keys(&good(reordered)), before);
    let elsewhere = format!(
        "{SPEC}backend: {{local: {{slots: 7}}}}\nlimits: {{parallel: 3, retries: 9, time: 1h, compute: 1e30}}\n"
    );
    assert_eq!(keys(&good(&elsewhere)), before);
    let checkpoints = SPEC.replace("lr: 1e-3", "lr: 1e-3, checkpoint_every: 1k");
    assert_eq!(keys(&good(&checkpoints)), before);
    for (old, new) in [
        ("lr: 1e-3", "lr: 2e-3"),
        ("lr: 1e-3", "lr: 1e-3, warmup: 0"),
        ("lr: 1e-3", "lr: 1e-3, context_length: 16"),
        ("lr: 1e-3", "lr: 1e-3, precision: amp_bf16"),
        ("[zeroshot_retrieval]", "[contrastive_loss]"),
        ("data_size:", "seed: 1, data_size:"),
    ] {
        assert!(keys(&good(&SPEC.replace(old, new))).is_disjoint(&before), "{new}");
    }
    let spec = spec::parse(&Source::new("x.yaml", SPEC)).expect("a spec");
    let mut newer = inputs();
    newer.runner.version = "2".to_owned();
    assert!(keys(&plan(&spec, &newer).expect("a plan")).is_disjoint(&before));
}

#[test]
fn what_a_plan_refuses() {
    assert_eq!(
        bad(&SPEC.replace("500, all", "500, 5k")),
        ["`grid.data_size[1]` is 5,000, but pool `train` holds 4,000 pairs"]
    );
    assert_eq!(
        bad(&SPEC.replace("500, all", "4000, all")).first().map(String::as_str),
        Some(
            "`grid.data_size[1]` gives a job that is there already: cpu-w64-l3 with 8,064 samples seen of 4,000 unique, seed 0"
        )
    );
    assert!(
        bad(&SPEC.replace("8k, 1k", "8k, 8001"))[0]
            .contains("`grid.samples_seen[1]` gives a job that is there already")
    );
    let budget = bad(&format!("{SPEC}limits: {{compute: 1e10}}\n"));
    assert!(
        budget.len() == 1 && budget[0].starts_with("the sweep needs ") && budget[0].ends_with("allows 1.000e10"),
        "{budget:?}"
    );
    assert_eq!(
        bad(&SPEC.replace("data: {pool: train}\n", "")),
        ["`data` is missing: runner `clip` reads image-text pairs"]
    );
    let alias = SPEC.replace("[cpu-w64-l3, cpu-w32-l2]", "[ViT-G-14, ViT-bigG-14]");
    assert!(bad(&alias)[0].contains("gives a job that is there already: ViT-bigG-14"));
}

#[test]
fn ten_thousand_cells() {
    let seeds: Vec<u32> = (0..1_250).collect();
    let plan = good(&SPEC.replace("data_size:", &format!("seed: {seeds:?}, data_size:")));
    assert_eq!(plan.jobs.len(), 10_000);
    assert_eq!(keys(&plan).len(), 10_000);
}

proptest! {
    #[test]
    fn costs_add_up(samples in 128..10_000_000_u64, batch in 1..500_u64, unique in 500..4_000_u64) {
        let text = format!(
            "name: x\ndata: {{pool: train}}\ngrid: {{model: cpu-w32-l2, samples_seen: {}, data_size: {unique}}}\n\
             recipe: {{global_batch: {batch}}}\n",
            samples.max(batch)
        );
        let plan = good(&text);
        let job = &plan.jobs[0];
        prop_assert_eq!(job.spec.samples_seen % batch, 0);
        prop_assert!(job.spec.samples_seen >= samples.max(batch) && job.spec.samples_seen < samples.max(batch) + batch);
        prop_assert!(job.unique_samples <= unique && job.unique_samples <= job.spec.samples_seen);
        prop_assert!(job.spec.recipe.warmup_samples <= job.spec.samples_seen);
        prop_assert!(job.memory_bytes >= 16 * job.size.parameters());
    }
}

#[test]
fn how_many_pairs_may_be_missing_is_no_part_of_identity() {
    let (plain, limited) = (good(SPEC), good(&format!("{SPEC}limits: {{skipped: 10%}}\n")));
    assert_eq!(keys(&plain), keys(&limited));
    assert!(plain.jobs.iter().all(|job| job.spec.skipped_max.is_none()));
    assert!(limited.jobs.iter().all(|job| job.spec.skipped_max == Some(job.spec.data_size / 10)));
}

/// Inputs of a runner that takes weights, with a file of them.
fn with_weights(digit: char, shapes: &[(&str, &[u64])]) -> Inputs {
    let mut inputs = inputs();
    inputs.runner.init = true;
    let weights = Weights { path: format!("{digit}.safetensors").into(), sha256: digit.to_string().repeat(64) };
    let shapes = shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    inputs.weights.insert("w".to_owned(), WeightsInfo { weights, shapes: Some(shapes), preprocess: None });
    inputs
}

fn planned_with(text: &str, inputs: &Inputs) -> Result<Plan, SpecError> {
    plan(&spec::parse(&Source::new("x.yaml", text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes)), inputs)
}

#[test]
fn weights_are_part_of_a_job_by_their_content() {
    let text = SPEC.replace("lr: 1e-3", "lr: 1e-3, init: w");
    let one = planned_with(&text, &with_weights('1', &[])).expect("a plan");
    let mut elsewhere = with_weights('1', &[]);
    elsewhere.weights.get_mut("w").expect("it is there").weights.path = "elsewhere/1.safetensors".into();
    assert_eq!(keys(&one), keys(&planned_with(&text, &elsewhere).expect("a plan")), "the path is not");
    let other = planned_with(&text, &with_weights('2', &[])).expect("a plan");
    assert!(keys(&one).is_disjoint(&keys(&other)) && keys(&one).is_disjoint(&keys(&good(SPEC))));
    assert_eq!(one.jobs[0].spec.init.as_ref().expect("it has weights").path, std::path::Path::new("1.safetensors"));

    let misfit = planned_with(&text, &with_weights('1', &[("positional_embedding", &[24, 64])])).expect_err("a misfit");
    let words: Vec<&str> = misfit.mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
    assert!(words[0].contains("`positional_embedding` is [24, 64] in the file"), "{words:?}");
    let refused = bad(&text);
    assert!(
        refused[0].contains("`recipe.init` names weights, but runner `clip` starts from random ones"),
        "{refused:?}"
    );
}

#[test]
fn weights_see_their_images_as_they_were_trained_to() {
    let mut inputs = with_weights('1', &[]);
    let squash = Preprocess { resize_mode: ResizeMode::Squash, ..Preprocess::default() };
    inputs.weights.get_mut("w").expect("it is there").preprocess = Some(squash);
    let spec = |more: &str| SPEC.replace("lr: 1e-3", &format!("lr: 1e-3, init: w{more}"));
    let refused = planned_with(&spec(""), &inputs).expect_err("another preprocessing");
    let mistake = &refused.mistakes[0];
    assert!(mistake.message.contains("sees images otherwise than the recipe says"), "{}", mistake.message);
    let help = format!("{mistake:?}");
    assert!(help.contains("resize_mode: ") && help.contains("squash"), "{help}");
    // What is written is meant.
    let same = planned_with(&spec(", resize_mode: squash"), &inputs).expect("as it was");
    let other = planned_with(&spec(", resize_mode: shortest"), &inputs).expect("as it is asked for");
    assert!(keys(&same).is_disjoint(&keys(&other)));
}

#[test]
fn a_job_that_only_measures_is_its_weights_and_what_is_measured() {
    let spec = "name: x\ngrid: {model: cpu-w32-l2, samples_seen: 0}\nrecipe: {global_batch: 128, init: w}\n\
                evaluations: [{pool: val, tasks: [zeroshot_retrieval]}]\n";
    let inputs = with_weights('1', &[]);
    let plan = planned_with(spec, &inputs).expect("a plan without a pool to train on");
    let job = &plan.jobs[0];
    assert_eq!((plan.jobs.len(), plan.pools.len(), job.unique_samples), (1, 1, 0));
    assert!(job.compute.train_flops.abs() < 1e-9 && job.memory_bytes < 16 * job.size.parameters() + 250_000_000);
    // What may be missing is a share of what is measured on.
    let limited = planned_with(&format!("{spec}limits: {{skipped: 10%}}\n"), &inputs).expect("a plan");
    let (most, pairs) = (limited.jobs[0].spec.skipped_max, limited.jobs[0].spec.data_size);
    assert_eq!((most, pairs), (Some(inputs.pools["val"].samples / 10), inputs.pools["val"].samples));
    assert_eq!(keys(&limited), keys(&plan));
    // Nothing of training counts.
    let trained = format!("data: {{pool: train}}\n{spec}").replace("128", "64, lr: 1e-2, loss: reference");
    let trained = trained.replace("samples_seen: 0", "samples_seen: 0, seed: 7, data_size: 500");
    assert_eq!(keys(&planned_with(&trained, &inputs).expect("a plan")), keys(&plan));
    let changes =
        [("zeroshot_retrieval", "contrastive_loss"), ("init: w", "init: w, alpha: white"), ("w32-l2", "w64-l3")];
    for (from, to) in changes {
        assert_ne!(keys(&planned_with(&spec.replace(from, to), &inputs).expect("a plan")), keys(&plan), "{to}");
    }
    // The same as one that is made for a checkpoint of a trained job.
    let evaluation = job.spec.evaluations[0].clone();
    let init = job.spec.init.clone().expect("it has weights");
    let of_model = |job: &&PlannedJob| job.spec.model.name == "cpu-w32-l2";
    let trained = good(SPEC).jobs.iter().find(of_model).expect("it is trained").spec.to_job_spec();
    assert_eq!(measuring_job(&inputs.runner, &trained, init, evaluation).job_key, job.job_key);

    let bad = |text: &str| match spec::parse(&Source::new("x.yaml", text)) {
        Ok(_) => panic!("a spec"),
        Err(error) => error.mistakes[0].message.clone(),
    };
    assert_eq!(bad(&spec.replace(", init: w", "")), "`grid.samples_seen[0]` is 0, and there are no weights to measure");
    let nothing = bad(spec.split("evaluations").next().expect("a head"));
    assert_eq!(nothing, "`grid.samples_seen[0]` is 0, and nothing is to be measured");
}

#[test]
fn the_sigmoid_loss_gives_a_model_its_bias() {
    let jobs = |recipe: &str| good(&SPEC.replace("lr: 1e-3", &format!("lr: 1e-3{recipe}"))).jobs;
    let (plain, sigmoid) = (jobs(""), jobs(", loss: siglip"));
    assert_eq!(sigmoid[0].size.parameters(), plain[0].size.parameters() + 1);
    let config = &sigmoid[0].spec.model.config;
    assert_eq!((config.init_logit_bias, config.init_logit_scale), (Some(-10.0), Some(10_f64.ln())));
    assert_eq!(plain[0].spec.model.config.init_logit_bias, None);
}

#[test]
fn checkpoints_are_counted_as_runners_write_them() {
    let planned = |samples: u64, more: &str| {
        good(&format!(
            "name: x\ndata: {{pool: train}}\ngrid: {{model: cpu-w32-l2, samples_seen: {samples}, data_size: 500}}\n\
             recipe: {{global_batch: 100{more}}}\n"
        ))
    };
    for samples in [100, 1_000, 1_050, 4_000] {
        for every in [1, 99, 100, 101, 150, 250, 300, 999, 1_000, 3_999, 5_000] {
            let plan = planned(samples, &format!(", checkpoint_every: {every}"));
            let total = plan.jobs[0].spec.samples_seen;
            let is_due = |seen: u64| seen / every > (seen - 100) / every || seen == total;
            let written = (1..=total / 100).filter(|step| is_due(step * 100)).count();
            assert_eq!(checkpoints_of(&plan.jobs[0]), written as u64, "{samples} samples, every {every}");
            assert_eq!(kept_checkpoints(&plan.jobs[0]), None);
        }
    }
    let kept = |keep: &str| kept_checkpoints(&planned(1_000, keep).jobs[0]).map(|kept| (kept.count, kept.bytes));
    assert_eq!(kept(", keep_checkpoints: all"), Some((1, 12 * 191_873)));
    assert_eq!(kept(", keep_checkpoints: 3, checkpoint_every: 10%"), Some((3, 36 * 191_873)));
}

#[test]
fn where_a_rollback_goes_back_to_is_part_of_the_job() {
    let mut inputs = inputs();
    inputs.runner.rolls_back = true;
    let plan = |inputs: &Inputs, recipe: &str| {
        let text = SPEC.replace("lr: 1e-3", &format!("lr: 1e-3, {recipe}"));
        let text = text.replace(", at_samples: [50%, 4k, 8064]", "");
        let spec = spec::parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
        super::plan(&spec, inputs)
    };
    let keys = |recipe: &str| keys(&plan(&inputs, recipe).unwrap_or_else(|error| panic!("{:?}", error.mistakes)));
    let plain = keys("checkpoint_every: 512");
    assert_eq!(plain, keys("checkpoint_every: 256, on_spike: go_on"));
    let back = keys("checkpoint_every: 512, on_spike: rollback");
    assert!(back.is_disjoint(&plain) && back.is_disjoint(&keys("checkpoint_every: 256, on_spike: rollback")));
    assert_eq!(back, keys("checkpoint_every: 512, on_spike: rollback, keep_checkpoints: all"));
    // A spike in a cooldown leads back into what would be the trunk.
    let cooling = "checkpoint_every: 256, warmup: 128, schedule: constant-cooldown";
    inputs.runner.branches = true;
    let jobs = |recipe: &str| plan(&inputs, recipe).expect("a plan").jobs;
    assert!(jobs(cooling).iter().any(|job| job.parent.is_some()));
    assert!(jobs(&format!("{cooling}, on_spike: rollback")).iter().all(|job| job.parent.is_none()));

    inputs.runner.rolls_back = false;
    let refused = plan(&inputs, "checkpoint_every: 512, on_spike: rollback").expect_err("it can't");
    let message = "`recipe.on_spike` is `rollback`, but runner `clip` does not go back after a spike";
    assert_eq!(refused.mistakes[0].message, message);
}
