//! IsoFLOP analysis: the best model size for a compute budget, off the fitted surface, with the parabola and the
//! interpolation of the literature beside it and their bias.
//!
//! A parabola of ln y over ln N at one budget (Hoffmann et al. 2022, approach 2) is biased even without noise: the
//! surface is not a parabola, so its vertex moves with the grid unless the two exponents are equal and the grid is
//! centred (Open-Athena, arXiv 2603.22339). The bias is estimated by fitting the same parabola to the surface's own
//! values at the same N. Interpolation (Porian et al. 2024, section 3) has no such bias but all of the noise; a least
//! value at the end of the grid is no optimum and is discarded.

use serde::Serialize;

use crate::cost::Cost;
use crate::frontier::{Limits, Path};
use crate::law::{Axis, Law};
use crate::observation::Observation;
use crate::solve::cholesky_solve;
use crate::{EFFECT_MIN, Fit, extent};

/// Rows whose ln C differ by less are of one budget, unless asked otherwise.
pub const TOLERANCE: f64 = 0.1;
/// Sizes of model from which a budget's parabola or interpolation is taken.
pub const SIZES_MIN: usize = 4;
/// An optimum farther from the middle of its grid than this share of half the grid's width (in ln N) is off-centre.
pub const OFF_CENTRE: f64 = 0.25;
/// Interpolated points in each gap (Porian et al.).
const GAP_POINTS: usize = 25;

/// A way to find the optimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The least of the fitted law along the budget.
    Surface,
    /// The vertex of a parabola.
    Parabola,
    /// The least of an Akima interpolation.
    Akima,
}

/// What is wrong with a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "flag", rename_all = "snake_case")]
pub enum Flag {
    /// Too few sizes.
    #[error("{sizes} sizes of model: at least {SIZES_MIN} make an optimum")]
    TooFewSizes {
        /// Distinct N.
        sizes: usize,
    },
    /// The optimum is at an end of the grid, or beyond.
    #[error("the optimum by {method:?} is at the edge of the grid: it is not known where it is")]
    Edge {
        /// By which method.
        method: Method,
    },
    /// The parabola has no least value.
    #[error("the parabola opens downwards")]
    NotConvex,
    /// The grid lies to one side.
    #[error("the optimum is {share:+.2} half widths off the middle of the grid: the parabola is biased")]
    OffCentre {
        /// Offset in ln N over half the grid's width; above zero where the optimum has more parameters than the
        /// middle.
        share: f64,
    },
}

/// The best job of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Optimum {
    /// N.
    pub parameters: f64,
    /// D that the budget buys at that N.
    pub samples_seen: f64,
    /// E there, by the same method.
    pub error: f64,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Budget {
    /// C, geometric mean of its rows.
    pub compute: f64,
    /// Rows.
    pub rows: usize,
    /// Distinct N.
    pub sizes: usize,
    /// Off the surface, if one was given.
    pub surface: Option<Optimum>,
    /// Off the parabola; also where it is beyond the grid (flagged).
    pub parabola: Option<Optimum>,
    /// Off the interpolation; `None` at the edge.
    pub akima: Option<Optimum>,
    /// `ln (N of a parabola through the surface's own values at these N / N of the surface)`: what the parabola is
    /// wrong by without any noise.
    pub parabola_bias: Option<f64>,
    /// What to mind.
    pub flags: Vec<Flag>,
}

impl Budget {
    fn at_edge(&self, of: Method) -> bool {
        self.flags.iter().any(|flag| matches!(flag, Flag::Edge { method } if *method == of))
    }
}

/// `N* = exp(level) C^a`, least squares of ln N* over the budgets whose optimum is not at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Exponent {
    /// a.
    pub a: f64,
    /// ln N* at C = 1.
    pub level: f64,
    /// Budgets behind it.
    pub budgets: usize,
}

/// The analysis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IsoFlop {
    /// Ascending in C. Budgets of one size only are none: they are left out.
    pub budgets: Vec<Budget>,
    /// Rows of no budget: no N, C or E, or alone in theirs.
    pub rows_left_out: usize,
    /// By the surface.
    pub surface: Option<Exponent>,
    /// By the parabolas.
    pub parabola: Option<Exponent>,
    /// By the interpolations.
    pub akima: Option<Exponent>,
}

/// What the budgets are of.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// What a job costs.
    pub cost: &'a Cost,
    /// U and the range of N.
    pub limits: Limits,
    /// Rows whose ln C differ by no more are of one budget.
    pub tolerance: f64,
}

impl<'a> Setting<'a> {
    /// The defaults.
    pub fn new(cost: &'a Cost) -> Setting<'a> {
        Setting { cost, limits: Limits::default(), tolerance: TOLERANCE }
    }
}

/// A law at a theta: any that depends on both N and D.
#[derive(Debug, Clone, Copy)]
pub struct Surface<'a> {
    /// The form.
    pub law: &'a dyn Law,
    /// Internal parameters.
    pub theta: &'a [f64],
}

