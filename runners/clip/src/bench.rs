//! Samples a second of a full training step (forward, loss, backward, AdamW) on made-up data, and the loss's share.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use kernels::comm::TcpRing;
use protocol::{
    Augmentation, Layers, Loss, ModelConfig, Precision, Recipe, Resources, Schedule, TextConfig, VisionConfig,
};
use rand::RngCore;
use tch::Tensor;

use crate::device;
use crate::learning_rate::learning_rate;
use crate::loss;
use crate::model::{Clip, Inputs};
use crate::optimizer::AdamW;
use crate::order::Draws;
use crate::ranks::{Ranks, Start};
use crate::step::{self, StepOptions};

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct BenchOptions {
    /// Model shapes as WIDTHxLAYERS.
    #[arg(long, value_delimiter = ',', default_value = "64x3,128x4,192x6")]
    pub shapes: Vec<String>,
    /// Models by OpenCLIP's names, such as ViT-B-32, at their own sizes of image, context and vocabulary; in place of
    /// `--shapes`.
    #[arg(long, value_delimiter = ',')]
    pub models: Vec<String>,
    /// Samples a step.
    #[arg(long, default_value_t = 256)]
    pub batch: u64,
    /// Longest caption, in tokens. Captions end anywhere up to it, as random ones do for OpenCLIP.
    #[arg(long, default_value_t = 16)]
    pub context: u64,
    /// Captions that are as long as the context, all of them.
    #[arg(long)]
    pub full_captions: bool,
    /// Vocabulary.
    #[arg(long, default_value_t = 8192)]
    pub vocab: u64,
    /// Timed steps, after three others.
    #[arg(long, default_value_t = 10)]
    pub steps: u64,
    /// Processes that share a batch.
    #[arg(long, default_value_t = 1)]
    pub ranks: usize,
    /// Threads for arithmetic, of each process.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// bfloat16 matrix products.
    #[arg(long)]
    pub bf16: bool,
    /// Who computes the loss.
    #[arg(long, value_parser = ["fused", "reference"], default_value = "fused")]
    pub loss: String,
    /// Parts that the towers take a batch in.
    #[arg(long, default_value_t = 1)]
    pub accum_freq: u64,
    /// Compute blocks' activations again for the backward pass.
    #[arg(long)]
    pub grad_checkpointing: bool,
}

