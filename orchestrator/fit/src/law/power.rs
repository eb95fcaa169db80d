//! F1, `E = beta * C^alpha`: a straight line in log-log coordinates.

use super::{Axis, Input, Law, LawName, Parameter, Scale};

/// `E = beta * C^alpha`. E error or loss, C compute; alpha below zero where more compute helps (the study's own sign).
#[derive(Debug, Clone, Copy)]
pub struct Power;

const PARAMETERS: [Parameter; 2] = [
    Parameter { name: "beta", what: "error at C = 1", scale: Scale::Log, range: (1e-3, 1e3) },
    Parameter { name: "alpha", what: "exponent of compute", scale: Scale::Linear, range: (-0.5, 0.0) },
];

impl Law for Power {
    fn name(&self) -> LawName {
        LawName::Power
    }

    fn formula(&self) -> &'static str {
        "E = beta * C^alpha"
    }

    fn source(&self) -> &'static str {
        "Cherti et al. 2022 (arXiv 2212.07143), section 4"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::C]
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        gradient[0] = 1.0;
        gradient[1] = x.ln_c;
        theta[0] + theta[1] * x.ln_c
    }

    fn add_curvature(&self, _theta: &[f64], _x: &Input, _weight: f64, _hessian: &mut [f64]) {}

    /// Ordinary least squares on ln E.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let count = inputs.len() as f64;
        let x_mean = inputs.iter().map(|x| x.ln_c).sum::<f64>() / count;
        let y_mean = ln_y.iter().sum::<f64>() / count;
        let (mut xy, mut xx) = (0.0, 0.0);
        for (x, y) in inputs.iter().zip(ln_y) {
            xy += (x.ln_c - x_mean) * (y - y_mean);
            xx += (x.ln_c - x_mean).powi(2);
        }
        let alpha = if xx > 0.0 { xy / xx } else { 0.0 };
        vec![vec![y_mean - alpha * x_mean, alpha]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checks::derivatives_agree;
    use super::*;

    proptest! {
        #[test]
        fn derivatives(ln_beta in -3.0..3.0f64, alpha in -0.5..0.5f64, c in 1.0..1e12f64) {
            derivatives_agree(&Power, &[ln_beta, alpha], &Input::on(Axis::C, c)).map_err(TestCaseError::fail)?;
        }
    }
}
