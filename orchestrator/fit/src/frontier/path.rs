//! Jobs of one cost, and the best of them.

use serde::Serialize;

use crate::cost::Cost;
use crate::law::{Input, Law, LawName};
use crate::solve::Quantity;

/// Steps of the search in ln N before it is refined.
const GRID: usize = 160;
/// The search goes from the least N observed over this ...
const BELOW: f64 = 1e3;
/// ... to the most, times this.
const ABOVE: f64 = 1e6;
/// Step in ln N of second differences.
const STEP: f64 = 1e-3;

/// What bounds a job besides the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Unique samples that there are: `U = min(D, unique_max)`.
    pub unique_max: Option<f64>,
    /// Most samples seen: a data budget.
    pub samples_max: Option<f64>,
    /// Least and most parameters; unless given, far beyond the observed.
    pub parameters: Option<(f64, f64)>,
}

/// Jobs that cost one budget, one for each N.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    law: &'a dyn Law,
    cost: &'a Cost,
    ln_budget: f64,
    limits: Limits,
    search: (f64, f64),
}

/// A place on the frontier, logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Where.
    pub at: Input,
    /// ln E there.
    pub ln_e: f64,
    /// The search ended at its least (`false`) or most (`true`) N.
    pub end: Option<bool>,
}

impl<'a> Path<'a> {
    /// For a law of N and D with whatever else. `observed`: least and most N.
    pub fn new(law: &'a dyn Law, cost: &'a Cost, budget: f64, limits: Limits, observed: (f64, f64)) -> Path<'a> {
        let (low, high) = limits.parameters.unwrap_or((observed.0 / BELOW, observed.1 * ABOVE));
        Path { law, cost, ln_budget: budget.ln(), limits, search: (low.ln(), high.ln()) }
    }

    /// The job of that size.
    pub fn at(&self, ln_n: f64) -> Input {
        self.job(ln_n, self.cost.ln_compute_per_sample(ln_n))
    }

    pub(super) fn job(&self, ln_n: f64, ln_compute: f64) -> Input {
        let afford = self.ln_budget - self.cost.ln_price_of_compute(ln_compute);
        let ln_d = self.limits.samples_max.map_or(afford, |most| afford.min(most.ln()));
        let ln_u = self.limits.unique_max.map_or(ln_d, |most| ln_d.min(most.ln()));
        Input { ln_c: ln_compute + ln_d, ln_n, ln_d, ln_u, ln_l: f64::NAN }
    }

    fn value(&self, theta: &[f64], ln_n: f64) -> f64 {
        let value = self.law.ln_at(theta, &self.at(ln_n));
        if value.is_nan() { f64::INFINITY } else { value }
    }

    /// The job of least error.
    pub fn best(&self, theta: &[f64]) -> Split {
        let ln_n = self.closed_form(theta).unwrap_or_else(|| self.search(theta));
        let (low, high) = self.search;
        let ln_n = ln_n.clamp(low, high);
        let margin = 1e-6 * (high - low);
        let end = if ln_n <= low + margin {
            Some(false)
        } else if ln_n >= high - margin {
            Some(true)
        } else {
            None
        };
        let at = self.at(ln_n);
        Split { at, ln_e: self.law.ln_at(theta, &at), end }
    }

    fn closed_form(&self, theta: &[f64]) -> Option<f64> {
        let six_nd = self.cost.rungs.is_empty() && self.cost.throughput.is_none();
        if !six_nd || self.limits.samples_max.is_some() {
            return None;
        }
        let beta = match self.law.name() {
            LawName::Chinchilla => theta[4],
            LawName::ChinchillaTied => theta[3],
            _ => return None,
        };
        let (ln_a, ln_b, alpha) = (theta[0], theta[1], theta[3]);
        let ln_g = (alpha.ln() + ln_a - beta.ln() - ln_b) / (alpha + beta);
        let ln_n = ln_g + beta / (alpha + beta) * (self.ln_budget - 6f64.ln());
        (alpha > 0.0 && beta > 0.0 && ln_n.is_finite()).then_some(ln_n)
    }

    fn search(&self, theta: &[f64]) -> f64 {
        let (low, high) = self.search;
        let step = (high - low) / GRID as f64;
        let mut grid: Vec<f64> = (0..=GRID).map(|i| low + step * i as f64).collect();
        grid.extend(self.cost.rungs.iter().map(|rung| rung.ln_n).filter(|ln_n| (low..=high).contains(ln_n)));
        grid.sort_by(f64::total_cmp);
        let values: Vec<f64> = grid.iter().map(|&ln_n| self.value(theta, ln_n)).collect();
        let least = (0..grid.len()).min_by(|&i, &j| values[i].total_cmp(&values[j])).unwrap_or(0);
        let (from, to) = (grid[least.saturating_sub(1)], grid[(least + 1).min(grid.len() - 1)]);
        let refined = golden(|ln_n| self.value(theta, ln_n), from, to);
        // The grid's own point stands where the minimum is a kink or an end.
        if self.value(theta, refined) < values[least] { refined } else { grid[least] }
    }
}

fn golden(value: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let shrink = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (high - shrink * (high - low), low + shrink * (high - low));
    let (mut at_a, mut at_b) = (value(a), value(b));
    while high - low > 1e-9 {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - shrink * (high - low);
            at_a = value(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + shrink * (high - low);
            at_b = value(b);
        }
    }
    f64::midpoint(low, high)
}

/// What of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// ln N*.
    Parameters,
    /// ln D*.
    SamplesSeen,
    /// ln E*.
    Error,
}

/// A part of the best split as a [`Quantity`], for profiles. Gradients: of ln E* by the envelope theorem, of ln N* and
/// ln D* by the implicit function theorem (`dn/dtheta = -f_ntheta / f_nn`, differences in ln N of exact gradients by
/// theta). At a kink of the price or an end of the search N* does not move.
#[derive(Debug, Clone, Copy)]
pub struct Best<'a> {
    /// The budget.
    pub path: Path<'a>,
    /// Which part.
    pub part: Part,
}

impl Quantity for Best<'_> {
    fn at(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        let split = self.path.best(theta);
        let ln_n = split.at.ln_n;
        if self.part == Part::Error {
            return self.path.law.log_value(theta, &split.at, gradient);
        }
        let mut below = vec![0.0; theta.len()];
        let down = self.path.law.log_value(theta, &self.path.at(ln_n - STEP), &mut below);
        let up = self.path.law.log_value(theta, &self.path.at(ln_n + STEP), gradient);
        let curvature = (up + down - 2.0 * split.ln_e) / (STEP * STEP);
        let moves = split.end.is_none() && curvature > 0.0;
        let by_n = match self.part {
            Part::Parameters | Part::Error => 1.0,
            Part::SamplesSeen => (self.path.at(ln_n + STEP).ln_d - self.path.at(ln_n - STEP).ln_d) / (2.0 * STEP),
        };
        for (slope, below) in gradient.iter_mut().zip(below) {
            let mixed = (*slope - below) / (2.0 * STEP);
            *slope = if moves { -by_n * mixed / curvature } else { 0.0 };
        }
        if self.part == Part::Parameters { ln_n } else { split.at.ln_d }
    }
}
