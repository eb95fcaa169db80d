//! All sweeps: how far each is, how long it will take, what it has cost, how well it is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::Site;
use super::page::{Refusal, page};
use super::rows::{Rows, time};
use crate::report::number::{compact, duration, significant};
use crate::spec::{self, Source};
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
            (compute(rows, row))
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

/// What was spent, of what the spec allows; where it says nothing, of what is planned.
fn compute(rows: &Rows, row: usize) -> Markup {
    const TITLE: &str = "Without what failed attempts threw away.";
    let real = |name: &str| rows.real(row, name);
    let percent =
        |spent: f64, of: f64| if of > 0.0 { format!(" ({:.0} %)", 100.0 * spent / of) } else { String::new() };
    html! {
        @if let (Some(allowed), Some(spent)) = (allowed_flops(rows, row), real("flops_spent")) {
            div { dt { "compute, of " code { "limits.compute" } } dd title=(TITLE) {
                (significant(spent, 3)) " of " (significant(allowed, 3)) " training FLOPs" (percent(spent, allowed))
                @if let Some(planned) = real("flops_planned") { ", " (significant(planned, 3)) " planned" }
            } }
        } @else if let (Some(planned), Some(spent)) = (real("gmacs_planned"), real("gmacs_spent")) {
            div { dt { "compute, of what is planned" } dd title=(TITLE) {
                (significant(spent, 3)) " of " (significant(planned, 3)) " GMACs" (percent(spent, planned))
            } }
        }
    }
}

/// What `limits.compute` of its spec allows.
fn allowed_flops(rows: &Rows, row: usize) -> Option<f64> {
    let text = rows.text(row, "spec");
    // Most specs say nothing of it, and reading one takes longer than looking for a word.
    let spec = text.contains("compute").then(|| spec::parse(&Source::new(rows.text(row, "sweep"), text)))?;
    spec.ok()?.limits.compute_flops
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
