//! Forecasts of the largest run by laws that saw ever more of the others.

use super::subject::range;
use super::{Material, Undrawable};
use crate::figures::backtest::{Fan, FanFigure, FanForecast};
use fit::{Axis, Evaluation, Fit, Interval, LawName, Observation, Options, fit};

/// Cuts at most.
const CUTS: usize = 7;
/// Resamples behind a forecast: its interval is read off a picture.
const RESAMPLES: usize = 400;
/// Computes that differ by less than this factor are one cut.
const SAME: f64 = 1.02;
/// Of a normal: half of a 95 % interval.
const HALF: f64 = 1.96;

/// The figure.
pub fn figure(of: Material<'_>) -> Result<FanFigure, Undrawable> {
    let rows = || of.observations.iter().filter(|row| row.compute.is_finite() && row.error > 0.0);
    let Some(last) = rows().max_by(|a, b| a.compute.total_cmp(&b.compute)) else {
        return Err(Undrawable::lacks(
            "no row says its compute",
            "choose a convention that the rows have with --compute",
        ));
    };
    let mut cuts: Vec<f64> = rows().map(|row| row.compute).filter(|c| *c < last.compute * 0.98).collect();
    cuts.sort_by(f64::total_cmp);
    cuts.dedup_by(|next, kept| *next <= *kept * SAME);
    let laws = laws(of.fit.law);
    let fans: Vec<Fan> = laws
        .into_iter()
        .map(|law| Fan { name: law.to_string(), forecasts: forecasts(of, law, last, &cuts) })
        .filter(|fan| !fan.forecasts.is_empty())
        .collect();
    if fans.is_empty() {
        return Err(Undrawable::lacks(
            format!("no cut leaves the law `{}` enough runs below the largest", of.fit.law),
            "let more jobs finish, or fit a law of fewer parameters: --law power",
        ));
    }
    let half = HALF * last.standard_error.unwrap_or(0.0);
    let seen = range([last.samples_seen].into_iter())
        .map_or(String::new(), |(seen, _)| format!(" on {} samples", crate::number::compact(seen)));
    Ok(FanFigure {
        title: format!("{}: back-test of {}{seen}", of.subject.name, last.model),
        x: format!("largest C in the fit, {}", of.fit.compute.unit()),
        y: format!("forecast of {}", of.subject.ordinate()),
        laws: fans,
        truth: Interval { value: last.error, low: last.error - half, high: last.error + half },
        truth_job: of.subject.place(last),
    })
}

/// The law asked for, and beside it the plain and the saturating law of compute.
fn laws(asked: LawName) -> Vec<LawName> {
    let mut laws = vec![asked];
    for other in [LawName::Power(Axis::C), LawName::Saturating(Axis::C)] {
        if !laws.contains(&other) {
            laws.push(other);
        }
    }
    laws
}

fn forecasts(of: Material<'_>, law: LawName, target: &Observation, cuts: &[f64]) -> Vec<FanForecast> {
    let frozen = if law == of.options.law { of.options.frozen.clone() } else { Vec::new() };
    let resamples = of.options.resamples.min(RESAMPLES);
    let options = Options { law, frozen, resamples, ..of.options.clone() };
    let tried = |&cut: &f64| {
        let rows: Vec<Observation> = of.observations.iter().filter(|row| row.compute <= cut * SAME).cloned().collect();
        // Two points more than parameters: of fewer, a forecast is the noise's.
        let fitted: Fit = fit(&rows, &options).ok().filter(|fit| fit.points.len() >= fit.parameters.len() + 2)?;
        let forecast = fitted.forecast(&target.input(), Evaluation::AsObserved).prediction;
        let at_cut = rows.iter().filter(|row| row.compute >= cut / SAME);
        let jobs = at_cut.filter_map(|row| of.subject.place(row)).collect();
        (forecast.value.is_finite()).then_some(FanForecast { cut, runs: rows.len(), jobs, forecast })
    };
    // Few rows can't be fitted: evenly spread are the cuts among those that may be.
    let first = cuts.iter().position(|cut| tried(cut).is_some()).unwrap_or(cuts.len());
    let usable = &cuts[first..];
    let count = usable.len().min(CUTS);
    let last = usable.len().saturating_sub(1);
    (0..count).filter_map(|i| tried(&usable[i * last / count.saturating_sub(1).max(1)])).collect()
}
