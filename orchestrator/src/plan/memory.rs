//! How much memory a job needs, from closed forms that are held against real runs: `make bench-memory`,
//! `runners/clip/RESULTS.md`.

use protocol::{FineTuningPlan, ImagePool, Loss, ModelConfig, ModelSize, OnSpike, Precision, Recipe};

use super::PlannedSpec;

/// Where a job's arithmetic happens, and so whose memory is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The process's own: code, loader and what the heap can't use again are in it.
    Cpu,
    /// A GPU's: what libtorch holds there. CUDA's own context is not in it.
    Gpu,
}

/// What the fused loss keeps of the logits at most.
const LOGITS_BYTES_MAX: f64 = (1_u64 << 30) as f64;

/// Images or texts that clip-runner embeds at a time.
const MEASURED_AT_A_TIME: u64 = 256;

/// clip-runner before it has a model, with libtorch, tokenizer and thread pools loaded (148 MB), and what its operators
/// work in, with the kernels that are generated for them. Measured.
const PROCESS_BYTES: f64 = 166e6;

/// A batch that is being made or copied, one that waits, and the one of the step.
const BATCHES: f64 = 3.0;

/// Bytes of decoded pixels that the loader maps at most: `pool::OpenOptions::cache_bytes`. More are decoded as needed.
const PIXELS_BYTES_MAX: f64 = (4_u64 << 30) as f64;

/// Keys, captions and tokens of a pair.
const PAIR_BYTES: f64 = 300.0;

/// What of a CPU's heap can't be used again, in numbers of 4 bytes for each token of a block and W. Fitted to eleven
/// shapes with captions of nearly the context's length, and again with short ones.
const HOLES: f64 = 0.7;

/// The same of a batch in parts, once for each tower: what the pass without a graph took lies where the pass with one
/// has other sizes.
const HOLES_OF_PARTS: f64 = 10.0;

