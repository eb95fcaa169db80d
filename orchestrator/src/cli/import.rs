//! `sweep import`: results that others published, as a sweep of its own.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{Exit, Failure, data, json, say};
use crate::fit::Convention;
use crate::import::{ReadError, SourceFile, clip_benchmark, mapping, open_clip, openclip_2022, table};
use crate::plan::weights_of;
use crate::spec;
use crate::store::Store;
use crate::store::import::{ImportError, Imported, ImportedCounts, Replace};

/// Options of `sweep import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    source: Source,
    /// Store the source's values in place of others of the same rows, and take rows that it lacks out of the sweep.
    #[arg(long, global = true)]
    replace: bool,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Source {
    /// The CSV files of the 2022 study (LAION-AI/scaling-laws-openclip).
    #[command(name = "openclip-2022")]
    Openclip2022 {
        /// Folder with zeroshot_results.csv and its three companions.
        dir: PathBuf,
        /// Name of the sweep; OpenAI's models go to NAME-openai.
        #[arg(long, default_value = "openclip-2022", value_parser = sweep_name)]
        name: String,
    },
    /// Results of CLIP_benchmark: JSON of its runs, its CSV, or the JSON of linear probes.
    ClipBenchmark {
        /// A file, or a folder whose .json, .jsonl and .csv files are read, those of its folders too.
        path: PathBuf,
        /// Name of the sweep.
        #[arg(long, default_value = "clip-benchmark", value_parser = sweep_name)]
        name: String,
    },
    /// Runs of OpenCLIP's trainer: params.txt and checkpoints/results.jsonl.
    OpenClip {
        /// The folder of a run, or a folder of such folders.
        dir: PathBuf,
        /// Name of the sweep.
        #[arg(long, default_value = "open-clip", value_parser = sweep_name)]
        name: String,
    },
    /// Any table (CSV, TSV, Parquet) by a mapping of its columns.
    #[command(after_help = MAP_HELP)]
    Csv {
        /// The table; .tsv and .parquet are known by their names.
        file: PathBuf,
        /// Name of the sweep.
        #[arg(long, value_parser = sweep_name)]
        name: String,
        /// What a column is; again for each.
        #[arg(long = "map", value_name = "KEY=COLUMN", required = true)]
        maps: Vec<String>,
        /// How `c` was counted: gmacs_samples, train_flops or six_nd.
        #[arg(long, value_name = "CONVENTION")]
        compute: Option<Convention>,
    },
    /// Aggregates of data sets from YAML: `NAME: [DATASET, ...]`.
    Aggregates {
        /// The file.
        file: PathBuf,
    },
}

const MAP_HELP: &str = "\
Keys: n, d, u, c (parameters, samples or tokens seen, unique samples, compute); error, loss, accuracy, metric:NAME
(what was measured); se, count, chance (of the first of these); cost (GPU-hours), seed; and words: group (model or
family), dataset, pool (data trained on), run (rows of a run are its checkpoints).
A column is named as in the header, or is arithmetic with + - * / ^ ( ), min(x, y) and max(x, y) over columns and other
keys; names with blanks stand in backticks there, and a name that is both a column and a key is written column:NAME or axis:KEY. Words may be constants in quotes: `--map dataset=\"'c4'\"`.

  sweep import csv chinchilla.csv --name chinchilla --compute six_nd --map n='Model Size' --map c='Training FLOP' \\
      --map 'd=c/(6*n)' --map loss=loss";

#[derive(Serialize)]
struct ImportJson<'a> {
    sweeps: &'a [ImportedCounts],
    warnings: &'a [String],
    /// Parts of the source that could not be read, and why.
    failed: &'a [String],
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let imported = match &args.source {
        Source::Openclip2022 { dir, name } => {
            let files = named_files(dir, &openclip_2022::FILES)?;
            openclip_2022::read(name, &dir.display().to_string(), &files)
        }
        Source::ClipBenchmark { path, name } => {
            clip_benchmark::read(name, &path.display().to_string(), &results_below(path)?)
        }
        Source::OpenClip { dir, name } => {
            let (runs, unread) = runs_in(dir, &mut super::hashing::progress())?;
            let read = open_clip::read(name, &dir.display().to_string(), &runs);
            read.map(|imported| Imported { failed: [unread.clone(), imported.failed].concat(), ..imported })
                .inspect_err(|_| {
                    for run in &unread {
                        say(&format!("error: {run}"));
                    }
                })
        }
        Source::Csv { file, name, maps, compute } => {
            table::read(name, &read_file(file, &file_name(file))?, maps, *compute)
        }
        Source::Aggregates { file } => return aggregates(file, args.json).await,
    };
    store(imported.map_err(|error| unreadable(&error))?, &args).await
}

