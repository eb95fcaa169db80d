//! Laws of the results so far, fitted here and not stored: the report's figure of the law, and how the interval of a
//! forecast shrinks as results come. Each is an image of its own, so that no page waits for a fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::Site;
use super::page::Refusal;
use super::plot::{Whisker, whiskers};
use super::rows::Rows;
use crate::fit::{Axis, Convention, Evaluation, FitError, LawName, Observation, Options, fit};
use crate::report::analysis::{self, Material, Subject, Target};
use crate::report::figures;
use crate::store::fit::sha256;
use crate::store::observation::ObservationsOf;
use crate::store::page::{Table, Wanted, split_metric};

/// Resamples behind an interval that is read off a picture.
const RESAMPLES: usize = 200;
/// Forecasts along the way.
const CUTS: usize = 10;
/// Results that are fitted: resampling more takes seconds.
const ROWS: usize = 1000;
/// Pictures that are kept.
const KEPT: usize = 64;

/// A kind of picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Law,
    Forecast,
}

/// Pictures by what they are of, and what they were drawn from.
pub(super) type Kept = BTreeMap<(String, String, Kind), (String, Arc<str>)>;

pub(super) async fn law(
    state: State<Arc<Site>>,
    path: Path<String>,
    asked: Query<Wanted>,
) -> Result<Response, Refusal> {
    picture(state, path, asked, Kind::Law).await
}

pub(super) async fn forecast(
    state: State<Arc<Site>>,
    path: Path<String>,
    asked: Query<Wanted>,
) -> Result<Response, Refusal> {
    picture(state, path, asked, Kind::Forecast).await
}

async fn picture(
    State(site): State<Arc<Site>>,
    Path(sweep): Path<String>,
    Query(asked): Query<Wanted>,
    kind: Kind,
) -> Result<Response, Refusal> {
    let wanted = Wanted { sweep: sweep.clone(), metric: asked.metric, ..Wanted::default() };
    let rows = observations(&site, &wanted).await?;
    let jobs = site.read_one(Table::Jobs, &wanted).await?;
    let rows = in_order(rows, &jobs);
    let hash = sha256(&serde_json::to_string(&rows).unwrap_or_default());
    let key = (sweep, wanted.metric.clone(), kind);
    // One at a time: the machine's cores are for training.
    let mut kept = site.pictures.lock().await;
    let known = kept.get(&key).filter(|(of, _)| *of == hash).map(|(_, svg)| svg.clone());
    let svg = if let Some(svg) = known {
        svg
    } else {
        let drawing = tokio::task::spawn_blocking(move || match kind {
            Kind::Law => draw_law(&wanted, &rows),
            Kind::Forecast => draw_forecast(&wanted, &rows),
        });
        let failed = |error: tokio::task::JoinError| Refusal {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            words: error.to_string(),
        };
        let svg: Arc<str> = drawing.await.map_err(failed)?.unwrap_or_else(|words| in_words(&words)).into();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (hash, svg.clone()));
        svg
    };
    // Its style sheet is its own, which does nothing outside the picture.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    Ok(([(CONTENT_TYPE, "image/svg+xml"), (CONTENT_SECURITY_POLICY, policy)], themed(&svg)).into_response())
}

/// Rows of one metric, C in the first convention that most of them have.
pub(super) async fn observations(site: &Site, wanted: &Wanted) -> Result<Vec<Observation>, Refusal> {
    let Some((dataset, metric)) = split_metric(&wanted.metric) else { return Ok(Vec::new()) };
    let mut most = Vec::new();
    for convention in [Convention::GmacsSamples, Convention::TrainFlops, Convention::SixNd] {
        let of = ObservationsOf {
            sweep: &wanted.sweep,
            dataset,
            metric,
            convention,
            condition: None,
            proxy: None,
            checkpoints: false,
        };
        let _permit = site.views.acquire().await.expect("nobody closes it");
        let rows = site
            .store
            .observations(&of)
            .await
            .map_err(|error| Refusal::unavailable(&error, error.hint().as_deref()))?;
        let known = rows.iter().filter(|row| row.compute.is_finite()).count();
        if 2 * known >= rows.len() {
            return Ok(rows);
        }
        most = rows;
    }
    Ok(most)
}

