//! A pool as it lies on disk: how many pairs, and a digest that says which.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
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
    /// A shard that ends early, or is none.
    #[error("shard {} is damaged or cut off at byte {at}", path.display())]
    Damaged {
        /// The shard.
        path: PathBuf,
        /// Where its next header should be.
        at: u64,
    },
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
                "a pool is a folder of WebDataset shards, as img2dataset or `sweep-pool pack` writes it"
            }
            PoolError::Damaged { .. } => {
                "fetch or pack the shard again; `tar tf` on a whole shard ends without an error"
            }
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
        let mut hasher = Sha256::new();
        for (name, length) in &shards {
            hasher.update(format!("{name} {length}\n"));
        }
        let sizes_path = folder.join("sizes.json");
        let counts: Vec<u64> = if sizes_path.is_file() {
            let sizes_bytes = bytes(&sizes_path)?;
            let sizes: BTreeMap<String, u64> = parse(&sizes_path, &sizes_bytes)?;
            hasher.update(&sizes_bytes);
            shards.keys().map(|name| sizes.get(name).copied().unwrap_or_default()).collect()
        } else {
            shards.keys().map(|name| count_images(&folder.join(name))).collect::<Result<_, _>>()?
        };
        (counts.into_iter().fold(0, u64::saturating_add), hex(&hasher.finalize()), None)
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

/// Images in a shard that comes without `sizes.json`, as img2dataset leaves it: by its headers alone.
fn count_images(path: &Path) -> Result<u64, PoolError> {
    const BLOCK: u64 = 512;
    let failed = |source| PoolError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let length = file.get_ref().metadata().map_err(failed)?.len();
    let (mut header, mut at, mut images) = ([0_u8; BLOCK as usize], 0, 0);
    while at + BLOCK <= length {
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        file.read_exact(&mut header).map_err(failed)?;
        if header == [0; BLOCK as usize] {
            return Ok(images);
        }
        let size = str::from_utf8(&header[124..136]).ok().map(|text| text.trim_matches(['\0', ' ']));
        let Some(size) = size.and_then(|octal| u64::from_str_radix(octal, 8).ok()) else {
            return Err(PoolError::Damaged { path: path.to_owned(), at });
        };
        let name = header[..100].split(|&byte| byte == 0).next().unwrap_or_default().to_ascii_lowercase();
        let image = [".jpg", ".jpeg", ".png", ".webp"].iter().any(|ending| name.ends_with(ending.as_bytes()));
        images += u64::from(image && matches!(header[156], 0 | b'0'));
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
    Err(PoolError::Damaged { path: path.to_owned(), at })
}

/// Names and lengths of the tar files, sorted by name. Hidden ones are some system's own.
fn shards(folder: &Path) -> Result<BTreeMap<String, u64>, PoolError> {
    let failed = |source| PoolError::Read { path: folder.to_owned(), source };
    let mut shards = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Follows links: shards are often linked in from elsewhere.
        let metadata = fs::metadata(entry.path()).map_err(|source| PoolError::Read { path: entry.path(), source })?;
        if metadata.is_file()
            && !name.starts_with('.')
            && Path::new(&name).extension().is_some_and(|extension| extension == "tar")
        {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 real pairs in three shards.
    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/pool/fixture/train");

    #[test]
    fn shards_without_sizes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000.tar", "00001.tar", "00002.tar"] {
            fs::copy(Path::new(FIXTURE).join(name), dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("._00000.tar"), "some system's own").unwrap();
        let whole = read(Path::new(FIXTURE), ".").unwrap();
        assert_eq!(read(dir.path(), ".").unwrap().samples, whole.samples);

        let shard = dir.path().join("00001.tar");
        let bytes = fs::read(&shard).unwrap();
        fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
        let error = read(dir.path(), ".").unwrap_err();
        assert!(
            matches!(&error, PoolError::Damaged { path, .. } if *path == dir.path().join("./00001.tar")),
            "{error}"
        );
    }
}
