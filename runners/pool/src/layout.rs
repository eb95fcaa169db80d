//! A pool's folder: its shards, which pool it is, what `manifest.json` says.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::PoolManifest;
use shards::{Identity, Progress, file_name};

use crate::error::Error;

const MANIFEST: &str = "manifest.json";

/// What a pool's folder holds, images undecoded.
#[derive(Debug, Clone)]
pub struct PoolInfo {
    /// The folder.
    pub dir: PathBuf,
    /// Which pool it is: its digest, pairs, class names and templates.
    pub identity: Identity,
    /// Shards in order.
    pub shards: Vec<PathBuf>,
    /// Length of all shards, bytes.
    pub bytes: u64,
    /// `manifest.json`, if there is one.
    pub manifest: Option<PoolManifest>,
}

/// Finds out which pool lies in `dir`, which reads its shards unless they were read before, and checks them against
/// `manifest.json`. `elsewhere` is where that is remembered if it can't be beside the pool.
pub fn inspect(dir: &Path, elsewhere: Option<&Path>, progress: Progress) -> Result<PoolInfo, Error> {
    let shards = shards::list(dir)?;
    let manifest = manifest(dir, &shards)?;
    let identity = shards::identify(dir, elsewhere, progress)?;
    let said = manifest.iter().flat_map(|manifest| &manifest.shards);
    identity.check_counts(&dir.join(MANIFEST), said.map(|shard| (shard.name.as_str(), shard.samples)))?;
    let bytes = identity.shards.values().map(|shard| shard.bytes).sum();
    Ok(PoolInfo { dir: dir.to_owned(), identity, shards, bytes, manifest })
}

/// `manifest.json`, where there is one, once the shards have the lengths that it gives.
pub(crate) fn manifest(dir: &Path, shards: &[PathBuf]) -> Result<Option<PoolManifest>, Error> {
    let path = dir.join(MANIFEST);
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    let manifest: PoolManifest =
        serde_json::from_slice(&text).map_err(|error| Error::Metadata { path, reason: error.to_string() })?;
    check_shards(dir, &manifest, shards)?;
    Ok(Some(manifest))
}

/// A manifest binds the shards: one that is missing, foreign or of another length would change the data behind an
/// unchanged digest.
fn check_shards(dir: &Path, manifest: &PoolManifest, shards: &[PathBuf]) -> Result<(), Error> {
    for entry in &manifest.shards {
        let path = dir.join(&entry.name);
        let Ok(metadata) = fs::metadata(&path) else {
            return Err(Error::Metadata {
                path: dir.join(MANIFEST),
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
                path: dir.join(MANIFEST),
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
