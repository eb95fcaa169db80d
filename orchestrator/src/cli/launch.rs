//! `sweep launch`: plan, store, run until every job has ended, say how it went.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::companions::Question;
use super::drive::{Driving, Requests, drive_jobs, store_rest, sweep_of};
use super::fits::{self, Refit, refit};
use super::follow::Following;
use super::output::{self, Exit, Failure, say, say_line};
use super::progress::{self, Progress};
use super::site;
use super::status::CompanionLine;
use super::tune;
use crate::backend::{BackendError, SlurmBackend};
use crate::plan::{BackendChoice, Plan};
use crate::schedule::driver::{DriveError, Outcome};
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
    /// What measured its checkpoints apart from training, where the spec asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    companions: Option<CompanionLine>,
    /// The laws that its spec names, once all results are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fits: Vec<Refit>,
    failures: Vec<FailedJob<'a>>,
}

#[derive(Debug, Serialize)]
struct FailedJob<'a> {
    job_key: &'a str,
    reason: &'a str,
    stderr_tail: &'a str,
}

/// Name of the batch of a dry run, which no attempt has.
const DRY_RUN: &str = "dry-run";
/// Failed jobs that the last words list; `sweep status` has all.
const FAILURES_MAX: i64 = 100;

/// A plan to be run to its end.
#[derive(Clone, Copy)]
pub(super) struct Launch<'a> {
    pub(super) plan: &'a Plan,
    /// What its jobs measure for others.
    pub(super) companions: &'a [Companion],
    pub(super) detach: bool,
    /// The command that comes back to it.
    pub(super) again: &'a str,
    /// What its last words begin with.
    pub(super) heading: &'a str,
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
    let placement = site::placement(args.backend, args.site.as_deref())?;
    let mut plan = super::plan::load_plan(&args.spec, &placement).await?;
    let again = format!("sweep launch {}", args.spec.display());
    if let Some(ladder) = plan.tune.take_if(|ladder| !ladder.is_chosen) {
        if args.dry_run {
            say("the ladder comes first, and what it chooses decides what the cells are:");
            return dry_run(&ladder.plan, args.json).await;
        }
        let launch = Launch { plan: &plan, companions: &[], detach: args.detach, again: &again, heading: "" };
        let replan = super::plan::load_plan(&args.spec, &placement);
        match Box::pin(tune::climb(&launch, &ladder, replan)).await? {
            tune::Climbed::Tuned(tuned) => plan = *tuned,
            tune::Climbed::Left(ended) => {
                if args.json {
                    let failures: Vec<&JobProgress> = ended.failures.iter().collect();
                    summarise(&ladder.plan.name, ended.word(), &ended.counts, &failures, (None, Vec::new()));
                }
                return Ok(ended.exit(args.detach));
            }
        }
    }
    if args.dry_run {
        return dry_run(&plan, args.json).await;
    }
    let launch = Launch { plan: &plan, companions: &[], detach: args.detach, again: &again, heading: "" };
    let question = Question::of_plan(&plan, &placement)?;
    let (ended, measured) = match question {
        Some(question) if !args.detach => both(&launch, &question).await?,
        question => {
            let ended = execute(&launch).await?;
            if question.is_some() {
                say("\nhint: its checkpoints are measured when it is launched again without `--detach`, or by \
                     `sweep evaluate SWEEP --follow`");
            }
            (ended, None)
        }
    };
    let complete =
        |ended: &Ended| ended.outcome == Outcome::Complete && ended.counts.failed + ended.counts.cancelled == 0;
    let all_there = complete(&ended) && measured.as_ref().is_none_or(|(_, measured)| complete(measured));
    let fits = if all_there && !args.detach { refit(&plan).await? } else { Vec::new() };
    if !all_there && ended.outcome == Outcome::Complete {
        fits::say_waiting(&plan)?;
    }
    let counts = measured.as_ref().map(|(name, measured)| CompanionLine::new(name, &measured.counts));
    if args.json {
        let failures: Vec<&JobProgress> =
            ended.failures.iter().chain(measured.iter().flat_map(|(_, measured)| &measured.failures)).collect();
        summarise(&plan.name, ended.word(), &ended.counts, &failures, (counts, fits));
    }
    let measured = measured.map_or(Exit::Done, |(_, measured)| measured.exit(false));
    Ok(if measured == Exit::Done { ended.exit(args.detach) } else { measured })
}

/// Runs a plan, and beside it what measures its checkpoints.
async fn both(launch: &Launch<'_>, question: &Question) -> Result<(Ended, Option<(String, Ended)>), Failure> {
    let begun = begin(launch).await?;
    let requests = Requests::listen()?;
    let mut bars = Progress::new(&launch.plan.name, begun.before.total());
    let mut beside = bars.beside(&question.name);
    let is_training = AtomicBool::new(!begun.idle);
    let mut following = Following::new(question, begun.stored.sweep_id, Some(&is_training));
    let training = async {
        let trained = run_jobs(launch, begun, &requests, &mut bars).await;
        is_training.store(false, Ordering::SeqCst);
        if trained.as_ref().is_ok_and(|trained| trained.outcome != Outcome::Complete) || trained.is_err() {
            // Nobody is left to write checkpoints.
            requests.stop();
        }
        trained
    };
    let (trained, measured) = tokio::join!(training, following.run(Some(launch.plan), &requests, &mut beside));
    bars.finish();
    beside.finish();
    drop(requests);
    let ended = conclude(launch, trained?).await?;
    let measured = measured?;
    let plan = question.plan_of(Vec::new());
    let measuring = Launch { plan: &plan, heading: "its checkpoints: ", ..*launch };
    let measured = conclude(&measuring, measured).await?;
    Ok((ended, Some((plan.name, measured))))
}

