//! F5, `E = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)`: two power laws, one after the other.

use super::jet::{Jet, parameters};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable, only, softplus};

/// The smoothly broken power law with one break. x one axis; the exponent is c0 well before d and c0 + c1 well after, f
/// how wide the bend is (in ln x). Either exponent may be below zero, so the law need not fall.
#[derive(Debug, Clone, Copy)]
pub struct Bnsl {
    /// x.
    pub axis: Axis,
}

const PARAMETERS: [Parameter; 6] = [
    Parameter { name: "a", what: "error in the limit", scale: Scale::Log, range: (1e-3, 1.0) },
    Parameter { name: "b", what: "reducible error where x = 1", scale: Scale::Log, range: (1e-2, 1e4) },
    Parameter { name: "c0", what: "exponent before the break", scale: Scale::Linear, range: (-0.1, 0.6) },
    Parameter { name: "c1", what: "exponent gained at the break", scale: Scale::Linear, range: (-0.3, 0.6) },
    Parameter { name: "d", what: "x of the break", scale: Scale::Log, range: (1e6, 1e13) },
    Parameter { name: "f", what: "width of the break", scale: Scale::Log, range: (0.1, 3.0) },
];

impl Bnsl {
    fn ln_value<const S: usize>(self, theta: &[f64], x: &Input) -> Jet<6, S> {
        let [ln_a, ln_b, c0, c1, ln_d, ln_f] = parameters(theta);
        let ln_x = Jet::constant(x.ln(self.axis));
        let f = ln_f.exp();
        let bend = ((ln_x - ln_d) * (-ln_f).exp()).softplus();
        ln_a.log_add(ln_b - c0 * ln_x - c1 * f * bend)
    }
}

impl Law for Bnsl {
    fn name(&self) -> LawName {
        LawName::Bnsl(self.axis)
    }

    fn formula(&self) -> &'static str {
        match self.axis {
            Axis::C => "E = a + b * C^-c0 * (1 + (C/d)^(1/f))^(-c1 * f)",
            Axis::N => "E = a + b * N^-c0 * (1 + (N/d)^(1/f))^(-c1 * f)",
            Axis::D => "E = a + b * D^-c0 * (1 + (D/d)^(1/f))^(-c1 * f)",
            Axis::U => "E = a + b * U^-c0 * (1 + (U/d)^(1/f))^(-c1 * f)",
            Axis::L => "E = a + b * L^-c0 * (1 + (L/d)^(1/f))^(-c1 * f)",
        }
    }

    fn source(&self) -> &'static str {
        "Caballero et al. 2022 (arXiv 2210.14891), equation 1 with n = 1"
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
        self.ln_value::<36>(theta, x).add_bend(6, weight, hessian);
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }

    /// Breaks at three places within the data, two widths, a few exponents on either side: the best eight.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let mut sorted: Vec<f64> = inputs.iter().map(|x| x.ln(self.axis)).collect();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
        let breaks = [1, 2, 3].map(|quarter| sorted[last * quarter / 4]);
        let widths = [0.3f64.ln(), 0.0];
        let shapes: [&[f64]; 4] = [&[0.0, 0.1, 0.25, 0.5], &[-0.15, 0.1, 0.25, 0.5], &breaks, &widths];
        super::guess::project(self, 6, &shapes, inputs, ln_y, 8)
    }
}

impl Separable for Bnsl {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1]
    }

    fn shapes(&self) -> &'static [usize] {
        &[2, 3, 4, 5]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        let (ln_x, f) = (x.ln(self.axis), theta[5].exp());
        basis[0] = 1.0;
        basis[1] = (-theta[2] * ln_x - theta[3] * f * softplus((ln_x - theta[4]) / f)).exp();
    }
}
