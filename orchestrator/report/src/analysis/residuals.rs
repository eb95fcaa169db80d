//! Residuals of the points that a law goes through, and of rows held out.

use super::subject::{axis_title, range};
use super::{Material, Undrawable, words};
use crate::figures::residuals::{ResidualsAxis, ResidualsFigure};
use fit::{Axis, Observation};

/// The figure: ln(measured) − ln(law) against those of N, D, U and C that vary.
pub fn figure(of: Material<'_>) -> Result<ResidualsFigure, Undrawable> {
    let fit = of.fit;
    let fitted = fit.points.iter().map(|point| (&fit.observations[point.observation], false));
    let rows: Vec<(&Observation, bool)> = fitted.chain(of.held_out.iter().map(|row| (row, true))).collect();
    let varies = |axis: &Axis| range(rows.iter().map(|(row, _)| row.on(*axis))).is_some_and(|(low, high)| high > low);
    let axes: Vec<ResidualsAxis> = [Axis::N, Axis::D, Axis::U, Axis::C]
        .into_iter()
        .filter(varies)
        .map(|axis| ResidualsAxis {
            title: axis_title(axis, fit.compute),
            values: rows.iter().map(|(row, _)| row.on(axis)).collect(),
        })
        .collect();
    if axes.is_empty() {
        return Err(Undrawable::lacks("no axis varies among the rows", "widen --where"));
    }
    let held_out = if of.held_out.is_empty() { Vec::new() } else { rows.iter().map(|(_, held)| *held).collect() };
    Ok(ResidualsFigure {
        title: format!("{}: residuals", of.subject.name),
        law: format!("{}, {}: {}", fit.law, of.options.points, words::formula(fit)),
        residuals: rows.iter().map(|(row, _)| (row.error / fit.value(&row.input())).ln()).collect(),
        models: rows.iter().map(|(row, _)| row.model.clone()).collect(),
        held_out,
        jobs: rows.iter().map(|(row, _)| of.subject.place(row)).collect(),
        axes,
        noise: fit.noise.seed_variance.map(f64::sqrt),
    })
}