/// Stores what was read, and says what that changed.
async fn store(imported: Imported, args: &Args) -> Result<Exit, Failure> {
    let store = Store::connect().await?;
    for warning in &imported.warnings {
        say(&format!("warning: {warning}"));
    }
    // What could not be read is not gone from the source.
    let replace = match (args.replace, imported.failed.is_empty()) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::Values,
        (true, true) => Replace::All,
    };
    let counts = store.import_studies(&imported.studies, replace).await.map_err(refused)?;
    for note in counts.iter().flat_map(|counts| &counts.notes) {
        say(&format!("warning: {note}"));
    }
    for part in &imported.failed {
        say(&format!("error: not imported: {part}"));
    }
    for counts in counts.iter().filter(|counts| counts.jobs_other > 0) {
        let (sweep, others) = (&counts.sweep, counts.jobs_other);
        say(&if replace == Replace::All {
            format!("{sweep}: {others} jobs of earlier imports are no longer in it")
        } else if args.replace {
            format!(
                "warning: {sweep} also holds {others} jobs of earlier imports; they stay, since a part of the source was \
                 not read"
            )
        } else {
            format!("warning: {sweep} also holds {others} jobs of earlier imports; `--replace` takes them out")
        });
    }
    if args.json {
        let (warnings, failed) = (&imported.warnings, &imported.failed);
        json("sweep.import/1", &ImportJson { sweeps: &counts, warnings, failed });
        return Ok(if imported.failed.is_empty() { Exit::Done } else { Exit::Failed });
    }
    for (counts, study) in counts.iter().zip(&imported.studies) {
        data(&summary(counts));
        let finals = || study.jobs.iter().flat_map(|job| &job.evaluations).filter(|row| row.samples_seen.is_none());
        let usual = finals().find(|row| row.dataset == "imagenet1k" && row.metric.contains("acc1"));
        if let Some(row) = usual.or_else(|| finals().next()) {
            say(&format!("hint: sweep fit {} --metric {}/{}", counts.sweep, row.dataset, row.metric));
        }
    }
    Ok(if imported.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

fn summary(counts: &ImportedCounts) -> String {
    let of = |new: u64, changed: u64, gone: u64, all: u64| {
        let same = all - new - changed;
        let parts = [(new, "new"), (changed, "changed"), (same, "unchanged"), (gone, "taken out")];
        let parts: Vec<(u64, &str)> = parts.into_iter().filter(|(count, _)| *count > 0).collect();
        match &parts[..] {
            [(_, word)] if gone == 0 => (*word).to_owned(),
            parts => parts.iter().map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", "),
        }
    };
    format!(
        "{}: {} jobs ({}), {} evaluations ({})",
        counts.sweep,
        counts.jobs,
        of(counts.jobs_new, counts.jobs_changed, 0, counts.jobs),
        counts.evaluations,
        of(counts.evaluations_new, counts.evaluations_changed, counts.evaluations_gone, counts.evaluations)
    )
}

fn refused(error: ImportError) -> Failure {
    match error {
        ImportError::Store(error) => error.into(),
        ImportError::Conflicts { ref conflicts } => {
            const SHOWN: usize = 20;
            for conflict in conflicts.iter().take(SHOWN) {
                say(&format!("conflict: {conflict}"));
            }
            if conflicts.len() > SHOWN {
                say(&format!("and {} more conflicts", conflicts.len() - SHOWN));
            }
            Failure::bad_input(error.to_string())
                .hint("`--replace` stores what the source says; another study needs a name of its own (`--name`)")
        }
        ImportError::Launched(_) => Failure::bad_input(error.to_string()).hint("choose another name: `--name NAME`"),
        ImportError::BuiltIn(_) => Failure::bad_input(error.to_string()).hint("give yours another name"),
    }
}

fn unreadable(error: &ReadError) -> Failure {
    if let ReadError::Nothing { warnings, .. } = error {
        for warning in warnings {
            say(&format!("warning: {warning}"));
        }
    }
    let failure = Failure::bad_input(error.to_string()).because(error);
    match error {
        ReadError::Map(mapping::MapError::Expression { .. }) => {
            failure.hint("allowed are columns, numbers, + - * / ^ ( ), min(x, y) and max(x, y); `sweep import csv --help` has examples")
        }
        _ => failure,
    }
}

async fn aggregates(file: &Path, as_json: bool) -> Result<Exit, Failure> {
    let read = read_file(file, &file_name(file))?;
    let text = String::from_utf8(read.bytes)
        .map_err(|error| Failure::bad_input(format!("{} is not text", file.display())).because(&error))?;
    let source = spec::Source::new(&file.display().to_string(), &text);
    let aggregates = spec::aggregates(&source).map_err(|error| Failure::bad_input(super::plan::rendered(&error)))?;
    let changed = Store::connect().await?.aggregates_define(&aggregates).await.map_err(refused)?;
    if as_json {
        json("sweep.aggregates/1", &serde_json::json!({ "aggregates": aggregates.len(), "changed": changed }));
    } else {
        data(&format!("{} aggregates, {changed} new or changed", aggregates.len()));
    }
    Ok(Exit::Done)
}

