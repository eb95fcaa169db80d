//! Training to the end, stopping and resuming.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use protocol::{EvaluationTask, Event, Job, exit};

use crate::harness::{Bench, events, last_checkpoint, measured, run, runner, start};

/// What is reported of steps, but for the time that they took; of what was reported twice, the later.
fn curve(events: &[Event]) -> BTreeMap<u64, Event> {
    let rows = events.iter().filter_map(|event| {
        let Event::Step { step, .. } = event else { return None };
        let mut row = event.clone();
        if let Event::Step { metrics, .. } = &mut row {
            metrics.remove("samples_per_sec").expect("steps say how fast they were");
            metrics.remove("data_wait_secs").expect("and how long they waited for data");
        }
        Some((*step, row))
    });
    rows.collect()
}

/// A job of 400 steps whose reports are means over 4.
fn long(bench: &Bench, name: &str) -> Job {
    let mut job = bench.job(name);
    job.spec.samples_seen = 32 * 400;
    job.spec.evaluations[0].at_samples = vec![32 * 10];
    job
}

#[test]
fn a_job_reports_measures_and_ends_with_a_checkpoint() {
    let bench = Bench::new();
    let job = bench.job("whole");
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    let parameters = job.spec.model.config.size().parameters();
    assert!(
        matches!(&events[0], Event::Started { parameters: n, resumed_from_samples: 0, device, .. } if *n == parameters && device == "cpu (1 thread)")
    );
    let steps: Vec<u64> =
        events.iter().filter_map(|e| if let Event::Step { step, .. } = e { Some(*step) } else { None }).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    assert!(matches!(events.last(), Some(Event::Finished { samples_seen: 192, .. })));
    let names: Vec<String> = measured(&events, 192).into_iter().map(|m| m.metric).collect();
    assert_eq!(
        names,
        [
            "acc1",
            "acc5",
            "mean_per_class_recall",
            "image_retrieval_recall@1",
            "image_retrieval_recall@5",
            "image_retrieval_recall@10",
            "text_retrieval_recall@1",
            "text_retrieval_recall@5",
            "text_retrieval_recall@10",
            "image_retrieval_recall_grouped@1",
            "image_retrieval_recall_grouped@5",
            "image_retrieval_recall_grouped@10",
            "text_retrieval_recall_grouped@1",
            "text_retrieval_recall_grouped@5",
            "text_retrieval_recall_grouped@10",
        ],
        "loss@1024 needs 1,024 pairs"
    );
    let unmeasured = |event: &Event| match event {
        Event::Eval { unmeasured, .. } => unmeasured.get(&EvaluationTask::ContrastiveLoss).cloned(),
        _ => None,
    };
    let reasons: Vec<String> = events.iter().filter_map(unmeasured).collect();
    assert_eq!(reasons, ["it has 64 pairs, one block needs 1024"; 2], "and it says so, each time");
    assert_eq!(measured(&events, 96).len(), 15);
    assert!(last_checkpoint(&events).join("model.safetensors").is_file());
}

#[test]
fn sixty_four_pairs_are_learnt_by_heart() {
    let bench = Bench::new();
    let mut job = bench.job("overfit");
    job.spec.samples_seen = 64 * 150;
    job.spec.recipe.global_batch = 64;
    job.spec.recipe.warmup_samples = 640;
    job.spec.recipe.augmentation = protocol::Augmentation::None;
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    let losses: Vec<f64> =
        events.iter().filter_map(|e| if let Event::Step { loss, .. } = e { Some(*loss) } else { None }).collect();
    let (first, last) = (losses[0], *losses.last().expect("a step"));
    assert!(first > 3.5 && last < 1.0, "from {first}, about ln 64 = 4.16, to {last}");
    let acc1 = &measured(&events, job.spec.samples_seen)[0];
    assert!(acc1.value > 0.5 && acc1.chance == Some(0.125), "{acc1:?}");
}

#[test]
fn the_sigmoid_loss_learns_too_and_needs_a_bias() {
    let bench = Bench::new();
    let mut job = bench.job("sigmoid");
    job.spec.samples_seen = 64 * 400;
    job.spec.recipe.global_batch = 64;
    job.spec.recipe.loss = protocol::Loss::Siglip;
    job.spec.recipe.augmentation = protocol::Augmentation::None;
    let (events, code) = run(&job);
    let said = format!("{events:?}");
    assert!(code == exit::BAD_INPUT && said.contains("needs a model with `init_logit_bias`"), "{said}");
    let config = &mut job.spec.model.config;
    (config.init_logit_scale, config.init_logit_bias) = (Some(10_f64.ln()), Some(-10.0));
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    let losses: Vec<f64> =
        events.iter().filter_map(|e| if let Event::Step { loss, .. } = e { Some(*loss) } else { None }).collect();
    let (first, last) = (losses[0], *losses.last().expect("a step"));
    assert!(first > 5.0 && last < 2.0, "from {first}, about 10 of the pairs, to {last}");
    // 0.27 to 0.63 with seeds 0 to 5, of 64 pictures; by chance 0.25 is three standard errors away.
    let acc1 = &measured(&events, job.spec.samples_seen)[0];
    assert!(last < 1.0 && acc1.value > 0.25 && acc1.chance == Some(0.125), "{acc1:?}");
}

