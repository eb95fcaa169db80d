//! The grid of a sweep as a heat map: a row a model, a column a number of samples seen, a square a job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use maud::{Markup, PreEscaped, Render, html};

use super::rows::{Rows, class_of};
use crate::report::number::{compact, significant};

/// Digits of a job's key that tell it from all others here.
const DIGITS: usize = 16;
/// Squares up to which each says what it is: of more, words would be most of the page.
const TITLED: usize = 3000;
/// Shades of the style sheet.
const SHADES: f64 = 10.0;

/// A square.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Cell {
    /// First digits of the job's key.
    pub(super) key: String,
    pub(super) state: &'static str,
    /// The metric, where it was measured.
    pub(super) value: Option<f64>,
    pub(super) title: String,
}

impl Cell {
    pub(super) fn of(jobs: &Rows, row: usize) -> Cell {
        let value = jobs.real(row, "value").filter(|value| value.is_finite());
        Cell {
            key: first_digits(jobs.text(row, "job_key")).to_owned(),
            state: class_of(jobs.text(row, "state")),
            value,
            title: title(jobs, row, value),
        }
    }
}

fn first_digits(key: &str) -> &str {
    key.get(..DIGITS).unwrap_or(key)
}

fn title(jobs: &Rows, row: usize, value: Option<f64>) -> String {
    let mut title = format!(
        "{}, D {}, {} unique, seed {}: {}",
        jobs.text(row, "model"),
        jobs.real(row, "d").map_or("?".to_owned(), compact),
        jobs.real(row, "data_size").map_or("?".to_owned(), compact),
        jobs.count(row, "seed"),
        jobs.text(row, "state")
    );
    if let Some(value) = value {
        title = format!("{title}, {}", significant(value, 4));
    }
    if !jobs.text(row, "reason").is_empty() {
        title = format!("{title}: {}", jobs.text(row, "reason"));
    }
    title
}

/// Least and largest of the values.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    (low <= high).then_some((low, high))
}

fn shade(value: f64, (low, high): (f64, f64)) -> u8 {
    if high > low { ((value - low) / (high - low) * SHADES).min(SHADES - 1.0) as u8 } else { (SHADES / 2.0) as u8 }
}

/// Values of an axis closer than this are one column: published tables round them differently.
const SAME: f64 = 1.1;

/// Least and largest of each group of values that are nearly the same, ascending.
fn groups(jobs: &Rows, column: &str) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = (0..jobs.len()).filter_map(jobs.reals(column)).collect();
    values.sort_by(f64::total_cmp);
    let mut groups: Vec<(f64, f64)> = Vec::new();
    for value in values {
        match groups.last_mut() {
            Some((low, high)) if value <= *low * SAME => *high = value,
            _ => groups.push((value, value)),
        }
    }
    groups
}

/// The group of a value; that of what is not known is behind all.
fn group_of(groups: &[(f64, f64)], value: Option<f64>) -> usize {
    let found = |value: f64| groups.partition_point(|(_, high)| *high < value);
    value.map_or(groups.len(), found)
}

/// Rows of jobs by the groups of D and of unique samples.
type ByColumn = BTreeMap<(usize, usize), Vec<usize>>;

/// `metric`: what the colours are; empty: states alone.
pub(super) fn grid(jobs: &Rows, metric: &str) -> Markup {
    let (n_of, d_of, size_of) = (jobs.reals("n"), jobs.reals("d"), jobs.reals("data_size"));
    let (model_of, value_of) = (jobs.texts("model"), jobs.reals("value"));
    let range = range((0..jobs.len()).filter_map(&value_of).filter(|value| value.is_finite()));
    let (ds, sizes) = (groups(jobs, "d"), groups(jobs, "data_size"));
    let mut models: BTreeMap<(u64, &str), ByColumn> = BTreeMap::new();
    let mut columns: BTreeSet<(usize, usize)> = BTreeSet::new();
    for row in 0..jobs.len() {
        let column = (group_of(&ds, d_of(row)), group_of(&sizes, size_of(row)));
        columns.insert(column);
        // Floats above zero are in the order of their bits.
        let n = n_of(row).map_or(0, |n| n.max(0.0).to_bits());
        models.entry((n, model_of(row))).or_default().entry(column).or_default().push(row);
    }
    let (key_of, state_of) = (jobs.texts("job_key"), jobs.texts("state"));
    let is_titled = jobs.len() <= TITLED;
    // Most of a large page, so they are written without detours: keys are digits, and states are ours.
    let squares = |rows: &[usize]| {
        let mut marks = String::with_capacity(64 * rows.len());
        for &row in rows {
            let _ = write!(marks, "<a class=\"c {}", class_of(state_of(row)));
            let value = value_of(row).filter(|value| value.is_finite());
            if let Some((value, range)) = value.zip(range) {
                let _ = write!(marks, " q{}\" data-v=\"{}", shade(value, range), value as f32);
            }
            let _ = write!(marks, "\" href=\"/job/{}\"", first_digits(key_of(row)));
            if is_titled {
                let _ = write!(marks, " title=\"{}\"", title(jobs, row, value).render().into_string());
            }
            marks.push_str("></a>");
        }
        PreEscaped(marks)
    };
    let shown = |groups: &[(f64, f64)], group: usize| match groups.get(group) {
        None => "?".to_owned(),
        Some((low, high)) if compact(*low) == compact(*high) => compact(*low),
        Some((low, high)) => format!("{} to {}", compact(*low), compact(*high)),
    };
    html! {
        div #grid.wide data-metric=(metric) role="group" aria-label="Jobs: arrow keys move, Enter opens" {
            table.grid {
                thead { tr {
                    th scope="col" { "model \\ samples seen" br; span.quiet { "unique" } }
                    @for (d, size) in &columns { th scope="col" { (shown(&ds, *d)) br; span.quiet { (shown(&sizes, *size)) } } }
                } }
                tbody { @for ((_, model), by_column) in &models { tr {
                    th scope="row" { (model) }
                    @for column in &columns { td { @if let Some(rows) = by_column.get(column) { (squares(rows)) } } }
                } } }
            }
        }
        (legend(range, metric))
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
