//! Checkpoints: weights and optimiser state in safetensors with a manifest that hashes them.
//!
//! A checkpoint is a folder `samples-<N>-fence-<F>`, written under a temporary name, flushed to disk and renamed, so
//! that a folder of that name is complete or damaged later, never half written. Order and augmentation of the data are
//! functions of seed and samples seen, so nothing else needs to be kept for an exact resume. With
//! `open_clip_config.json` beside the weights it is also a folder that open_clip loads ([`crate::open_clip`]).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use protocol::{Job, Keep, ModelConfig, ParentCheckpoint, Preprocess};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::model::Clip;
use crate::open_clip;
use crate::optimizer::AdamW;
use crate::parameters::Parameters;
use crate::report;
use crate::spikes::{self, History, Spikes};

pub(crate) const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const MANIFEST_FILE: &str = "manifest.json";

/// Checkpoints kept where the job says nothing of it: the newest, and one to fall back to.
const KEPT: usize = 2;

/// Why a checkpoint can't be written, or why one can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A system call failed.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is no manifest.
    #[error("`{}` is not a checkpoint's manifest", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What serde said.
        source: serde_json::Error,
    },
    /// The content is not what the manifest says.
    #[error("`{}` is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        reason: String,
    },
    /// Safetensors refused.
    #[error("cannot encode `{}`", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: safetensors::SafeTensorError,
    },
}

/// `manifest.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's form: 1.
    pub schema: u32,
    /// The job whose checkpoint it is.
    pub job_key: String,
    /// Fence of the attempt that wrote it.
    pub fence: i64,
    /// Optimiser steps taken.
    pub step: u64,
    /// Samples seen: the place in the data's order.
    pub samples_seen: u64,
    /// Evaluations due at or before this many samples are done and reported.
    pub evaluated_samples: Option<u64>,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Losses of the steps since the last report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<f64>,
    /// The last losses, and the spikes among them.
    #[serde(default, skip_serializing_if = "Spikes::is_empty")]
    pub spikes: Spikes,
    /// How often training went back after one.
    #[serde(default, skip_serializing_if = "spikes::is_zero")]
    pub rollbacks: u64,
    /// Samples that were passed over then.
    #[serde(default, skip_serializing_if = "spikes::is_zero")]
    pub skipped_samples: u64,
    /// The other files.
    pub files: Vec<FileEntry>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name inside the folder.
    pub name: String,
    /// Length, bytes.
    pub bytes: u64,
    /// sha256, 64 hex digits.
    pub sha256: String,
}

/// Where a job's checkpoints are, and on whose behalf they are written.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    job_key: String,
    fence: i64,
    seed: u64,
    model: ModelConfig,
    preprocess: Preprocess,
    /// Files of its tokenizer, if it has any, for open_clip.
    tokenizer: Vec<(String, Vec<u8>)>,
    /// Good checkpoints to keep; `None`: all that there are.
    kept: Option<usize>,
    /// Checkpoints known to be good, oldest first.
    good: Vec<PathBuf>,
}

/// What a checkpoint says of the training it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Optimiser steps taken.
    pub step: u64,
    /// Samples seen.
    pub samples_seen: u64,
    /// Evaluations due at or before this many samples are done.
    pub evaluated_samples: Option<u64>,
}

/// What a checkpoint has to be.
#[derive(Debug, Clone, Copy)]
enum Expected<'a> {
    /// This job's, after so many samples.
    Own(u64),
    /// Another job's, known by its hash.
    Parent(&'a ParentCheckpoint),
}

