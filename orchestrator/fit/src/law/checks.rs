//! What every law must pass.

use super::*;

/// Values, gradients: a law's differences over `2 h` along `theta[i]`.
struct Differences {
    value: f64,
    gradient: Vec<f64>,
}

fn central(law: &dyn Law, theta: &[f64], x: &Input, i: usize, h: f64) -> Differences {
    let side = |by: f64| {
        let mut at = theta.to_vec();
        at[i] += by;
        let mut gradient = vec![0.0; theta.len()];
        (law.log_value(&at, x, &mut gradient), gradient)
    };
    let ((above, up), (below, down)) = (side(h), side(-h));
    let slope = |up: f64, down: f64| (up - down) / (2.0 * h);
    Differences {
        value: slope(above, below),
        gradient: up.iter().zip(down).map(|(&up, down)| slope(up, down)).collect(),
    }
}

/// Whether `derivative` is the limit of central differences over h (`wide`) and h/2 (`narrow`): Richardson's
/// extrapolation within `rounding` and a tenth of what halving the step changed, the error that h^2 does not explain.
fn is_limit(derivative: f64, wide: f64, narrow: f64, rounding: f64) -> bool {
    let limit = (4.0 * narrow - wide) / 3.0;
    (derivative - limit).abs() <= rounding + 0.1 * (narrow - wide).abs()
}

/// Gradient and curvature at `theta` against central differences.
pub(crate) fn derivatives_agree(law: &dyn Law, theta: &[f64], x: &Input) -> Result<(), String> {
    let k = theta.len();
    let mut gradient = vec![0.0; k];
    let here = law.log_value(theta, x, &mut gradient);
    let mut hessian = vec![0.0; k * k];
    law.add_curvature(theta, x, 1.0, &mut hessian);
    let largest = |of: &[f64]| of.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let gradient_rounding = 2e-6 * (1.0 + largest(&gradient) + here.abs());
    let hessian_rounding = 2e-5 * (1.0 + largest(&hessian));
    for i in 0..k {
        let h = 1e-5 * theta[i].abs().max(1.0);
        let (wide, narrow) = (central(law, theta, x, i, h), central(law, theta, x, i, h / 2.0));
        if !is_limit(gradient[i], wide.value, narrow.value, gradient_rounding) {
            return Err(format!(
                "{:?}: d ln y / d theta[{i}] is {}, differences say {} and {}",
                law.name(),
                gradient[i],
                wide.value,
                narrow.value
            ));
        }
        for j in 0..k {
            if !is_limit(hessian[i * k + j], wide.gradient[j], narrow.gradient[j], hessian_rounding) {
                return Err(format!(
                    "{:?}: second derivative [{i}][{j}] is {}, differences say {} and {}",
                    law.name(),
                    hessian[i * k + j],
                    wide.gradient[j],
                    narrow.gradient[j]
                ));
            }
        }
    }
    Ok(())
}
