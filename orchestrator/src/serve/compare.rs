//! Two sweeps side by side: cells that both have, by one metric, and all metrics that both have.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Html;
use maud::{Markup, PreEscaped, html};

use super::Site;
use super::page::{Refusal, page};
use super::plot::ticks;
use super::rows::{Rows, query_of};
use crate::report::number::{compact, significant};
use crate::store::page::{Table, Wanted};

pub(super) async fn compare(
    State(site): State<Arc<Site>>,
    Query(mut wanted): Query<Wanted>,
) -> Result<Html<String>, Refusal> {
    let both = [Table::CompareMetrics, Table::Compare, Table::Names];
    let [shared, mut cells, all] = site.read_side_by_side(both, &wanted).await?;
    for name in [&wanted.sweep, &wanted.against] {
        if !name.is_empty() {
            site.check_sweep(name).await?;
        }
    }
    let names: Vec<&str> = (0..all.len()).map(|row| all.text(row, "sweep")).collect();
    let metrics: Vec<String> = (0..shared.len()).map(|row| super::sweep::metric_name(&shared, row)).collect();
    if !metrics.contains(&wanted.metric) {
        wanted.metric = metrics.first().cloned().unwrap_or_default();
        cells = site.read_one(Table::Compare, &wanted).await?;
    }
    let chosen = !wanted.sweep.is_empty() && !wanted.against.is_empty();
    let content = html! {
        h1 { "Compare" @if chosen { " " (wanted.sweep) " with " (wanted.against) } }
        form.where action="/compare" {
            @for (field, value) in [("sweep", &wanted.sweep), ("against", &wanted.against)] {
                label { (field) " " select name=(field) { @for name in &names { option selected[name == value] { (name) } } } }
            }
            @if !metrics.is_empty() {
                label { "metric " select name="metric" { @for metric in &metrics { option selected[*metric == wanted.metric] { (metric) } } } }
            }
            button { "Compare" }
        }
        @if chosen && metrics.is_empty() {
            p { "They share no cell (model, samples seen and unique samples alike) that both have measured by one metric." }
        }
        @if !metrics.is_empty() {
            section {
                h2 { (wanted.metric) }
                p.lead { (in_words(&wanted, &shared)) }
                (figure(&wanted, &cells))
                (cells.table(&[]))
                p.quiet {
                    "Means over seeds. The error of a difference is one standard error: by how far seeds are apart where both sweeps have two or more, "
                    "else by the test items, where it is known."
                }
                (cells.source())
            }
            section {
                h2 { "All metrics that both have" }
                p.quiet { "Means over the cells that both have, each the mean over its seeds; differences are of " (wanted.sweep) " over " (wanted.against) ", with one standard error over cells as pairs. A mean over data sets counts jobs that were measured on all of them." }
                (all_metrics(&wanted, &shared))
                (shared.source())
            }
        }
    };
    let own = format!("/compare{}", query_of(&wanted));
    Ok(page("Compare", &[("compare", &own)], None, &content))
}

/// The mean difference of the metric, and what it is worth.
fn in_words(wanted: &Wanted, shared: &Rows) -> String {
    let Some(row) = (0..shared.len()).find(|row| super::sweep::metric_name(shared, *row) == wanted.metric) else {
        return String::new();
    };
    let said = Said {
        what: &wanted.metric,
        sweep: &wanted.sweep,
        against: &wanted.against,
        cells: shared.count(row, "cells"),
        larger: shared.count(row, "cells_larger"),
        difference: shared.real(row, "difference").unwrap_or(0.0),
        error: shared.real(row, "difference_error").filter(|error| error.is_finite()),
    };
    said.in_words()
}

/// A mean difference over cells, one standard error of it over cells as pairs, and in how many cells the first is
/// larger.
struct Said<'a> {
    what: &'a str,
    sweep: &'a str,
    against: &'a str,
    cells: i64,
    larger: i64,
    difference: f64,
    error: Option<f64>,
}

/// Differences of less than two standard errors are what chance gives often.
const STANDS_OUT: f64 = 2.0;

impl Said<'_> {
    fn in_words(&self) -> String {
        let Said { what, sweep, against, cells, larger, difference, error } = *self;
        let than = if difference < 0.0 { "smaller" } else { "larger" };
        let mean = format!("{what} is {than} in {sweep} than in {against} by {}", significant(difference.abs(), 3));
        let Some(error) = error.filter(|_| difference != 0.0) else {
            return if difference == 0.0 {
                format!("On the mean of the {cells} cells that both have, {what} is the same in both.")
            } else {
                format!("In the one cell that both have, {mean}; how sure that is, one cell does not say.")
            };
        };
        let ratio = difference.abs() / error;
        let worth = if error == 0.0 {
            "the same in every cell".to_owned()
        } else if ratio < STANDS_OUT {
            format!("{ratio:.1} times that, which chance alone gives often")
        } else {
            format!("{} times that, more than chance alone gives", significant(ratio, 2))
        };
        format!(
            "On the mean of the {cells} cells that both have, {mean}, with a standard error of {} over cells: {worth}. \
             It is larger in {larger} of them.",
            significant(error, 2)
        )
    }
}

