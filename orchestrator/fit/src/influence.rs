//! What one job does to a fit: the law without it, in units of the standard error that the other jobs give.
//!
//! Deletion diagnostics (Cook and Weisberg 1982, section 3.2), by refitting rather than to first order, since laws are
//! not linear and points are selected anew. The standard error is the jackknife's over the jobs that stay (Efron and
//! Tibshirani 1993, equation 11.5): one with the job itself in it grows with the job's own pull, and no job ever
//! exceeds it.
//!
//! One deletion does not see outliers that hide each other; [`peel`] takes the most influential job away, looks again
//! at what is left, and so on (the five outliers of Chinchilla's figure 4 move beta from 0.37 to 0.45 together).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use crate::distribution::t_two_sided;
use crate::interval::ALPHA;
use crate::law::{Input, Law, Scale};
use crate::points::select;
use crate::prepare::one_value;
use crate::sample::Sample;
use crate::solve::{self, Minimum, Problem};
use crate::{Fit, Options};

/// A number with and without some jobs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// The parameter, as in the law's formula; of a forecast, `E`.
    pub name: &'static str,
    /// Of all jobs, natural scale.
    pub with: f64,
    /// Without the jobs left out, natural scale.
    pub without: f64,
    /// Change in standard errors of the jobs that stay: of a parameter on the scale it is fitted on (the logarithm,
    /// where it must be above zero), of a forecast in ln E. `None` where they have none: an exact fit.
    pub in_errors: Option<f64>,
}

/// What leaving out some jobs does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// The jobs left out.
    pub job_keys: Vec<String>,
    /// Their models, each once.
    pub models: Vec<String>,
    /// The law's parameters in its order; empty where the rest can't be fitted.
    pub parameters: Vec<Shift>,
    /// Of the forecast, if one was asked for.
    pub forecast: Option<Shift>,
    /// Degrees of freedom of the standard errors: the jobs that stay less the parameters that are fitted.
    pub degrees: usize,
    /// Why the rest can't be fitted.
    pub unfit: Option<&'static str>,
}

impl Effect {
    /// What it is sorted by: the forecast's change, or else the largest of a parameter's, in standard errors. Infinite
    /// where the rest can't be fitted.
    pub fn size(&self) -> f64 {
        if self.unfit.is_some() {
            return f64::INFINITY;
        }
        let size = |shift: &Shift| shift.in_errors.map_or(0.0, f64::abs);
        match &self.forecast {
            Some(forecast) => size(forecast),
            None => self.parameters.iter().map(size).fold(0.0, f64::max),
        }
    }

    /// Whether the forecast moves by more than half the width of the 95 % interval that the other jobs give it:
    /// Student's t times their standard error.
    pub fn outweighs_interval(&self) -> bool {
        self.of_half_width().is_some_and(|share| share > 1.0)
    }

    fn of_half_width(&self) -> Option<f64> {
        self.forecast.as_ref()?.in_errors.map(|errors| errors.abs() / t_two_sided(ALPHA, self.degrees))
    }

    fn who(&self) -> String {
        let keys: Vec<String> = self.job_keys.iter().map(|key| key.chars().take(12).collect()).collect();
        let noun = if keys.len() == 1 { "job" } else { "jobs" };
        format!("{noun} {} ({})", keys.join(", "), self.models.join(", "))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who();
        if let Some(why) = self.unfit {
            return write!(f, "without {who} the law can't be fitted: {why}");
        }
        let largest = || self.parameters.iter().max_by(|a, b| size_of(a).total_cmp(&size_of(b)));
        let Some(shift) = self.forecast.as_ref().or_else(largest) else { return write!(f, "without {who}") };
        write!(f, "without {who} {} goes from {:.4} to {:.4}", shift.name, shift.with, shift.without)?;
        match (self.of_half_width(), shift.in_errors) {
            (Some(share), _) => write!(f, ", {share:.1} times half of the 95 % interval that the other jobs give"),
            (None, Some(errors)) => write!(f, ", {errors:+.1} standard errors"),
            (None, None) => Ok(()),
        }
    }
}