#[test]
fn a_stopped_and_resumed_job_ends_with_the_same_bytes() {
    stopped_and_resumed(|_| ());
}

/// What is left out of an image depends on seed and samples seen alone.
#[test]
fn patch_dropout_goes_on_where_it_was() {
    stopped_and_resumed(|job| {
        let vision = &mut job.spec.model.config.vision_cfg;
        (vision.image_size, vision.patch_size, vision.patch_dropout) = (32, 8, 0.6);
        (vision.pool_type, vision.no_ln_pre) = (protocol::ImagePool::Avg, true);
        let text = &mut job.spec.model.config.text_cfg;
        (text.pool_type, text.no_causal_mask) = (protocol::TextPool::Last, true);
    });
}

fn stopped_and_resumed(change: impl Fn(&mut Job)) {
    let bench = Bench::new();
    let long = |name: &str| {
        let mut job = long(&bench, name);
        change(&mut job);
        job
    };
    let (whole, code) = run(&long("whole"));
    assert_eq!(code, exit::FINISHED);

    // The first attempt is asked to stop once it has reported a step: wherever it is then, it keeps its place.
    let mut stopped = start(&long("halves"));
    let mut out = BufReader::new(stopped.stdout.take().expect("piped"));
    let mut first = String::new();
    while !first.contains("\"event\":\"step\"") {
        assert!(out.read_line(&mut first).expect("events") > 0, "a step is reported");
    }
    let asked = Command::new("kill").args(["-TERM", &stopped.id().to_string()]).status().expect("kill");
    assert!(asked.success());
    out.read_to_string(&mut first).expect("events");
    assert_eq!(stopped.wait().expect("ends").code(), Some(exit::STOPPED));
    let mut both: Vec<Event> = first.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let Some(&Event::Checkpoint { samples_seen: kept, .. }) = both.last() else { panic!("{both:?}") };
    assert!(kept < 32 * 400, "stopped before the end");

    let mut job = long("halves");
    job.fence = 2;
    let (resumed, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples == kept));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |events: &[Event]| fs::read(last_checkpoint(events).join(file)).expect("checkpoint");
        assert!(bytes(&whole) == bytes(&resumed), "{file} differs");
    }
    let final_numbers = |events: &[Event]| measured(events, 32 * 400);
    assert_eq!(final_numbers(&whole), final_numbers(&resumed));
    // A report is a mean over steps, some of which may lie before the stop; the stop itself is no reason for one.
    both.extend(resumed);
    assert_eq!(curve(&whole), curve(&both));
    let reports = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Step { .. })).count();
    assert_eq!((reports(&whole), reports(&both)), (100, 100));
}

#[test]
fn a_killed_jobs_curve_is_that_of_one_that_ran_through() {
    let bench = Bench::new();
    let (whole, _) = run(&long(&bench, "whole"));
    // 32 * 7 samples: checkpoints lie anywhere between two reports.
    let often = |fence| {
        let mut job = long(&bench, "killed");
        job.spec.recipe.checkpoint_every_samples = Some(32 * 7);
        job.fence = fence;
        job
    };
    let mut events: Vec<Event> = Vec::new();
    let mut killed = start(&often(1));
    for line in BufReader::new(killed.stdout.take().expect("piped")).lines() {
        events.push(serde_json::from_str(&line.expect("events")).expect("an event"));
        if matches!(events.last(), Some(Event::Checkpoint { step: 77, .. })) {
            killed.kill().expect("kill");
        }
    }
    killed.wait().expect("ends");
    let (resumed, code) = run(&often(2));
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples >= 32 * 77));
    events.extend(resumed);
    assert_eq!(curve(&whole), curve(&events));
    let Event::Step { metrics, .. } = &curve(&whole)[&400] else { panic!("a step") };
    assert!(metrics["grad_norm"] > 0.0 && metrics["spikes"] == 0.0 && metrics.len() == 4, "{metrics:?}");
}

