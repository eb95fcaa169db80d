//! Weights that jobs start from, as they lie on disk: which file of a folder, its sha256, and what the heading of a
//! safetensors file says of the model. Hashes of large files are remembered, by size, times and place on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::{ModelConfig, Preprocess, WEIGHT_FILES, Weights};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pool::Stat;
use super::preprocess::{self, recipe_keys};
use super::{Inputs, OPEN_CLIP_CONFIG};
use crate::spec::{Cell, Place, Problem, Spec, cells, recipe_place};

/// Where hashes are remembered.
const REMEMBERED: &str = ".sweep/weights";
/// Smaller files are hashed each time.
const REMEMBERED_BYTES: u64 = 64 << 20;
/// Largest heading of a safetensors file.
const HEADING_MAX: u64 = 100_000_000;

/// Told while a file is hashed: bytes that are done, and of all.
pub(super) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Weights on disk.
#[derive(Debug, Clone)]
pub struct WeightsInfo {
    /// The file as a job names it, and its digest.
    pub weights: Weights,
    /// Shapes by name, where the file is a safetensors file.
    pub shapes: Option<BTreeMap<String, Vec<u64>>>,
    /// How images were made ready for them, where an `open_clip_config.json` beside them says so.
    pub preprocess: Option<Preprocess>,
}

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub(super) enum WeightsError {
    /// Can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without any.
    #[error("{} holds none of {}", .0.display(), WEIGHT_FILES.join(", "))]
    Folder(PathBuf),
    /// Made ready in a way that is not built.
    #[error("{0}")]
    Preprocess(String),
    /// Not in the form it should have.
    #[error("{} is no safetensors file: {reason}", path.display())]
    Heading {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The file that `written` names, itself or inside a folder: as a path to write, for people and jobs.
pub fn file_of(base_dir: &Path, written: &Path) -> Option<PathBuf> {
    if !base_dir.join(written).is_dir() {
        return Some(written.to_owned());
    }
    let found = WEIGHT_FILES.iter().find(|name| base_dir.join(written).join(name).is_file());
    found.map(|name| written.join(name))
}

/// Looks at the weights in `base_dir/written`.
pub(super) fn read(base_dir: &Path, written: &str, progress: Progress) -> Result<WeightsInfo, WeightsError> {
    let path = file_of(base_dir, Path::new(written)).ok_or_else(|| WeightsError::Folder(base_dir.join(written)))?;
    let file = base_dir.join(&path);
    let read_error = |source| WeightsError::Read { path: file.clone(), source };
    let sha256 = digest(&file, &base_dir.join(REMEMBERED), progress).map_err(read_error)?;
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    let shapes = if is_safetensors { Some(shapes(&file)?) } else { None };
    let preprocess = preprocess_of(&file.with_file_name(OPEN_CLIP_CONFIG)).map_err(WeightsError::Preprocess)?;
    Ok(WeightsInfo { weights: Weights { path, sha256 }, shapes, preprocess })
}

/// A file of weights and its sha256.
pub fn weights_of(base_dir: &Path, file: &Path, progress: &mut dyn FnMut(u64, u64)) -> io::Result<Weights> {
    let sha256 = digest(&base_dir.join(file), &base_dir.join(REMEMBERED), progress)?;
    Ok(Weights { path: file.to_owned(), sha256 })
}

/// A hash, and of which file.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    stat: Stat,
    sha256: String,
}

fn digest(path: &Path, remembered: &Path, progress: Progress) -> io::Result<String> {
    let mut file = File::open(path)?;
    let stat = Stat::of(&file.metadata()?);
    if stat.size() < REMEMBERED_BYTES {
        return hashed(&mut file, stat.size(), progress);
    }
    let absolute = std::path::absolute(path)?;
    let name = format!("{:x}", Sha256::digest(absolute.as_os_str().as_encoded_bytes()));
    let note = remembered.join(format!("{}.json", &name[..16]));
    let known: Option<Remembered> = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(known) = known.filter(|known| known.path == absolute && known.stat == stat) {
        return Ok(known.sha256);
    }
    let begun = SystemTime::now();
    let sha256 = hashed(&mut file, stat.size(), progress)?;
    if stat.is_settled(begun) && Stat::of(&file.metadata()?) == stat {
        let note_of = Remembered { path: absolute, stat, sha256: sha256.clone() };
        // Not to remember costs time, nothing else.
        let _ = remember(&note, &note_of);
    }
    Ok(sha256)
}

fn remember(note: &Path, remembered: &Remembered) -> io::Result<()> {
    let folder = note.parent().unwrap_or(note);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, remembered)?;
    file.as_file().sync_all()?;
    file.persist(note).map(drop).map_err(|error| error.error)
}