impl Surface<'_> {
    fn is_of_n_and_d(&self) -> bool {
        [Axis::N, Axis::D].iter().all(|axis| self.law.axes().contains(axis))
    }
}

/// The analysis with a fit's surface. Laws that do not depend on both N and D have none; the other methods stand alone
/// then.
pub fn isoflop_of(fit: &Fit, setting: Setting<'_>) -> IsoFlop {
    let law = fit.form();
    isoflop(&fit.observations, Some(Surface { law: law.as_ref(), theta: &fit.solution.best.theta }), setting)
}

/// The analysis of rows with N, C and E. Their order makes no difference.
pub fn isoflop(observations: &[Observation], surface: Option<Surface<'_>>, setting: Setting<'_>) -> IsoFlop {
    let surface = surface.filter(Surface::is_of_n_and_d);
    let known = |value: f64| value.is_finite() && value > 0.0;
    let usable = |row: &&Observation| known(row.parameters) && known(row.compute) && known(row.error);
    let mut rows: Vec<&Observation> = observations.iter().filter(usable).collect();
    rows.sort_by(|a, b| {
        a.compute.total_cmp(&b.compute).then(a.parameters.total_cmp(&b.parameters)).then(a.error.total_cmp(&b.error))
    });
    let groups = rows.chunk_by({
        let mut first = f64::NAN;
        move |a, b| {
            if first.is_nan() {
                first = a.compute.ln();
            }
            let together = b.compute.ln() - first <= setting.tolerance;
            if !together {
                first = b.compute.ln();
            }
            together
        }
    });
    let budgets: Vec<Budget> = groups.filter_map(|group| budget(group, surface, setting)).collect();
    let used: usize = budgets.iter().map(|budget| budget.rows).sum();
    IsoFlop {
        rows_left_out: observations.len() - used,
        surface: exponent(&budgets, Method::Surface, |budget| budget.surface),
        parabola: exponent(&budgets, Method::Parabola, |budget| budget.parabola),
        akima: exponent(&budgets, Method::Akima, |budget| budget.akima),
        budgets,
    }
}

fn budget(rows: &[&Observation], surface: Option<Surface<'_>>, setting: Setting<'_>) -> Option<Budget> {
    let ln_c = rows.iter().map(|row| row.compute.ln()).sum::<f64>() / rows.len() as f64;
    let places = merged(rows.iter().map(|row| (row.parameters.ln(), row.error.ln())).collect());
    let ([low, .., high], sizes) = (places.as_slice(), places.len()) else { return None };
    let (low, high) = (low.0, high.0);
    let mut budget = Budget {
        compute: ln_c.exp(),
        rows: rows.len(),
        sizes,
        surface: None,
        parabola: None,
        akima: None,
        parabola_bias: None,
        flags: Vec::new(),
    };
    let ln_d = |ln_n: f64| ln_c - setting.cost.ln_compute_per_sample(ln_n);
    let optimum =
        |ln_n: f64, ln_y: f64| Optimum { parameters: ln_n.exp(), samples_seen: ln_d(ln_n).exp(), error: ln_y.exp() };
    let inside = |ln_n: f64| ln_n > low + 1e-9 && ln_n < high - 1e-9;
    let enough = sizes >= SIZES_MIN;
    if !enough {
        budget.flags.push(Flag::TooFewSizes { sizes });
    }
    let (least, most) = extent(places.iter().map(|place| place.1));
    let varies = most - least > EFFECT_MIN;
    let vertex = parabola(&places).filter(|_| enough);
    match vertex {
        Some((ln_n, ln_y)) => {
            budget.parabola = Some(optimum(ln_n, ln_y));
            if !inside(ln_n) {
                budget.flags.push(Flag::Edge { method: Method::Parabola });
            }
        }
        None if enough => budget.flags.push(Flag::NotConvex),
        None => {}
    }
    if enough && varies {
        let (ln_n, ln_y) = akima_least(&places);
        if inside(ln_n) {
            budget.akima = Some(optimum(ln_n, ln_y));
        } else {
            budget.flags.push(Flag::Edge { method: Method::Akima });
        }
    }
    let mut best = vertex.map(|(ln_n, _)| ln_n);
    if let Some(Surface { law, theta }) = surface {
        // Path buys D in the cost's currency; here budgets are compute whatever that is.
        let priced = Cost { throughput: None, ..setting.cost.clone() };
        let path = Path::new(law, &priced, ln_c.exp(), setting.limits, (low.exp(), high.exp()));
        let split = path.best(theta);
        budget.surface = Some(optimum(split.at.ln_n, split.ln_e));
        best = Some(split.at.ln_n);
        if split.end.is_some() {
            budget.flags.push(Flag::Edge { method: Method::Surface });
        } else {
            let drawn: Vec<(f64, f64)> =
                places.iter().map(|&(ln_n, _)| (ln_n, law.ln_at(theta, &path.at(ln_n)))).collect();
            let vertex = parabola(&drawn).filter(|_| enough);
            budget.parabola_bias = vertex.map(|(ln_n, _)| ln_n - split.at.ln_n);
        }
    }
    let share = best.map(|best| (best - 0.5 * (low + high)) / (0.5 * (high - low)));
    if let Some(share) = share.filter(|share| share.abs() > OFF_CENTRE) {
        budget.flags.push(Flag::OffCentre { share });
    }
    Some(budget)
}

