//! Halves of a transformer block against the same in float64 by libtorch's operators: values and gradients, lengths,
//! threads, and every way that a processor can take.
#![cfg(feature = "torch")]

mod again;

use again::{again, again_with_avx2};
use kernels::{Activation, Attending, BranchLayers, attention_branch, mlp_branch};
use tch::{Device, Kind, Tensor};

const EPS: f64 = 1e-5;

/// x, γ, β, W₁, b₁, W₂, b₂, of a size that keeps everything near 1.
fn leaves(rows: i64, width: i64, inner: i64, outer: i64) -> [Tensor; 7] {
    let drawn = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let leaf = |x: Tensor| x.set_requires_grad(true);
    [
        leaf(drawn(&[rows, width]) * 2.0 + 0.5),
        leaf(drawn(&[width]) * 0.3 + 1.0),
        leaf(drawn(&[width]) * 0.3),
        leaf(drawn(&[inner, width]) / (width as f64).sqrt()),
        leaf(drawn(&[inner]) * 0.3),
        leaf(drawn(&[width, outer]) / (outer as f64).sqrt()),
        leaf(drawn(&[width]) * 0.3),
    ]
}

fn layers(leaves: &[Tensor; 7]) -> BranchLayers<'_> {
    let [_, gamma, beta, w1, b1, w2, b2] = leaves;
    BranchLayers { norm: (gamma, beta), eps: EPS, input: (w1, b1), output: (w2, b2) }
}

/// What bfloat16 has, with the gradient of what it was.
fn rounded(x: &Tensor, half: bool) -> Tensor {
    if half { x + (x.to_kind(Kind::BFloat16).to_kind(Kind::Double) - x).detach() } else { x.shallow_clone() }
}

/// The formula, term by term, of float64 leaves.
fn expected(leaves: &[Tensor; 7], half: bool, inner: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let [x, gamma, beta, w1, b1, w2, b2] = leaves;
    let u = x.layer_norm(gamma.size(), Some(gamma), Some(beta), EPS, false);
    let z = rounded(&(rounded(&u, half).matmul(&rounded(w1, half).tr()) + b1), half);
    x + rounded(&inner(&z), half).matmul(&rounded(w2, half).tr()) + b2
}

/// Attention of sequences of equal length after one another, the weights made one by one.
fn attention(z: &Tensor, sequences: &[[i64; 2]], heads: i64, causal: bool) -> Tensor {
    let width = z.size()[1] / 3;
    let mut from = 0;
    let of = |&[count, tokens]: &[i64; 2]| {
        let own = z.narrow(0, from, count * tokens).view([count, tokens, 3, heads, width / heads]);
        from += count * tokens;
        let qkv = own.permute([2, 0, 3, 1, 4]).unbind(0);
        let scores = qkv[0].matmul(&qkv[1].transpose(-2, -1)) / ((width / heads) as f64).sqrt();
        let ahead = Tensor::ones([tokens, tokens], (Kind::Bool, Device::Cpu)).triu(1);
        let scores = if causal { scores.masked_fill(&ahead, f64::NEG_INFINITY) } else { scores };
        scores.softmax(-1, Kind::Double).matmul(&qkv[2]).transpose(1, 2).reshape([-1, width])
    };
    Tensor::cat(&sequences.iter().map(of).collect::<Vec<_>>(), 0)
}

/// y and the gradients of all leaves, walked back from `upstream`.
fn walked(y: &Tensor, upstream: &Tensor, leaves: &[Tensor; 7]) -> Vec<Tensor> {
    let surrogate = (y * upstream.to_kind(y.kind())).sum(y.kind());
    let mut all = vec![y.detach()];
    all.extend(Tensor::run_backward(&[&surrogate], leaves, false, false));
    all
}

/// The norm of the difference over that of what is expected, of y and of the worst gradient.
fn errors(found: &[Tensor], expected: &[Tensor]) -> [f64; 2] {
    let norm = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]).sqrt();
    let apart = |(a, b): (&Tensor, &Tensor)| norm(&(a.to_kind(Kind::Double) - b)) / norm(b);
    let all: Vec<f64> = found.iter().zip(expected).map(apart).collect();
    [all[0], all[1..].iter().copied().fold(0.0, |a, b| if b <= a { a } else { b })]
}

