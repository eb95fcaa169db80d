//! `sweep plan`: what a spec comes to. Needs no database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use super::output::{Exit, Failure, color_stderr, data, json, say};
use super::plan_lines::{Checkpoints, checkpoints, kept, probes};
use super::{hashing, site, slurm};
use crate::plan::{BackendChoice, LoadError, Measured, Origin, Placement, Plan, PlannedJob, SlurmOptions, load};
use crate::spec::SpecError;
use crate::spec::quantity::grouped;
use crate::store::Store;

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
    let store = reachable_store().await;
    let measured = match &store {
        Some(store) => measured(store).await?,
        None => Vec::new(),
    };
    let placement = site::placement(args.backend, args.site.as_deref())?;
    let mut plan = load_with(&args.spec, &measured, &placement)?;
    let request = slurm::request(&mut plan).await?;
    let states = match &store {
        Some(store) => Some(existing_states(store, &plan).await?),
        None => None,
    };
    if args.json {
        json("sweep.plan/1", &body(&plan, states.as_ref(), request));
    } else {
        data(&text(&plan, states.as_ref(), request.as_ref(), args.all));
        let site = args.site.map_or(String::new(), |name| format!(" --site {name}"));
        say(&format!("\nnext: `sweep launch {}{site}`", args.spec.display()));
    }
    Ok(Exit::Done)
}

/// A database that answers without being started. Planning needs none: one that is away is said and done without.
async fn reachable_store() -> Option<Store> {
    match Store::connect_existing().await {
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
    let keys: Vec<String> = plan.jobs.iter().map(|job| job.job_key.clone()).collect();
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
    let mut plan = load_with(path, &[], placement)?;
    if let BackendChoice::Slurm(options) = &plan.backend
        && matches!(options.from.time, Origin::Default(_))
        && let Ok(Some(store)) = Store::connect_existing().await
    {
        plan = load_with(path, &measured(&store).await?, placement)?;
    }
    slurm::fit_to_cluster(&mut plan).await?;
    Ok(plan)
}

fn load_with(path: &Path, measured: &[Measured], placement: &Placement) -> Result<Plan, Failure> {
    load(path, measured, placement, &mut hashing::progress()).map_err(|error| unplannable(&error))
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
    jobs: Vec<JobRow<'a>>,
    totals: Totals,
    /// Those that stay on disk, where jobs are told how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<Checkpoints>,
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
    /// Weights that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<&'a protocol::Weights>,
    recipe: &'a protocol::Recipe,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Totals {
    jobs: usize,
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
                init: job.spec.init.as_ref(),
                recipe: &job.spec.recipe,
            })
            .collect(),
        totals: totals(plan),
        checkpoints: kept(plan),
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

fn totals(plan: &Plan) -> Totals {
    let sum = |of: fn(&PlannedJob) -> f64| plan.jobs.iter().map(of).sum();
    Totals {
        jobs: plan.jobs.len(),
        samples_seen: plan.jobs.iter().map(|job| job.spec.samples_seen).sum(),
        gmacs_samples: sum(|job| job.compute.gmacs_samples),
        train_flops: sum(|job| job.compute.train_flops),
        six_nd: sum(|job| job.compute.six_nd),
        secs: plan.jobs.iter().map(|job| job.secs).sum(),
    }
}

/// Changed shards that are named.
const CHANGED_MAX: usize = 8;
/// Jobs that a table shows before it skips the middle.
const SHOWN_MAX: usize = 60;
/// Last jobs of a table that skips the middle.
const SHOWN_LAST: usize = 10;

