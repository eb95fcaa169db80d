//! Sums of exponentials of affine functions of theta, `ln sum_k exp(t_k)`: what most laws are.

/// One term, `t = offset + sum_i theta[index_i] * x_i`.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    offset: f64,
    parts: [(usize, f64); 3],
    used: usize,
}

impl Term {
    /// `exp(0)`: a one that no parameter moves.
    pub fn one() -> Term {
        Term { offset: 0.0, parts: [(0, 0.0); 3], used: 0 }
    }

    /// `exp(theta[level])`.
    pub fn constant(level: usize) -> Term {
        Term { offset: 0.0, parts: [(level, 1.0), (0, 0.0), (0, 0.0)], used: 1 }
    }

    /// `exp(theta[level] + theta[slope] * x)`; x is minus the logarithm of the axis, for a falling power.
    pub fn power(level: usize, slope: usize, x: f64) -> Term {
        Term { offset: 0.0, parts: [(level, 1.0), (slope, x), (0, 0.0)], used: 2 }
    }

    /// `exp(theta[level] + theta[slope] * x + theta[other] * z)`.
    pub fn product(level: usize, slope: (usize, f64), other: (usize, f64)) -> Term {
        Term { offset: 0.0, parts: [(level, 1.0), slope, other], used: 3 }
    }

    /// The term times `exp(offset)`.
    #[must_use]
    pub fn times_exp(self, offset: f64) -> Term {
        Term { offset: self.offset + offset, ..self }
    }

    /// The logarithm of what it is multiplied by.
    pub fn offset(&self) -> f64 {
        self.offset
    }

    /// Index of its level: the parameter that multiplies the whole term; `None` where there is none.
    pub fn level(&self) -> Option<usize> {
        self.parts().first().map(|(index, _)| *index)
    }

    /// Indices of the other parameters and what each multiplies.
    pub fn slopes(&self) -> &[(usize, f64)] {
        self.parts().get(1..).unwrap_or_default()
    }

    fn parts(&self) -> &[(usize, f64)] {
        &self.parts[..self.used]
    }

    fn at(&self, theta: &[f64]) -> f64 {
        self.parts().iter().fold(self.offset, |sum, (index, x)| sum + theta[*index] * x)
    }
}

/// At most so many terms make a sum that solvers evaluate in bulk.
pub const TERMS_MAX: usize = 4;

/// A law at one place as `ln sum_k exp(t_k)`, of one to [`TERMS_MAX`] terms.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    terms: [Term; TERMS_MAX],
    used: usize,
}

impl Sum {
    /// Of the first [`TERMS_MAX`] of `terms`.
    pub fn of(terms: &[Term]) -> Sum {
        let mut sum = Sum { terms: [Term::constant(0); TERMS_MAX], used: terms.len().min(TERMS_MAX) };
        sum.terms[..sum.used].copy_from_slice(&terms[..sum.used]);
        sum
    }

    /// Its terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms[..self.used]
    }
}

/// `ln sum_k exp(t_k)` and its gradient (overwritten).
pub fn log_sum(terms: &[Term], theta: &[f64], gradient: &mut [f64]) -> f64 {
    let mut exponents = [0.0; TERMS_MAX];
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
        for (index, x) in term.parts() {
            gradient[*index] += share * x;
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
        for (i, a) in term.parts() {
            for (j, b) in term.parts() {
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
