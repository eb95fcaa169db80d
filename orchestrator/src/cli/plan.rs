//! `sweep plan`: what a spec comes to. Needs no database.

mod checkpoints;
mod ladder;
mod text;
mod training;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use super::output::{Exit, Failure, color_stderr, data, json, say};
use super::{hashing, site, slurm};
use crate::plan::{
    BackendChoice, Inputs, LoadError, Measured, Origin, Placement, Plan, PlannedJob, SlurmOptions, gathered, plan,
    read_spec,
};
use crate::spec::quantity::grouped;
use crate::spec::{Spec, SpecError};
use crate::store::{Store, StoreError};

/// Options of `sweep plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Spec to plan.
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Print JSON, every job with every number.
    #[arg(long)]
    json: bool,
    /// Show every job of a long plan.
    #[arg(long)]
    all: bool,
    /// Where jobs would run, whatever the spec says.
    #[arg(long, value_enum)]
    backend: Option<BackendName>,
    /// Profile of the cluster, from `~/.config/sweep/sites.yaml`; implies `--backend slurm`.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Don't ask the runner, which may not be built yet. What is done already is then not told, since a job's key has
    /// the runner's version.
    #[arg(long, conflicts_with = "json")]
    without_runner: bool,
}

/// A backend, with the options of the spec if they are for it, else with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BackendName {
    /// This machine.
    Local,
    /// The Slurm cluster that `sbatch` submits to.
    Slurm,
}

/// What the database says of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Not there, or there and waiting.
    New,
    /// Its result is there and will be used again.
    Done,
    /// A worker has it.
    Running,
    /// Given up.
    Failed,
    /// Cancelled by somebody.
    Cancelled,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let spec = read_spec(&args.spec).map_err(|error| unplannable(&error))?;
    let mut placement = site::placement(args.backend, args.site.as_deref())?;
    placement.runner_unasked = args.without_runner;
    show(spec, &placement, args.json, args.all).await?;
    if args.without_runner {
        say("\nplanned without asking the runner: jobs will have other keys than these");
    } else if !args.json {
        let site = args.site.map_or(String::new(), |name| format!(" --site {name}"));
        say(&format!("\nnext: `sweep launch {}{site}`", args.spec.display()));
    }
    Ok(Exit::Done)
}

/// Plans a spec and prints what it comes to.
pub(super) async fn show(spec: Spec, placement: &Placement, as_json: bool, all: bool) -> Result<Plan, Failure> {
    let store = reachable_store(spec.tune.is_some()).await;
    let measured = match &store {
        Some(store) => measured(store).await?,
        None => Vec::new(),
    };
    let mut plan = planned(spec, &measured, placement, store.as_ref()).await?;
    let request = slurm::request(&mut plan).await?;
    let states = match &store {
        Some(store) if !placement.runner_unasked => Some(existing_states(store, &plan).await?),
        _ => None,
    };
    if as_json {
        json("sweep.plan/1", &body(&plan, states.as_ref(), request));
    } else {
        data(&text::text(&plan, states.as_ref(), request.as_ref(), all));
    }
    Ok(plan)
}

/// A database that answers without being started, or is `wanted` for what a ladder has chosen. Planning needs none: one
/// that is away is said and done without.
async fn reachable_store(wanted: bool) -> Option<Store> {
    let found = if wanted { Store::connect_stored().await } else { Store::connect_existing().await };
    match found {
        Ok(store) => store,
        Err(error) => {
            say(&format!("planning without the database: {error}"));
            None
        }
    }
}

/// Speeds of runners and models.
async fn measured(store: &Store) -> Result<Vec<Measured>, Failure> {
    let rows = store.throughput_list().await?.into_iter().map(|row| Measured {
        runner: row.runner,
        model: row.model,
        device: row.device,
        threads: row.threads.and_then(|count| usize::try_from(count).ok()),
        secs_per_sample: row.secs_per_sample,
        attempts: row.attempts,
    });
    Ok(rows.collect())
}

