//! Text tower: a pre-LN transformer, causal or not, of which one token is pooled (`TextTransformer`).

use protocol::{ModelConfig, TextProjection};
use tch::{Device, Kind, Tensor};

use super::block::{self, Block, BlockInit, BlockShape, Sight};
use super::lengths::{self, Group};
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

    pub(super) fn set_grad_checkpointing(&mut self, on: bool) {
        self.blocks.iter_mut().for_each(|block| block.recomputed = on);
    }

    /// Token ids (B, X) and places of the pooled tokens (B) to unit embeddings (B, E). Under a causal mask without a
    /// class token X may be any length up to the context length that holds every pooled token; else it is the context
    /// length.
    pub fn forward(&self, tokens: &Tensor, ends: &Tensor) -> Tensor {
        let pooled = if self.class_embedding.is_none() && self.causal && tokens.device() == Device::Cpu {
            self.pooled_by_length(tokens, ends)
        } else {
            self.pooled_at_one_length(tokens, ends)
        };
        let projected = match &self.projection {
            Some((weight, bias)) => linear(&pooled, weight, bias.as_ref(), self.kind),
            None => pooled,
        };
        normalise(&projected)
    }

    /// The pooled tokens (B, W) after the last norm, each sequence about as long as its pooled token's place: of the
    /// same value, as nothing looks behind it. A GPU, which would have to be waited for, takes all at one length.
    fn pooled_by_length(&self, tokens: &Tensor, ends: &Tensor) -> Tensor {
        let values = |tensor: &Tensor| Vec::<i64>::try_from(&tensor.contiguous().view([-1])).expect("int64");
        let (all_ids, ends, length) = (values(tokens), values(ends), tokens.size()[1] as usize);
        let needed: Vec<i64> = ends.iter().map(|end| end + 1).collect();
        let (order, groups) = lengths::by_length(&needed);
        let (mut ids, mut places, mut pooled) = (Vec::new(), Vec::new(), Vec::with_capacity(order.len()));
        let mut back = vec![0; order.len()];
        let tokens_of = groups.iter().flat_map(|group| std::iter::repeat_n(group.tokens, group.sequences as usize));
        for ((row, &index), tokens) in (0..).zip(&order).zip(tokens_of) {
            back[index] = row;
            pooled.push(places.len() as i64 + ends[index]);
            ids.extend_from_slice(&all_ids[length * index..][..tokens as usize]);
            places.extend(0..tokens);
        }
        let rows = places.len() as i64;
        for list in [&mut ids, &mut places] {
            list.resize(lengths::whole_step(rows) as usize, 0);
        }
        let look_up =
            |table: &Tensor, list: &[i64]| Tensor::embedding(table, &Tensor::from_slice(list), -1, false, false);
        let x = look_up(&self.token_embedding, &ids) + look_up(&self.positional_embedding, &places);
        let x = x.narrow(0, 0, rows);
        let pooled = self.through_blocks(x, &groups, &Tensor::from_slice(&pooled), None, Sight::Before);
        pooled.index_select(0, &Tensor::from_slice(&back))
    }

    /// The same, with each sequence as long as the longest.
    fn pooled_at_one_length(&self, tokens: &Tensor, ends: &Tensor) -> Tensor {
        let x = self.embedded(tokens);
        let (batch, length, _) = x.size3().expect("(B, T, W)");
        let (x, groups) = (x.flatten(0, 1), [Group { sequences: batch, tokens: length }]);
        let first_rows = Tensor::arange(batch, (Kind::Int64, x.device())) * length;
        if self.class_embedding.is_none() {
            let sight = if self.causal { Sight::Before } else { Sight::All };
            return self.through_blocks(x, &groups, &(first_rows + ends), None, sight);
        }
        let (seen, hidden) = self.masks(tokens, length);
        self.through_blocks(x, &groups, &(first_rows + (length - 1)), Some(&seen), Sight::Except(hidden))
    }

    /// Token ids (B, X) to what enters the first block (B, T, W).
    fn embedded(&self, tokens: &Tensor) -> Tensor {
        let mut x = Tensor::embedding(&self.token_embedding, tokens, -1, false, false);
        if let Some(class) = &self.class_embedding {
            x = Tensor::cat(&[x, class.view([1, 1, -1]).expand([tokens.size()[0], -1, -1], false)], 1);
        }
        let length = x.size()[1];
        x + self.positional_embedding.narrow(0, 0, length)
    }

    /// See [`Block::forward`] and [`Block::forward_pooled`]; then the last norm.
    fn through_blocks(
        &self,
        mut x: Tensor,
        groups: &[Group],
        rows: &Tensor,
        seen: Option<&Tensor>,
        sight: Sight,
    ) -> Tensor {
        let (last, rest) = self.blocks.split_last().expect("at least one layer");
        for block in rest {
            x = block.forward(&x, groups, seen);
        }
        self.ln_final.forward(&last.forward_pooled(&x, groups, rows, sight))
    }

    /// With a class token: where a token may look (B, 1, T, T), and where that one, which is pooled, may not
    /// (B, 1, 1, T).
    fn masks(&self, tokens: &Tensor, length: i64) -> (Tensor, Tensor) {
        let batch = tokens.size()[0];
        // The class token stands last, but OpenCLIP puts its place in the mask first (`correct_cls_mask` is off), so
        // whether a token is padding says whether the one behind it is seen.
        let seen = Tensor::cat(&[Tensor::ones([batch, 1], (Kind::Bool, tokens.device())), tokens.ne(self.padding)], 1);
        let seen = seen.view([batch, 1, 1, length]);
        let hidden = seen.logical_not();
        let before = Tensor::ones([length, length], (Kind::Bool, tokens.device()));
        let before = if self.causal { before.tril(0) } else { before };
        (seen.logical_and(&before), hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clip;

    /// Embeddings and the gradient of a sum of theirs, of captions at their own lengths against one length for all.
    #[test]
    fn what_stands_behind_the_pooled_tokens_changes_nothing() {
        own_lengths_against_one(Kind::Double, [1e-13, 1e-12]);
        // Where halves of blocks are one operator each. Sums over thousands of rows cancel to a hundredth of what
        // their terms are.
        own_lengths_against_one(Kind::Float, [2e-5, 5e-4]);
    }

    /// The largest relative differences of embeddings and of gradients may be `most`.
    fn own_lengths_against_one(kind: Kind, most: [f64; 2]) {
        let (_, json) = protocol::shipped_model("cpu-w32-l2").expect("shipped");
        let config: ModelConfig = serde_json::from_str(json).expect("a model");
        let model = Clip::of_kinds(&config, kind, kind, 3, Device::Cpu);
        let tokens = Tensor::randint_low(1, 4000, [200, 20], (Kind::Int64, Device::Cpu));
        let needed: Vec<i64> = (0..200).map(|index| 1 + (index * index * 7) % (3 + index % 17)).collect();
        let longest = *needed.iter().max().expect("some");
        let tokens = tokens.narrow(1, 0, longest);
        let ends = Tensor::from_slice(&needed) - 1;
        let weights = (Tensor::arange(200 * 32, (kind, Device::Cpu)) * 0.7).sin().view([200, 32]);
        let gradients = |pooled: &Tensor| {
            let towers = ["token_embedding", "positional_embedding", "transformer.", "ln_final"];
            let of_text = |name: &str| towers.iter().any(|tower| name.starts_with(tower));
            let names = model.parameters.list.iter().map(|parameter| &parameter.name);
            let leaves: Vec<_> = names.filter(|name| of_text(name)).map(|name| model.parameters.get(name)).collect();
            Tensor::run_backward(&[(pooled * &weights).sum(kind)], &leaves, false, false)
        };
        // Where terms cancel, their rounding is that of the largest.
        let apart = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / b.abs().max()).double_value(&[]);
        let whole = model.text.pooled_at_one_length(&tokens, &ends);
        let of_whole = gradients(&whole);
        let cut = model.text.pooled_by_length(&tokens, &ends);
        assert!(apart(&cut, &whole) < most[0], "{}", apart(&cut, &whole));
        for (a, b) in gradients(&cut).iter().zip(&of_whole) {
            assert!(apart(a, b) < most[1], "{:?} {}", a.size(), apart(a, b));
        }
    }
}
