//! F2, `E = b * C^-a + e`: a power law that ends at an irreducible error.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `E = b * C^-a + e`. E error or loss, C compute, e what no compute removes.
#[derive(Debug, Clone, Copy)]
pub struct Saturating;

const PARAMETERS: [Parameter; 3] = [
    Parameter { name: "b", what: "reducible error at C = 1", scale: Scale::Log, range: (1e-2, 1e4) },
    Parameter { name: "a", what: "exponent of compute", scale: Scale::Linear, range: (0.01, 1.0) },
    Parameter { name: "e", what: "irreducible error", scale: Scale::Log, range: (1e-3, 1.0) },
];

fn terms(x: &Input) -> [Term; 2] {
    [Term::power(0, 1, -x.ln_c), Term::constant(2)]
}

impl Law for Saturating {
    fn name(&self) -> LawName {
        LawName::Saturating
    }

    fn formula(&self) -> &'static str {
        "E = b * C^-a + e"
    }

    fn source(&self) -> &'static str {
        "Hestness et al. 2017 (arXiv 1712.00409), section 3; M2 of Alabdulmohsin et al. 2022 (arXiv 2209.06640)"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::C]
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
        basis[0] = (-theta[1] * x.ln_c).exp();
        basis[1] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checks::derivatives_agree;
    use super::*;

    proptest! {
        #[test]
        fn derivatives(ln_b in -3.0..3.0f64, a in 0.0..0.5f64, ln_e in -5.0..0.0f64, c in 1.0..1e12f64) {
            derivatives_agree(&Saturating, &[ln_b, a, ln_e], &Input::on(Axis::C, c)).map_err(TestCaseError::fail)?;
        }
    }
}
