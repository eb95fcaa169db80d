//! The one loop that performs what the [`Scheduler`] decides: reads the store, polls the backend, acts, tells how it
//! goes.
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
/// Polls in a row that must deny an attempt of another sweep before it is lost.
const GONE_ELSEWHERE: u32 = 3;
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
    DatabaseAway(&'a str),
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
    let mut driver = Driver {
        store,
        backend,
        scheduler,
        sweep,
        own: BTreeSet::new(),
        stopping: None,
        denied_elsewhere: BTreeMap::new(),
        failures: 0,
    };
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
            Ok(Err(DriveError::Store(error))) if error.is_transient() => Some(describe(&error)),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                limit = (limit * 2).min(ROUND_LIMIT_MAX);
                Some(format!("no answer within {} s", limit.as_secs()))
            }
        };
        let mut pause = TICK;
        if let Some(error) = error {
            if !std::mem::replace(&mut away, true) {
                tell(News::DatabaseAway(&error));
            }
            tokio::select! {
                // Also starts the private cluster again.
                connected = Store::connect() => match connected {
                    Ok(store) => driver.store = store,
                    Err(error @ (StoreError::Url { .. } | StoreError::SchemaNewer { .. })) => return Err(error.into()),
                    Err(_) => pause = AWAY_PAUSE,
                },
                Ok(()) = wish.changed() => continue,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A sender that is gone wishes nothing new.
            Ok(()) = wish.changed() => {}
        }
    }
}

/// What one round led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// No job is left to run.
    Ended,
    /// No attempt lives, jobs are left.
    Idle,
    /// Attempts live.
    Waiting,
    /// Intents were recorded that are to be acted on at once.
    Recorded,
}

struct Driver<'a> {
    store: Store,
    backend: &'a dyn Backend,
    scheduler: Scheduler,
    sweep: &'a Sweep,
    /// Attempts that this process recorded: nobody else is about to launch them.
    own: BTreeSet<String>,
    /// Attempts that lived when a stop was asked for; what another launcher starts after that is its own affair.
    stopping: Option<BTreeSet<String>>,
    /// How often in a row the backend denied attempts that this sweep doesn't ask for.
    denied_elsewhere: BTreeMap<String, u32>,
    failures: u32,
}