fn size_of(shift: &Shift) -> f64 {
    shift.in_errors.map_or(0.0, f64::abs)
}

/// What each job does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Influence {
    /// One a job, the most influential first.
    pub effects: Vec<Effect>,
    /// Where a single job moves the forecast by more than half the width of its interval: who, and by how much.
    pub caution: Option<String>,
}

/// Leaves out each job of `fit` in turn. `options` are those it was fitted with; `forecast` is where it will be used.
pub fn influence(fit: &Fit, options: &Options, forecast: Option<&Input>) -> Influence {
    let base = Base::new(fit, options, forecast);
    let mut effects: Vec<Effect> = base.alone.iter().map(|(key, change)| base.effect(&set([*key]), change)).collect();
    effects.sort_by(|a, b| b.size().total_cmp(&a.size()).then_with(|| a.job_keys.cmp(&b.job_keys)));
    let heavy: Vec<&Effect> = effects.iter().filter(|effect| effect.outweighs_interval()).collect();
    let caution = heavy.first().map(|effect| {
        let more = match heavy.len() {
            1 => String::new(),
            several => format!("; so with {} more jobs, each alone", several - 1),
        };
        format!("the forecast rests on single jobs: {effect}{more}")
    });
    Influence { effects, caution }
}

/// Takes the job away whose leaving moves the fit most, looks again at those left, and so on: `steps` times, or until
/// the law can't be fitted. Each effect is of all jobs taken so far, against the whole fit.
pub fn peel(fit: &Fit, options: &Options, forecast: Option<&Input>, steps: usize) -> Vec<Effect> {
    let base = Base::new(fit, options, forecast);
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    let mut last = vec![0.0; base.numbers()];
    let mut peeled: Vec<Effect> = Vec::new();
    for _ in 0..steps {
        let next = if gone.is_empty() { base.alone.clone() } else { base.one_more(&gone) };
        let fitted: Vec<(&str, Vec<f64>)> =
            next.into_iter().filter_map(|(key, change)| change.ok().map(|change| (key, change))).collect();
        let spreads: Vec<f64> = (0..base.numbers())
            .map(|at| fitted.iter().map(|(_, change)| (change[at] - last[at]).powi(2)).sum::<f64>())
            .collect();
        // The share of all movement that is this job's, on the number where it is largest.
        let step = |change: &[f64]| {
            let share = |at: usize| (change[at] - last[at]).powi(2) / spreads[at];
            let range = if base.target.is_some() { base.numbers() - 1..base.numbers() } else { 0..base.numbers() };
            range.map(share).filter(|share| share.is_finite()).fold(0.0, f64::max)
        };
        let most = fitted.iter().max_by(|a, b| step(&a.1).total_cmp(&step(&b.1)).then_with(|| b.0.cmp(a.0)));
        let Some((key, change)) = most else { break };
        gone.insert(*key);
        peeled.push(base.effect(&gone, &Ok(change.clone())));
        last.clone_from(change);
    }
    peeled
}

/// Leaves out all of these jobs at once.
pub fn without(fit: &Fit, options: &Options, forecast: Option<&Input>, job_keys: &[&str]) -> Effect {
    let base = Base::new(fit, options, forecast);
    let out = set(job_keys.iter().copied());
    base.effect(&out, &base.change(&out))
}

fn set<'a>(keys: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    keys.into_iter().collect()
}

/// Change of each internal parameter and, where there is a forecast, of its ln E; or why there is none.
type Change = Result<Vec<f64>, &'static str>;

/// What every refit is held against.
struct Base<'a> {
    fit: &'a Fit,
    options: &'a Options,
    law: Box<dyn Law>,
    frozen: Vec<Option<f64>>,
    /// Of each observation, as fitted.
    weights: Vec<f64>,
    /// Where the forecast is, and its ln E.
    target: Option<(Input, f64)>,
    /// Model of each job.
    jobs: BTreeMap<&'a str, &'a str>,
    /// What leaving out each job alone changes.
    alone: Vec<(&'a str, Change)>,
}

