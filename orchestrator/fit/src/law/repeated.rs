//! F7, the law of Muennighoff et al.: samples seen again, and parameters in excess, are worth ever less.

use super::jet::{Jet, parameters};
use super::{Axis, Input, Law, LawName, Parameter, Scale, Separable};

/// `L = E + A/N'^alpha + B/D'^beta` with samples and parameters at what they are worth:
///
/// `D' = Ud (1 + RD (1 - exp(-R/RD)))`, `Ud = min(D, U)`, `R = D/Ud - 1`, and
/// `N' = Un (1 + RN (1 - exp(-R/RN)))`, `Un = min(N, Nopt)`, `R = N/Un - 1`.
///
/// N parameters, D samples seen, U unique samples. Nopt is the size that training once over the U samples calls for. Of
/// all N, D of one compute C = 6ND the least `A/N^alpha + B/D^beta` has equal slopes along `ln N = -ln D`,
/// `alpha A/N^alpha = beta B/D^beta`; with D = U that is `Nopt = (alpha A U^beta / (beta B))^(1/alpha)`.
///
/// N' and D' and their first derivatives have no jump at N = Nopt or D = U: just above, R = 0 and each further one
/// counts as one. The second derivatives jump there by 1/RN and 1/RD. Exponents are above zero: Nopt needs it.
#[derive(Debug, Clone, Copy)]
pub struct Repeated {
    /// Parameters in excess lose worth too; else N' = N.
    pub excess: bool,
}

const PARAMETERS: [Parameter; 7] = [
    Parameter { name: "A", what: "weight of the model's size", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "B", what: "weight of the samples seen", scale: Scale::Log, range: (1e-2, 1e10) },
    Parameter { name: "E", what: "irreducible loss", scale: Scale::Log, range: (1e-3, 1e1) },
    Parameter { name: "alpha", what: "exponent of the model's size", scale: Scale::Log, range: (0.03, 1.2) },
    Parameter { name: "beta", what: "exponent of the samples seen", scale: Scale::Log, range: (0.03, 1.2) },
    Parameter {
        name: "RD",
        what: "repeats after which samples are worth little",
        scale: Scale::Log,
        range: (0.5, 500.0),
    },
    Parameter { name: "RN", what: "the same for parameters in excess", scale: Scale::Log, range: (0.5, 500.0) },
];

/// Beyond this, `exp(-R/R*)` is nothing.
const RATIO_MAX: f64 = 700.0;

/// `ln(U (1 + R* (1 - exp(-R/R*))))`, `R = e^(ln x - ln U) - 1`; `ln x` where x is at most U.
fn worth<const S: usize>(ln_x: f64, ln_u: Jet<7, S>, ln_star: Jet<7, S>) -> Jet<7, S> {
    let over = ln_x - ln_u.value;
    if over <= 0.0 {
        return Jet::constant(ln_x);
    }
    // ln R without overflow.
    let ln_r = over + (-(-over).exp()).ln_1p();
    if ln_r - ln_star.value > RATIO_MAX.ln() {
        return ln_u + ln_star.softplus();
    }
    let ratio = (-ln_u + ln_x).exp() * (-ln_star).exp() - (-ln_star).exp();
    let faded = (-ratio.value).exp();
    let gain = ln_star.exp() * ratio.chain(-(-ratio.value).exp_m1(), faded, -faded);
    let whole = gain.value + 1.0;
    ln_u + gain.chain(gain.value.ln_1p(), 1.0 / whole, -1.0 / (whole * whole))
}

impl Repeated {
    fn ln_value<const S: usize>(self, theta: &[f64], x: &Input) -> Jet<7, S> {
        let [ln_a, ln_b, ln_e, ln_alpha, ln_beta, ln_rd, ln_rn] = parameters(theta);
        let (alpha, beta) = (ln_alpha.exp(), ln_beta.exp());
        let samples = worth(x.ln_d, Jet::constant(x.ln_u), ln_rd);
        let model = if self.excess {
            let best = (ln_alpha + ln_a - ln_beta - ln_b + beta * x.ln_u) * (-ln_alpha).exp();
            worth(x.ln_n, best, ln_rn)
        } else {
            Jet::constant(x.ln_n)
        };
        (ln_a - alpha * model).log_add(ln_b - beta * samples).log_add(ln_e)
    }
}

impl Law for Repeated {
    fn name(&self) -> LawName {
        if self.excess { LawName::Repeated } else { LawName::RepeatedData }
    }

