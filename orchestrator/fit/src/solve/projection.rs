//! Variable projection (Golub and Pereyra 1973): given a law's shapes its coefficients are a small non-negative
//! least-squares problem, so only the shapes are searched.

use super::Problem;
use super::frame::Vector;
use super::linear_algebra::{COEFFICIENTS_MAX, non_negative};
use crate::law::{PARAMETERS_MAX, Separable};

/// A coefficient that is best at zero starts with its term at this share of the response.
const SHARE_OF_NONE: f64 = 1e-3;

/// Puts the best coefficients for the shapes of `theta` into it. The sum of squares left, each row weighted so that it
/// is the residual in the objective's space to first order; `None` where the law has no value or no coefficients.
pub(super) fn project(problem: &Problem<'_>, separable: &dyn Separable, theta: &mut Vector) -> Option<f64> {
    let k = problem.len();
    let coefficients = separable.coefficients();
    let count = coefficients.len();
    if count > COEFFICIENTS_MAX {
        return None;
    }
    let mut normal = [0.0; COEFFICIENTS_MAX * COEFFICIENTS_MAX];
    let mut right = [0.0; COEFFICIENTS_MAX];
    let mut heights = [0.0f64; COEFFICIENTS_MAX];
    let (mut square, mut least) = (0.0, f64::INFINITY);
    let mut basis = [0.0; PARAMETERS_MAX];
    let mut used = 0;
    for (row, &weight) in problem.weights.iter().enumerate() {
        if weight == 0.0 {
            continue;
        }
        let (x, ln_y) = (&problem.sample.inputs[row], problem.sample.ln_y[row]);
        let Some((mut response, by_ln_y)) = separable.response(&theta[..k], ln_y) else { continue };
        let (_, g1, _) = problem.objective.space.at(ln_y);
        let scale = weight * (g1 / by_ln_y).powi(2);
        separable.basis(&theta[..k], x, &mut basis[..count]);
        for (at, &index) in coefficients.iter().enumerate() {
            if problem.is_frozen(index) {
                response -= theta[index].exp() * basis[at];
                basis[at] = 0.0;
            }
        }
        if !scale.is_finite() || !basis[..count].iter().all(|b| b.is_finite()) {
            return None;
        }
        used += 1;
        square += scale * response * response;
        least = least.min(response.abs());
        for i in 0..count {
            right[i] += scale * basis[i] * response;
            heights[i] = heights[i].max(basis[i].abs());
            for j in 0..=i {
                normal[i * count + j] += scale * basis[i] * basis[j];
            }
        }
    }
    if 2 * used < problem.weights.iter().filter(|weight| **weight > 0.0).count().max(1) {
        return None;
    }
    for i in 0..count {
        for j in 0..i {
            normal[j * count + i] = normal[i * count + j];
        }
    }
    let (best, gain) = non_negative(&normal[..count * count], &right[..count]);
    for (at, &index) in coefficients.iter().enumerate() {
        if !problem.is_frozen(index) {
            let value = if best[at] > 0.0 { best[at] } else { SHARE_OF_NONE * least / heights[at] };
            theta[index] = value.ln();
        }
    }
    let left = square - gain;
    (theta[..k].iter().all(|value| value.is_finite()) && left.is_finite()).then_some(left)
}