async fn existing_states(store: &Store, plan: &Plan) -> Result<BTreeMap<String, State>, Failure> {
    let rungs = plan.tune.iter().flat_map(|ladder| &ladder.plan.jobs);
    let keys: Vec<String> = plan.jobs.iter().chain(rungs).map(|job| job.job_key.clone()).collect();
    let state = |word: &str| match word {
        "done" => State::Done,
        "running" => State::Running,
        "failed" => State::Failed,
        "cancelled" => State::Cancelled,
        _ => State::New,
    };
    Ok(store.job_states(&keys).await?.into_iter().map(|(key, word)| (key, state(&word))).collect())
}

/// Reads, checks and plans a spec, in the current folder, for a launch. For Slurm, with what speed the database knows,
/// and within what the cluster can give.
pub(super) async fn load_plan(path: &Path, placement: &Placement) -> Result<Plan, Failure> {
    let spec = read_spec(path).map_err(|error| unplannable(&error))?;
    // What ladders have chosen decides what the cells are: a database that is stopped is started for that.
    let stored = match spec.tune {
        Some(_) => match Store::connect_stored().await {
            // Of before there were ladders; a launch brings it up to date.
            Err(StoreError::SchemaOlder { .. }) => None,
            stored => stored?,
        },
        None => None,
    };
    let mut plan = planned(spec.clone(), &[], placement, stored.as_ref()).await?;
    if let BackendChoice::Slurm(options) = &plan.backend
        && matches!(options.from.time, Origin::Default(_))
        && let Ok(Some(store)) = Store::connect_existing().await
    {
        plan = planned(spec, &measured(&store).await?, placement, stored.as_ref()).await?;
    }
    slurm::fit_to_cluster(&mut plan).await?;
    Ok(plan)
}

/// Plans a spec in the current folder, with what the database knows of its ladder, if it has one.
async fn planned(
    spec: Spec,
    measured: &[Measured],
    placement: &Placement,
    store: Option<&Store>,
) -> Result<Plan, Failure> {
    let (spec, mut inputs) =
        gathered(spec, measured, placement, &mut hashing::progress()).map_err(|error| unplannable(&error))?;
    with_choices(&spec, &mut inputs, store).await
}

/// The same with inputs that are there.
pub(super) async fn with_choices(spec: &Spec, inputs: &mut Inputs, store: Option<&Store>) -> Result<Plan, Failure> {
    let planned = |inputs: &Inputs| plan(spec, inputs).map_err(|error| unplannable(&LoadError::Spec(error)));
    let first = planned(inputs)?;
    let (Some(ladder), Some(store)) = (&first.tune, store) else { return Ok(first) };
    let keys: Vec<String> = ladder.groups.iter().map(|group| group.key.clone()).collect();
    inputs.tuned = store.tuning_factors(&keys).await?;
    if inputs.tuned.is_empty() { Ok(first) } else { planned(inputs) }
}

/// Why a spec can't be planned, and the way out.
pub(super) fn unplannable(error: &LoadError) -> Failure {
    match error {
        LoadError::Spec(error) => Failure::bad_input(rendered(error)),
        LoadError::Read { source, .. } => {
            Failure::bad_input(error.to_string()).because(source).hint("`sweep init` writes a spec to start from")
        }
        LoadError::Encoding { .. } => Failure::bad_input(error.to_string()).hint("save it as UTF-8"),
        LoadError::Runner(runner) => Failure::environment(error.to_string()).hint(runner.hint()),
        LoadError::CurrentDir(source) => Failure::environment(error.to_string()).because(source),
    }
}

