//! Which law: all laws and objectives side by side by what they forecast of rows they had not seen.
//!
//! Choosing the best of many by one hold-out does worse than keeping a good default (Alabdulmohsin et al.'s 92 curves:
//! M4 throughout 0.035, the best by an inner split 0.052, the best by three rolling cuts 0.046). So the default is
//! kept unless a rival's RMSLE is at most half of its own ([`SWITCH`]) over the same held-out rows, and lower at most
//! of the cuts, of which there must be [`CUTS_MIN`].

mod candidates;
mod likelihood;

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

pub use candidates::{LeftOut, WhyNot, default_law};
pub use likelihood::{Criteria, auto_delta, criteria, quadratic_share, residuals};

use crate::backtest::{BackTest, HoldOut, Scores, Split, backtest_below};
use crate::law::LawName;
use crate::observation::{self, Exclusion, Observation};
use crate::points::{self, select};
use crate::prepare::{known_ceiling, law_ends, one_convention, space_ends};
use crate::sample::Sample;
use crate::solve::{self, Problem, Status};
use crate::{EFFECT_MIN, FitError, Loss, Objective, Options, Response};

/// A rival takes the default's place when its held-out RMSLE is at most this share of the default's.
pub const SWITCH: f64 = 0.5;

/// Fewest cuts on which a default is given up: one lucky hold-out is no reason.
pub const CUTS_MIN: usize = 3;

/// What to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest {
    /// Laws; empty: all that the data have the axes for.
    pub laws: Vec<LawName>,
    /// Objectives; the first is the default's.
    pub objectives: Vec<Objective>,
    /// Also Huber's loss of ln y with [`auto_delta`] of each law's residuals from least absolute deviations.
    pub auto_delta: bool,
    /// The law that is kept unless beaten; `None`: [`default_law`].
    pub default: Option<LawName>,
    /// What is held out.
    pub hold_out: HoldOut,
    /// Points, response, starts and seed; its law, objective and held parameters do not count.
    pub options: Options,
}

impl Contest {
    /// All laws, by four objectives; intervals of held-out rows are left to [`backtest`](crate::backtest::backtest).
    pub fn new(split: Split, options: Options) -> Contest {
        Contest {
            laws: Vec::new(),
            objectives: vec![Objective::LS_LOG, Objective::huber(1e-3), Objective::LAD],
            auto_delta: true,
            default: None,
            hold_out: HoldOut { resamples: 0, ..HoldOut::new(split) },
            options,
        }
    }

    fn asked(&self) -> &[LawName] {
        if self.laws.is_empty() { LawName::ALL } else { &self.laws }
    }

    /// Whether the law, by some objective, ends at the error of guessing.
    fn ends_at_guessing(&self, law: LawName) -> bool {
        law_ends(law) || self.objectives.iter().copied().any(space_ends)
    }
}

/// A law with an objective, and its record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contender {
    /// The form.
    pub law: LawName,
    /// What was minimised.
    pub objective: Objective,
    /// Whether delta is [`auto_delta`]'s.
    pub auto_delta: bool,
    /// Over all held-out rows; `None` where no cut could be tested.
    pub held_out: Option<Scores>,
    /// Mean RMSLE of the cuts.
    pub mean_rmsle: Option<f64>,
    /// Cuts tested.
    pub cuts: usize,
    /// Cuts that could not be, with the reason.
    pub skipped: Vec<String>,
    /// RMSLE over the cuts shared with the default, as a share of the default's there.
    pub against_default: Option<f64>,
    /// Shared cuts at which its RMSLE is below the default's.
    pub cuts_won: usize,
    /// RMSLE over the rows it is fitted to, when fitted to all.
    pub in_sample_rmsle: f64,
    /// AICc and BIC of that fit; `None` where it is exact.
    pub criteria: Option<Criteria>,
    /// Of a Huber loss: share of the residuals in its quadratic zone.
    pub quadratic_share: Option<f64>,
    /// How that fit ended.
    pub status: Status,
}

/// The table and what it says.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// By held-out RMSLE, the least first; those that could not be tested last.
    pub contenders: Vec<Contender>,
    /// Laws that do not take part, and why.
    pub left_out: Vec<LeftOut>,
    /// The law that is kept unless beaten.
    pub default: LawName,
    /// The law to use.
    pub law: LawName,
    /// With this objective.
    pub objective: Objective,
    /// In words.
    pub sentence: String,
    /// Rows compared on.
    pub rows: usize,
    /// Rows left out, and why. All contenders see the same rows.
    pub excluded: Vec<Exclusion>,
}

