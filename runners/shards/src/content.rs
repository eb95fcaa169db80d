//! What a shard holds, as hashes: everything of it that a result can depend on, and nothing else.
//!
//! - `texts` = sha256 over its samples in order: key, caption, class and length of the image, or for a sample that
//!   can't be used its key alone (a key that comes in two shards is told apart by the shard's name). It is known
//!   without reading an image.
//! - `content` = sha256(`texts`, then sha256 of each pair's image in order).
//! - A pair's *check* is the first 8 bytes of its image's sha256, so that a reader of a few images need not read all.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::folder::DatasetType;
use crate::sample::{self, Counts, Sample};
use crate::tar::Span;

/// Bytes of an image read at a time.
const CHUNK: usize = 1 << 20;
/// A file that was changed so shortly before it was hashed might change again without another time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// A shard and the hashes of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardContent {
    /// Length of the file.
    pub bytes: u64,
    /// Its samples.
    #[serde(flatten)]
    pub counts: Counts,
    /// Hash of keys, captions, classes and lengths of images, 64 hex digits.
    pub texts: String,
    /// Hash of all that is used of it, 64 hex digits.
    pub content: String,
    /// Hash of the places of the pairs' images in the file: no part of what the pool is, but of where to read it.
    pub places: String,
    /// The file as it was when it was hashed, for who hashed it here; `None` in an index that goes with the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stat: Option<Stat>,
    /// `content` before the file was changed, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
}

/// What a file system says of a file. Times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    size: u64,
    pub(crate) mtime: i64,
    /// When the file or its entry was changed: unlike `mtime`, nobody can set it back.
    ctime: i64,
    inode: u64,
}

impl Stat {
    /// Of an open file, or of what was found at a path.
    pub fn of(found: &Metadata) -> Stat {
        let nanos = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
        Stat {
            size: found.len(),
            mtime: nanos(found.mtime(), found.mtime_nsec()),
            ctime: nanos(found.ctime(), found.ctime_nsec()),
            inode: found.ino(),
        }
    }

    /// Of the file at `path`; a link is followed.
    pub(crate) fn at(path: &Path) -> Result<Stat, Error> {
        Ok(Stat::of(&std::fs::metadata(path).map_err(Error::io("read", path))?))
    }

    /// Length, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the bytes of the file were last written before those of `other`, or with them.
    pub(crate) fn written_before(&self, other: &Stat) -> bool {
        self.mtime <= other.mtime
    }

    /// Whether the file was last changed long enough before `now` for another change to give it another time.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(SETTLED).as_nanos();
        i64::try_from(now).is_ok_and(|now| self.mtime.max(self.ctime) < now)
    }
}

/// Reads and hashes the shard at `path`; gives the checks of its pairs too. The rest as for [`crate::read`].
pub(crate) fn hash(path: &Path, class_names: &[String], kind: DatasetType) -> Result<(ShardContent, Vec<u64>), Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let stat = || Ok(Stat::of(&file.metadata().map_err(Error::io("read", path))?));
    let (begun, before) = (SystemTime::now(), stat()?);
    let samples = sample::read(path, class_names, kind)?;
    let texts = texts(&samples);
    let mut content = Sha256::new().chain_update(&texts);
    let mut places = Sha256::new();
    let mut checks = Vec::new();
    let mut buffer = Vec::new();
    for pair in samples.iter().filter_map(|sample| sample.content.as_ref().ok()) {
        let image = image_hash(&file, pair.image, &mut buffer).map_err(Error::io("read", path))?;
        content.update(image);
        places.update(pair.image.offset.to_le_bytes());
        checks.push(first_bytes(image));
    }
    let stat = stat()?;
    if stat != before {
        return Err(Error::BeingWritten { shard: path.to_owned() });
    }
    let shard = ShardContent {
        bytes: stat.size,
        counts: sample::count(&samples),
        texts,
        content: format!("{:x}", content.finalize()),
        places: format!("{:x}", places.finalize()),
        stat: stat.is_settled(begun).then_some(stat),
        before: None,
    };
    Ok((shard, checks))
}

/// sha256 of what samples say without their images, 64 hex digits: `texts` of a shard.
pub fn texts(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        text(&mut hash, &sample.key);
        match &sample.content {
            Ok(pair) => {
                hash.update([1]);
                text(&mut hash, &pair.caption);
                hash.update(pair.class.map_or(u64::MAX, u64::from).to_le_bytes());
                if let Some(classes) = &pair.classes {
                    hash.update((classes.len() as u64).to_le_bytes());
                    for class in classes {
                        hash.update(class.to_le_bytes());
                    }
                }
                hash.update(pair.image.length.to_le_bytes());
            }
            Err(_) => hash.update([0]),
        }
    }
    format!("{:x}", hash.finalize())
}

/// The check of an image that was read whole.
pub fn image_check(image: &[u8]) -> u64 {
    first_bytes(Sha256::digest(image).into())
}

/// Length and bytes, so that no two lists of texts look the same.
pub(crate) fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// How many, and each.
pub(crate) fn texts_in_order(hash: &mut Sha256, texts: &[String]) {
    hash.update((texts.len() as u64).to_le_bytes());
    for line in texts {
        text(hash, line);
    }
}

fn first_bytes(hash: [u8; 32]) -> u64 {
    u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
}

fn image_hash(file: &File, image: Span, buffer: &mut Vec<u8>) -> std::io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let (mut at, end) = (image.offset, image.offset + image.length);
    while at < end {
        buffer.resize(CHUNK.min((end - at) as usize), 0);
        file.read_exact_at(buffer, at)?;
        hash.update(&*buffer);
        at += buffer.len() as u64;
    }
    Ok(hash.finalize().into())
}
