//! Normal and Student's t: what intervals and thresholds are read from.

/// Degrees of freedom from which t is taken as normal.
const NORMAL_FROM: usize = 10_000;

/// Distribution function of the standard normal, by the series `1/2 + phi(x) (x + x^3/3 + x^5/15 + ...)` (Abramowitz
/// and Stegun 1964, 26.2.11). Absolute error below 1e-15.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut order) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        order += 2.0;
        term *= x * x / order;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

/// Quantile of the standard normal; within ±9.
pub(crate) fn normal_quantile(share: f64) -> f64 {
    invert(normal_cdf, share, -9.0, 9.0)
}

/// Probability that |t| is at most `t`, t >= 0, by the finite sums for whole degrees of freedom (Abramowitz and Stegun
/// 1964, 26.7.3 and 26.7.4).
pub(crate) fn t_within(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    let (mut term, mut sum) = if odd { (cos, cos) } else { (1.0, 1.0) };
    let mut power = usize::from(odd);
    while power + 2 + 2 <= degrees {
        term *= (power + 1) as f64 / (power + 2) as f64 * cos * cos;
        sum += term;
        power += 2;
    }
    match degrees {
        1 => angle * std::f64::consts::FRAC_2_PI,
        _ if odd => (angle + sin * sum) * std::f64::consts::FRAC_2_PI,
        _ => sin * sum,
    }
}

/// The t that |t| exceeds with probability `alpha`, for 1 or more degrees of freedom (0 counts as 1).
pub(crate) fn t_two_sided(alpha: f64, degrees: usize) -> f64 {
    if degrees >= NORMAL_FROM {
        return -normal_quantile(0.5 * alpha);
    }
    let degrees = degrees.max(1);
    let mut high = 10.0;
    while t_within(high, degrees) < 1.0 - alpha && high < 1e12 {
        high *= 10.0;
    }
    invert(|t| t_within(t, degrees), 1.0 - alpha, 0.0, high)
}

/// Where a growing function takes `value`, by bisection down to the last bit.
fn invert(function: impl Fn(f64) -> f64, value: f64, mut low: f64, mut high: f64) -> f64 {
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if function(middle) < value {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= 1e-15 * (1.0 + middle.abs()) {
            return 0.5 * (low + high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (share, z) in [(0.975, 1.959_963_984_540_054), (0.5, 0.0), (0.001, -3.090_232_306_167_813_5)] {
            assert!((normal_quantile(share) - z).abs() < 1e-12, "{share}");
        }
        // Two-sided 5 %, from the tables of Student's t.
        for (degrees, t) in [
            (1, 12.706_204_736_432_095),
            (2, 4.302_652_729_911_275),
            (3, 3.182_446_305_284_263),
            (4, 2.776_445_105_197_799),
            (5, 2.570_581_835_636_314),
            (22, 2.073_873_067_904_015),
            (27, 2.051_830_516_480_283),
            (100, 1.983_971_518_523_552),
        ] {
            assert!((t_two_sided(0.05, degrees) - t).abs() < 1e-9, "{degrees}: {}", t_two_sided(0.05, degrees));
        }
        assert!((t_two_sided(0.05, 9_999) - t_two_sided(0.05, 10_000)).abs() < 1e-3);
        assert!(normal_cdf(-40.0).abs() < 1e-300 && (normal_cdf(40.0) - 1.0).abs() < 1e-15);
    }
}
