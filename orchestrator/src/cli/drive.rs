//! Drives a stored sweep under the eyes of people, while more of its jobs are stored.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::output::Failure;
use super::progress::{self, Progress};
use crate::backend::{Aside, Backend, LocalBackend, SlurmBackend};
use crate::plan::{BackendChoice, Plan, SlurmOptions};
use crate::schedule::driver::{DriveError, Outcome, StopRequest, Sweep, drive};
use crate::schedule::{Policy, Scheduler};
use crate::store::{self, Store, StoreError, StoredPlan};

/// Between two tries to store a plan in a database that is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Age of arrays whose folders are removed, once none of their attempts lives.
const ARRAYS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long another launcher's `sbatch` may take before its attempts count as abandoned.
const SUBMIT_SECS: f64 = 180.0;
/// How long Slurm may take to say who ended a worker: nobody (preemption), or somebody by hand.
const ANSWER_SECS: f64 = 10.0;

/// A sweep to drive.
pub(super) struct Driving<'a> {
    /// Where its jobs run, and how many at a time.
    pub(super) plan: &'a Plan,
    /// Its row.
    pub(super) sweep_id: i64,
    /// In slots of its own, beside those of the same backend.
    pub(super) aside: bool,
    /// Return as soon as all that can be started has been.
    pub(super) detach: bool,
    /// What is driven, for people.
    pub(super) what: String,
}

/// What people ask of running drivers. Ctrl-C or SIGTERM: stop after checkpoints; again: detach.
pub(super) struct Requests {
    sender: watch::Sender<StopRequest>,
    listening: JoinHandle<()>,
}

