//! The contrastive losses and their gradients in plain Rust and float64: slow, readable, the truth that kernels and
//! runners are tested on.
//!
//! B pairs of images u_i and texts v_j (rows of width D, any length), a factor s > 0, products S_ij = u_i . v_j. A loss
//! is a function of the logits alone, so all share one step back, G_ij = dL/dl_ij:
//!
//! ```text
//! l_ij    = s S_ij (+ bias)
//! dL/du_i = s sum_j G_ij v_j      dL/dv_j = s sum_i G_ij u_i
//! dL/ds   = sum_ij G_ij S_ij      dL/dbias = sum_ij G_ij
//! ```
//!
//! - [`clip()`]: softmax both ways (Radford et al. 2021, "Learning transferable visual models from natural language
//!   supervision", figure 3), with label smoothing and with several positives a row (Yang et al. 2022, "Unified
//!   contrastive learning in image-text-label space").
//! - [`siglip()`]: a sigmoid for each logit (Zhai et al. 2023, "Sigmoid loss for language image pre-training", section
//!   3.1).
//! - [`clip_block`], [`siglip_block`]: what one data-parallel rank adds to them.
//! - [`clustered_clip`], [`clustered_siglip`]: exact values for batches too large for any of the above.
//! - [`sample`]: seeded features to try them on.
//!
//! Time is O(B^2 D), memory B^2 float64. Values that are not finite propagate; wrong shapes panic.

mod clip;
mod clustered;
pub mod sample;
mod siglip;

use std::ops::Range;

pub use clip::{ClipOptions, clip, clip_block};
pub use clustered::{Clusters, clustered_clip, clustered_siglip};
pub use siglip::{siglip, siglip_block};

/// B pairs and the factor of their logits.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// u, B rows of width `depth`, one after another.
    pub images: &'a [f64],
    /// v, likewise: row i belongs to row i of `images`.
    pub texts: &'a [f64],
    /// D, the width of a row; at least 1.
    pub depth: usize,
    /// s, the factor itself and not its logarithm.
    pub scale: f64,
}

/// A loss and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// L, nats.
    pub loss: f64,
    /// dL/du, rows of width D: all B, or those of the block.
    pub images: Vec<f64>,
    /// dL/dv, B rows of width D.
    pub texts: Vec<f64>,
    /// dL/ds, for s itself; that of ln s is s times this.
    pub scale: f64,
    /// dL/dbias; 0 for losses without a bias.
    pub bias: f64,
}

/// [`clip()`] as a function of ln s, the parameter that CLIP learns.
#[derive(Debug, Clone, PartialEq)]
pub struct InfoNce {
    /// L, nats.
    pub loss: f64,
    /// dL/du, n rows of width D.
    pub image_gradient: Vec<f64>,
    /// dL/dv, n rows of width D.
    pub text_gradient: Vec<f64>,
    /// dL/dlogit_scale.
    pub logit_scale_gradient: f64,
}

/// Plain CLIP of `n` pairs, rows of `images` and `texts`, with s = exp(`logit_scale`).
///
/// # Panics
/// If `n` is 0, or the slices are not `n` rows of the same width.
pub fn info_nce(images: &[f64], texts: &[f64], n: usize, logit_scale: f64) -> InfoNce {
    assert!(n > 0 && images.len().is_multiple_of(n), "images must be n rows of one width");
    let scale = logit_scale.exp();
    let found = clip(&Problem { images, texts, depth: images.len() / n, scale }, &ClipOptions::default());
    InfoNce {
        loss: found.loss,
        image_gradient: found.images,
        text_gradient: found.texts,
        logit_scale_gradient: scale * found.scale,
    }
}

impl Problem<'_> {
    /// B.
    fn pairs(&self) -> usize {
        assert!(self.depth > 0 && self.images.len().is_multiple_of(self.depth), "images must be rows of width depth");
        assert_eq!(self.images.len(), self.texts.len(), "as many texts as images, of the same width");
        self.images.len() / self.depth
    }
}

/// The pairs that count, those whose id is not negative, and the products of their rows. Positions (here a, b) number
/// these pairs alone.
struct Batch<'a> {
    problem: &'a Problem<'a>,
    /// Of each position: the row in the problem.
    kept: Vec<usize>,
    /// Of each position: pairs with equal ids are positives of each other.
    ids: Vec<i64>,
    /// S, positions x positions.
    products: Vec<f64>,
}

