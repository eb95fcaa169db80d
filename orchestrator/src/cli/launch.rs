//! `sweep launch`: plan, store, run until every job has ended, say how it went.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::output::{self, Exit, Failure, say, say_line};
use super::progress::{self, Progress};
use super::site;
use crate::backend::{Backend, BackendError, LocalBackend, SlurmBackend};
use crate::plan::{BackendChoice, Plan, SlurmOptions};
use crate::schedule::driver::{DriveError, Outcome, StopRequest, Sweep, drive};
use crate::schedule::{Policy, Scheduler};
use crate::store::{self, Companion, JobProgress, ProgressFilter, StateCounts, Store, StoreError, StoredPlan};

/// Options of `sweep launch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec.
    spec: PathBuf,
    /// Say what would run, and start nothing. With Slurm: write a batch script and ask `sbatch --test-only`.
    #[arg(long)]
    dry_run: bool,
    /// Start what there is room for, then leave it alone. Launch again to see to the rest.
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Where jobs run, whatever the spec says.
    #[arg(long, value_enum)]
    backend: Option<super::plan::BackendName>,
    /// Profile of the cluster, from `~/.config/sweep/sites.yaml`; implies `--backend slurm`.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Print how it ended as JSON, schema `sweep.launch/1`.
    #[arg(long)]
    json: bool,
}

/// Body of `sweep launch --json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    sweep: &'a str,
    /// `complete`, `stopped`, `detached`, or `planned` for a dry run.
    outcome: &'static str,
    pending: i64,
    running: i64,
    done: i64,
    failed: i64,
    cancelled: i64,
    failures: Vec<FailedJob<'a>>,
}

#[derive(Debug, Serialize)]
struct FailedJob<'a> {
    job_key: &'a str,
    reason: &'a str,
    stderr_tail: &'a str,
}

/// Between two tries to store a plan in a database that is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Name of the batch of a dry run, which no attempt has.
const DRY_RUN: &str = "dry-run";
/// Age of arrays whose folders are removed, once none of their attempts lives.
const ARRAYS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long another launcher's `sbatch` may take before its attempts count as abandoned.
const SUBMIT_SECS: f64 = 180.0;
/// How long Slurm may take to say who ended a worker: nobody (preemption), or somebody by hand.
const ANSWER_SECS: f64 = 10.0;
/// Failed jobs that the last words list; `sweep status` has all.
const FAILURES_MAX: i64 = 100;

/// A plan to be run to its end.
pub(super) struct Launch<'a> {
    pub(super) plan: &'a Plan,
    /// What its jobs measure for others.
    pub(super) companions: &'a [Companion],
    pub(super) detach: bool,
    /// The command that comes back to it.
    pub(super) again: &'a str,
}

/// How a launch ended.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) counts: StateCounts,
    failures: Vec<JobProgress>,
}

impl Ended {
    /// In the words of `--json`.
    pub(super) fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Complete => "complete",
            Outcome::Stopped => "stopped",
            Outcome::Detached => "detached",
        }
    }

    pub(super) fn exit(&self, detach: bool) -> Exit {
        let well = match self.outcome {
            Outcome::Complete => self.counts.failed + self.counts.cancelled == 0,
            Outcome::Detached => detach,
            Outcome::Stopped => false,
        };
        if well { Exit::Done } else { Exit::Failed }
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let plan = super::plan::load_plan(&args.spec, &site::placement(args.backend, args.site.as_deref())?).await?;
    if args.dry_run {
        return dry_run(&plan, args.json).await;
    }
    let again = format!("sweep launch {}", args.spec.display());
    let ended = execute(&Launch { plan: &plan, companions: &[], detach: args.detach, again: &again }).await?;
    if args.json {
        summarise(&plan.name, ended.word(), &ended.counts, &ended.failures);
    }
    Ok(ended.exit(args.detach))
}

