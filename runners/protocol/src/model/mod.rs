//! Model configurations in OpenCLIP's JSON form, what makes one sound, and the closed forms for size and compute.
//!
//! Settings are those of open_clip 3.3.0 (`CLIPVisionCfg`, `CLIPTextCfg`, `CLIP.__init__`) with its defaults, which are
//! left out where a configuration is written: a job's key is that of what differs.

mod check;
mod resnet;
mod serde_helpers;
mod settings;
mod size;
mod timm;

use serde::{Deserialize, Serialize};

pub use check::{ModelProblem, VOCABULARY_MAX, VOCABULARY_MIN};
pub use serde_helpers::Layers;
use serde_helpers::is_default;
pub use settings::{
    Approximate, Clean, GeluSettings, ImagePool, NormSettings, TextPool, TextProjection, TokenizerSettings,
};
pub use size::{Compute, ModelSize};

/// A model configuration with the name it goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// OpenCLIP's name (`ViT-B-32`) or the name of the user's file without `.json`.
    pub name: String,
    /// The architecture.
    pub config: ModelConfig,
}

/// OpenCLIP `model_configs/*.json`: two towers of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of the shared embedding, E.
    pub embed_dim: u64,
    /// QuickGELU (`x * sigmoid(1.702 x)`) in place of GELU, as OpenAI's models.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quick_gelu: bool,
    /// Names of the text tower's parameters begin with `text.` (`CustomTextCLIP`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub custom_text: bool,
    /// Where `logit_scale` starts; left out: ln(1/0.07).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_logit_scale: Option<f64>,
    /// Where `logit_bias` starts, if there is one. `InfoNCE` does not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_logit_bias: Option<f64>,
    /// `logit_scale` and `logit_bias` have the shape (1) in place of ().
    #[serde(default, skip_serializing_if = "is_default")]
    pub nonscalar_logit_scale: bool,
    /// Image tower.
    pub vision_cfg: VisionConfig,
    /// Text tower.
    pub text_cfg: TextConfig,
}

/// Image tower: a vision transformer with a class token, or a ResNet where `layers` has four stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Side S of the input, pixels.
    pub image_size: u64,
    /// Blocks, L; or those of a ResNet's four stages.
    pub layers: Layers,
    /// Width, W.
    pub width: u64,
    /// Width of one attention head; heads = W / head_width (32 W / head_width in a ResNet's pooling).
    #[serde(default = "head_width_default", skip_serializing_if = "is_head_width_default")]
    pub head_width: u64,
    /// Hidden width of the MLP over W; the hidden width is rounded down.
    #[serde(default = "mlp_ratio_default", skip_serializing_if = "is_mlp_ratio_default")]
    pub mlp_ratio: f64,
    /// Side p of a patch, pixels. A ResNet has none.
    #[serde(default = "patch_size_default")]
    pub patch_size: u64,
    /// Initial LayerScale, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ls_init_value: Option<f64>,
    /// Share of the patches that a training step leaves out (Li et al. 2022, FLIP).
    #[serde(default, skip_serializing_if = "is_default")]
    pub patch_dropout: f64,
    /// Queries of their own attend to the last block's tokens, and pooling is over them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attentional_pool: bool,
    /// Those queries, Q.
    #[serde(default = "queries_default", skip_serializing_if = "is_queries_default")]
    pub attn_pooler_queries: u64,
    /// Their attention heads.
    #[serde(default = "pooler_heads_default", skip_serializing_if = "is_pooler_heads_default")]
    pub attn_pooler_heads: u64,
    /// No LayerNorm before the first block.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_ln_pre: bool,
    /// The last LayerNorm follows pooling (where pooling is not attentional).
    #[serde(default, skip_serializing_if = "is_default")]
    pub final_ln_after_pool: bool,
    /// What stands for the image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool_type: ImagePool,
    /// GELU.
    #[serde(default, skip_serializing_if = "is_default")]
    pub act_kwargs: GeluSettings,
    /// LayerNorm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm_kwargs: NormSettings,
    /// A tower of timm's, which is what its name says: `SigLIP`'s are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timm_model_name: Option<String>,
    /// Its pooling: `map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timm_pool: Option<String>,
    /// Its projection: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timm_proj: Option<String>,
}

/// Text transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Tokens X a caption is padded or cut to, start and end included.
    pub context_length: u64,
    /// Tokens V. Below 49,408 the BPE keeps its first V - 514 merges.
    pub vocab_size: u64,
    /// Folder with a `tokenizer.json` of Hugging Face, or its file, from the folder `sweep` is started in; left out:
    /// OpenAI's byte-pair encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hf_tokenizer_name: Option<String>,
    /// sha256 of that file and of the `tokenizer_config.json` beside it, if there is one, read one after the other; 64
    /// hex digits. It stands for the path in a job's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
    /// What happens to a caption beside its tokenizer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokenizer_kwargs: TokenizerSettings,
    /// Width, w.
    pub width: u64,
    /// Attention heads.
    pub heads: u64,
    /// Blocks, l.
    pub layers: u64,
    /// Hidden width of the MLP over w; the hidden width is rounded down.
    #[serde(default = "mlp_ratio_default", skip_serializing_if = "is_mlp_ratio_default")]
    pub mlp_ratio: f64,
    /// Initial LayerScale, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ls_init_value: Option<f64>,
    /// A class token at the end, which is pooled whatever `pool_type` says; tokens of `pad_id` are not looked at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub embed_cls: bool,
    /// The token that `embed_cls` takes for padding.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pad_id: u64,
    /// The token that `pool_type: eos` seeks.
    #[serde(default = "eos_default", skip_serializing_if = "is_eos_default")]
    pub eos_id: u64,
    /// Tokens see all others, padding included, in place of those before them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_causal_mask: bool,
    /// Which token stands for the text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool_type: TextPool,
    /// The projection has a bias, and is a module with a `weight`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proj_bias: bool,
    /// Projection to the shared embedding.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proj_type: TextProjection,
    /// GELU.
    #[serde(default, skip_serializing_if = "is_default")]
    pub act_kwargs: GeluSettings,
    /// LayerNorm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm_kwargs: NormSettings,
}

