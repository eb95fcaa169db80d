//! Model configurations in OpenCLIP's JSON form, and the closed forms for their size and compute.
//!
//! Formulas: see [`ModelConfig::size`]. They give the published parameters, GMACs and GFLOPs of OpenCLIP's ViT family
//! to 0.01 (test `published_values`), so no profiler is needed and planner, runner and SQL agree by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A model configuration with the name it goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// OpenCLIP's name (`ViT-B-32`) or the name of the user's file without `.json`.
    pub name: String,
    /// The architecture.
    pub config: ModelConfig,
}

/// OpenCLIP `model_configs/*.json` of the ViT family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of the shared embedding, E.
    pub embed_dim: u64,
    /// QuickGELU (`x * sigmoid(1.702 x)`) in place of GELU, as OpenAI's models.
    #[serde(default, skip_serializing_if = "is_false")]
    pub quick_gelu: bool,
    /// Image tower.
    pub vision_cfg: VisionConfig,
    /// Text tower.
    pub text_cfg: TextConfig,
}

/// Vision transformer with a class token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Side S of the input, pixels.
    pub image_size: u64,
    /// Blocks, L.
    pub layers: u64,
    /// Width, W.
    pub width: u64,
    /// Width of one attention head; heads = W / head_width.
    #[serde(default = "head_width_default", skip_serializing_if = "is_head_width_default")]
    pub head_width: u64,
    /// Hidden width of the MLP over W; the hidden width is rounded down.
    #[serde(default = "mlp_ratio_default", skip_serializing_if = "is_mlp_ratio_default")]
    pub mlp_ratio: f64,
    /// Side p of a patch, pixels.
    pub patch_size: u64,
    /// Initial LayerScale, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ls_init_value: Option<f64>,
}

/// Causal text transformer, pooled at the end-of-text token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Tokens X a caption is padded or cut to, start and end included.
    pub context_length: u64,
    /// Tokens V. Below 49,408 the BPE keeps its first V - 514 merges.
    pub vocab_size: u64,
    /// Width, w.
    pub width: u64,
    /// Attention heads.
    pub heads: u64,
    /// Blocks, l.
    pub layers: u64,
    /// Initial LayerScale, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ls_init_value: Option<f64>,
}

/// Size and forward compute of a model, from [`ModelConfig::size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSize {
    /// Image tower's parameters.
    pub image_parameters: u64,
    /// Text tower's parameters.
    pub text_parameters: u64,
    /// Multiply-accumulates of one image, LayerNorm left out.
    pub image_macs: u64,
    /// Multiply-accumulates of one text, LayerNorm left out.
    pub text_macs: u64,
    /// What fvcore adds for the image tower's LayerNorm: 5 an element.
    pub image_norm_macs: u64,
    /// What fvcore adds for the text tower's LayerNorm: 5 an element.
    pub text_norm_macs: u64,
}

/// Compute of a training run in every convention. Two conventions are never mixed in one fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    /// Forward GMACs a pair (LayerNorm counted) x samples seen: the 2022 study's C.
    pub gmacs_samples: f64,
    /// 3 x 2 x forward MACs (attention in, LayerNorm out) x samples seen: FLOPs of forward and backward.
    pub train_flops: f64,
    /// 6 x N x samples seen, a sample standing for one token.
    pub six_nd: f64,
}

impl ModelConfig {
    /// Parameters and multiply-accumulates.
    ///
    /// Image tower, n = (S/p)^2, T = n + 1, H = floor(W x mlp_ratio):
    /// ```text
    /// parameters = 3p^2 W + W + T W + 2W + L (4W^2 + 4W + 2WH + H + W + 4W) + 2W + W E      (+ 2 L W with LayerScale)
    /// MACs       = L T (4W^2 + 2WH) + 2 L T^2 W + 3p^2 W n + W E           LayerNorm: 5 T W (2L + 2)
    /// ```
    /// Text tower:
    /// ```text
    /// parameters = V w + X w + l (12 w^2 + 13 w) + 2w + w E                (+ 2 l w with LayerScale)
    /// MACs       = 12 l X w^2 + 2 l X^2 w + w E                            LayerNorm: 5 X w (2l + 1)
    /// ```
    /// The model adds one parameter, `logit_scale`, which published counts include in neither tower.
    pub fn size(&self) -> ModelSize {
        let VisionConfig { image_size, layers: l, width: w, patch_size: p, .. } = self.vision_cfg;
        let hidden = self.vision_cfg.hidden_width();
        let patches = (image_size / p).pow(2);
        let tokens = patches + 1;
        let image_scale = if self.vision_cfg.ls_init_value.is_some() { 2 * l * w } else { 0 };
        let image_parameters = 3 * p * p * w
            + w
            + tokens * w
            + 2 * w
            + l * (4 * w * w + 4 * w + 2 * w * hidden + hidden + w + 4 * w)
            + 2 * w
            + w * self.embed_dim
            + image_scale;
        let image_macs = l * tokens * (4 * w * w + 2 * w * hidden)
            + 2 * l * tokens * tokens * w
            + 3 * p * p * w * patches
            + w * self.embed_dim;
        let image_norm_macs = 5 * tokens * w * (2 * l + 2);

        let TextConfig { context_length: x, vocab_size: v, width: w, layers: l, .. } = self.text_cfg;
        let text_scale = if self.text_cfg.ls_init_value.is_some() { 2 * l * w } else { 0 };
        let text_parameters = v * w + x * w + l * (12 * w * w + 13 * w) + 2 * w + w * self.embed_dim + text_scale;
        let text_macs = 12 * l * x * w * w + 2 * l * x * x * w + w * self.embed_dim;
        let text_norm_macs = 5 * x * w * (2 * l + 1);
        ModelSize { image_parameters, text_parameters, image_macs, text_macs, image_norm_macs, text_norm_macs }
    }
}

