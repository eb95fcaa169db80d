//! The coordinates that solvers move in, and the objective with its derivatives there.
//!
//! In `A/N^alpha` ln A and alpha are all but the same parameter where ln N is 20 +- 2 (correlation 0.999): the frame's
//! level is `ln A - alpha * mean(ln N)`, the term at the middle of the data. Parameters of laws that are no sums of
//! exponentials stay as they are.

use super::Problem;
use super::bulk::Bulk;
use crate::law::PARAMETERS_MAX;
use crate::objective::Loss;

/// One number a parameter.
pub(super) type Vector = [f64; PARAMETERS_MAX];
/// Row-major, as many numbers a row as the law has parameters.
pub(super) type Matrix = [f64; PARAMETERS_MAX * PARAMETERS_MAX];

/// A problem in its coordinates `phi`: `phi[level] = theta[level] + sum_slope theta[slope] * mean`.
pub(super) struct Frame<'a> {
    pub(super) problem: &'a Problem<'a>,
    /// Parameters.
    pub(super) k: usize,
    /// `(level, slope, mean of what multiplies the slope)`.
    shifts: [(usize, usize, f64); PARAMETERS_MAX],
    shifts_used: usize,
    /// `g(y_i)`.
    targets: Vec<f64>,
    bulk: Option<Bulk>,
}

/// The objective at one place.
#[derive(Clone)]
pub(super) struct Local {
    /// Q; infinite where it has no value.
    pub(super) value: f64,
    /// By phi; zero for held parameters.
    pub(super) gradient: Vector,
    /// Second derivatives by phi.
    pub(super) newton: Matrix,
    /// `sum_i w_i rho'(r_i)/r_i v_i v_i'`, v_i the derivatives of the residual: the matrix of reweighted least squares.
    pub(super) majorant: Matrix,
    /// `sum_i w_i rho'(r_i)/r_i`.
    pub(super) stiffness: f64,
    /// What rounding may do to `value`.
    pub(super) rounding: f64,
}

impl Local {
    fn nothing() -> Local {
        Local {
            value: 0.0,
            gradient: [0.0; PARAMETERS_MAX],
            newton: [0.0; PARAMETERS_MAX * PARAMETERS_MAX],
            majorant: [0.0; PARAMETERS_MAX * PARAMETERS_MAX],
            stiffness: 0.0,
            rounding: 0.0,
        }
    }
}

