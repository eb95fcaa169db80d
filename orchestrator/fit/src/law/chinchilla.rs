//! F6, `L = E + A/N^alpha + B/D^beta`, and the same with one exponent.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `L = E + A/N^alpha + B/D^beta`. N parameters, D samples seen. `tied`: beta = alpha.
#[derive(Debug, Clone, Copy)]
pub struct Chinchilla {
    /// One exponent for both.
    pub tied: bool,
}

const PARAMETERS: [Parameter; 5] = [
    Parameter { name: "A", what: "weight of the model's size", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "B", what: "weight of the samples seen", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "E", what: "irreducible loss", scale: Scale::Log, range: (1e-3, 1e1) },
    Parameter { name: "alpha", what: "exponent of the model's size", scale: Scale::Linear, range: (0.01, 1.2) },
    Parameter { name: "beta", what: "exponent of the samples seen", scale: Scale::Linear, range: (0.01, 1.2) },
];

impl Chinchilla {
    fn beta(self) -> usize {
        if self.tied { 3 } else { 4 }
    }

    fn terms(self, x: &Input) -> [Term; 3] {
        [Term::power(0, 3, -x.ln_n), Term::power(1, self.beta(), -x.ln_d), Term::constant(2)]
    }
}

impl Law for Chinchilla {
    fn name(&self) -> LawName {
        if self.tied { LawName::ChinchillaTied } else { LawName::Chinchilla }
    }

    fn formula(&self) -> &'static str {
        if self.tied { "L = E + A/N^alpha + B/D^alpha" } else { "L = E + A/N^alpha + B/D^beta" }
    }

    fn source(&self) -> &'static str {
        "Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3, equation 2; Besiroglu et al. 2024 (arXiv 2404.10102)"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::N, Axis::D]
    }

    fn parameters(&self) -> &'static [Parameter] {
        if self.tied { &PARAMETERS[..4] } else { &PARAMETERS }
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        terms::log_sum(&self.terms(x), theta, gradient)
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        terms::add_curvature(&self.terms(x), theta, weight, hessian);
    }

    fn sum(&self, x: &Input) -> Option<terms::Sum> {
        Some(terms::Sum::of(&self.terms(x)))
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }
}

impl Separable for Chinchilla {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn shapes(&self) -> &'static [usize] {
        if self.tied { &[3] } else { &[3, 4] }
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = (-theta[3] * x.ln_n).exp();
        basis[1] = (-theta[self.beta()] * x.ln_d).exp();
        basis[2] = 1.0;
    }
}
