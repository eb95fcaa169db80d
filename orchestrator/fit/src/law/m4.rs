//! F4, `(y - e) / (e0 - y)^k = b x^-c`: an error that starts at guessing and ends at what is irreducible.

use super::guess::least_squares;
use super::{Axis, Input, Law, LawName, Parameter, Scale, only, softplus, spread};

/// `(y - e) / (e0 - y)^k = b x^-c`, `e = e0 q/(1 + q)`. y error, x one axis, e0 the error of guessing, e the
/// irreducible error. y is implicit: with `w = ln((y - e)/(e0 - y))` and `g = ln(e0 - e)` the law is
///
/// `H(w) = w + (k - 1) (ln(1 + e^w) - g) - ln b + c ln x = 0`,
///
/// rising in w wherever k > 0, so that exactly one y in (e, e0) solves it. q rather than e is the parameter, so that
/// `e < e0` whatever q and e0 are. Derivatives by the implicit function theorem.
#[derive(Debug, Clone, Copy)]
pub struct M4 {
    /// x.
    pub axis: Axis,
    /// The error of guessing, to start e0 from; 1 where it is not known.
    pub ceiling: f64,
}

const B: usize = 0;
const C: usize = 1;
const K: usize = 2;
const Q: usize = 3;
const E0: usize = 4;

const PARAMETERS: [Parameter; 5] = [
    Parameter { name: "b", what: "level where x = 1", scale: Scale::Log, range: (1e-2, 1e6) },
    Parameter { name: "c", what: "exponent", scale: Scale::Linear, range: (0.01, 1.0) },
    Parameter { name: "k", what: "how late the error leaves that of guessing", scale: Scale::Log, range: (0.1, 10.0) },
    Parameter { name: "q", what: "irreducible error, e = e0 q/(1 + q)", scale: Scale::Log, range: (1e-3, 10.0) },
    Parameter { name: "e0", what: "error of guessing", scale: Scale::Log, range: (0.3, 1.1) },
];

/// Newton steps to a root; each but the last few at least halves the way, for any k that a fit visits.
const STEPS_MAX: usize = 2000;
/// |ln k| beyond this is taken as this: the law's limits are reached long before.
const LN_K_MAX: f64 = 300.0;

/// Logistic function.
fn sigmoid(z: f64) -> f64 {
    (-softplus(-z)).exp()
}

/// dH/dw, `1 + (k - 1) s(w)` without its cancellation, s the logistic function.
fn steepness(k: f64, w: f64) -> f64 {
    sigmoid(-w) + k * sigmoid(w)
}

/// The w with `w + (k - 1) ln(1 + e^w) = target`, k > 0. The left side is convex for k > 1 and concave for k < 1, and
/// its asymptote `max(w, k w)`, `min(w, k w)` puts the first guess on the side from which Newton's steps never pass the
/// root; they stop when rounding makes them.
fn root(k: f64, target: f64) -> f64 {
    let mut w = if target < 0.0 { target } else { target / k };
    let side = if k > 1.0 { -1.0 } else { 1.0 };
    for _ in 0..STEPS_MAX {
        let step = (target - w - (k - 1.0) * softplus(w)) / steepness(k, w);
        if !step.is_finite() || step * side <= 0.25 * f64::EPSILON * w.abs() {
            break;
        }
        w += step;
    }
    w
}

/// What value and derivatives are made of.
struct State {
    w: f64,
    /// `ln(1 + e^w) - g`.
    level: f64,
    k: f64,
    ln_y: f64,
    /// Share of y that is above e.
    above: f64,
}

fn state(theta: &[f64], ln_x: f64) -> State {
    let k = theta[K].clamp(-LN_K_MAX, LN_K_MAX).exp();
    let gap = theta[E0] - softplus(theta[Q]);
    let w = root(k, theta[B] - theta[C] * ln_x + (k - 1.0) * gap);
    // y = (e0 - e) (q + 1/(1 + e^-w)).
    let rise = -softplus(-w);
    let inner = theta[Q].max(rise) + softplus(-(theta[Q] - rise).abs());
    State { w, level: softplus(w) - gap, k, ln_y: gap + inner, above: (rise - inner).exp() }
}

