//! The one loop that performs what the [`Scheduler`] decides: reads the store, polls the backend, acts, tells how it
//! goes.
//!
//! It may be killed at any point: everything it knows is in the store, or is found again by asking the backend. It
//! looks at once when a worker ends (the backend hears it), when the database says that an attempt ended (`NOTIFY`, a
//! hint that may be lost), and at the latest after [`TICK`], or a little later where many attempts live.

mod clocks;
mod display;
mod nodes;
mod round;
mod silence;
mod spools;
mod window;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Scheduler;
use crate::backend::{Backend, BackendError, LaunchRequest, WorkerId};
use crate::store::{EndListener, JobProgress, KnownAttempt, Place, Store, StoreError, Totals, describe};
use display::Display;
use round::{Round, RoundDriver};

/// Between two looks at the store, if nothing is heard before. All attempts that live are read each time, so that many
/// are looked at less often: 200 a second, and each every 5 s, half of what makes a heartbeat stale.
const TICK: Duration = Duration::from_millis(500);
const TICK_AN_ATTEMPT: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_secs(5);
/// The same after a hint, which is followed at once while few attempts live.
const HINT_AN_ATTEMPT: Duration = Duration::from_millis(1);
const FEW: u32 = 100;
/// How long one round may take before the database counts as away; doubles while it does.
const ROUND_LIMIT: Duration = Duration::from_secs(10);
const ROUND_LIMIT_MAX: Duration = Duration::from_mins(1);
/// Pause between two tries to reach a database that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How long a launcher that detaches waits for the database to hear of it.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// Rounds in a row in which the database may refuse an action for good.
const REFUSALS_MAX: u32 = 5;

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
    /// Seconds for which a worker goes on to the next job; 0: each runs one.
    pub work_secs: u64,
    /// Whether the runner takes jobs on standard input.
    pub serve: bool,
    /// Whether workers reach no database: their claims are given in files, and what they leave there is stored.
    pub spool_only: bool,
    /// Return as soon as all that can be started has been.
    pub detach: bool,
}

impl Sweep {
    /// What a backend is to start for an attempt.
    pub fn request(&self, token: String, slot: usize, folder: PathBuf) -> LaunchRequest {
        LaunchRequest {
            token,
            slot,
            folder,
            runner: self.runner.clone(),
            base_dir: self.base_dir.clone(),
            time_limit_secs: self.time_limit_secs,
            sweep_id: self.sweep_id,
            work_secs: self.work_secs,
            serve: self.serve,
            spool_only: self.spool_only,
            avoid: BTreeSet::new(),
        }
    }
}

