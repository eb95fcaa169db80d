//! Which jobs to run next: those that narrow the interval of named forecasts most for what they cost.
//!
//! Greedy: of the jobs that the budget still buys, the one of the greatest expected gain over cost^gamma, again and
//! again, each pick believed run before the next is scored. A job in a cell that has jobs already is a replicate: it
//! lessens the seed noise of the cell's mean and not the law's misfit there, so it counts for less where misfit is the
//! greater part.

mod belief;
mod value;

use std::fmt;

use serde::Serialize;

use crate::distribution::{normal_quantile, t_two_sided};
use crate::interval::{ALPHA, Interval};
use crate::law::{Axis, Input, LawName};
use crate::{Fit, FitError};

use belief::Beliefs;
pub use belief::{Mode, Noise};
pub use value::{DesignPoint, design_value};

/// Exponent of the cost in the score: gain per cost. MSPE (arXiv 2604.22753) takes 0.4, which forecast no better in our
/// simulated studies.
pub const GAMMA: f64 = 1.0;
/// Gain, as a share of the variance that is left, below which no job is worth running.
pub const GAIN_MIN: f64 = 0.005;
/// Jobs advised at most.
pub const PICKS_MAX: usize = 64;

/// A job that could be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name, for the reader.
    pub name: String,
    /// Its N, D, U, C: those that the laws need.
    pub at: Input,
    /// Its price, in the budget's currency.
    pub cost: f64,
}

/// How to advise.
#[derive(Debug, Clone, PartialEq)]
pub struct AdviseOptions {
    /// What may be spent, in the currency of the candidates' cost.
    pub budget: f64,
    /// Exponent of the cost in the score; [`GAMMA`] unless given. At 0 cost counts only against the budget.
    pub gamma: f64,
    /// Stop where every target's 95 % interval is narrower than this share of its value.
    pub width: Option<f64>,
    /// Stop where no job lessens the variance by this share; [`GAIN_MIN`] unless given.
    pub gain_min: f64,
    /// Noise of a job; estimated from the fits unless given.
    pub noise: Option<Noise>,
    /// Jobs at most; [`PICKS_MAX`] unless given.
    pub picks_max: usize,
    /// Whether a job may be of a cell that has one already.
    pub replicates: bool,
    /// Seed of the imagined outcomes, where several modes compete.
    pub seed: u64,
}

impl AdviseOptions {
    /// With this budget and the defaults.
    pub fn new(budget: f64) -> AdviseOptions {
        AdviseOptions {
            budget,
            gamma: GAMMA,
            width: None,
            gain_min: GAIN_MIN,
            noise: None,
            picks_max: PICKS_MAX,
            replicates: true,
            seed: 0,
        }
    }
}

/// A job to run, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pick {
    /// Index of the candidate.
    pub candidate: usize,
    /// Its name.
    pub name: String,
    /// Jobs that its cell has before it, those picked earlier among them: above 0 it is a replicate.
    pub replicate_of: usize,
    /// Its price.
    pub cost: f64,
    /// Spent with it.
    pub spent: f64,
    /// Share of the variance left that it removes, expected.
    pub gain: f64,
    /// Intervals of E expected after it, one a target.
    pub after: Vec<Interval>,
}

/// Why the list ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The intervals are as narrow as wanted.
    NarrowEnough,
    /// No job left is affordable.
    Budget,
    /// No affordable job narrows them noticeably.
    NothingHelps,
    /// As many jobs as asked for.
    PicksMax,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::NarrowEnough => "stop: the interval is as narrow as wanted",
            Stop::Budget => "the budget buys no further job",
            Stop::NothingHelps => "stop: no affordable job narrows the interval noticeably",
            Stop::PicksMax => "as many jobs as asked for",
        })
    }
}

/// What to run next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Jobs, first the first to run.
    pub picks: Vec<Pick>,
    /// Why there are no more.
    pub stop: Stop,
    /// Intervals of E at the targets before any of it, laws' means (no noise of a single job).
    pub before: Vec<Interval>,
    /// What is spent.
    pub spent: f64,
    /// The optima that compete, best first.
    pub modes: Vec<Mode>,
    /// Noise of a job.
    pub noise: Noise,
}

/// Why there is no advice.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdviseError {
    /// Nothing given.
    #[error("advising on next jobs: no {0} given; at least one is needed")]
    None(&'static str),
    /// A number out of its range.
    #[error("advising on next jobs: {what} is {value}; it must be {allowed}")]
    Value {
        /// Which.
        what: String,
        /// The value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// An axis that a law needs.
    #[error("advising on next jobs: the law `{law}` needs the {} of {of}, which is not given", axis.describe())]
    Axis {
        /// The law.
        law: LawName,
        /// The axis.
        axis: Axis,
        /// Which target or candidate.
        of: String,
    },
    /// Fits to different data.
    #[error(
        "advising on next jobs: the fits of `{first}` and `{second}` go through different points; fit both to the same"
    )]
    DifferentPoints {
        /// One.
        first: LawName,
        /// The other.
        second: LawName,
    },
    /// No optimum around which anything can be believed.
    #[error("advising on next jobs: no fit has an optimum with finite derivatives at all targets and candidates")]
    NoMode,
    /// Not even all of the observations can be fitted.
    #[error("the value of a study: {0}")]
    Fit(#[from] FitError),
}

