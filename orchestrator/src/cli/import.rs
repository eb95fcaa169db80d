//! `sweep import`: results that others published, as a sweep of its own.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{Exit, Failure, data, json, say};
use crate::import::{ReadError, SourceFile, openclip_2022};
use crate::store::Store;
use crate::store::import::{ImportError, Imported, ImportedCounts};

/// Options of `sweep import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    source: Source,
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
        #[arg(long, default_value = "openclip-2022")]
        name: String,
    },
}

#[derive(Serialize)]
struct ImportJson<'a> {
    sweeps: &'a [ImportedCounts],
    warnings: &'a [String],
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let imported = match &args.source {
        Source::Openclip2022 { dir, name } => {
            let files = named_files(dir, &openclip_2022::FILES)?;
            openclip_2022::read(name, &dir.display().to_string(), &files)
        }
    };
    store(imported.map_err(unreadable)?, args.json).await
}

/// Stores what was read, and says what that changed.
async fn store(imported: Imported, as_json: bool) -> Result<Exit, Failure> {
    let store = Store::connect().await?;
    let counts = store.import_studies(&imported.studies).await.map_err(refused)?;
    for warning in imported.warnings.iter().chain(counts.iter().flat_map(|counts| &counts.differing)) {
        say(&format!("warning: {warning}"));
    }
    if as_json {
        json("sweep.import/1", &ImportJson { sweeps: &counts, warnings: &imported.warnings });
        return Ok(Exit::Done);
    }
    for (counts, study) in counts.iter().zip(&imported.studies) {
        data(&summary(counts));
        let finals = || study.jobs.iter().flat_map(|job| &job.evaluations).filter(|row| row.samples_seen.is_none());
        let usual = finals().find(|row| row.dataset == "imagenet1k" && row.metric.contains("acc1"));
        if let Some(row) = usual.or_else(|| finals().next()) {
            say(&format!("hint: sweep fit {} --metric {}/{}", counts.sweep, row.dataset, row.metric));
        }
    }
    Ok(Exit::Done)
}

fn summary(counts: &ImportedCounts) -> String {
    let of = |new: u64, all: u64| match new {
        0 => "unchanged".to_owned(),
        new if new == all => "new".to_owned(),
        new => format!("{new} new, {} unchanged", all - new),
    };
    format!(
        "{}: {} jobs ({}), {} evaluations ({})",
        counts.sweep,
        counts.jobs,
        of(counts.jobs_new, counts.jobs),
        counts.evaluations,
        of(counts.evaluations_new, counts.evaluations)
    )
}

fn refused(error: ImportError) -> Failure {
    match error {
        ImportError::Store(error) => error.into(),
        ImportError::Launched(_) => Failure::bad_input(error.to_string()).hint("choose another name: `--name NAME`"),
        ImportError::BuiltIn(_) => Failure::bad_input(error.to_string()).hint("give yours another name"),
    }
}

fn unreadable(error: ReadError) -> Failure {
    if let ReadError::Nothing { warnings, .. } = &error {
        for warning in warnings {
            say(&format!("warning: {warning}"));
        }
    }
    Failure::bad_input(error.to_string()).because(&error)
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
