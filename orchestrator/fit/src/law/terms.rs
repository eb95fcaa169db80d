//! Sums of exponentials of affine functions of theta, `ln sum_k exp(t_k)`: what most laws are.

/// One term, `t = theta[level] + sum_i theta[slope_i] * x_i`.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// Index of the logarithm of the coefficient.
    pub level: usize,
    /// Index of the exponent and what it multiplies (minus the logarithm of the axis, for a falling power).
    pub slopes: [(usize, f64); 2],
    /// How many of `slopes` count.
    pub used: usize,
}

impl Term {
    /// A constant.
    pub fn constant(level: usize) -> Term {
        Term { level, slopes: [(0, 0.0); 2], used: 0 }
    }

    /// `exp(theta[level] + theta[slope] * x)`.
    pub fn power(level: usize, slope: usize, x: f64) -> Term {
        Term { level, slopes: [(slope, x), (0, 0.0)], used: 1 }
    }

    /// `exp(theta[level] + theta[slope] * x + theta[other] * z)`.
    pub fn product(level: usize, (slope, x): (usize, f64), (other, z): (usize, f64)) -> Term {
        Term { level, slopes: [(slope, x), (other, z)], used: 2 }
    }

    fn at(&self, theta: &[f64]) -> f64 {
        self.slopes[..self.used].iter().fold(theta[self.level], |sum, (slope, x)| sum + theta[*slope] * x)
    }
}

/// `ln sum_k exp(t_k)` and its gradient (overwritten).
pub fn log_sum(terms: &[Term], theta: &[f64], gradient: &mut [f64]) -> f64 {
    let mut exponents = [0.0; 4];
    let exponents = &mut exponents[..terms.len()];
    let mut most = f64::NEG_INFINITY;
    for (exponent, term) in exponents.iter_mut().zip(terms) {
        *exponent = term.at(theta);
        most = most.max(*exponent);
    }
    let mut sum = 0.0;
    for exponent in exponents.iter_mut() {
        *exponent = (*exponent - most).exp();
        sum += *exponent;
    }
    gradient.fill(0.0);
    for (exponent, term) in exponents.iter().zip(terms) {
        let share = exponent / sum;
        gradient[term.level] += share;
        for (slope, x) in &term.slopes[..term.used] {
            gradient[*slope] += share * x;
        }
    }
    most + sum.ln()
}

/// Adds `weight * (sum_k p_k v_k v_k' - g g')`, the second derivatives of [`log_sum`]: p_k the term's share, v_k the
/// derivatives of its exponent, g the gradient.
pub fn add_curvature(terms: &[Term], theta: &[f64], weight: f64, hessian: &mut [f64]) {
    let k = theta.len();
    let mut gradient = [0.0; super::PARAMETERS_MAX];
    let total = log_sum(terms, theta, &mut gradient[..k]);
    for term in terms {
        let share = weight * (term.at(theta) - total).exp();
        let mut parts = [(term.level, 1.0), term.slopes[0], term.slopes[1]];
        let parts = &mut parts[..=term.used];
        for (i, a) in parts.iter() {
            for (j, b) in parts.iter() {
                hessian[i * k + j] += share * a * b;
            }
        }
    }
    for i in 0..k {
        for j in 0..k {
            hessian[i * k + j] -= weight * gradient[i] * gradient[j];
        }
    }
}
