//! F9, `L = E + (L0 - E) h/(1 + h)`: an error between what is irreducible and that of guessing.

use super::terms::{self, Term};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `L = E + (L0 - E) h/(1 + h)`, `h = A/N^alpha + B/D^beta + G N^gamma/U^delta`. N parameters, D samples seen, U unique
/// samples, L0 the error (or loss) of guessing, which is known, not fitted: a loss whose guess is not known can't be
/// fitted with it. Where h is small it is the law of Chinchilla with weights `(L0 - E) A` and `(L0 - E) B`; the last
/// term is what a large model loses by seeing few samples again and again.
#[derive(Debug, Clone, Copy)]
pub struct Bounded {
    /// L0.
    pub ceiling: f64,
    /// With the term of unique samples.
    pub repeats: bool,
}

const E: usize = 2;

const PARAMETERS: [Parameter; 8] = [
    Parameter { name: "A", what: "weight of the model's size", scale: Scale::Log, range: (1e-2, 1e8) },
    Parameter { name: "B", what: "weight of the samples seen", scale: Scale::Log, range: (1e-2, 1e8) },
    Parameter { name: "E", what: "irreducible loss", scale: Scale::Log, range: (1e-3, 1e1) },
    Parameter { name: "alpha", what: "exponent of the model's size", scale: Scale::Linear, range: (0.01, 1.2) },
    Parameter { name: "beta", what: "exponent of the samples seen", scale: Scale::Linear, range: (0.01, 1.2) },
    Parameter { name: "G", what: "weight of repetition", scale: Scale::Log, range: (1e-6, 1e6) },
    Parameter {
        name: "gamma",
        what: "exponent of the size that repetition harms",
        scale: Scale::Linear,
        range: (0.0, 1.2),
    },
    Parameter { name: "delta", what: "exponent of the unique samples", scale: Scale::Linear, range: (0.01, 1.2) },
];

impl Bounded {
    /// Terms of h, their number, room for one more.
    fn h(self, x: &Input) -> ([Term; 4], usize) {
        let (model, seen) = (Term::power(0, 3, -x.ln_n), Term::power(1, 4, -x.ln_d));
        if self.repeats {
            ([model, seen, Term::product(5, (6, x.ln_n), (7, -x.ln_u)), Term::one()], 3)
        } else {
            ([model, seen, Term::one(), Term::one()], 2)
        }
    }

    /// `L = (E + L0 h) / (1 + h)`: terms above and below, and how many.
    fn fraction(self, x: &Input) -> ([Term; 4], [Term; 4], usize) {
        let (below, count) = self.h(x);
        let mut above = below.map(|term| term.times_exp(self.ceiling.ln()));
        above[count] = Term::constant(E);
        (above, below, count + 1)
    }
}

impl Law for Bounded {
    fn name(&self) -> LawName {
        if self.repeats { LawName::Bounded } else { LawName::BoundedNd }
    }

    fn formula(&self) -> &'static str {
        if self.repeats {
            "L = E + (L0 - E) h/(1 + h), h = A/N^alpha + B/D^beta + G N^gamma/U^delta"
        } else {
            "L = E + (L0 - E) h/(1 + h), h = A/N^alpha + B/D^beta"
        }
    }

    fn source(&self) -> &'static str {
        "Bryant and Liu 2026 (arXiv 2605.09189); their D is U here, their T is D"
    }

    fn axes(&self) -> &'static [Axis] {
        if self.repeats { &[Axis::N, Axis::D, Axis::U] } else { &[Axis::N, Axis::D] }
    }

    fn parameters(&self) -> &'static [Parameter] {
        if self.repeats { &PARAMETERS } else { &PARAMETERS[..5] }
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        let (above, below, count) = self.fraction(x);
        let mut other = [0.0; PARAMETERS.len()];
        let other = &mut other[..theta.len()];
        let ln_below = terms::log_sum(&below[..count], theta, other);
        let ln_above = terms::log_sum(&above[..count], theta, gradient);
        gradient.iter_mut().zip(other).for_each(|(slope, below)| *slope -= *below);
        ln_above - ln_below
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        let (above, below, count) = self.fraction(x);
        terms::add_curvature(&above[..count], theta, weight, hessian);
        terms::add_curvature(&below[..count], theta, -weight, hessian);
    }

    fn separable(&self) -> Option<&dyn Separable> {
        Some(self)
    }

    /// A few E below the data and a few of each exponent: the best eight.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let least = ln_y.iter().copied().fold(f64::INFINITY, f64::min).min(self.ceiling.ln());
        let irreducible = [0.05, 0.4, 0.8].map(|share: f64| least + share.ln());
        let few = [0.15, 0.3, 0.5];
        if self.repeats {
            let shapes: [&[f64]; 5] = [&irreducible, &few, &few, &[0.0, 0.3], &[0.2, 0.5]];
            super::guess::project(self, 8, &shapes, inputs, ln_y, 8)
        } else {
            super::guess::project(self, 5, &[&irreducible, &few, &few], inputs, ln_y, 8)
        }
    }
}

impl Separable for Bounded {
    fn coefficients(&self) -> &'static [usize] {
        if self.repeats { &[0, 1, 5] } else { &[0, 1] }
    }

    fn shapes(&self) -> &'static [usize] {
        if self.repeats { &[2, 3, 4, 6, 7] } else { &[2, 3, 4] }
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        basis[0] = (-theta[3] * x.ln_n).exp();
        basis[1] = (-theta[4] * x.ln_d).exp();
        if self.repeats {
            basis[2] = (theta[6] * x.ln_n - theta[7] * x.ln_u).exp();
        }
    }

    /// `h = (y - E)/(L0 - y)`.
    fn response(&self, theta: &[f64], ln_y: f64) -> Option<(f64, f64)> {
        let (y, e) = (ln_y.exp(), theta[E].exp());
        let room = self.ceiling - y;
        (e < y && room > 0.0).then(|| ((y - e) / room, y * (self.ceiling - e) / (room * room)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_stays_between_its_ends_and_does_what_it_says(
            n in 1e6..1e10f64, d in 1e7..1e11f64, u in 1e6..1e9f64, a in 1.0..1e3f64, e in 0.01..0.5f64,
        ) {
            let law = Bounded { ceiling: 0.999, repeats: true };
            let theta = [a.ln(), 50.0f64.ln(), e.ln(), 0.3, 0.25, 0.5f64.ln(), 0.2, 0.3];
            let at = |n: f64, d: f64, u: f64| {
                law.ln_at(&theta, &Input::on(Axis::N, n).with(Axis::D, d).with(Axis::U, u)).exp()
            };
            let h = a * n.powf(-0.3) + 50.0 * d.powf(-0.25) + 0.5 * n.powf(0.2) * u.powf(-0.3);
            let expected = e + (0.999 - e) * h / (1.0 + h);
            prop_assert!((at(n, d, u) - expected).abs() < 1e-12);
            prop_assert!(e < at(n, d, u) && at(n, d, u) < 0.999);
            prop_assert!(at(n, 2.0 * d, u) < at(n, d, u) && at(n, d, 2.0 * u) < at(n, d, u));
        }
    }
}
