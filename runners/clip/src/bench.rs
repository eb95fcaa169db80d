//! Samples a second of a full training step (forward, loss, backward, AdamW) on made-up data.

use std::io::Write;
use std::time::Instant;

use protocol::{Augmentation, ModelConfig, Precision, Recipe, Resources, Schedule, TextConfig, VisionConfig};
use rand::RngCore;
use tch::Tensor;

use crate::batches::Batch;
use crate::device;
use crate::loss::info_nce;
use crate::model::Clip;
use crate::optimizer::{AdamW, learning_rate};
use crate::order::Draws;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct BenchOptions {
    /// Model shapes as WIDTHxLAYERS.
    #[arg(long, value_delimiter = ',', default_value = "64x3,128x4,192x6")]
    pub shapes: Vec<String>,
    /// Samples a step.
    #[arg(long, default_value_t = 256)]
    pub batch: u64,
    /// Tokens a caption, all of them used.
    #[arg(long, default_value_t = 16)]
    pub context: u64,
    /// Vocabulary.
    #[arg(long, default_value_t = 8192)]
    pub vocab: u64,
    /// Timed steps, after three others.
    #[arg(long, default_value_t = 10)]
    pub steps: u64,
    /// Threads for arithmetic.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// bfloat16 matrix products.
    #[arg(long)]
    pub bf16: bool,
}

/// One line a shape: samples a second.
pub fn bench(options: &BenchOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let resources = Resources { device: options.device.clone(), threads: options.threads };
    let device = device::open(&resources)?;
    for shape in &options.shapes {
        let parsed = shape.split_once('x').and_then(|(w, l)| Some((w.parse().ok()?, l.parse().ok()?)));
        let (width, layers) = parsed
            .filter(|(width, layers)| *width > 0 && width % 32 == 0 && *layers > 0)
            .ok_or_else(|| anyhow::anyhow!("`{shape}` is not WIDTHxLAYERS with a width in 32s, for example `64x3`"))?;
        let precision = if options.bf16 { Precision::AmpBf16 } else { Precision::Fp32 };
        let mut model = Clip::new(&config(width, layers, options), precision, 0, device);
        let batch = batch(options, &model);
        let recipe = recipe(options, precision);
        let mut optimizer = AdamW::new(&model.parameters);
        let mut last = Tensor::new();
        let mut started = (Instant::now(), device::processor_secs());
        for step in 0..options.steps + 3 {
            if step == 3 {
                started = (Instant::now(), device::processor_secs());
            }
            last = train_step(&mut model, &mut optimizer, &batch, &recipe, options, step);
        }
        // Reading the loss waits for the device.
        let _ = last.double_value(&[]);
        let secs = started.0.elapsed().as_secs_f64();
        let processor = device::processor_secs().zip(started.1).map_or(f64::NAN, |(now, then)| now - then);
        writeln!(
            out,
            "width {width} layers {layers} patch 8 image 32 batch {} params {:.2}M {}: {:.0} samples/s, {:.1} ms/step, {:.1} ms of processor time",
            options.batch,
            model.parameters.count() as f64 / 1e6,
            device::name(device, options.threads),
            (options.steps * options.batch) as f64 / secs,
            1e3 * secs / options.steps as f64,
            1e3 * processor / options.steps as f64,
        )?;
    }
    Ok(())
}

fn train_step(
    model: &mut Clip,
    optimizer: &mut AdamW,
    batch: &Batch,
    recipe: &Recipe,
    options: &BenchOptions,
    step: u64,
) -> Tensor {
    let (images, texts) = model.forward(&model.inputs(batch));
    let loss = info_nce(&images, &texts, &model.logit_scale);
    let leaves: Vec<&Tensor> = model.parameters.list.iter().map(|parameter| &parameter.tensor).collect();
    let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
    let lr = learning_rate(recipe, step, options.steps + 3);
    optimizer.step(&mut model.parameters, &gradients, recipe, lr, options.threads);
    model.clamp_logit_scale();
    loss
}

fn config(width: u64, layers: u64, options: &BenchOptions) -> ModelConfig {
    ModelConfig {
        embed_dim: width,
        quick_gelu: false,
        vision_cfg: VisionConfig {
            image_size: 32,
            layers,
            width,
            head_width: 32,
            mlp_ratio: 4.0,
            patch_size: 8,
            ls_init_value: None,
        },
        text_cfg: TextConfig {
            context_length: options.context,
            vocab_size: options.vocab,
            width,
            heads: width / 32,
            layers,
            ls_init_value: None,
        },
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
        precision,
        augmentation: Augmentation::None,
        grad_clip_norm: None,
        checkpoint_every_samples: None,
        extra: std::collections::BTreeMap::new(),
    }
}

/// Noise for images, and captions that fill the whole context with their end token anywhere in it, as in OpenCLIP's
/// step.
fn batch(options: &BenchOptions, model: &Clip) -> Batch {
    let mut draws = Draws::new(0, 0);
    let patches = options.batch as i64 * 17 * model.image.patch_values();
    Batch {
        patches: (0..patches).map(|_| (2.0 * draws.uniform() - 1.0) as f32).collect(),
        tokens: (0..options.batch * options.context).map(|_| (draws.next_u64() % options.vocab) as i64).collect(),
        ends: (0..options.batch).map(|_| (draws.next_u64() % options.context) as i64).collect(),
    }
}
