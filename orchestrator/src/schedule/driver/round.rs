//! One round of the driver: read what lives and the next jobs, ask the backend, decide, act.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::clocks::ClockWatch;
use super::{DriveError, Notice, Sweep, place_of, worker_ids};
use crate::backend::{Backend, BackendError, EndCause, Launched, Observed, WorkerId};
use crate::schedule::{Action, AttemptPhase, AttemptView, Input, JobPhase, JobView, SILENT_SECS, Scheduler};
use crate::store::{IntentRequest, LiveAttempt, OpenJob, Place, SlotOffer, Store, StoreError};
use crate::worker::ingest::Ingest;

/// Launches in a row that may fail, and the pause after the first, which doubles.
const LAUNCH_FAILURES_MAX: u32 = 5;
const LAUNCH_PAUSE: Duration = Duration::from_millis(200);
/// What one round led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// No job is left to run.
    Ended,
    /// No attempt lives (or, after a stop, none that could be reached), jobs are left.
    Idle,
    /// Attempts live.
    Waiting,
}

pub(super) struct RoundDriver<'a> {
    pub(super) store: Store,
    /// What the database refused for good in the last round, if anything.
    pub(super) refused: Option<StoreError>,
    pub(super) backend: &'a dyn Backend,
    place: Place,
    pub(super) scheduler: Scheduler,
    pub(super) sweep: &'a Sweep,
    /// Whether jobs of the plan are still to be stored.
    storing: watch::Receiver<bool>,
    /// Attempts that this process recorded and has not seen launched: nobody else is about to launch them.
    own: BTreeSet<String>,
    /// Workers that lived when a stop was asked for; what another launcher starts after that is its own affair.
    stopping: Option<BTreeSet<String>>,
    /// Every job up to this position of the plan has ended.
    pub(super) cursor: i32,
    /// Up to this position behind the cursor's window there was nothing to start.
    pub(super) ahead: Option<i32>,
    /// When the whole sweep may be looked through again.
    pub(super) full_look_at: Option<Instant>,
    launch_failures: u32,
    launch_at: Option<Instant>,
    clocks: ClockWatch,
    /// Last sign of life of each attempt, as stored, and when it was first read, by our clock.
    pub(super) signs: BTreeMap<String, (f64, Instant)>,
    /// Hosts whose silence was told.
    pub(super) silent_hosts: BTreeSet<String>,
    /// Workers that were ended by hand, and whose jobs have been cancelled for it.
    cancelled: BTreeSet<String>,
    settled: bool,
    pub(super) ingest: Ingest,
    /// Machines that attempts are kept away from.
    pub(super) avoided: BTreeSet<String>,
    /// Recorded attempts that the backend had no room for when it was last asked.
    no_room_for: Vec<String>,
}

impl<'a> RoundDriver<'a> {
    pub(super) fn new(
        store: Store,
        backend: &'a dyn Backend,
        scheduler: Scheduler,
        sweep: &'a Sweep,
        storing: watch::Receiver<bool>,
    ) -> Self {
        RoundDriver {
            store,
            refused: None,
            backend,
            place: place_of(backend),
            scheduler,
            sweep,
            storing,
            own: BTreeSet::new(),
            stopping: None,
            cursor: -1,
            ahead: None,
            full_look_at: None,
            launch_failures: 0,
            launch_at: None,
            clocks: ClockWatch::default(),
            signs: BTreeMap::new(),
            silent_hosts: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            settled: false,
            ingest: Ingest::default(),
            avoided: BTreeSet::new(),
            no_room_for: Vec::new(),
        }
    }

