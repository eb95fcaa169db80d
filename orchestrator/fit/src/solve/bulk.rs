//! Laws that are sums of exponentials, evaluated over all rows at once: no call a row, no centring afterwards, and
//! nothing allocated.
//!
//! With `t_j = offset_j + phi[level_j] + sum_s phi[s] x_js`, `y = sum_j exp(t_j)`, `p_j = exp(t_j) / y` and `u_j` the
//! derivatives of
//! `t_j`: `d ln y = v = sum_j p_j u_j`, and the second derivatives of ln y are `sum_j p_j u_j u_j' - v v'`. Rows are
//! summed in slots, one for each number of each `u_j`; parameters that share are added up at the end.

use super::Problem;
use super::frame::{Local, Matrix, Vector};
use crate::law::PARAMETERS_MAX;
use crate::law::terms::TERMS_MAX;
use crate::objective::Loss;

/// A term has its level and at most two slopes.
const SLOTS_MAX: usize = 3 * TERMS_MAX;

/// The rows of a problem.
pub(super) struct Bulk {
    /// Parameter of each slot, slots of a term side by side, its level first.
    parameters: [usize; SLOTS_MAX],
    /// First slot of each term, and one past the last.
    firsts: [usize; TERMS_MAX + 1],
    terms: usize,
    slots: usize,
    /// Whether a term is the same in every row.
    constant: [bool; TERMS_MAX],
    /// For each row the offset of each term, and what its slots are multiplied by: 1 for a level.
    x: Vec<f64>,
    /// `g(y)` and weight of each row.
    rows: Vec<(f64, f64)>,
}

