//! What a plan needs from outside: the one module here that reads files and starts the runner's `describe`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use protocol::{Description, ModelConfig, TextConfig};
use sha2::{Digest, Sha256};

use super::expand::{Inputs, plan};
use super::model_file::{self, FormError};
use super::{Plan, Site, machine, pool, runner, runner::RunnerError, slurm_options, weights};
use crate::spec::{self, Backend, Place, Problem, Source, Spec, SpecError};

/// Why a spec can't be planned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read spec {}", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no text.
    #[error("spec {} is not UTF-8 text: byte {} can't be read", path.display(), valid + 1)]
    Encoding {
        /// As given.
        path: PathBuf,
        /// Bytes that are fine.
        valid: usize,
    },
    /// Mistakes in it, or in what it names.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Spec(#[from] SpecError),
    /// The runner can't be used.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// No folder to start from.
    #[error("can't tell the current folder")]
    CurrentDir(#[source] io::Error),
}

/// A measured speed.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Runner's name.
    pub runner: String,
    /// Model's name.
    pub model: String,
    /// As the runner reported it: `cpu`, or the GPU's name.
    pub device: String,
    /// Threads of the slot, where the runner was given a number.
    pub threads: Option<usize>,
    /// Seconds of training per sample seen, on one slot.
    pub secs_per_sample: f64,
    /// Attempts that it is measured over.
    pub attempts: i64,
}

/// Where jobs are to run, whatever the spec says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// The backend in place of the spec's; options that the spec has for it stay.
    pub backend: Option<Backend>,
    /// The site's profile, for Slurm.
    pub site: Option<Site>,
    /// Whether jobs may run on another machine, so that this one's memory limits nothing.
    pub elsewhere: bool,
    /// Plan without the runner, which may not be there yet: it is taken to be able to do all, and jobs have other keys
    /// than they will have.
    pub runner_unasked: bool,
}

impl Placement {
    fn backend(&self, of_spec: Backend) -> Backend {
        match (&self.backend, of_spec) {
            (Some(asked @ Backend::Local { .. }), Backend::Slurm(_))
            | (Some(asked @ Backend::Slurm(_)), Backend::Local { .. }) => asked.clone(),
            (_, spec) => spec,
        }
    }
}

/// Told while a pool is hashed: as the spec calls it, bytes of shards that are done, and of all to be hashed.
pub type Hashing<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// Plans a spec that has been read, in the current folder.
pub fn load_spec(
    spec: Spec,
    measured: &[Measured],
    placement: &Placement,
    hashing: Hashing,
) -> Result<Plan, LoadError> {
    let (spec, inputs) = gathered(spec, measured, placement, hashing)?;
    Ok(plan(&spec, &inputs)?)
}

/// What a spec that has been read is planned from, in the current folder: itself with its placement, and the inputs.
pub fn gathered(
    mut spec: Spec,
    measured: &[Measured],
    placement: &Placement,
    hashing: Hashing,
) -> Result<(Spec, Inputs), LoadError> {
    let mut inputs = look(&mut spec, placement, hashing)?;
    inputs.secs_per_sample = speeds(&spec, &inputs, measured);
    Ok((spec, inputs))
}

/// Takes a placement over and looks for all that a spec names, from the current folder.
pub fn look(spec: &mut Spec, placement: &Placement, hashing: Hashing) -> Result<Inputs, LoadError> {
    spec.backend = placement.backend(spec.backend.clone());
    let base_dir = std::env::current_dir().map_err(LoadError::CurrentDir)?;
    let mut inputs = if placement.runner_unasked {
        gather_by(spec, &base_dir, hashing, |name, _| Ok(runner::unasked(name)))?
    } else {
        gather(spec, &base_dir, hashing)?
    };
    inputs.site.clone_from(&placement.site);
    inputs.memory = if placement.elsewhere { None } else { machine::memory(spec, &inputs) };
    Ok(inputs)
}

/// Reads and checks a spec.
pub fn read_spec(path: &Path) -> Result<Spec, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|error| LoadError::Encoding { path: path.to_owned(), valid: error.utf8_error().valid_up_to() })?;
    Ok(spec::parse(&Source::new(&path.display().to_string(), &text))?)
}

