//! What a fit says: parameters, verdict, cautions.

use std::fmt;

use serde::Serialize;

use crate::bootstrap::{BandPoint, Resampling};
use crate::interval::{Interval, IntervalKind};
use crate::law::{Axis, Input, Law, LawName};
use crate::noise::{NoiseModel, Weighting};
use crate::objective::Objective;
use crate::observation::{Convention, Exclusion, Observation};
use crate::points::Point;
use crate::solve::{Method, Solution};

/// A parameter with its interval, natural scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// As in the law's formula.
    pub name: &'static str,
    /// Value and 95 % interval.
    #[serde(flatten)]
    pub interval: Interval,
    /// Held at this value, not fitted.
    pub frozen: bool,
}

/// A fitted law with what it rests on. Everything is in full precision.
#[derive(Debug, Clone, Serialize)]
pub struct Fit {
    /// The form.
    pub law: LawName,
    /// The error of guessing, where the law ends; 1 where the observations don't say.
    pub ceiling: f64,
    /// What was minimised.
    pub objective: Objective,
    /// Parameters with 95 % intervals, in the law's order.
    pub parameters: Vec<Estimate>,
    /// The minimum, and what the searches say about it.
    pub solution: Solution,
    /// Share of the variance of ln E over the selected points that the law explains; `None` if they do not vary.
    pub r2: Option<f64>,
    /// What to make of it.
    pub verdict: Verdict,
    /// Anything a reader should know before trusting the interval.
    pub cautions: Vec<Caution>,
    /// Convention of every C here.
    pub compute: Convention,
    /// The points the law goes through.
    pub points: Vec<Point>,
    /// Observations that the points were selected from, sorted by job key and C.
    pub observations: Vec<Observation>,
    /// Observations left out, and why.
    pub excluded: Vec<Exclusion>,
    /// Laws of C alone: the law from the least of the observations to ten times the most, with the interval of its
    /// value.
    pub band: Vec<BandPoint>,
    /// Resamples that could be fitted.
    pub resamples: usize,
    /// Resamples asked for.
    pub resamples_asked: usize,
    /// Internal parameters of each resample's refit.
    #[serde(skip)]
    pub replicates: Vec<Vec<f64>>,
    /// Internal parameters of the refit without each job, in the order of job keys; empty unless the intervals need it.
    #[serde(skip)]
    pub jackknife: Vec<Vec<f64>>,
    /// Jobs behind the observations.
    pub jobs: usize,
    /// What a resample drew anew.
    pub resampling: Resampling,
    /// How intervals were read off the resamples.
    pub interval_kind: IntervalKind,
    /// How rows were weighted.
    pub weighting: Weighting,
    /// How its minima were searched for.
    #[serde(rename = "solver")]
    pub method: Method,
    /// What is known of the noise of a job's result.
    pub noise: NoiseModel,
}

impl Fit {
    /// Its refits, for [`fit_with`](crate::fit_with).
    pub fn refits(&self) -> Refits {
        Refits { replicates: self.replicates.clone(), jackknife: self.jackknife.clone() }
    }

    /// The fitted form.
    pub fn form(&self) -> Box<dyn Law> {
        self.law.law(self.ceiling)
    }

    /// A parameter by name.
    pub fn parameter(&self, name: &str) -> Option<Interval> {
        self.parameters.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.interval)
    }

    /// A parameter by name; NaN where the law has none of that name.
    pub fn interval(&self, name: &str) -> Interval {
        self.parameter(name).unwrap_or(Interval { value: f64::NAN, low: f64::NAN, high: f64::NAN })
    }

    /// E of a law of C alone.
    pub fn at_compute(&self, compute: f64) -> f64 {
        self.value(&Input::on(Axis::C, compute))
    }

    /// E of the law at `x`.
    pub fn value(&self, x: &Input) -> f64 {
        self.form().ln_at(&self.solution.best.theta, x).exp()
    }
}

/// Internal parameters of a fit's refits: what its intervals are read off.
#[derive(Debug, Clone, PartialEq)]
pub struct Refits {
    /// Of each resample that could be fitted.
    pub replicates: Vec<Vec<f64>>,
    /// Without each job, in the order of job keys; empty unless the intervals need it.
    pub jackknife: Vec<Vec<f64>>,
}

