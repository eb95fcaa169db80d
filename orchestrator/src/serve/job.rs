//! One job: its spec, its curves, its attempts, what was measured, its log.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Html;
use maud::{Markup, html};

use super::page::{Refusal, page};
use super::plot::{Curve, chart};
use super::rows::{Rows, class_of, time};
use super::{Site, log};
use crate::report::number::{compact, duration, significant};
use crate::store::page::{Table, Wanted};

/// What is known of a job.
pub(super) struct Known {
    job: Rows,
    curves: Rows,
    attempts: Rows,
    measurements: Rows,
    checkpoints: Rows,
    events: Rows,
    /// Number of the last attempt, and the end of what its runner wrote.
    tail: Option<(i64, String)>,
}

impl Known {
    /// Of the job whose key begins so, or else that there is none.
    pub(super) async fn read(site: &Site, key: &str) -> Result<Known, Refusal> {
        let wanted = Wanted { job: key.to_owned(), ..Wanted::default() };
        let tables =
            [Table::Job, Table::JobCurves, Table::JobAttempts, Table::Measurements, Table::Checkpoints, Table::Events];
        let [job, curves, attempts, measurements, checkpoints, events] = site.read(tables, &wanted).await?;
        if job.is_empty() {
            return Err(Refusal::not_found(format!("There is no job whose key begins with `{key}` here.")));
        }
        let tail = log::last_of(&attempts).await;
        Ok(Known { job, curves, attempts, measurements, checkpoints, events, tail })
    }

    fn key(&self) -> &str {
        self.job.text(0, "job_key")
    }