#[test]
fn a_checkpoint_of_a_version_that_kept_no_losses_is_resumed_from() {
    let bench = Bench::new();
    let mut job = bench.job("old");
    job.spec.samples_seen = 32 * 401; // Its checkpoint at 200 steps lies between two reports, of 5 steps each.
    job.spec.recipe.checkpoint_every_samples = Some(32 * 201);
    let (first, _) = run(&job);
    let manifest = first.iter().find_map(|event| match event {
        Event::Checkpoint { step: 201, path, .. } => Some(path.join("manifest.json")),
        _ => None,
    });
    let manifest = manifest.expect("a checkpoint at 201 steps");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).expect("manifest")).expect("JSON");
    let losses = text.as_object_mut().and_then(|fields| fields.remove("losses")).expect("losses");
    assert_eq!(losses.as_array().map(Vec::len), Some(1));
    fs::write(&manifest, text.to_string()).expect("manifest");
    fs::remove_dir_all(last_checkpoint(&first)).expect("the newer one");

    job.fence = 2;
    let (resumed, code) = run(&job);
    assert_eq!(code, exit::FINISHED);
    assert!(matches!(resumed[0], Event::Started { resumed_from_samples, .. } if resumed_from_samples == 32 * 201));
    // The one report that straddles it is a mean over the four steps that are known; all others are the same.
    let (mut whole, mut rest) = (curve(&first), curve(&resumed));
    whole.retain(|step, _| *step > 205);
    assert!(rest.remove(&205).is_some());
    assert_eq!(whole, rest);
}

#[test]
fn batches_are_listed_as_they_are_trained_on() {
    let bench = Bench::new();
    let mut job = bench.job("listed");
    job.spec.data_size = 48;
    fs::create_dir_all(&job.attempt_dir).expect("attempt folder");
    let path = job.attempt_dir.join("job.json");
    fs::write(&path, serde_json::to_vec(&job).expect("JSON")).expect("job file");
    let listed = |steps: &[&str]| {
        let mut command = Command::new(runner());
        command.args(["batches", "--job"]).arg(&path).args(steps).output().expect("clip-runner runs")
    };
    let lines = |output: &[u8]| -> Vec<serde_json::Value> {
        let text = String::from_utf8(output.to_vec()).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = lines(&listed(&[]).stdout);
    assert_eq!(all.iter().map(|line| line["step"].as_u64()).collect::<Vec<_>>(), (1..=6).map(Some).collect::<Vec<_>>());
    let keys: Vec<&str> =
        all.iter().flat_map(|line| line["keys"].as_array().expect("keys")).filter_map(|k| k.as_str()).collect();
    assert_eq!(keys.len(), 192);
    // Four passes over the first 48 keys in the order of their sha256.
    let mut known: Vec<String> = (0..64).map(|index| format!("{index:05}")).collect();
    known.sort_by_cached_key(|key| <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(key)));
    let mut known: Vec<&str> = known[..48].iter().map(String::as_str).collect();
    known.sort_unstable();
    for pass in keys.chunks(48) {
        let mut pass = pass.to_vec();
        assert!(!pass.is_sorted(), "shuffled");
        pass.sort_unstable();
        assert_eq!(pass, known);
    }
    assert_eq!(lines(&listed(&["--steps", "2..3"]).stdout), all[1..3]);
    let beyond = listed(&["--steps", "5..7"]);
    let said = String::from_utf8_lossy(&beyond.stderr).into_owned();
    assert!(!beyond.status.success() && said.contains("`--steps` is 5..7, but the job has the steps 1..6"), "{said}");
}

#[test]
fn a_job_says_how_many_checkpoints_stay() {
    let bench = Bench::new();
    for (keep, kept) in [(r#""all""#, 5), ("3", 3), ("1", 1)] {
        let mut job = bench.job(&format!("kept-{kept}"));
        job.spec.recipe.checkpoint_every_samples = Some(64);
        job.spec.recipe.keep_checkpoints = Some(serde_json::from_str(keep).expect("it is allowed"));
        job.spec.samples_seen = 320;
        let (events, _) = run(&job);
        let reported = events.iter().filter(|event| matches!(event, Event::Checkpoint { .. })).count();
        let folder = last_checkpoint(&events);
        let folder = folder.parent().expect("checkpoint folder");
        assert_eq!((reported, fs::read_dir(folder).expect("folder").count()), (5, kept), "{keep}");
    }
    let none: Result<protocol::Keep, _> = serde_json::from_str("0");
    assert!(none.is_err(), "{none:?}");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let bench = Bench::new();
    let mut job = bench.job("damaged");
    job.spec.recipe.checkpoint_every_samples = Some(64);
    let (first, _) = run(&job);
    let newest = last_checkpoint(&first);
    let folder = newest.parent().expect("checkpoint folder");
    assert_eq!(fs::read_dir(folder).expect("folder").count(), 2, "the last two are kept");
    let weights = newest.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).expect("weights");

    job.fence = 2;
    let output = start(&job).wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (again, code) = events(&output);
    assert_eq!(code, exit::FINISHED);
    assert!(said.contains("passing over checkpoint") && said.contains("sha256"), "{said}");
    assert!(matches!(again[0], Event::Started { resumed_from_samples: 128, .. }), "{:?}", again[0]);

    // A checkpoint of a higher fence is not ours: with fence 0 there is nothing to resume from.
    job.fence = 0;
    let (fresh, _) = run(&job);
    assert!(matches!(fresh[0], Event::Started { resumed_from_samples: 0, .. }));
}

