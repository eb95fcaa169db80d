//! What a plan needs from outside: the one module here that reads files and starts the runner's `describe`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use protocol::ModelConfig;

use super::expand::{Inputs, plan};
use super::{Plan, pool, runner, runner::RunnerError};
use crate::spec::{self, Place, Problem, Source, Spec, SpecError};

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

/// Reads, checks and plans a spec, in the current folder. `measured` are seconds a sample on one slot, by runner and
/// model.
pub fn load(spec_path: &Path, measured: &BTreeMap<(String, String), f64>) -> Result<Plan, LoadError> {
    let spec = read_spec(spec_path)?;
    let base_dir = std::env::current_dir().map_err(LoadError::CurrentDir)?;
    let inputs = gather(&spec, &base_dir, measured)?;
    Ok(plan(&spec, &inputs)?)
}

/// Reads and checks a spec.
pub fn read_spec(path: &Path) -> Result<Spec, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|error| LoadError::Encoding { path: path.to_owned(), valid: error.utf8_error().valid_up_to() })?;
    Ok(spec::parse(&Source::new(&path.display().to_string(), &text))?)
}

/// Looks for all that a spec names.
pub fn gather(spec: &Spec, base_dir: &Path, measured: &BTreeMap<(String, String), f64>) -> Result<Inputs, LoadError> {
    let runner_path = runner::find(&spec.runner, base_dir)?;
    let runner = runner::describe(&runner_path)?;
    let mut problems = Vec::new();

    let mut pools = BTreeMap::new();
    if runner.reads_data {
        let training = spec.data.iter().map(|data| (spec::Path::keys(&["data", "pool"]), &data.pool));
        let measured =
            spec.evaluations.iter().enumerate().map(|(index, evaluation)| {
                (spec::Path::keys(&["evaluations"]).index(index).key("pool"), &evaluation.pool)
            });
        for (place, written) in training.chain(measured) {
            match pool::read(base_dir, written) {
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

    let mut model_files = BTreeMap::new();
    let included =
        spec.include.iter().enumerate().map(|(index, axes)| (spec::Path::keys(&["include"]).index(index), axes));
    for (place, axes) in std::iter::once((spec::Path::keys(&["grid"]), &spec.grid)).chain(included) {
        for (index, name) in axes.model.iter().enumerate().filter(|(_, name)| spec::is_model_file(name)) {
            match model_file(&base_dir.join(name)) {
                Ok(config) => {
                    model_files.insert(name.clone(), config);
                }
                Err(error) => {
                    let place = place.key("model").index(index);
                    let message = format!("`{place}` is no model: {error}");
                    let label = "allowed: a JSON file in the form of OpenCLIP's model_configs, ViT family";
                    problems.push(Problem::new(Place::Value(place), message, label));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(SpecError::new(&spec.source, problems).into());
    }
    let of_runner = measured.iter().filter(|((name, _), _)| *name == runner.name);
    let secs_per_sample = of_runner.map(|((_, model), secs)| (model.clone(), *secs)).collect();
    Ok(Inputs { runner, runner_path, pools, model_files, secs_per_sample, base_dir: base_dir.to_owned() })
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
    /// Not a configuration of the ViT family.
    #[error("{} is no ViT configuration: {source}", path.display())]
    Parse {
        /// As given.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Reads an OpenCLIP configuration. [`ModelConfig::check`] is the caller's business: a recipe may change input sizes.
pub fn model_file(path: &Path) -> Result<ModelConfig, ModelFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ModelFileError::Read { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| ModelFileError::Parse { path: path.to_owned(), source })
}
