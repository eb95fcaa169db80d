//! F2, `E = b * x^-a + e`: a power law that ends at an irreducible error.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable, only, spread};

/// `E = b * x^-a + e`. E error or loss, x one axis, e what no x removes.
#[derive(Debug, Clone, Copy)]
pub struct Saturating {
    /// x.
    pub axis: Axis,
}

const PARAMETERS: [Parameter; 3] = [
    Parameter { name: "b", what: "reducible error where x = 1", scale: Scale::Log, range: (1e-2, 1e4) },
    Parameter { name: "a", what: "exponent", scale: Scale::Linear, range: (0.01, 1.0) },
    Parameter { name: "e", what: "irreducible error", scale: Scale::Log, range: (1e-3, 1.0) },
];

impl Saturating {
    fn terms(self, x: &Input) -> [Term; 2] {
        [Term::power(0, 1, -x.ln(self.axis)), Term::constant(2)]
    }
}

impl Law for Saturating {
    fn name(&self) -> LawName {
        LawName::Saturating(self.axis)
    }

    fn formula(&self) -> &'static str {
        spread!(self.axis, "E = b * ", "^-a + e")
    }

    fn source(&self) -> &'static str {
        "Hestness et al. 2017 (arXiv 1712.00409), section 3; M2 of Alabdulmohsin et al. 2022 (arXiv 2209.06640)"
    }

    fn axes(&self) -> &'static [Axis] {
        only(self.axis)
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
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

impl Separable for Saturating {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 2]
    }

    fn shapes(&self) -> &'static [usize] {
        &[1]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = (-theta[1] * x.ln(self.axis)).exp();
        basis[1] = 1.0;
    }
}
