//! F10, `E = e0 - k exp(-g L)`: an error of a task as a function of a loss of the same job.

use super::jet::{Jet, parameters};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `E = e0 - k exp(-g L)`. L a loss of the same job, e0 the error of guessing. Where `k exp(-g L)` is e0 or more there
/// is no error and the law has no value (NaN); [`Sigmoid`](super::Sigmoid) has one everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Downstream;

const PARAMETERS: [Parameter; 3] = [
    Parameter { name: "e0", what: "error of guessing", scale: Scale::Log, range: (0.3, 1.0) },
    Parameter { name: "k", what: "what a loss of 0 would take off the error", scale: Scale::Log, range: (0.1, 10.0) },
    Parameter { name: "g", what: "rate along the loss", scale: Scale::Log, range: (0.1, 10.0) },
];

fn ln_value<const S: usize>(theta: &[f64], x: &Input) -> Jet<3, S> {
    let [ln_e0, ln_k, ln_g] = parameters(theta);
    let share = ln_k - ln_g.exp() * x.ln_l.exp() - ln_e0;
    // ln(1 - e^share).
    let odds = 1.0 / (-share.value).exp_m1();
    let left = if share.value < 0.0 { (-share.value.exp()).ln_1p() } else { f64::NAN };
    ln_e0 + share.chain(left, -odds, -odds * (1.0 + odds))
}

impl Law for Downstream {
    fn name(&self) -> LawName {
        LawName::Downstream
    }

    fn formula(&self) -> &'static str {
        "E = e0 - k * exp(-g L)"
    }

    fn source(&self) -> &'static str {
        "Gadre et al. 2024 (arXiv 2403.08540), top-1 error as a function of the validation loss"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::L]
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        ln_value::<0>(theta, x).give(gradient)
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        ln_value::<9>(theta, x).add_bend(3, weight, hessian);
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }

    /// Rates on the scale of the losses; those whose law has a value at every row.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let mean = inputs.iter().map(|x| x.ln_l.exp()).sum::<f64>() / inputs.len() as f64;
        let rates = [0.2, 0.5, 1.0, 2.0, 4.0, 8.0].map(|rate: f64| (rate / mean).ln());
        let mut starts = super::guess::project(self, 3, &[&rates], inputs, ln_y, 6);
        starts.retain(|theta| inputs.iter().all(|x| self.ln_at(theta, x).is_finite()));
        if starts.is_empty() {
            // All of guessing, nothing taken off.
            let most = ln_y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            starts.push(vec![most + 0.01, most - 2.0, (0.5 / mean).ln()]);
        }
        starts
    }
}

impl Separable for Downstream {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1]
    }

    fn shapes(&self) -> &'static [usize] {
        &[2]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = 1.0;
        basis[1] = -(-theta[2].exp() * x.ln_l.exp()).exp();
    }
}
