//! The law `E = beta * C^alpha`, a straight line in log-log coordinates.

use serde::Serialize;

use super::minimise::{Minimum, Objective, minimise};
use super::points::Point;

/// `E = beta * C^alpha` (Cherti et al. 2022, section 4). E error or loss, C compute; alpha below zero where more
/// compute helps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PowerLaw {
    /// Exponent.
    pub alpha: f64,
    /// Error at C = 1.
    pub beta: f64,
}

impl PowerLaw {
    /// As stored with a fit.
    pub const FORMULA: &'static str = "E = beta * C^alpha";

    /// E at C.
    pub fn value(&self, compute: f64) -> f64 {
        // One exponential of a sum: beta and C^alpha may each be out of range where E is not.
        (self.beta.ln() + self.alpha * compute.ln()).exp()
    }

    /// Derivatives of E at C by alpha and by beta.
    pub fn gradient(&self, compute: f64) -> [f64; 2] {
        let error = self.value(compute);
        [error * compute.ln(), error / self.beta]
    }
}

/// Mean squared residual of `y = level + slope * z`, z and y centred and scaled: parameters of order 1, Hessian the
/// identity.
struct Line<'a> {
    z: &'a [f64],
    y: &'a [f64],
}

impl Objective for Line<'_> {
    fn value(&self, theta: &[f64]) -> f64 {
        let squares: f64 = self.z.iter().zip(self.y).map(|(z, y)| (theta[0] + theta[1] * z - y).powi(2)).sum();
        squares / (2.0 * self.z.len() as f64)
    }

    fn gradient(&self, theta: &[f64]) -> Vec<f64> {
        let mut gradient = vec![0.0, 0.0];
        for (z, y) in self.z.iter().zip(self.y) {
            let residual = theta[0] + theta[1] * z - y;
            gradient[0] += residual / self.z.len() as f64;
            gradient[1] += residual * z / self.z.len() as f64;
        }
        gradient
    }
}

/// Least squares on ln E. `None` where all C are the same.
pub(super) fn fit_points(points: &[Point]) -> Option<(PowerLaw, Minimum)> {
    let (x, y) = logs(points);
    let (x_mean, x_sd) = mean_sd(&x);
    let (y_mean, y_sd) = mean_sd(&y);
    // Equal C differ by rounding at most.
    if x_sd <= 1e-12 * x_mean.abs().max(1.0) {
        return None;
    }
    let y_scale = if y_sd > 0.0 { y_sd } else { 1.0 };
    let z: Vec<f64> = x.iter().map(|x| (x - x_mean) / x_sd).collect();
    let y: Vec<f64> = y.iter().map(|y| (y - y_mean) / y_scale).collect();
    let minimum = minimise(&Line { z: &z, y: &y }, &[0.0, 0.0]);
    let alpha = minimum.theta[1] * y_scale / x_sd;
    let beta = (y_mean + minimum.theta[0] * y_scale - alpha * x_mean).exp();
    Some((PowerLaw { alpha, beta }, minimum))
}

/// Ordinary least squares on ln E in closed form: what [`fit_points`] must agree with. `None` where all C are the same.
pub fn closed_form(points: &[Point]) -> Option<PowerLaw> {
    let (x, y) = logs(points);
    let (x_mean, x_sd) = mean_sd(&x);
    let (y_mean, _) = mean_sd(&y);
    if x_sd <= 1e-12 * x_mean.abs().max(1.0) {
        return None;
    }
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in x.iter().zip(&y) {
        xy += (x - x_mean) * (y - y_mean);
        xx += (x - x_mean).powi(2);
    }
    let alpha = xy / xx;
    Some(PowerLaw { alpha, beta: (y_mean - alpha * x_mean).exp() })
}

/// Share of the variance of ln E that the law explains.
pub(super) fn r2(law: &PowerLaw, points: &[Point]) -> Option<f64> {
    let (_, y) = logs(points);
    let (mean, sd) = mean_sd(&y);
    let total: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
    let left: f64 = points.iter().zip(&y).map(|(point, y)| (y - law.value(point.compute).ln()).powi(2)).sum();
    (sd > 1e-12).then(|| 1.0 - left / total)
}

fn logs(points: &[Point]) -> (Vec<f64>, Vec<f64>) {
    points.iter().map(|point| (point.compute.ln(), point.error.ln())).unzip()
}

/// Mean and population standard deviation; (0, 0) of nothing.
fn mean_sd(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gradient_is_that_of_the_value(alpha in -0.5..0.5f64, beta in 0.1..20.0f64, log_c in 0.0..25.0f64) {
            let c = log_c.exp();
            let law = PowerLaw { alpha, beta };
            let by = |step: f64, at: &dyn Fn(f64) -> PowerLaw| (at(step).value(c) - at(-step).value(c)) / (2.0 * step);
            let by_alpha = by(1e-6, &|step| PowerLaw { alpha: alpha + step, beta });
            let by_beta = by(1e-6 * beta, &|step| PowerLaw { alpha, beta: beta + step });
            let [da, db] = law.gradient(c);
            prop_assert!((da - by_alpha).abs() <= 1e-6 * (1.0 + da.abs()) * law.value(c).max(1.0));
            prop_assert!((db - by_beta).abs() <= 1e-6 * (1.0 + db.abs()));
        }

        #[test]
        fn the_minimiser_agrees_with_the_closed_form(
            pairs in proptest::collection::vec((6.9..30.0f64, 0.001..10.0f64), 3..60),
        ) {
            let points: Vec<Point> =
                pairs.iter().map(|&(log_c, error)| Point { compute: log_c.exp(), error, observation: 0 }).collect();
            let expected = closed_form(&points).unwrap();
            let (law, minimum) = fit_points(&points).unwrap();
            prop_assert!(minimum.converged);
            // Steep lines through nearly equal C lose digits in both: relative to the exponent.
            let steep = expected.alpha.abs().max(1.0);
            prop_assert!((law.alpha - expected.alpha).abs() <= 1e-8 * steep, "{} {}", law.alpha, expected.alpha);
            let (got, want) = (law.beta.ln(), expected.beta.ln());
            prop_assert!((got - want).abs() <= 1e-8 * 30.0 * steep, "{got} {want}");
        }
    }
}