/// Looks for all that a spec names.
pub fn gather(spec: &Spec, base_dir: &Path, hashing: Hashing) -> Result<Inputs, LoadError> {
    gather_by(spec, base_dir, hashing, runner::ask)
}

fn gather_by(
    spec: &Spec,
    base_dir: &Path,
    hashing: Hashing,
    ask: impl Fn(&str, &Path) -> Result<(PathBuf, Description), RunnerError>,
) -> Result<Inputs, LoadError> {
    let (runner_path, runner) = ask(&spec.runner, base_dir)?;
    let of_companions = spec.companions.runner.as_ref().filter(|_| spec.measures_every_checkpoint());
    let companion_runner = of_companions.map(|name| Ok::<_, RunnerError>(ask(name, base_dir)?.1)).transpose()?;
    let mut problems = Vec::new();

    let mut pools = BTreeMap::new();
    if runner.reads_data {
        let training = spec.data.iter().map(|data| (spec::Path::keys(&["data", "pool"]), &data.pool));
        let measured = spec.evaluations.iter().enumerate().flat_map(|(index, evaluation)| {
            let place = move |key| spec::Path::keys(&["evaluations"]).index(index).key(key);
            evaluation.pools().map(move |(key, written)| (place(key), written))
        });
        for (place, written) in training.chain(measured) {
            match pool::read(base_dir, written, &mut |done, total| hashing(written, done, total)) {
                Ok(pool) => {
                    pools.insert(written.clone(), pool);
                }
                Err(error) => {
                    let message = format!("`{place}` is no pool: {error}");
                    problems.push(
                        Problem::new(Place::Value(place), message, "allowed: a folder of shards").help(error.hint()),
                    );
                }
            }
        }
    }

    let mut weights = BTreeMap::new();
    let cells = if spec.names_weights() { spec::cells(spec) } else { Vec::new() };
    for cell in cells {
        let Some(written) = cell.recipe.init.as_ref().filter(|init| !weights.contains_key(*init)) else { continue };
        match weights::read(base_dir, written, &mut |done, total| hashing(written, done, total)) {
            Ok(found) => drop(weights.insert(written.clone(), found)),
            Err(error) => {
                let place = spec::recipe_place(spec, &cell, "init");
                let message = format!("`{place}` are no weights: {error}");
                let label = "allowed: a file of weights, or a folder with one";
                let problem = Problem::new(Place::Value(place), message, label);
                problems.push(problem.help("relative paths start where `sweep` is called"));
                break;
            }
        }
    }

    let mut model_files = BTreeMap::new();
    let included =
        spec.include.iter().enumerate().map(|(index, axes)| (spec::Path::keys(&["include"]).index(index), axes));
    for (place, axes) in std::iter::once((spec::Path::keys(&["grid"]), &spec.grid)).chain(included) {
        for (index, name) in axes.model.iter().enumerate().filter(|(_, name)| spec::is_model_file(name)) {
            match model_file(base_dir, name) {
                Ok(config) => {
                    model_files.insert(name.clone(), config);
                }
                Err(error) => {
                    let place = place.key("model").index(index);
                    let message = format!("`{place}` is no model: {error}");
                    let label = "allowed: a JSON file in the form of OpenCLIP's model_configs";
                    problems.push(Problem::new(Place::Value(place), message, label));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(SpecError::new(&spec.source, problems).into());
    }
    let (secs_per_sample, base_dir) = (BTreeMap::new(), base_dir.to_owned());
    let (site, memory, tuned) = (None, None, BTreeMap::new());
    Ok(Inputs {
        runner,
        companion_runner,
        runner_path,
        pools,
        model_files,
        weights,
        secs_per_sample,
        memory,
        base_dir,
        site,
        tuned,
    })
}

/// The most often measured speed of each model. For Slurm, on slots that say something of its nodes: of the same kind
/// of device, and with no more threads.
fn speeds(spec: &Spec, inputs: &Inputs, measured: &[Measured]) -> BTreeMap<String, f64> {
    let slot = match &spec.backend {
        Backend::Local { .. } => None,
        Backend::Slurm(keys) => {
            let options = slurm_options(keys, inputs.site.as_ref(), &[]);
            Some((options.gpus > 0, options.cpus))
        }
    };
    let says_something = |row: &&Measured| {
        slot.is_none_or(|(gpu, cpus)| {
            let on_cpu = row.device == "cpu";
            on_cpu != gpu && (gpu || row.threads.is_some_and(|threads| threads <= cpus))
        })
    };
    let mut rows: Vec<&Measured> =
        measured.iter().filter(|row| row.runner == inputs.runner.name).filter(says_something).collect();
    rows.sort_by_key(|row| row.attempts);
    rows.into_iter().map(|row| (row.model.clone(), row.secs_per_sample)).collect()
}

/// Why a file holds no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// Can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No tokenizer for this model.
    #[error("the tokenizer {} can't be used: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No configuration that is built here.
    #[error("{} is no configuration that is built here: {source}", path.display())]
    Parse {
        /// As given.
        path: PathBuf,
        /// Why.
        source: FormError,
    },
}

/// Reads an OpenCLIP configuration, `base_dir/written`, and looks at its tokenizer, if it has one.
/// [`ModelConfig::check`] is the caller's business: a recipe may change input sizes.
pub fn model_file(base_dir: &Path, written: &str) -> Result<ModelConfig, ModelFileError> {
    let path = &base_dir.join(written);
    let text =
        std::fs::read_to_string(path).map_err(|source| ModelFileError::Read { path: path.to_owned(), source })?;
    let mut config =
        model_file::parse(&text).map_err(|source| ModelFileError::Parse { path: path.to_owned(), source })?;
    tokenizer_file(base_dir, Path::new(written), &mut config.text_cfg)?;
    Ok(config)
}

/// What a tokenizer of Hugging Face is kept in.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Finds the file of a tokenizer that a text tower names. A model's folder (`open_clip_config.json`) has its own, which
/// comes first; else it is the file or the folder of that name, beside the model's file or from the base folder, and
/// last what lies beside the model's file. Found, its hash says which one it is; not found, nothing does, and a foreign
/// runner may know the name.
fn tokenizer_file(base_dir: &Path, model: &Path, text: &mut TextConfig) -> Result<(), ModelFileError> {
    let Some(name) = &text.hf_tokenizer_name else { return Ok(()) };
    let beside = model.parent().unwrap_or(Path::new(""));
    let own = beside.join(TOKENIZER_FILE);
    let is_folder = model.file_name().is_some_and(|file| file == super::OPEN_CLIP_CONFIG);
    let named = [beside.join(name), PathBuf::from(name)].map(|place| [place.clone(), place.join(TOKENIZER_FILE)]);
    let places = is_folder.then(|| own.clone()).into_iter().chain(named.into_iter().flatten()).chain([own]);
    let Some(found) = { places }.find(|place| base_dir.join(place).is_file()) else { return Ok(()) };
    let path = base_dir.join(&found);
    let bytes = std::fs::read(&path).map_err(|source| ModelFileError::Read { path: path.clone(), source })?;
    let broken = |reason: String| ModelFileError::Tokenizer { path: path.clone(), reason };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    let tokens = model_file::tokens(&value).ok_or_else(|| broken("it has no `model.vocab`".to_owned()))?;
    if tokens > text.vocab_size {
        let most = text.vocab_size;
        return Err(broken(format!("it has {tokens} tokens, `text_cfg.vocab_size` is {most}: raise that")));
    }
    text.hf_tokenizer_name = Some(found.to_string_lossy().into_owned());
    // Beside it are the names of its special tokens, padding among them.
    let beside = path.with_file_name("tokenizer_config.json");
    let config = match std::fs::read(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|source| ModelFileError::Read { path: beside, source })?,
    };
    let digest = Sha256::new().chain_update(&bytes).chain_update(&config).finalize();
    text.tokenizer_sha256 = Some(format!("{digest:x}"));
    Ok(())
}
