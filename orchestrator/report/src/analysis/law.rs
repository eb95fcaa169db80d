//! A law over its points: along its own axis, or, for laws of several, what is best at each compute.

use super::subject::{BEYOND, axis_title, range, steps};
use super::{Material, Undrawable, words};
use crate::figures::data::{Curve, Law};
use crate::figures::law::LawFigure;
use fit::cost::Cost;
use fit::frontier::{Limits, frontier};
use fit::{Axis, Fit, Input, LawName, Observation, Prediction};

/// Points of a curve whose every ordinate is a search.
const FRONTIER_STEPS: usize = 17;
const STEPS: usize = 61;

/// The figure.
pub fn figure(of: Material<'_>) -> Result<LawFigure, Undrawable> {
    let axis = abscissa(of.fit);
    let law = drawn(of.fit, &name(of.fit, &of.options.points.to_string()), BEYOND)?;
    Ok(LawFigure {
        title: format!("{}: error against {}", of.subject.name, axis.describe()),
        x: axis_title(axis, of.fit.compute),
        y: of.subject.ordinate(),
        points: of.subject.points(of.fit, of.held_out, axis),
        laws: vec![law],
    })
}

/// A law's name in a legend.
pub(super) fn name(fit: &Fit, points: &str) -> String {
    let best = if fit.form().axes().len() > 1 { ", the best at each C" } else { "" };
    match fit.law {
        LawName::Power(_) => format!("power law, {points}"),
        law => format!("{law}, {points}{best}"),
    }
}

/// What a law is drawn against: its axis, or C if it has several.
pub(super) fn abscissa(fit: &Fit) -> Axis {
    match fit.form().axes() {
        [only] => *only,
        _ => Axis::C,
    }
}

/// A law's line with its band, from the least of its points to `beyond` times the most.
pub(super) fn drawn(fit: &Fit, name: &str, beyond: f64) -> Result<Law, Undrawable> {
    drawn_in(fit, name, beyond, STEPS)
}

/// The same in so many places, if it is a law of one axis.
pub fn drawn_in(fit: &Fit, name: &str, beyond: f64, places: usize) -> Result<Law, Undrawable> {
    let axis = abscissa(fit);
    let Some((low, high)) = range(fit.observations.iter().map(|row| row.on(axis))) else {
        return Err(Undrawable::lacks(
            format!("no row says its {}", axis.describe()),
            "choose a convention that the rows have with --compute",
        ));
    };
    let fitted_to = fit.points.iter().map(|point| fit.observations[point.observation].on(axis)).fold(0.0, f64::max);
    let curve = in_places(fit, axis, (low, high * beyond), places)?;
    Ok(Law { name: name.to_owned(), formula: words::formula(fit), interval: words::intervals(fit), curve, fitted_to })
}

/// The law with its 95 % interval over a range of the axis.
pub(super) fn along(fit: &Fit, axis: Axis, range: (f64, f64)) -> Result<Curve, Undrawable> {
    in_places(fit, axis, range, STEPS)
}

fn in_places(fit: &Fit, axis: Axis, range: (f64, f64), places: usize) -> Result<Curve, Undrawable> {
    let form = fit.form();
    let mut curve = Curve::none();
    if form.axes() == [axis] {
        for x in steps(range, places) {
            let place = Prediction { law: form.as_ref(), x: Input::on(axis, x) };
            let error = fit.interval_of(&place).map(f64::exp);
            curve.x.push(x);
            curve.y.push(error.value);
            curve.low.push(error.low);
            curve.high.push(error.high);
        }
        return Ok(curve);
    }
    let cost = Cost::compute(&fit.observations)?;
    let budgets = steps(range, FRONTIER_STEPS);
    for allocation in frontier(fit, &cost, &budgets, limits(fit, &fit.observations))?.allocations {
        curve.x.push(allocation.budget);
        curve.y.push(allocation.error.value);
        curve.low.push(allocation.error.low);
        curve.high.push(allocation.error.high);
    }
    Ok(curve)
}

/// The unique samples that there are bound laws that know them.
pub(super) fn limits(fit: &Fit, observations: &[Observation]) -> Limits {
    let most = range(observations.iter().map(|row| row.unique_samples)).map(|(_, most)| most);
    Limits { unique_max: most.filter(|_| fit.form().axes().contains(&Axis::U)), ..Limits::default() }
}
