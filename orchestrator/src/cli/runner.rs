//! `sweep runner`: whether a runner of one's own speaks the protocol.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Description, FailureKind, Job, JobSpec, Resources};
use serde::Serialize;

use super::hashing;
use super::output::{self, Exit, Failure};
use super::plan::unplannable;
use crate::events::{Taken, kind_of};
use crate::plan::inputs::{gather, read_spec};
use crate::plan::{LoadError, PlannedJob, RunnerError, plan, runner};
use crate::spec::{self, DataSize, Source, Spec};
use crate::store::Ending;
use crate::worker::trial::{self, Said};

/// Options of `sweep runner`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Try a runner on one small job and say line by line what is understood. Exit code 0 if the job would be done, 1
    /// if not. Stores nothing.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The runner: a program, or a name as in a spec (`clip`).
    program: String,
    /// Folder of shards to train and measure on, for a runner that reads data: the smaller, the sooner.
    #[arg(long, value_name = "FOLDER", conflicts_with = "spec")]
    pool: Option<String>,
    /// Try the smallest job of this spec, with this runner in place of the spec's.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Where it is to run: `cpu`, `cuda:0`. Left out: the CPU if the runner can, else the first of its devices.
    #[arg(long)]
    device: Option<String>,
    /// Kill the runner after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    /// As JSON, schema `sweep.runner.check/1`.
    #[arg(long)]
    json: bool,
}

/// Body of `sweep runner check --json`.
#[derive(Debug, Serialize)]
struct Report {
    runner: Description,
    /// What it was told to do.
    job: JobSpec,
    /// What it said.
    lines: Vec<SaidLine>,
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct SaidLine {
    /// The first 200 characters.
    line: String,
    /// `understood`, `ignored` (words) or `fails` (the attempt ends with it).
    is: &'static str,
    /// Name of the event that was understood.
    event: Option<&'static str>,
    /// Keys of it that mean nothing.
    ignored_keys: Vec<String>,
    /// Why it fails.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    /// Whether the job would be done.
    done: bool,
    /// `diverged`, `bad_input` (neither is tried again) or `crash`.
    kind: Option<FailureKind>,
    reason: Option<String>,
    /// Last words of its standard error, if it failed.
    stderr: String,
}

/// Samples of the job that is made up, two thirds of them before its last evaluation.
const SAMPLES: u64 = 256;
/// Unique pairs of it at most.
const DATA_SIZE_MAX: u64 = 64;

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let Command::Check(args) = args.command;
    check(args).await
}

async fn check(args: CheckArgs) -> Result<Exit, Failure> {
    let base_dir = std::env::current_dir().map_err(|error| unplannable(&LoadError::CurrentDir(error)))?;
    let name = named(&args.program, &base_dir);
    let unusable = |error: RunnerError| match error {
        RunnerError::NotFound { .. } => Failure::environment(error.to_string()).hint(error.hint()),
        error => Failure::failed(error.to_string()).because(&error).hint(error.hint()),
    };
    let path = runner::find(&name, &base_dir).map_err(unusable)?;
    let description = runner::describe(&path).map_err(unusable)?;
    let planned = smallest_job(&args, &name, &description, &base_dir)?;
    let device = args.device.clone().unwrap_or_else(|| default_device(&description));
    let folder = scratch().map_err(|error| {
        let place = std::env::temp_dir();
        Failure::environment(format!("can't make a folder in {}", place.display()))
            .because(&error)
            .hint("set TMPDIR to a folder that can be written to")
    })?;
    let job = Job {
        parent: None,
        protocol: protocol::PROTOCOL_VERSION,
        job_key: planned.job_key.clone(),
        fence: 1,
        spec: planned.spec.to_job_spec(),
        attempt_dir: folder.path().join("attempt"),
        checkpoint_dir: folder.path().join("checkpoints"),
        base_dir,
        resources: Resources { device, threads: 1 },
        ranks: None,
    };
    if !args.json {
        tell_of_start(&description, &job);
    }
    let mut lines = Vec::new();
    let limit = Duration::from_secs(args.time_limit);
    let ending = trial::run(&path, &job, planned.size.parameters(), limit, |said| {
        let line = said_line(said);
        if args.json {
            lines.push(line);
        } else {
            tell_of_line(&line);
        }
    });
    let ending = ending.await.map_err(|error| {
        Failure::environment(format!("can't run `{} run --job ...`", path.display())).because(&error)
    })?;
    let verdict = verdict(ending);
    let exit = if verdict.done { Exit::Done } else { Exit::Failed };
    if args.json {
        output::json("sweep.runner.check/1", &Report { runner: description, job: job.spec, lines, verdict });
    } else {
        tell_of_end(&verdict);
    }
    Ok(exit)
}

/// A folder for the job, removed when it is dropped.
fn scratch() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("sweep-runner-check-").tempdir()?;
    for name in ["attempt", "checkpoints"] {
        std::fs::create_dir(folder.path().join(name))?;
    }
    Ok(folder)
}

/// The runner as a spec would name it: a file here goes by its path.
fn named(program: &str, base_dir: &Path) -> String {
    if !program.contains('/') && base_dir.join(program).is_file() { format!("./{program}") } else { program.to_owned() }
}

