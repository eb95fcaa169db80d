//! Two fits side by side, such as two training sets: which is better at a compute, by how much, where they cross.
//!
//! Draw `k` pairs a law that family A's might be with one that B's might be, drawn apart ([`Spread`] says how), and
//! every difference, ratio and crossing is read off the pairs. Laws of compute alone are compared at equal C; laws of N
//! and D at equal budget, each along its own frontier.

mod curves;
mod draws;

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use crate::cost::Cost;
use crate::frontier::{Limits, share};
use crate::interval::{Interval, plain as interval};
use crate::law::LawName;
use crate::observation::Convention;
use crate::{Fit, JOBS_MIN};

use curves::{Grid, check, differences, of_compute, range, shared_exponent};

pub use draws::Spread;

/// Pairs drawn.
pub const DRAWS: usize = 4000;
/// Points of a law along ln C: straight between them.
const GRID: usize = 241;
/// The same along a frontier, where each is a search.
const GRID_FRONTIER: usize = 61;
/// How far beyond the observed C, in each direction, a multiplier is looked for; also its bounds.
pub const REACH: f64 = 1e4;
/// How far beyond the greatest C observed a crossover is looked for.
pub const BEYOND: f64 = 10.0;

/// How to compare.
#[derive(Debug, Clone)]
pub struct CompareOptions<'a> {
    /// Computes (or budgets) to compare at.
    pub at: Vec<f64>,
    /// Take both families to be equally noisy, and use the residuals of both: for families of a few jobs.
    pub pool: bool,
    /// Laws of N and D: the price, and limits, of the jobs along the frontiers.
    pub along: Option<(&'a Cost, Limits)>,
    /// Pairs; [`DRAWS`] unless a test wants fewer.
    pub draws: usize,
    /// Seed of the pairs.
    pub seed: u64,
}

impl CompareOptions<'_> {
    /// At these computes, each family by its own spread.
    pub fn new(at: Vec<f64>) -> CompareOptions<'static> {
        CompareOptions { at, pool: false, along: None, draws: DRAWS, seed: 0 }
    }
}

/// A parameter of both laws.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Name; `ln` before it where the logarithms are subtracted.
    pub name: String,
    /// Of A.
    pub a: f64,
    /// Of B.
    pub b: f64,
    /// A less B.
    pub difference: Interval,
}

/// The two at one compute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Versus {
    /// C.
    pub compute: f64,
    /// E of A over E of B: below 1, A is better.
    pub ratio: Interval,
    /// How many times less compute A needs for the error that B has here; from 1 / [`REACH`] to [`REACH`] or so, which
    /// stand for "never" and "always".
    pub multiplier: Interval,
    /// Share of the pairs in which A is better.
    pub a_better: f64,
    /// Whether both, one or none of the families has C in its data.
    pub data: Covered,
}

/// Whose data a compute lies within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Covered {
    /// Both families'.
    Both,
    /// One family's.
    One,
    /// Neither's.
    Neither,
}

/// Where the laws cross between the least C observed and [`BEYOND`] times the most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Crossover {
    /// Least and most C looked at.
    pub searched: (f64, f64),
    /// C where the fitted laws cross, the first if several; the interval is over the pairs that cross.
    pub compute: Option<Interval>,
    /// Whose data it lies within.
    pub data: Option<Covered>,
    /// Share of the pairs that cross.
    pub share: f64,
    /// Share of the pairs in which A is better throughout.
    pub a_throughout: f64,
    /// Whether A is the better below the crossing.
    pub a_below: Option<bool>,
}

impl fmt::Display for Crossover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.searched;
        let percent = 100.0 * self.share;
        match (&self.compute, self.data) {
            (Some(Interval { value, low, high }), Some(data)) => {
                let place = match data {
                    Covered::Both => "within the data of both",
                    Covered::One => "within the data of one only",
                    Covered::Neither => "beyond the data of both",
                };
                let (first, second) = if self.a_below == Some(true) { ("A", "B") } else { ("B", "A") };
                write!(
                    f,
                    "{first} is better below C = {value:.3e}, {second} above it ({place}); the laws cross in {percent:.0} % \
                     of the draws, 95 % of those from {low:.3e} to {high:.3e}"
                )
            }
            _ => write!(
                f,
                "no crossover within the data or up to {BEYOND} times the most compute ({low:.3e} to {high:.3e}): the laws \
                 cross there in {percent:.0} % of the draws, A is better throughout in {:.0} %",
                100.0 * self.a_throughout
            ),
        }
    }
}

