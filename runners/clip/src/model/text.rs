//! Text tower: a causal pre-LN transformer pooled at the end-of-text token (`TextTransformer`).

use protocol::ModelConfig;
use tch::{Kind, Tensor};

use super::block::{self, Block, BlockInit, BlockShape};
use super::{LayerNorm, declare, linear, normalise};
use crate::parameters::{Declaration, Init, Parameters};

/// The text half of a [`super::Clip`].
#[derive(Debug)]
pub struct TextTower {
    kind: Kind,
    token_embedding: Tensor,
    positional_embedding: Tensor,
    blocks: Vec<Block>,
    ln_final: LayerNorm,
    projection: Tensor,
}

fn shape(config: &ModelConfig, kind: Kind) -> BlockShape {
    let text = &config.text_cfg;
    BlockShape {
        width: text.width as i64,
        hidden: 4 * text.width as i64,
        heads: text.heads as i64,
        causal: true,
        quick_gelu: config.quick_gelu,
        layer_scale: text.ls_init_value,
        kind,
    }
}

/// Starts as `TextTransformer.init_parameters`.
pub(super) fn declarations(config: &ModelConfig) -> Vec<Declaration> {
    let shape = shape(config, Kind::Float);
    let (width, embed) = (shape.width, config.embed_dim as i64);
    let (vocabulary, context) = (config.text_cfg.vocab_size as i64, config.text_cfg.context_length as i64);
    let attention = (width as f64).sqrt().recip();
    let projection = attention * (2.0 * config.text_cfg.layers as f64).sqrt().recip();
    let init = BlockInit {
        in_proj: Init::Normal(attention),
        out_proj: Init::Normal(projection),
        c_fc: Init::Normal((2.0 * width as f64).sqrt().recip()),
        c_proj: Init::Normal(projection),
    };
    let mut declared = vec![
        declare("token_embedding.weight", &[vocabulary, width], Init::Normal(0.02)),
        declare("positional_embedding", &[context, width], Init::Normal(0.01)),
        declare("text_projection", &[width, embed], Init::Normal(attention)),
    ];
    declared.extend(LayerNorm::declarations("ln_final", width));
    for layer in 0..config.text_cfg.layers {
        declared.extend(block::declarations(&format!("transformer.resblocks.{layer}"), &shape, &init));
    }
    declared
}

impl TextTower {
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters, kind: Kind) -> TextTower {
        let shape = shape(config, kind);
        let blocks = (0..config.text_cfg.layers)
            .map(|layer| Block::new(&format!("transformer.resblocks.{layer}"), shape, parameters))
            .collect();
        TextTower {
            kind,
            token_embedding: parameters.get("token_embedding.weight"),
            positional_embedding: parameters.get("positional_embedding"),
            blocks,
            ln_final: LayerNorm::new(parameters, "ln_final"),
            projection: parameters.get("text_projection"),
        }
    }

    /// Token ids (B, X) and places of their end tokens (B) to unit embeddings (B, E). X may be any length up to the
    /// context length that holds every end token.
    pub fn forward(&self, tokens: &Tensor, ends: &Tensor) -> Tensor {
        let (batch, length) = (tokens.size()[0], tokens.size()[1]);
        let width = self.positional_embedding.size()[1];
        let embedded = Tensor::embedding(&self.token_embedding, tokens, -1, false, false);
        let mut x = (embedded + self.positional_embedding.narrow(0, 0, length)).view([-1, width]);
        let (last, rest) = self.blocks.split_last().expect("at least one layer");
        for block in rest {
            x = block.forward(&x, length);
        }
        let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * length + ends;
        let hidden = Tensor::arange(length, (Kind::Int64, x.device())).unsqueeze(0).gt_tensor(&ends.unsqueeze(1));
        let pooled = last.forward_pooled(&x, length, &rows, Some(&hidden.view([batch, 1, 1, length])));
        normalise(&linear(&self.ln_final.forward(&pooled), &self.projection.tr(), None, self.kind))
    }
}
