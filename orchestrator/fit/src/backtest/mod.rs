//! Back-tests: fit a law to some rows, predict the others, and score. Rolling cuts along an axis ask what a study that
//! had stopped there would have forecast; leaving groups out asks whether the law holds for a model or data size it
//! never saw.
//!
//! A law is judged by extrapolation, not by fit (Alabdulmohsin et al. 2022; Choshen et al. 2025; the expanding window
//! is that of time series, Tashman 2000).

mod predictive;
mod scores;
mod split;

use std::collections::BTreeSet;
use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

pub use scores::{Held, Scores};
pub use split::{Group, Place, Split};

use crate::law::{Axis, Law, LawName};
use crate::observation::{Exclusion, Observation, Response};
use crate::points::{self, Points, select};
use crate::prepare::{Prepared, known_ceiling, one_value, prepare_below};
use crate::sample::Sample;
use crate::solve::{self, Problem, Status};
use crate::{FitError, Objective, Options, extent};

/// Cuts of a rolling back-test, unless asked otherwise.
pub const CUTS_MAX: usize = 8;
/// Resamples behind the interval of a held-out row, unless asked otherwise: it is stated to two digits at best.
pub const HELD_OUT_RESAMPLES: usize = 200;

/// What to hold out.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldOut {
    /// Which rows.
    pub split: Split,
    /// Rolling: at most so many cuts, spread evenly over those that leave enough to train on.
    pub cuts_max: usize,
    /// Fewest points to train on; never fewer than the law's free parameters and two.
    pub train_min: usize,
    /// Resamples behind each held-out row's prediction interval; 0: no interval and no coverage.
    pub resamples: usize,
}

impl HoldOut {
    /// The defaults.
    pub fn new(split: Split) -> HoldOut {
        HoldOut { split, cuts_max: CUTS_MAX, train_min: 0, resamples: HELD_OUT_RESAMPLES }
    }
}

/// One training set and what was said of the rows it leaves out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cut {
    /// Where it cuts.
    pub place: Place,
    /// Points trained on, after selection.
    pub train_points: usize,
    /// Held-out jobs that are trained on too, by other rows of theirs: a rolling cut along C or D passes between the
    /// checkpoints of a job, whose rows are no strangers to each other. 0 where groups are left out.
    pub jobs_also_trained_on: usize,
    /// Fitted parameters, natural scale, in the law's order.
    pub parameters: Vec<f64>,
    /// How the fit ended.
    pub status: Status,
    /// Over `held`.
    pub scores: Scores,
    /// Held-out rows, in ascending C, then D.
    pub held: Vec<Held>,
}

/// A cut that could not be tested.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skipped {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: Unfit,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Why a cut could not be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Unfit {
    /// Too little to train on.
    #[error("{points} points to train on, {needed} needed")]
    TooFewPoints {
        /// After selection.
        points: usize,
        /// Free parameters and two, or as asked.
        needed: usize,
    },
    /// One value on an axis of the law.
    #[error("all training points have the same {}", axis.describe())]
    OneValue {
        /// Which.
        axis: Axis,
    },
    /// Everything is trained on.
    #[error("no row is left to predict")]
    NothingHeldOut,
    /// The time limit was used up.
    #[error("its time was used up")]
    OutOfTime,
    /// The fit, or what it predicts, is not a number.
    #[error("the fitted law gives no number on the held-out rows")]
    NotFinite,
}

/// A law's record.
#[derive(Debug, Clone, Serialize)]
pub struct BackTest {
    /// The form.
    pub law: LawName,
    /// What was minimised.
    pub objective: Objective,
    /// What was held out.
    pub split: Split,
    /// Cuts that were tested, in the order of the axis or of the groups' names.
    pub cuts: Vec<Cut>,
    /// Cuts that could not be, and why. Of a rolling back-test the cuts below the first with enough rows are not
    /// listed, nor are those that [`HoldOut::cuts_max`] passes over.
    pub skipped: Vec<Skipped>,
    /// Over all held-out rows of all cuts; `None` where no cut could be tested.
    pub pooled: Option<Scores>,
    /// Mean RMSLE of the cuts, each counting alike.
    pub mean_rmsle: Option<f64>,
    /// Rows that were cut, sorted by job key and C.
    pub observations: Vec<Observation>,
    /// Rows left out, and why.
    pub excluded: Vec<Exclusion>,
}