/// Whether two straight lines share their slope: `t^2 = F(1, free)` of separate against shared (Seber and Lee 2003,
/// section 6.4). Power laws by least squares of ln E only; takes both to be equally noisy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SharedExponent {
    /// The exponent that both would share.
    pub exponent: f64,
    /// F.
    pub f: f64,
    /// Degrees of freedom.
    pub free: usize,
    /// Probability of so great an F if they do share it.
    pub p: f64,
}

/// What a reader should know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "caution", rename_all = "snake_case")]
pub enum CompareCaution {
    /// A family of few jobs.
    FewJobs {
        /// `A` or `B`.
        family: char,
        /// Its jobs.
        jobs: usize,
        /// Degrees of freedom of its interval.
        free: usize,
        /// Whether they are those of both families.
        pooled: bool,
    },
    /// The families do not overlap in C.
    NoOverlap,
    /// Different forms: their parameters are not compared.
    DifferentLaws,
}

impl fmt::Display for CompareCaution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompareCaution::FewJobs { family, jobs, free, pooled } => {
                let of =
                    if *pooled { "the residuals of both families, taken to be equally noisy" } else { "its residuals" };
                write!(
                    f,
                    "{family} has {jobs} jobs, too few to resample (fewer than {JOBS_MIN}): its interval is Student's t \
                     from {of} ({free} degrees of freedom), and right only if its law is"
                )
            }
            CompareCaution::NoOverlap => {
                f.write_str("the two have no range of compute in common: one law is extrapolated")
            }
            CompareCaution::DifferentLaws => f.write_str("the laws have different forms: parameters are not compared"),
        }
    }
}

/// Two fits side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Laws of A and B.
    pub laws: (LawName, LawName),
    /// Where the intervals of A and of B come from.
    pub spreads: (Spread, Spread),
    /// Parameters, where both have the same law.
    pub differences: Vec<Difference>,
    /// At the computes asked for.
    pub at: Vec<Versus>,
    /// Where they cross.
    pub crossover: Crossover,
    /// Whether they share an exponent.
    pub shared_exponent: Option<SharedExponent>,
    /// What a reader should know.
    pub cautions: Vec<CompareCaution>,
    /// Pairs behind the intervals.
    pub draws: usize,
}

/// Why two fits can't be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// Two conventions of C.
    #[error("comparing two fits: compute is `{a}` in A and `{b}` in B; fit both in one convention")]
    Convention {
        /// A's.
        a: Convention,
        /// B's.
        b: Convention,
    },
    /// A law that needs more than C, and no price.
    #[error(
        "comparing two fits: the law `{law}` is not of compute alone; name the price along which jobs are compared"
    )]
    NeedsCost {
        /// The law.
        law: LawName,
    },
    /// A law that needs a proxy loss.
    #[error(
        "comparing two fits: the law `{law}` needs a proxy loss, which a budget does not give; fit one of C, or of N and D"
    )]
    NeedsLoss {
        /// The law.
        law: LawName,
    },
    /// GPU-hours, and no N to price.
    #[error(
        "comparing two fits: the law `{law}` is of compute alone, so GPU-hours can't be told; compare at equal compute"
    )]
    ComputeAlone {
        /// The law.
        law: LawName,
    },
    /// As many parameters as jobs.
    #[error(
        "comparing two fits: {jobs} jobs leave the law `{law}` no residuals to tell its spread by; take both families to be \
         equally noisy (pool), hold a parameter, or run more jobs"
    )]
    NoFreedom {
        /// Jobs.
        jobs: usize,
        /// The law.
        law: LawName,
    },
    /// A fit without resamples.
    #[error("comparing two fits: the fit of `{law}` has no resamples; fit with some, or pool the residuals")]
    NoResamples {
        /// The law.
        law: LawName,
    },
    /// Parameters that the data do not tell apart.
    #[error("comparing two fits: the data do not tell the parameters of `{law}` apart; fit a law of fewer parameters")]
    NotIdentified {
        /// The law.
        law: LawName,
    },
    /// Not a compute.
    #[error("comparing two fits at C = {0}: it must be a positive number")]
    Compute(f64),
    /// No pairs.
    #[error("comparing two fits by no draws: at least 1 is needed, {DRAWS} is the default")]
    NoDraws,
    /// Nothing to place the laws by.
    #[error("comparing two fits: {0} has no observation with compute")]
    NoCompute(char),
}

