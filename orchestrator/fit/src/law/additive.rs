//! F8, `L = E + A/N^alpha + B/D^beta + G/U^gamma`: model, samples seen and unique samples add up.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `L = E + A/N^alpha + B/D^beta + G/U^gamma`. N parameters, D samples seen, U unique samples.
#[derive(Debug, Clone, Copy)]
pub struct Additive;

const PARAMETERS: [Parameter; 7] = [
    Parameter { name: "A", what: "weight of the model's size", scale: Scale::Log, range: (1e-2, 1e8) },
    Parameter { name: "B", what: "weight of the samples seen", scale: Scale::Log, range: (1e-2, 1e8) },
    Parameter { name: "G", what: "weight of the unique samples", scale: Scale::Log, range: (1e-2, 1e8) },
    Parameter { name: "E", what: "irreducible loss", scale: Scale::Log, range: (1e-3, 1e1) },
    Parameter { name: "alpha", what: "exponent of the model's size", scale: Scale::Linear, range: (0.01, 1.2) },
    Parameter { name: "beta", what: "exponent of the samples seen", scale: Scale::Linear, range: (0.01, 1.2) },
    Parameter { name: "gamma", what: "exponent of the unique samples", scale: Scale::Linear, range: (0.01, 1.2) },
];

fn terms(x: &Input) -> [Term; 4] {
    [Term::power(0, 4, -x.ln_n), Term::power(1, 5, -x.ln_d), Term::power(2, 6, -x.ln_u), Term::constant(3)]
}

impl Law for Additive {
    fn name(&self) -> LawName {
        LawName::Additive
    }

    fn formula(&self) -> &'static str {
        "L = E + A/N^alpha + B/D^beta + G/U^gamma"
    }

    fn source(&self) -> &'static str {
        "Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3, equation 2, and a third term like it for unique samples"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::N, Axis::D, Axis::U]
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        terms::log_sum(&terms(x), theta, gradient)
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        terms::add_curvature(&terms(x), theta, weight, hessian);
    }

    fn sum(&self, x: &Input) -> Option<terms::Sum> {
        Some(terms::Sum::of(&terms(x)))
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }
}

impl Separable for Additive {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1, 2, 3]
    }

    fn shapes(&self) -> &'static [usize] {
        &[4, 5, 6]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = (-theta[4] * x.ln_n).exp();
        basis[1] = (-theta[5] * x.ln_d).exp();
        basis[2] = (-theta[6] * x.ln_u).exp();
        basis[3] = 1.0;
    }
}