/// Stores a plan, runs it until every job has ended, and says how it went.
pub(super) async fn execute(launch: &Launch<'_>) -> Result<Ended, Failure> {
    let plan = launch.plan;
    store::private_postgres::check_name(&store::home()).map_err(StoreError::from)?;
    let store = Store::connect().await?;
    let mut stored = store.sweep_begin(plan).await?;
    if !launch.companions.is_empty() {
        store.sweep_store_rest(plan, &mut stored).await?;
        if let Some(contradiction) = store.companion_record(launch.companions).await? {
            return Err(Failure::failed(contradiction).hint(super::evaluate::CONTRADICTION));
        }
    }
    let (before, _) = counts_of(plan, Some(&store)).await?;
    let sweep_id = stored.sweep_id;
    let mut idle = before.pending + before.running == 0;
    if idle {
        store.sweep_store_rest(plan, &mut stored).await?;
        idle = store.job_first_open(sweep_id).await?.is_none();
    }
    let outcome = if idle {
        Outcome::Complete
    } else {
        let (outcome, reached) = Box::pin(run_jobs(plan, store, stored, &before, launch.detach)).await?;
        if outcome == Outcome::Detached {
            say("detached: the workers go on");
            say(&format!("\nhint: `sweep status {}` shows them, `{}` comes back to them", plan.name, launch.again));
            return Ok(Ended { outcome, counts: reached, failures: Vec::new() });
        }
        outcome
    };
    // Anew: the database may have moved while the driver ran.
    let store = Store::connect().await?;
    let counts = store.job_totals(sweep_id).await?.counts;
    let failures = store.job_progress(sweep_id, ProgressFilter::States(&["failed"], FAILURES_MAX)).await?;
    let headline = format!("{}{}", if idle { "nothing left to do: " } else { "" }, ended(&counts));
    report(launch, outcome, &headline, &counts, &failures);
    Ok(Ended { outcome, counts, failures })
}

/// Jobs of a plan by state, and how many of them are not stored yet, which count as pending.
async fn counts_of(plan: &Plan, store: Option<&Store>) -> Result<(StateCounts, i64), Failure> {
    let keys: Vec<String> = plan.jobs.iter().map(|job| job.job_key.clone()).collect();
    let mut counts = match store {
        Some(store) => store.job_counts(&keys).await?,
        None => StateCounts::default(),
    };
    let new = i64::try_from(keys.len()).unwrap_or(i64::MAX) - counts.total();
    counts.pending += new;
    Ok((counts, new))
}

pub(super) async fn dry_run(plan: &Plan, json: bool) -> Result<Exit, Failure> {
    let (counts, new) = counts_of(plan, Store::connect_stored().await?.as_ref()).await?;
    say(&format!(
        "{}: {} jobs: {} to run ({new} of them new), {} running, {}",
        plan.name,
        plan.jobs.len(),
        counts.pending,
        counts.running,
        ended(&counts)
    ));
    if let BackendChoice::Slurm(options) = &plan.backend
        && counts.pending > 0
    {
        let url = if options.spool_only { None } else { store::node_url().await? };
        let slurm = SlurmBackend::connect(options, &store::home(), url.as_deref()).await?;
        let (script, said) = {
            let folder = store::home().join("jobs").join(DRY_RUN);
            let request =
                sweep_of(plan, 0, options.work_secs, options.spool_only).request(DRY_RUN.to_owned(), 0, folder);
            slurm.test_only(&request, counts.pending.unsigned_abs()).await?
        };
        say(&format!("\nthe batch script is {}\n{said}", script.display()));
    }
    if json {
        summarise(&plan.name, "planned", &counts, &[]);
    }
    Ok(Exit::Done)
}