/// In the order in which they came in; of very many, evenly spread ones.
pub(super) fn in_order(mut rows: Vec<Observation>, jobs: &Rows) -> Vec<Observation> {
    let done: BTreeMap<&str, &str> =
        (0..jobs.len()).map(|row| (jobs.text(row, "job_key"), jobs.text(row, "done_at"))).collect();
    rows.sort_by_key(|row| done.get(row.job_key.as_str()).copied().unwrap_or_default());
    let every = rows.len().div_ceil(ROWS).max(1);
    rows.into_iter().step_by(every).collect()
}

fn options(wanted: &Wanted, resamples: usize) -> Options {
    let metric = split_metric(&wanted.metric).map_or("", |(_, metric)| metric);
    Options { law: LawName::Power(Axis::C), resamples, ..Options::new(crate::fit::Response::of_metric(metric)) }
}

fn subject(wanted: &Wanted) -> Subject {
    let (dataset, metric) = split_metric(&wanted.metric).unwrap_or_default();
    Subject::new(&wanted.sweep, dataset, metric)
}

fn draw_law(wanted: &Wanted, rows: &[Observation]) -> Result<String, String> {
    let options = options(wanted, RESAMPLES);
    let fitted = fit(rows, &options).map_err(|error| no_law(&error))?;
    let target = Target::beyond(rows).ok_or("no row says its compute")?;
    let subject = subject(wanted);
    let material = Material {
        subject: &subject,
        observations: rows,
        held_out: &[],
        options: &options,
        fit: &fitted,
        target: &target,
        against: None,
    };
    let figure = analysis::law::figure(material).map_err(|error| error.to_string())?;
    figures::law::draw(&figure).map(|picture| picture.inline()).map_err(|error| error.to_string())
}

/// One forecast, of ten times the compute of the largest job, after the first results, after some more, and so on.
fn draw_forecast(wanted: &Wanted, rows: &[Observation]) -> Result<String, String> {
    let target = Target::beyond(rows).ok_or("no row says its compute")?;
    let (options, subject) = (options(wanted, RESAMPLES), subject(wanted));
    let least = crate::fit::JOBS_MIN.min(rows.len());
    let step = (rows.len() - least) as f64 / (CUTS - 1) as f64;
    let mut cuts: Vec<usize> = (0..CUTS).map(|cut| least + (step * cut as f64).round() as usize).collect();
    cuts.dedup();
    let after = |count: usize| {
        let fitted = fit(&rows[..count], &options).ok()?;
        let forecast = fitted.forecast(&target.input, Evaluation::AsObserved).law;
        let [value, low, high] = {
            let shown = subject.shown_interval(forecast);
            [shown.value, shown.low, shown.high]
        };
        value.is_finite().then_some(Whisker { x: count as f64, value, low, high })
    };
    let forecasts: Vec<Whisker> = cuts.into_iter().filter_map(after).collect();
    if forecasts.is_empty() {
        return Err(match fit(rows, &options) {
            Err(error) => no_law(&error),
            Ok(_) => "the law gives no number there".to_owned(),
        });
    }
    let y = format!("{} at {}", subject.shown_unit(), target.name);
    Ok(whiskers(&forecasts, "results that were in", &y).into_string())
}

fn no_law(error: &FitError) -> String {
    format!("No law yet: {error}")
}

/// A picture that says why there is none.
fn in_words(words: &str) -> String {
    let markup = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 60" width="700" height="60" role="img" {
            title { (words) }
            text x="4" y="34" font-size="14" font-family="sans-serif" fill="var(--muted)" { (words) }
        }
    };
    markup.into_string()
}

/// With the colours of light or dark, as the browser is.
fn themed(svg: &str) -> String {
    let css = format!(
        "<style>:root{{{}}}@media (prefers-color-scheme:dark){{:root{{{}}}}}</style>",
        figures::css_variables(false),
        figures::css_variables(true)
    );
    match svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1)) {
        Some(at) => format!("{}{css}{}", &svg[..at], &svg[at..]),
        None => svg.to_owned(),
    }
}
