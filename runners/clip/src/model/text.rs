//! Text tower: a pre-LN transformer, causal or not, of which one token is pooled (`TextTransformer`).

use protocol::{ModelConfig, TextProjection};
use tch::{Kind, Tensor};

use super::block::{self, Block, BlockInit, BlockShape};
use super::{Activation, LayerNorm, declare, linear, normalise};
use crate::parameters::{Declaration, Init, Parameters};

/// The text half of a [`super::Clip`].
#[derive(Debug)]
pub struct TextTower {
    kind: Kind,
    causal: bool,
    /// The token taken for padding by a class token.
    padding: i64,
    token_embedding: Tensor,
    class_embedding: Option<Tensor>,
    positional_embedding: Tensor,
    blocks: Vec<Block>,
    ln_final: LayerNorm,
    /// (E, w), and a bias.
    projection: Option<(Tensor, Option<Tensor>)>,
}

/// Parameters of a text tower that is a module of its own are named after it.
fn prefix(config: &ModelConfig) -> &'static str {
    if config.custom_text { "text." } else { "" }
}

fn shape(config: &ModelConfig, kind: Kind) -> BlockShape {
    let text = &config.text_cfg;
    BlockShape {
        width: text.width as i64,
        hidden: text.hidden_width() as i64,
        heads: text.heads as i64,
        causal: !text.no_causal_mask,
        activation: Activation::new(config.quick_gelu, text.act_kwargs.approximate),
        eps: text.norm_kwargs.eps,
        layer_scale: text.ls_init_value,
        kind,
    }
}

/// Starts as `TextTransformer.init_parameters`.
pub(super) fn declarations(config: &ModelConfig) -> Vec<Declaration> {
    let (text, prefix) = (&config.text_cfg, prefix(config));
    let shape = shape(config, Kind::Float);
    let (width, embed) = (shape.width, config.embed_dim as i64);
    let attention = (width as f64).sqrt().recip();
    let projection = attention * (2.0 * text.layers as f64).sqrt().recip();
    let init = BlockInit {
        in_proj: Init::Normal(attention),
        out_proj: Init::Normal(projection),
        c_fc: Init::Normal((2.0 * width as f64).sqrt().recip()),
        c_proj: Init::Normal(projection),
    };
    let own = |name: &str, shape: &[i64], init| declare(format!("{prefix}{name}"), shape, init);
    let mut declared = vec![
        own("token_embedding.weight", &[text.vocab_size as i64, width], Init::Normal(0.02)),
        own("positional_embedding", &[text.positions() as i64, width], Init::Normal(0.01)),
    ];
    match (text.proj_type, text.proj_bias) {
        (TextProjection::None, _) => {}
        (TextProjection::Linear, false) => {
            declared.push(own("text_projection", &[width, embed], Init::Normal(attention)));
        }
        (TextProjection::Linear, true) => {
            declared.push(own("text_projection.weight", &[embed, width], Init::Normal(attention)));
            declared.push(own("text_projection.bias", &[embed], Init::Constant(0.0)));
        }
    }
    if text.embed_cls {
        declared.push(own("cls_emb", &[width], Init::Normal(0.01)));
    }
    declared.extend(LayerNorm::declarations(&format!("{prefix}ln_final"), width));
    for layer in 0..text.layers {
        declared.extend(block::declarations(&format!("{prefix}transformer.resblocks.{layer}"), &shape, &init));
    }
    declared
}

impl TextTower {
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters, kind: Kind) -> TextTower {
        let (text, prefix) = (&config.text_cfg, prefix(config));
        let shape = shape(config, kind);
        let get = |name: &str| parameters.get(&format!("{prefix}{name}"));
        let blocks = (0..text.layers)
            .map(|layer| Block::new(&format!("{prefix}transformer.resblocks.{layer}"), shape, parameters))
            .collect();
        let projection = match (text.proj_type, text.proj_bias) {
            (TextProjection::None, _) => None,
            (TextProjection::Linear, false) => Some((get("text_projection").tr(), None)),
            (TextProjection::Linear, true) => Some((get("text_projection.weight"), Some(get("text_projection.bias")))),
        };
        TextTower {
            kind,
            causal: shape.causal,
            padding: text.pad_id as i64,
            token_embedding: get("token_embedding.weight"),
            class_embedding: text.embed_cls.then(|| get("cls_emb")),
            positional_embedding: get("positional_embedding"),
            blocks,
            ln_final: LayerNorm::new(parameters, &format!("{prefix}ln_final"), shape.eps),
            projection,
        }
    }

    /// Token ids (B, X) and places of the pooled tokens (B) to unit embeddings (B, E). Under a causal mask without a
    /// class token X may be any length up to the context length that holds every pooled token; else it is the context
    /// length.
    pub fn forward(&self, tokens: &Tensor, ends: &Tensor) -> Tensor {
        let batch = tokens.size()[0];
        let width = self.positional_embedding.size()[1];
        let mut x = Tensor::embedding(&self.token_embedding, tokens, -1, false, false);
        if let Some(class) = &self.class_embedding {
            x = Tensor::cat(&[x, class.view([1, 1, -1]).expand([batch, -1, -1], false)], 1);
        }
        let length = x.size()[1];
        let mut x = (x + self.positional_embedding.narrow(0, 0, length)).view([-1, width]);
        let (pooled, seen, hidden) = self.masks(tokens, ends, length);
        let (last, rest) = self.blocks.split_last().expect("at least one layer");
        for block in rest {
            x = block.forward(&x, length, seen.as_ref());
        }
        let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * length + pooled;
        let pooled = self.ln_final.forward(&last.forward_pooled(&x, length, &rows, hidden.as_ref()));
        let projected = match &self.projection {
            Some((weight, bias)) => linear(&pooled, weight, bias.as_ref(), self.kind),
            None => pooled,
        };
        normalise(&projected)
    }

    /// Places of the pooled tokens (B); where a token may look (B, 1, T, T), if causality alone does not say; and where
    /// a pooled token may not (B, 1, 1, T), if anywhere.
    fn masks(&self, tokens: &Tensor, ends: &Tensor, length: i64) -> (Tensor, Option<Tensor>, Option<Tensor>) {
        let (batch, int64) = (tokens.size()[0], (Kind::Int64, tokens.device()));
        if self.class_embedding.is_none() {
            let hidden = self.causal.then(|| {
                let after = Tensor::arange(length, int64).unsqueeze(0).gt_tensor(&ends.unsqueeze(1));
                after.view([batch, 1, 1, length])
            });
            return (ends.shallow_clone(), None, hidden);
        }
        // The class token stands last, but OpenCLIP puts its place in the mask first (`correct_cls_mask` is off), so
        // whether a token is padding says whether the one behind it is seen.
        let seen = Tensor::cat(&[Tensor::ones([batch, 1], (Kind::Bool, tokens.device())), tokens.ne(self.padding)], 1);
        let seen = seen.view([batch, 1, 1, length]);
        let hidden = seen.logical_not();
        let before = Tensor::ones([length, length], (Kind::Bool, tokens.device()));
        let before = if self.causal { before.tril(0) } else { before };
        (Tensor::full([batch], length - 1, int64), Some(seen.logical_and(&before)), Some(hidden))
    }
}
