//! How far the choice of points moves a law and its forecast.

use super::law::{abscissa, drawn};
use super::subject::{BEYOND, axis_title};
use super::words::interval;
use super::{Drawing, Material, Table, Undrawable};
use crate::figures::policies::{self, PoliciesFigure, Policy};
use crate::number::significant;
use fit::{Evaluation, Fit, FitError, Interval, Options, Points, Response, fit};

/// What is compared: every job, the Pareto front, and the 2022 study's rule for three to eight bins.
pub const POLICIES: [Points; 8] = [
    Points::All,
    Points::Pareto,
    Points::Bins(3),
    Points::Bins(4),
    Points::Bins(5),
    Points::Bins(6),
    Points::Bins(7),
    Points::Bins(8),
];

/// The figure, its numbers, and how far they lie apart in one sentence.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let refit = |points: Points| -> (Points, Result<Fit, FitError>) {
        if points == of.options.points {
            return (points, Ok(of.fit.clone()));
        }
        (points, fit(of.observations, &Options { points, ..of.options.clone() }))
    };
    let mut chosen = POLICIES.to_vec();
    if !chosen.contains(&of.options.points) {
        chosen.insert(0, of.options.points);
    }
    let fits: Vec<(Points, Result<Fit, FitError>)> = chosen.into_iter().map(refit).collect();
    let mut shown = Vec::new();
    let mut rows = Vec::new();
    for (points, fit) in &fits {
        match fit {
            Ok(fit) => {
                let law = drawn(fit, &points.to_string(), BEYOND)?;
                let forecast = fit.forecast(&of.target.input, Evaluation::AsObserved).law;
                let forecast = of.subject.shown_interval(forecast);
                rows.push(row(fit, *points, &forecast));
                shown.push(Policy { law, forecast });
            }
            Err(error) => rows.push(vec![points.to_string(), "no fit".to_owned(), error.to_string()]),
        }
    }
    let axis = abscissa(of.fit);
    let picture = policies::draw(&PoliciesFigure {
        title: format!("{}: what the choice of points does", of.subject.name),
        x: axis_title(axis, of.fit.compute),
        y: of.subject.ordinate(),
        forecast: format!("{}, {}", of.target.name, of.subject.shown_unit()),
        points: of.subject.points(of.fit, of.held_out, axis),
        policies: shown.clone(),
        reference: of.target.reference.clone(),
    })?;
    let head = ["points", "n", "law", "parameters", "forecast"].map(str::to_owned).to_vec();
    for row in &mut rows {
        row.resize(head.len(), String::new());
    }
    Ok(Drawing {
        picture,
        words: sentence(of, &shown).into_iter().collect(),
        table: Some(Table { head, numbers_from: 1, rows }),
    })
}

fn row(fit: &Fit, points: Points, forecast: &Interval) -> Vec<String> {
    vec![
        points.to_string(),
        fit.points.len().to_string(),
        super::words::formula(fit),
        super::words::intervals(fit),
        interval(forecast),
    ]
}

/// How far the forecasts lie apart, beside what one of them states as its uncertainty.
fn sentence(of: Material<'_>, policies: &[Policy]) -> Option<String> {
    let by_value = |a: &&Policy, b: &&Policy| a.forecast.value.total_cmp(&b.forecast.value);
    let finite = || policies.iter().filter(|policy| policy.forecast.value.is_finite());
    let (least, most) = (finite().min_by(by_value)?, finite().max_by(by_value)?);
    let mut widths: Vec<f64> = finite().map(|policy| policy.forecast.high - policy.forecast.low).collect();
    widths.retain(|width| width.is_finite());
    widths.sort_by(f64::total_cmp);
    let width = widths.get(widths.len() / 2).copied();
    let (unit, points) = match of.subject.response {
        Response::Fraction => (" %", " points"),
        Response::Loss => (" nats", " nats"),
    };
    let span = most.forecast.value - least.forecast.value;
    let beside = width.map_or(String::new(), |width| {
        format!(", where the median of their own 95 % intervals is {}{points} wide", significant(width, 2))
    });
    Some(format!(
        "For {} the choice of points alone moves the forecast from {}{unit} ({}) to {}{unit} ({}), by {}{points}{beside}.",
        of.target.name,
        significant(least.forecast.value, 4),
        least.law.name,
        significant(most.forecast.value, 4),
        most.law.name,
        significant(span, 2),
    ))
}
