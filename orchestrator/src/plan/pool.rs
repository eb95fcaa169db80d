//! A pool as it lies on disk: how many pairs, and a digest that says which.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::{DataSource, PoolManifest};
pub(super) use shards::Stat;
use shards::{Progress, file_name};

use super::PoolInfo;

const MANIFEST: &str = "manifest.json";
/// Where runners and plans remember what was hashed of pools whose own folders they can't write.
const REMEMBERED: &str = ".sweep/pools";

/// Whether classes of a pool have names, in its folder or beside its splits. What can't be read is told by the plan.
pub fn has_class_names(pool: &Path) -> bool {
    shards::class_names(pool).is_ok_and(|names| !names.is_empty())
}

/// Why a folder is no pool.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    /// Its shards, or what lies beside them, can't be read.
    #[error(transparent)]
    Shards(#[from] shards::Error),
    /// The manifest can't be read.
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
    /// A shard that the manifest does not speak of.
    #[error("shard {} lies beside manifest.json but is not in it", .0.display())]
    Foreign(PathBuf),
    /// No pair.
    #[error("{} holds no pair that can be used{}", dir.display(), counted(skipped))]
    Empty {
        /// The folder.
        dir: PathBuf,
        /// Samples that can't be used, by what is wrong with them.
        skipped: BTreeMap<String, u64>,
    },
}

fn counted(skipped: &BTreeMap<String, u64>) -> String {
    let reasons: Vec<String> = skipped.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) }
}

impl PoolError {
    /// The way out.
    pub(super) fn hint(&self) -> String {
        let hint = match self {
            PoolError::Shards(shards::Error::NoFolder { .. }) => {
                "relative paths start where `sweep` is called; for the demo's pools: `make data`"
            }
            PoolError::Shards(error) => return error.hint(),
            PoolError::Changed { .. } => "a shard has changed since it was packed: pack the pool again",
            PoolError::Foreign(_) => "move the shard away, or delete manifest.json",
            PoolError::Empty { .. } => {
                "a pair is KEY.(jpg|jpeg|png|webp) and KEY.txt side by side in one shard, KEY ending at the name's first dot"
            }
            PoolError::Read { .. } | PoolError::Parse { .. } => "pack the pool again",
        };
        hint.to_owned()
    }
}

/// Looks at the pool in `base_dir/written`. `progress` is told of shards that have to be hashed.
pub(super) fn read(base_dir: &Path, written: &str, progress: Progress) -> Result<PoolInfo, PoolError> {
    let dir = base_dir.join(written);
    let shards = shards::list(&dir)?;
    let manifest = manifest(&dir, &shards)?;
    let identity = shards::identify(&dir, Some(&base_dir.join(REMEMBERED)), progress)?;
    let said = manifest.iter().flat_map(|manifest| &manifest.shards);
    identity.check_counts(&dir.join(MANIFEST), said.map(|shard| (shard.name.as_str(), shard.samples)))?;
    let skipped = identity.counts.skipped;
    if identity.counts.pairs == 0 {
        return Err(PoolError::Empty { dir, skipped });
    }
    let name = manifest
        .as_ref()
        .map_or_else(|| name_of(&dir).unwrap_or_else(|| written.to_owned()), |manifest| manifest.name.clone());
    let source = DataSource { pool: name, path: written.into(), digest: identity.digest };
    Ok(PoolInfo { source, samples: identity.counts.pairs, skipped, changed: identity.noticed, manifest })
}

/// A pool without a manifest is called as its folder; a split in CLIP_benchmark's layout as the data set's, where it is
/// not the one for tests, with the split's own name behind it.
fn name_of(dir: &Path) -> Option<String> {
    let name = |dir: &Path| dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name(dir)?;
    if !dir.join(shards::SHARD_COUNT).is_file() {
        return Some(own);
    }
    let above = dir.parent().and_then(name);
    Some(above.map_or_else(|| own.clone(), |above| if own == "test" { above } else { format!("{above}-{own}") }))
}

/// `manifest.json`, where there is one, once the shards are those that it lists.
fn manifest(dir: &Path, shards: &[PathBuf]) -> Result<Option<PoolManifest>, PoolError> {
    let path = dir.join(MANIFEST);
    if !path.is_file() {
        return Ok(None);
    }
    let manifest: PoolManifest =
        serde_json::from_slice(&bytes(&path)?).map_err(|source| PoolError::Parse { path, source })?;
    check(dir, shards, &manifest)?;
    Ok(Some(manifest))
}