fn hashed(file: &mut File, size: u64, progress: Progress) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    progress(0, size);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                done += count as u64;
                progress(done.min(size.saturating_sub(1)), size);
            }
        }
    }
    progress(size, size);
    Ok(format!("{:x}", hasher.finalize()))
}

#[derive(Deserialize)]
struct Entry {
    shape: Vec<u64>,
}

/// Shapes by name, from the heading of a safetensors file.
fn shapes(path: &Path) -> Result<BTreeMap<String, Vec<u64>>, WeightsError> {
    let wrong = |reason: &str| WeightsError::Heading { path: path.to_owned(), reason: reason.to_owned() };
    let mut file = File::open(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("it is too short"))?;
    let length = u64::from_le_bytes(length);
    if length > HEADING_MAX {
        return Err(wrong("its heading is too long"));
    }
    let mut heading = Vec::new();
    file.take(length).read_to_end(&mut heading).map_err(|error| wrong(&error.to_string()))?;
    let mut entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&heading).map_err(|_| wrong("its heading is no JSON"))?;
    entries.remove("__metadata__");
    let shape = |(name, entry)| Some((name, Entry::deserialize(entry).ok()?.shape));
    entries.into_iter().map(shape).collect::<Option<_>>().ok_or_else(|| wrong("a tensor has no shape"))
}

/// The preprocessing that `file` speaks of; `None` where there is no such file, or it speaks of none.
pub fn preprocess_of(file: &Path) -> Result<Option<Preprocess>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        // Nothing of the name, or no folder to look in.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("can't read {}: {error}", file.display())),
    };
    preprocess::parse(&text).map_err(|reason| format!("{}: {reason}", file.display()))
}

/// Why a cell can't start from these weights: they are another model's, or of one that sees images otherwise.
pub(super) fn problem(spec: &Spec, cell: &Cell, config: &ModelConfig, init: &WeightsInfo) -> Option<Problem> {
    let place = || Place::Value(recipe_place(spec, cell, "init"));
    let file = init.weights.path.display();
    if let Some(misfit) = init.shapes.as_ref().and_then(|shapes| misfit(shapes, config)) {
        let message = format!("{file} has not the weights of `{}`: {misfit}", cell.model);
        let problem = Problem::new(place(), message, "weights of this model, and of its input sizes");
        return Some(problem.help("sizes of images and captions: `recipe.image_size`, `recipe.context_length`"));
    }
    let theirs = init.preprocess.as_ref().filter(|theirs| **theirs != cell.recipe.preprocess)?;
    if spec.states_preprocess() {
        return None;
    }
    let message = format!("the model of {file} sees images otherwise than the recipe says");
    let problem = Problem::new(place(), message, "trained with another preprocessing");
    Some(problem.help(format!("as it was: `{}`; or write what you want of these", recipe_keys(theirs))))
}