#[test]
fn a_diverged_loss_names_its_step() {
    let bench = Bench::new();
    let mut job = bench.job("diverged");
    job.spec.recipe.lr = 1e30;
    job.spec.recipe.grad_clip_norm = None;
    let (events, code) = run(&job);
    assert_eq!(code, exit::FAILED);
    let Some(Event::Failed { reason, kind }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*kind, protocol::FailureKind::Diverged);
    assert!(reason.contains("the loss of step ") && reason.contains("learning rate"), "{reason}");
}

#[test]
fn a_learning_rate_of_zero_leaves_the_weights_as_they_were() {
    let bench = Bench::new();
    let weights = |name: &str, samples| {
        let mut job = bench.job(name);
        (job.spec.recipe.lr, job.spec.samples_seen) = (0.0, samples);
        let (events, code) = run(&job);
        assert_eq!(code, exit::FINISHED, "{events:?}");
        fs::read(last_checkpoint(&events).join("model.safetensors")).expect("weights")
    };
    assert!(weights("one step", 32) == weights("six steps", 192));
}

#[test]
fn other_precisions_and_parts_train() {
    let bench = Bench::new();
    let mut job = bench.job("parts");
    job.spec.model.config.quick_gelu = true;
    job.spec.model.config.vision_cfg.ls_init_value = Some(0.1);
    job.spec.model.config.text_cfg.ls_init_value = Some(0.1);
    job.spec.recipe.precision = protocol::Precision::AmpBf16;
    job.spec.recipe.augmentation = protocol::Augmentation::RandomResizedCrop;
    job.resources.threads = 2;
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
}

#[test]
fn other_towers_train_in_bf16_and_in_parts() {
    let bench = Bench::new();
    let mut job = bench.job("towers");
    let config = &mut job.spec.model.config;
    config.custom_text = true;
    config.nonscalar_logit_scale = true;
    config.init_logit_bias = Some(-10.0);
    config.vision_cfg.attentional_pool = true;
    config.vision_cfg.attn_pooler_queries = 3;
    config.text_cfg.embed_cls = true;
    config.text_cfg.proj_bias = true;
    job.spec.recipe.precision = protocol::Precision::AmpBf16;
    job.spec.recipe.accum_freq = 4;
    let (events, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{events:?}");
    assert_eq!(measured(&events, 192).len(), 15);
}

/// So a job that ran out of memory goes on with it.
#[test]
fn activations_that_are_computed_again_change_no_byte() {
    let bench = Bench::new();
    let ended = |name: &str, on: bool| {
        let mut job = bench.job(name);
        job.spec.recipe.grad_checkpointing = on;
        let (events, code) = run(&job);
        assert_eq!(code, exit::FINISHED, "{events:?}");
        (fs::read(last_checkpoint(&events).join("model.safetensors")).expect("weights"), curve(&events))
    };
    let (kept, again) = (ended("kept", false), ended("again", true));
    assert!(kept.0 == again.0, "the weights");
    assert_eq!(kept.1, again.1);
}

#[test]
fn either_loss_and_a_batch_in_parts_learn_alike() {
    let bench = Bench::new();
    let last_loss = |name: &str, loss, accum_freq| {
        let mut job = bench.job(name);
        job.spec.recipe.augmentation = protocol::Augmentation::None;
        (job.spec.recipe.loss, job.spec.recipe.accum_freq) = (loss, accum_freq);
        let (events, code) = run(&job);
        assert_eq!(code, exit::FINISHED, "{events:?}");
        let mut losses =
            events.iter().filter_map(|e| if let Event::Step { loss, .. } = e { Some(*loss) } else { None });
        losses.next_back().expect("a step")
    };
    let expected = last_loss("reference", protocol::Loss::Reference, 1);
    for (name, loss, parts) in [("fused", protocol::Loss::Fused, 1), ("fused parts", protocol::Loss::Fused, 4)] {
        let found = last_loss(name, loss, parts);
        assert!((found - expected).abs() < 0.02 * expected, "{name}: {found} against {expected}");
    }
}
