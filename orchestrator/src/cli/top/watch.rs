//! Reads what `sweep top` shows, again and again; a database that is away is tried again.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use chrono::Local;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::state::{Detail, Row, Snapshot, View, Wanted};
use crate::store::{EndListener, JobProgress, ProgressFilter, Store, StoreError, describe};

/// Between two looks at the database, if nothing is heard before; and after a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_SOONEST: Duration = Duration::from_millis(250);
/// Or so many times what the last look took, so that looking costs a database little.
const LOOK_SHARE: u32 = 5;
/// How long a look may take before the database counts as away.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Jobs of a kind that are listed: there is a screen of them, and a few to scroll to.
const RUNNING_MAX: usize = 200;
const FAILED_MAX: i64 = 50;
const WAITING_MAX: i64 = 50;
/// Points of a curve in the list, and of one in the details.
const POINTS: u16 = 16;
const POINTS_DETAIL: u16 = 160;
/// Bytes at the end of a log in which its last lines are looked for.
const LOG_BYTES: u64 = 16 << 10;

/// What a look gave: what is there, or why nothing is known.
pub(super) type Seen = Result<Snapshot, String>;

/// Looks until nobody listens; at once when something else is wanted.
pub(super) async fn watch(mut store: Store, mut wanted: watch::Receiver<Wanted>, seen: mpsc::Sender<Seen>) {
    let mut hints: Option<EndListener> = None;
    loop {
        let asked = wanted.borrow_and_update().clone();
        let begun = Instant::now();
        let answer = match timeout(LOOK_LIMIT, look(&store, &asked)).await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("no answer within {} s", LOOK_LIMIT.as_secs())),
        };
        let is_away = answer.is_err();
        if seen.send(answer).await.is_err() {
            return;
        }
        if is_away {
            hints = None;
            if let Ok(Ok(Some(again))) = timeout(LOOK_LIMIT, Store::connect_stored()).await {
                store = again;
            }
        } else if hints.is_none() {
            hints = store.listen_for_checkpoints().await.ok();
        }
        let soonest = begun + LOOK_SOONEST.max(begun.elapsed() * LOOK_SHARE);
        tokio::select! {
            () = sleep(LOOK_EVERY.max(begun.elapsed() * LOOK_SHARE)) => {}
            () = async { heard(&mut hints).await; sleep_until(soonest).await } => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// Resolves when the database says that something happened; a listener that is cut off is made anew.
async fn heard(hints: &mut Option<EndListener>) {
    let Some(listener) = hints else { return std::future::pending().await };
    if listener.next().await.is_err() {
        *hints = None;
    }
}

async fn look(store: &Store, wanted: &Wanted) -> Result<Snapshot, StoreError> {
    let sweeps = store.sweep_list(None).await?;
    let shown = sweeps.iter().find(|sweep| Some(&sweep.name) == wanted.sweep.as_ref());
    let (view, detail) = match shown {
        Some(sweep) => {
            let sweep_id = sweep.sweep_id;
            let view = View {
                sweep: sweep.name.clone(),
                question: sweep.question.clone(),
                totals: store.job_totals(sweep_id).await?,
                activity: store.sweep_activity(sweep_id).await?,
                jobs: jobs(store, sweep_id).await?,
            };
            let detail = match &wanted.detail {
                Some(key) => detail(store, sweep_id, key).await?,
                None => None,
            };
            (Some(view), detail)
        }
        None => (None, None),
    };
    Ok(Snapshot { sweeps, view, detail, at: Local::now().format("%H:%M:%S").to_string() })
}

/// Those that run, those that were given up, the next that wait.
async fn jobs(store: &Store, sweep_id: i64) -> Result<Vec<Row>, StoreError> {
    let mut jobs = store.job_progress(sweep_id, ProgressFilter::Running).await?;
    jobs.retain(|job| job.state == "running");
    jobs.truncate(RUNNING_MAX);
    for (states, most) in [(&["failed", "cancelled"][..], FAILED_MAX), (&["pending"], WAITING_MAX)] {
        jobs.extend(store.job_progress(sweep_id, ProgressFilter::States(states, most)).await?);
    }
    let keys: Vec<String> = jobs.iter().filter(|job| job.attempts > 0).map(|job| job.job_key.clone()).collect();
    let mut curves = store.loss_curves(&keys, POINTS).await?;
    let row = |job: JobProgress| Row { loss: curves.remove(&job.job_key).unwrap_or_default(), job };
    Ok(jobs.into_iter().map(row).collect())
}

async fn detail(store: &Store, sweep_id: i64, key: &str) -> Result<Option<Detail>, StoreError> {
    let Some(found) = store.job_find(key).await?.pop() else { return Ok(None) };
    let Some(job) = store.job_progress(sweep_id, ProgressFilter::Rows(&[found.job_id])).await?.pop() else {
        return Ok(None);
    };
    let loss =
        store.loss_curves(std::slice::from_ref(&job.job_key), POINTS_DETAIL).await?.remove(key).unwrap_or_default();
    let log = match found.attempts.last() {
        Some((_, folder)) => log_of(Path::new(folder), job.stderr_tail.as_deref()),
        None => vec!["it has not been started yet".to_owned()],
    };
    Ok(Some(Detail { row: Row { job, loss }, attempts: found.attempts, log }))
}

/// The last lines of an attempt's log; of one that lies on another machine, what was stored of it.
fn log_of(folder: &Path, stored: Option<&str>) -> Vec<String> {
    let path = folder.join("stderr.log");
    let text = match (tail(&path), stored) {
        (Ok(text), _) => text,
        (Err(_), Some(stored)) => stored.to_owned(),
        (Err(error), None) if error.kind() == ErrorKind::NotFound && folder.is_dir() => "nothing so far".to_owned(),
        (Err(error), None) if error.kind() == ErrorKind::NotFound => {
            format!("{} is not on this machine", path.display())
        }
        (Err(error), None) => format!("can't read {}: {error}", path.display()),
    };
    text.lines().map(str::to_owned).collect()
}

/// The last whole lines of a file.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(match text.split_once('\n') {
        Some((_, whole)) if from > 0 => whole.to_owned(),
        _ => text.into_owned(),
    })
}