impl fmt::Display for BackTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pooled) = &self.pooled else {
            write!(f, "{} by {}: no cut {} could be tested", self.law, self.objective, self.split)?;
            return match self.skipped.first() {
                Some(skipped) => write!(f, " ({skipped})"),
                None => Ok(()),
            };
        };
        write!(
            f,
            "{} by {}, held out {}: {} rows of {} jobs at {} cuts, RMSLE {:.4}, mean relative error {:+.2} %",
            self.law,
            self.objective,
            self.split,
            pooled.rows,
            pooled.jobs,
            self.cuts.len(),
            pooled.rmsle,
            100.0 * pooled.signed
        )?;
        if let Some(coverage) = pooled.coverage {
            write!(f, ", {:.0} % within their 95 % interval", 100.0 * coverage)?;
        }
        if let Some(decisions) = pooled.decisions {
            write!(f, ", {:.0} % of {} pairs ranked right", 100.0 * decisions, pooled.pairs)?;
        }
        write!(f, ", up to {:.2} times beyond what was trained on", pooled.distance_max)?;
        match self.cuts.iter().map(|cut| cut.jobs_also_trained_on).max() {
            Some(jobs @ 1..) => write!(f, "; at a cut up to {jobs} jobs also trained on"),
            _ => Ok(()),
        }
    }
}

/// Back-tests the law, objective and points of `options`; its `resamples` do not count, those of `hold_out` do.
///
/// Points are selected anew from the training rows of each cut. Held out are, for `all` and `last`, all rows beyond
/// the cut; for policies that choose by E, those on the Pareto front (for `hull`, the hull) of the rows beyond it,
/// since a law of the best is no forecast of the rest. Where groups are left out, a job with any row in the group
/// trains nothing; rolling cuts keep the rows of a job below the cut, and say of how many jobs. Rows weigh alike.
/// The order of `observations` and the number of threads make no difference.
///
/// As [`fit`](crate::fit) does, a law or a space that ends at the error of guessing leaves out rows at or above it, and
/// wants losses to say what it is.
pub fn backtest(observations: &[Observation], options: &Options, hold_out: &HoldOut) -> Result<BackTest, FitError> {
    backtest_below(known_ceiling(observations), observations, options, hold_out)
}

/// The same for rows that are some of a study's, with what all of its rows say of the error of guessing.
pub(crate) fn backtest_below(
    ceiling: Option<f64>,
    observations: &[Observation],
    options: &Options,
    hold_out: &HoldOut,
) -> Result<BackTest, FitError> {
    let Prepared { law, frozen: held, objective, axes, rows, excluded, .. } =
        prepare_below(ceiling, observations, options, hold_out.split.axis())?;
    let law = law.as_ref();
    let free = law.parameters().len() - held.iter().flatten().count();
    let setting = Setting {
        law,
        objective,
        axes: &axes,
        frozen: &held,
        needed: hold_out.train_min.max(free + 2),
        resamples: hold_out.resamples,
        options,
    };
    let places =
        split::places(hold_out, &rows, |train| select_points(options.points, &rows, train).len() >= setting.needed);
    let tested: Vec<Result<Cut, Skipped>> = places
        .into_par_iter()
        .enumerate()
        .map(|(index, place)| test(&setting, &rows, &place, index as u64).map_err(|reason| Skipped { place, reason }))
        .collect();
    let (mut cuts, mut skipped) = (Vec::new(), Vec::new());
    for cut in tested {
        match cut {
            Ok(cut) => cuts.push(cut),
            Err(cut) => skipped.push(cut),
        }
    }
    let pooled = Scores::of(cuts.iter().map(|cut| cut.held.as_slice()));
    let mean_rmsle = pooled.is_some().then(|| cuts.iter().map(|cut| cut.scores.rmsle).sum::<f64>() / cuts.len() as f64);
    Ok(BackTest {
        law: options.law,
        objective,
        split: hold_out.split,
        cuts,
        skipped,
        pooled,
        mean_rmsle,
        observations: rows,
        excluded,
    })
}

/// What all cuts share.
struct Setting<'a> {
    law: &'a dyn Law,
    objective: Objective,
    /// Axes of the law, the policy and the split.
    axes: &'a [Axis],
    frozen: &'a [Option<f64>],
    needed: usize,
    resamples: usize,
    options: &'a Options,
}