/// A plan, as a driver needs it.
fn sweep_of(plan: &Plan, sweep_id: i64, work_secs: u64, spool_only: bool) -> Sweep {
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

/// Drives the sweep under the eyes of people. Ctrl-C or SIGTERM: stop after checkpoints; again: detach.
async fn run_jobs(
    plan: &Plan,
    store: Store,
    mut stored: StoredPlan,
    before: &StateCounts,
    detach: bool,
) -> Result<(Outcome, StateCounts), Failure> {
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
            remove_old_arrays(&backend, &store).await?;
            let each =
                format!("Slurm jobs on cluster {} with {} each", backend.host(), super::plan::slurm_request(options));
            (Box::new(backend), options.work_secs, options.spool_only, each)
        }
    };
    let parallel = plan.limits.parallel.unwrap_or(backend.slots()).max(1);
    let sweep = Sweep { detach, ..sweep_of(plan, stored.sweep_id, work_secs, spool_only) };
    say(&format!(
        "{}: {} jobs ({}), {} at a time ({each})",
        plan.name,
        before.total(),
        ended(before),
        parallel.min(backend.slots()),
    ));
    let (sender, requests) = watch::channel(StopRequest::None);
    let listening = tokio::spawn(listen(sender)?);
    let mut progress = Progress::new(&plan.name, before.total());
    let mut policy = Policy::new(parallel, plan.limits.retries);
    if matches!(plan.backend, BackendChoice::Slurm(_)) {
        policy.intent_grace_secs = SUBMIT_SECS;
        policy.stopped_pause_secs = ANSWER_SECS;
    }
    let scheduler = Scheduler::new(policy);
    // Side by side: the first jobs of a large plan need not wait for the last to be stored.
    let (store_sender, storing) = watch::channel(true);
    let rest = async {
        let result = store_rest(store.clone(), plan, &mut stored).await;
        let _ = store_sender.send(false);
        result
    };
    let driving =
        drive(store.clone(), &*backend, scheduler, &sweep, storing, requests, |notice| progress.show(&notice));
    let (outcome, not_stored) = {
        tokio::pin!(rest, driving);
        tokio::select! {
            outcome = &mut driving => (outcome, None),
            result = &mut rest => (driving.await, result.err()),
        }
    };
    listening.abort();
    let reached = progress.finish();
    match not_stored {
        Some(error) => Err(Failure::from(error).hint("launch again: what is stored stays, the rest is added")),
        None => Ok((outcome?, reached)),
    }
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
async fn store_rest(mut store: Store, plan: &Plan, stored: &mut StoredPlan) -> Result<(), StoreError> {
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

/// Turns signals into requests.
fn listen(requests: watch::Sender<StopRequest>) -> Result<impl Future<Output = ()>, Failure> {
    let handler = |kind| signal(kind).map_err(|error| Failure::environment("can't handle signals").because(&error));
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let next = if *requests.borrow() == StopRequest::None { StopRequest::Stop } else { StopRequest::Detach };
            if next == StopRequest::Stop {
                progress::interject("stopping after checkpoints (once more: leave the workers running)");
            }
            let _ = requests.send(next);
        }
    })
}

/// The last words of a launch.
fn report(launch: &Launch<'_>, outcome: Outcome, headline: &str, counts: &StateCounts, failures: &[JobProgress]) {
    for job in failures {
        say("");
        say_line(&format!("failed: {}: {}", progress::label(job), job.reason.as_deref().unwrap_or("no reason given")));
        for line in job.stderr_tail.as_deref().unwrap_or_default().lines() {
            say_line(&format!("  | {line}"));
        }
    }
    if outcome == Outcome::Stopped {
        say(&format!("stopped: {headline}, {} left", counts.pending));
        say(&format!("\nhint: `{}` goes on from the checkpoints", launch.again));
    } else if let Some(job) = failures.first() {
        say(&format!("\n{headline}"));
        say(&format!(
            "\nhint: `sweep logs {}` shows what the runner wrote, `sweep retry {}` gives failed jobs another go",
            &job.job_key[..12],
            launch.plan.name
        ));
    } else {
        say(headline);
    }
}

/// `18 jobs done`, with what did not go well.
fn ended(counts: &StateCounts) -> String {
    let done = format!("{} {} done", counts.done, if counts.done == 1 { "job" } else { "jobs" });
    let rest =
        [(counts.failed, "failed"), (counts.cancelled, "cancelled")].into_iter().filter(|(number, _)| *number > 0);
    std::iter::once(done).chain(rest.map(|(number, what)| format!("{number} {what}"))).collect::<Vec<_>>().join(", ")
}

fn summarise(sweep: &str, outcome: &'static str, counts: &StateCounts, failures: &[JobProgress]) {
    let failures = failures.iter().map(|job| FailedJob {
        job_key: &job.job_key,
        reason: job.reason.as_deref().unwrap_or_default(),
        stderr_tail: job.stderr_tail.as_deref().unwrap_or_default(),
    });
    let StateCounts { pending, running, done, failed, cancelled } = *counts;
    let failures = failures.collect();
    output::json("sweep.launch/1", &Summary { sweep, outcome, pending, running, done, failed, cancelled, failures });
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Failure {
        let failure = Failure::environment(error.to_string()).because(&error);
        match error {
            BackendError::NoWorker { .. } => failure.hint("install `sweep-worker` in the same folder as `sweep`"),
            BackendError::NoSlurm { .. } => failure.hint(
                "run on a login node of the cluster, with `sbatch`, `squeue`, `scancel` and `scontrol` on PATH; or use `backend: local`",
            ),
            BackendError::Submit { .. } => failure.hint(
                "change `backend: {slurm: ...}` of the spec and launch again; `sbatch --test-only SCRIPT` tries a script of `.sweep/slurm`",
            ),
            _ => failure,
        }
    }
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Failure {
        match error {
            DriveError::Store(error) => error.into(),
            DriveError::Backend(error) => error.into(),
        }
    }
}
