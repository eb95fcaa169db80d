//! How much memory a job needs, from closed forms.

use protocol::{ModelConfig, ModelSize, Precision};

/// Estimated peak bytes of training on one device:
///
/// ```text
/// 16 N                                   weights, gradients and AdamW's two moments, fp32
/// + B b (sum over towers of L T (8 W + 2 H + heads T))      activations kept for the backward pass
/// + 4 B 3 S^2 + 3 x 4 B^2                images, logits and their gradients
/// ```
///
/// N parameters, B global batch, b bytes of an activation (4, or 2 with `amp_bf16`), L blocks, T tokens, W width, H
/// hidden width, S image side. A pre-LN block keeps its two inputs and their norms (4 W), queries, keys and values (3
/// W), the attention's output (W), both sides of the activation function (2 H), and the attention weights where no
/// fused kernel makes them again. Counted by hand, not measured: good for "does it fit", not for the last 20 %.
pub fn memory_bytes(config: &ModelConfig, size: &ModelSize, global_batch: u64, precision: Precision) -> u64 {
    let bytes = match precision {
        Precision::Fp32 => 4.0,
        Precision::AmpBf16 => 2.0,
    };
    let (vision, text) = (&config.vision_cfg, &config.text_cfg);
    let patches = (vision.image_size / vision.patch_size).pow(2);
    let tower = |layers: u64, tokens: u64, width: u64, hidden: u64, heads: u64| {
        layers as f64 * tokens as f64 * (8 * width + 2 * hidden + heads * tokens) as f64
    };
    let activations = tower(vision.layers, patches + 1, vision.width, vision.hidden_width(), vision.heads())
        + tower(text.layers, text.context_length, text.width, 4 * text.width, text.heads);
    let batch = global_batch as f64;
    let images = 4.0 * batch * 3.0 * (vision.image_size as f64).powi(2);
    let total = 16.0 * size.parameters() as f64 + batch * bytes * activations + images + 12.0 * batch * batch;
    total as u64
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
        let expected = 16 * size.parameters() + 128 * 4 * activations + 4 * 128 * 3 * 32 * 32 + 12 * 128 * 128;
        assert_eq!(memory_bytes(&config, &size, 128, Precision::Fp32), expected);
        assert!(memory_bytes(&config, &size, 128, Precision::AmpBf16) < expected);
    }
}