/// Estimated peak bytes of training in one process:
///
/// ```text
/// 16 N                      weights, gradients and AdamW's two moments, fp32
/// + 4 N if k > 1            gradients of a part beside their sum
/// + 2 N if amp_bf16, GPU    weights as the products saw them
/// + B/k (image + text)      activations kept for the backward pass
/// + 12 N with `on_spike: rollback`, CPU   weights and moments to go back to
/// + 4 B 8 E                 embeddings, their gradients and copies
/// + min(4 B^2, 1 GiB), or 3 x 4 B^2      logits: fused, or by reference with their gradients
/// + 36 B (S^2 + p^2)        images as patches, in three batches
///
/// a tower of L blocks on T tokens of width W, H hidden, b bytes an activation (4, or 2 with amp_bf16), on a CPU:
///   (L - 1) T (8 W + b (4 W + H) + 16)           a block's two inputs, fp32; queries, keys, values, mixed values,
///                                                the activation's input; moments of two norms
///   + T (4 W + 2 b W + 8)                        the last block, of whose tokens one is pooled: input, keys, values
///   + 8 W + b (2 W + H) + 16                     and what that one keeps
/// and on a GPU, or of blocks with LayerScale (with a class token of text: attention's half of this):
///   (L - 1) T (8 W + b (6 W + 2 H) + 4 heads)    norms and both sides of the activation, too; log-sums of attention
///   + T (4 W + 5 b W)                            input, norm, keys and values, and these once more, laid out for
///                                                the product
///
/// with `grad_checkpointing`:
///   L T 4 W                                      each block's input
///   + what else one block keeps, as above        on a GPU of the tower where that is more, since there is one block
///                                                at a time; in a CPU's heap of both, with T 8 W of gradients
/// ```
///
/// Attention weights are not kept: they are made again, on CPUs, too. On a CPU there are also the process, the pixels
/// of the pool as far as they are mapped (the kernel can take those back), and holes in the heap. Not counted:
/// activations of a ResNet, originals that random crops are cut from, CUDA's context.
pub fn memory_bytes(config: &ModelConfig, size: &ModelSize, recipe: &Recipe, pairs: u64, device: Device) -> u64 {
    let vision = &config.vision_cfg;
    let (parameters, batch) = (size.parameters() as f64, recipe.global_batch as f64);
    let part = batch / recipe.accum_freq as f64;
    let half = recipe.precision == Precision::AmpBf16 && device == Device::Gpu;
    let goes_back = recipe.on_spike == OnSpike::Rollback && device == Device::Cpu;
    let further = [(recipe.accum_freq > 1, 4.0), (half, 2.0), (goes_back, 12.0)];
    let states = 16.0 + further.iter().map(|(kept, bytes)| if *kept { *bytes } else { 0.0 }).sum::<f64>();
    let (image_tower, text_tower) = (image_tower(config, vision.patches_kept() + 1), text_tower(config));
    let side = (vision.image_size.pow(2) + vision.patch_size.pow(2)) as f64;
    let towers = [&image_tower, &text_tower];
    let kept = if recipe.grad_checkpointing {
        let inputs = towers.iter().map(|tower| tower.inputs()).sum::<f64>();
        let again = towers.map(|tower| tower.kept_of_a_block(recipe.precision, device));
        inputs
            + match device {
                Device::Gpu => again[0].max(again[1]),
                Device::Cpu => {
                    let gradients = towers.map(|tower| 8.0 * (tower.tokens * tower.width) as f64);
                    again.iter().chain(&gradients).sum()
                }
            }
    } else {
        towers.iter().map(|tower| tower.kept(recipe.precision, device)).sum()
    };
    // Products in bfloat16 keep patches as they saw them.
    let activations = kept + if half { 6.0 * side } else { 0.0 };
    let logits = match recipe.loss {
        Loss::Fused | Loss::Siglip => {
            (4.0 * batch * batch).min(LOGITS_BYTES_MAX) + 32.0 * batch * config.embed_dim as f64
        }
        Loss::Reference => 12.0 * batch * batch,
    };
    let images = 12.0 * BATCHES * batch * side;
    let total = states * parameters + part * activations + logits + images;
    let total = match device {
        Device::Gpu => total,
        Device::Cpu => {
            let holes_of = |tower: &Tower| {
                let of_parts = if recipe.accum_freq > 1 { HOLES_OF_PARTS } else { 0.0 };
                4.0 * (HOLES * tower.layers as f64 + of_parts) * (tower.tokens * tower.width) as f64
            };
            let holes = part * (holes_of(&image_tower) + holes_of(&text_tower));
            let mapped = pixels_mapped(config, pairs);
            total + holes + PROCESS_BYTES + mapped + pairs as f64 * PAIR_BYTES
        }
    };
    total as u64
}

/// The same of a job with all that it measures: fine-tuning trains a copy of the image tower beside the model, and the
/// moments of a training.
pub fn peak_bytes(config: &ModelConfig, size: &ModelSize, spec: &PlannedSpec, device: Device) -> u64 {
    let process = if device == Device::Cpu { PROCESS_BYTES as u64 } else { 0 };
    let tunings = spec.evaluations.iter().filter_map(|evaluation| evaluation.fine_tuning.as_ref());
    let tuning =
        tunings.map(|plan| tuning_bytes(config, size, spec.recipe.precision, device, plan)).max().unwrap_or_default();
    if spec.measures_only() {
        process + measuring_bytes(config, size) + tuning
    } else {
        let training = memory_bytes(config, size, &spec.recipe, spec.data_size, device);
        training.max(process + 12 * size.parameters() + tuning)
    }
}

/// What of that is pixels of the pool, mapped from a file: the kernel takes them back where memory is short.
pub fn reclaimable_bytes(config: &ModelConfig, spec: &PlannedSpec, device: Device) -> u64 {
    let training = device == Device::Cpu && !spec.measures_only();
    if training { pixels_mapped(config, spec.data_size) as u64 } else { 0 }
}

