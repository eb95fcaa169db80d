//! Image tower: a pre-LN vision transformer with a class token (`VisionTransformer`).

use protocol::ModelConfig;
use tch::{Kind, Tensor};

use super::block::{self, Block, BlockInit, BlockShape};
use super::{LayerNorm, declare, linear, normalise};
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
    ln_pre: LayerNorm,
    blocks: Vec<Block>,
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
        quick_gelu: config.quick_gelu,
        layer_scale: vision.ls_init_value,
        kind,
    }
}

fn tokens(config: &ModelConfig) -> i64 {
    (config.vision_cfg.image_size / config.vision_cfg.patch_size).pow(2) as i64 + 1
}

/// Starts as OpenCLIP's, which leaves most of this tower to PyTorch's defaults: Kaiming uniform with a = sqrt 5 is
/// uniform over 1/sqrt(inputs), and attention's input projection is Xavier uniform, sqrt(6 / (W + 3W)).
pub(super) fn declarations(config: &ModelConfig) -> Vec<Declaration> {
    let shape = shape(config, Kind::Float);
    let (width, embed) = (shape.width, config.embed_dim as i64);
    let patch = config.vision_cfg.patch_size as i64;
    let scale = (width as f64).sqrt().recip();
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
        declare("visual.proj", &[width, embed], Init::Normal(scale)),
        declare("visual.conv1.weight", &[width, 3, patch, patch], default(3 * patch * patch)),
    ];
    declared.extend(LayerNorm::declarations("visual.ln_pre", width));
    declared.extend(LayerNorm::declarations("visual.ln_post", width));
    for layer in 0..config.vision_cfg.layers {
        declared.extend(block::declarations(&format!("visual.transformer.resblocks.{layer}"), &shape, &init));
    }
    declared
}

impl ImageTower {
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters, kind: Kind) -> ImageTower {
        let shape = shape(config, kind);
        let blocks = (0..config.vision_cfg.layers)
            .map(|layer| Block::new(&format!("visual.transformer.resblocks.{layer}"), shape, parameters))
            .collect();
        ImageTower {
            tokens: tokens(config),
            kind,
            patch_weight: parameters.get("visual.conv1.weight"),
            class_embedding: parameters.get("visual.class_embedding"),
            positional_embedding: parameters.get("visual.positional_embedding"),
            ln_pre: LayerNorm::new(parameters, "visual.ln_pre"),
            blocks,
            ln_post: LayerNorm::new(parameters, "visual.ln_post"),
            projection: parameters.get("visual.proj"),
        }
    }

    /// Numbers in a patch, 3 p^2.
    pub fn patch_values(&self) -> i64 {
        self.patch_weight.size()[1..].iter().product()
    }

    /// Patches (B, T, 3 p^2), row 0 zero, to unit embeddings (B, E).
    pub fn forward(&self, patches: &Tensor) -> Tensor {
        let (batch, width) = (patches.size()[0], self.class_embedding.size()[0]);
        let patch_weight = self.patch_weight.view([width, -1]);
        let embedded = linear(patches, &patch_weight, None, self.kind);
        // The zero row of each image embeds to 0; the class embedding comes in with the positions, which spares a copy.
        let class_row = self.class_embedding.unsqueeze(0).constant_pad_nd([0, 0, 0, self.tokens - 1]);
        let x = embedded + (&self.positional_embedding + class_row);
        let mut x = self.ln_pre.forward(&x).view([-1, width]);
        let (last, rest) = self.blocks.split_last().expect("at least one layer");
        for block in rest {
            x = block.forward(&x, self.tokens);
        }
        let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * self.tokens;
        let pooled = self.ln_post.forward(&last.forward_pooled(&x, self.tokens, &rows, None));
        normalise(&linear(&pooled, &self.projection.tr(), None, self.kind))
    }
}