/// Mistakes with the lines they are in, one after the other.
pub(super) fn rendered(error: &SpecError) -> String {
    let mut theme = if color_stderr() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    if !color_stderr() {
        "×".clone_into(&mut theme.characters.error);
    }
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100).with_context_lines(1);
    let mut text = String::new();
    for mistake in &error.mistakes {
        handler.render_report(&mut text, mistake).expect("writing to a string can't fail");
        text.push('\n');
    }
    text + &format!("error: {error}\n")
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    name: &'a str,
    question: &'a str,
    runner: Option<&'a protocol::RunnerIdentity>,
    runner_path: &'a Path,
    backend: &'static str,
    /// What is asked of Slurm.
    slurm: Option<slurm::Request>,
    pools: Vec<PoolRow<'a>>,
    /// What chooses the learning rates of the models, where the spec says `tune`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tune: Option<ladder::LadderRow<'a>>,
    /// Fields of the recipe that rules give; each job's recipe has the numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rules: &'a BTreeMap<&'static str, Vec<String>>,
    jobs: Vec<JobRow<'a>>,
    totals: Totals,
    /// Those that stay on disk, where jobs are told how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<checkpoints::Checkpoints>,
    limits: LimitsRow,
}

#[derive(Debug, Serialize)]
struct PoolRow<'a> {
    name: &'a str,
    path: &'a Path,
    digest: &'a str,
    samples: u64,
    /// Samples that are not used, by what is wrong with them.
    skipped: &'a BTreeMap<String, u64>,
    /// Shards that hold something else than when the pool was read before.
    changed: &'a [String],
}

#[derive(Debug, Serialize)]
struct JobRow<'a> {
    job_key: &'a str,
    model: &'a str,
    parameters: u64,
    samples_seen: u64,
    data_size: u64,
    unique_samples: u64,
    epochs: f64,
    seed: u64,
    steps: u64,
    gmacs_samples: f64,
    train_flops: f64,
    six_nd: f64,
    memory_bytes: u64,
    secs: Option<f64>,
    state: Option<State>,
    /// The job whose last checkpoint it goes on from, and what is left of its compute then.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ParentRow<'a>>,
    /// Weights that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<&'a protocol::Weights>,
    recipe: &'a protocol::Recipe,
}

#[derive(Debug, Serialize)]
struct ParentRow<'a> {
    job_key: &'a str,
    /// Samples seen where it ends and the job begins.
    samples_seen: u64,
    own_samples: u64,
    own_train_flops: f64,
}

/// What is to be trained: what jobs share counts once.
#[derive(Debug, Clone, Copy, Serialize)]
struct Totals {
    jobs: usize,
    /// Of these, pieces of trunks that others go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    trunks: Option<usize>,
    /// Training FLOPs of the others, were each trained alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    train_flops_alone: Option<f64>,
    samples_seen: u64,
    gmacs_samples: f64,
    train_flops: f64,
    six_nd: f64,
    /// Where every job has a time.
    secs: Option<f64>,
}

#[derive(Debug, Serialize)]
struct LimitsRow {
    parallel: Option<usize>,
    retries: u32,
    time_secs: Option<u64>,
    compute_flops: Option<f64>,
}