/// The job to try: the cheapest of the spec, or one that is made up.
fn smallest_job(
    args: &CheckArgs,
    runner: &str,
    description: &Description,
    base_dir: &Path,
) -> Result<PlannedJob, Failure> {
    let unplanned = |error: LoadError| unplannable(&error);
    let mut spec = match &args.spec {
        Some(path) => read_spec(path).map_err(unplanned)?,
        None => made_up(args.pool.as_deref(), runner, description)?,
    };
    runner.clone_into(&mut spec.runner);
    let inputs = gather(&spec, base_dir, &mut hashing::progress()).map_err(unplanned)?;
    if args.spec.is_none() {
        let pool = args.pool.as_ref().and_then(|pool| inputs.pools.get(pool));
        let size = pool.map_or(DATA_SIZE_MAX, |pool| pool.samples.min(DATA_SIZE_MAX));
        spec.grid.data_size = vec![DataSize::Samples(size)];
    }
    let plan = plan(&spec, &inputs).map_err(|error| unplannable(&LoadError::Spec(error)))?;
    plan.jobs.into_iter().next().ok_or_else(|| Failure::bad_input("the spec has no job"))
}

/// A spec of one tiny job. A runner that reads no data has nothing to be measured on.
fn made_up(pool: Option<&str>, runner: &str, description: &Description) -> Result<Spec, Failure> {
    let quoted = |text: &str| serde_json::to_string(text).expect("a text serialises");
    let data = match pool {
        Some(pool) if description.reads_data => {
            let pool = quoted(pool);
            format!(
                "data: {{pool: {pool}}}\nevaluations:\n- {{pool: {pool}, name: held-out, at_samples: [50%], \
                 tasks: [zeroshot_retrieval, contrastive_loss]}}\n"
            )
        }
        None if description.reads_data => {
            return Err(Failure::bad_input(format!("the runner `{runner}` reads data, and was given none"))
                .hint("`--pool FOLDER` names a folder of shards (`make data` packs some), `--spec` a spec"));
        }
        _ => String::new(),
    };
    let text = format!(
        "name: runner-check\nrunner: {}\n{data}grid: {{model: cpu-w32-l2, samples_seen: {SAMPLES}, data_size: {DATA_SIZE_MAX}}}\n\
         recipe: {{global_batch: 32, checkpoint_every: 128}}\n",
        quoted(runner)
    );
    spec::parse(&Source::new("the job that is made up", &text)).map_err(|error| unplannable(&error.into()))
}

fn default_device(description: &Description) -> String {
    let cpu = description.devices.iter().find(|device| *device == "cpu");
    cpu.or(description.devices.first()).map_or("cpu", String::as_str).to_owned()
}

fn said_line(said: &Said) -> SaidLine {
    let line = said.line.clone();
    let plain = SaidLine { line, is: "ignored", event: None, ignored_keys: Vec::new(), problem: None };
    match &said.taken {
        Taken::Nothing | Taken::Words => plain,
        Taken::Event { event, ignored } => {
            SaidLine { is: "understood", event: Some(kind_of(event)), ignored_keys: ignored.clone(), ..plain }
        }
        Taken::Refused(reason) | Taken::CutOff(reason) => {
            SaidLine { is: "fails", problem: Some(reason.clone()), ..plain }
        }
    }
}

fn verdict(ending: Ending) -> Verdict {
    match ending {
        Ending::Finished { .. } => Verdict { done: true, kind: None, reason: None, stderr: String::new() },
        Ending::Failed { kind, reason, stderr_tail, .. } => {
            Verdict { done: false, kind: Some(kind), reason: Some(reason), stderr: stderr_tail }
        }
        Ending::Stopped { reason } => Verdict { done: false, kind: None, reason: Some(reason), stderr: String::new() },
    }
}

fn tell_of_start(description: &Description, job: &Job) {
    let Description { name, version, devices, .. } = description;
    output::data(&format!("describe    {} {}, on {}", output::one_line(name), version, devices.join(", ")));
    let JobSpec { model, samples_seen, recipe, evaluations, .. } = &job.spec;
    let measured: Vec<&str> = evaluations.iter().map(|plan| plan.dataset.as_str()).collect();
    let measured = if measured.is_empty() { "nothing".to_owned() } else { measured.join(", ") };
    output::data(&format!(
        "job         {}, {samples_seen} samples in batches of {}, on {}; to be measured: {measured}",
        model.name, recipe.global_batch, job.resources.device
    ));
}

fn tell_of_line(line: &SaidLine) {
    let SaidLine { line, is, event, ignored_keys, .. } = line;
    let event = event.map_or(String::new(), |event| format!("{event}: "));
    output::data(&format!("{is:<10}  {event}{line}"));
    for key in ignored_keys {
        output::data(&format!("{:<10}  `{}` means nothing here, and is ignored", "", output::one_line(key)));
    }
}

fn tell_of_end(verdict: &Verdict) {
    let Verdict { done, kind, reason, stderr } = verdict;
    if *done {
        output::data("verdict     the job would be done");
        return;
    }
    for line in stderr.lines() {
        output::data(&format!("stderr      {line}"));
    }
    let retried = match kind {
        Some(FailureKind::Crash) => "tried again, up to the limit",
        Some(FailureKind::BadInput | FailureKind::Diverged) => "not tried again",
        None => "stopped, and resumed later",
    };
    let reason = reason.as_deref().unwrap_or_default();
    output::data(&format!("verdict     the job would not be done ({retried}): {reason}"));
    output::say("\nhint: runners/protocol/README.md says what a runner writes");
}
