//! How to split a budget: the N, D and U of least error among jobs that cost as much, and the error there.
//!
//! For `L = E + A/N^alpha + B/D^beta` under `C = 6ND` in closed form (Hoffmann et al. 2022, section 3.3, equation 4):
//! `N* = G (C/6)^a`, `D* = (C/6)^b / G`, `G = (alpha A / (beta B))^(1/(alpha + beta))`, `a = beta / (alpha + beta)`,
//! `b = alpha / (alpha + beta)`. Else by search along the constraint `D = budget / price(N)`: a grid in ln N with the
//! observed models in it, then golden section. Intervals: the same for every resample of the fit.

mod models;
mod path;

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use crate::Fit;
use crate::cost::{Cost, Currency};
use crate::extent;
use crate::interval::Interval;
use crate::law::{Axis, Input, Law, LawName};
use crate::observation::Convention;

pub use models::{Choice, Model, best_model, models_of};
pub use path::{Best, Limits, Part, Path, Split};

/// Where the best N lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// Among the sizes observed.
    Inside,
    /// Below the least observed.
    BelowObserved,
    /// Above the most observed.
    AboveObserved,
    /// At the least N allowed: smaller may be better.
    AtLeast,
    /// At the most N allowed: larger may be better.
    AtMost,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Edge::Inside => "among the sizes observed",
            Edge::BelowObserved => "smaller than any size observed",
            Edge::AboveObserved => "larger than any size observed",
            Edge::AtLeast => "at the least size allowed: smaller may be better",
            Edge::AtMost => "at the most size allowed: larger may be better",
        })
    }
}

/// The best use of a budget. Intervals are 95 %, from the fit's resamples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Allocation {
    /// The budget, in the frontier's currency.
    pub budget: f64,
    /// N*; `None` for a law that does not know N.
    pub parameters: Option<Interval>,
    /// D*.
    pub samples_seen: Option<Interval>,
    /// U*, where the law knows it or a cap was given.
    pub unique_samples: Option<Interval>,
    /// E*.
    pub error: Interval,
    /// D* / N*.
    pub samples_per_parameter: Option<Interval>,
    /// D* / U*.
    pub epochs: Option<Interval>,
    /// Where N* lies.
    pub edge: Option<Edge>,
    /// Share of the resamples whose best N is the least or the most allowed.
    pub at_end: f64,
}

/// What a reader should know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// A law of compute alone.
    CannotSplit {
        /// The law.
        law: LawName,
    },
    /// A cap on unique samples that the law does not see.
    UniqueUnseen {
        /// The law.
        law: LawName,
    },
    /// Larger models that cost less.
    Reversals {
        /// How many neighbours in N.
        pairs: usize,
        /// One of them: the smaller and dearer, the larger and cheaper.
        example: (String, String),
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::CannotSplit { law } => write!(
                f,
                "the law `{law}` is of compute alone: it gives the error at a budget, but can't split the budget between \
                 model and samples; fit a law of N and D"
            ),
            Note::UniqueUnseen { law } => write!(
                f,
                "the law `{law}` does not know unique samples: repeats count as new data; fit a law of N, D and U"
            ),
            Note::Reversals { pairs, example } => write!(
                f,
                "{pairs} of the observed models cost less per sample than the next smaller one ({} less than {}): N \
                 alone does not set the price, so choose among the models by name",
                example.1, example.0
            ),
        }
    }
}

/// The best uses of budgets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frontier {
    /// The law.
    pub law: LawName,
    /// What budgets are in.
    pub currency: Currency,
    /// One a budget, in the order given.
    pub allocations: Vec<Allocation>,
    /// `N* ~ budget^exponent` between the least and the greatest budget; `None` of fewer than two.
    pub exponent: Option<Interval>,
    /// What a reader should know.
    pub notes: Vec<Note>,
}

