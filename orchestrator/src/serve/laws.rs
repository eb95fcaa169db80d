//! Stored fits of a sweep.

use maud::{Markup, html};

use super::rows::{Rows, query_of, time};
use crate::fit::Interval;
use crate::report::number::{significant, with_interval};
use crate::store::page::Wanted;

/// Fits of the metric first.
pub(super) fn section(sweep: &str, metric: &str, fits: &Rows) -> Markup {
    let name = |row: usize| format!("{}/{}", fits.text(row, "dataset"), fits.text(row, "metric"));
    let mut order: Vec<usize> = (0..fits.len()).collect();
    order.sort_by_key(|row| name(*row) != metric);
    let query = query_of(&Wanted { metric: metric.to_owned(), ..Wanted::default() });
    html! {
        @if !metric.is_empty() { div.figures {
            figure {
                img.figure.fresh src=(format!("/sweep/{sweep}/law.svg{query}")) alt=(format!("Power law of {metric} against compute")) loading="lazy";
                figcaption { "A power law of compute through the results so far, with the 95 % interval of its value: fitted for this page and not stored." }
            }
            figure {
                img.figure.fresh src=(format!("/sweep/{sweep}/forecast.svg{query}")) alt=(format!("Forecast of {metric} as results came")) loading="lazy";
                figcaption { "What that law forecast for ten times the compute of the largest job, with its 95 % interval, after so many results. Intervals should shrink; ends beyond the frame are cut off." }
            }
        } }
        @if fits.is_empty() {
            p.quiet { "No fit is stored yet: " code { "sweep fit " (sweep) } " makes one, and " code { "fits:" } " in the spec does when the last job has ended." }
        } @else {
            div.wide tabindex="0" role="region" aria-label="laws" { table {
                thead { tr { @for head in ["metric", "law", "points", "jobs", "parameters, 95 % intervals", "R²", "verdict", "fitted"] { th scope="col" { (head) } } } }
                tbody { @for row in order { tr {
                    td { (name(row)) }
                    td title=(fits.text(row, "law")) { (fits.text(row, "law_name")) }
                    td { (fits.text(row, "points")) @if !fits.text(row, "condition").is_empty() { " where " code { (fits.text(row, "condition")) } } }
                    td.n { (fits.count(row, "jobs")) }
                    td { @for (name, interval) in parameters(fits.text(row, "parameters")) { span.parameter { (name) " " (with_interval(&interval)) } " " } }
                    td.n { (fits.real(row, "r2").map_or(String::new(), |r2| significant(r2, 3))) }
                    td { (fits.text(row, "verdict")) }
                    td { (time(fits.text(row, "created_at"))) }
                } } }
            } }
        }
        (fits.source())
    }
}

/// Names and intervals of a fit's parameters, as `store/fit.rs` writes them.
fn parameters(json: &str) -> Vec<(String, Interval)> {
    let Ok(serde_json::Value::Object(parameters)) = serde_json::from_str(json) else { return Vec::new() };
    let interval = |value: &serde_json::Value| {
        let number = |name: &str| value.get(name)?.as_f64();
        let value = number("value")?;
        // The whole line is null in JSON.
        let (low, high) = (number("low").unwrap_or(f64::NEG_INFINITY), number("high").unwrap_or(f64::INFINITY));
        Some(Interval { value, low, high })
    };
    parameters.iter().filter_map(|(name, value)| Some((name.clone(), interval(value)?))).collect()
}