/// What is wrong with a model configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelProblem {
    /// Which field, for example `vision_cfg.patch_size`.
    pub field: &'static str,
    /// What is wrong and what is allowed, a sentence fragment.
    pub problem: String,
}

impl fmt::Display for ModelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.problem)
    }
}

impl std::error::Error for ModelProblem {}

/// Largest number of image tokens, patches and class token. With the other limits of [`ModelConfig::check`] it keeps
/// every closed form inside 64 bits.
const TOKENS_MAX: u64 = 65_537;

impl ModelConfig {
    /// Everything that makes this configuration no model: sizes of zero or beyond reason, patches that do not tile the
    /// image, heads that do not divide the width. [`ModelConfig::size`] is meaningful only where this is empty.
    pub fn check(&self) -> Vec<ModelProblem> {
        let (vision, text) = (&self.vision_cfg, &self.text_cfg);
        let mut problems = Vec::new();
        let mut bad = |field, problem: String| problems.push(ModelProblem { field, problem });
        for (field, value, max) in [
            ("embed_dim", self.embed_dim, 16_384),
            ("vision_cfg.image_size", vision.image_size, 8_192),
            ("vision_cfg.layers", vision.layers, 512),
            ("vision_cfg.width", vision.width, 16_384),
            ("vision_cfg.head_width", vision.head_width, 16_384),
            ("vision_cfg.patch_size", vision.patch_size, 8_192),
            ("text_cfg.context_length", text.context_length, 65_536),
            ("text_cfg.vocab_size", text.vocab_size, 10_000_000),
            ("text_cfg.width", text.width, 16_384),
            ("text_cfg.heads", text.heads, 16_384),
            ("text_cfg.layers", text.layers, 512),
        ] {
            if value == 0 || value > max {
                bad(field, format!("is {value}, it must lie between 1 and {max}"));
            }
        }
        if !(vision.mlp_ratio > 0.0 && vision.mlp_ratio <= 16.0) {
            bad("vision_cfg.mlp_ratio", format!("is {}, it must lie above 0 and at most 16", vision.mlp_ratio));
        }
        for (field, value) in
            [("vision_cfg.ls_init_value", vision.ls_init_value), ("text_cfg.ls_init_value", text.ls_init_value)]
        {
            if let Some(value) = value
                && !value.is_finite()
            {
                bad(field, format!("is {value}, it must be a number"));
            }
        }
        let (size, patch) = (vision.image_size, vision.patch_size);
        if patch > 0 && !size.is_multiple_of(patch) {
            bad("vision_cfg.image_size", format!("is {size}, which patches of {patch} x {patch} pixels do not tile"));
        } else if patch > 0 && (size / patch).saturating_pow(2).saturating_add(1) > TOKENS_MAX {
            bad("vision_cfg.patch_size", format!("is {patch}: more than {TOKENS_MAX} tokens an image"));
        }
        if vision.head_width > 0 && !vision.width.is_multiple_of(vision.head_width) {
            let (width, head_width) = (vision.width, vision.head_width);
            bad("vision_cfg.width", format!("is {width}, which is no multiple of the head width {head_width}"));
        }
        if text.heads > 0 && !text.width.is_multiple_of(text.heads) {
            let (width, heads) = (text.width, text.heads);
            bad("text_cfg.width", format!("is {width}, which {heads} heads do not divide"));
        }
        problems
    }
}

impl VisionConfig {
    /// H = floor(W x mlp_ratio).
    pub fn hidden_width(&self) -> u64 {
        (self.width as f64 * self.mlp_ratio) as u64
    }

    /// Attention heads.
    pub fn heads(&self) -> u64 {
        self.width / self.head_width
    }
}

impl ModelSize {
    /// N: both towers and `logit_scale`.
    pub fn parameters(&self) -> u64 {
        self.image_parameters + self.text_parameters + 1
    }

    /// Forward GMACs of one pair as the 2022 study counts them: LayerNorm included.
    pub fn gmacs(&self) -> f64 {
        self.image_gmacs() + self.text_gmacs()
    }

    /// The image tower's part of [`ModelSize::gmacs`].
    pub fn image_gmacs(&self) -> f64 {
        (self.image_macs + self.image_norm_macs) as f64 / 1e9
    }

    /// The text tower's part of [`ModelSize::gmacs`].
    pub fn text_gmacs(&self) -> f64 {
        (self.text_macs + self.text_norm_macs) as f64 / 1e9
    }

    /// Forward GFLOPs of one pair as OpenCLIP's `model_profile.csv` counts them: 2 x MACs, LayerNorm left out.
    pub fn gflops(&self) -> f64 {
        2.0 * (self.image_macs + self.text_macs) as f64 / 1e9
    }

    /// Compute of training on `samples_seen` pairs.
    pub fn compute(&self, samples_seen: u64) -> Compute {
        let samples = samples_seen as f64;
        Compute {
            gmacs_samples: self.gmacs() * samples,
            train_flops: 3.0 * self.gflops() * 1e9 * samples,
            six_nd: 6.0 * self.parameters() as f64 * samples,
        }
    }
}

fn head_width_default() -> u64 {
    64
}

fn mlp_ratio_default() -> f64 {
    4.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_head_width_default(head_width: &u64) -> bool {
    *head_width == head_width_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, clippy::float_cmp, reason = "serde passes fields by reference")]
fn is_mlp_ratio_default(mlp_ratio: &f64) -> bool {
    *mlp_ratio == mlp_ratio_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
