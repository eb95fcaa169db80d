//! `sweep evaluate`: measures weights that are there already, by jobs of their own: a checkpoint of whoever trained it,
//! or those of a sweep.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use protocol::EvaluationTask;
use serde::Serialize;

use super::companions::{self, Question};
use super::drive::Requests;
use super::follow::{Following, Seen};
use super::launch::{self, Launch};
use super::output::{Exit, Failure, data, json, say};
use super::progress::Progress;
use super::{hashing, plan, site, slurm, target};
use crate::plan::{
    LoadError, OPEN_CLIP_CONFIG, Placement, Plan, file_of, has_class_names, load_spec, preprocess_of, recipe_keys,
};
use crate::report::number::compact;
use crate::spec::{self, Source};
use crate::store::{MeasurementRow, Store};

/// What to do where measurements contradict each other.
pub(super) const CONTRADICTION: &str = "another number of threads or another device rounds differently; what is stored stays, and the \
     measurements of a job can be measured anew under another data set's name: `--dataset NAME`";

/// Options of `sweep evaluate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A checkpoint of somebody else's, as open_clip has it (.safetensors, .pt, .bin, or a folder of its `local-dir:`):

  sweep evaluate --checkpoint epoch_32.pt --model ViT-B-32 --pool data/coco
  sweep evaluate --checkpoint model-folder --pool data/coco --task zeroshot_retrieval

A data set more for a finished sweep; results are rows of the jobs that were trained:

  sweep evaluate emoji --pool data/coco --at every_checkpoint

The checkpoints of a sweep that still runs, in slots of their own:

  sweep evaluate emoji --pool data/coco --follow --parallel 2")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command are just that")]
pub(super) struct Args {
    /// A sweep, whose finished jobs' checkpoints are measured.
    #[arg(required_unless_present = "checkpoint", conflicts_with = "checkpoint")]
    sweep: Option<String>,
    /// Weights to measure: a file, or a folder with one.
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Model of the weights: a name of `sweep model` or a JSON file [default: the folder's open_clip_config.json, or
    /// what was trained].
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Folder of held-out shards; again for several [default: the data sets that the sweep's jobs have].
    #[arg(long = "pool", value_name = "FOLDER", required_unless_present = "sweep")]
    pub(super) pools: Vec<String>,
    /// What to measure; again for several [default: classification where the pool has class names, else retrieval; or
    /// what the sweep's jobs measure]. `linear_probe` and `fine_tuning` need `--train`.
    #[arg(long = "task", value_name = "TASK", value_parser = task)]
    pub(super) tasks: Vec<EvaluationTask>,
    /// Folder of shards with classes that linear probes and fine-tuning train on.
    #[arg(long, value_name = "FOLDER", requires = "pools")]
    train: Option<String>,
    /// Images of each class that a linear probe is trained on, `all` or `vtab1k`; again for several [default: all].
    #[arg(long = "shots", value_name = "N", requires = "train")]
    shots: Vec<String>,
    /// How to fine-tune, a key of `ft_...` in a spec; again for several: `--ft steps=500 --ft lr=1e-4`.
    #[arg(long = "ft", value_name = "KEY=VALUE", requires = "train", value_parser = fine_tuning_key)]
    fine_tuning: Vec<(String, String)>,
    /// Name to store the results of a single pool under [default: the pool's].
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Which checkpoints of a sweep's jobs.
    #[arg(long, value_enum, default_value = "final", requires = "sweep")]
    pub(super) at: At,
    /// Measure every checkpoint as it is reported, until the sweep has no open job and all are measured.
    #[arg(long, requires = "sweep", conflicts_with_all = ["dry_run", "detach"])]
    pub(super) follow: bool,
    /// Checkpoints measured at one time, with `--follow` [default: as `companions` of the sweep's spec says, or 1].
    #[arg(long, value_name = "JOBS", requires = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) parallel: Option<u32>,
    /// Name of the sweep that the measuring jobs make.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Who measures [default: the sweep's runner, or clip].
    #[arg(long, value_name = "RUNNER")]
    pub(super) runner: Option<String>,
    /// Say what would run, and start nothing.
    #[arg(long)]
    dry_run: bool,
    /// Start what there is room for, then leave it alone.
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Where jobs run, whatever the sweep's spec says.
    #[arg(long, value_enum)]
    backend: Option<plan::BackendName>,
    /// Profile of the cluster, from `~/.config/sweep/sites.yaml`; implies `--backend slurm`.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Print the measurements as JSON, schema `sweep.evaluate/1`.
    #[arg(long)]
    json: bool,
}

/// Which checkpoints of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum At {
    /// That of its end.
    #[value(name = "final")]
    Final,
    /// All that are kept.
    #[value(name = "every_checkpoint")]
    EveryCheckpoint,
}

/// Jobs to run, and whose measurements to show.
pub(super) struct Measuring {
    pub(super) plan: Plan,
    pub(super) companions: Vec<crate::store::Companion>,
    /// Jobs whose rows are shown.
    pub(super) shown: Vec<String>,
    /// Of these data sets, where they are named.
    pub(super) datasets: Vec<String>,
    /// At these positions of those jobs.
    pub(super) places: Option<std::collections::BTreeSet<(String, i64)>>,
}

/// Body of `sweep evaluate --json`.
#[derive(Debug, Serialize)]
struct Body<'a> {
    sweep: &'a str,
    /// `complete`, `stopped` or `detached`; `planned` for a dry run.
    outcome: &'static str,
    measurements: &'a [MeasurementRow],
}

