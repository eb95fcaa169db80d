//! F3, `E = a (x + c)^-b + e`: a power law that starts late and ends at an irreducible error.

use super::jet::{Jet, parameters};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable, only, spread};

/// `E = a (x + c)^-b + e`. E error or loss, x one axis, c how much x it takes before the law sets in.
#[derive(Debug, Clone, Copy)]
pub struct Shifted {
    /// x.
    pub axis: Axis,
}

const PARAMETERS: [Parameter; 4] = [
    Parameter { name: "a", what: "reducible error where x + c = 1", scale: Scale::Log, range: (1e-2, 1e4) },
    Parameter { name: "c", what: "x before the law sets in", scale: Scale::Log, range: (1e3, 1e12) },
    Parameter { name: "b", what: "exponent", scale: Scale::Linear, range: (0.01, 1.0) },
    Parameter { name: "e", what: "irreducible error", scale: Scale::Log, range: (1e-3, 1.0) },
];

impl Shifted {
    fn ln_value<const S: usize>(self, theta: &[f64], x: &Input) -> Jet<4, S> {
        let [ln_a, ln_c, b, ln_e] = parameters(theta);
        let ln_x = Jet::constant(x.ln(self.axis));
        (ln_a - b * ln_x.log_add(ln_c)).log_add(ln_e)
    }
}

impl Law for Shifted {
    fn name(&self) -> LawName {
        LawName::Shifted(self.axis)
    }

    fn formula(&self) -> &'static str {
        spread!(self.axis, "E = a * (", " + c)^-b + e")
    }

    fn source(&self) -> &'static str {
        "Nezhurina et al. 2025 (arXiv 2506.04598); M3 of Alabdulmohsin et al. 2022 (arXiv 2209.06640) is its kin"
    }

    fn axes(&self) -> &'static [Axis] {
        only(self.axis)
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        self.ln_value::<0>(theta, x).give(gradient)
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        self.ln_value::<16>(theta, x).add_bend(4, weight, hessian);
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }

    /// c a thousandth, a tenth and three times of the range of x, five exponents.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let least = inputs.iter().map(|x| x.ln(self.axis)).fold(f64::INFINITY, f64::min);
        let shifts = [1e-2, 0.3, 3.0].map(|times: f64| least + times.ln());
        super::guess::project(self, 4, &[&shifts, &[0.05, 0.15, 0.3, 0.5, 0.8]], inputs, ln_y, 4)
    }
}

impl Separable for Shifted {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 3]
    }

    fn shapes(&self) -> &'static [usize] {
        &[1, 2]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        let shifted = x.ln(self.axis) + super::softplus(theta[1] - x.ln(self.axis));
        basis[0] = (-theta[2] * shifted).exp();
        basis[1] = 1.0;
    }
}