/// One line a model: samples a second.
pub fn bench(options: &BenchOptions, out: &mut impl Write) -> anyhow::Result<()> {
    anyhow::ensure!(
        options.batch > 0 && options.accum_freq > 0 && options.batch.is_multiple_of(options.accum_freq),
        "--accum-freq {} does not divide --batch {}",
        options.accum_freq,
        options.batch
    );
    anyhow::ensure!(options.steps > 0, "--steps must be at least 1");
    anyhow::ensure!(
        (1..=options.batch).contains(&(options.ranks as u64)),
        "--ranks {} must be 1 to --batch {}",
        options.ranks,
        options.batch
    );
    let place = std::env::var("RANK").ok().filter(|_| options.ranks > 1);
    if options.ranks > 1 && place.is_none() {
        return start_ranks(options.ranks);
    }
    let resources = Resources { device: options.device.clone(), threads: options.threads };
    let local_rank = place.map(|rank| rank.parse()).transpose()?;
    let device = device::open(&resources, local_rank)?;
    let mut ranks = match local_rank {
        Some(_) => Some(Ranks::over(TcpRing::from_env(PEERS_LIMIT)?, device)?),
        None => None,
    };
    for (name, config) in models(options)? {
        let precision = if options.bf16 { Precision::AmpBf16 } else { Precision::Fp32 };
        device::reset_peak_memory(device);
        let mut model = Clip::new(&config, precision, 0, device);
        model.set_grad_checkpointing(options.grad_checkpointing);
        let mut batch = batch(options, &config, &model);
        if let Some(ranks) = &ranks {
            let own = ranks.rows(options.batch);
            batch = batch.rows(own.start as i64, own.end as i64);
        }
        let inputs = batch.on(device);
        let recipe = recipe(options, precision);
        let step_options = StepOptions::new(&recipe, device);
        let mut optimizer = AdamW::new(&model.parameters);
        if let Some(ranks) = &mut ranks {
            ranks.spread(&mut model.parameters, &mut optimizer, Start::default())?;
        }
        let mut last = Tensor::new();
        let mut started = (Instant::now(), device::processor_secs());
        for step in 0..options.steps + WARM {
            if step == WARM {
                let _ = last.double_value(&[]); // Reading the loss waits for the device.
                started = (Instant::now(), device::processor_secs());
            }
            let lr = learning_rate(&recipe, step, options.steps + WARM);
            let threads = options.threads;
            last = if let Some(ranks) = &mut ranks {
                let loss = ranks.gradients(&model, &inputs, step_options)?;
                ranks.step(&mut model.parameters, &mut optimizer, (&recipe, lr), threads, false)?;
                loss
            } else {
                let (loss, gradients) = step::gradients(&model, &inputs, step_options)?;
                optimizer.step(&mut model.parameters, &gradients, &recipe, lr, threads);
                loss
            };
            model.clamp_logit_scale();
        }
        let _ = last.double_value(&[]);
        let secs = started.0.elapsed().as_secs_f64() / options.steps as f64;
        let processor = device::processor_secs().zip(started.1).map_or(f64::NAN, |(now, then)| now - then);
        if ranks.as_ref().is_some_and(|ranks| !ranks.is_first()) {
            continue;
        }
        let memory = device::peak_memory_bytes(device).map_or(f64::NAN, |bytes| bytes as f64 / 1e9);
        let loss_secs = loss_secs(options, config.embed_dim, &model, step_options)?;
        writeln!(
            out,
            "{name} batch {} params {:.2}M {}: {:.1} samples/s, {:.1} ms/step, {:.1} ms of processor time, {:.3} GFLOP a sample, \
             {memory:.2} GB, {} loss {:.2} ms = {:.4} %",
            options.batch,
            model.parameters.count() as f64 / 1e6,
            device::name(device, options.threads, options.ranks),
            options.batch as f64 / secs,
            1e3 * secs,
            1e3 * processor / options.steps as f64,
            config.size().compute(1).train_flops / 1e9,
            options.loss,
            1e3 * loss_secs,
            1e2 * loss_secs / secs,
        )?;
    }
    Ok(())
}

/// How long ranks wait for each other; long enough for rank 0 to time the loss alone.
const PEERS_LIMIT: Duration = Duration::from_mins(5);

/// Starts this very command once for each rank, and waits for all.
fn start_ranks(ranks: usize) -> anyhow::Result<()> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port).spawn()
    };
    let started: Vec<_> = (0..ranks).map(start).collect::<Result<_, _>>()?;
    for (rank, mut process) in started.into_iter().enumerate() {
        let status = process.wait()?;
        anyhow::ensure!(status.success(), "rank {rank} left with {status}");
    }
    Ok(())
}

/// Steps that are not timed.
const WARM: u64 = 3;