/// What OpenCLIP takes where nothing is written, and an embedding of 512.
impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig {
            embed_dim: 512,
            quick_gelu: false,
            custom_text: false,
            init_logit_scale: None,
            init_logit_bias: None,
            nonscalar_logit_scale: false,
            vision_cfg: VisionConfig::default(),
            text_cfg: TextConfig::default(),
        }
    }
}

/// What OpenCLIP takes where nothing is written.
impl Default for VisionConfig {
    fn default() -> VisionConfig {
        VisionConfig {
            image_size: 224,
            layers: Layers::Blocks(12),
            width: 768,
            head_width: head_width_default(),
            mlp_ratio: mlp_ratio_default(),
            patch_size: patch_size_default(),
            ls_init_value: None,
            patch_dropout: 0.0,
            attentional_pool: false,
            attn_pooler_queries: queries_default(),
            attn_pooler_heads: pooler_heads_default(),
            no_ln_pre: false,
            final_ln_after_pool: false,
            pool_type: ImagePool::default(),
            act_kwargs: GeluSettings::default(),
            norm_kwargs: NormSettings::default(),
            timm_model_name: None,
            timm_pool: None,
            timm_proj: None,
        }
    }
}

/// What OpenCLIP takes where nothing is written.
impl Default for TextConfig {
    fn default() -> TextConfig {
        TextConfig {
            context_length: 77,
            vocab_size: 49_408,
            hf_tokenizer_name: None,
            tokenizer_sha256: None,
            tokenizer_kwargs: TokenizerSettings::default(),
            width: 512,
            heads: 8,
            layers: 12,
            mlp_ratio: mlp_ratio_default(),
            ls_init_value: None,
            embed_cls: false,
            pad_id: 0,
            eos_id: eos_default(),
            no_causal_mask: false,
            pool_type: TextPool::default(),
            proj_bias: false,
            proj_type: TextProjection::default(),
            act_kwargs: GeluSettings::default(),
            norm_kwargs: NormSettings::default(),
        }
    }
}

impl VisionConfig {
    /// The tower of timm's that it is, if its name is known.
    fn timm(&self) -> Option<timm::Tower> {
        self.timm_model_name.as_deref().and_then(timm::Tower::named)
    }

    /// L, or 0 for a ResNet.
    pub fn blocks(&self) -> u64 {
        match self.layers {
            _ if self.timm_model_name.is_some() => self.timm().map_or(0, |tower| tower.layers),
            Layers::Blocks(blocks) => blocks,
            Layers::Stages(_) => 0,
        }
    }

    /// Whether it is a ResNet.
    pub fn is_resnet(&self) -> bool {
        self.timm_model_name.is_none() && matches!(self.layers, Layers::Stages(_))
    }

    /// H = floor(W x mlp_ratio).
    pub fn hidden_width(&self) -> u64 {
        self.timm().map_or((self.width as f64 * self.mlp_ratio) as u64, |tower| tower.hidden)
    }

    /// Attention heads of a block, or of a ResNet's pooling.
    pub fn heads(&self) -> u64 {
        if let Some(tower) = self.timm() {
            return tower.heads;
        }
        if self.is_resnet() { self.width * 32 / self.head_width } else { self.width / self.head_width }
    }

    /// Patches of an image, n = (S/p)^2; a ResNet's pooling sees (S/32)^2 places.
    pub fn patches(&self) -> u64 {
        if let Some(tower) = self.timm() {
            return tower.patches(self.image_size);
        }
        (self.image_size / if self.is_resnet() { 32 } else { self.patch_size }).pow(2)
    }

    /// Patches that a training step sees: max(1, floor(n (1 - patch_dropout))).
    pub fn patches_kept(&self) -> u64 {
        ((self.patches() as f64 * (1.0 - self.patch_dropout)) as u64).max(1)
    }
}

impl TextConfig {
    /// h = floor(w x mlp_ratio).
    pub fn hidden_width(&self) -> u64 {
        (self.width as f64 * self.mlp_ratio) as u64
    }

    /// Positions: the context, and the class token where there is one.
    pub fn positions(&self) -> u64 {
        self.context_length + u64::from(self.embed_cls)
    }
}

fn head_width_default() -> u64 {
    64
}

fn mlp_ratio_default() -> f64 {
    4.0
}

fn patch_size_default() -> u64 {
    16
}

fn queries_default() -> u64 {
    256
}

fn pooler_heads_default() -> u64 {
    8
}

fn eos_default() -> u64 {
    2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_head_width_default(value: &u64) -> bool {
    *value == head_width_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, clippy::float_cmp, reason = "serde passes fields by reference")]
fn is_mlp_ratio_default(value: &f64) -> bool {
    *value == mlp_ratio_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_queries_default(value: &u64) -> bool {
    *value == queries_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_pooler_heads_default(value: &u64) -> bool {
    *value == pooler_heads_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_eos_default(value: &u64) -> bool {
    *value == eos_default()
}