fn all_metrics(wanted: &Wanted, shared: &Rows) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="metrics" { table {
            thead { tr { @for head in ["metric", "cells", wanted.sweep.as_str(), wanted.against.as_str(), "difference", "larger in"] { th scope="col" { (head) } } } }
            tbody { @for row in 0..shared.len() {
                @let metric = super::sweep::metric_name(shared, row);
                @let real = |name: &str| shared.real(row, name).map_or(String::new(), |value| significant(value, 4));
                @let error = |name: &str| shared.real(row, name).map_or(String::new(), |value| significant(value, 2));
                tr {
                    td { a href=(format!("/compare{}", query_of(&Wanted { metric: metric.clone(), ..wanted.clone() }))) { (metric) } }
                    td.n { (shared.count(row, "cells")) } td.n { (real("value")) } td.n { (real("against")) } td.n { (real("difference")) @if shared.real(row, "difference_error").is_some() { " ± " (error("difference_error")) } }
                    td.n { (shared.count(row, "cells_larger")) " of " (shared.count(row, "cells")) }
                }
            } }
        } }
    }
}

/// One over the other, a dot a cell; on the diagonal both are the same.
fn figure(wanted: &Wanted, cells: &Rows) -> Markup {
    const SIZE: f64 = 420.0;
    const MARGIN: f64 = 56.0;
    let points: Vec<(f64, f64, usize)> = (0..cells.len())
        .filter_map(|row| Some((cells.real(row, "against")?, cells.real(row, "value")?, row)))
        .filter(|(x, y, _)| x.is_finite() && y.is_finite())
        .collect();
    let values = || points.iter().flat_map(|(x, y, _)| [*x, *y]);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let margin = if high > low { 0.05 * (high - low) } else { 0.1 * high.abs().max(1e-6) };
    let (low, high) = (low - margin, high + margin);
    if !low.is_finite() || !high.is_finite() {
        return html! { p { "No cell that both have is measured by it." } };
    }
    let at = |value: f64| (value - low) / (high - low) * (SIZE - 2.0 * MARGIN);
    let (x_of, y_of) = (|value: f64| MARGIN + at(value), |value: f64| SIZE - MARGIN - at(value));
    let mut marks = String::new();
    for value in ticks(low, high) {
        let (x, y) = (x_of(value), y_of(value));
        let text = significant(value, 3);
        let _ = write!(
            marks,
            "<line class=grid x1={MARGIN} x2={} y1={y:.1} y2={y:.1} /><text x={} y={:.1} text-anchor=end>{text}</text>\
             <text x={x:.1} y={} text-anchor=middle>{text}</text>",
            SIZE - MARGIN,
            MARGIN - 6.0,
            y + 4.0,
            SIZE - MARGIN + 18.0
        );
    }
    html! {
        figure {
            svg.chart.square viewBox=(format!("0 0 {SIZE} {SIZE}")) role="img"
                aria-label=(format!("{} of {} over {}", wanted.metric, wanted.sweep, wanted.against)) {
                (PreEscaped(marks))
                line.diagonal x1=(x_of(low)) y1=(y_of(low)) x2=(x_of(high)) y2=(y_of(high)) {}
                @for (x, y, row) in &points {
                    circle cx=(format!("{:.1}", x_of(*x))) cy=(format!("{:.1}", y_of(*y))) r="4.5" {
                        title { (cells.text(*row, "model")) ", D " (cells.real(*row, "d").map_or(String::new(), compact)) ": " (significant(*y, 4)) " against " (significant(*x, 4)) }
                    }
                }
                text x=(SIZE / 2.0) y=(SIZE - 12.0) text-anchor="middle" { (wanted.against) }
                text x=(MARGIN) y="20" { (wanted.sweep) }
            }
            figcaption { "One dot a cell, the mean over its seeds; on the line both sweeps are the same." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_what_it_is_worth() {
        let said = |larger, difference, error| {
            Said { what: "x/acc1", sweep: "a", against: "b", cells: 9, larger, difference, error }.in_words()
        };
        assert_eq!(
            said(8, 0.0123, Some(0.002)),
            "On the mean of the 9 cells that both have, x/acc1 is larger in a than in b by 0.0123, with a standard error of \
             0.0020 over cells: 6.2 times that, more than chance alone gives. It is larger in 8 of them."
        );
        let little = said(4, -0.001, Some(0.002));
        assert!(little.contains("x/acc1 is smaller in a than in b by 0.00100"), "{little}");
        assert!(little.contains("0.5 times that, which chance alone gives often"), "{little}");
        assert!(said(9, 0.5, Some(0.0)).contains("the same in every cell"));
        assert!(
            said(1, 0.5, None).starts_with("In the one cell that both have, x/acc1 is larger in a than in b by 0.500")
        );
        assert!(said(0, 0.0, None).ends_with("x/acc1 is the same in both."));
    }
}