impl<'a> Base<'a> {
    fn new(fit: &'a Fit, options: &'a Options, forecast: Option<&Input>) -> Base<'a> {
        let law = fit.form();
        let theta = &fit.solution.best.theta;
        let held = fit.parameters.iter().zip(theta);
        let frozen = held.map(|(parameter, value)| parameter.frozen.then_some(*value)).collect();
        let target = forecast.map(|at| (*at, law.ln_at(theta, at)));
        let jobs = fit.observations.iter().map(|row| (row.job_key.as_str(), row.model.as_str())).collect();
        let weights = fit.row_weights();
        let mut base = Base { fit, options, law, frozen, weights, target, jobs, alone: Vec::new() };
        base.alone = base.one_more(&BTreeSet::new());
        base
    }

    /// Length of a [`Change`].
    fn numbers(&self) -> usize {
        self.frozen.len() + usize::from(self.target.is_some())
    }

    /// Leaves out each job left, besides those gone.
    fn one_more(&self, gone: &BTreeSet<&str>) -> Vec<(&'a str, Change)> {
        let left: Vec<&'a str> = self.jobs.keys().copied().filter(|key| !gone.contains(key)).collect();
        let change = |key: &'a str| {
            let mut out = gone.clone();
            out.insert(key);
            (key, self.change(&out))
        };
        left.into_par_iter().map(change).collect()
    }

    fn change(&self, out: &BTreeSet<&str>) -> Change {
        let minimum = refit(self, out)?;
        let theta = &self.fit.solution.best.theta;
        let forecast = self.target.map(|(at, ln_e)| self.law.ln_at(&minimum.theta, &at) - ln_e);
        Ok(minimum.theta.iter().zip(theta).map(|(after, before)| after - before).chain(forecast).collect())
    }

    /// Jackknife standard error of a number over the jobs that stay.
    fn error(&self, out: &BTreeSet<&str>, at: usize) -> Option<f64> {
        let stay = self.alone.iter().filter(|(key, _)| !out.contains(key));
        let changes: Vec<f64> = stay.filter_map(|(_, change)| change.as_ref().ok().map(|change| change[at])).collect();
        let count = changes.len() as f64;
        let mean = changes.iter().sum::<f64>() / count;
        let error = ((count - 1.0) / count * changes.iter().map(|change| (change - mean).powi(2)).sum::<f64>()).sqrt();
        (error.is_finite() && error > 1e-10).then_some(error)
    }

    fn effect(&self, out: &BTreeSet<&str>, change: &Change) -> Effect {
        let models = set(out.iter().filter_map(|key| self.jobs.get(key).copied()));
        let effect = Effect {
            job_keys: out.iter().map(|key| (*key).to_owned()).collect(),
            models: models.into_iter().map(str::to_owned).collect(),
            parameters: Vec::new(),
            forecast: None,
            degrees: (self.jobs.len() - out.len()).saturating_sub(self.fit.free()),
            unfit: None,
        };
        let change = match change {
            Ok(change) => change,
            Err(why) => return Effect { unfit: Some(why), ..effect },
        };
        let shift = |name: &'static str, scale: Scale, before: f64, at: usize| Shift {
            name,
            with: natural(scale, before),
            without: natural(scale, before + change[at]),
            in_errors: self.error(out, at).map(|error| change[at] / error),
        };
        let theta = &self.fit.solution.best.theta;
        let parameters = self.law.parameters().iter().enumerate();
        Effect {
            parameters: parameters.map(|(at, one)| shift(one.name, one.scale, theta[at], at)).collect(),
            forecast: self.target.map(|(_, ln_e)| shift("E", Scale::Log, ln_e, self.frozen.len())),
            ..effect
        }
    }
}

fn natural(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.exp(),
    }
}