fn pixels_mapped(config: &ModelConfig, pairs: u64) -> f64 {
    let pixels = pairs as f64 * 3.0 * (config.vision_cfg.image_size as f64).powi(2);
    if pixels > PIXELS_BYTES_MAX { 0.0 } else { pixels }
}

/// A recipe that needs less memory, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitting {
    pub accum_freq: u64,
    pub grad_checkpointing: bool,
    pub bytes: u64,
}

/// With which settings a job needs no more than so many bytes: the smallest number of parts of a batch, with what the
/// recipe says of activations; and activations that are computed again, with the smallest number of parts. Each where
/// it changes something and suffices.
pub fn fitting(
    config: &ModelConfig,
    size: &ModelSize,
    spec: &PlannedSpec,
    device: Device,
    bytes: u64,
) -> [Option<Fitting>; 2] {
    let (batch, parts_now) = (spec.recipe.global_batch, spec.recipe.accum_freq);
    let smallest = |parts: std::ops::RangeInclusive<u64>, grad_checkpointing: bool| {
        let needed = |accum_freq: u64| {
            let recipe = Recipe { accum_freq, grad_checkpointing, ..Recipe::clone(&spec.recipe) };
            let spec = PlannedSpec { recipe: std::sync::Arc::new(recipe), ..spec.clone() };
            Fitting { accum_freq, grad_checkpointing, bytes: peak_bytes(config, size, &spec, device) }
        };
        let mut parts = parts.filter(|parts| batch.is_multiple_of(*parts)).map(needed);
        parts.find(|fitting| fitting.bytes <= bytes)
    };
    let computes_again = spec.recipe.grad_checkpointing;
    let by_parts = smallest(parts_now + 1..=batch, computes_again);
    [by_parts, if computes_again { None } else { smallest(parts_now..=batch, true) }]
}

fn tuning_bytes(
    config: &ModelConfig,
    size: &ModelSize,
    precision: Precision,
    device: Device,
    plan: &FineTuningPlan,
) -> u64 {
    let vision = &config.vision_cfg;
    let image =
        image_tower(config, vision.patches() + 1).kept(precision, device) + 12.0 * (vision.image_size as f64).powi(2);
    16 * size.image_parameters + (plan.batch_size as f64 * image) as u64
}

/// Sizes of a tower.
struct Tower {
    layers: u64,
    tokens: u64,
    width: u64,
    heads: u64,
    /// H.
    hidden: u64,
    /// How often a token keeps H where operators follow one another: on each side of GELU, and once more between the
    /// factors of QuickGELU.
    sides: u64,
    /// Whether of the last block one token alone is made.
    pooled: bool,
    /// Whether a norm stands before the blocks.
    normed: bool,
    fused: Fused,
}

/// Halves of a block that are one operator on a CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fused {
    Both,
    /// A class token of text has a mask of its own, which attention's does not take.
    Mlp,
    /// LayerScale stands between.
    Neither,
}

impl Fused {
    fn new(scaled: bool, masked: bool) -> Fused {
        match (scaled, masked) {
            (true, _) => Fused::Neither,
            (false, true) => Fused::Mlp,
            (false, false) => Fused::Both,
        }
    }
}

impl Tower {
    /// Bytes of the blocks' inputs, of one sequence.
    fn inputs(&self) -> f64 {
        let norm = if self.normed { 1.0 } else { 0.0 };
        4.0 * (self.layers as f64 + norm) * (self.tokens * self.width) as f64
    }

    /// Bytes of activations that a block keeps of one sequence beside its input.
    fn kept_of_a_block(&self, precision: Precision, device: Device) -> f64 {
        let layers = if self.layers > 1 { 2 } else { 1 };
        let kept = |layers: u64| Tower { layers, normed: false, ..*self }.kept(precision, device);
        let (last, both) = (kept(1), kept(layers));
        last.max(both - last) - 4.0 * (self.tokens * self.width) as f64
    }

