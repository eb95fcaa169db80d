//! Tables of the page as files.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::page::Refusal;
use super::{Site, TIMEOUT, refused};
use crate::dataset::{self, DatasetError};
use crate::store::page::{Table, Wanted};
use crate::store::sql::{Answer, Question};

/// Rows of a file: they are held in memory.
const ROWS: usize = 1_000_000;

/// `/data/TABLE.FORMAT?sweep=...`: all rows.
pub(super) async fn data(
    State(site): State<Arc<Site>>,
    Path(file): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let (table, format) = file
        .rsplit_once('.')
        .and_then(|(name, format)| Some((Table::of_name(name)?, format)))
        .ok_or_else(|| Refusal::not_found(format!("There is no table for `{file}`.")))?;
    let content_type = match format {
        "csv" => "text/csv; charset=utf-8",
        "parquet" => "application/vnd.apache.parquet",
        "json" => "application/json",
        _ => return Err(Refusal::not_found(format!("`{format}` is no format; csv, parquet and json are."))),
    };
    let text = table.sql(&wanted).map_err(Refusal::bad)?;
    let permit = site.views.acquire().await.expect("nobody closes it");
    let question = Question { text: &text, timeout: TIMEOUT, rows_max: Some(ROWS) };
    let answer = site.store.sql(&question).await.map_err(|error| refused(&error))?;
    drop(permit);
    if answer.truncated {
        return Err(Refusal::bad(format!("It has more than {ROWS} rows: `sweep sql` writes them to a file.")));
    }
    let name = format!("attachment; filename=\"{}.{format}\"", table.name());
    let format = format.to_owned();
    let written = tokio::task::spawn_blocking(move || written(&answer, &format));
    let failed = |words: String| Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, words };
    let bytes = match written.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(error) => return Err(failed(error.to_string())),
    };
    Ok(([(CONTENT_TYPE, content_type.to_owned()), (CONTENT_DISPOSITION, name)], bytes).into_response())
}

fn written(answer: &Answer, format: &str) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    match format {
        "csv" => dataset::write_csv(answer, &mut bytes)?,
        "parquet" => dataset::write_parquet(answer, &mut bytes)?,
        _ => dataset::write_json(answer, &mut bytes)?,
    }
    Ok(bytes)
}
