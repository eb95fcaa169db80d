//! CLIP's loss: a softmax over every row and every column of the logits.

use std::ops::Range;

use super::{Batch, ExpSum, Gradients, Problem, sigmoid, softplus};

/// What plain CLIP leaves open.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClipOptions<'a> {
    /// One id a pair. Pairs of equal ids are positives of each other; a pair of a negative id is ignored, as if it were
    /// not in the batch. None: every pair is its own.
    pub ids: Option<&'a [i64]>,
    /// e in [0, 1], the part of the target that is spread over all columns.
    pub label_smoothing: f64,
}

/// The loss of CLIP and its gradients, B images and B texts against each other:
///
/// ```text
/// L         = 1/(2B) sum_i CE(row i) + 1/(2B) sum_j CE(column j)
/// CE(row i) = sum_j t_ij (ln sum_k e^l_ik - l_ij)      t_ij = (1 - e) [id_j = id_i] / n_i + e / B
/// ```
///
/// with B the number of pairs that are not ignored and n_i that of the id id_i; columns likewise. e = 0 and n_i = 1 is
/// plain CLIP (Radford et al. 2021, figure 3). The n_i equal parts are UniCL's (Yang et al. 2022), e is that of
/// PyTorch's `cross_entropy(label_smoothing=e)`.
///
/// As computed, for p_i the sum of e^l over a row's positives (largest: M_i) and r_i over all others:
///
/// ```text
/// x_i       = ln r_i - ln p_i
/// CE(row i) = softplus(x_i) + ln (p_i / e^M_i) + (1 - e) mean_positives (M_i - l_ij) + e mean_all (M_i - l_ij)
/// dCE/dl_ij = e^l_ij / r_i sigmoid(x_i) - e/B                                                        others
///           = (e^l_ij / p_i - 1/n_i) - e^l_ij / p_i sigmoid(x_i) + e (1/n_i - 1/B)                   positives
/// ```
///
/// so a confident row (r_i far below p_i) keeps its digits: 1 - p is never formed by a subtraction.
///
/// Images and texts: B rows. The bias of the result is 0. Without a pair left, all is 0.
///
/// # Panics
/// If shapes do not fit each other, or the smoothing lies outside [0, 1].
pub fn clip(problem: &Problem, options: &ClipOptions) -> Gradients {
    clip_block(problem, options, 0..problem.pairs())
}

/// What the rank that holds the pairs `rows` adds to [`clip`]; sums over a partition of the pairs are [`clip`].
///
/// - Loss: the terms of its rows and of its own columns, over 2B.
/// - Images: rows of the block alone, complete.
/// - Texts: B rows, the part that comes from the logits of its rows; the scale likewise.
///
/// # Panics
/// As [`clip`], or if there are no such rows.
pub fn clip_block(problem: &Problem, options: &ClipOptions, rows: Range<usize>) -> Gradients {
    let smoothing = options.label_smoothing;
    assert!((0.0..=1.0).contains(&smoothing), "label smoothing lies in [0, 1]");
    let batch = Batch::new(problem, options.ids);
    let pairs = batch.pairs();
    let logit = |a: usize, b: usize| problem.scale * batch.product(a, b);
    let over = |logits: &dyn Fn(usize) -> f64, own: usize| {
        Softmax::new(&(0..pairs).map(|other| (logits(other), batch.positive(own, other))), smoothing)
    };
    let over_texts: Vec<Softmax> = (0..pairs).map(|a| over(&|b| logit(a, b), a)).collect();
    let over_images: Vec<Softmax> = (0..pairs).map(|b| over(&|a| logit(a, b), b)).collect();

    let share = 1.0 / (2.0 * pairs as f64);
    let loss = batch.positions(&rows).map(|a| share * (over_texts[a].loss + over_images[a].loss)).sum();
    let slope = |a: usize, b: usize| {
        let (logit, positive) = (logit(a, b), batch.positive(a, b));
        share * (over_texts[a].slope(logit, positive) + over_images[b].slope(logit, positive))
    };
    Gradients { bias: 0.0, ..batch.gradients(&rows, loss, slope) }
}

/// One row or one column.
struct Softmax {
    /// Its cross entropy, nats.
    loss: f64,
    /// p and r.
    positives: ExpSum,
    others: ExpSum,
    /// sigmoid(x): the probability of all that is not positive.
    miss: f64,
    /// 1/n.
    target: f64,
    /// e/B.
    uniform: f64,
    /// e (1/n - 1/B).
    smoothed: f64,
}

impl Softmax {
    /// Of (logit, whether positive) terms, at least one of them positive.
    fn new(terms: &(impl Iterator<Item = (f64, bool)> + Clone), smoothing: f64) -> Self {
        let select = |wanted: bool| terms.clone().filter(move |term| term.1 == wanted).map(|term| (term.0, 1.0));
        let (positives, others) = (ExpSum::of(select(true)), ExpSum::of(select(false)));
        let below = |(logit, _): (f64, f64)| positives.max - logit;
        let (n, below_positives) = (select(true).count() as f64, select(true).map(below).sum::<f64>());
        let (pairs, below_all) =
            (terms.clone().count() as f64, below_positives + select(false).map(below).sum::<f64>());
        let x = others.ln_ratio(positives);
        let spread = (1.0 - smoothing) * below_positives / n + smoothing * below_all / pairs;
        Self {
            loss: softplus(x) + positives.sum.ln() + spread,
            positives,
            others,
            miss: sigmoid(x),
            target: 1.0 / n,
            uniform: smoothing / pairs,
            smoothed: smoothing * (1.0 / n - 1.0 / pairs),
        }
    }

    /// dCE/dl of one of its logits.
    fn slope(&self, logit: f64, positive: bool) -> f64 {
        if positive {
            let share = self.positives.share(logit);
            (share - self.target) - share * self.miss + self.smoothed
        } else {
            self.others.share(logit) * self.miss - self.uniform
        }
    }
}