    /// Bytes of activations that one sequence keeps.
    fn kept(&self, precision: Precision, device: Device) -> f64 {
        let bytes = activation_bytes(precision);
        let (width, tokens, hidden) = (self.width as f64, self.tokens as f64, self.hidden as f64);
        let scaled = self.fused == Fused::Neither;
        let fused = if device == Device::Cpu { self.fused } else { Fused::Neither };
        let mut one_token = 0.0;
        let (full, pooled) = match fused {
            Fused::Both => {
                one_token = 8.0 * width + bytes * (2.0 * width + hidden) + 16.0;
                (8.0 * width + bytes * (4.0 * width + hidden) + 16.0, 4.0 * width + 2.0 * bytes * width + 8.0)
            }
            Fused::Mlp => (28.0 * width + bytes * hidden + 4.0 * self.heads as f64 + 16.0, 24.0 * width),
            Fused::Neither => {
                // On a CPU products of bfloat16 round their factors in the cache, and keep nothing of it.
                let bytes = if device == Device::Cpu { 4.0 } else { bytes };
                let between = 6.0 * width + self.sides as f64 * hidden + if scaled { 2.0 * width } else { 0.0 };
                (8.0 * width + bytes * between + 4.0 * self.heads as f64, 4.0 * width + 5.0 * bytes * width)
            }
        };
        let last = if self.pooled { pooled } else { full };
        let norm = if self.normed { 4.0 * width } else { 0.0 };
        let one_token = if self.pooled { one_token } else { 0.0 };
        tokens * (self.layers.saturating_sub(1) as f64 * full + last + norm) + one_token
    }
}

/// Of an image that is seen as so many tokens.
fn image_tower(config: &ModelConfig, tokens: u64) -> Tower {
    let vision = &config.vision_cfg;
    Tower {
        layers: vision.blocks(),
        tokens,
        width: vision.width,
        heads: vision.heads(),
        hidden: vision.hidden_width(),
        sides: sides(config),
        pooled: !vision.attentional_pool && vision.pool_type == ImagePool::Tok,
        normed: !vision.no_ln_pre,
        fused: Fused::new(vision.ls_init_value.is_some(), false),
    }
}

fn text_tower(config: &ModelConfig) -> Tower {
    let text = &config.text_cfg;
    Tower {
        layers: text.layers,
        tokens: text.positions(),
        width: text.width,
        heads: text.heads,
        hidden: text.hidden_width(),
        sides: sides(config),
        pooled: true,
        normed: false,
        fused: Fused::new(text.ls_init_value.is_some(), text.embed_cls),
    }
}

fn sides(config: &ModelConfig) -> u64 {
    if config.quick_gelu { 3 } else { 2 }
}

fn activation_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 4.0,
        Precision::AmpBf16 => 2.0,
    }
}

