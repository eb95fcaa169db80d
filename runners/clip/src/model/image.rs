//! Image tower: a pre-LN vision transformer with a class token (`VisionTransformer`).

use protocol::{ImagePool, ModelConfig};
use tch::{Device, Kind, Tensor};

use super::attention_pool::{self, AttentionPool};
use super::block::{self, Block, BlockInit, BlockShape, Sight};
use super::lengths::Group;
use super::{Activation, LayerNorm, declare, linear, normalise};
use crate::parameters::{Declaration, Init, Parameters};

/// The image half of a [`super::Clip`].
#[derive(Debug)]
pub struct ImageTower {
    tokens: i64,
    kind: Kind,
    /// (W, 3 p^2): a convolution whose stride is its width is a matrix product over patches.
    patch_weight: Tensor,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    ln_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    attention_pool: Option<AttentionPool>,
    pool: ImagePool,
    norm_after_pool: bool,
    ln_post: LayerNorm,
    projection: Tensor,
}

fn shape(config: &ModelConfig, kind: Kind) -> BlockShape {
    let vision = &config.vision_cfg;
    BlockShape {
        width: vision.width as i64,
        hidden: vision.hidden_width() as i64,
        heads: vision.heads() as i64,
        causal: false,
        activation: Activation::new(config.quick_gelu, vision.act_kwargs.approximate),
        eps: vision.norm_kwargs.eps,
        layer_scale: vision.ls_init_value,
        kind,
    }
}

fn tokens(config: &ModelConfig) -> i64 {
    config.vision_cfg.patches() as i64 + 1
}

/// Starts as OpenCLIP's, which leaves most of this tower to PyTorch's defaults: Kaiming uniform with a = sqrt 5 is
/// uniform over 1/sqrt(inputs), and attention's input projection is Xavier uniform, sqrt(6 / (W + 3W)).
pub(super) fn declarations(config: &ModelConfig) -> Vec<Declaration> {
    let shape = shape(config, Kind::Float);
    let (width, embed) = (shape.width, config.embed_dim as i64);
    let patch = config.vision_cfg.patch_size as i64;
    let scale = (width as f64).sqrt().recip();
    let pooled = if config.vision_cfg.attentional_pool { embed } else { width };
    let default = |inputs: i64| Init::Uniform((inputs as f64).sqrt().recip());
    let init = BlockInit {
        in_proj: Init::Uniform((6.0 / (4.0 * width as f64)).sqrt()),
        out_proj: default(width),
        c_fc: default(width),
        c_proj: default(shape.hidden),
    };
    let mut declared = vec![
        declare("visual.class_embedding", &[width], Init::Normal(scale)),
        declare("visual.positional_embedding", &[tokens(config), width], Init::Normal(scale)),
        declare("visual.proj", &[pooled, embed], Init::Normal(scale)),
        declare("visual.conv1.weight", &[width, 3, patch, patch], default(3 * patch * patch)),
    ];
    if !config.vision_cfg.no_ln_pre {
        declared.extend(LayerNorm::declarations("visual.ln_pre", width));
    }
    if config.vision_cfg.attentional_pool {
        declared.extend(attention_pool::declarations(config));
    }
    declared.extend(LayerNorm::declarations("visual.ln_post", pooled));
    for layer in 0..config.vision_cfg.blocks() {
        declared.extend(block::declarations(&format!("visual.transformer.resblocks.{layer}"), &shape, &init));
    }
    declared
}

