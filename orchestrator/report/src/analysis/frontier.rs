//! The best N, D and U for a compute.

use super::law::limits;
use super::subject::{range, steps};
use super::words::{interval, minus};
use super::{Drawing, Material, Table, Undrawable};
use crate::figures::data::{Curve, Law};
use crate::figures::frontier::{self as figure, FrontierFigure, FrontierPanel};
use crate::number::{compact, scientific, significant, superscript};
use fit::cost::Cost;
use fit::frontier::{Allocation, frontier};
use fit::{Axis, Fit, Interval};

/// Budgets, from the least compute seen to a hundred times the most.
const BUDGETS: usize = 13;
const BEYOND: f64 = 100.0;

/// A column of the table and a panel of the figure.
type Part = fn(&Allocation) -> Option<Interval>;

/// The figure, with a table of budgets.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let fit = of.fit;
    needs_n_and_d(fit, "a frontier")?;
    let cost = Cost::compute(&fit.observations)?;
    let prices = fit.observations.iter().map(|row| cost.of_observation(row));
    let Some((least, most)) = range(prices) else {
        return Err(Undrawable::lacks("no row has a price", "choose a convention that the rows have with --compute"));
    };
    let limits = limits(fit, &fit.observations);
    let found = frontier(fit, &cost, &steps((least, most * BEYOND), BUDGETS), limits)?;
    let panel = |symbol: &str, title: String, counts: bool, part: Part| {
        let shown: Vec<(f64, Interval)> =
            found.allocations.iter().filter_map(|one| Some((one.budget, part(one)?))).collect();
        let (first, last) = (shown.first()?, shown.last()?);
        let exponent = (last.1.value / first.1.value).ln() / (last.0 / first.0).ln();
        let factor = first.1.value / first.0.powf(exponent);
        let curve = Curve {
            x: shown.iter().map(|one| one.0).collect(),
            y: shown.iter().map(|one| one.1.value).collect(),
            low: shown.iter().map(|one| one.1.low).collect(),
            high: shown.iter().map(|one| one.1.high).collect(),
        };
        let raised = superscript(&significant(exponent, 3));
        let stated = found.exponent.as_ref().filter(|_| symbol == "N");
        let law = Law {
            name: fit.law.to_string(),
            formula: format!("{symbol} ≈ {} · C{raised}", minus(&significant(factor, 3))),
            interval: stated.map_or(String::new(), |exponent| format!("exponent {}", interval(exponent))),
            curve,
            fitted_to: most,
        };
        Some(FrontierPanel { y: title, counts, lines: vec![law], cap: None, marks: Vec::new() })
    };
    let mut panels: Vec<FrontierPanel> = [
        panel("N", "best N, parameters".to_owned(), true, |one| one.parameters),
        panel("D", "best D, samples seen".to_owned(), true, |one| one.samples_seen),
        panel("U", "best U, unique samples".to_owned(), true, |one| one.unique_samples),
        panel("E", of.subject.error.clone(), false, |one| Some(one.error)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let (Some(most), Some(unique)) =
        (limits.unique_max, panels.iter_mut().find(|panel| panel.y.starts_with("best U")))
    {
        unique.cap = Some((most, "the most unique samples seen".to_owned()));
    }
    let picture = figure::draw(&FrontierFigure {
        title: format!("{}: the frontier by {}", of.subject.name, fit.law),
        budget: format!("C, {}", found.currency.unit()),
        panels,
    })?;
    Ok(Drawing {
        picture,
        words: found.notes.iter().map(|note| note.to_string() + ".").collect(),
        table: Some(table(&found.allocations)),
    })
}

fn table(allocations: &[Allocation]) -> Table {
    let large = |interval: &Option<Interval>| {
        interval.map_or(String::new(), |interval| {
            format!("{} [{}, {}]", compact(interval.value), compact(interval.low), compact(interval.high))
        })
    };
    let row = |one: &Allocation| {
        vec![
            scientific(one.budget),
            large(&one.parameters),
            large(&one.samples_seen),
            large(&one.samples_per_parameter),
            interval(&one.error),
            one.edge.map_or(String::new(), place),
        ]
    };
    Table {
        head: ["C", "best N", "best D", "D/N", "E", "best N is"].map(str::to_owned).to_vec(),
        numbers_from: 0,
        rows: allocations.iter().map(row).collect(),
    }
}

fn place(edge: fit::frontier::Edge) -> String {
    use fit::frontier::Edge;
    match edge {
        Edge::Inside => "among those seen",
        Edge::BelowObserved => "below those seen",
        Edge::AboveObserved => "above those seen",
        Edge::AtLeast => "at the least allowed",
        Edge::AtMost => "at the most allowed",
    }
    .to_owned()
}

/// A law of both N and D, or why not.
pub(super) fn needs_n_and_d(fit: &Fit, what: &str) -> Result<(), Undrawable> {
    let form = fit.form();
    if [Axis::N, Axis::D].iter().all(|axis| form.axes().contains(axis)) {
        return Ok(());
    }
    Err(Undrawable::lacks(
        format!("{what} needs a law of both N and D; `{}` is none", fit.law),
        "fit one: --law chinchilla, or --law additive for unique samples too",
    ))
}