fn task(text: &str) -> Result<EvaluationTask, String> {
    let names = EvaluationTask::ALL.map(EvaluationTask::name).join(", ");
    EvaluationTask::named(text).ok_or_else(|| format!("allowed: {names}"))
}

fn fine_tuning_key(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    let named = |key: &str| key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()) && !key.is_empty();
    pair.filter(|(key, _)| named(key)).ok_or_else(|| "allowed: KEY=VALUE, such as `steps=500`".to_owned())
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    if args.dataset.is_some() && args.pools.len() != 1 {
        return Err(Failure::bad_input("`--dataset` names the results of one pool").hint("give one `--pool`"));
    }
    let placement = site::placement(args.backend, args.site.as_deref())?;
    if args.follow {
        return follow(&args, &placement).await;
    }
    let (mut measuring, again) = match (&args.checkpoint, &args.sweep) {
        (Some(checkpoint), _) => {
            let again = format!("sweep evaluate --checkpoint {} ...", checkpoint.display());
            (of_checkpoint(&args, checkpoint, &placement)?, again)
        }
        (None, Some(sweep)) => {
            (companions::plan(&args, sweep, &placement).await?, format!("sweep evaluate {sweep} ..."))
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    slurm::fit_to_cluster(&mut measuring.plan).await?;
    if args.dry_run {
        return launch::dry_run(&measuring.plan, args.json).await;
    }
    let Measuring { plan, companions, .. } = &measuring;
    if plan.jobs.is_empty() {
        say("nothing is left to measure");
        return show(&args, &measuring, "complete").await.map(|()| Exit::Done);
    }
    let launch = Launch { plan, companions, detach: args.detach, again: &again, heading: "" };
    let ended = launch::execute(&launch).await?;
    show(&args, &measuring, ended.word()).await?;
    Ok(ended.exit(args.detach))
}

/// Measures checkpoints while they come in.
async fn follow(args: &Args, placement: &Placement) -> Result<Exit, Failure> {
    let sweep = args.sweep.as_deref().expect("clap asks for it");
    let store = target::store().await?;
    let sweep_id = companions::find(&store, sweep).await?;
    let question = Question::of_command(args, sweep, sweep_id, placement).await?;
    let open =
        store.sweep_list(Some(sweep)).await?.pop().map_or(0, |found| found.counts.pending + found.counts.running);
    if open > 0 {
        say(&format!("following `{sweep}`, which has {open} open jobs; `sweep launch` runs them"));
    }
    let requests = Requests::listen()?;
    let mut progress = Progress::new(&question.name, 0);
    let mut following = Following::new(&question, sweep_id, None);
    let driven = following.run(None, &requests, &mut progress).await;
    progress.finish();
    drop(requests);
    let Seen { jobs, datasets, places } = following.seen;
    let plan = question.plan_of(Vec::new());
    let again = format!("sweep evaluate {sweep} --follow ...");
    let launch = Launch { plan: &plan, companions: &[], detach: false, again: &again, heading: "" };
    let ended = launch::conclude(&launch, driven?).await?;
    let mut shown: Vec<String> = Vec::new();
    for job in jobs {
        if !shown.contains(&job) {
            shown.push(job);
        }
    }
    let datasets = datasets.into_iter().collect();
    let measuring = Measuring { plan, companions: Vec::new(), shown, datasets, places: Some(places) };
    show(args, &measuring, ended.word()).await?;
    Ok(ended.exit(false))
}

/// The evaluations of the command line, as a spec writes them.
pub(super) fn evaluations(args: &Args) -> String {
    let entries = args.pools.iter().map(|pool| {
        let chosen = if args.tasks.is_empty() { vec![usual_task(pool)] } else { args.tasks.clone() };
        let tasks: Vec<&str> = chosen.iter().copied().map(EvaluationTask::name).collect();
        let name = args.dataset.as_ref().map_or(String::new(), |name| format!("name: {}, ", quoted(name)));
        let mut trained = String::new();
        let (probes, tunes) =
            (chosen.contains(&EvaluationTask::LinearProbe), chosen.contains(&EvaluationTask::FineTuning));
        if let Some(train) = args.train.as_ref().filter(|_| probes || tunes) {
            let _ = write!(trained, ", train: {}", quoted(train));
        }
        if probes && args.train.is_some() {
            let shots = if args.shots.is_empty() { "all".to_owned() } else { args.shots.join(", ") };
            let _ = write!(trained, ", shots: [{shots}]");
        }
        for (key, value) in args.fine_tuning.iter().filter(|_| tunes) {
            let _ = write!(trained, ", ft_{key}: {}", quoted(value));
        }
        format!("- {{{name}pool: {}, tasks: [{}]{trained}}}\n", quoted(pool), tasks.join(", "))
    });
    format!("evaluations:\n{}", entries.collect::<String>())
}

fn usual_task(pool: &str) -> EvaluationTask {
    if has_class_names(Path::new(pool)) {
        EvaluationTask::ZeroshotClassification
    } else {
        EvaluationTask::ZeroshotRetrieval
    }
}

/// A text as YAML has it between quotes: JSON's form.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One job that measures a checkpoint, as a spec that `sweep launch` would take too.
fn of_checkpoint(args: &Args, checkpoint: &Path, placement: &Placement) -> Result<Measuring, Failure> {
    // In the folder, or beside the file.
    let folder = if checkpoint.is_dir() { checkpoint } else { checkpoint.parent().unwrap_or(Path::new("")) };
    let config = folder.join(OPEN_CLIP_CONFIG);
    let model = match &args.model {
        Some(model) => model.clone(),
        None if config.is_file() => config.display().to_string(),
        None => {
            return Err(Failure::bad_input(format!("what model {} is of is not known", checkpoint.display()))
                .hint(format!("add --model, or give a folder with {OPEN_CLIP_CONFIG}")));
        }
    };
    let preprocess = preprocess_of(&config).map_err(Failure::bad_input)?;
    let preprocess = preprocess.map_or(String::new(), |preprocess| format!(", {}", recipe_keys(&preprocess)));
    let text = |name: &str| {
        format!(
            "# sweep evaluate --checkpoint {init}\nname: {name}\nrunner: {runner}\n\
             grid: {{model: {model}, samples_seen: 0}}\nrecipe: {{global_batch: 1, init: {init}{preprocess}}}\n{evaluations}",
            name = quoted(name),
            runner = quoted(args.runner.as_deref().unwrap_or("clip")),
            model = quoted(&model),
            init = quoted(&checkpoint.display().to_string()),
            evaluations = evaluations(args),
        )
    };
    let name = args.name.as_deref().unwrap_or("evaluate");
    let spec = spec::parse(&Source::new("(the command line)", &text(name)))
        .map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
    let mut plan = load_spec(spec, &[], placement, &mut hashing::progress())
        .map_err(|error: LoadError| plan::unplannable(&error))?;
    let job_key = plan.jobs.first().map(|job| job.job_key.clone()).unwrap_or_default();
    if args.name.is_none() {
        // Another data set of the same weights is another job: a sweep of its own keeps both in sight.
        plan.name = format!("evaluate-{}-{}", stem(checkpoint), &job_key[..8.min(job_key.len())]);
        plan.spec_source = text(&plan.name);
    }
    Ok(Measuring { plan, companions: Vec::new(), shown: vec![job_key], datasets: Vec::new(), places: None })
}

/// The folder's or file's name, as far as a sweep's may have it.
fn stem(checkpoint: &Path) -> String {
    let inside = file_of(Path::new(""), checkpoint).is_some_and(|file| file != checkpoint);
    let name = if inside { checkpoint.file_name() } else { checkpoint.file_stem() };
    let name = name.map_or_else(|| "checkpoint".to_owned(), |name| name.to_string_lossy().into_owned());
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(40).collect()
}

async fn show(args: &Args, measuring: &Measuring, outcome: &'static str) -> Result<(), Failure> {
    let mut rows = Store::connect().await?.measurement_list(&measuring.shown).await?;
    rows.retain(|row| {
        (measuring.datasets.is_empty() || measuring.datasets.contains(&row.dataset))
            && measuring.places.as_ref().is_none_or(|at| at.contains(&(row.job_key.clone(), row.samples_seen)))
    });
    if args.json {
        json("sweep.evaluate/1", &Body { sweep: &measuring.plan.name, outcome, measurements: &rows });
    } else if !rows.is_empty() {
        data(&table(&rows, measuring.places.is_some()));
    }
    Ok(())
}

fn table(rows: &[MeasurementRow], of_jobs: bool) -> String {
    let mut table = Table::new();
    let mut head = if of_jobs { vec!["job", "model", "samples"] } else { vec!["model"] };
    let words = head.len();
    head.extend(["data set", "metric", "value", "+-", "chance", "items"]);
    table.load_preset(presets::NOTHING).set_header(head);
    for row in rows {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let mut cells = if of_jobs {
            vec![row.job_key[..12].to_owned(), row.model.clone(), compact(row.samples_seen as f64)]
        } else {
            vec![row.model.clone()]
        };
        cells.extend([row.dataset.clone(), row.metric.clone(), number(Some(row.value))]);
        cells.extend([number(row.standard_error), number(row.chance)]);
        cells.push(row.count.map_or("-".to_owned(), |count| count.to_string()));
        table.add_row(cells.iter().map(|cell| super::output::one_line(cell).into_owned()));
    }
    for column in table.column_iter_mut().skip(words + 2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
