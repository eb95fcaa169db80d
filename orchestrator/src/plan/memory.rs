//! How much memory a job needs, from closed forms.

use protocol::{FineTuningPlan, Loss, ModelConfig, ModelSize, Precision, Recipe};

use super::PlannedSpec;

/// What the fused loss keeps of the logits at most.
const LOGITS_BYTES_MAX: f64 = (1_u64 << 30) as f64;

/// Images or texts that clip-runner embeds at a time.
const MEASURED_AT_A_TIME: u64 = 256;

/// Estimated peak bytes of training on one device:
///
/// ```text
/// 16 N                                   weights, gradients and AdamW's two moments, fp32
/// + B/k b (sum over towers of L T (8 W + 2 H + heads T))    activations kept for the backward pass
/// + 4 B 3 S^2 + 4 B x 8 E                images; embeddings, their gradients and copies
/// + min(4 B^2, 1 GiB), or 3 x 4 B^2      logits: fused, or by reference with their gradients
/// ```
///
/// N parameters, B global batch in k parts (`accum_freq`), b bytes of an activation (4, or 2 with `amp_bf16`), L
/// blocks, T tokens, W width, H hidden width, S image side, E embedding width. A pre-LN block keeps its two inputs and
/// their norms (4 W), queries, keys and values (3 W), the attention's output (W), both sides of the activation function
/// (2 H), and the attention weights where no fused kernel makes them again. Counted by hand, not measured: good for
/// "does it fit", not for the last 20 %. Activations of a ResNet are not counted.
pub fn memory_bytes(config: &ModelConfig, size: &ModelSize, recipe: &Recipe) -> u64 {
    let bytes = activation_bytes(recipe.precision);
    let (vision, text) = (&config.vision_cfg, &config.text_cfg);
    let activations = image_activations(config, vision.patches_kept() + 1)
        + activations(text.layers, text.positions(), text.width, text.hidden_width(), text.heads);
    let batch = recipe.global_batch as f64;
    let images = 4.0 * batch * 3.0 * (vision.image_size as f64).powi(2);
    let logits = match recipe.loss {
        Loss::Fused | Loss::Siglip => {
            (4.0 * batch * batch).min(LOGITS_BYTES_MAX) + 32.0 * batch * config.embed_dim as f64
        }
        Loss::Reference => 12.0 * batch * batch,
    };
    let part = batch / recipe.accum_freq as f64;
    let total = 16.0 * size.parameters() as f64 + part * bytes * activations + images + logits;
    total as u64
}

/// The same of a job with all that it measures: fine-tuning trains a copy of the image tower beside the model, and the
/// moments of a training.
pub fn peak_bytes(config: &ModelConfig, size: &ModelSize, spec: &PlannedSpec) -> u64 {
    let precision = spec.recipe.precision;
    let tunings = spec.evaluations.iter().filter_map(|evaluation| evaluation.fine_tuning.as_ref());
    let tuning = tunings.map(|plan| tuning_bytes(config, size, precision, plan)).max().unwrap_or_default();
    if spec.measures_only() {
        measuring_bytes(config, size) + tuning
    } else {
        memory_bytes(config, size, &spec.recipe).max(12 * size.parameters() + tuning)
    }
}

fn tuning_bytes(config: &ModelConfig, size: &ModelSize, precision: Precision, plan: &FineTuningPlan) -> u64 {
    let vision = &config.vision_cfg;
    let image = activation_bytes(precision) * image_activations(config, vision.patches() + 1)
        + 12.0 * (vision.image_size as f64).powi(2);
    16 * size.image_parameters + (plan.batch_size as f64 * image) as u64
}

fn activation_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 4.0,
        Precision::AmpBf16 => 2.0,
    }
}

/// Of one image that is seen as so many tokens.
fn image_activations(config: &ModelConfig, tokens: u64) -> f64 {
    let vision = &config.vision_cfg;
    activations(vision.blocks(), tokens, vision.width, vision.hidden_width(), vision.heads())
}

fn activations(layers: u64, tokens: u64, width: u64, hidden: u64, heads: u64) -> f64 {
    layers as f64 * tokens as f64 * (8 * width + 2 * hidden + heads * tokens) as f64
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
        // Image: 2 blocks x 17 tokens x (256 + 256 + 17); text: 2 x 32 x (256 + 256 + 32).
        let activations = 2 * 17 * 529 + 2 * 32 * 544;
        let (weights, images) = (16 * size.parameters(), 4 * 128 * 3 * 32 * 32);
        let needs = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = recipe();
            change(&mut recipe);
            memory_bytes(&config, &size, &recipe)
        };
        let fused = weights + 128 * 4 * activations + images + 4 * 128 * 128 + 32 * 128 * 32;
        assert_eq!(needs(&|_| ()), fused);
        let reference = weights + 128 * 4 * activations + images + 12 * 128 * 128;
        assert_eq!(needs(&|recipe| recipe.loss = Loss::Reference), reference);
        assert_eq!(needs(&|recipe| recipe.accum_freq = 4), fused - 96 * 4 * activations);
        assert!(needs(&|recipe| recipe.precision = Precision::AmpBf16) < fused);
        // At the 2022 study's batch the reference needs ten times an 80 GB GPU for its logits alone.
        let at = |loss| needs(&|recipe| (recipe.global_batch, recipe.loss) = (262_144, loss));
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
        // 2 blocks x 17 tokens x (256 + 256 + 17), and 3 channels of 32 x 32 pixels.
        let an_image = 4 * (2 * 17 * 529 + 3 * 32 * 32);
        let found = tuning_bytes(&config, &size, Precision::Fp32, &plan);
        assert_eq!(found, 16 * size.image_parameters + 64 * an_image);
        assert!(tuning_bytes(&config, &size, Precision::AmpBf16, &plan) < found);
    }

    fn recipe() -> Recipe {
        let text = r#"{"global_batch": 128, "lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.2,
            "warmup_samples": 0, "schedule": "constant", "precision": "fp32", "augmentation": "none",
            "grad_clip_norm": null, "checkpoint_every_samples": null}"#;
        serde_json::from_str(text).expect("a recipe without what has defaults")
    }
}