/// Why there is no frontier.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FrontierError {
    /// A number that no budget or limit can be.
    #[error("splitting a budget: {what} is {value}; it must be a positive number{hint}")]
    NotPositive {
        /// Which.
        what: &'static str,
        /// The value.
        value: f64,
        /// What else.
        hint: &'static str,
    },
    /// A law of a proxy loss.
    #[error(
        "splitting a budget: the law `{law}` needs a proxy loss, which a budget does not give; fit one of C, or of N and D"
    )]
    NeedsLoss {
        /// The law.
        law: LawName,
    },
    /// Compute in two conventions.
    #[error("splitting a budget: the law is of compute as `{fit}`, the price as `{cost}`; price jobs as `{fit}`")]
    Convention {
        /// The fit's.
        fit: Convention,
        /// The cost's.
        cost: Convention,
    },
    /// GPU-hours, and no N to price.
    #[error("the law `{law}` is of compute alone, so GPU-hours can't be told: give the budget in compute")]
    ComputeAlone {
        /// The law.
        law: LawName,
    },
    /// A law of N, D or U alone.
    #[error(
        "splitting a budget: the law `{law}` is of {} alone, so the best job is at an end; fit a law of N and D",
        axis.describe()
    )]
    OneAxis {
        /// The law.
        law: LawName,
        /// Its axis.
        axis: Axis,
    },
    /// No models to choose among, or a law that can't tell them apart.
    #[error("choosing a model with the law `{law}`: {reason}")]
    NoChoice {
        /// The law.
        law: LawName,
        /// Why.
        reason: &'static str,
    },
}

/// The best N, D and U for each budget (in the currency of `cost`).
pub fn frontier(fit: &Fit, cost: &Cost, budgets: &[f64], limits: Limits) -> Result<Frontier, FrontierError> {
    check(fit, cost, budgets, limits)?;
    let form = fit.form();
    let law = form.as_ref();
    let mut notes = Vec::new();
    if law.axes() == [Axis::C] {
        notes.push(Note::CannotSplit { law: fit.law });
        let allocations = budgets.iter().map(|&budget| error_only(fit, law, budget)).collect();
        return Ok(Frontier { law: fit.law, currency: cost.currency, allocations, exponent: None, notes });
    }
    if limits.unique_max.is_some() && !law.axes().contains(&Axis::U) {
        notes.push(Note::UniqueUnseen { law: fit.law });
    }
    let reversals = cost.reversals();
    if let Some((small, large)) = reversals.first() {
        let example = ((*small).to_owned(), (*large).to_owned());
        notes.push(Note::Reversals { pairs: reversals.len(), example });
    }
    let observed = extent(fit.observations.iter().map(|row| row.parameters).filter(|n| *n > 0.0 && n.is_finite()));
    let paths: Vec<Path<'_>> = budgets.iter().map(|&budget| Path::new(law, cost, budget, limits, observed)).collect();
    let splits = |theta: &[f64]| -> Vec<Split> { paths.iter().map(|path| path.best(theta)).collect() };
    let best = splits(&fit.solution.best.theta);
    let resampled: Vec<Vec<Split>> = fit.replicates.par_iter().map(|theta| splits(theta)).collect();
    let of = |index: usize, part: &dyn Fn(&Split) -> f64| {
        fit.interval_from(part(&best[index]).exp(), resampled.iter().map(|splits| part(&splits[index]).exp()))
    };
    let knows_u = law.axes().contains(&Axis::U) || limits.unique_max.is_some();
    let allocation = |(index, &budget): (usize, &f64)| Allocation {
        budget,
        parameters: Some(of(index, &|split| split.at.ln_n)),
        samples_seen: Some(of(index, &|split| split.at.ln_d)),
        unique_samples: knows_u.then(|| of(index, &|split| split.at.ln_u)),
        error: of(index, &|split| split.ln_e),
        samples_per_parameter: Some(of(index, &|split| split.at.ln_d - split.at.ln_n)),
        epochs: knows_u.then(|| of(index, &|split| split.at.ln_d - split.at.ln_u)),
        edge: Some(edge(&best[index], observed)),
        at_end: share(resampled.iter().map(|splits| splits[index].end.is_some())),
    };
    let allocations: Vec<Allocation> = budgets.iter().enumerate().map(allocation).collect();
    let order =
        |pick: fn(f64, f64) -> bool| (0..budgets.len()).reduce(|i, j| if pick(budgets[j], budgets[i]) { j } else { i });
    let exponent =
        order(|a, b| a < b).zip(order(|a, b| a > b)).filter(|(i, j)| budgets[*j] > budgets[*i]).map(|(i, j)| {
            let decades = (budgets[j] / budgets[i]).ln();
            let slope = |splits: &[Split]| (splits[j].at.ln_n - splits[i].at.ln_n) / decades;
            fit.interval_from(slope(&best), resampled.iter().map(|splits| slope(splits)))
        });
    Ok(Frontier { law: fit.law, currency: cost.currency, allocations, exponent, notes })
}