/// The minimum without some jobs, from that of all.
fn refit(base: &Base<'_>, out: &BTreeSet<&str>) -> Result<Minimum, &'static str> {
    let law = base.law.as_ref();
    let all = &base.fit.observations;
    let left: Vec<usize> = (0..all.len()).filter(|&row| !out.contains(all[row].job_key.as_str())).collect();
    let observations: Vec<_> = left.iter().map(|&row| all[row].clone()).collect();
    let pairs: Vec<(f64, f64)> = observations.iter().map(|row| (row.compute, row.error)).collect();
    let points = select(base.options.points, &pairs);
    let free = base.frozen.iter().filter(|held| held.is_none()).count();
    if points.len() <= free {
        return Err("too few points are left");
    }
    let mut sample = Sample::of(&observations, &points);
    for (weight, point) in sample.weights.iter_mut().zip(&points) {
        *weight = base.weights[left[point.observation]];
    }
    one_value(law, &sample).map_err(|_| "what is left has one value only on an axis of the law")?;
    let problem = Problem {
        frozen: &base.frozen,
        method: &base.options.method,
        ..Problem::new(law, &sample, base.fit.objective)
    };
    let mut minimum = solve::refit(&problem, &base.fit.solution.best.theta);
    if !minimum.ending.is_minimum() {
        let searched = solve::solve(&problem, base.options.starts, base.options.seed).best;
        if searched.value < minimum.value {
            minimum = searched;
        }
    }
    if base.options.method.was_cut() {
        return Err("its time was used up");
    }
    if minimum.theta.iter().all(|value| value.is_finite()) { Ok(minimum) } else { Err("no minimum was found") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::backtest::tests::{curve, row, study};
    use crate::law::{Axis, LawName};
    use crate::observation::{Observation, Response};
    use crate::{Objective, fit};

    fn options(law: &str, objective: Objective) -> Options {
        Options { law: law.parse().unwrap(), objective, starts: 8, resamples: 0, ..Options::new(Response::Loss) }
    }

    fn key(job: usize) -> String {
        format!("{job:064x}")
    }

    #[test]
    fn an_outlier_is_named_first_and_its_sign_is_right() {
        let mut rows = curve(0.01, 1e30, 3);
        rows[23].error *= 1.3;
        let options = options("power", Objective::LS_LOG);
        let whole = fit(&rows, &options).unwrap();
        let at = Input::on(Axis::C, 1e22);
        let found = influence(&whole, &options, Some(&at));
        assert_eq!(found.effects.len(), 24);
        assert_eq!(found.effects[0].job_keys, [key(23)]);
        assert!(found.effects.windows(2).all(|pair| pair[0].size() >= pair[1].size()));
        // Without a row that lies too high at the far end the line falls faster.
        let first = &found.effects[0];
        let (alpha, forecast) = (&first.parameters[1], first.forecast.as_ref().unwrap());
        assert!(alpha.name == "alpha" && alpha.without < alpha.with && alpha.in_errors.unwrap() < -0.5);
        assert!(forecast.without < forecast.with && (alpha.without + 0.1).abs() < 0.01);
        let same = without(&whole, &options, Some(&at), &[&key(23)]);
        assert_eq!(&same, first);
    }

    #[test]
    fn a_forecast_that_rests_on_one_job_is_said_to() {
        // One job far out decides the slope.
        let mut rows: Vec<Observation> = (0..8).map(|i| row(i, 1e8, 1e9 * (1.0 + 0.01 * i as f64), 1e9, 0.5)).collect();
        for (index, row) in rows.iter_mut().enumerate() {
            row.error *= 1.0 + 0.002 * (index as f64 * 1.9).sin();
        }
        rows.push(row(8, 1e8, 1e12, 1e9, 0.3));
        let options = options("power", Objective::LS_LOG);
        let whole = fit(&rows, &options).unwrap();
        let found = influence(&whole, &options, Some(&Input::on(Axis::C, 1e22)));
        assert_eq!(found.effects[0].job_keys, [key(8)]);
        let caution = found.caution.unwrap();
        assert!(
            caution.starts_with("the forecast rests on single jobs: without job 000000000000 (M-100000000)"),
            "{caution}"
        );
        // Of 8 jobs and 2 parameters: t of 6, not the normal's 1.96.
        let first = &found.effects[0];
        assert_eq!(first.degrees, 6);
        let share = first.forecast.as_ref().unwrap().in_errors.unwrap().abs() / 2.446_911_85;
        assert!((first.of_half_width().unwrap() / share - 1.0).abs() < 1e-6);
        let even = curve(0.02, 1e30, 3);
        let whole = fit(&even, &options).unwrap();
        assert_eq!(influence(&whole, &options, Some(&Input::on(Axis::C, 1e20))).caution, None);
    }

    #[test]
    fn outliers_that_hide_each_other_are_peeled() {
        let mut rows = curve(0.003, 1e30, 4);
        let bad = [22, 23];
        for &job in &bad {
            rows[job].error *= 1.3;
        }
        let options = options("power", Objective::LS_LOG);
        let whole = fit(&rows, &options).unwrap();
        let peeled = peel(&whole, &options, None, 2);
        assert!(peeled.iter().enumerate().all(|(step, effect)| effect.job_keys.len() == step + 1));
        assert_eq!(peeled[1].job_keys, bad.map(key));
        let together = without(&whole, &options, None, &bad.map(key).each_ref().map(String::as_str));
        assert_eq!(&together, &peeled[1]);
        assert!(
            (together.parameters[1].without + 0.1).abs() < 2e-3 && together.parameters[1].in_errors.unwrap() < -2.0
        );
    }

    #[test]
    fn order_does_not_matter_and_nothing_panics_on_what_is_left() {
        let mut rows = study(0.01, 2);
        let options = options("power", Objective::huber(1e-3));
        let a = influence(&fit(&rows, &options).unwrap(), &options, None);
        rows.reverse();
        assert_eq!(a, influence(&fit(&rows, &options).unwrap(), &options, None));
        let three: Vec<Observation> = curve(0.01, 1e30, 1).into_iter().step_by(8).collect();
        let whole = fit(&three, &options).unwrap();
        let found = influence(&whole, &options, None);
        assert!(found.effects.iter().all(|effect| effect.unfit == Some("too few points are left")));
        assert!(found.effects[0].to_string().contains("can't be fitted: too few points"), "{}", found.effects[0]);
    }

    /// Besiroglu et al.'s reading of Chinchilla's figure 4 (245 rows, the five highest losses outliers).
    fn chinchilla_rows() -> Option<Vec<Observation>> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/epoch_chinchilla_svg_extracted.csv");
        let text = std::fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next()?.split(',').collect();
        let column = |name: &str| header.iter().position(|cell| cell.eq_ignore_ascii_case(name));
        let (n, c, loss) = (column("Model Size")?, column("Training FLOP")?, column("loss")?);
        let rows = lines.enumerate().filter_map(|(job, line)| {
            let cells: Vec<f64> = line.split(',').map(|cell| cell.trim().parse().unwrap_or(f64::NAN)).collect();
            Some(row(job, *cells.get(n)?, cells.get(c)? / 6.0 / cells.get(n)?, 1e15, *cells.get(loss)?))
        });
        Some(rows.collect())
    }

    #[allow(clippy::print_stderr)] // A skipped test says so.
    #[test]
    fn five_outliers_of_chinchilla_move_beta() {
        let Some(rows) = chinchilla_rows() else {
            eprintln!("skipped: shared/data/epoch_chinchilla_svg_extracted.csv is not here");
            return;
        };
        let options = options("chinchilla", Objective::huber(1e-3));
        let whole = fit(&rows, &options).unwrap();
        assert_eq!((whole.law, whole.points.len()), (LawName::Chinchilla, 245));
        let mut worst: Vec<&Observation> = rows.iter().collect();
        worst.sort_by(|a, b| b.error.total_cmp(&a.error));
        let keys: Vec<&str> = worst[..5].iter().map(|row| row.job_key.as_str()).collect();
        let effect = without(&whole, &options, None, &keys);
        let beta = effect.parameters.iter().find(|shift| shift.name == "beta").unwrap();
        assert!((beta.with - 0.453).abs() < 1e-3 && (beta.without - 0.3672).abs() < 1e-3, "{beta:?}");
        let alone = influence(&whole, &options, None);
        let first: Vec<&str> = alone.effects[..10].iter().map(|effect| effect.job_keys[0].as_str()).collect();
        let found = keys.iter().filter(|key| first.contains(key)).count();
        assert!(found >= 3, "{found} of the five among the first ten: {:?}", alone.effects[0]);
    }
}
