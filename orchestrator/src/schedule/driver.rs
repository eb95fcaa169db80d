//! The one loop that performs what the [`Scheduler`] decides: reads the store, polls the backend, acts, tells how it goes.
//!
//! It may be killed at any point: everything it knows is in the store, or is found again by asking the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::{Action, AttemptPhase, AttemptView, Input, JobPhase, JobView, Scheduler};
use crate::backend::{Backend, BackendError, LaunchRequest, Observed};
use crate::store::{IntentRequest, JobProgress, OpenJob, Store, StoreError, Totals};

/// Between two looks at the store.
const TICK: Duration = Duration::from_millis(200);
/// How long one round may take before the database counts as away; doubles while it does.
const ROUND_LIMIT: Duration = Duration::from_secs(3);
const ROUND_LIMIT_MAX: Duration = Duration::from_mins(1);
/// Pause between two tries to reach a database that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Launches in a row that may fail.
const LAUNCH_FAILURES_MAX: u32 = 5;

/// What to drive.
#[derive(Debug)]
pub struct Sweep {
    /// Row.
    pub sweep_id: i64,
    /// The runner's executable.
    pub runner: PathBuf,
    /// Folder that relative paths of the jobs start from.
    pub base_dir: PathBuf,
    /// Folder of all state; attempts get theirs below `jobs/`.
    pub home: PathBuf,
    /// Seconds an attempt may take.
    pub time_limit_secs: Option<u64>,
}

/// What people want of a running driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Run all jobs.
    Run,
    /// Stop all attempts after a checkpoint, then return.
    Stop,
    /// Return at once; workers go on.
    Detach,
}

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum News<'a> {
    /// How far the sweep is; jobs that run, and those that ended since the last time.
    Progress {
        /// All jobs by state.
        totals: &'a Totals,
        /// Claimed by a worker, in plan order.
        running: &'a [JobProgress],
        /// Done, failed or cancelled since the last news.
        ended: &'a [JobProgress],
    },
    /// The database doesn't answer; it is tried again.
    DatabaseAway(&'a StoreError),
    /// It answers again.
    DatabaseBack,
    /// An attempt ended without a word.
    AttemptLost,
    /// A job is started.
    Launched {
        /// Its key.
        job_key: &'a str,
    },
    /// The backend refused something; it is tried again.
    BackendRefused(&'a BackendError),
}

/// Why the driver returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every job is done, failed or cancelled.
    Complete,
    /// Every attempt has stopped on request.
    Stopped,
    /// Attempts go on without it.
    Detached,
}

/// What can go wrong for good.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Runs a sweep until every job has ended or `wish` says otherwise.
pub async fn drive(
    store: Store,
    backend: &dyn Backend,
    scheduler: Scheduler,
    sweep: &Sweep,
    mut wish: watch::Receiver<Wish>,
    mut tell: impl FnMut(News<'_>),
) -> Result<Outcome, DriveError> {
    let mut driver = Driver { store, backend, scheduler, sweep, own: BTreeSet::new(), failures: 0 };
    let mut shown = Shown::default();
    let mut limit = ROUND_LIMIT;
    let mut away = false;
    loop {
        let wanted = *wish.borrow_and_update();
        if wanted == Wish::Detach {
            return Ok(Outcome::Detached);
        }
        let round = async {
            let round = driver.round(wanted == Wish::Stop, &mut tell).await?;
            shown.show(&driver.store, sweep.sweep_id, &mut tell).await?;
            Ok(round)
        };
        let error = match tokio::time::timeout(limit, round).await {
            Ok(Ok(round)) => {
                limit = ROUND_LIMIT;
                if std::mem::take(&mut away) {
                    tell(News::DatabaseBack);
                }
                match round {
                    Round::Ended => return Ok(Outcome::Complete),
                    Round::Idle if wanted == Wish::Stop => return Ok(Outcome::Stopped),
                    Round::Recorded => continue,
                    Round::Idle | Round::Waiting => {}
                }
                None
            }
            Ok(Err(DriveError::Store(error))) if error.is_transient() => Some(error),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                limit = (limit * 2).min(ROUND_LIMIT_MAX);
                Some(StoreError::Query { doing: "waiting for the database", source: sqlx_timeout() })
            }
        };
        let pause = match error {
            None => TICK,
            Some(error) => {
                if !std::mem::replace(&mut away, true) {
                    tell(News::DatabaseAway(&error));
                }
                // Also starts the private cluster again.
                match Store::connect().await {
                    Ok(store) => {
                        driver.store = store;
                        TICK
                    }
                    Err(error @ (StoreError::Url { .. } | StoreError::SchemaNewer { .. })) => return Err(error.into()),
                    Err(_) => AWAY_PAUSE,
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A sender that is gone wishes nothing new.
            Ok(()) = wish.changed() => {}
        }
    }
}