/// Ascending in ln N, replicates at their mean ln y.
fn merged(mut places: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    places
        .chunk_by(|a, b| b.0 - a.0 <= 1e-9)
        .map(|same| (same[0].0, same.iter().map(|place| place.1).sum::<f64>() / same.len() as f64))
        .collect()
}

/// Vertex and value of the least-squares parabola; `None` of fewer than three places or if it does not open upwards,
/// by more than rounding from its vertex to the farthest place.
fn parabola(places: &[(f64, f64)]) -> Option<(f64, f64)> {
    if places.len() < 3 {
        return None;
    }
    let count = places.len() as f64;
    let centre = places.iter().map(|place| place.0).sum::<f64>() / count;
    let unit = places.iter().map(|place| (place.0 - centre).abs()).fold(0.0, f64::max);
    let level = places.iter().map(|place| place.1).sum::<f64>() / count;
    let (mut matrix, mut right) = ([0.0; 9], [0.0; 3]);
    for &(x, y) in places {
        let x = (x - centre) / unit;
        let powers = [1.0, x, x * x];
        for i in 0..3 {
            right[i] += powers[i] * (y - level);
            for j in 0..3 {
                matrix[i * 3 + j] += powers[i] * powers[j];
            }
        }
    }
    let solved = cholesky_solve(&matrix, &right)?;
    let (constant, slope, bend) = (solved[0], solved[1], solved[2]);
    (bend > EFFECT_MIN).then(|| (centre - unit * slope / (2.0 * bend), level + constant - slope * slope / (4.0 * bend)))
}

/// The least of Akima's interpolation (Akima 1970, equations 1 and 12) at 25 points a gap. At least three places.
fn akima_least(places: &[(f64, f64)]) -> (f64, f64) {
    let gaps: Vec<f64> = places.windows(2).map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0)).collect();
    let last = gaps.len() - 1;
    // Two slopes beyond each end, as if a parabola went on.
    let slope = |at: isize| match at {
        -2 => 3.0 * gaps[0] - 2.0 * gaps[1.min(last)],
        -1 => 2.0 * gaps[0] - gaps[1.min(last)],
        at if at as usize <= last => gaps[at as usize],
        at if at as usize == last + 1 => 2.0 * gaps[last] - gaps[last.saturating_sub(1)],
        _ => 3.0 * gaps[last] - 2.0 * gaps[last.saturating_sub(1)],
    };
    let tangent = |at: usize| {
        let at = at.cast_signed();
        let (before, after) = ((slope(at + 1) - slope(at)).abs(), (slope(at - 1) - slope(at - 2)).abs());
        if before + after > 0.0 {
            (before * slope(at - 1) + after * slope(at)) / (before + after)
        } else {
            0.5 * (slope(at - 1) + slope(at))
        }
    };
    let mut least = places[0];
    for (index, pair) in places.windows(2).enumerate() {
        let (width, chord) = (pair[1].0 - pair[0].0, gaps[index]);
        let (from, to) = (tangent(index), tangent(index + 1));
        for step in 1..=GAP_POINTS {
            let x = width * step as f64 / GAP_POINTS as f64;
            let square = (3.0 * chord - 2.0 * from - to) / width;
            let cube = (from + to - 2.0 * chord) / (width * width);
            let y = pair[0].1 + x * (from + x * (square + x * cube));
            if y < least.1 {
                least = (pair[0].0 + x, y);
            }
        }
    }
    least
}

fn exponent(budgets: &[Budget], method: Method, optimum: impl Fn(&Budget) -> Option<Optimum>) -> Option<Exponent> {
    let places: Vec<(f64, f64)> = budgets
        .iter()
        .filter(|budget| !budget.at_edge(method))
        .filter_map(|budget| Some((budget.compute.ln(), optimum(budget)?.parameters.ln())))
        .collect();
    let count = places.len() as f64;
    let (x, y) = places.iter().fold((0.0, 0.0), |sum, place| (sum.0 + place.0 / count, sum.1 + place.1 / count));
    let xx: f64 = places.iter().map(|place| (place.0 - x).powi(2)).sum();
    let xy: f64 = places.iter().map(|place| (place.0 - x) * (place.1 - y)).sum();
    (xx > 1e-12).then(|| Exponent { a: xy / xx, level: y - xy / xx * x, budgets: places.len() })
}

#[cfg(test)]
mod tests;
