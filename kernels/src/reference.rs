//! InfoNCE and its gradient in plain Rust and float64: slow, readable, the truth that kernels and runners are tested
//! on.
//!
//! Images u_i and texts v_j (n rows of width d, any length), s = exp(logit_scale), logits l_ij = s u_i . v_j:
//!
//! ```text
//! L      = 1/(2n) sum_i [ logsumexp_j l_ij - l_ii ] + 1/(2n) sum_j [ logsumexp_i l_ij - l_jj ]
//! G_ij   = dL/dl_ij = 1/(2n) (P_ij + Q_ij - 2 [i = j])   with P = softmax over j, Q = softmax over i
//! dL/du_i = s sum_j G_ij v_j      dL/dv_j = s sum_i G_ij u_i      dL/dlogit_scale = sum_ij G_ij l_ij
//! ```
//!
//! Radford et al. 2021, "Learning transferable visual models from natural language supervision", figure 3.

/// L and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct InfoNce {
    /// L, nats.
    pub loss: f64,
    /// dL/du, n rows of width d.
    pub image_gradient: Vec<f64>,
    /// dL/dv, n rows of width d.
    pub text_gradient: Vec<f64>,
    /// dL/dlogit_scale.
    pub logit_scale_gradient: f64,
}

/// InfoNCE of `n` pairs, rows of `images` and `texts`.
///
/// # Panics
/// If `n` is 0, or the slices are not `n` rows of the same width.
pub fn info_nce(images: &[f64], texts: &[f64], n: usize, logit_scale: f64) -> InfoNce {
    assert!(n > 0 && images.len() == texts.len() && images.len().is_multiple_of(n), "n rows of one width each");
    let width = images.len() / n;
    let scale = logit_scale.exp();
    let row = |matrix: &'_ [f64], i: usize| matrix[i * width..(i + 1) * width].to_vec();
    let dot = |i: usize, j: usize| row(images, i).iter().zip(row(texts, j)).map(|(a, b)| a * b).sum::<f64>();
    let logits: Vec<f64> = (0..n * n).map(|at| scale * dot(at / n, at % n)).collect();
    let over_texts: Vec<f64> = (0..n).map(|i| log_sum_exp((0..n).map(|j| logits[i * n + j]))).collect();
    let over_images: Vec<f64> = (0..n).map(|j| log_sum_exp((0..n).map(|i| logits[i * n + j]))).collect();

    let share = 1.0 / (2.0 * n as f64);
    let loss = (0..n).map(|i| share * (over_texts[i] + over_images[i] - 2.0 * logits[i * n + i])).sum();
    let mut image_gradient = vec![0.0; images.len()];
    let mut text_gradient = vec![0.0; texts.len()];
    let mut logit_scale_gradient = 0.0;
    for i in 0..n {
        for j in 0..n {
            let logit = logits[i * n + j];
            let matched = if i == j { 2.0 } else { 0.0 };
            let slope = share * ((logit - over_texts[i]).exp() + (logit - over_images[j]).exp() - matched);
            logit_scale_gradient += slope * logit;
            for k in 0..width {
                image_gradient[i * width + k] += scale * slope * texts[j * width + k];
                text_gradient[j * width + k] += scale * slope * images[i * width + k];
            }
        }
    }
    InfoNce { loss, image_gradient, text_gradient, logit_scale_gradient }
}

/// ln sum exp, shifted by the largest term so that no term overflows.
fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + terms.map(|term| (term - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without pattern: fractional parts of multiples of the golden ratio, in (-1, 1).
    fn scattered(len: usize, start: usize) -> Vec<f64> {
        (start..start + len).map(|i| 2.0 * (i as f64 * 0.618_033_988_749_894_9).fract() - 1.0).collect()
    }

    #[test]
    fn one_pair_has_no_loss_and_equal_logits_have_ln_n() {
        assert!(info_nce(&[1.0, 2.0], &[3.0, 4.0], 1, 1.0).loss.abs() < 1e-12);
        let same = info_nce(&[1.0; 8], &[1.0; 8], 4, 0.0);
        assert!((same.loss - 4.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn two_pairs_by_hand() {
        // u = v = identity, s = 1: each row is (1, 0) or (0, 1), so L = ln(e + 1) - 1.
        let identity = [1.0, 0.0, 0.0, 1.0];
        let expected = (1.0_f64.exp() + 1.0).ln() - 1.0;
        assert!((info_nce(&identity, &identity, 2, 0.0).loss - expected).abs() < 1e-12);
    }

    #[test]
    fn gradient_is_the_slope_of_the_loss() {
        let (n, step) = (5, 1e-6);
        for logit_scale in [0.0, 2.6, 100.0_f64.ln()] {
            let (images, texts) = (scattered(n * 3, 1), scattered(n * 3, 100));
            let found = info_nce(&images, &texts, n, logit_scale);
            let slope = |at: &dyn Fn(f64) -> f64| (at(step) - at(-step)) / (2.0 * step);
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} against {b}");
            for k in 0..images.len() {
                let nudged = |matrix: &[f64], by: f64| {
                    let mut matrix = matrix.to_vec();
                    matrix[k] += by;
                    matrix
                };
                near(found.image_gradient[k], slope(&|by| info_nce(&nudged(&images, by), &texts, n, logit_scale).loss));
                near(found.text_gradient[k], slope(&|by| info_nce(&images, &nudged(&texts, by), n, logit_scale).loss));
            }
            near(found.logit_scale_gradient, slope(&|by| info_nce(&images, &texts, n, logit_scale + by).loss));
        }
    }

    #[test]
    fn extreme_scales_stay_finite() {
        let rows = scattered(12, 7);
        let found = info_nce(&rows, &rows, 4, 8.0);
        assert!(found.loss.is_finite() && found.image_gradient.iter().all(|g| g.is_finite()));
    }
}