/// The first tensor whose shape is not the model's. Names are open_clip's; those that are not there are the runner's to
/// miss.
fn misfit(shapes: &BTreeMap<String, Vec<u64>>, config: &ModelConfig) -> Option<String> {
    let ModelConfig { embed_dim, vision_cfg: vision, text_cfg: text, .. } = config;
    // Attentional pooling ends in the width of the embedding.
    let pooled = if vision.attentional_pool { *embed_dim } else { vision.width };
    let patches = (vision.image_size / vision.patch_size).pow(2);
    let expected: [(&str, &[u64]); 6] = [
        ("visual.conv1.weight", &[vision.width, 3, vision.patch_size, vision.patch_size]),
        ("visual.positional_embedding", &[patches + 1, vision.width]),
        ("visual.proj", &[pooled, *embed_dim]),
        ("token_embedding.weight", &[text.vocab_size, text.width]),
        ("positional_embedding", &[text.context_length, text.width]),
        ("text_projection", &[text.width, *embed_dim]),
    ];
    let other = expected.into_iter().find_map(|(name, expected)| {
        let found = shapes.get(name).or_else(|| shapes.get(&format!("module.{name}")))?;
        (found != expected).then_some((name, found, expected))
    });
    let (name, found, expected) = other?;
    Some(format!("`{name}` is {found:?} in the file, {expected:?} in the model"))
}

/// Weights to start from, for a runner that takes none.
pub(super) fn none_taken(spec: &Spec, inputs: &Inputs) -> Option<Problem> {
    if inputs.runner.init || !spec.names_weights() {
        return None;
    }
    let cell = cells(spec).into_iter().find(|cell| cell.recipe.init.is_some())?;
    let place = recipe_place(spec, &cell, "init");
    let message = format!("`{place}` names weights, but runner `{}` starts from random ones", inputs.runner.name);
    let problem = Problem::new(Place::Value(place), message, "not with this runner");
    Some(problem.help("a runner that takes weights says `\"init\": true` in `describe`: runners/protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(entries: &str) -> Vec<u8> {
        [&(entries.len() as u64).to_le_bytes()[..], entries.as_bytes()].concat()
    }

    #[test]
    fn a_folder_has_the_file_that_open_clip_takes() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path(), ".", &mut |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("holds none of open_clip_model.safetensors"), "{error}");
        fs::write(dir.path().join("model.safetensors"), heading(r#"{"a": {"shape": [2]}}"#)).unwrap();
        fs::write(dir.path().join("open_clip_pytorch_model.bin"), "PK").unwrap();
        let found = read(dir.path(), ".", &mut |_, _| ()).unwrap();
        assert_eq!(found.weights.path, Path::new("./open_clip_pytorch_model.bin"));
        assert_eq!(found.weights.sha256, format!("{:x}", Sha256::digest("PK")));
        let found = read(dir.path(), "model.safetensors", &mut |_, _| ()).unwrap();
        assert_eq!(found.shapes, Some([("a".to_owned(), vec![2])].into()));
        fs::write(dir.path().join("model.safetensors"), heading("PK")).unwrap();
        assert!(read(dir.path(), "model.safetensors", &mut |_, _| ()).is_err());
    }

    #[test]
    fn where_no_configuration_lies_none_is_read() {
        assert_eq!(preprocess_of(Path::new("/nowhere/open_clip_config.json")), Ok(None));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(preprocess_of(&file.path().join("open_clip_config.json")), Ok(None), "a file is no folder");
    }

    #[test]
    fn a_large_file_is_hashed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.pt");
        let file = File::create(&path).unwrap();
        file.set_len(REMEMBERED_BYTES).unwrap();
        // As if it had been written long ago: its time of change can't be set.
        let stat = Stat::of(&file.metadata().unwrap());
        let mut told = 0;
        let hashed = digest(&path, dir.path(), &mut |_, _| told += 1).unwrap();
        assert!(told > 0);
        let name = format!("{:x}", Sha256::digest(path.as_os_str().as_encoded_bytes()));
        let note = dir.path().join(format!("{}.json", &name[..16]));
        remember(&note, &Remembered { path: path.clone(), stat, sha256: hashed.clone() }).unwrap();
        let again = digest(&path, dir.path(), &mut |_, _| panic!("it is hashed again")).unwrap();
        assert_eq!(again, hashed);
        // Another size is another file.
        file.set_len(REMEMBERED_BYTES + 1).unwrap();
        assert_ne!(digest(&path, dir.path(), &mut |_, _| ()).unwrap(), hashed);
    }
}
