//! AICc and BIC of a fitted law, whatever was minimised; and what Huber's delta means for a set of residuals.
//!
//! Every loss is minus the logarithm of a density, `p(r) = exp(-w rho(r) / tau) / Z(tau / w)`, whose `tau` is fitted
//! too: of squares the normal with variance `tau / 2`, of absolute deviations Laplace's with scale `tau`, of Huber's
//! loss its least favourable density (Huber 1964, section 4), of the asymmetric one two halves of it. `Z(t)` is
//! `sqrt(pi t)`, `2 t`, and for Huber `h(t) = sqrt(t) (sqrt(2 pi) erf(k / sqrt 2) + 2 exp(-k^2 / 2) / k)`, `k = delta
//! / sqrt(t)`; the asymmetric one's is `(h(t) + h(t / over)) / 2`. Densities are of `ln y` in every space (that of
//! `g(y)` times `dg / d ln y`), so that objectives can be compared.
//!
//! Rows of one job are not independent: n is the number of jobs, and `ln L` is that of the rows times jobs per row, as
//! if a job had one row (of mean log density). tau is the same either way. Where every job has one row, nothing
//! changes.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::objective::{Loss, Objective};
use crate::solve::Problem;

/// Standard deviations of a normal in one median absolute deviation.
const MAD_TO_SD: f64 = 1.482_602_218_505_602;
/// Huber's k: 95 % efficient where residuals are normal (Huber 1981, section 4.2).
const HUBER_K: f64 = 1.345;

/// Information criteria: smaller is better, differences of two hardly count (Burnham and Anderson 2002, section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Criteria {
    /// `ln L` at its greatest over tau, times jobs per row.
    pub ln_likelihood: f64,
    /// Parameters counted: the law's free ones and tau.
    pub parameters: usize,
    /// `-2 ln L + 2 k + 2 k (k + 1) / (n - k - 1)`; `None` unless `n > k + 1`.
    pub aicc: Option<f64>,
    /// `-2 ln L + k ln n`.
    pub bic: f64,
}

/// Of a problem at `theta`. `None` of an exact fit, whose likelihood has no bound.
pub fn criteria(problem: &Problem<'_>, theta: &[f64]) -> Option<Criteria> {
    let (objective, sample) = (problem.objective, problem.sample);
    let (mut total, mut ln_slope) = (0.0, 0.0);
    let mut weights = Vec::new();
    for (row, &weight) in problem.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let (g, _, _) = objective.space.at(problem.law.ln_at(theta, &sample.inputs[row]));
        let (target, slope, _) = objective.space.at(sample.ln_y[row]);
        total += weight * objective.loss.at(g - target).0;
        ln_slope += slope.abs().ln();
        weights.push(weight);
    }
    let count = weights.len() as f64;
    if !total.is_finite() || total / count <= 1e-28 {
        return None;
    }
    let minus = |ln_tau: f64| {
        let norms: f64 = weights.iter().map(|weight| ln_norm(objective.loss, ln_tau - weight.ln())).sum();
        total * (-ln_tau).exp() + norms
    };
    // In 1 / tau this is convex, so it has one minimum; tau is about the mean loss, and delta^2 or more apart from it
    // only where delta is far from the residuals.
    let ln_mean = (total / count).ln();
    let (low, high) = match objective.loss {
        Loss::Squares | Loss::Absolute => (ln_mean - 3.0, ln_mean + 3.0),
        Loss::Huber(delta) | Loss::Asymmetric { delta, .. } => {
            (ln_mean.min(2.0 * delta.ln()) - 8.0, ln_mean.max(2.0 * delta.ln()) + 8.0)
        }
    };
    let jobs = jobs(problem).map_or(count, |jobs| jobs as f64);
    let ln_likelihood = (ln_slope - minus(golden(low, high, &minus))) * jobs / count;
    let free = (0..problem.len()).filter(|&index| !problem.is_frozen(index)).count();
    let k = free as f64 + 1.0;
    Some(Criteria {
        ln_likelihood,
        parameters: free + 1,
        aicc: (jobs > k + 1.0).then(|| -2.0 * ln_likelihood + 2.0 * k + 2.0 * k * (k + 1.0) / (jobs - k - 1.0)),
        bic: -2.0 * ln_likelihood + k * jobs.ln(),
    })
}

/// Distinct jobs of the rows that weigh something; `None` where rows have none.
fn jobs(problem: &Problem<'_>) -> Option<usize> {
    let jobs = &problem.sample.jobs;
    let weighty = jobs.iter().zip(problem.weights).filter(|(_, weight)| **weight > 0.0).map(|(job, _)| job);
    (jobs.len() == problem.weights.len()).then(|| weighty.collect::<BTreeSet<_>>().len())
}

