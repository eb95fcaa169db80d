//! Closed forms of parameters and compute.
//!
//! They give the published parameters, GMACs and GFLOPs of OpenCLIP's own towers to 0.01 (test `published_values`) and
//! what torch's counter finds in each of its configurations (`make test-openclip`), so no profiler is needed and
//! planner, runner and SQL agree by construction.

use serde::{Deserialize, Serialize};

use super::{Layers, ModelConfig, TextConfig, TextProjection, VisionConfig, resnet};

/// Size and forward compute of a model, from [`ModelConfig::size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSize {
    /// Image tower's parameters.
    pub image_parameters: u64,
    /// Text tower's parameters.
    pub text_parameters: u64,
    /// Multiply-accumulates of one image, normalisation left out.
    pub image_macs: u64,
    /// Multiply-accumulates of one text, normalisation left out.
    pub text_macs: u64,
    /// What fvcore adds for the image tower's normalisation: 5 an element of LayerNorm, 2 of BatchNorm.
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

/// One half of a [`ModelSize`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TowerSize {
    pub(super) parameters: u64,
    pub(super) macs: u64,
    pub(super) norm_macs: u64,
}

impl ModelConfig {
    /// Parameters and multiply-accumulates.
    ///
    /// Image tower, n = (S/p)^2, T = n + 1, H = floor(W x mlp_ratio):
    /// ```text
    /// parameters = 3p^2 W + W + T W + 2W + L (4W^2 + 4W + 2WH + H + W + 4W) + 2W + W E      (+ 2 L W with LayerScale)
    /// MACs       = L T (4W^2 + 2WH) + 2 L T^2 W + 3p^2 W n + W E           LayerNorm: 5 T W (2L + 2)
    /// ```
    /// `no_ln_pre` takes 2W and 5TW away, `final_ln_after_pool` leaves 5W of the last 5TW. Attentional pooling with Q
    /// queries has in place of the last LayerNorm's 2W, of W E and of the last 5TW
    /// ```text
    /// parameters = Q E + 2E^2 + 2EW + 4E + 2E + 2W + 2E + E^2
    /// MACs       = 2 Q E^2 + 2 T W E + 2 Q T E + E^2                       LayerNorm: 5 Q E + 5 T W + 5 Q E
    /// ```
    /// Text tower, h = floor(w x mlp_ratio), X positions:
    /// ```text
    /// parameters = V w + X w + l (4w^2 + 4w + 2wh + h + w + 4w) + 2w + w E  (+ 2 l w with LayerScale)
    /// MACs       = l X (4w^2 + 2wh) + 2 l X^2 w + w E                      LayerNorm: 5 X w (2l + 1)
    /// ```
    /// A class token (`embed_cls`) adds w and is a position; the last LayerNorm is its alone then. `proj_bias` adds E.
    /// The model adds one parameter, `logit_scale`, which published counts include in neither tower, and another for
    /// `logit_bias`. A ResNet's tower: `resnet.rs`; `SigLIP`'s: `timm.rs`.
    pub fn size(&self) -> ModelSize {
        self.size_of(self.vision_cfg.patches())
    }

    /// What a training step computes: [`ModelConfig::size`] of the patches that `patch_dropout` leaves.
    pub fn training_size(&self) -> ModelSize {
        if self.vision_cfg.is_resnet() || self.vision_cfg.timm_model_name.is_some() {
            self.size()
        } else {
            self.size_of(self.vision_cfg.patches_kept())
        }
    }

    /// With `seen` of the patches taken through the image tower.
    fn size_of(&self, seen: u64) -> ModelSize {
        let vision = &self.vision_cfg;
        let image = match (vision.timm(), vision.layers) {
            (Some(tower), _) => tower.size(vision.image_size),
            (None, Layers::Blocks(_)) => vision_transformer(vision, self.embed_dim, seen),
            (None, Layers::Stages(stages)) => resnet::size(vision, stages, self.embed_dim),
        };
        let text = text_transformer(&self.text_cfg, self.embed_dim);
        let scalars = u64::from(self.init_logit_bias.is_some());
        ModelSize {
            image_parameters: image.parameters,
            text_parameters: text.parameters + scalars,
            image_macs: image.macs,
            text_macs: text.macs,
            image_norm_macs: image.norm_macs,
            text_norm_macs: text.norm_macs,
        }
    }
}

fn vision_transformer(vision: &VisionConfig, embed: u64, seen: u64) -> TowerSize {
    let (w, l, p) = (vision.width, vision.blocks(), vision.patch_size);
    let hidden = vision.hidden_width();
    let patches = vision.patches();
    let tokens = seen + 1;
    let mut size = blocks(l, w, hidden, tokens, vision.ls_init_value.is_some());
    size.parameters += 3 * p * p * w + w + (patches + 1) * w;
    size.macs += 3 * p * p * w * patches;
    if !vision.no_ln_pre {
        size.parameters += 2 * w;
        size.norm_macs += 5 * tokens * w;
    }
    if vision.attentional_pool {
        let queries = vision.attn_pooler_queries;
        size.parameters += queries * embed + 2 * embed * embed + 2 * embed * w + 4 * embed + 2 * embed + 2 * w;
        size.parameters += 2 * embed + embed * embed;
        size.macs += 2 * queries * embed * embed + 2 * tokens * w * embed + 2 * queries * tokens * embed;
        size.macs += embed * embed;
        size.norm_macs += 5 * (queries * embed + tokens * w + queries * embed);
    } else {
        size.parameters += 2 * w + w * embed;
        size.macs += w * embed;
        size.norm_macs += 5 * w * if vision.final_ln_after_pool { 1 } else { tokens };
    }
    size
}

fn text_transformer(text: &TextConfig, embed: u64) -> TowerSize {
    let (w, positions) = (text.width, text.positions());
    let mut size = blocks(text.layers, w, text.hidden_width(), positions, text.ls_init_value.is_some());
    size.parameters += text.vocab_size * w + positions * w + 2 * w;
    size.norm_macs += 5 * w * if text.embed_cls { 1 } else { positions };
    if text.embed_cls {
        size.parameters += w;
    }
    if text.proj_type == TextProjection::Linear {
        size.parameters += w * embed + if text.proj_bias { embed } else { 0 };
        size.macs += w * embed;
    }
    size
}

/// L pre-LN blocks over T tokens.
pub(super) fn blocks(l: u64, w: u64, hidden: u64, tokens: u64, layer_scale: bool) -> TowerSize {
    let scale = if layer_scale { 2 * w } else { 0 };
    TowerSize {
        parameters: l * (4 * w * w + 4 * w + 2 * w * hidden + hidden + w + 4 * w + scale),
        macs: l * tokens * (4 * w * w + 2 * w * hidden) + 2 * l * tokens * tokens * w,
        norm_macs: 5 * tokens * w * 2 * l,
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
