//! A pool's folder: which shards it has, its digest, its classes. Opens no shard.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::PoolManifest;
use sha2::{Digest as _, Sha256};
use shards::file_name;

use crate::error::Error;

/// What a pool's folder says about itself without reading its shards.
#[derive(Debug, Clone)]
pub struct PoolInfo {
    /// The folder.
    pub dir: PathBuf,
    /// sha256 of the bytes of `manifest.json`; without one, of the sorted lines `name size_in_bytes\n` of the shards
    /// followed by the bytes of `sizes.json`. 64 hex digits.
    pub digest: String,
    /// Pairs, from `manifest.json` or else `sizes.json`; `None` if neither says.
    pub samples: Option<u64>,
    /// Shards in order.
    pub shards: Vec<PathBuf>,
    /// Length of all shards, bytes.
    pub bytes: u64,
    /// `manifest.json`, if there is one.
    pub manifest: Option<PoolManifest>,
}

/// Reads what lies beside the shards in `dir` and checks that the shards have the lengths that the manifest gives.
pub fn inspect(dir: &Path) -> Result<PoolInfo, Error> {
    let shards = shards::list(dir)?;
    let mut lengths = String::new();
    let mut bytes = 0;
    for shard in &shards {
        let length = fs::metadata(shard).map_err(Error::io("read", shard))?.len();
        bytes += length;
        writeln!(lengths, "{} {length}", file_name(shard)).expect("a String takes any text");
    }
    let sizes = read_if_there(&dir.join("sizes.json"))?;
    let manifest_path = dir.join("manifest.json");
    let (digest, manifest) = if let Some(text) = read_if_there(&manifest_path)? {
        let manifest: PoolManifest = serde_json::from_slice(&text)
            .map_err(|error| Error::Metadata { path: manifest_path.clone(), reason: error.to_string() })?;
        check_shards(dir, &manifest, &shards)?;
        (hex(&Sha256::digest(&text)), Some(manifest))
    } else {
        let mut hash = Sha256::new();
        hash.update(&lengths);
        hash.update(sizes.as_deref().unwrap_or_default());
        (hex(&hash.finalize()), None)
    };
    let samples = match &manifest {
        Some(manifest) => Some(manifest.samples),
        None => shards::sizes(dir, &shards)?.map(|sizes| sizes.values().sum()),
    };
    Ok(PoolInfo { dir: dir.to_owned(), digest, samples, shards, bytes, manifest })
}

/// A manifest binds the shards: one that is missing, foreign or of another length would change the data behind an
/// unchanged digest.
fn check_shards(dir: &Path, manifest: &PoolManifest, shards: &[PathBuf]) -> Result<(), Error> {
    for entry in &manifest.shards {
        let path = dir.join(&entry.name);
        let Ok(metadata) = fs::metadata(&path) else {
            return Err(Error::Metadata {
                path: dir.join("manifest.json"),
                reason: format!("it lists shard `{}`, which is not there\nhint: pack the pool again", entry.name),
            });
        };
        if metadata.len() < entry.bytes {
            let missing = format!("manifest.json gives it {} bytes", entry.bytes);
            return Err(Error::Truncated { shard: path, at: metadata.len(), missing });
        }
        if metadata.len() > entry.bytes {
            let reason = format!("it has {} bytes, manifest.json gives {}", metadata.len(), entry.bytes);
            return Err(Error::Damaged { shard: path, at: entry.bytes, reason });
        }
    }
    for shard in shards {
        if !manifest.shards.iter().any(|entry| entry.name == file_name(shard)) {
            return Err(Error::Metadata {
                path: dir.join("manifest.json"),
                reason: format!(
                    "shard `{}` lies beside it but is not in it\nhint: move the shard away, or delete manifest.json",
                    file_name(shard)
                ),
            });
        }
    }
    Ok(())
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}