impl Driver<'_> {
    /// Reads, decides, acts.
    async fn round(&mut self, stop: bool, tell: &mut impl FnMut(News<'_>)) -> Result<Round, DriveError> {
        let (now, mut jobs) = self.store.job_open(self.sweep.sweep_id).await?;
        if jobs.is_empty() {
            return Ok(Round::Ended);
        }
        if stop {
            let token = |job: &OpenJob| job.live.as_ref().map(|live| live.token.clone());
            let asked = self.stopping.get_or_insert_with(|| jobs.iter().filter_map(token).collect());
            jobs.retain(|job| token(job).is_some_and(|token| asked.contains(&token)));
            if jobs.is_empty() {
                return Ok(Round::Idle);
            }
        }
        let taken = self.store.slots_taken(self.backend.name(), self.backend.host()).await?;
        let free_slots = self.backend.slots().saturating_sub(usize::try_from(taken).unwrap_or(0));
        if free_slots == 0 {
            self.reap_elsewhere().await?;
        }
        // After the store was read: an attempt that it calls live and that has ended since shows as gone once, not
        // twice.
        let observed = self.observe(&jobs).await;
        let input = Input { jobs: jobs.iter().map(|job| self.view(job, &observed)).collect(), free_slots, stop };
        let mut recorded = false;
        for action in self.scheduler.step(now, &input) {
            recorded |= self.perform(&action, &jobs, tell).await?;
        }
        Ok(match (recorded, jobs.iter().any(|job| job.live.is_some())) {
            (true, _) => Round::Recorded,
            (false, true) => Round::Waiting,
            (false, false) => Round::Idle,
        })
    }

    /// Ends attempts of other sweeps whose workers are gone: their slots would be held until somebody launches those
    /// sweeps again, which may be never.
    async fn reap_elsewhere(&mut self) -> Result<(), DriveError> {
        let (name, host) = (self.backend.name(), self.backend.host());
        let attempts = self.store.attempts_elsewhere(name, host, self.sweep.sweep_id).await?;
        let asked: Vec<_> = attempts.iter().map(|(token, handle, _)| (token.clone(), handle.clone())).collect();
        let observed = self.backend.poll(&asked).await;
        let mut denied = BTreeMap::new();
        for (token, _, intent) in
            attempts.into_iter().filter(|(token, ..)| observed.get(token) == Some(&Observed::Gone))
        {
            match self.denied_elsewhere.get(&token).copied().unwrap_or(0) + 1 {
                times if times < GONE_ELSEWHERE => {
                    denied.insert(token, times);
                }
                _ if intent => self.store.attempt_withdraw(&token).await?,
                _ => self.store.attempt_lost(&token).await?,
            }
        }
        self.denied_elsewhere = denied;
        Ok(())
    }

    /// The backend's word on each live attempt that is its own.
    async fn observe(&self, jobs: &[OpenJob]) -> BTreeMap<String, Observed> {
        let here = jobs
            .iter()
            .filter_map(|job| job.live.as_ref())
            .filter(|live| live.backend == self.backend.name() && live.host.as_deref() == Some(self.backend.host()))
            .map(|live| (live.token.clone(), live.handle.clone()))
            .collect::<Vec<_>>();
        self.backend.poll(&here).await
    }

    fn view(&self, job: &OpenJob, observed: &BTreeMap<String, Observed>) -> JobView {
        let live = job.live.as_ref().map(|live| AttemptView {
            token: live.token.clone(),
            phase: match live.state.as_str() {
                "intent" => AttemptPhase::Intent,
                "launched" => AttemptPhase::Launched,
                _ => AttemptPhase::Running,
            },
            created_secs: live.created_secs,
            own: self.own.contains(&live.token),
            stop_requested: live.stop_requested,
            observed: observed.get(&live.token).cloned().unwrap_or(Observed::Unknown),
        });
        JobView {
            job_id: job.job_id,
            phase: match job.state.as_str() {
                "pending" => JobPhase::Pending,
                "running" => JobPhase::Running,
                _ => JobPhase::Ended,
            },
            crashes: u32::try_from(job.crashes).unwrap_or(u32::MAX),
            lost: u32::try_from(job.lost).unwrap_or(u32::MAX),
            stalled: u32::try_from(job.stalled).unwrap_or(u32::MAX),
            last_reason: job.last_reason.clone(),
            last_end_secs: job.last_end_secs,
            live,
        }
    }

    /// Performs one action. `true`: an intent was recorded.
    async fn perform(
        &mut self,
        action: &Action,
        jobs: &[OpenJob],
        tell: &mut impl FnMut(News<'_>),
    ) -> Result<bool, DriveError> {
        match action {
            Action::RecordIntent { job_id } => {
                let Some(job) = jobs.iter().find(|job| job.job_id == *job_id) else { return Ok(false) };
                return self.record(job).await;
            }
            Action::Launch { token } => {
                let launched = jobs
                    .iter()
                    .find_map(|job| Some((job, job.live.as_ref()?)).filter(|(_, live)| live.token == *token));
                if let Some((job, live)) = launched {
                    self.launch(job, token, live.slot, Path::new(&live.folder), tell).await?;
                }
            }
            Action::Adopt { token, handle } => self.store.attempt_launched(token, handle).await?,
            Action::MarkLost { token } => {
                self.store.attempt_lost(token).await?;
                tell(News::AttemptLost);
            }
            Action::Withdraw { token } => self.store.attempt_withdraw(token).await?,
            Action::StopAttempt { token } => {
                self.store.attempt_request_stop(std::slice::from_ref(token)).await?;
                self.backend.stop(token).await?;
            }
            Action::FailJob { job_id, reason } => self.store.job_fail(*job_id, reason).await?,
        }
        Ok(false)
    }

    async fn record(&mut self, job: &OpenJob) -> Result<bool, DriveError> {
        let token = format!("{:032x}", rand::random::<u128>());
        let folder = self.sweep.home.join("jobs").join(&job.job_key[..12]).join(&token);
        let resources = self.backend.slot_resources();
        let request = IntentRequest {
            job_id: job.job_id,
            token: token.clone(),
            backend: self.backend.name(),
            host: self.backend.host().to_owned(),
            slots: self.backend.slots(),
            folder,
            device: resources.device,
            threads: resources.threads,
        };
        // Ours before it is stored: were the answer lost, we would find our own token and know it.
        self.own.insert(token);
        Ok(self.store.attempt_intend(&request).await?.is_some())
    }

    async fn launch(
        &mut self,
        job: &OpenJob,
        token: &str,
        slot: Option<i32>,
        folder: &Path,
        tell: &mut impl FnMut(News<'_>),
    ) -> Result<(), DriveError> {
        let request = LaunchRequest {
            token: token.to_owned(),
            slot: slot.and_then(|slot| usize::try_from(slot).ok()).unwrap_or(0),
            folder: folder.to_owned(),
            runner: self.sweep.runner.clone(),
            base_dir: self.sweep.base_dir.clone(),
            time_limit_secs: self.sweep.time_limit_secs,
        };
        match self.backend.launch(&request).await {
            Ok(handle) => {
                self.failures = 0;
                self.store.attempt_launched(token, &handle).await?;
                tell(News::Launched { job_key: &job.job_key });
                Ok(())
            }
            Err(error) if self.failures < LAUNCH_FAILURES_MAX => {
                self.failures += 1;
                tell(News::BackendRefused(&error));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What was shown last, so that each end is told once.
#[derive(Default)]
struct Shown {
    ended: BTreeSet<String>,
    count: Option<i64>,
}

impl Shown {
    async fn show(&mut self, store: &Store, sweep_id: i64, tell: &mut impl FnMut(News<'_>)) -> Result<(), StoreError> {
        let totals = store.job_totals(sweep_id).await?;
        let running = store.job_progress(sweep_id, &["running"]).await?;
        let count = totals.counts.done + totals.counts.failed + totals.counts.cancelled;
        let mut ended = Vec::new();
        if self.count != Some(count) {
            let all = store.job_progress(sweep_id, &["done", "failed", "cancelled"]).await?;
            let first_look = self.count.is_none();
            ended = all.into_iter().filter(|job| self.ended.insert(job.job_key.clone()) && !first_look).collect();
            self.count = Some(count);
        }
        tell(News::Progress { totals: &totals, running: &running, ended: &ended });
        Ok(())
    }
}

/// An error and its sources in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