fn text(plan: &Plan, states: Option<&BTreeMap<String, State>>, request: Option<&slurm::Request>, all: bool) -> String {
    let mut lines = vec![format!("{}{}{}", plan.name, if plan.question.is_empty() { "" } else { ": " }, plan.question)];
    if let Some(job) = plan.jobs.first() {
        let runner = &job.spec.runner;
        lines.push(format!("runner {} {} ({})", runner.name, runner.version, plan.runner_path.display()));
    }
    for pool in &plan.pools {
        let source = &pool.source;
        let pairs = grouped(pool.samples);
        lines.push(format!(
            "pool   {} ({pairs} pairs, {}, digest {})",
            source.pool,
            source.path.display(),
            &source.digest[..12]
        ));
        lines.extend(pool.skipped.iter().map(|(kind, &count)| format!("       not used: {} ({kind})", grouped(count))));
        let changed = pool.changed.iter().take(CHANGED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = pool.changed.len().saturating_sub(CHANGED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if !changed.is_empty() {
            lines.push(format!("       changed since it was read before: {changed}{more}; jobs on it are new jobs"));
        }
    }
    lines.extend(probes(plan));
    lines.extend(checkpoints(plan));
    lines.push(String::new());
    lines.extend(table(plan, states, all));
    lines.push(String::new());

    let totals = totals(plan);
    lines.push(format!(
        "{} job{}, {} samples seen; C = {:.3e} GMACs x samples, {:.3e} training FLOPs, {:.3e} as 6ND",
        grouped(totals.jobs as u64),
        if totals.jobs == 1 { "" } else { "s" },
        grouped(totals.samples_seen),
        totals.gmacs_samples,
        totals.train_flops,
        totals.six_nd
    ));
    let left = plan.jobs.iter().filter(|job| states.is_none_or(|states| state_of(states, job) != State::Done));
    lines.push(match left.map(|job| job.secs).sum::<Option<f64>>() {
        Some(secs) => format!("time: {} left on one slot, evaluations not counted", time(secs)),
        None => "time: not known before a first run on this machine has been measured".to_owned(),
    });
    if let (BackendChoice::Slurm(options), Some(request)) = (&plan.backend, request) {
        lines.extend(request.lines(&slurm_request(options)));
    }
    if let Some(budget) = plan.limits.compute_budget_flops {
        let share = 100.0 * totals.train_flops / budget;
        lines.push(format!("budget: {share:.1} % of {budget:.3e} training FLOPs"));
    }
    if let Some(states) = states {
        let mut counts = BTreeMap::new();
        for job in &plan.jobs {
            *counts.entry(state_of(states, job)).or_insert(0_u64) += 1;
        }
        let words: Vec<String> =
            counts.into_iter().map(|(state, count)| format!("{} {}", grouped(count), word(state))).collect();
        lines.push(format!("in the database: {}", words.join(", ")));
    }
    lines.join("\n")
}

fn table(plan: &Plan, states: Option<&BTreeMap<String, State>>, all: bool) -> Vec<String> {
    let many_seeds = plan.jobs.iter().any(|job| job.spec.seed != plan.jobs[0].spec.seed);
    let timed = plan.jobs.iter().any(|job| job.secs.is_some());
    let mut header = vec!["job", "model", "N", "seen", "data", "unique", "epochs"];
    header.extend(many_seeds.then_some("seed"));
    header.extend(["steps", "GMACs x seen", "train FLOPs", "memory"]);
    header.extend(timed.then_some("time"));
    header.extend(states.is_some().then_some("state"));

    let skip =
        if all || plan.jobs.len() <= SHOWN_MAX { 0..0 } else { SHOWN_MAX - SHOWN_LAST..plan.jobs.len() - SHOWN_LAST };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (_, job) in plan.jobs.iter().enumerate().filter(|(index, _)| !skip.contains(index)) {
        let mut row = vec![
            job.job_key[..8].to_owned(),
            job.spec.model.name.clone(),
            short(job.size.parameters() as f64),
            grouped(job.spec.samples_seen),
            grouped(job.spec.data_size),
            grouped(job.unique_samples),
            format!("{:.1}", epochs(job)),
        ];
        row.extend(many_seeds.then(|| job.spec.seed.to_string()));
        row.extend([
            grouped(job.spec.steps()),
            format!("{:.3e}", job.compute.gmacs_samples),
            format!("{:.3e}", job.compute.train_flops),
            format!("{}B", short(job.memory_bytes as f64)),
        ]);
        row.extend(timed.then(|| job.secs.map_or_else(|| "?".to_owned(), time)));
        row.extend(states.map(|states| word(state_of(states, job)).to_owned()));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    if !skip.is_empty() {
        let note = format!(" ... {} more; `--all` or `--json` shows every job", grouped(skip.len() as u64));
        lines.insert(1 + skip.start, note);
    }
    lines
}

fn word(state: State) -> &'static str {
    match state {
        State::New => "new",
        State::Done => "done (reused)",
        State::Running => "running",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// 1234567 as `1.23M`.
fn short(value: f64) -> String {
    for (unit, letter) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= unit {
            let value = value / unit;
            return if value < 10.0 { format!("{value:.2}{letter}") } else { format!("{value:.1}{letter}") };
        }
    }
    format!("{value:.0}")
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
