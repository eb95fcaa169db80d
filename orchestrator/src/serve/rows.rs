//! Rows of an answer: read by column, and shown as a table with its SQL and its files.

use maud::{Markup, html};

use crate::report::number::{compact, significant};
use crate::store::page::{Table, Wanted};
use crate::store::sql::{Answer, Values};

/// An answer with the table that it is of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    table: Table,
    wanted: Wanted,
    sql: String,
    answer: Answer,
}

impl Rows {
    pub(super) fn new(table: Table, wanted: &Wanted, sql: String, answer: Answer) -> Rows {
        Rows { table, wanted: wanted.clone(), sql, answer }
    }

    pub(super) fn len(&self) -> usize {
        self.answer.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answer.rows == 0
    }

    /// Whether there are more rows than were read.
    pub(super) fn is_cut(&self) -> bool {
        self.answer.truncated
    }

    fn values(&self, column: &str) -> Option<&Values> {
        self.answer.columns.iter().find(|known| known.name == column).map(|column| &column.values)
    }

    /// A text; empty for NULL.
    pub(super) fn text(&self, row: usize, column: &str) -> &str {
        match self.values(column) {
            Some(Values::Text(values) | Values::Time(values) | Values::Json(values)) => {
                values[row].as_deref().unwrap_or_default()
            }
            _ => "",
        }
    }

    /// A number.
    pub(super) fn real(&self, row: usize, column: &str) -> Option<f64> {
        number(self.values(column)?, row)
    }

    /// Texts of a column, which is looked for once: for tables of very many rows.
    pub(super) fn texts<'rows>(&'rows self, column: &str) -> impl Fn(usize) -> &'rows str {
        let values = match self.values(column) {
            Some(Values::Text(values) | Values::Time(values) | Values::Json(values)) => Some(values),
            _ => None,
        };
        move |row| values.and_then(|values| values[row].as_deref()).unwrap_or_default()
    }

    /// Numbers of a column, likewise.
    pub(super) fn reals(&self, column: &str) -> impl Fn(usize) -> Option<f64> {
        let values = self.values(column);
        move |row| number(values?, row)
    }

    /// A whole number; 0 for NULL.
    pub(super) fn count(&self, row: usize, column: &str) -> i64 {
        match self.values(column) {
            Some(Values::Int(values)) => values[row].unwrap_or(0),
            _ => 0,
        }
    }

    /// The SQL, to be copied, and the same rows as files.
    pub(super) fn source(&self) -> Markup {
        let query = query_of(&self.wanted);
        let file = |format: &str| format!("/data/{}.{format}{query}", self.table.name());
        html! {
            details.sql {
                summary { (self.table.name().replace('-', " ")) ": SQL, CSV, Parquet" }
                p {
                    a href=(file("csv")) { "CSV" } " · " a href=(file("parquet")) { "Parquet" } " · "
                    a href=(file("json")) { "JSON" }
                    " · " button.copy type="button" hidden { "Copy SQL" }
                    span.quiet { " runs as it is in " code { "sweep sql" } }
                }
                pre { code { (self.sql) } }
            }
        }
    }

    /// All columns but those named, as a table: the first column that holds a job's key links to it.
    pub(super) fn table(&self, without: &[&str]) -> Markup {
        let shown: Vec<_> =
            self.answer.columns.iter().filter(|column| !without.contains(&column.name.as_str())).collect();
        let is_number = |values: &Values| matches!(values, Values::Int(_) | Values::Float(_));
        html! {
            div.wide tabindex="0" role="region" aria-label=(self.table.name()) {
                table {
                    thead { tr { @for column in &shown {
                        th.n[is_number(&column.values)] scope="col" { (self.heading(&column.name)) }
                    } } }
                    tbody { @for row in 0..self.answer.rows {
                        tr { @for column in &shown {
                            td.n[is_number(&column.values)] { (cell(&column.name, &column.values, row)) }
                        } }
                    } }
                }
            }
        }
    }

    /// Results are sorted by the database: a heading is a link that asks for it.
    fn heading(&self, name: &str) -> Markup {
        let words = name.replace('_', " ");
        if self.table != Table::Results {
            return html! { (words) };
        }
        let (order, arrow) = match self.wanted.order.as_str() {
            order if order == name => (format!("-{name}"), " ↑"),
            order if order.strip_prefix('-') == Some(name) => (name.to_owned(), " ↓"),
            _ => (format!("-{name}"), ""),
        };
        let mut wanted = Wanted { order, sweep: String::new(), ..self.wanted.clone() };
        if wanted.metric.is_empty() {
            super::results::ALL.clone_into(&mut wanted.metric);
        }
        html! { a href=(format!("/sweep/{}/results{}", self.wanted.sweep, query_of(&wanted))) { (words) (arrow) } }
    }
}

