//! `sweep checkpoint`: the checkpoints of a job, and one of them as a folder of its own, for other programs.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::output::{Exit, Failure, data, json, say};
use super::target;
use crate::store::CheckpointRow;

/// What the files of a checkpoint are, of a runner that writes it: "Checkpoints" in `runners/protocol/README.md`.
const MANIFEST: &str = "manifest.json";
/// Model and preprocessing, where the runner writes folders for open_clip.
const OPEN_CLIP: &str = "open_clip_config.json";

/// Options of `sweep checkpoint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checkpoints of clip-runner are folders that open_clip loads:

  sweep checkpoint 3fa8 --to model
  python -c \"import open_clip; print(open_clip.create_model_and_transforms('local-dir:model'))\"")]
pub(super) struct Args {
    /// First digits of the job's key.
    job: String,
    /// Copy a checkpoint to this new folder, checked by its hashes; without it, checkpoints are listed.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The one at so many samples seen; without it, the newest.
    #[arg(long, value_name = "SAMPLES", requires = "to")]
    at: Option<i64>,
    /// Copy the optimiser's state too.
    #[arg(long, requires = "to")]
    optimizer: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A checkpoint as it is listed.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    row: &'a CheckpointRow,
    /// Whether it is there still, with a manifest: runners drop old ones.
    kept: bool,
}

/// The part of a checkpoint's manifest that all runners share.
#[derive(Debug, Deserialize)]
struct Manifest {
    files: Vec<FileEntry>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) sha256: String,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let job = target::job(&store, &args.job).await?;
    let rows = store.checkpoint_list(&job.job_key).await?;
    let short = &job.job_key[..12];
    let listed: Vec<Listed> =
        rows.iter().map(|row| Listed { row, kept: Path::new(&row.path).join(MANIFEST).is_file() }).collect();
    let Some(to) = &args.to else {
        if args.json {
            json("sweep.checkpoints/1", &serde_json::json!({ "job_key": job.job_key, "checkpoints": listed }));
        } else {
            list(short, &listed);
        }
        return Ok(Exit::Done);
    };
    let kept: Vec<&CheckpointRow> = listed.iter().filter(|one| one.kept).map(|one| one.row).collect();
    let places = || {
        let places: Vec<String> = kept.iter().map(|row| row.samples_seen.to_string()).collect();
        if places.is_empty() {
            "none is kept with a manifest".to_owned()
        } else {
            format!("kept are those at {}", places.join(", "))
        }
    };
    let found = kept.iter().rev().find(|row| args.at.is_none_or(|at| at == row.samples_seen));
    let Some(row) = found else {
        let which = args.at.map_or("no checkpoint".to_owned(), |at| format!("no checkpoint at {at} samples"));
        return Err(Failure::bad_input(format!("job {short} has {which}")).hint(places()));
    };
    let bytes = copy(row, to, args.optimizer)?;
    if args.json {
        json("sweep.checkpoint/1", &serde_json::json!({ "job_key": job.job_key, "checkpoint": row, "to": to }));
    } else {
        let (size, at) = (bytes as f64 / 1e6, row.samples_seen);
        data(&format!("{}: {size:.1} MB, job {short} at {at} samples", to.display()));
    }
    if to.join(OPEN_CLIP).is_file() {
        say(&format!("hint: open_clip.create_model_and_transforms('local-dir:{}')", to.display()));
    }
    Ok(Exit::Done)
}

fn list(job: &str, listed: &[Listed]) {
    if listed.is_empty() {
        say(&format!("job {job} has reported no checkpoint"));
    }
    for Listed { row, kept } in listed {
        let gone = match kept {
            true => "",
            false if Path::new(&row.path).exists() => "  (no manifest.json: `--to` can't copy it)",
            false => "  (dropped)",
        };
        data(&format!(
            "{:>12} samples  step {:>8}  sha256 {}  {}{gone}",
            row.samples_seen, row.step, &row.sha256, row.path
        ));
    }
}

/// Copies what the manifest names, each file checked, under a temporary name; gives the bytes written.
fn copy(row: &CheckpointRow, to: &Path, with_optimizer: bool) -> Result<u64, Failure> {
    if to.exists() {
        return Err(Failure::bad_input(format!("{} is there already", to.display())).hint("give a new folder"));
    }
    let from = Path::new(&row.path);
    let files = listed_files(from, &row.sha256)?;
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = to.with_file_name(format!(".{name}.tmp"));
    let written =
        |error: std::io::Error| Failure::environment(format!("can't write {}", temporary.display())).because(&error);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(written)?;
    }
    fs::create_dir_all(&temporary).map_err(written)?;
    let mut length = 0;
    for file in files.iter().filter(|file| with_optimizer || !file.name.starts_with("optimizer")) {
        if Path::new(&file.name).file_name() != Some(file.name.as_ref()) {
            let manifest = from.join(MANIFEST);
            let message = format!("{} lists `{}`, no file beside it", manifest.display(), file.name);
            return Err(Failure::environment(message));
        }
        let path = from.join(&file.name);
        let mut bytes = read(&path)?;
        let found = sha256(&bytes);
        if found != file.sha256 {
            return Err(damaged(&path, &found));
        }
        if file.name == OPEN_CLIP {
            bytes = moved(&bytes, to).unwrap_or(bytes);
        }
        length += bytes.len() as u64;
        write(&temporary.join(&file.name), &bytes).map_err(written)?;
    }
    fs::rename(&temporary, to).map_err(written)?;
    Ok(length)
}

/// The files of a checkpoint by its manifest, whose sha256 has to be that which was reported.
pub(super) fn listed_files(folder: &Path, sha256_reported: &str) -> Result<Vec<FileEntry>, Failure> {
    let manifest = folder.join(MANIFEST);
    let text = read(&manifest)?;
    let found = sha256(&text);
    if found != sha256_reported {
        return Err(damaged(&manifest, &found));
    }
    let parsed: Manifest = serde_json::from_slice(&text).map_err(|error| {
        Failure::environment(format!("{} does not list its files as `files`", manifest.display())).because(&error)
    })?;
    Ok(parsed.files)
}

fn damaged(file: &Path, found: &str) -> Failure {
    Failure::environment(format!("{} is damaged: its sha256 is {found}", file.display()))
        .hint("another checkpoint of the job may be whole: `--at SAMPLES`")
}

/// open_clip's configuration for a folder at `to`: the path of a vocabulary in it is absolute.
fn moved(config: &[u8], to: &Path) -> Option<Vec<u8>> {
    let mut config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let path = config.pointer_mut("/model_cfg/text_cfg/tokenizer_kwargs/bpe_path")?;
    let name = Path::new(path.as_str()?).file_name()?.to_owned();
    *path = serde_json::json!(std::path::absolute(to).ok()?.join(name));
    serde_json::to_vec_pretty(&config).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::environment(format!("can't read {}", path.display())).because(&error))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
