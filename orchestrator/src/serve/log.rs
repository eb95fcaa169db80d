//! The ends of what runners wrote, from the folders of attempts that this machine can read.

use std::io::SeekFrom;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Html;
use maud::html;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Site;
use super::page::{Refusal, page};
use super::rows::Rows;
use crate::store::page::{Table, Wanted};

/// Bytes at the end of a file that are shown.
const TAIL: u64 = 256 * 1024;
/// And on the page of a job.
const SHORT_TAIL: u64 = 4 * 1024;

/// Files of an attempt's folder that may be asked for.
const FILES: [&str; 2] = ["stderr.log", "events.jsonl"];

pub(super) async fn log(
    State(site): State<Arc<Site>>,
    Path((key, attempt, file)): Path<(String, i64, String)>,
) -> Result<Html<String>, Refusal> {
    if !FILES.contains(&file.as_str()) {
        return Err(Refusal::not_found(format!("An attempt has {}, and no `{file}` to show.", FILES.join(" and "))));
    }
    let attempts = site.read_one(Table::JobAttempts, &Wanted { job: key.clone(), ..Wanted::default() }).await?;
    let row = (0..attempts.len())
        .find(|row| attempts.count(*row, "attempt_id") == attempt)
        .ok_or_else(|| Refusal::not_found(format!("Job `{key}` has no attempt {attempt}.")))?;
    let path = FilePath::new(attempts.text(row, "folder")).join(&file);
    let (text, from) = if let Some(text) = tail(&path, TAIL).await {
        (text, format!("The end of {}.", path.display()))
    } else {
        let stored = if file == FILES[0] { attempts.text(row, "stderr_tail") } else { "" };
        (stored.to_owned(), format!("{} can't be read here; this is what the database has.", path.display()))
    };
    let (short, own) = (key.get(..12).unwrap_or(&key), format!("/job/{key}"));
    let content = html! {
        h1 { (file) " of attempt " (attempts.count(row, "nth")) }
        p.quiet { (from) " " a href=(own) { "Back to the job" } }
        @if text.is_empty() { p { "It is empty." } } @else { pre.log tabindex="0" { (text) } }
    };
    Ok(page(&file, &[(short, &own)], None, &content))
}

/// Number and last words of the last attempt that said something.
pub(super) async fn last_of(attempts: &Rows) -> Option<(i64, String)> {
    let row = attempts.len().checked_sub(1)?;
    let path = FilePath::new(attempts.text(row, "folder")).join(FILES[0]);
    let text = tail(&path, SHORT_TAIL).await.unwrap_or_else(|| attempts.text(row, "stderr_tail").to_owned());
    (!text.trim().is_empty()).then(|| (attempts.count(row, "nth"), text))
}

/// The last `most` bytes of a plain file without control characters but line breaks and tabs; `None`: can't be read.
async fn tail(path: &FilePath, most: u64) -> Option<String> {
    if !path.is_absolute() || !tokio::fs::symlink_metadata(path).await.ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).await.ok()?;
    let length = file.metadata().await.ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).await.ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).await.ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect())
}
