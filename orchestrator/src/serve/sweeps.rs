//! All sweeps: how far each is, how long it will take, what it has cost, how well it is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::Site;
use super::page::{Refusal, page};
use super::rows::{Rows, time};
use crate::report::number::{compact, duration, significant};
use crate::store::page::{SILENT_SECS, Table, Wanted};

pub(super) async fn sweeps(State(site): State<Arc<Site>>) -> Result<Html<String>, Refusal> {
    let rows = site.read_one(Table::Sweeps, &Wanted::default()).await?;
    let content = html! {
        h1 { "Sweeps" }
        div #sweeps { (list(&rows)) }
        (rows.source())
    };
    Ok(page("All sweeps", &[], Some("/live"), &content))
}

/// A card a sweep.
pub(super) fn list(rows: &Rows) -> Markup {
    html! {
        @if rows.is_empty() { p { "No sweep has been launched here yet: " code { "sweep launch SPEC" } " starts one." } }
        ul.sweeps { @for row in 0..rows.len() {
            @let name = rows.text(row, "sweep");
            li.card {
                h2 { a href=(format!("/sweep/{name}")) { (name) } (health(rows, row)) }
                @if !rows.text(row, "question").is_empty() { p.quiet { (rows.text(row, "question")) } }
                (progress(rows, row))
            }
        } }
    }
}

/// How far the sweep of a row is, what that took and what is left.
pub(super) fn progress(rows: &Rows, row: usize) -> Markup {
    let count = |name: &str| rows.count(row, name);
    let (jobs, done) = (count("jobs"), count("done"));
    let (planned, spent) = (rows.real(row, "gmacs_planned"), rows.real(row, "gmacs_spent"));
    let share = planned.filter(|planned| *planned > 0.0).zip(spent).map(|(planned, spent)| spent / planned);
    let others = [("running", "running"), ("pending", "waiting"), ("failed", "failed"), ("cancelled", "cancelled")];
    html! {
        progress max=(jobs.max(1)) value=(done) aria-label="jobs done" {}
        dl.facts {
            div { dt { "jobs" } dd { (done) " of " (jobs) " done"
                @for (column, word) in others { @if count(column) > 0 { ", " span.state.(super::rows::class_of(column)) { (count(column)) " " (word) } } }
            } }
            @if let Some(secs) = rows.real(row, "secs_left") {
                div { dt { "time left" } dd title="What is left, at the rate of the jobs that run now; evaluations are not counted." { "about " (duration(secs.max(0.0))) } }
            }
            @if let (Some(planned), Some(spent)) = (planned, spent) {
                div { dt { "compute" } dd title="Of what was planned, forward GMACs x samples, without what failed attempts threw away." {
                    (significant(spent, 3)) " of " (significant(planned, 3)) " GMACs"
                    @if let Some(share) = share { " (" (format!("{:.0} %", 100.0 * share)) ")" }
                } }
            }
            @if let Some(hours) = rows.real(row, "gpu_hours") { div { dt { "GPU-hours" } dd { (significant(hours, 3)) } } }
            @if let Some(hours) = rows.real(row, "train_hours").filter(|hours| *hours > 0.0) {
                div { dt { "training" } dd { (duration(3600.0 * hours)) " in all attempts" } }
            }
            @if let Some(kwh) = rows.real(row, "kwh") { div { dt { "energy" } dd { (significant(kwh, 3)) " kWh" } } }
            @if !rows.text(row, "last_done_at").is_empty() { div { dt { "last result" } dd { (time(rows.text(row, "last_done_at"))) } } }
            @if !rows.text(row, "source").is_empty() { div { dt { "imported" } dd { (rows.text(row, "source")) } } }
        }
    }
}

/// What is wrong with the sweep of a row, or that nothing is.
pub(super) fn health(rows: &Rows, row: usize) -> Markup {
    let count = |name: &str| rows.count(row, name);
    let mut wrong = Vec::new();
    if count("failed") > 0 {
        wrong.push(format!("{} failed", count("failed")));
    }
    if count("silent_attempts") > 0 {
        wrong.push(format!("{} not heard of for a minute", count("silent_attempts")));
    }
    let waits = count("pending") > 0 && count("live_attempts") == 0;
    let launcher = rows.real(row, "launcher_secs_ago");
    if waits && launcher.is_none_or(|secs| secs > SILENT_SECS) {
        wrong.push("no launcher drives it".to_owned());
    }
    html! {
        @if !wrong.is_empty() { span.badge.bad { (wrong.join(", ")) } }
        @else if count("running") > 0 { span.badge.running { "running" } }
        @else if count("jobs") > 0 && count("done") == count("jobs") { span.badge.good { "done" } }
        @else if waits { span.badge { "waiting" } }
        @else if count("jobs") == 0 { span.badge { "empty" } }
        @else { span.badge { "ended" } }
        @if count("pending") + count("running") > 0 && launcher.is_some_and(|secs| secs <= SILENT_SECS) { span.quiet { " launcher seen " (compact(launcher.unwrap_or(0.0).max(0.0).round())) " s ago" } }
    }
}
