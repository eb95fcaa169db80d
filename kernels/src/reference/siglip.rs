//! SigLIP's loss: a sigmoid for every logit.

use std::ops::Range;

use super::{Batch, Gradients, Problem, sigmoid, softplus};

/// The sigmoid loss and its gradients (Zhai et al. 2023, section 3.1), B images and B texts against each other:
///
/// ```text
/// x_ij = s u_i . v_j + bias      z_ij = 1 where j = i, else -1
/// L    = -1/B sum_ij ln sigmoid(z_ij x_ij) = 1/B sum_ij softplus(-z_ij x_ij)
/// G_ij = dL/dx_ij = -1/B z_ij sigmoid(-z_ij x_ij)
/// ```
///
/// `ids`: one a pair; z is 1 wherever ids are equal, and a pair of a negative id is ignored, as if it were not in the
/// batch; B counts the others. Images and texts: B rows. Without a pair left, all is 0.
///
/// # Panics
/// If shapes do not fit each other.
pub fn siglip(problem: &Problem, bias: f64, ids: Option<&[i64]>) -> Gradients {
    siglip_block(problem, bias, ids, 0..problem.pairs())
}

/// What the rank that holds the pairs `rows` adds to [`siglip`]: all that comes from the logits of its rows. Images:
/// rows of the block alone, complete. Texts: B rows, a part. Sums over a partition of the pairs are [`siglip`].
///
/// # Panics
/// As [`siglip`], or if there are no such rows.
pub fn siglip_block(problem: &Problem, bias: f64, ids: Option<&[i64]>, rows: Range<usize>) -> Gradients {
    let batch = Batch::new(problem, ids);
    let share = 1.0 / batch.pairs() as f64;
    let sign = |a: usize, b: usize| if batch.positive(a, b) { 1.0 } else { -1.0 };
    // -z x
    let wrong = |a: usize, b: usize| -sign(a, b) * (problem.scale * batch.product(a, b) + bias);
    let row_loss = |a: usize| (0..batch.pairs()).map(|b| softplus(wrong(a, b))).sum::<f64>();
    let loss = batch.positions(&rows).map(|a| share * row_loss(a)).sum();
    batch.gradients(&rows, loss, |a, b| -share * sign(a, b) * sigmoid(wrong(a, b)))
}