impl State {
    /// Derivatives of H by w and by theta.
    fn slopes(&self, theta: &[f64], ln_x: f64) -> (f64, [f64; 5]) {
        let k1 = self.k - 1.0;
        (steepness(self.k, self.w), [-1.0, ln_x, self.k * self.level, k1 * sigmoid(theta[Q]), -k1])
    }

    /// Derivatives of ln y by w and, w held, by theta.
    fn outer(&self, theta: &[f64]) -> (f64, [f64; 5]) {
        let own = 1.0 - self.above - sigmoid(theta[Q]);
        (self.above * sigmoid(-self.w), [0.0, 0.0, 0.0, own, 1.0])
    }
}

impl Law for M4 {
    fn name(&self) -> LawName {
        LawName::M4(self.axis)
    }

    fn formula(&self) -> &'static str {
        spread!(self.axis, "(E - e)/(e0 - E)^k = b * ", "^-c, e = e0 * q/(1 + q)")
    }

    fn source(&self) -> &'static str {
        "M4 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 4"
    }

    fn axes(&self) -> &'static [Axis] {
        only(self.axis)
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64 {
        let ln_x = x.ln(self.axis);
        let state = state(theta, ln_x);
        let (h_w, h) = state.slopes(theta, ln_x);
        let (y_w, y) = state.outer(theta);
        for (i, slope) in gradient.iter_mut().enumerate() {
            *slope = y[i] - y_w * h[i] / h_w;
        }
        state.ln_y
    }

    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        let ln_x = x.ln(self.axis);
        let state = state(theta, ln_x);
        let (h_w, h) = state.slopes(theta, ln_x);
        let (y_w, _) = state.outer(theta);
        let (rise, q) = (sigmoid(state.w), sigmoid(theta[Q]));
        let (fall, above, k1) = (sigmoid(-state.w), state.above, state.k - 1.0);
        let both = above * (1.0 - above);
        let (h_ww, h_wk) = (k1 * rise * fall, state.k * rise);
        let (y_ww, y_wq) = (both * fall * fall - above * rise * fall, -both * fall);
        let mut h2 = [[0.0; 5]; 5];
        h2[K][K] = state.k * state.level;
        h2[K][E0] = -state.k;
        h2[K][Q] = state.k * q;
        h2[Q][Q] = k1 * q * (1.0 - q);
        (h2[E0][K], h2[Q][K]) = (h2[K][E0], h2[K][Q]);
        let w = h.map(|slope| -slope / h_w);
        for i in 0..5 {
            for j in 0..5 {
                let k_only = |index: usize| if index == K { h_wk } else { 0.0 };
                let q_only = |index: usize| if index == Q { y_wq } else { 0.0 };
                let w2 = -(h2[i][j] + k_only(i) * w[j] + k_only(j) * w[i] + h_ww * w[i] * w[j]) / h_w;
                let own = if (i, j) == (Q, Q) { both - q * (1.0 - q) } else { 0.0 };
                let total = own + q_only(i) * w[j] + q_only(j) * w[i] + y_ww * w[i] * w[j] + y_w * w2;
                hessian[i * 5 + j] += weight * total;
            }
        }
    }

    /// Given e and e0, `ln(y - e) = ln b - c ln x + k ln(e0 - y)` is linear in ln b, c and k: least squares over a
    /// few e and e0 outside the data, the best eight.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let (low, high) =
            ln_y.iter().fold((f64::INFINITY, 0.0f64), |(low, high), y| (low.min(y.exp()), high.max(y.exp())));
        let known = Some(self.ceiling).filter(|ceiling| *ceiling < 1.0 && *ceiling > high);
        let tops = match known {
            Some(ceiling) => vec![ceiling],
            None => vec![high * 1.01, high * 1.1, high * 1.5, high.max(1.0) * 1.001, self.ceiling.max(high * 1.2)],
        };
        let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
        for &e0 in &tops {
            for share in [0.01, 0.3, 0.6, 0.85, 0.97] {
                let e = share * low;
                let rows = |held: Option<f64>| {
                    inputs.iter().zip(ln_y).map(move |(x, ln_y)| {
                        let (above, below) = ((ln_y.exp() - e).ln(), (e0 - ln_y.exp()).ln());
                        // Weight: how far ln y moves with the left side.
                        let weight = (1.0 - e / ln_y.exp()).powi(2).max(1e-6);
                        match held {
                            None => ([1.0, -x.ln(self.axis), below], above, weight),
                            Some(k) => ([1.0, -x.ln(self.axis), 0.0], above - k * below, weight),
                        }
                    })
                };
                let mut at = |k: f64, (squares, solution): (f64, [f64; 3])| {
                    let q = e / (e0 - e);
                    found.push((squares, vec![solution[0], solution[1], k.ln(), q.ln(), e0.ln()]));
                };
                match least_squares(rows(None), 3) {
                    Some((squares, solution)) if solution[2] > 1e-2 => at(solution[2], (squares, solution)),
                    _ => {
                        for k in [0.1, 1.0] {
                            if let Some(solved) = least_squares(rows(Some(k)), 2) {
                                at(k, solved);
                            }
                        }
                    }
                }
            }
        }
        found.retain(|(squares, theta)| squares.is_finite() && theta.iter().all(|value| value.is_finite()));
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.into_iter().take(8).map(|(_, theta)| theta).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_root_solves_the_law(
            ln_b in -5.0..15.0f64, c in -0.2..1.0f64, ln_k in -3.0..3.0f64, ln_q in -8.0..3.0f64, ln_e0 in -1.0..0.5f64,
            x in 1.0..1e12f64,
        ) {
            let theta = [ln_b, c, ln_k, ln_q, ln_e0];
            let law = M4 { axis: Axis::C, ceiling: 1.0 };
            let y = law.ln_at(&theta, &Input::on(Axis::C, x)).exp();
            let (e0, k) = (ln_e0.exp(), ln_k.exp());
            let e = e0 * ln_q.exp() / (1.0 + ln_q.exp());
            let rounding = 1.0 + 1e-12;
            prop_assert!(e <= y * rounding && y <= e0 * rounding, "{e} {y} {e0}");
            let (above, below) = (y - e, e0 - y);
            // Differences of close numbers lose digits; where they keep enough, both sides agree.
            if above > 1e-6 * y && below > 1e-6 * y {
                let (left, right) = (above.ln() - k * below.ln(), ln_b - c * x.ln());
                prop_assert!((left - right).abs() < 1e-8 * (1.0 + k), "{left} {right}");
            }
        }

        #[test]
        fn the_root_is_exact_to_rounding(ln_k in -6.0..6.0f64, target in -300.0..300.0f64) {
            let k = ln_k.exp();
            let w = root(k, target);
            let slope = steepness(k, w);
            let off = w + (k - 1.0) * softplus(w) - target;
            let rounding = 4.0 * f64::EPSILON * (w.abs() + (k - 1.0).abs() * softplus(w) + target.abs());
            prop_assert!(off.abs() <= rounding + slope * f64::EPSILON * w.abs(), "k {k} to {target}: {w} off {off}");
        }
    }

    #[test]
    fn no_parameter_makes_it_fail() {
        let law = M4 { axis: Axis::D, ceiling: 0.999 };
        let extremes = [-1e3, -50.0, -1.0, 0.0, 1.0, 50.0, 1e3];
        let mut gradient = [0.0; 5];
        for b in extremes {
            for c in extremes {
                for k in extremes {
                    for q in extremes {
                        for e0 in [-50.0, 0.0, 50.0] {
                            let x = Input::on(Axis::D, 3e9);
                            let ln_y = law.log_value(&[b, c, k, q, e0], &x, &mut gradient);
                            let low = e0 - softplus(-q);
                            assert!(
                                ln_y >= low - 1e-9 * (1.0 + low.abs()) && ln_y <= e0 + 1e-9,
                                "{b} {c} {k} {q} {e0}: {ln_y}"
                            );
                            assert!(gradient.iter().all(|slope| !slope.is_nan()), "{b} {c} {k} {q} {e0}: {gradient:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn with_k_of_one_it_is_a_logistic_curve() {
        let law = M4 { axis: Axis::C, ceiling: 1.0 };
        for x in [1.0f64, 1e3, 1e9] {
            let odds = 100.0 * x.powf(-0.4);
            let expected = (0.1 + 0.9 * odds) / (1.0 + odds);
            let theta = [100.0f64.ln(), 0.4, 0.0, (1.0f64 / 8.0).ln(), 0.9f64.ln()];
            assert!((law.ln_at(&theta, &Input::on(Axis::C, x)) - expected.ln()).abs() < 1e-14);
        }
    }
}
