//! F1, `E = beta * x^alpha`: a straight line in log-log coordinates.

use super::terms::{Sum, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, only, spread};

/// `E = beta * x^alpha`. E error or loss, x one axis; alpha below zero where more of it helps (the study's own sign, of
/// compute).
#[derive(Debug, Clone, Copy)]
pub struct Power {
    /// x.
    pub axis: Axis,
}

const PARAMETERS: [Parameter; 2] = [
    Parameter { name: "beta", what: "error where x = 1", scale: Scale::Log, range: (1e-3, 1e3) },
    Parameter { name: "alpha", what: "exponent", scale: Scale::Linear, range: (-0.5, 0.0) },
];

impl Law for Power {
    fn name(&self) -> LawName {
        LawName::Power(self.axis)
    }

    fn formula(&self) -> &'static str {
        spread!(self.axis, "E = beta * ", "^alpha")
    }

    fn source(&self) -> &'static str {
        "Cherti et al. 2022 (arXiv 2212.07143), section 4"
    }

    fn axes(&self) -> &'static [Axis] {
        only(self.axis)
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        gradient[0] = 1.0;
        gradient[1] = x.ln(self.axis);
        theta[0] + theta[1] * x.ln(self.axis)
    }

    fn add_curvature(&self, _theta: &[f64], _x: &Input, _weight: f64, _hessian: &mut [f64]) {}

    fn sum(&self, x: &Input) -> Option<Sum> {
        Some(Sum::of(&[Term::power(0, 1, x.ln(self.axis))]))
    }

    /// Ordinary least squares on ln E.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let count = inputs.len() as f64;
        let x_mean = inputs.iter().map(|x| x.ln(self.axis)).sum::<f64>() / count;
        let y_mean = ln_y.iter().sum::<f64>() / count;
        let (mut xy, mut xx) = (0.0, 0.0);
        for (x, y) in inputs.iter().zip(ln_y) {
            xy += (x.ln(self.axis) - x_mean) * (y - y_mean);
            xx += (x.ln(self.axis) - x_mean).powi(2);
        }
        let alpha = if xx > 0.0 { xy / xx } else { 0.0 };
        vec![vec![y_mean - alpha * x_mean, alpha]]
    }
}
