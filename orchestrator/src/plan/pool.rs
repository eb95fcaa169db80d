//! A pool as it lies on disk: how many pairs, and a digest that says which.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::{DataSource, PoolManifest};
use sha2::{Digest, Sha256};

use super::PoolInfo;
use super::expand::hex;

/// Why a folder is no pool.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    /// Not there.
    #[error("there is no folder {}", .0.display())]
    Missing(PathBuf),
    /// No shards.
    #[error("{} holds no shard (*.tar)", .0.display())]
    NoShards(PathBuf),
    /// Nothing says how many pairs there are.
    #[error("{} has neither manifest.json nor sizes.json", .0.display())]
    NoSizes(PathBuf),
    /// Can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not in the form it should have.
    #[error("{} is damaged: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The manifest speaks of another shard than lies there.
    #[error("{} has {found} bytes, manifest.json says {expected}", path.display())]
    Changed {
        /// Which shard.
        path: PathBuf,
        /// Length now.
        found: u64,
        /// Length as packed.
        expected: u64,
    },
    /// No pair.
    #[error("{} says that there are no pairs", .0.display())]
    Empty(PathBuf),
}

impl PoolError {
    /// The way out.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            PoolError::Missing(_) => "relative paths start where `sweep` is called; for the demo's pools: `make data`",
            PoolError::NoShards(_) => {
                "a pool is a folder of WebDataset shards, as img2dataset or `clip-runner pack` writes it"
            }
            PoolError::NoSizes(_) => r#"write sizes.json beside the shards, pairs of each: {"00000.tar": 1000}"#,
            PoolError::Changed { .. } => "a shard has changed since it was packed: pack the pool again",
            PoolError::Read { .. } | PoolError::Parse { .. } | PoolError::Empty(_) => "pack the pool again",
        }
    }
}

/// Looks at the pool in `base_dir/written`.
pub(super) fn read(base_dir: &Path, written: &str) -> Result<PoolInfo, PoolError> {
    let folder = base_dir.join(written);
    if !folder.is_dir() {
        return Err(PoolError::Missing(folder));
    }
    let shards = shards(&folder)?;
    if shards.is_empty() {
        return Err(PoolError::NoShards(folder));
    }
    let manifest_path = folder.join("manifest.json");
    let (samples, digest, manifest) = if manifest_path.is_file() {
        let bytes = bytes(&manifest_path)?;
        let manifest: PoolManifest = parse(&manifest_path, &bytes)?;
        for shard in &manifest.shards {
            let found = shards.get(&shard.name).copied().unwrap_or_default();
            if found != shard.bytes {
                return Err(PoolError::Changed { path: folder.join(&shard.name), found, expected: shard.bytes });
            }
        }
        (manifest.samples, hex(&Sha256::digest(&bytes)), Some(manifest))
    } else {
        let sizes_path = folder.join("sizes.json");
        if !sizes_path.is_file() {
            return Err(PoolError::NoSizes(folder));
        }
        let sizes_bytes = bytes(&sizes_path)?;
        let sizes: BTreeMap<String, u64> = parse(&sizes_path, &sizes_bytes)?;
        let samples =
            shards.keys().map(|name| sizes.get(name).copied().unwrap_or_default()).fold(0, u64::saturating_add);
        let mut hasher = Sha256::new();
        for (name, length) in &shards {
            hasher.update(format!("{name} {length}\n"));
        }
        hasher.update(&sizes_bytes);
        (samples, hex(&hasher.finalize()), None)
    };
    if samples == 0 {
        return Err(PoolError::Empty(folder));
    }
    let name = manifest.as_ref().map_or_else(
        || folder.file_name().map_or_else(|| written.to_owned(), |name| name.to_string_lossy().into_owned()),
        |manifest| manifest.name.clone(),
    );
    Ok(PoolInfo { source: DataSource { pool: name, path: written.into(), digest }, samples, manifest })
}

/// Names and lengths of the tar files, sorted by name.
fn shards(folder: &Path) -> Result<BTreeMap<String, u64>, PoolError> {
    let failed = |source| PoolError::Read { path: folder.to_owned(), source };
    let mut shards = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Follows links: shards are often linked in from elsewhere.
        let metadata = fs::metadata(entry.path()).map_err(|source| PoolError::Read { path: entry.path(), source })?;
        if metadata.is_file() && Path::new(&name).extension().is_some_and(|extension| extension == "tar") {
            shards.insert(name, metadata.len());
        }
    }
    Ok(shards)
}

fn bytes(path: &Path) -> Result<Vec<u8>, PoolError> {
    fs::read(path).map_err(|source| PoolError::Read { path: path.to_owned(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, PoolError> {
    serde_json::from_slice(bytes).map_err(|source| PoolError::Parse { path: path.to_owned(), source })
}
