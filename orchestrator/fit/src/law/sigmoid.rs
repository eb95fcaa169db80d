//! F10 with two ends, `E = e + (e0 - e) / (1 + exp(-g (L - l)))`: an error of a task as a logistic function of a loss.

use super::jet::{Jet, parameters};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable, softplus};

/// `E = e + (e0 - e) / (1 + exp(-g (L - l)))`. L a loss of the same job; e0 the error of guessing, which large losses
/// give; e the irreducible error; l the loss halfway.
#[derive(Debug, Clone, Copy)]
pub struct Sigmoid;

const PARAMETERS: [Parameter; 4] = [
    Parameter { name: "e0", what: "error of guessing", scale: Scale::Log, range: (0.3, 1.0) },
    Parameter { name: "e", what: "irreducible error", scale: Scale::Log, range: (1e-3, 0.5) },
    Parameter { name: "g", what: "steepness", scale: Scale::Log, range: (0.3, 30.0) },
    Parameter { name: "l", what: "loss halfway", scale: Scale::Linear, range: (0.0, 5.0) },
];

fn ln_value<const S: usize>(theta: &[f64], x: &Input) -> Jet<4, S> {
    let [ln_e0, ln_e, ln_g, l] = parameters(theta);
    let z = ln_g.exp() * (-l + x.ln_l.exp());
    // (e0 s(z) + e s(-z)), s the logistic function.
    (ln_e0 - (-z).softplus()).log_add(ln_e - z.softplus())
}

impl Law for Sigmoid {
    fn name(&self) -> LawName {
        LawName::Sigmoid
    }

    fn formula(&self) -> &'static str {
        "E = e + (e0 - e) / (1 + exp(-g (L - l)))"
    }

    fn source(&self) -> &'static str {
        "Bhagia et al. 2024 (arXiv 2412.04403), accuracy as a logistic function of the task loss; \
         Llama 3 (arXiv 2407.21783), section 3.2.1"
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
        ln_value::<16>(theta, x).add_bend(4, weight, hessian);
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }

    /// Halfway points around the losses, steepnesses on their scale: the best six.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let losses = inputs.iter().map(|x| x.ln_l.exp());
        let low = losses.clone().fold(f64::INFINITY, f64::min);
        let high = losses.fold(f64::NEG_INFINITY, f64::max);
        let range = (high - low).max(1e-6 * high);
        let halfway = [-0.5, 0.0, 0.3, 0.6, 1.0].map(|share: f64| low + share * range);
        let steepness = [0.7, 2.0, 5.0, 12.0].map(|times: f64| (times / range).ln());
        super::guess::project(self, 4, &[&steepness, &halfway], inputs, ln_y, 6)
    }
}

impl Separable for Sigmoid {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1]
    }

    fn shapes(&self) -> &'static [usize] {
        &[2, 3]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        let z = theta[2].exp() * (x.ln_l.exp() - theta[3]);
        basis[0] = (-softplus(-z)).exp();
        basis[1] = (-softplus(z)).exp();
    }
}
