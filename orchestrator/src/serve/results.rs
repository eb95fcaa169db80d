//! A table of results with a box for a condition.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::Site;
use super::page::{Refusal, page};
use super::sweep::{default_metric, metric_name};
use crate::store::observation::CONDITION_COLUMNS;
use crate::store::page::{Table, Wanted};

/// Stands for all metrics.
pub(super) const ALL: &str = "all";
/// Rows that the page shows; files have all.
const ROWS: usize = 500;

pub(super) async fn results(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    Query(asked): Query<Wanted>,
) -> Result<Response, Refusal> {
    let mut wanted = Wanted { sweep: name.clone(), ..asked };
    // All metrics have to be asked for: they are many rows.
    let known = if wanted.metric.is_empty() {
        let metrics = site.read_one(Table::Metrics, &wanted).await?;
        wanted.metric = default_metric(&metrics);
        Some(metrics)
    } else {
        if wanted.metric == ALL {
            wanted.metric.clear();
        }
        None
    };
    wanted.rows_max = Some(ROWS);
    let metrics = async {
        match known {
            Some(metrics) => Ok(metrics),
            None => site.read_one(Table::Metrics, &wanted).await,
        }
    };
    // What is wrong with a condition is said where it can be put right.
    let (metrics, rows) = tokio::join!(metrics, site.read_one(Table::Results, &wanted));
    let metrics = metrics?;
    if metrics.is_empty() {
        site.check_sweep(&name).await?;
    }
    let status = rows.as_ref().map_or_else(|refusal| refusal.status, |_| StatusCode::OK);
    let address = format!("/sweep/{name}/results");
    let content = html! {
        h1 { "Results of " (name) }
        form.where action=(address) {
            label { "metric " select name="metric" {
                option value=(ALL) selected[wanted.metric.is_empty()] { "all" }
                @for row in 0..metrics.len() { @let choice = metric_name(&metrics, row); option selected[choice == wanted.metric] { (choice) } }
            } }
            label.grow { "where " input name="where" value=(wanted.condition) spellcheck="false" autocomplete="off" placeholder="model = 'ViT-B-32' AND d < 1.3e10"; }
            @if !wanted.order.is_empty() { input type="hidden" name="order" value=(wanted.order); }
            button { "Show" }
        }
        details { summary { "columns of a condition" } p { code { (CONDITION_COLUMNS) } } }
        @match &rows {
            Err(refusal) => p.bad role="alert" { (refusal.words) },
            Ok(rows) => {
                p.quiet {
                    @if rows.len() >= ROWS { "The first " (rows.len()) " rows; the files have all." } @else { (rows.len()) " rows." }
                }
                (rows.source())
                @if !rows.is_empty() { (rows.table(&[])) }
            }
        }
    };
    let sweep = format!("/sweep/{name}");
    Ok((status, page(&format!("results of {name}"), &[(&name, &sweep), ("results", &address)], None, &content))
        .into_response())
}
