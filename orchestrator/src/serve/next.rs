//! What to run next.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use maud::{Markup, html};

use super::Site;
use super::figures::{in_order, observations};
use super::page::{Refusal, page};
use super::rows::{Rows, query_of};
use super::sweep::{default_metric, metric_name};
use crate::fit::{Interval, Observation, Response};
use crate::report::number::{compact, significant, with_interval};
use crate::store::page::{Table, Wanted, split_metric};

/// Says what to run next: of results by a metric, within a budget in the unit of their compute, or as much as they
/// cost.
pub type Advise = fn(&[Observation], &str, Option<f64>) -> Result<Next, String>;

/// What to run next.
#[derive(Debug, Clone)]
pub struct Next {
    /// The law that decides.
    pub law: String,
    /// What is forecast.
    pub target: String,
    /// What may be spent.
    pub budget: f64,
    /// Of budget and costs.
    pub unit: String,
    /// Interval of E at the target, before any of it.
    pub before: Interval,
    /// Jobs that were weighed.
    pub candidates: usize,
    /// First the first to run.
    pub jobs: Vec<NextJob>,
    /// Why there are no more.
    pub why: String,
}

/// A job to run.
#[derive(Debug, Clone)]
pub struct NextJob {
    /// Name of its model.
    pub model: String,
    /// D.
    pub samples_seen: f64,
    /// U.
    pub unique_samples: f64,
    /// Whether its cell has a job already: then it wants a new seed.
    pub replicate: bool,
    /// Its price.
    pub cost: f64,
    /// Spent with it.
    pub spent: f64,
    /// Interval of E at the target, expected after it.
    pub after: Interval,
}

/// What is asked.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    metric: String,
    budget: String,
}

pub(super) async fn next(
    State(site): State<Arc<Site>>,
    Path(sweep): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, Refusal> {
    let budget = match asked.budget.trim() {
        "" => None,
        text => match text.parse::<f64>() {
            Ok(value) if value > 0.0 && value.is_finite() => Some(value),
            _ => {
                return Err(Refusal::bad(format!(
                    "`{text}` is no budget: a number above zero is wanted, such as 1e12."
                )));
            }
        },
    };
    let mut wanted = Wanted { sweep: sweep.clone(), metric: asked.metric, ..Wanted::default() };
    let metrics = site.read_one(Table::Metrics, &wanted).await?;
    if metrics.is_empty() {
        site.check_sweep(&sweep).await?;
    }
    if wanted.metric.is_empty() {
        wanted.metric = default_metric(&metrics);
    }
    let rows = observations(&site, &wanted).await?;
    let jobs = site.read_one(Table::Jobs, &wanted).await?;
    let rows = in_order(rows, &jobs);
    let (advise, metric) = (site.advise, wanted.metric.clone());
    // One at a time: the machine's cores are for training.
    let one = site.pictures.lock().await;
    let measured = split_metric(&metric).map_or("", |(_, metric)| metric).to_owned();
    let said = tokio::task::spawn_blocking(move || advise(&rows, &measured, budget));
    let said =
        said.await.map_err(|error| Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, words: error.to_string() })?;
    drop(one);
    let own = format!("/sweep/{sweep}/next");
    let content = html! {
        h1 { "What to run next" }
        form.where action=(own) {
            label { "to narrow the forecast of " select name="metric" {
                @for row in 0..metrics.len() { @let choice = metric_name(&metrics, row); option selected[choice == metric] { (choice) } }
            } }
            label { "budget " input name="budget" inputmode="decimal" value=(asked.budget) placeholder="what all results cost"; }
            button { "Show" }
        }
        @match &said {
            Err(words) => p.bad { "No advice: " (words) },
            Ok(next) => (advice(next, &metric, &jobs)),
        }
        p.quiet { "From the results alone: " code { "sweep advise SPEC --metric " (metric) } " knows the spec too, and writes the jobs into it." }
    };
    let above = format!("/sweep/{sweep}");
    let here = format!("{own}{}", query_of(&Wanted { metric: metric.clone(), ..Wanted::default() }));
    Ok(page(&format!("what next in {sweep}"), &[(&sweep, &above), ("next", &here)], None, &content))
}

fn advice(next: &Next, metric: &str, jobs: &Rows) -> Markup {
    let unit = match Response::of_metric(split_metric(metric).map_or("", |(_, metric)| metric)) {
        Response::Fraction => "error",
        Response::Loss => "loss, nats",
    };
    html! {
        p { "At " (next.target) " the law " code { (next.law) } " gives " (unit) " " b { (with_interval(&next.before)) }
            ". These jobs, of " (next.candidates) " weighed, narrow that most for what they cost, up to " (significant(next.budget, 3)) " " (next.unit) ":" }
        @if next.jobs.is_empty() { p { b { "None." } } } @else {
            div.wide tabindex="0" role="region" aria-label="jobs to run" { table {
                thead { tr { @for head in ["", "model", "samples seen", "unique", "what", "cost", "spent", "interval after it"] { th scope="col" { (head) } } } }
                tbody { @for (number, job) in next.jobs.iter().enumerate() { tr {
                    td.n { (number + 1) }
                    td { (job.model) } td.n { (compact(job.samples_seen)) } td.n { (compact(job.unique_samples)) }
                    td { @if waits(job, jobs) { "waits already" } @else if job.replicate { "a new seed" } @else { "new" } }
                    td.n { (significant(job.cost, 3)) } td.n { (significant(job.spent, 3)) }
                    td { (with_interval(&job.after)) }
                } } }
            } }
        }
        p.quiet { (next.why) "." }
    }
}

/// Whether the sweep has such a job that is still to run.
fn waits(job: &NextJob, jobs: &Rows) -> bool {
    let near = |a: f64, b: f64| (a / b).ln().abs() < 0.1;
    (0..jobs.len()).any(|row| {
        matches!(jobs.text(row, "state"), "pending" | "running")
            && jobs.text(row, "model") == job.model
            && jobs.real(row, "d").is_some_and(|d| near(d, job.samples_seen))
            && jobs.real(row, "data_size").is_none_or(|size| size + 1.0 >= job.unique_samples)
    })
}