impl Choice {
    /// Whether the default was beaten.
    pub fn is_switch(&self) -> bool {
        self.law != self.default
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// Compares. All contenders are trained and tested on the same rows at the same cuts: those that leave the law with
/// most parameters enough. Where one of them ends at the error of guessing, rows at or above it are left out for all.
/// The order of `observations` makes no difference.
pub fn choose(observations: &[Observation], contest: &Contest) -> Result<Choice, FitError> {
    one_convention(observations)?;
    let options = &contest.options;
    let needed =
        options.points.axes().iter().chain(contest.hold_out.split.axis().as_ref()).copied().collect::<Vec<_>>();
    let known_ceiling = known_ceiling(observations);
    if known_ceiling.is_none() && options.response == Response::Loss {
        // No law can be compared by such an objective; a law that ends there is left out alone.
        if let Some(&objective) = contest.objectives.iter().find(|&&objective| space_ends(objective)) {
            let law = contest.default.unwrap_or(contest.asked()[0]);
            return Err(FitError::NeedsCeiling { law, objective });
        }
    }
    let ceiling = known_ceiling.unwrap_or(1.0);
    let field = candidates::candidates(observations, contest, &needed, known_ceiling);
    let (mut rows, mut excluded) = observation::usable(observations, options.response, &field.axes);
    if field.laws.iter().any(|&law| contest.ends_at_guessing(law)) {
        rows = observation::below(ceiling, rows, &mut excluded);
    }
    let rows = points::candidates(options.points, rows);
    let default = contest.default.unwrap_or_else(|| default_law(&rows));
    let first = contest.objectives.first().copied().unwrap_or(Objective::LS_LOG);
    let hold_out = HoldOut { train_min: contest.hold_out.train_min.max(field.train_min), ..contest.hold_out.clone() };

    let entries: Vec<(LawName, Option<Objective>)> = field
        .laws
        .iter()
        .flat_map(|&law| {
            let auto = contest.auto_delta.then_some((law, None));
            contest.objectives.iter().map(move |&objective| (law, Some(objective))).chain(auto)
        })
        .collect();
    let played: Result<Vec<Option<Played>>, FitError> = entries
        .into_par_iter()
        .map(|(law, objective)| play(&rows, known_ceiling, law, objective, &hold_out, options))
        .collect();
    let played: Vec<Played> = played?.into_iter().flatten().collect();
    let champion = played.iter().find(|one| one.contender.law == default && one.contender.objective == first);
    let champion = champion.map(|one| one.record.clone());
    let mut contenders: Vec<Contender> = Vec::with_capacity(played.len());
    for Played { mut contender, record } in played {
        if let Some(champion) = &champion {
            (contender.against_default, contender.cuts_won) = compare(&record, champion);
        }
        contenders.push(contender);
    }
    let rmsle = |one: &Contender| one.held_out.as_ref().map_or(f64::INFINITY, |scores| scores.rmsle);
    contenders.sort_by(|a, b| rmsle(a).total_cmp(&rmsle(b)));
    let (law, objective, sentence) = verdict(&contenders, champion.as_ref(), default, first);
    Ok(Choice { contenders, left_out: field.left_out, default, law, objective, sentence, rows: rows.len(), excluded })
}

struct Played {
    contender: Contender,
    record: BackTest,
}

/// Fits and back-tests; `objective` `None` is Huber with its own delta. `None` where there is no such delta.
fn play(
    rows: &[Observation],
    known_ceiling: Option<f64>,
    name: LawName,
    objective: Option<Objective>,
    hold_out: &HoldOut,
    options: &Options,
) -> Result<Option<Played>, FitError> {
    let ceiling = known_ceiling.unwrap_or(1.0);
    let law = name.law(ceiling);
    let pairs: Vec<(f64, f64)> = rows.iter().map(|row| (row.compute, row.error)).collect();
    let sample = Sample::of(rows, &select(options.points, &pairs));
    let solve_by = |objective: Objective| {
        let objective = objective.with_ceiling(ceiling);
        let problem = Problem { method: &options.method, ..Problem::new(law.as_ref(), &sample, objective) };
        (solve::solve(&problem, options.starts, options.seed), problem)
    };
    let auto = objective.is_none();
    let objective = if let Some(objective) = objective {
        objective
    } else {
        let (robust, problem) = solve_by(Objective::LAD);
        let Some(delta) = auto_delta(&residuals(&problem, &robust.best.theta)) else { return Ok(None) };
        Objective::huber(delta)
    };
    let (solution, problem) = solve_by(objective);
    let theta = &solution.best.theta;
    let options = Options { law: name, objective, frozen: Vec::new(), ..options.clone() };
    let record = backtest_below(known_ceiling, rows, &options, hold_out)?;
    let misses = residuals(&Problem { objective: Objective::LS_LOG, ..problem }, theta);
    let delta = match objective.loss {
        Loss::Huber(delta) | Loss::Asymmetric { delta, .. } => Some(delta),
        Loss::Squares | Loss::Absolute => None,
    };
    let contender = Contender {
        law: name,
        objective: problem.objective,
        auto_delta: auto,
        held_out: record.pooled.clone(),
        mean_rmsle: record.mean_rmsle,
        cuts: record.cuts.len(),
        skipped: record.skipped.iter().map(ToString::to_string).collect(),
        against_default: None,
        cuts_won: 0,
        in_sample_rmsle: (misses.iter().map(|r| r * r).sum::<f64>() / misses.len() as f64).sqrt(),
        criteria: criteria(&problem, theta),
        quadratic_share: delta.and_then(|delta| quadratic_share(&residuals(&problem, theta), delta)),
        status: solution.status,
    };
    Ok(Some(Played { contender, record }))
}

/// RMSLE over the cuts that both have, as a share of the champion's; and the cuts won. `None` where they share fewer
/// than half of the champion's cuts, or the champion makes no error.
fn compare(record: &BackTest, champion: &BackTest) -> (Option<f64>, usize) {
    let shared: Vec<_> = record
        .cuts
        .iter()
        .filter_map(|cut| Some((cut, champion.cuts.iter().find(|other| other.place == cut.place)?)))
        .collect();
    let won = shared.iter().filter(|(cut, other)| other.scores.rmsle - cut.scores.rmsle > EFFECT_MIN).count();
    let own = Scores::of(shared.iter().map(|(cut, _)| cut.held.as_slice()));
    let others = Scores::of(shared.iter().map(|(_, other)| other.held.as_slice()));
    let ratio = match (own, others) {
        (Some(own), Some(others)) if 2 * shared.len() >= champion.cuts.len() && others.rmsle > EFFECT_MIN => {
            Some(own.rmsle / others.rmsle)
        }
        _ => None,
    };
    (ratio, won)
}

/// The law to use, its objective, and why.
fn verdict(
    contenders: &[Contender],
    champion: Option<&BackTest>,
    default: LawName,
    objective: Objective,
) -> (LawName, Objective, String) {
    let Some((champion, pooled)) = champion.and_then(|champion| Some((champion, champion.pooled.as_ref()?))) else {
        let why = match champion {
            Some(champion) => champion.to_string(),
            None => format!("{default} does not take part"),
        };
        return (default, objective, format!("{default} by {objective} is kept untested: {why}"));
    };
    let cuts = champion.cuts.len();
    let rivals = contenders.iter().filter(|one| !(one.law == default && one.objective == champion.objective));
    let best = rivals.filter_map(|one| Some((one, one.against_default?))).min_by(|a, b| a.1.total_cmp(&b.1));
    let kept = format!("{default} by {} is kept", champion.objective);
    let held = format!("RMSLE {:.4} over {} held-out rows at {cuts} cuts", pooled.rmsle, pooled.rows);
    match best {
        None => (default, objective, format!("{kept}: {held}, and nothing to compare it with")),
        Some((rival, ratio)) => {
            let name = format!("{} by {}", rival.law, rival.objective);
            let won = format!("{ratio:.2} times that, lower at {} of {} cuts", rival.cuts_won, rival.cuts);
            if ratio > SWITCH {
                return (default, objective, format!("{kept}: {held}; the best rival, {name}, has {won}"));
            }
            if rival.cuts.min(cuts) < CUTS_MIN || 2 * rival.cuts_won <= cuts {
                let few = "too few to go by";
                return (default, objective, format!("{kept}: {held}; {name} has {won}, {few}"));
            }
            let gives_way = format!("{default} by {} gives way to {name}", champion.objective);
            (rival.law, rival.objective, format!("{gives_way}: {held} against {won}"))
        }
    }
}

#[cfg(test)]
mod tests;