impl Refits {
    /// Whether they can be of a law of so many parameters, so many resamples and so many jobs left out.
    pub(crate) fn are_of(&self, parameters: usize, resamples: usize, jackknifed: usize) -> bool {
        self.replicates.len() <= resamples
            && self.jackknife.len() == jackknifed
            && self.replicates.iter().chain(&self.jackknife).all(|theta| theta.len() == parameters)
    }
}

/// What a fit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Error falls with compute: the interval of alpha lies below zero, by more than rounding.
    Scaling,
    /// The interval of alpha covers zero, or what it makes of the error is rounding. A finding, not a failure.
    NoScaling,
    /// Error grows with compute: the interval of alpha lies above zero, by more than rounding.
    WrongWay,
    /// Laws of more than compute alone: a minimum was found, and no other as deep.
    Fitted,
    /// The best is at a limit of the law: a term is zero.
    Bound,
    /// Some parameters are not told apart by the data; predictions among the data stand.
    Flat,
    /// Different parameters do as well as the best.
    MultiModal,
    /// Fewer than [`JOBS_MIN`](crate::JOBS_MIN) jobs: the interval means little.
    TooFewJobs,
    /// No observation is told apart from guessing.
    AtChance,
    /// More than a tenth of the resamples could not be fitted.
    UnstableInterval,
    /// The searches stopped short of a minimum.
    NotConverged,
    /// Searches or refits were cut short by their time limit.
    TimeLimit,
}

impl Verdict {
    /// Whether the law and its interval may be used. `no scaling` may: it is an answer.
    pub fn is_trustworthy(self) -> bool {
        matches!(
            self,
            Verdict::Scaling
                | Verdict::NoScaling
                | Verdict::WrongWay
                | Verdict::Fitted
                | Verdict::Bound
                | Verdict::Flat
        )
    }

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Scaling => "scaling",
            Verdict::NoScaling => "no scaling",
            Verdict::WrongWay => "error grows with compute",
            Verdict::Fitted => "fitted",
            Verdict::Bound => "at a limit of the law",
            Verdict::Flat => "parameters not identified",
            Verdict::MultiModal => "several minima as deep",
            Verdict::TooFewJobs => "too few jobs",
            Verdict::AtChance => "at chance",
            Verdict::UnstableInterval => "unstable interval",
            Verdict::NotConverged => "not converged",
            Verdict::TimeLimit => "out of time",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a reader should know before trusting a fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "caution", rename_all = "snake_case")]
pub enum Caution {
    /// Some observations are within two standard errors of guessing, where no power law holds.
    NearChance {
        /// How many.
        observations: usize,
        /// Of how many.
        of: usize,
    },
    /// The lowest errors were selected, so noise leans the law down.
    Selection {
        /// Points left.
        points: usize,
        /// Of so many observations.
        of: usize,
    },
    /// Bins: the interval is too narrow (measured by the test `intervals_hold_the_truth_at_the_stated_rate`).
    Bins,
    /// Some resamples had one value of C only and could not be fitted.
    Resamples {
        /// How many were fitted.
        fitted: usize,
        /// Of how many.
        of: usize,
    },
    /// C spans less than a decade.
    NarrowRange,
    /// Weights by noise were asked for, and the noise of some rows is not known: rows count alike.
    NotWeighted,
    /// The error of guessing is not the same for all rows, or not known: laws and spaces that end there end at 1.
    NoCeiling,
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caution::NearChance { observations, of } => write!(
                f,
                "{observations} of {of} observations lie within two standard errors of chance, where no power law holds"
            ),
            Caution::Selection { points, of } => {
                write!(
                    f,
                    "the law goes through the {points} best of {of} observations: selecting on error leans it \
                 down"
                )
            }
            Caution::Bins => f.write_str(
                "a bin's centre is not its winner's C: in simulated studies of 18 jobs, 95 % intervals of bins:5 \
                 held the true alpha in 92 % and a forecast at ten times the compute in 86 %",
            ),
            Caution::Resamples { fitted, of } => {
                write!(f, "{fitted} of {of} resamples could be fitted: the others held too little to fit the law")
            }
            Caution::NotWeighted => f.write_str(
                "rows count alike: their noise is not known (no replicates, and no test items or standard errors)",
            ),
            Caution::NoCeiling => {
                f.write_str("the error of guessing is not known, or not the same for all rows: it is taken to be 1")
            }
            Caution::NarrowRange => f.write_str("compute spans less than a decade"),
        }
    }
}
