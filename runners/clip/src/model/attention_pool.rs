//! Attentional pooling (`AttentionalPooler`): queries of the model's own attend to the tokens of the last block.

use protocol::ModelConfig;
use tch::{Kind, Tensor};

use super::{LayerNorm, declare, linear};
use crate::parameters::{Declaration, Init, Parameters};

const NAME: &str = "visual.attn_pool";

/// E are its width and its outputs', W the tokens'.
#[derive(Debug)]
pub(super) struct AttentionPool {
    heads: i64,
    kind: Kind,
    /// (Q, E)
    query: Tensor,
    ln_q: LayerNorm,
    ln_k: LayerNorm,
    /// (E, E), (E, W), (E, W)
    in_proj: [Tensor; 3],
    /// (3 E)
    in_proj_bias: Tensor,
    out_proj: (Tensor, Tensor),
}

/// `torch.nn.MultiheadAttention` has one matrix for queries, keys and values where all are of one width.
fn one_matrix(config: &ModelConfig) -> bool {
    config.embed_dim == config.vision_cfg.width
}

pub(super) fn declarations(config: &ModelConfig) -> Vec<Declaration> {
    let (width, embed) = (config.vision_cfg.width as i64, config.embed_dim as i64);
    // Xavier uniform.
    let xavier = |inputs: i64, outputs: i64| Init::Uniform((6.0 / (inputs + outputs) as f64).sqrt());
    let matrix = |part: &str, shape: [i64; 2]| declare(format!("{NAME}.{part}"), &shape, xavier(shape[0], shape[1]));
    let mut declared = vec![declare(
        format!("{NAME}.query"),
        &[config.vision_cfg.attn_pooler_queries as i64, embed],
        Init::Normal(1.0),
    )];
    if one_matrix(config) {
        declared.push(matrix("attn.in_proj_weight", [3 * embed, embed]));
    } else {
        declared.extend([
            matrix("attn.q_proj_weight", [embed, embed]),
            matrix("attn.k_proj_weight", [embed, width]),
            matrix("attn.v_proj_weight", [embed, width]),
        ]);
    }
    declared.push(declare(format!("{NAME}.attn.in_proj_bias"), &[3 * embed], Init::Constant(0.0)));
    let out = Init::Uniform((embed as f64).sqrt().recip());
    declared.push(declare(format!("{NAME}.attn.out_proj.weight"), &[embed, embed], out));
    declared.push(declare(format!("{NAME}.attn.out_proj.bias"), &[embed], Init::Constant(0.0)));
    declared.extend(LayerNorm::declarations(&format!("{NAME}.ln_q"), embed));
    declared.extend(LayerNorm::declarations(&format!("{NAME}.ln_k"), width));
    declared
}

impl AttentionPool {
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters, kind: Kind) -> AttentionPool {
        let get = |part: &str| parameters.get(&format!("{NAME}.{part}"));
        let embed = config.embed_dim as i64;
        let in_proj = if one_matrix(config) {
            let whole = get("attn.in_proj_weight");
            [0, 1, 2].map(|part| whole.narrow(0, part * embed, embed))
        } else {
            ["q", "k", "v"].map(|part| get(&format!("attn.{part}_proj_weight")))
        };
        let eps = config.vision_cfg.norm_kwargs.eps;
        AttentionPool {
            heads: config.vision_cfg.attn_pooler_heads as i64,
            kind,
            query: get("query"),
            ln_q: LayerNorm::new(parameters, &format!("{NAME}.ln_q"), eps),
            ln_k: LayerNorm::new(parameters, &format!("{NAME}.ln_k"), eps),
            in_proj,
            in_proj_bias: get("attn.in_proj_bias"),
            out_proj: (get("attn.out_proj.weight"), get("attn.out_proj.bias")),
        }
    }

    /// Q.
    pub(super) fn queries(&self) -> i64 {
        self.query.size()[0]
    }

    /// Queries `from` to `from + count` of tokens (B, T, W): (B, count, E). Queries do not see one another, so those
    /// that are not read later need not be computed.
    pub(super) fn forward(&self, x: &Tensor, from: i64, count: i64) -> Tensor {
        let (batch, embed) = (x.size()[0], self.query.size()[1]);
        let part = |x: &Tensor, part: i64| {
            let bias = self.in_proj_bias.narrow(0, part * embed, embed);
            let y = linear(x, &self.in_proj[part as usize], Some(&bias), self.kind);
            // (B or 1, heads, rows, d)
            y.view([-1, x.size()[x.dim() - 2], self.heads, embed / self.heads]).transpose(1, 2)
        };
        let query = part(&self.ln_q.forward(&self.query.narrow(0, from, count)), 0);
        let query = query.expand([batch, -1, -1, -1], false);
        let x = self.ln_k.forward(x);
        let mixed = Tensor::scaled_dot_product_attention::<Tensor>(
            &query,
            &part(&x, 1),
            &part(&x, 2),
            None,
            0.0,
            false,
            None,
            false,
        );
        let mixed = mixed.transpose(1, 2).reshape([batch, count, embed]);
        linear(&mixed, &self.out_proj.0, Some(&self.out_proj.1), self.kind)
    }
}