/// ln Z at tau / w.
fn ln_norm(loss: Loss, ln_t: f64) -> f64 {
    let huber = |delta: f64, ln_t: f64| {
        let k = delta / (0.5 * ln_t).exp();
        0.5 * ln_t
            + (std::f64::consts::TAU.sqrt() * erf(k / std::f64::consts::SQRT_2) + 2.0 * (-0.5 * k * k).exp() / k).ln()
    };
    match loss {
        Loss::Squares => 0.5 * (std::f64::consts::PI.ln() + ln_t),
        Loss::Absolute => std::f64::consts::LN_2 + ln_t,
        Loss::Huber(delta) => huber(delta, ln_t),
        Loss::Asymmetric { delta, over } => {
            let (under, over) = (huber(delta, ln_t), huber(delta, ln_t - over.ln()));
            under.max(over) + (1.0 + (-(under - over).abs()).exp()).ln() - std::f64::consts::LN_2
        }
    }
}

/// `erf x`, x not negative: `2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2 n + 1) / (2 n + 1)!!`, all terms positive
/// (Abramowitz and Stegun 1964, 7.1.6).
fn erf(x: f64) -> f64 {
    if x > 6.0 {
        return 1.0;
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term > 1e-17 * sum {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// Where a function of one valley is least.
pub(crate) fn golden(mut low: f64, mut high: f64, value: &impl Fn(f64) -> f64) -> f64 {
    let ratio = 0.5 * (5f64.sqrt() - 1.0);
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_a, mut at_b) = (value(a), value(b));
    while high - low > 1e-9 * (1.0 + low.abs().max(high.abs())) {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - ratio * (high - low);
            at_a = value(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + ratio * (high - low);
            at_b = value(b);
        }
    }
    0.5 * (low + high)
}

/// Residuals of a problem at `theta`, in the space of its objective.
pub fn residuals(problem: &Problem<'_>, theta: &[f64]) -> Vec<f64> {
    let (Objective { space, .. }, sample) = (problem.objective, problem.sample);
    let residual =
        |row: usize| space.at(problem.law.ln_at(theta, &sample.inputs[row])).0 - space.at(sample.ln_y[row]).0;
    (0..sample.len()).map(residual).collect()
}

/// Huber's delta for these residuals: 1.345 median absolute deviations, each 1.4826 times itself so that it is a
/// normal's standard deviation. `None` of no residuals, or if more than half of them are equal.
pub fn auto_delta(residuals: &[f64]) -> Option<f64> {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        crate::percentile(&values, 0.5)
    };
    let middle = median(residuals.to_vec())?;
    let deviation = median(residuals.iter().map(|r| (r - middle).abs()).collect())?;
    let delta = HUBER_K * MAD_TO_SD * deviation;
    (delta.is_finite() && delta > 1e-14).then_some(delta)
}

/// Share of residuals within delta, where Huber's loss is quadratic: near 0 it is least absolute deviations in all but
/// name, near 1 least squares. (Hoffmann's 1e-3 on 240 losses: few.) `None` of no residuals.
pub fn quadratic_share(residuals: &[f64], delta: f64) -> Option<f64> {
    let within = residuals.iter().filter(|r| r.abs() <= delta).count();
    (!residuals.is_empty()).then(|| within as f64 / residuals.len() as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Sample;
    use crate::law::{Axis, Input, Law, LawName};

    #[test]
    fn erf_is_the_error_function() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (5.0, 0.999_999_999_998_462_5),
            (9.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-14, "{x}: {}", erf(x));
        }
    }

    /// Trapezoids over a wide range.
    fn integral(loss: Loss, tau: f64, weight: f64) -> f64 {
        let (count, step) = (400_000, 1e-3);
        (-count..count).map(|i| step * (-weight * loss.at(f64::from(i) * step).0 / tau).exp()).sum()
    }

    #[test]
    fn every_density_integrates_to_one() {
        for loss in [
            Loss::Squares,
            Loss::Absolute,
            Loss::Huber(0.3),
            Loss::Huber(3.0),
            Loss::Asymmetric { delta: 0.5, over: 10.0 },
        ] {
            for (tau, weight) in [(0.5, 1.0), (2.0, 4.0)] {
                let expected = ln_norm(loss, f64::ln(tau / weight)).exp();
                let found = integral(loss, tau, weight);
                assert!((found / expected - 1.0).abs() < 1e-6, "{loss:?} {tau} {weight}: {found} {expected}");
            }
        }
    }

    fn power() -> Box<dyn Law> {
        "power".parse::<LawName>().unwrap().law(1.0)
    }

    fn line(residuals: &[f64]) -> Sample {
        let inputs = (0..residuals.len()).map(|i| Input::on(Axis::C, (i as f64).exp2())).collect();
        Sample {
            inputs,
            ln_y: residuals.to_vec(),
            weights: vec![1.0; residuals.len()],
            jobs: (0..residuals.len()).collect(),
        }
    }

    #[test]
    fn criteria_of_squares_and_of_absolute_deviations_are_the_closed_forms() {
        let y = [0.1, -0.2, 0.05, 0.3, -0.15, 0.02, 0.07];
        let sample = line(&y);
        let n = 7.0;
        let squares = criteria(&Problem::new(power().as_ref(), &sample, Objective::LS_LOG), &[0.0, 0.0]).unwrap();
        let variance = y.iter().map(|r| r * r).sum::<f64>() / n;
        let ln_l = -0.5 * n * ((std::f64::consts::TAU * variance).ln() + 1.0);
        assert!((squares.ln_likelihood - ln_l).abs() < 1e-9);
        assert!((squares.aicc.unwrap() - (-2.0 * ln_l + 6.0 + 24.0 / 3.0)).abs() < 1e-8);
        assert!((squares.bic - (-2.0 * ln_l + 3.0 * n.ln())).abs() < 1e-8);
        let absolute = criteria(&Problem::new(power().as_ref(), &sample, Objective::LAD), &[0.0, 0.0]).unwrap();
        let scale = y.iter().map(|r: &f64| r.abs()).sum::<f64>() / n;
        assert!((absolute.ln_likelihood + n * ((2.0 * scale).ln() + 1.0)).abs() < 1e-9);
        // A huge delta is least squares, a tiny one least absolute deviations.
        let huber =
            |delta| criteria(&Problem::new(power().as_ref(), &sample, Objective::huber(delta)), &[0.0, 0.0]).unwrap();
        assert!((huber(1e3).ln_likelihood - ln_l).abs() < 1e-6);
        assert!((huber(1e-6).ln_likelihood - absolute.ln_likelihood).abs() < 1e-4);
        // In linear space the density carries the slope: sum ln y.
        let linear = criteria(&Problem::new(power().as_ref(), &sample, Objective::LS), &[0.0, 0.0]).unwrap();
        let rss = y.iter().map(|r| (r.exp() - 1.0).powi(2)).sum::<f64>();
        let ln_l = -0.5 * n * ((std::f64::consts::TAU * rss / n).ln() + 1.0) + y.iter().sum::<f64>();
        assert!((linear.ln_likelihood - ln_l).abs() < 1e-9);
        assert_eq!(criteria(&Problem::new(power().as_ref(), &line(&[0.0; 5]), Objective::LS_LOG), &[0.0, 0.0]), None);
        let few = line(&[0.1, 0.2, 0.4]);
        assert_eq!(criteria(&Problem::new(power().as_ref(), &few, Objective::LS_LOG), &[0.0, 0.0]).unwrap().aicc, None);
    }

    #[test]
    fn rows_of_one_job_count_as_one() {
        let y = [0.1, -0.2, 0.05, 0.3, -0.15, 0.02, 0.07];
        let once = line(&y);
        let mut thrice = line(&[y, y, y].concat());
        thrice.inputs = [once.inputs.as_slice(); 3].concat();
        thrice.jobs = [once.jobs.as_slice(); 3].concat();
        for objective in [Objective::LS_LOG, Objective::LAD, Objective::huber(0.1)] {
            let of =
                |sample: &Sample| criteria(&Problem::new(power().as_ref(), sample, objective), &[0.0, 0.0]).unwrap();
            let (one, three) = (of(&once), of(&thrice));
            assert!((one.ln_likelihood - three.ln_likelihood).abs() < 1e-7, "{one:?} {three:?}");
            assert!((one.aicc.unwrap() - three.aicc.unwrap()).abs() < 1e-7 && (one.bic - three.bic).abs() < 1e-7);
        }
    }

    #[test]
    fn delta_of_normal_residuals_is_about_their_own_spread() {
        // Quantiles of the logistic, near enough to a bell: its MAD is ln 3.
        let residuals: Vec<f64> = (1..1000).map(|i| f64::from(i) / 1000.0).map(|p| (p / (1.0 - p)).ln()).collect();
        let delta = auto_delta(&residuals).unwrap();
        assert!((delta - HUBER_K * MAD_TO_SD * 3f64.ln()).abs() < 1e-2);
        assert!((quadratic_share(&residuals, 3f64.ln()).unwrap() - 0.5).abs() < 0.01);
        assert_eq!((auto_delta(&[]), auto_delta(&[0.1; 9]), quadratic_share(&[], 1.0)), (None, None, None));
    }

    proptest! {
        #[test]
        fn delta_grows_with_the_residuals(values in proptest::collection::vec(-1.0..1.0f64, 3..20), unit in 0.1..10.0f64) {
            let scaled: Vec<f64> = values.iter().map(|r| r * unit).collect();
            match (auto_delta(&values), auto_delta(&scaled)) {
                (Some(a), Some(b)) => prop_assert!((b / a - unit).abs() < 1e-9 * unit),
                (a, b) => prop_assert_eq!(a.is_some(), b.is_some()),
            }
        }
    }
}
