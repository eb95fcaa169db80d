//! How narrow a forecast is for what the study costs: the same law on the cheapest runs, and on the dearest.

use super::{Material, Undrawable};
use crate::figures::budget::{BudgetFigure, BudgetSeries};
use crate::figures::data::Curve;
use fit::cost::Cost;
use fit::{Evaluation, FitError, Observation, Options, Response, fit};

/// Studies of each order.
const STUDIES: usize = 8;
/// Resamples behind a width.
const RESAMPLES: usize = 400;

/// The figure. Costs are GPU-hours where every row has them, else compute.
pub fn figure(of: Material<'_>) -> Result<BudgetFigure, Undrawable> {
    let rows = &of.fit.observations;
    let hours = rows.iter().all(|row| row.gpu_hours.is_some_and(|hours| hours > 0.0));
    let (costs, unit): (Vec<f64>, &str) = if hours {
        (rows.iter().map(|row| row.gpu_hours.unwrap_or(f64::NAN)).collect(), "GPU-hours")
    } else {
        let cost = Cost::compute(rows)?;
        (rows.iter().map(|row| cost.of_observation(row)).collect(), of.fit.compute.unit())
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
    let ways: [(&str, Vec<usize>); 2] =
        [("cheapest runs first", order.clone()), ("dearest runs first", order.into_iter().rev().collect())];
    let mut series = Vec::new();
    for (name, order) in ways {
        let curve = widths(of, &order, &costs)?;
        if !curve.x.is_empty() {
            series.push(BudgetSeries { name: name.to_owned(), curve });
        }
    }
    if series.is_empty() {
        return Err(Undrawable::lacks(
            "no part of the runs gives the law an interval",
            "let more jobs finish, or fit a law of fewer parameters: --law power",
        ));
    }
    let accuracy = match of.subject.response {
        Response::Fraction => {
            format!("width of the 95 % interval, points of {}", of.subject.error.trim_start_matches("error, 1 − "))
        }
        Response::Loss => "width of the 95 % interval, nats".to_owned(),
    };
    Ok(BudgetFigure {
        title: format!("{}: what a forecast of {} costs", of.subject.name, of.target.name),
        cost: format!("spent on the study, {unit}"),
        accuracy,
        series,
        target: None,
        spent: Some(costs.iter().sum::<f64>()).filter(|spent| spent.is_finite()),
    })
}

/// Width of the forecast's interval after more and more runs of an order.
fn widths(of: Material<'_>, order: &[usize], costs: &[f64]) -> Result<Curve, FitError> {
    let rows = &of.fit.observations;
    let options = Options { resamples: of.options.resamples.min(RESAMPLES), ..of.options.clone() };
    let least = (of.fit.free() + 4).min(order.len());
    let mut curve = Curve::none();
    let mut last = 0;
    for study in 0..STUDIES {
        let share = study as f64 / (STUDIES - 1) as f64;
        let runs = (least as f64 * (order.len() as f64 / least as f64).powf(share)).round() as usize;
        if runs == last {
            continue;
        }
        last = runs;
        let taken: Vec<Observation> = order[..runs].iter().map(|&row| rows[row].clone()).collect();
        // Few runs of one axis have no law; all of them have, or there would be no figure.
        let fitted = match fit(&taken, &options) {
            Ok(fitted) => fitted,
            Err(error) if runs == order.len() => return Err(error),
            Err(_) => continue,
        };
        let forecast = of.subject.shown_interval(fitted.forecast(&of.target.input, Evaluation::AsObserved).law);
        let width = forecast.high - forecast.low;
        if width.is_finite() && width > 0.0 {
            curve.x.push(order[..runs].iter().map(|&row| costs[row]).sum());
            curve.y.push(width);
        }
    }
    Ok(curve)
}