fn wide(leaves: &[Tensor; 7]) -> [Tensor; 7] {
    leaves.each_ref().map(|leaf| leaf.detach().to_kind(Kind::Double).set_requires_grad(true))
}

fn upstream(y: &Tensor) -> Tensor {
    Tensor::randn(y.size(), (Kind::Float, Device::Cpu))
}

/// float32 to rounding; `half` to that of factors on the way back, which the formula does not round: up to four of
/// 2^-9. Of few rows these do not average out, and sums of few terms may cancel.
fn assert_near(errors: [f64; 2], half: bool, rows: i64, what: &str) {
    let [value, gradient] = errors;
    let most = match (half, rows < 16) {
        (false, _) => [1e-6, 4e-6],
        (true, false) => [5e-4, 8e-3],
        (true, true) => [2e-3, 0.1],
    };
    assert!(value < most[0] && gradient < most[1], "{what}, half: {half}: {value}, gradients {gradient}");
}

/// Rows, width, hidden: of one, odd ones, whole tiles, beyond a block of 128 and a chunk of 256 rows.
const MLPS: [[i64; 3]; 7] =
    [[1, 2, 1], [5, 7, 9], [64, 64, 256], [300, 33, 130], [1000, 40, 70], [257, 192, 768], [129, 16, 48]];

type Formula = fn(&Tensor) -> Tensor;

#[test]
fn grid_of_mlps() {
    tch::manual_seed(1);
    let activations: [(Activation, Formula); 3] = [
        (Activation::Gelu, |z| z.gelu("none")),
        (Activation::GeluTanh, |z| z.gelu("tanh")),
        (Activation::QuickGelu, |z| z * (z * 1.702).sigmoid()),
    ];
    for [rows, width, hidden] in MLPS {
        let leaves = leaves(rows, width, hidden, hidden);
        for (activation, formula) in activations {
            // One number between the layers: nothing is left to average.
            for half in [false, true].into_iter().filter(|half| !half || hidden > 1) {
                let y = mlp_branch(&leaves[0], layers(&leaves), activation, half);
                let (upstream, exact) = (upstream(&y), wide(&leaves));
                let found = walked(&y, &upstream, &leaves);
                let of_formula = walked(&expected(&exact, half, formula), &upstream, &exact);
                let what = format!("{activation:?} of {rows} rows, {width} to {hidden}");
                assert_near(errors(&found, &of_formula), half, rows, &what);
            }
        }
    }
}

/// Beyond what a model makes of its numbers: 0, tails, and where only one side of Φ is left.
#[test]
fn grid_of_activations_far_out() {
    let z = Tensor::cat(
        &[
            Tensor::linspace(-30.0, 30.0, 6001, (Kind::Float, Device::Cpu)),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        ],
        0,
    );
    for (activation, kind) in [(Activation::Gelu, "none"), (Activation::GeluTanh, "tanh")] {
        // LayerNorm of (-1, 1) is itself but for eps; W₁ = (-1/2, 1/2) and b₁ = z - 1 give z, W₂ = 1 sums up.
        let n = z.size()[0];
        let float = (Kind::Float, Device::Cpu);
        let x = Tensor::from_slice(&[-1.0_f32, 1.0]).view([1, 2]);
        let w1 = Tensor::from_slice(&[-0.5_f32, 0.5]).view([1, 2]).repeat([n, 1]);
        let b1 = (&z - 1.0).set_requires_grad(true);
        let w2 = Tensor::ones([2, n], float);
        let (one, zero) = (Tensor::ones([2], float), Tensor::zeros([2], float));
        let norm = (&one, &zero);
        let y = mlp_branch(
            &x,
            BranchLayers { norm, eps: 1e-12, input: (&w1, &b1), output: (&w2, &zero) },
            activation,
            false,
        );
        let slope = Tensor::run_backward(&[&y.narrow(1, 0, 1).sum(Kind::Float)], &[&b1], false, false).remove(0);
        let exact = z.to_kind(Kind::Double).set_requires_grad(true);
        let of_exact = Tensor::run_backward(&[exact.gelu(kind).sum(Kind::Double)], &[&exact], false, false).remove(0);
        let off = (slope.to_kind(Kind::Double) - of_exact).abs().max().double_value(&[]);
        assert!(off < 1.5e-6, "{activation:?}: a slope is off by {off}");
    }
}