impl<'a> Frame<'a> {
    pub(super) fn new(problem: &'a Problem<'a>) -> Frame<'a> {
        let sample = problem.sample;
        let mut frame = Frame {
            problem,
            k: problem.len(),
            shifts: [(0, 0, 0.0); PARAMETERS_MAX],
            shifts_used: 0,
            targets: sample.ln_y.iter().map(|&ln_y| problem.objective.space.at(ln_y).0).collect(),
            bulk: None,
        };
        frame.centre();
        frame.bulk = Bulk::new(problem, |level, slope| {
            frame.shifts().iter().filter(|shift| (shift.0, shift.1) == (level, slope)).map(|shift| shift.2).sum()
        });
        frame
    }

    fn centre(&mut self) {
        let Problem { law, sample, weights, .. } = *self.problem;
        let Some(first) = sample.inputs.first().and_then(|x| law.sum(x)) else { return };
        let mut means = [[0.0; 2]; crate::law::terms::TERMS_MAX];
        let mut total = 0.0;
        for (x, &weight) in sample.inputs.iter().zip(weights) {
            let Some(sum) = law.sum(x) else { return };
            total += weight;
            for (mean, term) in means.iter_mut().zip(sum.terms()) {
                for (mean, (_, x)) in mean.iter_mut().zip(term.slopes()) {
                    *mean += weight * x;
                }
            }
        }
        for (term, mean) in first.terms().iter().zip(means) {
            let Some(level) = term.level() else { continue };
            let shared = first.terms().iter().filter(|other| other.level() == Some(level)).count() > 1;
            if shared || self.problem.is_frozen(level) {
                continue;
            }
            for ((slope, _), mean) in term.slopes().iter().zip(mean) {
                let mean = mean / total;
                if !self.problem.is_frozen(*slope) && mean.is_finite() && self.shifts_used < PARAMETERS_MAX {
                    self.shifts[self.shifts_used] = (level, *slope, mean);
                    self.shifts_used += 1;
                }
            }
        }
    }

    fn shifts(&self) -> &[(usize, usize, f64)] {
        &self.shifts[..self.shifts_used]
    }

    /// Frame coordinates of `theta`.
    pub(super) fn enter(&self, theta: &[f64]) -> Vector {
        let mut phi = [0.0; PARAMETERS_MAX];
        phi[..self.k].copy_from_slice(theta);
        self.problem.hold(&mut phi[..self.k]);
        for &(level, slope, mean) in self.shifts() {
            phi[level] += phi[slope] * mean;
        }
        phi
    }

    /// Internal parameters of `phi`.
    pub(super) fn leave(&self, phi: &Vector) -> Vector {
        let mut theta = *phi;
        for &(level, slope, mean) in self.shifts() {
            theta[level] -= theta[slope] * mean;
        }
        theta
    }

    /// Residual of a row and its derivatives by phi.
    pub(super) fn row(&self, theta: &Vector, row: usize, slopes: &mut Vector) -> f64 {
        let x = &self.problem.sample.inputs[row];
        let ln_value = self.problem.law.log_value(&theta[..self.k], x, &mut slopes[..self.k]);
        let (g, g1, _) = self.problem.objective.space.at(ln_value);
        for slope in &mut slopes[..self.k] {
            *slope *= g1;
        }
        self.turn(slopes);
        g - self.targets[row]
    }

    /// Derivatives by theta into derivatives by phi.
    pub(super) fn turn(&self, gradient: &mut Vector) {
        for &(level, slope, mean) in self.shifts() {
            gradient[slope] -= mean * gradient[level];
        }
        for i in (0..self.k).filter(|&i| self.problem.is_frozen(i)) {
            gradient[i] = 0.0;
        }
    }

    fn turn_matrix(&self, matrix: &mut Matrix) {
        let k = self.k;
        for &(level, slope, mean) in self.shifts() {
            for i in 0..k {
                matrix[i * k + slope] -= mean * matrix[i * k + level];
            }
            for j in 0..k {
                matrix[slope * k + j] -= mean * matrix[level * k + j];
            }
        }
    }

    /// A covariance of phi as one of theta.
    pub(super) fn leave_matrix(&self, covariance: &[f64]) -> Vec<f64> {
        let k = self.k;
        let mut turned = covariance.to_vec();
        for &(level, slope, mean) in self.shifts() {
            for j in 0..k {
                turned[level * k + j] -= mean * turned[slope * k + j];
            }
            for i in 0..k {
                turned[i * k + level] -= mean * turned[i * k + slope];
            }
        }
        turned
    }

    /// What Q would be if residuals were rounding and nothing else.
    pub(super) fn floor(&self) -> f64 {
        let Problem { weights, objective, sample, .. } = *self.problem;
        let rounding =
            |(target, ln_y): (&f64, &f64)| 16.0 * f64::EPSILON * (target.abs() + objective.space.at(*ln_y).1.abs());
        let sizes = self.targets.iter().zip(&sample.ln_y).map(rounding);
        sizes.zip(weights).map(|(size, weight)| weight * objective.loss.at(size).0).sum()
    }

    /// Q and its derivatives at `phi`, with `loss` in place of the problem's.
    pub(super) fn at(&self, phi: &Vector, loss: Loss) -> Local {
        if let Some(bulk) = &self.bulk {
            let mut local = Local::nothing();
            bulk.add(self.problem, phi, loss, &mut local);
            self.finish(phi, &mut local);
            if local.value.is_finite() {
                return local;
            }
            // Out of the range of exp, where logarithms may still tell.
        }
        let mut local = Local::nothing();
        self.add_rows(phi, loss, &mut local);
        self.turn(&mut local.gradient);
        self.turn_matrix(&mut local.newton);
        self.turn_matrix(&mut local.majorant);
        self.finish(phi, &mut local);
        local
    }

    fn add_rows(&self, phi: &Vector, loss: Loss, local: &mut Local) {
        let k = self.k;
        let Problem { law, sample, weights, objective, .. } = *self.problem;
        let theta = self.leave(phi);
        let theta = &theta[..k];
        let mut slopes: Vector = [0.0; PARAMETERS_MAX];
        for (row, &weight) in weights.iter().enumerate() {
            if weight == 0.0 {
                continue;
            }
            let ln_value = law.log_value(theta, &sample.inputs[row], &mut slopes[..k]);
            let (g, g1, g2) = objective.space.at(ln_value);
            let residual = g - self.targets[row];
            let (rho, rho1, rho2) = loss.at(residual);
            let pressure = if residual == 0.0 { rho2 } else { rho1 / residual };
            local.value += weight * rho;
            local.stiffness += weight * pressure;
            local.rounding += weight * rho1.abs() * (g.abs() + g1.abs());
            let (first, outer, inner) =
                (weight * rho1 * g1, weight * (rho2 * g1 * g1 + rho1 * g2), weight * pressure * g1 * g1);
            for i in 0..k {
                local.gradient[i] += first * slopes[i];
                for j in 0..=i {
                    let product = slopes[i] * slopes[j];
                    local.newton[i * k + j] += outer * product;
                    local.majorant[i * k + j] += inner * product;
                }
            }
            if first != 0.0 {
                law.add_curvature(theta, &sample.inputs[row], first, &mut local.newton[..k * k]);
            }
        }
        // What was added below the diagonal only; curvature has been added on both sides.
        for i in 0..k {
            for j in 0..i {
                let (below, above) = (i * k + j, j * k + i);
                local.newton[above] = local.newton[below];
                local.majorant[above] = local.majorant[below];
            }
        }
    }

    /// What is said once, not a row: the pull, held parameters, and whether there is a value at all.
    fn finish(&self, phi: &Vector, local: &mut Local) {
        let k = self.k;
        local.rounding *= 4.0 * f64::EPSILON;
        if let Some(pull) = self.problem.pull {
            let theta = self.leave(phi);
            let mut slopes: Vector = [0.0; PARAMETERS_MAX];
            let off = pull.quantity.at(&theta[..k], &mut slopes[..k]) - pull.target;
            self.turn(&mut slopes);
            local.value += 0.5 * pull.stiffness * off * off;
            local.rounding += 4.0 * f64::EPSILON * pull.stiffness * off.abs() * pull.target.abs();
            for i in 0..k {
                local.gradient[i] += pull.stiffness * off * slopes[i];
                for j in 0..k {
                    local.newton[i * k + j] += pull.stiffness * slopes[i] * slopes[j];
                    local.majorant[i * k + j] += pull.stiffness * slopes[i] * slopes[j];
                }
            }
        }
        for i in (0..k).filter(|&i| self.problem.is_frozen(i)) {
            local.gradient[i] = 0.0;
            for j in 0..k {
                for at in [i * k + j, j * k + i] {
                    local.newton[at] = 0.0;
                    local.majorant[at] = 0.0;
                }
            }
        }
        let sound = local.value.is_finite() && local.gradient[..k].iter().all(|g| g.is_finite());
        if !sound {
            local.value = f64::INFINITY;
        }
    }
}