impl Requests {
    /// Takes signals from now on, until it is dropped.
    pub(super) fn listen() -> Result<Requests, Failure> {
        let handler = |kind| signal(kind).map_err(|error| Failure::environment("can't handle signals").because(&error));
        let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
        let sender = watch::Sender::new(StopRequest::None);
        let requests = sender.clone();
        let listening = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                let next =
                    if *requests.borrow() == StopRequest::None { StopRequest::Stop } else { StopRequest::Detach };
                if next == StopRequest::Stop {
                    progress::interject("stopping after checkpoints (once more: leave the workers running)");
                }
                requests.send_replace(next);
            }
        });
        Ok(Requests { sender, listening })
    }

    /// The drivers are to stop, whoever asked.
    pub(super) fn stop(&self) {
        self.sender.send_if_modified(|request| {
            let is_new = *request == StopRequest::None;
            if is_new {
                *request = StopRequest::Stop;
            }
            is_new
        });
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A plan, as a driver needs it.
pub(super) fn sweep_of(plan: &Plan, sweep_id: i64, work_secs: u64, spool_only: bool) -> Sweep {
    Sweep {
        sweep_id,
        runner: plan.runner_path.clone(),
        base_dir: plan.base_dir.clone(),
        home: store::home(),
        time_limit_secs: plan.limits.time_limit_secs,
        // Whoever reaches no database can't ask for the next job.
        work_secs: if spool_only { 0 } else { work_secs },
        serve: plan.runner_serves,
        spool_only,
        detach: false,
    }
}

/// Drives the sweep until every job has ended or people want something else, while `feed` stores more of its jobs.
/// Gives what became of both: an error of the feed does not end what is stored.
pub(super) async fn drive_jobs<E>(
    driving: &Driving<'_>,
    store: &Store,
    requests: &Requests,
    progress: &mut Progress,
    feed: impl Future<Output = Result<(), E>>,
) -> Result<(Result<Outcome, DriveError>, Option<E>), Failure> {
    let plan = driving.plan;
    let home = store::home();
    let (backend, work_secs, spool_only, each): (Box<dyn Backend>, u64, bool, String) = match &plan.backend {
        BackendChoice::Local(options) => {
            let backend = LocalBackend::new(options, &home, &plan.runner_devices)?;
            let each =
                format!("{}{}", if backend.gpu_count() > 0 { "a GPU and " } else { "" }, threads(backend.threads()));
            (Box::new(backend), options.work_secs, options.spool_only, format!("{each} each"))
        }
        BackendChoice::Slurm(options) => {
            let backend = slurm_backend(options, &home).await?;
            remove_old_arrays(&backend, store).await?;
            let each =
                format!("Slurm jobs on cluster {} with {} each", backend.host(), super::plan::slurm_request(options));
            (Box::new(backend), options.work_secs, options.spool_only, each)
        }
    };
    let backend: Box<dyn Backend> = if driving.aside { Box::new(Aside::new(backend)) } else { backend };
    let parallel = plan.limits.parallel.unwrap_or(backend.slots()).max(1);
    let sweep = Sweep { detach: driving.detach, ..sweep_of(plan, driving.sweep_id, work_secs, spool_only) };
    progress.line(&format!("{}: {}, {} at a time ({each})", plan.name, driving.what, parallel.min(backend.slots())));
    let mut policy = Policy::new(parallel, plan.limits.retries);
    if matches!(plan.backend, BackendChoice::Slurm(_)) {
        policy.intent_grace_secs = SUBMIT_SECS;
        policy.stopped_pause_secs = ANSWER_SECS;
    }
    let scheduler = Scheduler::new(policy);
    let (store_sender, storing) = watch::channel(true);
    let feeding = async {
        let result = feed.await;
        let _ = store_sender.send(false);
        result
    };
    let asked = requests.sender.subscribe();
    let running = drive(store.clone(), &*backend, scheduler, &sweep, storing, asked, |notice| progress.show(&notice));
    tokio::pin!(feeding, running);
    Ok(tokio::select! {
        outcome = &mut running => (outcome, None),
        result = &mut feeding => (running.await, result.err()),
    })
}

/// The cluster, whose workers are told how to reach the database. On other machines they don't reach a private one that
/// does not listen.
pub(super) async fn slurm_backend(options: &SlurmOptions, home: &Path) -> Result<SlurmBackend, Failure> {
    let url = if options.spool_only { None } else { store::node_url().await? };
    let slurm = SlurmBackend::connect(options, home, url.as_deref()).await?;
    if url.is_none()
        && !options.spool_only
        && let Some(node) = slurm.other_machine().await?
    {
        return Err(Failure::environment(format!(
            "the private database is reached on this machine alone, and workers would run on {node} and others"
        ))
        .hint(
            "`sweep db start --listen ADDRESS` has it listen for them on an address of this machine; or set DATABASE_URL to a \
             PostgreSQL database that the nodes reach, or say `ship: spool` below `slurm`; then try again",
        ));
    }
    Ok(slurm)
}

/// Removes what is left of arrays that ended a while ago: Slurm writes a file a task, and never takes one away.
async fn remove_old_arrays(slurm: &SlurmBackend, store: &Store) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("can't remove folders of old arrays: {error}"));
    let mut arrays = slurm.old_arrays(ARRAYS_KEPT).map_err(failed)?;
    let tokens: Vec<String> = arrays.iter().flat_map(|array| array.tokens.iter().cloned()).collect();
    if tokens.is_empty() {
        return Ok(());
    }
    let live = store.attempts_live(&tokens).await?;
    arrays.retain(|array| !array.tokens.iter().any(|token| live.contains(token)));
    for array in arrays {
        match std::fs::remove_dir_all(&array.path) {
            // Another launcher was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

/// Stores what is left of a plan, however long the database is away.
pub(super) async fn store_rest(mut store: Store, plan: &Plan, stored: &mut StoredPlan) -> Result<(), StoreError> {
    loop {
        match store.sweep_store_rest(plan, stored).await {
            Err(error) if error.is_transient() => tokio::time::sleep(STORE_PAUSE).await,
            result => return result,
        }
        if let Ok(again) = Store::connect().await {
            store = again;
        }
    }
}