impl Folder {
    /// The checkpoints of a job, as seen by the attempt with that fence.
    pub fn open(dir: &Path, job: &Job, tokenizer: Vec<(String, Vec<u8>)>) -> Result<Folder, CheckpointError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        Ok(Folder {
            dir: dir.to_owned(),
            job_key: job.job_key.clone(),
            fence: job.fence,
            seed: job.spec.seed,
            model: job.spec.model.config.clone(),
            preprocess: job.spec.recipe.preprocess,
            tokenizer,
            kept: match job.spec.recipe.keep_checkpoints {
                None => Some(KEPT),
                Some(Keep::Newest(count)) => Some(usize::try_from(count.get()).unwrap_or(usize::MAX)),
                Some(Keep::All(_)) => None,
            },
            good: Vec::new(),
        })
    }

    /// Writes a checkpoint, with the optimiser's moments, and drops all but the newest good ones, unless all are to be
    /// kept. Returns its folder and the sha256 of its manifest.
    pub fn write(
        &mut self,
        model: &Clip,
        [first, second]: [&Tensor; 2],
        position: Position,
        history: &History,
    ) -> Result<(PathBuf, String), CheckpointError> {
        let path = self.dir.join(format!("samples-{}-fence-{}", position.samples_seen, self.fence));
        let moments = [("exp_avg", first), ("exp_avg_sq", second)];
        let sha256 = write_folder(&path, |folder| {
            let mut files = write_model(folder, &path, model, (&self.model, &self.preprocess), &self.tokenizer)?;
            files.push(write_tensors(folder, OPTIMIZER_FILE, &model.parameters, &moments)?);
            let manifest = Manifest {
                schema: 1,
                job_key: self.job_key.clone(),
                fence: self.fence,
                step: position.step,
                samples_seen: position.samples_seen,
                evaluated_samples: position.evaluated_samples,
                seed: self.seed,
                losses: history.losses.clone(),
                spikes: history.spikes.clone(),
                rollbacks: history.rollbacks,
                skipped_samples: history.skipped_samples,
                files,
            };
            let manifest_path = folder.join(MANIFEST_FILE);
            let text = serde_json::to_vec_pretty(&manifest)
                .map_err(|source| CheckpointError::Manifest { path: manifest_path.clone(), source })?;
            write_flushed(&manifest_path, &text)?;
            // Only a damaged checkpoint of this very attempt can stand there.
            remove_if_there(&path)?;
            Ok::<_, CheckpointError>(hex(&Sha256::digest(&text)))
        })?;
        self.good.retain(|good| *good != path);
        self.good.push(path.clone());
        self.drop_old()?;
        Ok((path, sha256))
    }

    /// Brings model and optimiser to the newest checkpoint that verifies and whose fence is not above this attempt's.
    /// `None`: there is none, training starts afresh. Damaged ones are passed over and told on standard error.
    /// Gives where it was taken, and what it keeps of the steps before.
    pub fn resume(
        &mut self,
        model: &mut Clip,
        optimizer: &mut AdamW,
    ) -> Result<Option<(Position, History)>, CheckpointError> {
        for (samples, fence, path) in self.list()?.into_iter().rev() {
            if fence > self.fence {
                report::say(format_args!(
                    "passing over checkpoint {}: its fence is above {}",
                    path.display(),
                    self.fence
                ));
                continue;
            }
            match unless_unusable(self.load(&path, Expected::Own(samples), model, optimizer))? {
                Ok(found) => {
                    self.good = vec![path];
                    return Ok(Some(found));
                }
                Err(reason) => report::say(format_args!("passing over checkpoint: {reason}")),
            }
        }
        Ok(None)
    }

    /// Brings model and optimiser to where another job left them. `None`, and words on standard error: its checkpoint
    /// is gone or damaged, and training starts afresh. Neither evaluations nor losses to be reported are this one's.
    pub fn branch(
        &self,
        parent: &ParentCheckpoint,
        base_dir: &Path,
        model: &mut Clip,
        optimizer: &mut AdamW,
    ) -> Result<Option<(Position, History)>, CheckpointError> {
        let path = base_dir.join(&parent.path);
        match unless_unusable(self.load(&path, Expected::Parent(parent), model, optimizer))? {
            Ok((position, history)) => {
                // What is planned here is this job's to measure.
                let evaluated_samples = Some(position.samples_seen.saturating_sub(1));
                Ok(Some((Position { evaluated_samples, ..position }, History { losses: Vec::new(), ..history })))
            }
            Err(reason) => {
                report::say(format_args!(
                    "starting from the beginning: the parent's checkpoint can't be used: {reason}"
                ));
                Ok(None)
            }
        }
    }

    /// Checkpoints by samples seen, then fence.
    fn list(&self) -> Result<Vec<(u64, i64, PathBuf)>, CheckpointError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let entry = entry.map_err(io_error("list", &self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let parts = name.strip_prefix("samples-").and_then(|rest| rest.split_once("-fence-"));
            if let Some((Ok(samples), Ok(fence))) = parts.map(|(samples, fence)| (samples.parse(), fence.parse())) {
                found.push((samples, fence, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn drop_old(&mut self) -> Result<(), CheckpointError> {
        let Some(kept) = self.kept else { return Ok(()) };
        self.good.drain(..self.good.len().saturating_sub(kept));
        for (_, fence, path) in self.list()? {
            if fence <= self.fence && !self.good.contains(&path) {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    fn load(
        &self,
        path: &Path,
        expected: Expected<'_>,
        model: &mut Clip,
        optimizer: &mut AdamW,
    ) -> Result<(Position, History), CheckpointError> {
        let manifest_path = path.join(MANIFEST_FILE);
        let text = fs::read(&manifest_path).map_err(io_error("read", &manifest_path))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|source| CheckpointError::Manifest { path: manifest_path.clone(), source })?;
        let (samples, is_due) = match expected {
            Expected::Own(samples) => (samples, manifest.job_key == self.job_key),
            Expected::Parent(parent) => (parent.samples_seen, hex(&Sha256::digest(&text)) == parent.sha256),
        };
        if !is_due || (manifest.schema, manifest.seed, manifest.samples_seen) != (1, self.seed, samples) {
            return Err(damaged(&manifest_path, "it is of another job, seed or place than it should be".into()));
        }
        let weights = read_verified(path, MODEL_FILE, &manifest)?;
        let moments = read_verified(path, OPTIMIZER_FILE, &manifest)?;
        // Everything is read and checked before anything is changed.
        let flat = read_tensors(&path.join(MODEL_FILE), &weights, &model.parameters, "")?;
        let first = read_tensors(&path.join(OPTIMIZER_FILE), &moments, &model.parameters, "exp_avg")?;
        let second = read_tensors(&path.join(OPTIMIZER_FILE), &moments, &model.parameters, "exp_avg_sq")?;
        tch::no_grad(|| {
            model.parameters.flat.copy_(&flat);
            optimizer.first.copy_(&first);
            optimizer.second.copy_(&second);
        });
        optimizer.steps = manifest.step;
        let Manifest { step, samples_seen, evaluated_samples, losses, spikes, rollbacks, skipped_samples, .. } =
            manifest;
        let history = History { losses, spikes, rollbacks, skipped_samples };
        Ok((Position { step, samples_seen, evaluated_samples }, history))
    }
}

/// What was loaded, or why a checkpoint that is gone or damaged can't be. Trouble with the disk stays an error: it may
/// pass, and to fall back would drop what is good.
fn unless_unusable<T>(loaded: Result<T, CheckpointError>) -> Result<Result<T, String>, CheckpointError> {
    match loaded {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(CheckpointError::Io { action, path, source }) if source.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::Io { action, path, source })
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            Ok(Err(format!("{error}{}", source.unwrap_or_default())))
        }
    }
}

fn tensor_name(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// A folder that is whole or not there: `write` fills it under a temporary name beside it; it is flushed to disk and
/// renamed.
pub(crate) fn write_folder<T, E: From<CheckpointError>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = parent.join(format!(".{}.tmp", path.file_name().unwrap_or_default().to_string_lossy()));
    remove_if_there(&temporary)?;
    fs::create_dir(&temporary).map_err(io_error("create", &temporary))?;
    let written = write(&temporary)?;
    flush_folder(&temporary)?;
    fs::rename(&temporary, path).map_err(io_error("rename", &temporary))?;
    flush_folder(parent)?;
    Ok(written)
}

/// Writes what open_clip loads, weights first, into a folder that is going to be `path`.
pub(crate) fn write_model(
    folder: &Path,
    path: &Path,
    model: &Clip,
    (config, preprocess): (&ModelConfig, &Preprocess),
    tokenizer: &[(String, Vec<u8>)],
) -> Result<Vec<FileEntry>, CheckpointError> {
    let weights = [("", &model.parameters.flat)];
    let mut files = vec![write_tensors(folder, MODEL_FILE, &model.parameters, &weights)?];
    let absolute = std::path::absolute(path).map_err(io_error("find", path))?;
    for (name, bytes) in open_clip::files(config, preprocess, tokenizer, &absolute) {
        write_flushed(&folder.join(&name), &bytes)?;
        files.push(FileEntry { name, bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)) });
    }
    Ok(files)
}

/// Writes flat buffers as one named tensor a parameter, so that OpenCLIP can read the file. Holds one tensor beside
/// them at a time: a checkpoint needs no more memory than the training that it is of.
fn write_tensors(
    dir: &Path,
    name: &str,
    parameters: &Parameters,
    buffers: &[(&str, &Tensor)],
) -> Result<FileEntry, CheckpointError> {
    let path = dir.join(name);
    let stored = buffers.iter().flat_map(|(prefix, flat)| {
        parameters.stored(flat).map(move |(name, stored)| (tensor_name(prefix, name), stored))
    });
    safetensors::serialize_to_file(stored, None, &path)
        .map_err(|source| CheckpointError::Encode { path: path.clone(), source })?;
    let mut file = File::open(&path).map_err(io_error("read", &path))?;
    let mut sha256 = Sha256::new();
    let bytes = io::copy(&mut file, &mut sha256).map_err(io_error("read", &path))?;
    file.sync_all().map_err(io_error("flush", &path))?;
    Ok(FileEntry { name: name.to_owned(), bytes, sha256: hex(&sha256.finalize()) })
}

/// The weights in a checkpoint's folder, or in any that open_clip loads, as they lie there: checked where there is a
/// manifest.
pub(crate) fn read_weights(dir: &Path) -> Result<Vec<u8>, CheckpointError> {
    let manifest_path = dir.join(MANIFEST_FILE);
    match fs::read(&manifest_path) {
        Ok(text) => {
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|source| CheckpointError::Manifest { path: manifest_path, source })?;
            read_verified(dir, MODEL_FILE, &manifest)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = dir.join(MODEL_FILE);
            fs::read(&path).map_err(io_error("read", &path))
        }
        Err(error) => Err(io_error("read", &manifest_path)(error)),
    }
}

fn read_verified(dir: &Path, name: &str, manifest: &Manifest) -> Result<Vec<u8>, CheckpointError> {
    let path = dir.join(name);
    let entry = manifest.files.iter().find(|file| file.name == name);
    let entry = entry.ok_or_else(|| damaged(&path, "the manifest does not name it".into()))?;
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    let found = hex(&Sha256::digest(&bytes));
    if found != entry.sha256 {
        return Err(damaged(&path, format!("its sha256 is {found}, the manifest says {}", entry.sha256)));
    }
    Ok(bytes)
}

/// Gives a model weights in safetensors' form; `path` is what an error calls them.
pub(crate) fn put_weights(path: &Path, bytes: &[u8], parameters: &mut Parameters) -> Result<(), CheckpointError> {
    let flat = read_tensors(path, bytes, parameters, "")?;
    tch::no_grad(|| parameters.flat.copy_(&flat));
    Ok(())
}

fn read_tensors(path: &Path, bytes: &[u8], parameters: &Parameters, prefix: &str) -> Result<Tensor, CheckpointError> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(path, error.to_string()))?;
    let mut flat = vec![0; 4 * parameters.flat.numel()];
    for parameter in &parameters.list {
        let name = tensor_name(prefix, &parameter.name);
        let view = tensors.tensor(&name).map_err(|error| damaged(path, error.to_string()))?;
        let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
        if view.dtype() != Dtype::F32 || shape != parameter.shape {
            return Err(damaged(path, format!("`{name}` is {shape:?}, the model has {:?}", parameter.shape)));
        }
        flat[4 * parameter.offset..4 * (parameter.offset + parameter.numel)].copy_from_slice(view.data());
    }
    Ok(Tensor::from_data_size(&flat, &parameters.flat.size(), Kind::Float))
}

pub(crate) fn write_flushed(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("flush", path))
}

fn flush_folder(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error("flush", path))
}

fn remove_if_there(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}