impl<'a> Batch<'a> {
    fn new(problem: &'a Problem<'a>, ids: Option<&[i64]>) -> Self {
        let pairs = problem.pairs();
        assert!(ids.is_none_or(|ids| ids.len() == pairs), "one id a pair");
        let id = |row: usize| ids.map_or_else(|| i64::try_from(row).expect("a row's number"), |ids| ids[row]);
        let kept: Vec<usize> = (0..pairs).filter(|&row| id(row) >= 0).collect();
        let ids = kept.iter().map(|&row| id(row)).collect();
        let mut products = Vec::with_capacity(kept.len() * kept.len());
        for &i in &kept {
            let image = row(problem.images, i, problem.depth);
            products.extend(kept.iter().map(|&j| dot(image, row(problem.texts, j, problem.depth))));
        }
        Self { problem, kept, ids, products }
    }

    /// How many pairs count.
    fn pairs(&self) -> usize {
        self.kept.len()
    }

    fn product(&self, a: usize, b: usize) -> f64 {
        self.products[a * self.pairs() + b]
    }

    fn positive(&self, a: usize, b: usize) -> bool {
        self.ids[a] == self.ids[b]
    }

    /// Positions of the problem's rows `rows`.
    fn positions(&self, rows: &Range<usize>) -> Range<usize> {
        assert!(rows.start <= rows.end && rows.end <= self.problem.pairs(), "a block of the problem's rows");
        self.kept.partition_point(|&row| row < rows.start)..self.kept.partition_point(|&row| row < rows.end)
    }

    /// The gradients of `rows`' logits, given the loss and G(a, b) = dL/dl.
    fn gradients(&self, rows: &Range<usize>, loss: f64, slope: impl Fn(usize, usize) -> f64) -> Gradients {
        let &Problem { images, texts, depth, scale } = self.problem;
        let mut found = Gradients {
            loss,
            images: vec![0.0; rows.len() * depth],
            texts: vec![0.0; texts.len()],
            scale: 0.0,
            bias: 0.0,
        };
        for a in self.positions(rows) {
            let i = self.kept[a];
            let image = row(images, i, depth);
            let image_gradient = row_mut(&mut found.images, i - rows.start, depth);
            for (b, &j) in self.kept.iter().enumerate() {
                let slope = slope(a, b);
                found.scale += slope * self.product(a, b);
                found.bias += slope;
                add(image_gradient, scale * slope, row(texts, j, depth));
                add(row_mut(&mut found.texts, j, depth), scale * slope, image);
            }
        }
        found
    }
}

/// sum of count e^logit over some logits, held as sum e^max: no term overflows, and the largest is its count.
#[derive(Debug, Clone, Copy)]
struct ExpSum {
    max: f64,
    sum: f64,
}

impl ExpSum {
    /// Of (logit, count) terms, counts at least 1; of none, it is 0.
    fn of(terms: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let max = terms.clone().fold(f64::NEG_INFINITY, |max, (logit, _)| max.max(logit));
        Self { max, sum: terms.map(|(logit, count)| count * (logit - max).exp()).sum() }
    }

    /// ln (self / other), the maxima subtracted first, so that no digit is lost where both are large.
    fn ln_ratio(self, other: Self) -> f64 {
        (self.max - other.max) + self.sum.ln() - other.sum.ln()
    }

    /// e^logit / self: the part of one term.
    fn share(self, logit: f64) -> f64 {
        (logit - self.max).exp() / self.sum
    }
}

/// ln (1 + e^x), as many digits for very negative x as for others.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x), likewise.
fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    (if x < 0.0 { small } else { 1.0 }) / (1.0 + small)
}

/// Row `i` of a matrix of `width` columns.
fn row(matrix: &[f64], i: usize, width: usize) -> &[f64] {
    &matrix[i * width..(i + 1) * width]
}

fn row_mut(matrix: &mut [f64], i: usize, width: usize) -> &mut [f64] {
    &mut matrix[i * width..(i + 1) * width]
}

/// a . b in eight interleaved sums: faster than one, and the rounding errors are fewer.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    rest + sums.iter().sum::<f64>()
}

/// total += factor row.
fn add(total: &mut [f64], factor: f64, row: &[f64]) {
    for (total, value) in total.iter_mut().zip(row) {
        *total += factor * value;
    }
}