fn check(fit: &Fit, cost: &Cost, budgets: &[f64], limits: Limits) -> Result<(), FrontierError> {
    let positive = |what, value: f64| {
        let fine = value.is_finite() && value > 0.0;
        if fine { Ok(()) } else { Err(FrontierError::NotPositive { what, value, hint: "" }) }
    };
    budgets.iter().try_for_each(|&budget| positive("the budget", budget))?;
    limits.unique_max.map_or(Ok(()), |most| positive("the cap on unique samples", most))?;
    limits.samples_max.map_or(Ok(()), |most| positive("the cap on samples seen", most))?;
    if let Some((low, high)) = limits.parameters {
        positive("the least number of parameters", low)?;
        positive("the most parameters", high)?;
        if high < low {
            let hint = ", at least the least number of parameters";
            return Err(FrontierError::NotPositive { what: "the most parameters", value: high, hint });
        }
    }
    let form = fit.form();
    let axes = form.axes();
    if axes.contains(&Axis::L) {
        return Err(FrontierError::NeedsLoss { law: fit.law });
    }
    if let [axis @ (Axis::N | Axis::D | Axis::U)] = axes {
        return Err(FrontierError::OneAxis { law: fit.law, axis: *axis });
    }
    if axes == [Axis::C] && cost.currency == Currency::GpuHours {
        return Err(FrontierError::ComputeAlone { law: fit.law });
    }
    if axes.contains(&Axis::C) && cost.convention != fit.compute {
        return Err(FrontierError::Convention { fit: fit.compute, cost: cost.convention });
    }
    Ok(())
}

fn error_only(fit: &Fit, law: &dyn Law, budget: f64) -> Allocation {
    let at = Input::on(Axis::C, budget);
    let error = |theta: &[f64]| law.ln_at(theta, &at).exp();
    Allocation {
        budget,
        parameters: None,
        samples_seen: None,
        unique_samples: None,
        error: fit.interval_from(error(&fit.solution.best.theta), fit.replicates.iter().map(|theta| error(theta))),
        samples_per_parameter: None,
        epochs: None,
        edge: None,
        at_end: 0.0,
    }
}

fn edge(split: &Split, observed: (f64, f64)) -> Edge {
    match split.end {
        Some(false) => Edge::AtLeast,
        Some(true) => Edge::AtMost,
        None if split.at.ln_n < observed.0.ln() => Edge::BelowObserved,
        None if split.at.ln_n > observed.1.ln() => Edge::AboveObserved,
        None => Edge::Inside,
    }
}

/// Share of those that are true; 0 of none.
pub(crate) fn share(flags: impl ExactSizeIterator<Item = bool>) -> f64 {
    let all = flags.len().max(1);
    flags.filter(|flag| *flag).count() as f64 / all as f64
}

#[cfg(test)]
mod tests;