fn body<'a>(plan: &'a Plan, states: Option<&BTreeMap<String, State>>, slurm: Option<slurm::Request>) -> Body<'a> {
    Body {
        name: &plan.name,
        question: &plan.question,
        runner: plan.jobs.first().map(|job| &*job.spec.runner),
        runner_path: &plan.runner_path,
        backend: match plan.backend {
            BackendChoice::Local(_) => "local",
            BackendChoice::Slurm(_) => "slurm",
        },
        slurm,
        pools: plan
            .pools
            .iter()
            .map(|pool| PoolRow {
                name: &pool.source.pool,
                path: &pool.source.path,
                digest: &pool.source.digest,
                samples: pool.samples,
                skipped: &pool.skipped,
                changed: &pool.changed,
            })
            .collect(),
        tune: plan.tune.as_ref().map(|tune| ladder::row(plan, tune, states)),
        rules: &plan.rules,
        jobs: plan
            .jobs
            .iter()
            .map(|job| JobRow {
                job_key: &job.job_key,
                model: &job.spec.model.name,
                parameters: job.size.parameters(),
                samples_seen: job.spec.samples_seen,
                data_size: job.spec.data_size,
                unique_samples: job.unique_samples,
                epochs: epochs(job),
                seed: job.spec.seed,
                steps: job.spec.steps(),
                gmacs_samples: job.compute.gmacs_samples,
                train_flops: job.compute.train_flops,
                six_nd: job.compute.six_nd,
                memory_bytes: job.memory_bytes,
                secs: job.secs,
                state: states.map(|states| state_of(states, job)),
                parent: job.parent.as_ref().map(|parent| ParentRow {
                    job_key: &parent.job_key,
                    samples_seen: parent.samples_seen,
                    own_samples: job.own_samples(),
                    own_train_flops: job.own_share() * job.compute.train_flops,
                }),
                init: job.spec.init.as_ref(),
                recipe: &job.spec.recipe,
            })
            .collect(),
        totals: totals(plan),
        checkpoints: checkpoints::kept(plan),
        limits: LimitsRow {
            parallel: plan.limits.parallel,
            retries: plan.limits.retries,
            time_secs: plan.limits.time_limit_secs,
            compute_flops: plan.limits.compute_budget_flops,
        },
    }
}

fn state_of(states: &BTreeMap<String, State>, job: &PlannedJob) -> State {
    states.get(&job.job_key).copied().unwrap_or(State::New)
}

/// D over U.
fn epochs(job: &PlannedJob) -> f64 {
    job.spec.samples_seen as f64 / job.unique_samples.max(1) as f64
}

/// Keys of the jobs that others go on from.
fn trunks(plan: &Plan) -> BTreeSet<&str> {
    plan.jobs.iter().filter_map(|job| Some(job.parent.as_ref()?.job_key.as_str())).collect()
}

fn totals(plan: &Plan) -> Totals {
    let sum = |of: fn(&PlannedJob) -> f64| plan.jobs.iter().map(|job| job.own_share() * of(job)).sum();
    let trunks = trunks(plan);
    let cells = plan.jobs.iter().filter(|job| !trunks.contains(job.job_key.as_str()));
    Totals {
        jobs: plan.jobs.len(),
        trunks: (!trunks.is_empty()).then_some(trunks.len()),
        train_flops_alone: (!trunks.is_empty()).then(|| cells.map(|job| job.compute.train_flops).sum()),
        samples_seen: plan.jobs.iter().map(PlannedJob::own_samples).sum(),
        gmacs_samples: sum(|job| job.compute.gmacs_samples),
        train_flops: sum(|job| job.compute.train_flops),
        six_nd: sum(|job| job.compute.six_nd),
        secs: plan.jobs.iter().map(|job| job.secs).sum(),
    }
}

/// 5400 s as `1 h 30 min`.
pub(super) fn time(secs: f64) -> String {
    let secs = secs.round() as u64;
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", grouped(secs / 3_600), secs % 3_600 / 60),
    }
}

/// What a Slurm job asks for: `2 CPUs, 1 GPU, 16G, 1 h, partition gpu`; `3 x (2 CPUs, 16G), 1 h`, side by side.
pub(super) fn slurm_request(options: &SlurmOptions) -> String {
    let number = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut parts = vec![number(options.cpus, "CPU")];
    if options.nodes > 1 {
        parts[0] = format!("{} nodes of {}", options.nodes, parts[0]);
    }
    if options.gpus > 0 {
        parts.push(number(options.gpus, "GPU"));
    }
    parts.extend(options.memory.clone());
    if options.side_by_side > 1 {
        parts = vec![format!("{} x ({})", options.side_by_side, parts.join(", "))];
    }
    parts.push(time(options.time_secs as f64));
    parts.extend(options.partition.as_ref().map(|name| format!("partition {name}")));
    parts.join(", ")
}
