//! One pre-LN transformer block (`ResidualAttentionBlock`), over all tokens or for one pooled token of each sequence.

use tch::{Kind, Tensor};

use super::lengths::{self, Group};
use super::{Activation, LayerNorm, declare, linear, wide};
use crate::parameters::{Declaration, Init, Parameters};

/// Sizes of a block that its weights alone do not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    /// W.
    pub(super) width: i64,
    /// H.
    pub(super) hidden: i64,
    /// Attention heads.
    pub(super) heads: i64,
    /// Whether a token sees only itself and what stands before it.
    pub(super) causal: bool,
    /// Between the layers of the MLP.
    pub(super) activation: Activation,
    /// Of LayerNorm.
    pub(super) eps: f64,
    /// Initial LayerScale, if any.
    pub(super) layer_scale: Option<f64>,
    /// Of matrix products.
    pub(super) kind: Kind,
}

/// How the matrices of a block start.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockInit {
    pub(super) in_proj: Init,
    pub(super) out_proj: Init,
    pub(super) c_fc: Init,
    pub(super) c_proj: Init,
}

/// What a pooled token may look at.
#[derive(Debug)]
pub(super) enum Sight {
    /// Its whole sequence.
    All,
    /// Itself and what stands before it.
    Before,
    /// What is not true in (B, 1, 1, T), of a single group.
    Except(Tensor),
}

#[derive(Debug)]
pub(super) struct Block {
    shape: BlockShape,
    /// Whether autograd keeps a block's input alone, and the way back computes the rest again (activation
    /// checkpointing).
    pub(super) recomputed: bool,
    ln_1: LayerNorm,
    in_proj: (Tensor, Tensor),
    out_proj: (Tensor, Tensor),
    ls_1: Option<Tensor>,
    ln_2: LayerNorm,
    c_fc: (Tensor, Tensor),
    c_proj: (Tensor, Tensor),
    ls_2: Option<Tensor>,
}

pub(super) fn declarations(name: &str, shape: &BlockShape, init: &BlockInit) -> Vec<Declaration> {
    let BlockShape { width, hidden, .. } = *shape;
    // PyTorch's default for the bias of a Linear: uniform over 1/sqrt(inputs). Attention biases start at 0.
    let bias = |inputs: i64| Init::Uniform((inputs as f64).sqrt().recip());
    let mut declared = Vec::from(LayerNorm::declarations(&format!("{name}.ln_1"), width));
    declared.extend([
        declare(format!("{name}.attn.in_proj_weight"), &[3 * width, width], init.in_proj),
        declare(format!("{name}.attn.in_proj_bias"), &[3 * width], Init::Constant(0.0)),
        declare(format!("{name}.attn.out_proj.weight"), &[width, width], init.out_proj),
        declare(format!("{name}.attn.out_proj.bias"), &[width], Init::Constant(0.0)),
    ]);
    declared.extend(LayerNorm::declarations(&format!("{name}.ln_2"), width));
    declared.extend([
        declare(format!("{name}.mlp.c_fc.weight"), &[hidden, width], init.c_fc),
        declare(format!("{name}.mlp.c_fc.bias"), &[hidden], bias(width)),
        declare(format!("{name}.mlp.c_proj.weight"), &[width, hidden], init.c_proj),
        declare(format!("{name}.mlp.c_proj.bias"), &[width], bias(hidden)),
    ]);
    if let Some(scale) = shape.layer_scale {
        declared
            .extend(["ls_1", "ls_2"].map(|ls| declare(format!("{name}.{ls}.gamma"), &[width], Init::Constant(scale))));
    }
    declared
}

impl Block {
    pub(super) fn new(name: &str, shape: BlockShape, parameters: &Parameters) -> Block {
        let pair = |part: &str| {
            (parameters.get(&format!("{name}.{part}.weight")), parameters.get(&format!("{name}.{part}.bias")))
        };
        let scale = |ls: &str| shape.layer_scale.map(|_| parameters.get(&format!("{name}.{ls}.gamma")));
        Block {
            shape,
            recomputed: false,
            ln_1: LayerNorm::new(parameters, &format!("{name}.ln_1"), shape.eps),
            in_proj: (
                parameters.get(&format!("{name}.attn.in_proj_weight")),
                parameters.get(&format!("{name}.attn.in_proj_bias")),
            ),
            out_proj: pair("attn.out_proj"),
            ls_1: scale("ls_1"),
            ln_2: LayerNorm::new(parameters, &format!("{name}.ln_2"), shape.eps),
            c_fc: pair("mlp.c_fc"),
            c_proj: pair("mlp.c_proj"),
            ls_2: scale("ls_2"),
        }
    }

