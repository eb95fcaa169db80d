//! Weights that others trained: open_clip's checkpoints, read without running anything of them.
//!
//! Where in a file which tensor lies, the crate `weights` knows: one tensor at a time is in memory. Names and shapes
//! have to be those of the model, all of them: nothing is left as it was initialised, and nothing is interpolated.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use protocol::Weights;
use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};
use weights::{Stored, bytes_of, tensors, without_module};

use crate::parameters::Parameters;
use crate::report;

/// Names of one kind that an error lists.
const NAMED_MAX: usize = 5;

/// Bytes that take longer to hash than a moment.
const TOLD_BYTES: u64 = 4 << 30;

/// Why weights can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A system call failed.
    #[error("cannot read the weights `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other bytes than those that the job was planned with.
    #[error(
        "the weights `{}` have changed since the job was planned: their sha256 is {found}, the job says {planned}; plan again",
        .path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// As it is now.
        found: String,
        /// As the job says.
        planned: String,
    },
    /// No file of weights, or a damaged or dangerous one.
    #[error("cannot take weights from `{}`: {reason}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// They are of another model.
    #[error("the weights `{}` are not those of the job's model: {}", .path.display(), .problems.join("; "))]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// What does not match, with names.
        problems: Vec<String>,
    },
}

/// Gives a model the weights that a job starts from, after comparing the file's sha256 with the job's.
pub fn load(weights: &Weights, base_dir: &Path, parameters: &mut Parameters) -> Result<(), WeightsError> {
    let path = base_dir.join(&weights.path);
    let io = |source| WeightsError::Io { path: path.clone(), source };
    let refused = |reason| WeightsError::Refused { path: path.clone(), reason };
    let mut file = File::open(&path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(refused("it is no file".to_owned()));
    }
    if metadata.len() > TOLD_BYTES {
        report::say(format_args!("hashing {:.1} GB of weights", metadata.len() as f64 / 1e9));
    }
    let found = sha256(&mut file).map_err(io)?;
    if found != weights.sha256 {
        return Err(WeightsError::Changed { path, found, planned: weights.sha256.clone() });
    }
    let stored = tensors(&file, metadata.len()).map_err(refused)?;
    let stored = without_module(stored);
    let problems = compare(&stored, parameters);
    if !problems.is_empty() {
        return Err(WeightsError::OtherModel { path, problems });
    }
    for parameter in &parameters.list {
        let values = read(&file, &stored[&parameter.name]).map_err(io)?.view(&parameter.shape[..]);
        if bool::try_from(values.isfinite().all().logical_not()).unwrap_or(true) {
            return Err(refused(format!("`{}` holds NaN or infinite numbers", parameter.name)));
        }
        tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&values));
    }
    // What was read is what was hashed, unless somebody wrote meanwhile.
    let after = file.metadata().map_err(io)?;
    let same = |a: &std::fs::Metadata| (a.len(), a.mtime(), a.mtime_nsec(), a.ctime(), a.ctime_nsec());
    if same(&after) != same(&metadata) {
        return Err(refused("it was written to while it was read".to_owned()));
    }
    Ok(())
}

/// What keeps the tensors from being those of a model.
fn compare(stored: &BTreeMap<String, Stored>, parameters: &Parameters) -> Vec<String> {
    let (mut missing, mut other, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for parameter in &parameters.list {
        let Some(tensor) = stored.get(&parameter.name) else {
            missing.push(format!("`{}`", parameter.name));
            continue;
        };
        // open_clip has written `logit_scale` as () and as (1).
        let scalar = parameter.shape.is_empty() && tensor.shape == [1];
        let same = tensor.shape.iter().map(|extent| *extent as i64).eq(parameter.shape.iter().copied());
        if !same && !scalar {
            let interpolated =
                if parameter.name.ends_with("positional_embedding") { " (positions are not interpolated)" } else { "" };
            other.push(format!(
                "`{}` is {:?} in the file, {:?} in the model{interpolated}",
                parameter.name, tensor.shape, parameter.shape
            ));
        } else if !matches!(tensor.dtype.as_str(), "F64" | "F32" | "F16" | "BF16") {
            types.push(format!("`{}` is of type {}", parameter.name, tensor.dtype));
        }
    }
    let known = |name: &String| parameters.list.iter().any(|parameter| parameter.name == *name);
    let unexpected: Vec<String> = stored.keys().filter(|name| !known(name)).map(|name| format!("`{name}`")).collect();
    [
        ("it lacks ", missing),
        ("the model has no ", unexpected),
        ("other shapes: ", other),
        ("F64, F32, F16 and BF16 are read: ", types),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| {
        let more = names.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what}{}{more}", names[..names.len().min(NAMED_MAX)].join(", "))
    })
    .collect()
}

/// A tensor's numbers in fp32, one after another; its shape has been compared with the model's.
fn read(file: &File, stored: &Stored) -> io::Result<Tensor> {
    let mut bytes = vec![0; stored.bytes as usize];
    file.read_exact_at(&mut bytes, stored.offset)?;
    let kind = match stored.dtype.as_str() {
        "F64" => Kind::Double,
        "F16" => Kind::Half,
        "BF16" => Kind::BFloat16,
        _ => Kind::Float,
    };
    let numbers = stored.bytes / bytes_of(&stored.dtype).unwrap_or(1);
    let flat = Tensor::from_data_size(&bytes, &[numbers as i64], kind);
    let sizes = |list: &[u64]| list.iter().map(|size| *size as i64).collect::<Vec<i64>>();
    let viewed = match &stored.strides {
        Some(strides) => flat.as_strided(sizes(&stored.shape), sizes(strides), 0),
        None => flat,
    };
    Ok(viewed.contiguous().to_kind(Kind::Float))
}

/// sha256 of a file's bytes, 64 hex digits.
fn sha256(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