/// Groups of sequences, width, heads: one token, odd lengths and odd sequences, several lengths, one sequence longer
/// than a chunk.
fn attentions() -> Vec<(Vec<[i64; 2]>, i64, i64)> {
    vec![
        (vec![[1, 1]], 8, 2),
        (vec![[3, 5]], 12, 3),
        (vec![[40, 17]], 64, 2),
        (vec![[7, 1], [9, 4], [20, 16], [1, 31]], 48, 2),
        (vec![[2, 77], [1, 130]], 32, 1),
        (vec![[2, 301]], 64, 1),
        (vec![[33, 9]], 40, 5),
    ]
}

/// A row of each sequence: the first, the last, and what lies between, in turn.
fn pooled(sequences: &[[i64; 2]]) -> Tensor {
    let (mut rows, mut from, mut turn) = (Vec::new(), 0, 0);
    for tokens in sequences.iter().flat_map(|&[count, tokens]| (0..count).map(move |_| tokens)) {
        rows.push(from + (turn + tokens - 1) % tokens);
        from += tokens;
        turn += 5;
    }
    Tensor::from_slice(&rows)
}

#[test]
fn grid_of_attentions() {
    tch::manual_seed(2);
    for (sequences, width, heads) in attentions() {
        let rows = sequences.iter().map(|[count, tokens]| count * tokens).sum();
        let leaves = leaves(rows, width, 3 * width, width);
        for causal in [false, true] {
            for half in [false, true] {
                let one_each = pooled(&sequences);
                for pooled in [None, Some(&one_each)] {
                    let attending = Attending { sequences: &sequences, heads, causal };
                    let y = attention_branch(&leaves[0], layers(&leaves), attending, pooled, half);
                    let (upstream, exact) = (upstream(&y), wide(&leaves));
                    let found = walked(&y, &upstream, &leaves);
                    let formula = expected(&exact, half, |z| attention(z, &sequences, heads, causal));
                    let formula = pooled.map_or(formula.shallow_clone(), |rows| formula.index_select(0, rows));
                    let of_formula = walked(&formula, &upstream, &exact);
                    let one = pooled.is_some();
                    let what =
                        format!("{sequences:?}, width {width}, {heads} heads, causal: {causal}, of one token: {one}");
                    assert_near(errors(&found, &of_formula), half, rows, &what);
                }
            }
        }
    }
}

/// One thread or more give the same bits: how work is shared out changes no sum.
#[test]
fn grid_of_threads() {
    tch::manual_seed(3);
    let (mlp, attending) = (leaves(1000, 64, 130, 130), leaves(1020, 96, 288, 96));
    for half in [false, true] {
        let by = |threads| {
            tch::set_num_threads(threads);
            let y = mlp_branch(&mlp[0], layers(&mlp), Activation::Gelu, half);
            let mut all = walked(&y, &y.detach(), &mlp);
            let of = Attending { sequences: &[[60, 17]], heads: 3, causal: false };
            for pooled in [None, Some(&pooled(of.sequences))] {
                let y = attention_branch(&attending[0], layers(&attending), of, pooled, half);
                all.extend(walked(&y, &y.detach(), &attending));
            }
            all
        };
        let one = by(1);
        for threads in [2, 3, 7] {
            assert!(one.iter().zip(&by(threads)).all(|(a, b)| a.equal(b)), "half: {half}, {threads} threads");
        }
    }
}

#[test]
fn without_gradients_nothing_is_kept_and_the_value_is_the_same() {
    tch::manual_seed(4);
    let leaves = leaves(140, 32, 96, 32);
    for half in [false, true] {
        let attending = Attending { sequences: &[[20, 7]], heads: 2, causal: true };
        for pooled in [None, Some(&pooled(attending.sequences))] {
            let of = || attention_branch(&leaves[0], layers(&leaves), attending, pooled, half);
            let y = tch::no_grad(of);
            assert!(!y.requires_grad() && y.equal(&of().detach()));
        }
    }
}