/// A plan that is stored, or the first of its jobs.
struct Begun {
    store: Store,
    stored: StoredPlan,
    before: StateCounts,
    idle: bool,
}

/// How driving a sweep went.
pub(super) struct Driven {
    pub(super) sweep_id: i64,
    /// Whether there was nothing to do.
    pub(super) idle: bool,
    pub(super) outcome: Outcome,
    /// The last counts that were seen.
    pub(super) reached: StateCounts,
}

/// Stores a plan, runs it until every job has ended, and says how it went.
pub(super) async fn execute(launch: &Launch<'_>) -> Result<Ended, Failure> {
    let begun = begin(launch).await?;
    let requests = Requests::listen()?;
    let mut progress = Progress::new(&launch.plan.name, begun.before.total());
    let driven = run_jobs(launch, begun, &requests, &mut progress).await;
    progress.finish();
    drop(requests);
    conclude(launch, driven?).await
}

/// Stores as much of a plan as has to be there before it is driven.
async fn begin(launch: &Launch<'_>) -> Result<Begun, Failure> {
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
    let groups = plan.tune.iter().flat_map(|ladder| &ladder.groups);
    let keys: Vec<String> = groups.map(|group| group.key.clone()).collect();
    store.tuning_use(stored.sweep_id, &keys).await?;
    if plan.tune.is_some() {
        tune::say_choices(&plan.name, &store.tuning_list(&plan.name).await?);
    }
    let (before, _) = counts_of(plan, Some(&store)).await?;
    let mut idle = before.pending + before.running == 0;
    if idle {
        store.sweep_store_rest(plan, &mut stored).await?;
        idle = store.job_first_open(stored.sweep_id).await?.is_none();
    }
    Ok(Begun { store, stored, before, idle })
}

/// Drives a plan that is stored, and stores the rest of it on the way: the first jobs of a large plan need not wait for
/// the last.
async fn run_jobs(
    launch: &Launch<'_>,
    begun: Begun,
    requests: &Requests,
    progress: &mut Progress,
) -> Result<Driven, Failure> {
    let Begun { store, mut stored, before, idle } = begun;
    let sweep_id = stored.sweep_id;
    if idle {
        return Ok(Driven { sweep_id, idle, outcome: Outcome::Complete, reached: before });
    }
    let (plan, detach) = (launch.plan, launch.detach);
    let what = format!("{} jobs ({})", before.total(), ended(&before));
    let driving = Driving { plan, sweep_id, aside: false, detach, what };
    let rest = store_rest(store.clone(), plan, &mut stored);
    let (outcome, not_stored) = Box::pin(drive_jobs(&driving, &store, requests, progress, rest)).await?;
    if let Some(error) = not_stored {
        return Err(Failure::from(error).hint("launch again: what is stored stays, the rest is added"));
    }
    Ok(Driven { sweep_id, idle, outcome: outcome?, reached: progress.reached() })
}

/// Says how it went.
pub(super) async fn conclude(launch: &Launch<'_>, driven: Driven) -> Result<Ended, Failure> {
    let Driven { sweep_id, idle, outcome, reached } = driven;
    if outcome == Outcome::Detached {
        say("detached: the workers go on");
        say(&format!("\nhint: `sweep status {}` shows them, `{}` comes back to them", launch.plan.name, launch.again));
        return Ok(Ended { outcome, counts: reached, failures: Vec::new() });
    }
    // Anew: the database may have moved while the driver ran.
    let store = Store::connect().await?;
    let counts = store.job_totals(sweep_id).await?.counts;
    let failures = store.job_progress(sweep_id, ProgressFilter::States(&["failed"], FAILURES_MAX)).await?;
    let headline = format!("{}{}{}", launch.heading, if idle { "nothing left to do: " } else { "" }, ended(&counts));
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
        summarise(&plan.name, "planned", &counts, &[], (None, Vec::new()));
    }
    Ok(Exit::Done)
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

fn summarise(
    sweep: &str,
    outcome: &'static str,
    counts: &StateCounts,
    failures: &[&JobProgress],
    (companions, fits): (Option<CompanionLine>, Vec<Refit>),
) {
    let failures = failures.iter().map(|job| FailedJob {
        job_key: &job.job_key,
        reason: job.reason.as_deref().unwrap_or_default(),
        stderr_tail: job.stderr_tail.as_deref().unwrap_or_default(),
    });
    let StateCounts { pending, running, done, failed, cancelled } = *counts;
    let failures = failures.collect();
    let summary = Summary { sweep, outcome, pending, running, done, failed, cancelled, companions, fits, failures };
    output::json("sweep.launch/1", &summary);
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