    fn formula(&self) -> &'static str {
        if self.excess {
            "L = E + A/N'^alpha + B/D'^beta, D' = V (1 + RD (1 - exp(-(D/V - 1)/RD))), V = min(D, U), \
             N' = M (1 + RN (1 - exp(-(N/M - 1)/RN))), M = min(N, Nopt), Nopt = (alpha A U^beta/(beta B))^(1/alpha)"
        } else {
            "L = E + A/N^alpha + B/D'^beta, D' = V (1 + RD (1 - exp(-(D/V - 1)/RD))), V = min(D, U)"
        }
    }

    fn source(&self) -> &'static str {
        "Muennighoff et al. 2023 (arXiv 2305.16264), equation 5 and sections 4 and 5"
    }

    fn axes(&self) -> &'static [Axis] {
        &[Axis::N, Axis::D, Axis::U]
    }

    fn parameters(&self) -> &'static [Parameter] {
        if self.excess { &PARAMETERS } else { &PARAMETERS[..6] }
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        self.ln_value::<0>(theta, x).give(gradient)
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        self.ln_value::<49>(theta, x).add_bend(theta.len(), weight, hessian);
    }

    /// None where Nopt ties the weights to the exponents.
    fn separable(&self) -> Option<&dyn Separable> {
        if self.excess { None } else { Some(self) }
    }

    /// A few exponents and RD without excess parameters, the best four, each with two RN.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let exponents = [0.1, 0.2, 0.3, 0.4, 0.55].map(f64::ln);
        let stars = [4.0, 15.0, 60.0].map(f64::ln);
        let plain = Repeated { excess: false };
        let best = super::guess::project(&plain, 6, &[&exponents, &exponents, &stars], inputs, ln_y, 4);
        if !self.excess {
            return best;
        }
        best.iter().flat_map(|theta| [5.0f64, 50.0].map(|star| [theta.as_slice(), &[star.ln()]].concat())).collect()
    }
}

impl Separable for Repeated {
    fn coefficients(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn shapes(&self) -> &'static [usize] {
        &[3, 4, 5]
    }

    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]) {
        let samples = worth::<0>(x.ln_d, Jet::constant(x.ln_u), Jet::constant(theta[5])).value;
        basis[0] = (-theta[3].exp() * x.ln_n).exp();
        basis[1] = (-theta[4].exp() * samples).exp();
        basis[2] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chinchilla, internal};
    use super::*;

    fn at(n: f64, d: f64, u: f64) -> Input {
        Input::on(Axis::N, n).with(Axis::D, d).with(Axis::U, u)
    }

    fn theta() -> Vec<f64> {
        internal(&Repeated { excess: true }, &[521.0, 1488.0, 1.87, 0.353, 0.33, 15.4, 5.3])
    }

    /// Nopt by a search for the least loss of its compute.
    #[test]
    fn the_size_that_the_unique_samples_call_for_is_compute_optimal() {
        let (alpha, beta) = (0.353f64, 0.33f64);
        for u in [1e8f64, 1e9, 1e10] {
            let best = (alpha * 521.0 * u.powf(beta) / (beta * 1488.0)).powf(1.0 / alpha);
            let loss = |n: f64| 521.0 * n.powf(-alpha) + 1488.0 * (best * u / n).powf(-beta);
            assert!(loss(best) < loss(best * 1.001) && loss(best) < loss(best * 0.999));
            // There, and below, the law is the base law.
            let base = [theta()[0], theta()[1], theta()[2], alpha, beta];
            for n in [best, 0.3 * best] {
                let plain = Chinchilla { tied: false }.ln_at(&base, &at(n, u, u));
                assert!((Repeated { excess: true }.ln_at(&theta(), &at(n, u, u)) - plain).abs() < 1e-12);
            }
            let above = at(10.0 * best, u, u);
            let plain = Chinchilla { tied: false }.ln_at(&base, &above);
            assert!(Repeated { excess: true }.ln_at(&theta(), &above) > plain + 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_have_no_jump_at_the_kinks() {
        let law = Repeated { excess: true };
        let u: f64 = 1e9;
        let best = (0.353 * 521.0 * u.powf(0.33) / (0.33 * 1488.0)).powf(1.0 / 0.353);
        let eps = 1e-7;
        for (below, above) in [
            (at(1e8, u * (1.0 - eps), u), at(1e8, u * (1.0 + eps), u)),
            (at(best * (1.0 - eps), 5e9, u), at(best * (1.0 + eps), 5e9, u)),
        ] {
            let (mut left, mut right) = ([0.0; 7], [0.0; 7]);
            let step = law.log_value(&theta(), &above, &mut right) - law.log_value(&theta(), &below, &mut left);
            assert!(step.abs() < 10.0 * eps, "{step}");
            for (left, right) in left.iter().zip(right) {
                assert!((left - right).abs() < 100.0 * eps, "{left} {right}");
            }
        }
    }

    #[test]
    fn fewer_samples_seen_than_unique_ones_is_no_repetition_and_repeats_wear_out() {
        let law = Repeated { excess: false };
        let theta = &theta()[..6];
        let (all, few) = (law.ln_at(theta, &at(1e8, 1e9, 1e9)), law.ln_at(theta, &at(1e8, 1e9, 5e10)));
        assert_eq!(all.to_bits(), few.to_bits());
        let epochs = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1e4, 1e6];
        let losses: Vec<f64> = epochs.iter().map(|epochs| law.ln_at(theta, &at(1e8, epochs * 1e8, 1e8))).collect();
        assert!(losses.windows(2).all(|pair| pair[1] <= pair[0]));
        // Without end, samples are worth U (1 + RD).
        let limit = law.ln_at(theta, &at(1e8, 16.4e8, 1e18));
        assert!((losses[7] - limit).abs() < 1e-12);
    }
}