impl ImageTower {
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters, kind: Kind) -> ImageTower {
        let shape = shape(config, kind);
        let vision = &config.vision_cfg;
        let blocks = (0..vision.blocks())
            .map(|layer| Block::new(&format!("visual.transformer.resblocks.{layer}"), shape, parameters))
            .collect();
        ImageTower {
            tokens: tokens(config),
            kind,
            patch_weight: parameters.get("visual.conv1.weight"),
            class_embedding: parameters.get("visual.class_embedding"),
            positional_embedding: parameters.get("visual.positional_embedding"),
            ln_pre: (!vision.no_ln_pre).then(|| LayerNorm::new(parameters, "visual.ln_pre", shape.eps)),
            blocks,
            attention_pool: vision.attentional_pool.then(|| AttentionPool::new(config, parameters, kind)),
            pool: vision.pool_type,
            norm_after_pool: vision.final_ln_after_pool,
            ln_post: LayerNorm::new(parameters, "visual.ln_post", shape.eps),
            projection: parameters.get("visual.proj"),
        }
    }

    pub(super) fn set_grad_checkpointing(&mut self, on: bool) {
        self.blocks.iter_mut().for_each(|block| block.recomputed = on);
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.projection.device()
    }

    /// Numbers in a patch, 3 p^2.
    pub fn patch_values(&self) -> i64 {
        self.patch_weight.size()[1..].iter().product()
    }

    /// Patches (B, T, 3 p^2), row 0 zero, to unit embeddings (B, E).
    pub fn forward(&self, patches: &Tensor) -> Tensor {
        self.forward_kept(patches, None)
    }

    /// The same of some patches: `kept` (B, K + 1) are their rows, the class token's first.
    pub fn forward_kept(&self, patches: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let (batch, width) = (patches.size()[0], self.class_embedding.size()[0]);
        let patch_weight = self.patch_weight.view([width, -1]);
        // The zero row of each image embeds to 0; the class embedding comes in with the positions, which spares a copy.
        let class_row = self.class_embedding.unsqueeze(0).constant_pad_nd([0, 0, 0, self.tokens - 1]);
        let positions = &self.positional_embedding + class_row;
        let (x, tokens) = match kept {
            None => (linear(patches, &patch_weight, None, self.kind) + positions, self.tokens),
            Some(kept) => {
                let tokens = kept.size()[1];
                let rows = kept + Tensor::arange(batch, (Kind::Int64, kept.device())).unsqueeze(1) * self.tokens;
                let seen = patches.view([batch * self.tokens, -1]).index_select(0, &rows.view([-1]));
                let embedded = linear(&seen, &patch_weight, None, self.kind);
                (embedded + positions.index_select(0, &kept.reshape([-1])), tokens)
            }
        };
        let x = self.ln_pre.as_ref().map_or_else(|| x.shallow_clone(), |ln_pre| ln_pre.forward(&x));
        let pooled = self.pooled(x.view([-1, width]), batch, tokens);
        normalise(&linear(&pooled, &self.projection.tr(), None, self.kind))
    }

    /// Tokens (B T, W) through the blocks, and what stands for each image, normalised.
    fn pooled(&self, mut x: Tensor, batch: i64, tokens: i64) -> Tensor {
        let one_token = self.attention_pool.is_none() && self.pool == ImagePool::Tok;
        let (last, rest) = self.blocks.split_last().expect("at least one layer");
        let groups = [Group { sequences: batch, tokens }];
        for block in rest {
            x = block.forward(&x, &groups, None);
        }
        if one_token {
            let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * tokens;
            return self.ln_post.forward(&last.forward_pooled(&x, &groups, &rows, Sight::All));
        }
        let x = last.forward(&x, &groups, None).view([batch, tokens, -1]);
        let mean = |x: &Tensor| x.mean_dim(1, false, None::<Kind>);
        match &self.attention_pool {
            Some(attention) => {
                let (from, count) = match self.pool {
                    ImagePool::Tok => (0, 1),
                    ImagePool::Avg => (1, attention.queries() - 1),
                };
                mean(&self.ln_post.forward(&attention.forward(&x, from, count)))
            }
            None if self.norm_after_pool => self.ln_post.forward(&mean(&x.narrow(1, 1, tokens - 1))),
            None => mean(&self.ln_post.forward(&x.narrow(1, 1, tokens - 1))),
        }
    }
}
