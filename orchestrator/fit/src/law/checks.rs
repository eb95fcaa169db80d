//! What every law must pass.

use super::*;

/// Gradient and curvature at `theta` against central differences.
pub(crate) fn derivatives_agree(law: &dyn Law, theta: &[f64], x: &Input) -> Result<(), String> {
    let k = theta.len();
    let mut gradient = vec![0.0; k];
    let here = law.log_value(theta, x, &mut gradient);
    let mut hessian = vec![0.0; k * k];
    law.add_curvature(theta, x, 1.0, &mut hessian);
    let mut at = theta.to_vec();
    let (mut up, mut down) = (vec![0.0; k], vec![0.0; k]);
    for i in 0..k {
        let step = 1e-5 * theta[i].abs().max(1.0);
        at[i] = theta[i] + step;
        let above = law.log_value(&at, x, &mut up);
        at[i] = theta[i] - step;
        let below = law.log_value(&at, x, &mut down);
        at[i] = theta[i];
        let slope = (above - below) / (2.0 * step);
        let size = 1.0 + gradient.iter().fold(0.0f64, |most, g| most.max(g.abs())) + here.abs();
        if (slope - gradient[i]).abs() > 2e-6 * size {
            return Err(format!("{:?}: d ln y / d theta[{i}] is {}, differences say {slope}", law.name(), gradient[i]));
        }
        for j in 0..k {
            let slope = (up[j] - down[j]) / (2.0 * step);
            let size = 1.0 + hessian.iter().fold(0.0f64, |most, h| most.max(h.abs()));
            if (slope - hessian[i * k + j]).abs() > 2e-5 * size {
                return Err(format!(
                    "{:?}: second derivative [{i}][{j}] is {}, differences say {slope}",
                    law.name(),
                    hessian[i * k + j]
                ));
            }
        }
    }
    Ok(())
}