/// Estimated peak bytes of measuring with a model: its weights, and images and activations of one chunk.
pub fn measuring_bytes(config: &ModelConfig, size: &ModelSize) -> u64 {
    let (vision, text) = (&config.vision_cfg, &config.text_cfg);
    let patches = (vision.image_size / vision.patch_size).pow(2);
    let tower = |tokens: u64, width: u64, hidden: u64| tokens * (8 * width + 2 * hidden);
    let widest = tower(patches + 1, vision.width, vision.hidden_width()).max(tower(
        text.context_length,
        text.width,
        4 * text.width,
    ));
    4 * size.parameters() + 4 * MEASURED_AT_A_TIME * (3 * vision.image_size.pow(2) + widest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::shipped;

    #[test]
    fn by_hand() {
        let config = shipped("cpu-w32-l2").expect("shipped").config;
        let size = config.size();
        // Image: a block, the last one for its pooled token, and the first norm, of 17 tokens; text: of 32.
        let activations = 17 * ((256 + 4 * (192 + 256) + 4) + (128 + 640) + 128) + 32 * (2_052 + 768);
        let (n, patches) = (size.parameters(), 36 * 128 * (32 * 32 + 8 * 8));
        let needs = |device, change: &dyn Fn(&mut Recipe)| {
            let mut recipe = recipe();
            change(&mut recipe);
            memory_bytes(&config, &size, &recipe, 500, device)
        };
        let beside = 16 * n + patches + 4 * 128 * 128 + 32 * 128 * 32;
        let fused = beside + 128 * activations;
        assert_eq!(needs(Device::Gpu, &|_| ()), fused);
        let on_cpu = 17 * ((256 + 4 * (128 + 128) + 16) + (128 + 256 + 8) + 128) + 32 * (1_296 + 392) + 2 * 1_040;
        let holes = 128 * 28 * 2 * 32 * (17 + 32) / 10; // 0.7 of 4 bytes
        let of_process = 166_000_000 + 500 * (3 * 32 * 32 + 300) + holes;
        assert_eq!(needs(Device::Cpu, &|_| ()), beside + 128 * on_cpu + of_process);
        let in_half = needs(Device::Cpu, &|recipe| recipe.precision = Precision::AmpBf16);
        assert_eq!(in_half, beside + 128 * (on_cpu - (17 + 32) * (2 * 256 + 2 * 64) - 2 * 2 * 192) + of_process);
        let reference = needs(Device::Gpu, &|recipe| recipe.loss = Loss::Reference);
        assert_eq!(reference, fused - 4 * 128 * 128 - 32 * 128 * 32 + 12 * 128 * 128);
        assert_eq!(needs(Device::Gpu, &|recipe| recipe.accum_freq = 4), fused + 4 * n - 96 * activations);
        assert!(needs(Device::Gpu, &|recipe| recipe.precision = Precision::AmpBf16) < fused);
        // Inputs of two blocks and the first norm's; what else a whole block of text keeps is most.
        let again = 4 * 32 * (3 * 17 + 2 * 32) + 32 * (2_052 - 128);
        assert_eq!(needs(Device::Gpu, &|recipe| recipe.grad_checkpointing = true), beside + 128 * again);
        // At the 2022 study's batch the reference needs ten times an 80 GB GPU for its logits alone.
        let at = |loss| needs(Device::Gpu, &|recipe| (recipe.global_batch, recipe.loss) = (262_144, loss));
        assert_eq!(at(Loss::Reference) - at(Loss::Fused), 12 * (1 << 36) - (1 << 30) - 32 * 262_144 * 32);
    }

    #[test]
    fn fine_tuning_adds_a_tower_and_its_batch() {
        let config = shipped("cpu-w32-l2").expect("shipped").config;
        let size = config.size();
        let text = r#"{"train": {"pool": "p", "path": "p", "digest": ""}, "head": "zeroshot", "steps": 1,
            "warmup_steps": 0, "batch_size": 64, "lr": 1, "layer_decay": 1, "weight_decay": 0, "grad_clip_norm": 1,
            "augmentation": "none", "seed": 0}"#;
        let plan: FineTuningPlan = serde_json::from_str(text).expect("a plan");
        let an_image = 17 * (2_052 + 768 + 128) + 12 * 32 * 32;
        let needs = |precision, device| tuning_bytes(&config, &size, precision, device, &plan);
        assert_eq!(needs(Precision::Fp32, Device::Gpu), 16 * size.image_parameters + 64 * an_image);
        assert!(needs(Precision::AmpBf16, Device::Gpu) < needs(Precision::Fp32, Device::Gpu));
        assert!(needs(Precision::Fp32, Device::Cpu) < needs(Precision::Fp32, Device::Gpu));
    }

    fn recipe() -> Recipe {
        let text = r#"{"global_batch": 128, "lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.2,
            "warmup_samples": 0, "schedule": "constant", "precision": "fp32", "augmentation": "none",
            "grad_clip_norm": null, "checkpoint_every_samples": null}"#;
        serde_json::from_str(text).expect("a recipe without what has defaults")
    }
}