impl Bulk {
    /// `None` where the law is no sum of exponentials. `shift`: what a slope's number is taken from, for a level and a
    /// slope.
    pub(super) fn new(problem: &Problem<'_>, shift: impl Fn(usize, usize) -> f64) -> Option<Bulk> {
        let sample = problem.sample;
        let first = problem.law.sum(sample.inputs.first()?)?;
        let mut bulk = Bulk {
            parameters: [0; SLOTS_MAX],
            firsts: [0; TERMS_MAX + 1],
            terms: first.terms().len(),
            slots: 0,
            constant: [true; TERMS_MAX],
            x: Vec::with_capacity(sample.len() * 2 * TERMS_MAX),
            rows: Vec::with_capacity(sample.len()),
        };
        let mut shifts = [0.0; SLOTS_MAX];
        for (at, term) in first.terms().iter().enumerate() {
            if let Some(level) = term.level() {
                bulk.parameters[bulk.slots] = level;
                bulk.slots += 1;
                for (slope, _) in term.slopes() {
                    bulk.parameters[bulk.slots] = *slope;
                    shifts[bulk.slots] = shift(level, *slope);
                    bulk.slots += 1;
                }
            }
            bulk.firsts[at + 1] = bulk.slots;
        }
        for (row, &weight) in problem.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            let sum = problem.law.sum(&sample.inputs[row])?;
            for (constant, term) in bulk.constant.iter_mut().zip(sum.terms()) {
                *constant &= term.offset() == 0.0 && term.slopes().is_empty();
                bulk.x.push(term.offset());
            }
            let mut slot = 0;
            for term in sum.terms().iter().filter(|term| term.level().is_some()) {
                bulk.x.push(1.0);
                slot += 1;
                for (_, x) in term.slopes() {
                    bulk.x.push(x - shifts[slot]);
                    slot += 1;
                }
            }
            bulk.rows.push((problem.objective.space.at(sample.ln_y[row]).0, weight));
        }
        Some(bulk)
    }

    /// Adds all rows to `local`, by phi.
    pub(super) fn add(&self, problem: &Problem<'_>, phi: &Vector, loss: Loss, local: &mut Local) {
        match self.slots {
            0..=2 => self.add_slots::<2>(problem, phi, loss, local),
            3 => self.add_slots::<3>(problem, phi, loss, local),
            4 => self.add_slots::<4>(problem, phi, loss, local),
            5 => self.add_slots::<5>(problem, phi, loss, local),
            6 => self.add_slots::<6>(problem, phi, loss, local),
            7 => self.add_slots::<7>(problem, phi, loss, local),
            8 => self.add_slots::<8>(problem, phi, loss, local),
            _ => self.add_slots::<SLOTS_MAX>(problem, phi, loss, local),
        }
    }

    /// `S`: slots, at least as many as there are.
    fn add_slots<const S: usize>(&self, problem: &Problem<'_>, phi: &Vector, loss: Loss, local: &mut Local) {
        let space = problem.objective.space;
        let (mut gradient, mut newton, mut majorant) = ([0.0; S], [[0.0; S]; S], [[0.0; S]; S]);
        // Sums of p_j u_j u_j', by term: level and level, level and slopes, slopes and slopes.
        let mut own = [[0.0; 6]; TERMS_MAX];
        let mut at = [0.0; S];
        for (at, parameter) in at.iter_mut().zip(&self.parameters[..self.slots]) {
            *at = phi[*parameter];
        }
        let mut fixed = [1.0; TERMS_MAX];
        for (j, fixed) in fixed.iter_mut().enumerate().take(self.terms) {
            if self.constant[j] && self.firsts[j] < self.firsts[j + 1] {
                *fixed = at[self.firsts[j]].exp();
            }
        }
        for (row, &(target, weight)) in self.x.chunks_exact(self.terms + self.slots).zip(&self.rows) {
            let (offsets, x) = row.split_at(self.terms);
            let mut parts = [0.0; TERMS_MAX];
            let mut y = 0.0;
            for j in 0..self.terms {
                parts[j] = fixed[j];
                if !self.constant[j] {
                    let slots = self.firsts[j]..self.firsts[j + 1];
                    let t = slots.fold(offsets[j], |sum, slot| sum + at[slot] * x[slot]);
                    parts[j] = t.exp();
                }
                y += parts[j];
            }
            let (g, g1, g2) = space.at(y.ln());
            let residual = g - target;
            let (rho, rho1, rho2) = loss.at(residual);
            let pressure = if residual == 0.0 { rho2 } else { rho1 / residual };
            local.value += weight * rho;
            local.stiffness += weight * pressure;
            local.rounding += weight * rho1.abs() * (g.abs() + g1.abs());
            let first = weight * rho1 * g1;
            let outer = weight * (rho2 * g1 * g1 + rho1 * g2) - first;
            let inner = weight * pressure * g1 * g1;
            let mut v = [0.0; S];
            let each = 1.0 / y;
            for j in 0..self.terms {
                let (from, to) = (self.firsts[j], self.firsts[j + 1]);
                if from == to {
                    continue;
                }
                let share = parts[j] * each;
                let bend = first * share;
                v[from] = share;
                own[j][0] += bend;
                if to - from > 1 {
                    let x1 = x[from + 1];
                    v[from + 1] = share * x1;
                    own[j][1] += bend * x1;
                    own[j][2] += bend * x1 * x1;
                    if to - from > 2 {
                        let x2 = x[from + 2];
                        v[from + 2] = share * x2;
                        own[j][3] += bend * x2;
                        own[j][4] += bend * x1 * x2;
                        own[j][5] += bend * x2 * x2;
                    }
                }
            }
            for a in 0..S {
                gradient[a] += first * v[a];
                let (outer, inner) = (outer * v[a], inner * v[a]);
                for b in 0..=a {
                    newton[a][b] += outer * v[b];
                    majorant[a][b] += inner * v[b];
                }
            }
        }
        for (own, bounds) in own.iter().zip(self.firsts.windows(2)).take(self.terms) {
            let (from, size) = (bounds[0], bounds[1] - bounds[0]);
            for (a, b, sum) in [(0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 0, 3), (2, 1, 4), (2, 2, 5)] {
                if a < size {
                    newton[from + a][from + b] += own[sum];
                }
            }
        }
        let k = problem.len();
        let slots = &self.parameters[..self.slots];
        for (a, &i) in slots.iter().enumerate() {
            local.gradient[i] += gradient[a];
        }
        fold(slots, k, &newton, &mut local.newton);
        fold(slots, k, &majorant, &mut local.majorant);
    }
}

/// Adds a matrix of slots, given below its diagonal, to one of parameters.
fn fold<const S: usize>(slots: &[usize], k: usize, lower: &[[f64; S]; S], matrix: &mut Matrix) {
    debug_assert!(k <= PARAMETERS_MAX, "a law has at most so many parameters");
    for (a, &i) in slots.iter().enumerate() {
        for (b, &j) in slots.iter().enumerate() {
            matrix[i * k + j] += lower[a.max(b)][a.min(b)];
        }
    }
}
