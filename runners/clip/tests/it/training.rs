//! Training to the end, stopping and resuming.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use protocol::{EvaluationTask, Event, Job, Measurement, exit};

use crate::harness::{Bench, events, last_checkpoint, run, start};

fn measured(events: &[Event], at: u64) -> Vec<Measurement> {
    let found = events.iter().find_map(|event| match event {
        Event::Eval { samples_seen, measurements, .. } if *samples_seen == at => Some(measurements.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("an evaluation at {at}"))
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
        ],
        "loss@1024 needs 1,024 pairs"
    );
    let unmeasured = |event: &Event| match event {
        Event::Eval { unmeasured, .. } => unmeasured.get(&EvaluationTask::ContrastiveLoss).cloned(),
        _ => None,
    };
    let reasons: Vec<String> = events.iter().filter_map(unmeasured).collect();
    assert_eq!(reasons, ["it has 64 pairs, one block needs 1024"; 2], "and it says so, each time");
    assert_eq!(measured(&events, 96).len(), 9);
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
        let mut job = bench.job(name);
        change(&mut job);
        job.spec.samples_seen = 32 * 400;
        job.spec.evaluations[0].at_samples = vec![32 * 10];
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
    // A report is a mean over steps, some of which may lie before the stop.
    let curve = |events: &[Event]| -> Vec<(u64, f64)> {
        events
            .iter()
            .filter_map(|e| if let Event::Step { step, loss, .. } = e { Some((*step, *loss)) } else { None })
            .collect()
    };
    both.extend(resumed);
    assert_eq!(curve(&whole), curve(&both));
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
    assert_eq!(measured(&events, 192).len(), 9);
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