fn test(setting: &Setting<'_>, rows: &[Observation], place: &Place, cut: u64) -> Result<Cut, Unfit> {
    let Setting { law, objective, frozen, options, .. } = *setting;
    let (train, beyond): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&row| place.trains_on(&rows[row]));
    let train = match place {
        Place::AtMost { .. } => train,
        Place::WithoutModel { .. } | Place::Without { .. } => {
            let out: BTreeSet<&str> = beyond.iter().map(|&row| rows[row].job_key.as_str()).collect();
            train.into_iter().filter(|&row| !out.contains(rows[row].job_key.as_str())).collect()
        }
    };
    let train = select_points(options.points, rows, &train);
    if train.len() < setting.needed {
        return Err(Unfit::TooFewPoints { points: train.len(), needed: setting.needed });
    }
    let held_policy = match options.points {
        Points::Bins(_) => Points::Pareto,
        policy => policy,
    };
    let beyond = select_points(held_policy, rows, &beyond);
    if beyond.is_empty() {
        return Err(Unfit::NothingHeldOut);
    }
    let sample = Sample::of(rows, &train);
    one_value(law, &sample).map_err(|error| match error {
        FitError::OneValue { axis, .. } => Unfit::OneValue { axis },
        _ => Unfit::NotFinite,
    })?;
    let target = Sample::of(rows, &beyond);
    let keys = |points: &[points::Point]| -> BTreeSet<&str> {
        points.iter().map(|point| rows[point.observation].job_key.as_str()).collect()
    };
    let problem = Problem { frozen, method: &options.method, ..Problem::new(law, &sample, objective) };
    let solution = solve::solve(&problem, options.starts, options.seed);
    if solution.status == Status::TimeLimit {
        return Err(Unfit::OutOfTime);
    }
    let theta = &solution.best.theta;
    // A fraction ends at 1, whatever an extrapolated law says.
    let ln_most = match options.response {
        Response::Fraction => 0.0,
        Response::Loss => f64::INFINITY,
    };
    let ln_predicted: Vec<f64> = target.inputs.iter().map(|x| law.ln_at(theta, x).min(ln_most)).collect();
    if !ln_predicted.iter().chain(theta).all(|value| value.is_finite()) {
        return Err(Unfit::NotFinite);
    }
    let intervals = predictive::intervals(&problem, theta, &target.inputs, setting.resamples, options.seed, cut);
    if options.method.was_cut() {
        return Err(Unfit::OutOfTime);
    }
    let mut held: Vec<Held> = beyond
        .iter()
        .enumerate()
        .map(|(index, point)| Held {
            row: point.observation,
            job_key: rows[point.observation].job_key.clone(),
            observed: point.error,
            predicted: ln_predicted[index].exp(),
            interval: intervals.get(index).map(|(low, high)| (low.min(ln_most).exp(), high.min(ln_most).exp())),
            distance: distance(setting.axes, &sample, &target, index),
        })
        .collect();
    let key = |row: &Held| (rows[row.row].compute, rows[row.row].samples_seen);
    held.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)).then(a.row.cmp(&b.row)));
    let scores = Scores::of([held.as_slice()]).ok_or(Unfit::NothingHeldOut)?;
    Ok(Cut {
        place: place.clone(),
        train_points: train.len(),
        jobs_also_trained_on: keys(&beyond).intersection(&keys(&train)).count(),
        parameters: crate::law::natural(law, theta),
        status: solution.status,
        scores,
        held,
    })
}

/// Points of a policy among some rows; [`points::candidates`] has been applied to all of them.
fn select_points(policy: Points, rows: &[Observation], among: &[usize]) -> Vec<points::Point> {
    let pairs: Vec<(f64, f64)> = among.iter().map(|&row| (rows[row].compute, rows[row].error)).collect();
    let mut selected = select(policy, &pairs);
    for point in &mut selected {
        point.observation = among[point.observation];
    }
    selected
}

/// How far row `index` of `target` lies beyond `sample`, as a ratio, on the axis where it is farthest.
fn distance(axes: &[Axis], sample: &Sample, target: &Sample, index: usize) -> f64 {
    let beyond = axes.iter().map(|&axis| {
        let (low, high) = extent(sample.inputs.iter().map(|x| x.ln(axis)));
        let at = target.inputs[index].ln(axis);
        (at - high).max(low - at)
    });
    beyond.fold(0.0, f64::max).exp()
}

#[cfg(test)]
pub(crate) mod tests;