fn number(values: &Values, row: usize) -> Option<f64> {
    match values {
        Values::Float(values) => values[row],
        Values::Int(values) => values[row].map(|value| value as f64),
        _ => None,
    }
}

/// `?sweep=...&metric=...`, of what is not empty.
pub(super) fn query_of(wanted: &Wanted) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("sweep", &wanted.sweep),
        ("against", &wanted.against),
        ("job", &wanted.job),
        ("metric", &wanted.metric),
        ("where", &wanted.condition),
        ("order", &wanted.order),
    ] {
        if !value.is_empty() {
            pairs.append_pair(name, value);
        }
    }
    let query = pairs.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Columns that hold whole numbers of samples, parameters or bytes.
const COMPACT: &[&str] = &[
    "n",
    "d",
    "u",
    "data_size",
    "samples_seen",
    "samples_total",
    "samples_per_sec",
    "resumed_from_samples",
    "peak_memory_bytes",
    "parent_samples",
];

fn cell(name: &str, values: &Values, row: usize) -> Markup {
    match values {
        Values::Int(values) => html! { @if let Some(value) = values[row] {
            @if COMPACT.contains(&name) { span title=(value) { (compact(value as f64)) } } @else { (value) }
        } },
        Values::Float(values) => html! { @if let Some(value) = values[row] {
            span title=(format!("{value:?}")) {
                @if COMPACT.contains(&name) { (compact(value)) } @else { (significant(value, 4)) }
            }
        } },
        Values::Bool(values) => html! { @if let Some(value) = values[row] { (value) } },
        Values::Time(values) => html! { @if let Some(text) = &values[row] { (time(text)) } },
        Values::Json(values) | Values::Text(values) => html! { @if let Some(text) = &values[row] {
            @match name {
                "job_key" => a.key href=(format!("/job/{text}")) { (text.get(..12).unwrap_or(text)) },
                "state" => span.state.(class_of(text)) { (text) },
                "sha256" => span.key title=(text) { (text.get(..12).unwrap_or(text)) },
                _ => (text),
            }
        } },
    }
}

/// `2026-11-30 16:20:01`, by the database's clock, UTC.
pub(super) fn time(text: &str) -> Markup {
    let short = text.get(..19).unwrap_or(text).replace('T', " ");
    html! { time datetime=(text) title=(text) { (short) } }
}

/// A state as a class of the style sheet.
pub(super) fn class_of(state: &str) -> &'static str {
    match state {
        "pending" => "pending",
        "intent" | "launched" | "running" => "running",
        "done" | "finished" => "done",
        "failed" | "lost" => "failed",
        "cancelled" | "stopped" => "cancelled",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let wanted = Wanted { sweep: "a&b=c".to_owned(), condition: "n > 1".to_owned(), ..Wanted::default() };
        assert_eq!(query_of(&wanted), "?sweep=a%26b%3Dc&where=n+%3E+1");
        assert_eq!(query_of(&Wanted::default()), "");
    }
}