/// Ranks `candidates` by what they do for the forecasts of `fits` at `targets`. Several fits (to the same points)
/// compete by BIC, as do several optima of one.
///
/// Measured on 200 simulated studies shaped like the 2022 grid (test
/// `advice_beats_chance_and_is_no_worse_than_thrift`), each with the eight cheapest of 24 cells run, 1 % noise, and a
/// forecast at twice the largest D: root mean square error of the forecast of ln E after spending a tenth of what
/// thirteen more cells cost, and four tenths, asked for once:
/// 0.033 and 0.020 as advised, 0.041 and 0.024 by chance, 0.033 and 0.026 cheapest first. So advice pays where the
/// budget buys dear jobs; of a small one it does as well as the cheapest jobs do.
pub fn advise(
    fits: &[&Fit],
    targets: &[Input],
    candidates: &[Candidate],
    options: &AdviseOptions,
) -> Result<Advice, AdviseError> {
    check(fits, targets, candidates, options)?;
    let places: Vec<Input> = candidates.iter().map(|candidate| candidate.at).collect();
    let (mut beliefs, modes) = Beliefs::new(fits, targets, &places, options.noise, options.seed)?;
    let noise = beliefs.noise;
    let before = intervals(&beliefs);
    let (mut picks, mut spent, mut now): (Vec<Pick>, f64, Vec<Interval>) = (Vec::new(), 0.0, before.clone());
    let stop = loop {
        if options.width.is_some_and(|width| now.iter().all(|at| at.high - at.low <= width * at.value)) {
            break Stop::NarrowEnough;
        }
        if picks.len() >= options.picks_max {
            break Stop::PicksMax;
        }
        let affordable = |index: &usize| spent + candidates[*index].cost <= options.budget * (1.0 + 1e-12);
        let left: f64 = beliefs.forecasts().iter().map(|(_, variance)| variance).sum();
        let bought: Vec<usize> = (0..candidates.len()).filter(affordable).collect();
        if bought.is_empty() {
            break Stop::Budget;
        }
        let allowed = bought.into_iter().filter(|&index| options.replicates || beliefs.jobs[index] == 0);
        let scored = allowed.map(|index| (index, beliefs.gain(index) / left));
        let scored: Vec<(usize, f64)> = scored.filter(|(_, gain)| gain.is_finite()).collect();
        let score = |&(index, gain): &(usize, f64)| gain / candidates[index].cost.powf(options.gamma);
        let helps = scored.iter().filter(|(_, gain)| *gain >= options.gain_min);
        let Some(&(candidate, gain)) = helps.max_by(|a, b| score(a).total_cmp(&score(b))) else {
            break Stop::NothingHelps;
        };
        let replicate_of = beliefs.jobs[candidate];
        beliefs.run(candidate);
        spent += candidates[candidate].cost;
        now = intervals(&beliefs).into_iter().zip(&before).map(|(then, first)| recentred(then, first.value)).collect();
        picks.push(Pick {
            candidate,
            name: candidates[candidate].name.clone(),
            replicate_of,
            cost: candidates[candidate].cost,
            spent,
            gain,
            after: now.clone(),
        });
    };
    Ok(Advice { picks, stop, before, spent, modes, noise })
}

/// By Student's t where the noise was estimated, with the degrees of freedom that the fit has now: jobs that are
/// advised do not count before they are run. By the normal where it was given.
fn intervals(beliefs: &Beliefs) -> Vec<Interval> {
    let quantile = match beliefs.degrees {
        Some(degrees) => t_two_sided(ALPHA, degrees),
        None => -normal_quantile(0.5 * ALPHA),
    };
    let of = |(mean, variance): (f64, f64)| {
        let half = quantile * variance.max(0.0).sqrt();
        Interval { value: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() }
    };
    beliefs.forecasts().into_iter().map(of).collect()
}

/// The same relative width around what is forecast now: what the jobs will say is not known.
fn recentred(then: Interval, value: f64) -> Interval {
    Interval { value, low: then.low / then.value * value, high: then.high / then.value * value }
}

fn check(
    fits: &[&Fit],
    targets: &[Input],
    candidates: &[Candidate],
    options: &AdviseOptions,
) -> Result<(), AdviseError> {
    let first = fits.first().ok_or(AdviseError::None("fit is"))?;
    let value = |what: &str, value: f64, fine: bool, allowed| {
        if fine { Ok(()) } else { Err(AdviseError::Value { what: what.to_owned(), value, allowed }) }
    };
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if targets.is_empty() {
        return Err(AdviseError::None("target is"));
    }
    if candidates.is_empty() {
        return Err(AdviseError::None("candidates are"));
    }
    value("the budget", options.budget, positive(options.budget), "a positive number")?;
    value("gamma", options.gamma, (0.0..=4.0).contains(&options.gamma), "from 0 to 4")?;
    value("the least gain", options.gain_min, (0.0..1.0).contains(&options.gain_min), "at least 0 and below 1")?;
    let width = options.width.unwrap_or(1.0);
    value("the wanted width", width, positive(width), "a positive number")?;
    if let Some(noise) = options.noise {
        let fine = |sd: f64| sd.is_finite() && sd >= 0.0;
        value("the noise of a cell", noise.cell, fine(noise.cell), "at least 0")?;
        value("the noise of a seed", noise.seed, fine(noise.seed), "at least 0")?;
    }
    for candidate in candidates {
        let what = format!("the cost of {}", candidate.name);
        value(&what, candidate.cost, positive(candidate.cost), "a positive number")?;
    }
    for fit in fits {
        if fit.points != first.points {
            return Err(AdviseError::DifferentPoints { first: first.law, second: fit.law });
        }
        let form = fit.form();
        let named = candidates.iter().map(|candidate| (candidate.name.as_str(), &candidate.at));
        for (of, at) in targets.iter().map(|target| ("a target", target)).chain(named) {
            if let Some(&axis) = form.axes().iter().find(|&&axis| !at.ln(axis).is_finite()) {
                return Err(AdviseError::Axis { law: fit.law, axis, of: of.to_owned() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
