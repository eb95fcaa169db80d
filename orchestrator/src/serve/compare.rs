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
                (figure(&wanted, &cells))
                (cells.table(&[]))
                (cells.source())
            }
            section {
                h2 { "All metrics that both have" }
                p.quiet { "Means over the cells that both have, each the mean over its seeds; differences are of " (wanted.sweep) " over " (wanted.against) "." }
                (all_metrics(&wanted, &shared))
                (shared.source())
            }
        }
    };
    let own = format!("/compare{}", query_of(&wanted));
    Ok(page("Compare", &[("compare", &own)], None, &content))
}

fn all_metrics(wanted: &Wanted, shared: &Rows) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="metrics" { table {
            thead { tr { @for head in ["metric", "cells", wanted.sweep.as_str(), wanted.against.as_str(), "difference", "larger in"] { th scope="col" { (head) } } } }
            tbody { @for row in 0..shared.len() {
                @let metric = super::sweep::metric_name(shared, row);
                @let real = |name: &str| shared.real(row, name).map_or(String::new(), |value| significant(value, 4));
                tr {
                    td { a href=(format!("/compare{}", query_of(&Wanted { metric: metric.clone(), ..wanted.clone() }))) { (metric) } }
                    td.n { (shared.count(row, "cells")) } td.n { (real("value")) } td.n { (real("against")) } td.n { (real("difference")) }
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