/// x, W₁ and dy that lie otherwise, and a weight that stays as it is.
#[test]
fn grid_of_strides() {
    tch::manual_seed(5);
    let mut all = leaves(150, 24, 70, 70);
    let straight = mlp_branch(&all[0], layers(&all), Activation::Gelu, false);
    let upstream = upstream(&straight).tr().contiguous().tr();
    let expected = walked(&straight, &upstream, &all);
    for index in [0, 3] {
        all[index] = all[index].detach().tr().contiguous().tr().set_requires_grad(true);
        assert!(!all[index].is_contiguous());
    }
    let found = walked(&mlp_branch(&all[0], layers(&all), Activation::Gelu, false), &upstream, &all);
    assert!(found.iter().zip(&expected).all(|(a, b)| a.equal(b)));
    let frozen = all.each_ref().map(Tensor::detach);
    let y = mlp_branch(&all[0], layers(&frozen), Activation::Gelu, false);
    let of_x = Tensor::run_backward(&[(y * &upstream).sum(Kind::Float)], &[&all[0]], false, false);
    assert!(of_x[0].equal(&expected[1]));
}

/// A trainer tells by it that a job diverged.
#[test]
fn grid_of_what_is_no_number() {
    tch::manual_seed(6);
    let sequences = [[4, 9], [3, 30]];
    for broken in [f64::NAN, f64::INFINITY] {
        let mut leaves = leaves(126, 32, 96, 32);
        let x = leaves[0].detach();
        let _ = x.get(40).narrow(0, 5, 1).fill_(broken); // In the first sequence of 30.
        leaves[0] = x.set_requires_grad(true);
        for half in [false, true] {
            for pooled in [None, Some(&pooled(&sequences))] {
                let attending = Attending { sequences: &sequences, heads: 2, causal: false };
                let y = attention_branch(&leaves[0], layers(&leaves), attending, pooled, half);
                let found = walked(&y, &upstream(&y), &leaves);
                let no_numbers = |x: &Tensor| x.isnan().any().int64_value(&[]) == 1;
                assert!(found[1..6].iter().all(no_numbers), "{broken}, half: {half}");
                let rows = y.isnan().any_dim(1, false).sum(Kind::Int64).int64_value(&[]);
                assert_eq!(rows, if pooled.is_some() { 1 } else { 30 }, "{broken}, half: {half}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let words = |call: &dyn Fn() -> Tensor| {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        *found.expect_err("refused").downcast::<String>().expect("words")
    };
    let leaves = leaves(6, 4, 12, 4);
    let attended = |sequences: &[[i64; 2]], heads: i64, pooled: Option<&Tensor>| {
        let attending = Attending { sequences, heads, causal: false };
        words(&|| attention_branch(&leaves[0], layers(&leaves), attending, pooled, false))
    };
    let found = attended(&[[1, 5]], 2, None);
    assert!(found.contains("sequences of 5 tokens in all, but x has 6 rows"), "{found}");
    assert!(attended(&[], 2, None).contains("sequences of 0 tokens in all"));
    let found = attended(&[[1, 6]], 3, None);
    assert!(found.contains("3 heads don't divide a width of 4"), "{found}");
    let found = attended(&[[2, 3]], 2, Some(&Tensor::from_slice(&[2_i64, 2])));
    assert!(found.contains("sequence 1 has rows 3 to 5, but pools row 2"), "{found}");
    let none = Attending { sequences: &[], heads: 2, causal: false };
    let found = words(&|| attention_branch(&leaves[0].narrow(0, 0, 0), layers(&leaves), none, None, false));
    assert!(found.contains("half a block takes x (R, W) of at least a row, got [0, 4]"), "{found}");
    let found = words(&|| mlp_branch(&leaves[0], layers(&leaves), Activation::Gelu, false));
    assert!(found.contains("an MLP takes W1 (N, W) and W2 (W, N)"), "{found}");
}

/// As a processor without AVX-512, as one without products of bfloat16, and as one with them.
#[test]
fn other_processors_agree() {
    again_with_avx2(&["grid"]);
    again("fp32", &["grid"]);
    again("bf16", &["grid"]);
}
