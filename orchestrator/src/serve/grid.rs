//! The grid of a sweep as a heat map: a row a model, a column a number of samples seen, a square a job.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::rows::{Rows, class_of};
use crate::report::number::{compact, significant};

/// Shades of the style sheet.
const SHADES: f64 = 10.0;

/// A square.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Cell {
    /// Key of the job.
    pub(super) key: String,
    pub(super) state: &'static str,
    /// The metric, where it was measured.
    pub(super) value: Option<f64>,
    pub(super) title: String,
}

impl Cell {
    pub(super) fn of(jobs: &Rows, row: usize) -> Cell {
        let value = jobs.real(row, "value").filter(|value| value.is_finite());
        let mut title = format!(
            "{}, D {}, {} unique, seed {}: {}",
            jobs.text(row, "model"),
            jobs.real(row, "d").map_or("?".to_owned(), compact),
            jobs.real(row, "data_size").map_or("?".to_owned(), compact),
            jobs.count(row, "seed"),
            jobs.text(row, "state")
        );
        if let Some(value) = value {
            title += &format!(", {}", significant(value, 4));
        }
        if !jobs.text(row, "reason").is_empty() {
            title += &format!(": {}", jobs.text(row, "reason"));
        }
        Cell { key: jobs.text(row, "job_key").to_owned(), state: class_of(jobs.text(row, "state")), value, title }
    }
}

/// Least and largest of the values.
fn range(cells: &[Cell]) -> Option<(f64, f64)> {
    let values = || cells.iter().filter_map(|cell| cell.value);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    (low <= high).then_some((low, high))
}

fn shade(value: f64, (low, high): (f64, f64)) -> u8 {
    if high > low { ((value - low) / (high - low) * SHADES).min(SHADES - 1.0) as u8 } else { (SHADES / 2.0) as u8 }
}

/// `metric`: what the colours are; empty: states alone.
pub(super) fn grid(jobs: &Rows, metric: &str) -> Markup {
    let cells: Vec<Cell> = (0..jobs.len()).map(|row| Cell::of(jobs, row)).collect();
    let range = range(&cells);
    // By bits, since floats of a column are equal or not: they are read, not computed.
    let order = |value: Option<f64>| value.map_or(0, |value| value.max(0.0).to_bits());
    let mut models: BTreeMap<(u64, &str), BTreeMap<(u64, u64), Vec<usize>>> = BTreeMap::new();
    let mut columns: BTreeMap<(u64, u64), (Option<f64>, Option<f64>)> = BTreeMap::new();
    for row in 0..jobs.len() {
        let (d, data) = (jobs.real(row, "d"), jobs.real(row, "data_size"));
        let column = (order(d), order(data));
        columns.insert(column, (d, data));
        let model = (order(jobs.real(row, "n")), jobs.text(row, "model"));
        models.entry(model).or_default().entry(column).or_default().push(row);
    }
    let shown = |value: Option<f64>| value.map_or("?".to_owned(), compact);
    html! {
        div #grid.wide data-metric=(metric) role="group" aria-label="Jobs: arrow keys move, Enter opens" {
            table.grid {
                thead { tr {
                    th scope="col" { "model \\ samples seen" br; span.quiet { "unique" } }
                    @for (d, data) in columns.values() { th scope="col" { (shown(*d)) br; span.quiet { (shown(*data)) } } }
                } }
                tbody { @for ((_, model), by_column) in &models { tr {
                    th scope="row" { (model) }
                    @for column in columns.keys() { td { @for row in by_column.get(column).into_iter().flatten() {
                        (square(&cells[*row], range))
                    } } }
                } } }
            }
        }
        (legend(range, metric))
    }
}

fn square(cell: &Cell, range: Option<(f64, f64)>) -> Markup {
    let class = match (cell.value, range) {
        (Some(value), Some(range)) => format!("c {} q{}", cell.state, shade(value, range)),
        _ => format!("c {}", cell.state),
    };
    html! {
        a class=(class) id=(format!("c-{}", &cell.key)) href=(format!("/job/{}", cell.key.get(..16).unwrap_or(&cell.key)))
          data-v=[cell.value] title=(cell.title) {}
    }
}

fn legend(range: Option<(f64, f64)>, metric: &str) -> Markup {
    html! {
        p.legend {
            @if !metric.is_empty() {
                span #low { @if let Some((low, _)) = range { (significant(low, 4)) } }
                span.scale aria-hidden="true" { @for shade in 0..SHADES as u8 { i class=(format!("c done q{shade}")) {} } }
                span #high { @if let Some((_, high)) = range { (significant(high, 4)) } }
                " " span.quiet { (metric) " at the end of each job" }
            }
            @for state in ["pending", "running", "done", "failed", "cancelled"] {
                span { i class=(format!("c {state}")) {} " " (state) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_span_the_range() {
        assert_eq!([0.0, 0.5, 0.999, 1.0].map(|value| shade(value, (0.0, 1.0))), [0, 5, 9, 9]);
        assert_eq!(shade(3.0, (3.0, 3.0)), 5);
    }
}