    /// x (R, W) of the groups' sequences to (R, W). `seen` (B, 1, T, T) of a single group, in place of the shape's
    /// `causal`, is true where a token may look.
    pub(super) fn forward(&self, x: &Tensor, groups: &[Group], seen: Option<&Tensor>) -> Tensor {
        if !self.recomputed {
            return self.all_tokens(x, groups, seen);
        }
        let (groups, seen) = (groups.to_vec(), seen.map(Tensor::shallow_clone));
        self.recompute(x, move |block, x| block.all_tokens(x, &groups, seen.as_ref()))
    }

    /// x (R, W) to the pooled tokens' (B, W), one of each sequence in order. `rows` (B) are their rows in x.
    pub(super) fn forward_pooled(&self, x: &Tensor, groups: &[Group], rows: &Tensor, sight: Sight) -> Tensor {
        if !self.recomputed {
            return self.pooled_tokens(x, groups, rows, &sight);
        }
        let (groups, rows) = (groups.to_vec(), rows.shallow_clone());
        self.recompute(x, move |block, x| block.pooled_tokens(x, &groups, &rows, &sight))
    }

    /// What `body` makes of x, with autograd, which keeps x and no more.
    fn recompute(&self, x: &Tensor, body: impl Fn(&Block, &Tensor) -> Tensor + Send + 'static) -> Tensor {
        let shape = self.shape;
        let inputs: Vec<&Tensor> = std::iter::once(x).chain(self.weights()).collect();
        kernels::recompute(&inputs, move |inputs| body(&Block::on(shape, &inputs[1..]), &inputs[0]))
    }

    /// All weights.
    fn weights(&self) -> impl Iterator<Item = &Tensor> {
        let Block { shape: _, recomputed: _, ln_1, in_proj, out_proj, ls_1, ln_2, c_fc, c_proj, ls_2 } = self;
        let pairs = [in_proj, out_proj, c_fc, c_proj].into_iter().flat_map(|(weight, bias)| [weight, bias]);
        let norms = [ln_1, ln_2].into_iter().flat_map(|norm| [&norm.weight, &norm.bias]);
        pairs.chain(norms).chain([ls_1, ls_2].into_iter().flatten())
    }

    /// The same block on other weights, in the order of [`Block::weights`].
    fn on(shape: BlockShape, weights: &[Tensor]) -> Block {
        let one = |at: usize| weights[at].shallow_clone();
        let pair = |at: usize| (one(at), one(at + 1));
        let norm = |at: usize| LayerNorm { weight: one(at), bias: one(at + 1), eps: shape.eps };
        let scale = |at: usize| weights.get(at).map(Tensor::shallow_clone);
        let [in_proj, out_proj, c_fc, c_proj] = [0, 2, 4, 6].map(pair);
        let ([ln_1, ln_2], [ls_1, ls_2]) = ([8, 10].map(norm), [12, 13].map(scale));
        Block { shape, recomputed: false, ln_1, in_proj, out_proj, ls_1, ln_2, c_fc, c_proj, ls_2 }
    }

    fn all_tokens(&self, x: &Tensor, groups: &[Group], seen: Option<&Tensor>) -> Tensor {
        let BlockShape { width, heads, causal, kind, .. } = self.shape;
        if seen.is_none() && self.fused(x) {
            return self.mlp(&self.attention_branch(x, groups, causal, None));
        }
        let qkv = linear(&self.ln_1.forward(x), &self.in_proj.0, Some(&self.in_proj.1), kind);
        let causal = causal && seen.is_none();
        let of_group = |(group, qkv): (&Group, Tensor)| {
            // (3, B, heads, T, d), views all: the kernel reads strides.
            let qkv = qkv.view([-1, group.tokens, 3, heads, width / heads]).permute([2, 0, 3, 1, 4]).unbind(0);
            let mixed = Tensor::scaled_dot_product_attention(&qkv[0], &qkv[1], &qkv[2], seen, 0.0, causal, None, false);
            mixed.transpose(1, 2).reshape([-1, width])
        };
        let mixed = lengths::join(groups.iter().zip(lengths::split(&qkv, groups)).map(of_group).collect());
        self.mlp(&self.attended(x, &mixed))
    }