    /// Reads, decides, acts.
    pub(super) async fn round(&mut self, stop: bool, tell: &mut impl FnMut(Notice<'_>)) -> Result<Round, DriveError> {
        // Before anything is read: what is stored later is not missed.
        let storing = *self.storing.borrow();
        let (now, mut jobs) = self.store.job_live(self.sweep.sweep_id).await?;
        let live: BTreeSet<&str> = jobs.iter().filter_map(|job| Some(job.live.as_ref()?.token.as_str())).collect();
        self.own.retain(|token| live.contains(token.as_str()));
        self.clocks.look(Instant::now(), now);
        self.ingest_spools(&mut jobs, tell).await?;
        self.note_signs(&jobs);
        let mut all_ended = false;
        let mut free_slots = 0;
        if stop {
            let worker = |job: &OpenJob| job.live.as_ref().map(|live| live.worker.clone());
            let asked = self.stopping.get_or_insert_with(|| jobs.iter().filter_map(worker).collect());
            jobs.retain(|job| worker(job).is_some_and(|worker| asked.contains(&worker)));
        } else {
            let taken = usize::try_from(self.store.slots_taken(&self.place).await?).unwrap_or(0);
            let untaken = self.backend.slots().saturating_sub(taken);
            let live = jobs.iter().filter_map(|job| job.live.as_ref());
            let workers: BTreeSet<&str> = live.map(|live| live.worker.as_str()).collect();
            // What is held and used by nobody is not to be had; nor is it to be asked for somewhere else.
            let idle = self.backend.idle_shares(&workers);
            let room = self.scheduler.policy().parallel.saturating_sub(workers.len() + idle);
            free_slots = untaken.saturating_sub(idle).min(room);
            if free_slots > 0 && self.launch_at.is_none_or(|at| Instant::now() >= at) {
                let (next, ended) = self.next_jobs(free_slots).await?;
                all_ended = ended && jobs.is_empty() && !storing;
                jobs.extend(next);
            }
            if untaken == 0 {
                self.end_elsewhere().await?;
            }
        }
        self.respect_cancelled(&jobs).await?;
        if all_ended {
            return Ok(Round::Ended);
        }
        // After the store was read: what it calls live and has ended since, the store knows better when it is written.
        let observed = self.observe(&jobs).await;
        let views = jobs.iter().map(|job| self.view(now, job, &observed)).collect();
        let input = Input { jobs: views, free_slots, stop };
        let actions = self.scheduler.step(now, &input);
        let starts = |action: &Action| matches!(action, Action::Start { .. } | Action::Launch { .. });
        let handed_over = |job: &JobView| job.live.as_ref().is_none_or(|live| live.phase != AttemptPhase::Intent);
        self.settled = !storing && !actions.iter().any(starts) && input.jobs.iter().all(handed_over);
        self.perform(actions, &jobs, tell).await?;
        self.tell_of_silence(now, &input, tell);
        let waiting = input.jobs.iter().filter_map(|job| job.live.as_ref());
        let mut waiting = waiting.filter(|attempt| !stop || self.scheduler.may_be_running(now, attempt));
        Ok(if waiting.next().is_some() || (storing && !stop) { Round::Waiting } else { Round::Idle })
    }

    /// Takes back the attempts that the backend has no room for. Whether there were any: the backend is full.
    pub(super) async fn withdraw_what_has_no_room(&mut self) -> Result<bool, StoreError> {
        let is_full = !self.no_room_for.is_empty();
        for token in std::mem::take(&mut self.no_room_for) {
            self.store.attempt_withdraw(&token).await?;
        }
        Ok(is_full)
    }

    /// Whether the last round found nothing to start, and every attempt with the backend.
    pub(super) fn is_settled(&self) -> bool {
        self.settled && self.launch_at.is_none()
    }

    /// Cancels jobs that stopped because somebody ended their workers by hand, once for each worker. Those whose
    /// attempts have not ended yet are looked at again.
    async fn respect_cancelled(&mut self, jobs: &[OpenJob]) -> Result<(), StoreError> {
        let mut workers = self.backend.cancelled_by_hand();
        self.cancelled.retain(|worker| workers.contains(worker));
        let live: BTreeSet<&str> =
            jobs.iter().filter_map(|job| job.live.as_ref()).map(|live| live.worker.as_str()).collect();
        workers.retain(|worker| !self.cancelled.contains(worker) && !live.contains(worker.as_str()));
        if workers.is_empty() {
            return Ok(());
        }
        let stopped = self.store.job_stopped_on(&workers).await?;
        if !stopped.is_empty() {
            let reason = format!("its worker was cancelled by hand ({})", self.place.backend);
            self.store.job_cancel(&stopped, &reason, self.scheduler.policy().silent_secs).await?;
        }
        self.cancelled.extend(workers);
        Ok(())
    }

    /// Ends attempts of other sweeps whose workers are gone: their slots would be held until somebody launches those
    /// sweeps again, which may be never. The rule is the scheduler's.
    async fn end_elsewhere(&mut self) -> Result<(), StoreError> {
        let attempts = self.store.attempt_elsewhere(&self.place, self.sweep.sweep_id).await?;
        if attempts.is_empty() || self.clocks.has_jumped() {
            return Ok(());
        }
        let workers = worker_ids(&attempts);
        let observed = self.backend.poll(&workers).await;
        for attempt in attempts {
            let silent = attempt.silent_secs >= self.scheduler.policy().stale_secs;
            let (cause, node) = match observed.get(&attempt.worker) {
                Some(Observed::Exited) => (EndCause::Unknown, None),
                Some(Observed::Gone) if silent => (EndCause::Unknown, None),
                Some(Observed::Ended { cause, node, .. }) if silent => (*cause, node.as_deref()),
                _ => continue,
            };
            if attempt.intent {
                self.store.attempt_withdraw(&attempt.token).await?;
            } else if self.store.attempt_lost(&attempt.token, "the worker is gone", cause.word(), node).await? {
                self.backend.kill_leftovers(&attempt.worker).await;
            }
        }
        Ok(())
    }

    /// The backend's word on the worker of each live attempt that is its own.
    async fn observe(&self, jobs: &[OpenJob]) -> BTreeMap<String, Observed> {
        let here: Vec<WorkerId> = jobs
            .iter()
            .filter_map(|job| job.live.as_ref())
            .filter(|live| live.is_at(&self.place))
            .map(worker_id)
            .collect();
        self.backend.poll(&here).await
    }

    fn view(&self, now: f64, job: &OpenJob, observed: &BTreeMap<String, Observed>) -> JobView {
        let live = job.live.as_ref().map(|live| AttemptView {
            token: live.token.clone(),
            worker: live.worker.clone(),
            phase: match live.state.as_str() {
                "intent" => AttemptPhase::Intent,
                "launched" => AttemptPhase::Launched,
                _ => AttemptPhase::Running,
            },
            host: live.host.clone().unwrap_or_else(|| "unknown".to_owned()),
            created_secs: live.created_secs,
            seen_secs: if self.clocks.has_jumped() { now } else { live.seen_secs.min(now - self.unchanged_secs(live)) },
            own: self.own.contains(&live.token),
            stop_requested: live.stop_requested,
            observed: observed
                .get(&live.worker)
                .filter(|_| live.is_at(&self.place))
                .cloned()
                .unwrap_or(Observed::Unknown),
        });
        JobView {
            job_id: job.job_id,
            phase: match job.state.as_str() {
                "pending" => JobPhase::Pending,
                "running" => JobPhase::Running,
                _ => JobPhase::Ended,
            },
            history: job.history.clone(),
            orphaned: job.orphaned.clone(),
            live,
        }
    }

    /// Performs all actions. One that the database refuses does not keep the others from being tried; a database that
    /// is away does.
    async fn perform(
        &mut self,
        actions: Vec<Action>,
        jobs: &[OpenJob],
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), DriveError> {
        let starts: Vec<i64> = actions
            .iter()
            .filter_map(|action| if let Action::Start { job_id } = action { Some(*job_id) } else { None })
            .collect();
        let mut due = Vec::with_capacity(actions.len());
        for action in actions {
            if !self.had_ended(&action, jobs).await? {
                due.push(action);
            }
        }
        let mut transient = None;
        let mut note = |error: DriveError| match error {
            DriveError::Store(error) if error.is_transient() => {
                transient.get_or_insert(error);
                Ok(())
            }
            DriveError::Store(error) => {
                self.refused.get_or_insert(error);
                Ok(())
            }
            error @ DriveError::Backend(_) => Err(error),
        };
        let mut results = Vec::new();
        let mut adopted = Vec::new();
        for action in due {
            match action {
                // A thousand at once, when an array has started.
                Action::Adopt { token, handle } => adopted.push((token, handle)),
                action => results.push(perform_one(&self.store, self.backend, &self.place, action, jobs, tell).await),
            }
        }
        if !adopted.is_empty() {
            results.push(self.store.attempt_launched(&adopted).await.map(|()| None).map_err(DriveError::from));
        }
        let mut launches = Vec::new();
        for result in results {
            match result {
                Ok(token) => launches.extend(token),
                Err(error) => note(error)?,
            }
        }
        let abandoned = jobs.iter().filter_map(|job| Some((job.job_key.clone(), job.live.clone()?)));
        let abandoned = abandoned.filter(|(_, live)| launches.contains(&live.token));
        let mut ready: Vec<(String, String, Option<i32>, String)> =
            abandoned.map(|(key, live)| (key, live.token, live.slot, live.folder)).collect();
        if !starts.is_empty() {
            match self.record(&starts, jobs).await {
                Ok(recorded) => ready.extend(recorded),
                Err(error) => {
                    if error.is_transient() {
                        transient.get_or_insert(error)
                    } else {
                        self.refused.get_or_insert(error)
                    };
                }
            }
        }
        self.launch(ready, tell).await?;
        transient.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Records attempts of these jobs as far as slots are free: key, token, slot and folder of each.
    async fn record(
        &mut self,
        job_ids: &[i64],
        jobs: &[OpenJob],
    ) -> Result<Vec<(String, String, Option<i32>, String)>, StoreError> {
        let resources = self.backend.slot_resources();
        let offer = SlotOffer {
            place: &self.place,
            slots: self.backend.slots(),
            device: &resources.device,
            threads: resources.threads,
        };
        let mut requests = Vec::new();
        let mut ready = BTreeMap::new();
        for job in jobs.iter().filter(|job| job.live.is_none() && job_ids.contains(&job.job_id)) {
            let token = format!("{:032x}", rand::random::<u128>());
            let folder = self.sweep.home.join("jobs").join(&job.job_key[..12]).join(&token);
            // Ours before it is stored: were the answer lost, we would find our own token and know it.
            self.own.insert(token.clone());
            ready.insert(token.clone(), (job.job_key.clone(), folder.display().to_string()));
            requests.push(IntentRequest { job_id: job.job_id, token, folder });
        }
        let recorded = self.store.attempt_intend(&offer, &requests).await?;
        let recorded = recorded.into_iter().filter_map(|(token, slot)| {
            let (key, folder) = ready.remove(&token)?;
            Some((key, token, Some(slot), folder))
        });
        Ok(recorded.collect())
    }

    /// Starts the workers of recorded attempts.
    async fn launch(
        &mut self,
        ready: Vec<(String, String, Option<i32>, String)>,
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), DriveError> {
        if self.launch_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let mut keys = BTreeMap::new();
        let mut requests = Vec::new();
        for (job_key, token, slot, folder) in ready {
            let slot = slot.and_then(|slot| usize::try_from(slot).ok()).unwrap_or(0);
            requests.push(self.sweep.request(token.clone(), slot, folder.into()));
            keys.insert(token, job_key);
        }
        if requests.is_empty() {
            return Ok(());
        }
        if self.sweep.spool_only
            && let Err(error) = self.grant(&mut requests).await
        {
            return self.grant_failed(error, tell);
        }
        self.avoid_failing_nodes(&mut requests, tell).await?;
        let Launched { handles, error } = self.backend.launch(&requests).await;
        for (token, _) in &handles {
            tell(Notice::Launched { job_key: &keys[token] });
        }
        self.no_room_for.clear();
        if let Some(error) = error {
            if matches!(error, BackendError::Submit { full: true, .. }) {
                self.no_room_for = requests.into_iter().map(|request| request.token).collect();
            }
            self.launch_failed(error, tell)?;
        } else {
            self.launch_failures = 0;
            self.launch_at = None;
        }
        if handles.is_empty() {
            return Ok(());
        }
        Ok(self.store.attempt_launched(&handles).await?)
    }

    /// A full disk and a full queue are waited for; anything else that goes on ends the launch, and what the backend
    /// will never accept ends it at once.
    pub(super) fn launch_failed(
        &mut self,
        error: BackendError,
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), DriveError> {
        let passing = match &error {
            BackendError::Launch { source, .. } => source.kind() == ErrorKind::StorageFull,
            BackendError::Submit { passing: false, .. } => return Err(error.into()),
            BackendError::Submit { passing: true, .. } => true,
            _ => false,
        };
        if self.launch_failures >= LAUNCH_FAILURES_MAX && !passing {
            return Err(error.into());
        }
        self.launch_at = Some(Instant::now() + LAUNCH_PAUSE * 2_u32.pow(self.launch_failures));
        self.launch_failures = (self.launch_failures + 1).min(LAUNCH_FAILURES_MAX);
        tell(Notice::BackendRefused(&error));
        Ok(())
    }
}

/// Performs one action but for starts and adoptions, which are done many at a time. Gives the token of an abandoned
/// attempt that is to be launched.
async fn perform_one(
    store: &Store,
    backend: &dyn Backend,
    place: &Place,
    action: Action,
    jobs: &[OpenJob],
    tell: &mut impl FnMut(Notice<'_>),
) -> Result<Option<String>, DriveError> {
    let live = |token: &str| jobs.iter().filter_map(|job| job.live.as_ref()).find(|live| live.token == token);
    match action {
        Action::Start { .. } | Action::Adopt { .. } => {}
        Action::Launch { token } => return Ok(Some(token)),
        Action::MarkLost { token, reason, cause, node } => {
            if store.attempt_lost(&token, &reason, cause.word(), node.as_deref()).await? {
                if let Some(live) = live(&token).filter(|live| live.is_at(place)) {
                    backend.kill_leftovers(&live.worker).await;
                }
                tell(Notice::AttemptLost { reason: &reason });
            }
        }
        Action::Withdraw { token } => drop(store.attempt_withdraw(&token).await?),
        Action::CancelJob { job_id, token, reason } => {
            store.attempt_lost(&token, &reason, EndCause::Cancelled.word(), None).await?;
            store.job_cancel(&[job_id], &reason, SILENT_SECS).await?;
        }
        Action::StopAttempt { token } => {
            store.attempt_request_stop(std::slice::from_ref(&token)).await?;
            if let Some(live) = live(&token).filter(|live| live.is_at(place)) {
                backend.stop(&worker_id(live)).await?;
            }
        }
        Action::FailJob { job_id, reason } => store.job_fail(job_id, &reason).await?,
    }
    Ok(None)
}

fn worker_id(live: &LiveAttempt) -> WorkerId {
    WorkerId { name: live.worker.clone(), handle: live.handle.clone() }
}