    /// Parts of the page that change while it runs, by the ids of the elements that they are in.
    pub(super) fn parts(&self) -> [(&'static str, Markup); 7] {
        [
            ("head", head(&self.job)),
            ("curves", charts(&self.job, &self.curves)),
            ("measurements", table_or_none(&self.measurements, &[])),
            ("attempts", attempts_of(self.key(), &self.attempts)),
            ("log", log_of(self.tail.as_ref())),
            ("checkpoints", table_or_none(&self.checkpoints, &["attempt_id"])),
            ("events", self.events.table(&["attempt_id"])),
        ]
    }
}

pub(super) async fn job(State(site): State<Arc<Site>>, Path(key): Path<String>) -> Result<Html<String>, Refusal> {
    let known = Known::read(&site, &key).await?;
    let (key, short) = (known.key(), known.key().get(..12).unwrap_or(known.key()));
    let sweeps: Vec<&str> = known.job.text(0, "sweeps").split(' ').filter(|name| !name.is_empty()).collect();
    let sections = [
        ("Curves", Some(&known.curves)),
        ("Measurements", Some(&known.measurements)),
        ("Attempts", Some(&known.attempts)),
        ("Log", None),
        ("Checkpoints", Some(&known.checkpoints)),
        ("What happened", Some(&known.events)),
    ];
    let [(head_id, head), parts @ ..] = known.parts();
    let content = html! {
        div id=(head_id) { (head) }
        @for ((title, rows), (id, part)) in sections.into_iter().zip(parts) {
            section { h2 { (title) } div id=(id) { (part) } @if let Some(rows) = rows { (rows.source()) } }
        }
        section { h2 { "Spec" } pre { code { (pretty(known.job.text(0, "spec"))) } } (known.job.source()) }
    };
    let (own, live) = (format!("/job/{key}"), format!("/job/{key}/live"));
    let above = sweeps.first().map(|name| (*name, format!("/sweep/{name}")));
    let mut path: Vec<(&str, &str)> = above.iter().map(|(name, address)| (*name, address.as_str())).collect();
    path.push((short, &own));
    // What was imported was never run here, and stays as it is.
    let live = known.job.text(0, "source").is_empty().then_some(&*live);
    Ok(page(&format!("job {short}"), &path, live, &content))
}

fn head(job: &Rows) -> Markup {
    let state = job.text(0, "state");
    html! {
        h1 { (job.text(0, "model")) " " span.state.(class_of(state)) { (state) } }
        @if !job.text(0, "reason").is_empty() { p.bad { (job.text(0, "reason")) } }
        (facts(job))
    }
}

fn table_or_none(rows: &Rows, without: &[&str]) -> Markup {
    html! { @if rows.is_empty() { p.quiet { "None." } } @else { (rows.table(without)) } }
}

fn log_of(tail: Option<&(i64, String)>) -> Markup {
    html! { @match tail {
        Some((nth, text)) => {
            p.quiet { "The end of standard error of attempt " (nth) "." }
            pre.log tabindex="0" { (text) }
        }
        None => p.quiet { "Nothing was written, or it lies on another machine." },
    } }
}

fn facts(job: &Rows) -> Markup {
    let real = |name: &str| job.real(0, name);
    let counts = [("n", "N"), ("d", "D, samples seen"), ("data_size", "unique samples"), ("gmacs_samples", "C, GMACs")];
    html! {
        dl.facts {
            div { dt { "key" } dd { code { (job.text(0, "job_key")) } } }
            @for (name, words) in counts { @if let Some(value) = real(name) { div { dt { (words) } dd { (compact(value)) } } } }
            div { dt { "seed" } dd { (job.count(0, "seed")) } }
            div { dt { "runner" } dd { (job.text(0, "runner")) " " (job.text(0, "runner_version")) } }
            @if !job.text(0, "pool").is_empty() { div { dt { "data" } dd { (job.text(0, "pool")) } } }
            @if !job.text(0, "parent").is_empty() {
                div { dt { "goes on from" } dd { a.key href=(format!("/job/{}", job.text(0, "parent"))) { (job.text(0, "parent").get(..12).unwrap_or_default()) } } }
            }
            @if let Some(secs) = real("train_secs") { div { dt { "training" } dd { (duration(secs)) } } }
            @if let Some(hours) = real("gpu_hours") { div { dt { "GPU-hours" } dd { (significant(hours, 3)) } } }
            @if !job.text(0, "done_at").is_empty() { div { dt { "done" } dd { (time(job.text(0, "done_at"))) } } }
            div { dt { "in" } dd { @for name in job.text(0, "sweeps").split(' ') { a href=(format!("/sweep/{name}")) { (name) } " " } } }
        }
    }
}

/// One chart a metric, the loss first.
fn charts(job: &Rows, curves: &Rows) -> Markup {
    let mut metrics: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for row in 0..curves.len() {
        let (Some(x), Some(y)) = (curves.real(row, "samples_seen"), curves.real(row, "value")) else { continue };
        let name = curves.text(row, "metric");
        match metrics.last_mut().filter(|(last, _)| *last == name) {
            Some((_, points)) => points.push((x, y)),
            None => metrics.push((name, vec![(x, y)])),
        }
    }
    metrics.sort_by_key(|(name, _)| *name != "loss");
    let x_end = job.real(0, "d").unwrap_or(0.0);
    html! {
        @if metrics.is_empty() { p.quiet { "Nothing was reported." } }
        div.charts { @for (name, points) in &metrics { figure {
            figcaption { b { (name) } " over samples seen" @if let Some((_, last)) = points.last() { ", now " (significant(*last, 4)) } }
            (chart(Curve { points, x_end, label: &format!("{name} over samples seen") }))
        } } }
    }
}

fn attempts_of(key: &str, attempts: &Rows) -> Markup {
    html! {
        @if attempts.is_empty() { p.quiet { "It has not been started." } } @else {
            ul.plain { @for row in (0..attempts.len()).rev() {
                @let id = attempts.count(row, "attempt_id");
                li { b { (attempts.count(row, "nth")) ". " } span.state.(class_of(attempts.text(row, "state"))) { (attempts.text(row, "state")) }
                    " " (time(attempts.text(row, "created_at"))) " " (attempts.text(row, "host")) " " (attempts.text(row, "device"))
                    " · " a href=(format!("/job/{key}/log/{id}/stderr.log")) { "log" }
                    " · " a href=(format!("/job/{key}/log/{id}/events.jsonl")) { "events" }
                    @if !attempts.text(row, "reason").is_empty() { " · " (attempts.text(row, "reason")) }
                }
            } }
            details { summary { "all that is known of them" } (attempts.table(&["stderr_tail", "nth"])) }
        }
    }
}

fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| json.to_owned())
}