    fn pooled_tokens(&self, x: &Tensor, groups: &[Group], rows: &Tensor, sight: &Sight) -> Tensor {
        let BlockShape { width, heads, kind, .. } = self.shape;
        if !matches!(sight, Sight::Except(_)) && self.fused(x) {
            return self.mlp(&self.attention_branch(x, groups, matches!(sight, Sight::Before), Some(rows)));
        }
        let head_width = width / heads;
        let part = |rows_of_input: &Tensor, start: i64, rows_of_weight: i64| {
            let weight = self.in_proj.0.narrow(0, start, rows_of_weight);
            linear(rows_of_input, &weight, Some(&self.in_proj.1.narrow(0, start, rows_of_weight)), kind)
        };
        let normed = self.ln_1.forward(x);
        let query = part(&normed.index_select(0, rows), 0, width) * (head_width as f64).sqrt().recip();
        let queries = lengths::split_sequences(&query, groups);
        let keys_values = lengths::split(&part(&normed, width, 2 * width), groups);
        let rows_of_groups = lengths::split_sequences(rows, groups);
        let (mut mixed, mut first_row) = (Vec::with_capacity(groups.len()), 0);
        for ((group, rows), (query, key_value)) in
            groups.iter().zip(rows_of_groups).zip(queries.iter().zip(keys_values))
        {
            let query = query.view([-1, heads, 1, head_width]);
            // (2, B, heads, T, d)
            let key_value = key_value.view([-1, group.tokens, 2, heads, head_width]).permute([2, 0, 3, 1, 4]).unbind(0);
            let scores = query.matmul(&key_value[0].transpose(-2, -1));
            let scores = match sight {
                Sight::All => scores,
                Sight::Before => scores.masked_fill(&behind(&rows, first_row, *group), f64::NEG_INFINITY),
                Sight::Except(hidden) => scores.masked_fill(hidden, f64::NEG_INFINITY),
            };
            first_row += group.sequences * group.tokens;
            let weights = scores.softmax(-1, wide(scores.kind())).to_kind(key_value[1].kind());
            mixed.push(weights.matmul(&key_value[1]).reshape([-1, width]));
        }
        self.mlp(&self.attended(&x.index_select(0, rows), &lengths::join(mixed)))
    }

    /// Whether halves of this block are computed whole, by [`kernels::attention_branch`] and [`kernels::mlp_branch`].
    fn fused(&self, x: &Tensor) -> bool {
        self.ls_1.is_none() && self.ls_2.is_none() && kernels::branch_available(x)
    }

    fn attention_branch(&self, x: &Tensor, groups: &[Group], causal: bool, pooled: Option<&Tensor>) -> Tensor {
        let sequences: Vec<_> = groups.iter().map(|group| [group.sequences, group.tokens]).collect();
        let attending = kernels::Attending { sequences: &sequences, heads: self.shape.heads, causal };
        let layers = self.ln_1.branch(&self.in_proj, &self.out_proj);
        kernels::attention_branch(x, layers, attending, pooled, self.shape.kind == Kind::BFloat16)
    }

    fn attended(&self, x: &Tensor, mixed: &Tensor) -> Tensor {
        let y = linear(mixed, &self.out_proj.0, Some(&self.out_proj.1), self.shape.kind);
        match &self.ls_1 {
            Some(gamma) => x + y * gamma,
            None => x + y,
        }
    }

    fn mlp(&self, x: &Tensor) -> Tensor {
        let kind = self.shape.kind;
        if self.fused(x) {
            let layers = self.ln_2.branch(&self.c_fc, &self.c_proj);
            return kernels::mlp_branch(x, layers, self.shape.activation.on_cpu(), kind == Kind::BFloat16);
        }
        let hidden = linear(&self.ln_2.forward(x), &self.c_fc.0, Some(&self.c_fc.1), kind);
        let hidden = self.shape.activation.of(&hidden);
        let y = linear(&hidden, &self.c_proj.0, Some(&self.c_proj.1), kind);
        match &self.ls_2 {
            Some(gamma) => x + y * gamma,
            None => x + y,
        }
    }
}

/// (B, 1, 1, T) of a group whose first row is `first_row`: true behind the pooled token of each sequence, at `rows`
/// (B).
fn behind(rows: &Tensor, first_row: i64, group: Group) -> Tensor {
    let Group { sequences, tokens } = group;
    let places = |n: i64| Tensor::arange(n, (Kind::Int64, rows.device()));
    let ends = rows - first_row - places(sequences) * tokens;
    places(tokens).unsqueeze(0).gt_tensor(&ends.unsqueeze(1)).view([-1, 1, 1, tokens])
}
