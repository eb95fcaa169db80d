//! The file that remembers what shards hold: `sweep.index`, beside the shards where `sweep-pool index` was called, or
//! what was hashed here before.
//!
//! Form: 8 bytes of magic, the length of the header (u64, little-endian), the header as JSON, then the checks of all
//! pairs, shard after shard in the header's order (8 bytes each). It gets its name when it is whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ShardContent;
use crate::error::Error;

const MAGIC: &[u8; 8] = b"SWINDEX2";
/// Longest header: more than any pool's, and no reason to ask for all memory.
const HEADER_MAX: u64 = 1 << 30;

/// The header.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Header {
    /// sha256 of the class names that stand in for captions, 64 hex digits.
    pub(crate) class_names: String,
    /// By file name.
    pub(crate) shards: BTreeMap<String, ShardContent>,
}

/// A header and where its checks begin. The file stays open: another process may give its name to a newer one.
#[derive(Debug, Clone)]
pub(crate) struct IndexFile {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    file: Arc<File>,
    checks_at: u64,
}

impl IndexFile {
    /// Opens the file at `path`. `None`: it is not there. Error: why it can't be used.
    pub(crate) fn open(path: &Path) -> Result<Option<IndexFile>, Error> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let refused = |reason: String| Error::Metadata {
            path: path.to_owned(),
            reason,
            hint: "delete it; for the index of a pool call `sweep-pool index` again".into(),
        };
        let mut start = [0; 16];
        if file.read_exact(&mut start).is_err() || start[..8] != *MAGIC {
            return Err(refused("it is no index, or that of another version".into()));
        }
        let length = u64::from_le_bytes(start[8..].try_into().expect("8 of 16 bytes"));
        let mut text = Vec::new();
        Read::by_ref(&mut file).take(length.min(HEADER_MAX)).read_to_end(&mut text).map_err(Error::io("read", path))?;
        let header: Header = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        // A sample has a header of its own, so more than these are none.
        let counts = header.shards.values().find(|shard| shard.counts.samples() > shard.bytes / 512);
        if counts.is_some() {
            return Err(refused("it gives a shard more samples than fit into it".into()));
        }
        let checks_at = length.saturating_add(16);
        let pairs = header.shards.values().fold(0_u64, |sum, shard| sum.saturating_add(shard.counts.pairs));
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        if pairs.checked_mul(8).and_then(|checks| checks.checked_add(checks_at)) != Some(found) {
            return Err(refused("it is cut off".into()));
        }
        Ok(Some(IndexFile { path: path.to_owned(), header, file: Arc::new(file), checks_at }))
    }

    /// The checks of all pairs, by shard.
    pub(crate) fn checks(&self) -> Result<BTreeMap<String, Vec<u64>>, Error> {
        let mut at = self.checks_at;
        let mut of = |pairs: u64| -> std::io::Result<Vec<u64>> {
            let mut bytes = vec![0; pairs as usize * 8];
            self.file.read_exact_at(&mut bytes, at)?;
            at += bytes.len() as u64;
            Ok(bytes.chunks_exact(8).map(|check| u64::from_le_bytes(check.try_into().expect("8 bytes"))).collect())
        };
        let shards = &self.header.shards;
        let checks = shards.iter().map(|(name, shard)| Ok((name.clone(), of(shard.counts.pairs)?)));
        checks.collect::<std::io::Result<_>>().map_err(Error::io("read", &self.path))
    }
}

/// Writes an index under a temporary name and gives it its own; `checks` by the name of the shard.
pub(crate) fn write(path: &Path, header: &Header, checks: &BTreeMap<String, Vec<u64>>) -> std::io::Result<()> {
    let temporary = path.with_file_name(format!(".sweep-index-{}.tmp", std::process::id()));
    let result = write_to(&temporary, header, checks).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_to(temporary: &Path, header: &Header, checks: &BTreeMap<String, Vec<u64>>) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(temporary)?);
    let text = serde_json::to_vec(header).expect("names and numbers are JSON");
    out.write_all(MAGIC)?;
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    for (name, shard) in &header.shards {
        let checks = checks.get(name).filter(|checks| checks.len() as u64 == shard.counts.pairs);
        let missing = || std::io::Error::other(format!("there are no checks for shard {name}"));
        for check in checks.ok_or_else(missing)? {
            out.write_all(&check.to_le_bytes())?;
        }
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}
