//! One sweep: its grid, what runs, its laws, its attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Html;
use maud::{Markup, html};

use super::grid::grid;
use super::page::{Refusal, page};
use super::plot::{Curve, spark};
use super::rows::{Rows, query_of};
use super::{Site, laws, sweeps};
use crate::report::number::{compact, duration, significant};
use crate::store::page::{CURVES, SILENT_SECS, Table, Wanted};

/// Tables that change while a sweep runs.
pub(super) const LIVE: [Table; 4] = [Table::Sweep, Table::Running, Table::Curves, Table::Attempts];

pub(super) async fn sweep(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    Query(asked): Query<Wanted>,
) -> Result<Html<String>, Refusal> {
    let mut wanted = Wanted { sweep: name.clone(), metric: asked.metric, ..Wanted::default() };
    if wanted.metric.is_empty() {
        wanted.metric = default_metric(&site.read_one(Table::Metrics, &wanted).await?);
    }
    let tables = [
        Table::Jobs,
        Table::Metrics,
        Table::Sweep,
        Table::Curves,
        Table::Running,
        Table::Attempts,
        Table::Fits,
        Table::Names,
    ];
    let [jobs, metrics, all, curves, running, attempts, fits, names] = site.read_side_by_side(tables, &wanted).await?;
    if all.is_empty() {
        return site.check_sweep(&name).await.and(Err(Refusal::not_found("It has just gone.")));
    }
    let choices: Vec<String> = (0..metrics.len()).map(|row| metric_name(&metrics, row)).collect();
    let others: Vec<&str> =
        (0..names.len()).map(|row| names.text(row, "sweep")).filter(|other| *other != name).collect();
    let address = format!("/sweep/{name}");
    let metric_only = Wanted { metric: wanted.metric.clone(), ..Wanted::default() };
    let content = html! {
        h1 { (name) }
        div #summary { (summary(&all)) }
        nav.tabs aria-label="Of this sweep" {
            a href="#grid" { "grid" } a href="#laws" { "laws" } a href="#attempts" { "attempts" }
            a href=(format!("{address}/results")) { "table of results" }
            @if !wanted.metric.is_empty() { a href=(format!("{address}/next{}", query_of(&metric_only))) { "what to run next" } }
            @if !others.is_empty() {
                form action="/compare" {
                    input type="hidden" name="sweep" value=(name);
                    input type="hidden" name="metric" value=(wanted.metric);
                    label { "compare with " select name="against" { @for other in &others { option { (other) } } } }
                    " " button { "Compare" }
                }
            }
        }
        section {
            div.head {
                h2 { "Grid" }
                form.auto action=(address) {
                    label { "colour " select name="metric" {
                        @if choices.is_empty() { option value="" { "state (nothing measured yet)" } }
                        @for choice in &choices { option selected[*choice == wanted.metric] { (choice) } }
                    } }
                    " " button { "Show" }
                }
            }
            (grid(&jobs, &wanted.metric))
            @if jobs.is_cut() { p.quiet { "Only the first " (jobs.len()) " jobs; the files have all." } }
            (jobs.source())
        }
        section aria-label="Running" { div #running { (running_jobs(&running, &curves)) } (running.source()) (curves.source()) }
        section {
            h2 #laws { "Laws" }
            (laws::section(&name, &wanted.metric, &fits))
        }
        section {
            h2 { "Attempts" }
            div #attempts { (attempts_table(&attempts)) }
            (attempts.source())
        }
    };
    let live = format!("{address}/live{}", query_of(&metric_only));
    Ok(page(&name, &[(&name, &address)], Some(&live), &content))
}

pub(super) fn metric_name(metrics: &Rows, row: usize) -> String {
    format!("{}/{}", metrics.text(row, "dataset"), metrics.text(row, "metric"))
}

/// The first of the usual ones among those that most jobs have.
pub(super) fn default_metric(metrics: &Rows) -> String {
    const USUAL: [&str; 4] = ["imagenet1k/acc1", "image_retrieval_recall@5", "acc1", "loss@1024"];
    let most = (0..metrics.len()).map(|row| metrics.count(row, "jobs")).max().unwrap_or(0);
    let names =
        || (0..metrics.len()).filter(|row| metrics.count(*row, "jobs") == most).map(|row| metric_name(metrics, row));
    USUAL
        .iter()
        .find_map(|usual| names().find(|name| name.ends_with(usual)))
        .or_else(|| names().next())
        .unwrap_or_default()
}

/// Of the only row.
pub(super) fn summary(sweep: &Rows) -> Markup {
    html! {
        p.lead { (sweeps::health(sweep, 0)) " " (sweep.text(0, "question")) }
        (sweeps::progress(sweep, 0))
    }
}

/// A card a job that a worker has, with its loss so far.
pub(super) fn running_jobs(running: &Rows, curves: &Rows) -> Markup {
    let mut losses: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for row in 0..curves.len() {
        if let (Some(x), Some(y)) = (curves.real(row, "samples_seen"), curves.real(row, "loss")) {
            losses.entry(curves.text(row, "job_key")).or_default().push((x, y));
        }
    }
    html! {
        h2 { "Running " span.quiet { (running.len()) } }
        @if running.is_empty() { p.quiet { "No job is running." } }
        ul.running { @for row in 0..running.len().min(CURVES) { (running_job(running, row, &losses)) } }
        @if running.len() > CURVES { p.quiet { "and " (running.len() - CURVES) " more" } }
    }
}

fn running_job(running: &Rows, row: usize, losses: &BTreeMap<&str, Vec<(f64, f64)>>) -> Markup {
    let (key, model) = (running.text(row, "job_key"), running.text(row, "model"));
    let (total, seen) =
        (running.real(row, "samples_total").unwrap_or(0.0), running.real(row, "samples_seen").unwrap_or(0.0));
    let rate = running.real(row, "samples_per_sec").filter(|rate| *rate > 0.0 && rate.is_finite());
    let points = losses.get(key).map(Vec::as_slice).unwrap_or_default();
    let silent = running.real(row, "silent_secs").filter(|secs| *secs > SILENT_SECS);
    html! {
        li.card {
            div.head {
                a id=(format!("run-{key}")) href=(format!("/job/{key}")) { (model) " · " (compact(total)) " · seed " (running.count(row, "seed")) }
                @if let Some((_, loss)) = points.last() { span.loss title="training loss" { (significant(*loss, 4)) } }
            }
            (spark(Curve { points, x_end: total, label: &format!("training loss of {model}") }))
            progress max=(total.max(1.0)) value=(seen) aria-label="samples seen" {}
            p.quiet {
                (compact(seen)) " of " (compact(total))
                @if let Some(rate) = rate { " · " (compact(rate.round())) "/s · " (duration(((total - seen) / rate).max(0.0))) " left" }
                @else { " · " (running.text(row, "state")) }
                @if !running.text(row, "host").is_empty() { " · " (running.text(row, "host")) }
                @if let Some(secs) = silent { " · " span.bad { "not heard of for " (duration(secs)) } }
            }
        }
    }
}

/// The latest attempts, each with its log.
pub(super) fn attempts_table(attempts: &Rows) -> Markup {
    const SHOWN: usize = 50;
    html! {
        @if attempts.is_empty() { p.quiet { "None yet." } } @else {
            p.quiet { "The latest " (attempts.len().min(SHOWN)) ", newest first." }
            div.wide tabindex="0" role="region" aria-label="attempts" { table {
                thead { tr { @for head in ["job", "model", "state", "where", "samples", "began", "ended", "why", "log"] { th scope="col" { (head) } } } }
                tbody { @for row in 0..attempts.len().min(SHOWN) {
                    @let key = attempts.text(row, "job_key");
                    tr {
                        td { a.key href=(format!("/job/{key}")) { (key.get(..12).unwrap_or(key)) } }
                        td { (attempts.text(row, "model")) }
                        td { span.state.(super::rows::class_of(attempts.text(row, "state"))) { (attempts.text(row, "state")) } }
                        td { (attempts.text(row, "host")) " " (attempts.text(row, "device")) }
                        td.n { (attempts.real(row, "samples_seen").map_or(String::new(), compact)) }
                        td { (super::rows::time(attempts.text(row, "created_at"))) }
                        td { @if !attempts.text(row, "ended_at").is_empty() { (super::rows::time(attempts.text(row, "ended_at"))) } }
                        td { (attempts.text(row, "reason")) }
                        td { a href=(format!("/job/{key}/log/{}/stderr.log", attempts.count(row, "attempt_id"))) { "log" } }
                    }
                } }
            } }
        }
    }
}