/// Compares two fits. The same seed gives the same answer at any thread count.
pub fn compare(a: &Fit, b: &Fit, options: &CompareOptions<'_>) -> Result<Comparison, CompareError> {
    check(a, b, options)?;
    let (ranges, names) = ([range(a, options), range(b, options)], ['A', 'B']);
    for (range, family) in ranges.iter().zip(names) {
        if !(range.0 > 0.0 && range.1.is_finite()) {
            return Err(CompareError::NoCompute(family));
        }
    }
    let (low, high) = (ranges[0].0.min(ranges[1].0), ranges[0].1.max(ranges[1].1));
    let steps = if of_compute(a) && of_compute(b) { GRID } else { GRID_FRONTIER };
    let grid = Grid::new(low / REACH, high * REACH, steps);

    let left = [draws::residuals(a), draws::residuals(b)];
    let spreads =
        (draws::spread(a, left[0], left[1], options.pool)?, draws::spread(b, left[1], left[0], options.pool)?);
    let thetas = [
        draws::draws(a, spreads, options.draws, options.seed, 0)?,
        draws::draws(b, (spreads.1, spreads.0), options.draws, options.seed, 1)?,
    ];
    let best = [grid.curve(a, &a.solution.best.theta, options), grid.curve(b, &b.solution.best.theta, options)];
    let curves: Vec<[Vec<f64>; 2]> = (0..options.draws)
        .into_par_iter()
        .map(|k| [grid.curve(a, &thetas[0][k], options), grid.curve(b, &thetas[1][k], options)])
        .collect();

    let covered = |compute: f64| match ranges.iter().filter(|(low, high)| (*low..=*high).contains(&compute)).count() {
        2 => Covered::Both,
        1 => Covered::One,
        _ => Covered::Neither,
    };
    let versus = |&compute: &f64| {
        let gap = |pair: &[Vec<f64>; 2]| grid.at(&pair[0], compute.ln()) - grid.at(&pair[1], compute.ln());
        let multiplier = |pair: &[Vec<f64>; 2]| {
            let goal = grid.at(&pair[1], compute.ln());
            (compute.ln() - grid.reaches(&pair[0], goal)).exp()
        };
        Versus {
            compute,
            ratio: interval(gap(&best).exp(), curves.iter().map(|pair| gap(pair).exp())),
            multiplier: interval(multiplier(&best), curves.iter().map(multiplier)),
            a_better: share(curves.iter().map(|pair| grid.gap(pair, compute.ln()) < 0.0)),
            data: covered(compute),
        }
    };
    let searched = (low, high * BEYOND);
    let crossing = |pair: &[Vec<f64>; 2]| grid.crossing(pair, searched);
    let crossings: Vec<Option<(f64, bool)>> = curves.iter().map(crossing).collect();
    let found = crossing(&best);
    let better = |pair: &[Vec<f64>; 2]| grid.gap(pair, low.ln()) < 0.0;
    let throughout = curves.iter().zip(&crossings).map(|(pair, crossing)| crossing.is_none() && better(pair));
    let crossover = Crossover {
        searched,
        compute: found.map(|(at, _)| interval(at, crossings.iter().flatten().map(|(at, _)| *at))),
        data: found.map(|(at, _)| covered(at)),
        share: share(crossings.iter().map(Option::is_some)),
        a_throughout: share(throughout),
        a_below: found.map(|(_, below)| below),
    };
    let mut cautions = Vec::new();
    for (family, spread) in names.into_iter().zip([spreads.0, spreads.1]) {
        match spread {
            Spread::OwnResiduals { jobs, free, .. } => {
                cautions.push(CompareCaution::FewJobs { family, jobs, free, pooled: false });
            }
            Spread::PooledResiduals { jobs, free, .. } if jobs < JOBS_MIN => {
                cautions.push(CompareCaution::FewJobs { family, jobs, free, pooled: true });
            }
            _ => {}
        }
    }
    if ranges[0].1 < ranges[1].0 || ranges[1].1 < ranges[0].0 {
        cautions.push(CompareCaution::NoOverlap);
    }
    if a.law != b.law {
        cautions.push(CompareCaution::DifferentLaws);
    }
    Ok(Comparison {
        laws: (a.law, b.law),
        spreads,
        differences: differences(a, b, &thetas),
        at: options.at.iter().map(versus).collect(),
        crossover,
        shared_exponent: shared_exponent(a, b),
        cautions,
        draws: options.draws,
    })
}

#[cfg(test)]
mod tests;