/// What people have asked of a running driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopRequest {
    /// Nothing: run all jobs.
    None,
    /// Stop all attempts after a checkpoint, then return.
    Stop,
    /// Return at once; workers finish the job that they have.
    Detach,
}

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum Notice<'a> {
    /// How far the sweep is; jobs that run, and those that ended since the last time.
    Progress {
        /// All jobs by state.
        totals: &'a Totals,
        /// Claimed by a worker, in plan order.
        running: &'a [JobProgress],
        /// Done, failed or cancelled since the last notice.
        ended: &'a [JobProgress],
    },
    /// The database doesn't answer; it is tried again.
    DatabaseAway(&'a str),
    /// It answers again.
    DatabaseBack,
    /// The database refused one action; the others go on, and it is tried again.
    ActionFailed(&'a str),
    /// An attempt ended without a word.
    AttemptLost {
        /// What is known of its end.
        reason: &'a str,
    },
    /// A job is started.
    Launched {
        /// Its key.
        job_key: &'a str,
    },
    /// The backend refused something; it is tried again.
    BackendRefused(&'a BackendError),
    /// Attempts have failed on a machine: the next ones are kept away from it, as long as there are others.
    NodeAvoided {
        /// Its name.
        node: &'a str,
    },
    /// Attempts are on hosts that can't be asked and have stopped beating; after so many seconds they are given up.
    HostSilent {
        /// Name of the host.
        host: &'a str,
        /// Seconds of silence.
        silent_secs: f64,
        /// Seconds of silence after which its attempts are lost.
        limit_secs: f64,
    },
}

/// Why the driver returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every job is done, failed or cancelled.
    Complete,
    /// Every attempt that could be reached has stopped on request.
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

/// Runs a sweep until every job has ended or `requests` says otherwise. While `storing` is true, more jobs may come.
pub async fn drive(
    store: Store,
    backend: &dyn Backend,
    scheduler: Scheduler,
    sweep: &Sweep,
    storing: watch::Receiver<bool>,
    mut requests: watch::Receiver<StopRequest>,
    mut tell: impl FnMut(Notice<'_>),
) -> Result<Outcome, DriveError> {
    let mut driver = RoundDriver::new(store, backend, scheduler, sweep, storing);
    let mut display = Display::default();
    let mut listener: Option<EndListener> = None;
    let mut limit = ROUND_LIMIT;
    let mut away = false;
    let mut refusals = 0;
    loop {
        let request = *requests.borrow_and_update();
        if request == StopRequest::Detach {
            leave(&driver.store, sweep).await;
            return Ok(Outcome::Detached);
        }
        let round = async {
            if listener.is_none() {
                listener = driver.store.listen_for_ends().await.ok();
            }
            let round = driver.round(request == StopRequest::Stop, &mut tell).await?;
            display.show(&driver.store, sweep.sweep_id, round == Round::Ended, &mut tell).await?;
            Ok(round)
        };
        let error = match tokio::time::timeout(limit, round).await {
            Ok(Ok(round)) => {
                limit = ROUND_LIMIT;
                if std::mem::take(&mut away) {
                    tell(Notice::DatabaseBack);
                }
                match driver.refused.take() {
                    Some(error) if refusals >= REFUSALS_MAX => return Err(error.into()),
                    Some(error) => {
                        refusals += 1;
                        tell(Notice::ActionFailed(&describe(&error)));
                    }
                    None => refusals = 0,
                }
                match round {
                    Round::Ended => return Ok(Outcome::Complete),
                    Round::Idle if request == StopRequest::Stop => return Ok(Outcome::Stopped),
                    Round::Waiting
                        if sweep.detach && (driver.is_settled() || driver.withdraw_what_has_no_room().await?) =>
                    {
                        leave(&driver.store, sweep).await;
                        return Ok(Outcome::Detached);
                    }
                    Round::Idle | Round::Waiting => None,
                }
            }
            Ok(Err(DriveError::Store(error))) if error.is_transient() => Some(describe(&error)),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let said = format!("no answer within {} s", limit.as_secs());
                limit = (limit * 2).min(ROUND_LIMIT_MAX);
                Some(said)
            }
        };
        let live = u32::try_from(driver.signs.len()).unwrap_or(u32::MAX);
        let mut next = Instant::now() + TICK_AN_ATTEMPT.saturating_mul(live).clamp(TICK, TICK_MAX);
        let soonest = Instant::now() + HINT_AN_ATTEMPT.saturating_mul(live.saturating_sub(FEW)).min(TICK_MAX);
        if let Some(error) = error {
            if !std::mem::replace(&mut away, true) {
                tell(Notice::DatabaseAway(&error));
            }
            listener = None;
            tokio::select! {
                // Also starts the private cluster again.
                connected = Store::connect() => match connected {
                    Ok(store) => driver.store = store,
                    Err(error @ (StoreError::Url { .. } | StoreError::SchemaNewer { .. })) => return Err(error.into()),
                    Err(_) => next = Instant::now() + AWAY_PAUSE,
                },
                Ok(()) = requests.changed() => continue,
            }
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = async { backend.changed().await; sleep_until(soonest).await } => {}
            () = async { heard(&mut listener).await; sleep_until(soonest).await } => {}
            // A sender that is gone asks for nothing new.
            Ok(()) = requests.changed() => {}
        }
    }
}

/// Where a backend's attempts are.
pub fn place_of(backend: &dyn Backend) -> Place {
    Place { backend: backend.name(), host: backend.host().to_owned(), machine: backend.machine().to_owned() }
}

/// The workers of attempts, in their order.
pub fn worker_ids(attempts: &[KnownAttempt]) -> Vec<WorkerId> {
    attempts.iter().map(|attempt| WorkerId { name: attempt.worker.clone(), handle: attempt.handle.clone() }).collect()
}

/// A hint: workers see by themselves, a little later, that nobody drives the sweep.
async fn leave(store: &Store, sweep: &Sweep) {
    let _ = tokio::time::timeout(LEAVE_LIMIT, store.launcher_leave(sweep.sweep_id)).await;
}

/// Resolves when the database says that an attempt has ended; a listener that is cut off is made anew by the next
/// round.
async fn heard(listener: &mut Option<EndListener>) {
    let Some(ends) = listener else { return std::future::pending().await };
    if ends.next().await.is_err() {
        *listener = None;
    }
}
