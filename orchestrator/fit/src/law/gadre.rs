//! F6 with one exponent, as a law of compute and of samples a parameter: `L = E + (a M^eta + b M^-eta) C^-eta`.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `L = E + (a M^eta + b M^-eta) C^-eta`, M = D/N, C = 6ND: the same as `L = E + A/N^alpha + B/D^alpha` with
/// `alpha = 2 eta`, `A = a 6^-eta`, `B = b 6^-eta`, in the parameters of studies of over-training. N parameters, D
/// samples seen (tokens in the paper). C is 6ND whatever the convention of the rows' own compute.
#[derive(Debug, Clone, Copy)]
pub struct Gadre;

const PARAMETERS: [Parameter; 4] = [
    Parameter { name: "a", what: "weight of too few parameters", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "b", what: "weight of too few samples", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "E", what: "irreducible loss", scale: Scale::Log, range: (1e-3, 1e1) },
    Parameter { name: "eta", what: "exponent of compute", scale: Scale::Linear, range: (0.01, 0.6) },
];

/// ln 6.
const LN_6: f64 = 1.791_759_469_228_055;

fn terms(x: &Input) -> [Term; 3] {
    // M^eta C^-eta = 6^-eta N^(-2 eta), M^-eta C^-eta = 6^-eta D^(-2 eta).
    [Term::power(0, 3, -2.0 * x.ln_n - LN_6), Term::power(1, 3, -2.0 * x.ln_d - LN_6), Term::constant(2)]
}

impl Law for Gadre {
    fn name(&self) -> LawName {
        LawName::Gadre
    }

    fn formula(&self) -> &'static str {
        "L = E + (a * M^eta + b * M^-eta) * C^-eta, M = D/N, C = 6ND"
    }

    fn source(&self) -> &'static str {
        "Gadre et al. 2024 (arXiv 2403.08540), the law of over-trained models"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::N, Axis::D]
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

impl Separable for Gadre {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn shapes(&self) -> &'static [usize] {
        &[3]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = (theta[3] * (-2.0 * x.ln_n - LN_6)).exp();
        basis[1] = (theta[3] * (-2.0 * x.ln_d - LN_6)).exp();
        basis[2] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chinchilla;
    use super::*;

    #[test]
    fn it_is_the_tied_law_in_other_parameters() {
        let x = Input::on(Axis::N, 3e8).with(Axis::D, 7e9);
        let (a, b, e, eta) = (200.0f64, 300.0f64, 1.8f64, 0.15f64);
        let share = 6.0f64.powf(-eta).ln();
        let tied = Chinchilla { tied: true };
        let expected = tied.ln_at(&[a.ln() + share, b.ln() + share, e.ln(), 2.0 * eta], &x);
        assert!((Gadre.ln_at(&[a.ln(), b.ln(), e.ln(), eta], &x) - expected).abs() < 1e-14);
        // By its formula.
        let (m, c) = (7e9f64 / 3e8, 6.0 * 3e8 * 7e9f64);
        let plain = e + (a * m.powf(eta) + b * m.powf(-eta)) * c.powf(-eta);
        assert!((expected - plain.ln()).abs() < 1e-13);
    }
}