/// The manifest binds the shards: those that it lists, with their lengths, and no others.
fn check(dir: &Path, shards: &[PathBuf], manifest: &PoolManifest) -> Result<(), PoolError> {
    for shard in &manifest.shards {
        let path = dir.join(&shard.name);
        let found = if path.is_file() { length(&path)? } else { 0 };
        if found != shard.bytes {
            return Err(PoolError::Changed { path, found, expected: shard.bytes });
        }
    }
    let listed = |shard: &&PathBuf| manifest.shards.iter().any(|entry| entry.name == file_name(shard));
    match shards.iter().find(|shard| !listed(shard)) {
        Some(foreign) => Err(PoolError::Foreign(foreign.clone())),
        None => Ok(()),
    }
}

fn length(path: &Path) -> Result<u64, PoolError> {
    Ok(fs::metadata(path).map_err(|source| PoolError::Read { path: path.to_owned(), source })?.len())
}

fn bytes(path: &Path) -> Result<Vec<u8>, PoolError> {
    fs::read(path).map_err(|source| PoolError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use shards::no_progress;

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
        let whole = read(Path::new(FIXTURE), ".", &mut no_progress()).unwrap();
        assert_eq!(read(dir.path(), ".", &mut no_progress()).unwrap().samples, whole.samples);

        let shard = dir.path().join("00001.tar");
        let bytes = fs::read(&shard).unwrap();
        fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
        let error = read(dir.path(), ".", &mut no_progress()).unwrap_err();
        assert!(
            matches!(&error, PoolError::Shards(shards::Error::Truncated { shard, .. }) if *shard == dir.path().join("./00001.tar")),
            "{error}"
        );
    }

    #[test]
    fn the_same_pictures_with_other_captions_are_another_pool() {
        let dir = tempfile::tempdir().unwrap();
        let shard = fs::read(Path::new(FIXTURE).join("00000.tar")).unwrap();
        let caption = shards::read(&Path::new(FIXTURE).join("00000.tar"), &[], shards::DatasetType::Pairs).unwrap()[0]
            .content
            .clone()
            .unwrap()
            .caption;
        let at = shard.windows(caption.len()).position(|window| window == caption.as_bytes()).unwrap();
        let mut recaptioned = shard.clone();
        recaptioned[at] ^= 1;
        for (name, bytes) in [("one", &shard), ("other", &recaptioned), ("copy", &shard)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("00000.tar"), bytes).unwrap();
        }
        let digest = |name: &str| read(dir.path(), name, &mut no_progress()).unwrap().source.digest;
        assert_ne!(digest("one"), digest("other"));
        assert_eq!(digest("one"), digest("copy"));
        fs::write(dir.path().join("copy/classnames.txt"), "dog\n").unwrap();
        assert_ne!(digest("one"), digest("copy"));
    }

    #[test]
    fn what_is_not_used_is_counted_and_what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let shard = fs::read(Path::new(FIXTURE).join("00000.tar")).unwrap();
        // The same keys once more, behind the end mark of the first.
        fs::write(dir.path().join("00000.tar"), [&shard[..], &shard].concat()).unwrap();
        let once = read(Path::new(FIXTURE), ".", &mut no_progress()).unwrap().manifest.unwrap().shards[0].samples;
        let pool = read(dir.path(), ".", &mut no_progress()).unwrap();
        assert_eq!((pool.samples, pool.skipped), (once, [("key twice in its shard".to_owned(), once)].into()));

        fs::write(dir.path().join("sizes.json"), "{}").unwrap();
        let error = read(dir.path(), ".", &mut no_progress()).unwrap_err();
        assert!(error.to_string().contains("shard `00000.tar` lies beside it but is not in it"), "{error}");
        assert!(error.hint().contains("delete sizes.json"), "{}", error.hint());
        fs::write(dir.path().join("sizes.json"), format!("{{\"00000.tar\": {}}}", once - 1)).unwrap();
        assert!(
            read(dir.path(), ".", &mut no_progress()).unwrap_err().to_string().contains("it gives shard `00000.tar`")
        );
        fs::write(dir.path().join("00001.tar.gz"), b"").unwrap();
        let error = read(dir.path(), ".", &mut no_progress()).unwrap_err();
        assert!(error.to_string().contains("is compressed (gzip)"), "{error}");
    }
}