/// Seconds of the loss and its gradients alone, on embeddings of the batch's size: the median of several.
fn loss_secs(options: &BenchOptions, width: u64, model: &Clip, step: StepOptions) -> anyhow::Result<f64> {
    let embeddings = || {
        let rows = Tensor::randn([options.batch as i64, width as i64], (tch::Kind::Float, model.device()));
        &rows / rows.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt()
    };
    let (images, texts) = (embeddings(), embeddings());
    let mut times = Vec::new();
    for _ in 0..options.steps + WARM {
        let started = Instant::now();
        let found = loss::contrastive_gradients(&images, &texts, model.logits(), step, None)?;
        let _ = found.loss.double_value(&[]);
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Names and configurations of what is asked for.
fn models(options: &BenchOptions) -> anyhow::Result<Vec<(String, ModelConfig)>> {
    if !options.models.is_empty() {
        let named = |name: &String| {
            let known = || protocol::SHIPPED_MODELS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let (name, json) = protocol::shipped_model(name)
                .ok_or_else(|| anyhow::anyhow!("`{name}` is not a known model; allowed: {}", known()))?;
            Ok((name.to_owned(), serde_json::from_str(json)?))
        };
        return options.models.iter().map(named).collect();
    }
    let shaped = |shape: &String| {
        let parsed = shape.split_once('x').and_then(|(w, l)| Some((w.parse().ok()?, l.parse().ok()?)));
        let (width, layers) = parsed
            .filter(|(width, layers)| *width > 0 && width % 32 == 0 && *layers > 0)
            .ok_or_else(|| anyhow::anyhow!("`{shape}` is not WIDTHxLAYERS with a width in 32s, for example `64x3`"))?;
        Ok((format!("width {width} layers {layers} patch 8 image 32"), config(width, layers, options)))
    };
    options.shapes.iter().map(shaped).collect()
}

fn config(width: u64, layers: u64, options: &BenchOptions) -> ModelConfig {
    ModelConfig {
        embed_dim: width,
        vision_cfg: VisionConfig {
            image_size: 32,
            layers: Layers::Blocks(layers),
            width,
            head_width: 32,
            patch_size: 8,
            ..VisionConfig::default()
        },
        text_cfg: TextConfig {
            context_length: options.context,
            vocab_size: options.vocab,
            width,
            heads: width / 32,
            layers,
            ..TextConfig::default()
        },
        ..ModelConfig::default()
    }
}

fn recipe(options: &BenchOptions, precision: Precision) -> Recipe {
    Recipe {
        global_batch: options.batch,
        lr: 1e-3,
        betas: [0.9, 0.98],
        eps: 1e-6,
        weight_decay: 0.2,
        warmup_samples: 0,
        schedule: Schedule::Constant,
        cooldown_samples: 0,
        precision,
        loss: if options.loss == "reference" { Loss::Reference } else { Loss::Fused },
        accum_freq: options.accum_freq,
        grad_checkpointing: options.grad_checkpointing,
        augmentation: Augmentation::None,
        alpha: protocol::Alpha::Drop,
        preprocess: protocol::Preprocess::default(),
        grad_clip_norm: None,
        on_spike: protocol::OnSpike::GoOn,
        checkpoint_every_samples: None,
        keep_checkpoints: None,
        extra: std::collections::BTreeMap::new(),
    }
}

/// Noise for images, and captions whose pooled token stands anywhere in the context, as OpenCLIP's does in random
/// tokens.
fn batch(options: &BenchOptions, config: &ModelConfig, model: &Clip) -> Inputs {
    let mut draws = Draws::new(0, 0);
    let (vision, text) = (&config.vision_cfg, &config.text_cfg);
    let tokens = (vision.image_size / vision.patch_size).pow(2) as i64 + 1;
    let patches = options.batch as i64 * tokens * model.image.patch_values();
    let (context, vocabulary) = (text.context_length, text.vocab_size);
    let patches: Vec<f32> = (0..patches).map(|_| (2.0 * draws.uniform() - 1.0) as f32).collect();
    let tokens: Vec<i64> = (0..options.batch * context).map(|_| (draws.next_u64() % vocabulary) as i64).collect();
    let shortest = if options.full_captions { context } else { 1 };
    let place = |draw: u64| (shortest - 1 + draw % (context + 1 - shortest)) as i64;
    let ends: Vec<i64> = (0..options.batch).map(|_| place(draws.next_u64())).collect();
    let pairs = options.batch as i64;
    Inputs {
        patches: Tensor::from_slice(&patches).view([pairs, -1, model.image.patch_values()]),
        tokens: Tensor::from_slice(&tokens).view([pairs, -1]),
        ends: Tensor::from_slice(&ends),
        kept: None,
    }
}