/// The rule for the `name` of a spec.
fn sweep_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-']) {
        Ok(text.to_owned())
    } else {
        Err("up to 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`".to_owned())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A file, or those below a folder that may hold results, by path.
fn results_below(path: &Path) -> Result<Vec<SourceFile>, Failure> {
    if !path.is_dir() {
        return Ok(vec![read_file(path, &file_name(path))?]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            let extension = entry.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if entry.is_dir() {
                folders.push(entry);
            } else if ["json", "jsonl", "csv"].contains(&extension.to_ascii_lowercase().as_str()) {
                files.push(entry);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::bad_input(format!("{} holds no .json, .jsonl or .csv file", path.display())));
    }
    files.iter().map(|file| read_file(file, &file.strip_prefix(path).unwrap_or(file).display().to_string())).collect()
}

/// Told while a checkpoint is hashed: its name, bytes that are done, and of all.
type Hashing<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// A run, or the runs in a folder; and those whose files can't be read, with the reason.
fn runs_in(folder: &Path, progress: &mut Hashing<'_>) -> Result<(Vec<open_clip::Run>, Vec<String>), Failure> {
    let is_run = |folder: &Path| folder.join("params.txt").is_file();
    let folders: Vec<PathBuf> = if is_run(folder) {
        vec![folder.to_owned()]
    } else {
        entries(folder)?.into_iter().filter(|f| is_run(f)).collect()
    };
    if folders.is_empty() {
        let failure = Failure::bad_input(format!("{} is no run of OpenCLIP and holds none", folder.display()));
        return Err(failure.hint("a run has `params.txt` and `checkpoints/results.jsonl`"));
    }
    let read = |folder: &Path, path: &str| {
        std::fs::read(folder.join(path)).map_err(|error| format!("{}: can't read {path}: {error}", file_name(folder)))
    };
    let mut run = |folder: &PathBuf| -> Result<open_clip::Run, String> {
        let file = |path: &str, name: &str| -> Result<SourceFile, String> {
            Ok(SourceFile { name: name.to_owned(), bytes: read(folder, path)? })
        };
        Ok(open_clip::Run {
            folder: file_name(folder),
            params: file("params.txt", "params.txt")?,
            results: file("checkpoints/results.jsonl", "results.jsonl")?,
            checkpoints: checkpoints_in(&folder.join("checkpoints"), progress)?,
        })
    };
    let (mut runs, mut unread) = (Vec::new(), Vec::new());
    for folder in &folders {
        match run(folder) {
            Ok(run) => runs.push(run),
            Err(why) => unread.push(why),
        }
    }
    Ok((runs, unread))
}

/// `epoch_N.pt` in a run's folder of checkpoints, hashed, so that they are known when they are measured.
fn checkpoints_in(folder: &Path, progress: &mut Hashing<'_>) -> Result<Vec<open_clip::Checkpoint>, String> {
    let failed = |error: std::io::Error| format!("{}: can't read it: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = std::path::absolute(entry.map_err(failed)?.path()).map_err(failed)?;
        let name = file_name(&path);
        let epoch = name.strip_prefix("epoch_").and_then(|rest| rest.strip_suffix(".pt"));
        let Some(epoch) = epoch.and_then(|epoch| epoch.parse().ok()) else { continue };
        let weights = weights_of(Path::new(""), &path, &mut |done, total| progress(&name, done, total));
        let sha256 = weights.map_err(|error| format!("{}: can't read it: {error}", path.display()))?.sha256;
        found.push(open_clip::Checkpoint { epoch, path: path.display().to_string(), sha256 });
    }
    found.sort_by_key(|checkpoint| checkpoint.epoch);
    Ok(found)
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::bad_input(format!("can't read the folder {}", folder.display())).because(&error)
    };
    let list = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = list.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Those of the named files that are in a folder.
fn named_files(folder: &Path, names: &[&str]) -> Result<Vec<SourceFile>, Failure> {
    if !folder.is_dir() {
        return Err(Failure::bad_input(format!("{} is not a folder", folder.display())));
    }
    names
        .iter()
        .map(|name| (*name, folder.join(name)))
        .filter(|(_, path)| path.exists())
        .map(|(name, path)| read_file(&path, name))
        .collect()
}

fn read_file(path: &Path, name: &str) -> Result<SourceFile, Failure> {
    let failed = |error| Failure::bad_input(format!("can't read {}", path.display())).because(&error);
    Ok(SourceFile { name: name.to_owned(), bytes: std::fs::read(path).map_err(failed)? })
}
