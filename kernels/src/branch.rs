//! Halves of a pre-LN transformer block on tensors of a CPU.

use std::ptr;

use tch::Tensor;

use crate::ffi::{self, TensorPointer, owned, pointer};

/// LayerNorm's γ and β (W) and ε; W₁ (N, W), b₁ (N); W₂ (W, M), b₂ (W); all float32.
#[derive(Debug, Clone, Copy)]
pub struct BranchLayers<'a> {
    /// γ, β.
    pub norm: (&'a Tensor, &'a Tensor),
    /// ε, under the root of LayerNorm.
    pub eps: f64,
    /// W₁, b₁.
    pub input: (&'a Tensor, &'a Tensor),
    /// W₂, b₂.
    pub output: (&'a Tensor, &'a Tensor),
}

/// Between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x).
    Gelu,
    /// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
    GeluTanh,
    /// x σ(1.702 x).
    QuickGelu,
}

/// Whether x is served: float32 on a CPU with AVX2 or AVX-512.
#[expect(unsafe_code, reason = "a call into csrc/")]
pub fn branch_available(x: &Tensor) -> bool {
    // SAFETY: a pointer to a tensor that outlives the call.
    unsafe { ffi::sweep_branch_available(pointer(x)) != 0 }
}

/// What attends to what in x (R, W).
#[derive(Debug, Clone, Copy)]
pub struct Attending<'a> {
    /// How many sequences of how many tokens each; their rows stand one after another in x.
    pub sequences: &'a [[i64; 2]],
    /// Heads, which divide W.
    pub heads: i64,
    /// A token sees itself and what stands before it in its sequence, or all of it.
    pub causal: bool,
}

/// x + W₂ attention(W₁ LayerNorm(x) + b₁) + b₂ with autograd: x (R, W) that is served ([`branch_available`]), N = 3 W
/// (queries, keys, values), M = W. With `pooled` (S) int64, one row of x for each sequence in order, the same of those
/// rows alone, (S, W).
///
/// Rows go through norm, products, attention and residual in blocks that stay in the cache. `half`: factors of the
/// layers' products are rounded to bfloat16, and what is kept for the way back is bfloat16. There is no second
/// derivative, and the bits do not depend on the number of threads.
///
/// # Panics
/// As tch's own functions do: if shapes do not fit, or memory ends.
#[expect(unsafe_code, reason = "a call into csrc/")]
pub fn attention_branch(
    x: &Tensor,
    layers: BranchLayers<'_>,
    attending: Attending<'_>,
    pooled: Option<&Tensor>,
    half: bool,
) -> Tensor {
    let Attending { sequences, heads, causal } = attending;
    let all = layers.pointers();
    let groups = i64::try_from(sequences.len()).expect("groups that fit memory");
    let (causal, half) = (causal.into(), half.into());
    let pooled = pooled.map_or(ptr::null(), pointer);
    let mut out: TensorPointer = ptr::null_mut();
    // SAFETY: pointers to tensors and numbers that outlive the call; on success `out` is a tensor of ours.
    let code = unsafe {
        let (x, sequences) = (pointer(x), sequences.as_ptr());
        let (layers, eps) = (&raw const all, layers.eps);
        ffi::sweep_attention_branch(x, layers, eps, sequences, groups, pooled, heads, causal, half, &raw mut out)
    };
    taken(code, out)
}

/// x + W₂ act(W₁ LayerNorm(x) + b₁) + b₂, as [`attention_branch`]; N = M.
///
/// # Panics
/// As [`attention_branch`].
#[expect(unsafe_code, reason = "a call into csrc/")]
pub fn mlp_branch(x: &Tensor, layers: BranchLayers<'_>, activation: Activation, half: bool) -> Tensor {
    let all = layers.pointers();
    let mut out: TensorPointer = ptr::null_mut();
    // SAFETY: as above.
    let code = unsafe {
        ffi::sweep_mlp_branch(pointer(x), &raw const all, layers.eps, activation as i32, half.into(), &raw mut out)
    };
    taken(code, out)
}

impl BranchLayers<'_> {
    fn pointers(&self) -> [*const std::ffi::c_void; 6] {
        [self.norm.0, self.norm.1, self.input.0, self.input.1, self.output.0, self.output.1].map(pointer)
    }
}

fn taken(code: i32, out: TensorPointer) -> Tensor {
    match owned(out) {
        Some(y) if code == 0 => y,
        _ => panic!("{}", ffi::last_error()),
    }
}
