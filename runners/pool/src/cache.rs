//! The cache file: pixels of good samples in hash order, decoded once, mapped into memory by every process that trains
//! on them.
//!
//! Form: 8 bytes of magic, then offset and length of the table (u64, little-endian), zeros up to byte 4096, the pixels
//! (samples x height x width x RGB, uint8), then the table as JSON. An *index* is the same without pixels, for pools
//! that are larger than the budget: it remembers which images decode.
//!
//! One process builds, under a file lock that the kernel drops when it dies; others wait and then find the file, which
//! gets its name only when it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use shards::{Content, Reason, Span};

use crate::decode;
use crate::error::Error;
use crate::index::Entry;

/// Its last byte is raised when the same image would give other pixels, or the table has another form.
const MAGIC: &[u8; 8] = b"SWPOOL\x00\x03";
const PIXELS_AT: usize = 4096;
/// Images decoded between two writes: enough to keep the cores busy, small next to memory.
const CHUNK: usize = 2048;

/// What is known of the samples.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) samples: Vec<Row>,
    pub(crate) skipped: Vec<Bad>,
}

/// A good sample.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Position in the hash order of all samples, bad ones included.
    pub(crate) rank: u64,
    pub(crate) key: String,
    pub(crate) caption: String,
    pub(crate) class: Option<u32>,
    pub(crate) shard: usize,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// First bytes of the image's hash.
    pub(crate) check: u64,
}

/// A sample that is skipped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bad {
    pub(crate) rank: u64,
    pub(crate) key: String,
    pub(crate) kind: String,
    pub(crate) reason: String,
}

/// An open cache (pixels mapped) or index (no pixels).
pub(crate) struct Cache {
    pub(crate) table: Table,
    pub(crate) pixels: Option<Mmap>,
}

impl Cache {
    /// Pixels of sample `i`, or `None` for an index.
    pub(crate) fn image(&self, i: usize, image_bytes: usize) -> Option<&[u8]> {
        let start = PIXELS_AT + i * image_bytes;
        self.pixels.as_ref().map(|map| &map[start..start + image_bytes])
    }
}

/// Opens the file if it is there and whole; `None` if it is not there or of another version.
pub(crate) fn open(path: &Path, image_bytes: usize) -> Result<Option<Cache>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut header = [0; 24];
    if length < PIXELS_AT as u64 || file.read_exact(&mut header).is_err() || header[..8] != *MAGIC {
        return Ok(None);
    }
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (table_at, table_length) = (number(8), number(16));
    if table_at.checked_add(table_length) != Some(length) {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(table_at)).map_err(Error::io("read", path))?;
    file.read_to_end(&mut text).map_err(Error::io("read", path))?;
    let Ok(table) = serde_json::from_slice::<Table>(&text) else { return Ok(None) };
    let has_pixels = table_at > PIXELS_AT as u64;
    if has_pixels && table_at != (PIXELS_AT + table.samples.len() * image_bytes) as u64 {
        return Ok(None);
    }
    let pixels = has_pixels.then(|| map(&file, path)).transpose()?;
    Ok(Some(Cache { table, pixels }))
}

#[allow(unsafe_code)]
fn map(file: &File, path: &Path) -> Result<Mmap, Error> {
    // SAFETY: a cache file is written under a temporary name and never again after it got its own, so the mapped bytes
    // do not change.
    unsafe { Mmap::map(file) }.map_err(Error::io("map", path))
}

/// What to build.
pub(crate) struct Build<'a> {
    /// All samples in hash order.
    pub(crate) entries: &'a [Entry],
    pub(crate) shards: &'a [PathBuf],
    pub(crate) image_size: u32,
    /// Good samples to keep; `None` for all.
    pub(crate) limit: Option<u64>,
    /// Keep the pixels, or only what decodes.
    pub(crate) with_pixels: bool,
}

/// Decodes samples in order until `limit` good ones are found and writes them to `path`. The caller holds the lock.
pub(crate) fn build(path: &Path, what: &Build) -> Result<(), Error> {
    let files = open_all(what.shards)?;
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary).map_err(Error::io("write", &temporary))?;
    let failed = |error| Error::io("write", &temporary)(error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; PIXELS_AT]).map_err(failed)?;

    let wanted = what.limit.unwrap_or(u64::MAX);
    let mut table = Table { samples: Vec::new(), skipped: Vec::new() };
    let mut rank = 0;
    while rank < what.entries.len() && (table.samples.len() as u64) < wanted {
        let missing = (wanted - table.samples.len() as u64).min(CHUNK as u64) as usize;
        let chunk = &what.entries[rank..what.entries.len().min(rank + missing)];
        let decoded: Vec<_> = chunk.par_iter().map(|entry| load(entry, &files, what)).collect::<Result<_, Error>>()?;
        for (entry, outcome) in chunk.iter().zip(decoded) {
            let key = entry.key.clone();
            match outcome {
                Err(reason) => {
                    table.skipped.push(Bad {
                        rank: rank as u64,
                        key,
                        kind: reason.kind.to_owned(),
                        reason: reason.text,
                    });
                }
                Ok((content, pixels)) => {
                    out.write_all(&pixels).map_err(failed)?;
                    table.samples.push(Row {
                        rank: rank as u64,
                        key,
                        caption: content.caption.clone(),
                        class: content.class,
                        shard: entry.shard,
                        offset: content.image.offset,
                        length: content.image.length,
                        check: entry.check,
                    });
                }
            }
            rank += 1;
        }
    }

    let stored = if what.with_pixels { table.samples.len() * image_bytes(what.image_size) } else { 0 };
    let text = serde_json::to_vec(&table).expect("a table of numbers and text is JSON");
    out.write_all(&text).map_err(failed)?;
    let mut file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let mut header = MAGIC.to_vec();
    header.extend(((PIXELS_AT + stored) as u64).to_le_bytes());
    header.extend((text.len() as u64).to_le_bytes());
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(&header))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&temporary, path).map_err(Error::io("rename", &temporary))
}

/// Height x width x RGB.
pub(crate) fn image_bytes(image_size: u32) -> usize {
    image_size as usize * image_size as usize * 3
}

/// Reads an image and compares it with its check: a shard may have changed since it was hashed.
pub(crate) fn read(file: &File, shard: &Path, key: &str, span: Span, check: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; span.length as usize];
    file.read_exact_at(&mut bytes, span.offset).map_err(Error::io("read", shard))?;
    if shards::image_check(&bytes) != check {
        let what = format!("the image of sample `{key}` is another one");
        return Err(Error::Changed { what, shard: shard.to_owned() });
    }
    Ok(bytes)
}

pub(crate) fn open_all(shards: &[PathBuf]) -> Result<Vec<File>, Error> {
    shards.iter().map(|path| File::open(path).map_err(Error::io("read", path))).collect()
}

/// Outer error: the shard cannot be read. Inner error: why the sample is skipped. Pixels are empty for an index.
#[allow(clippy::type_complexity)]
fn load<'a>(entry: &'a Entry, files: &[File], what: &Build) -> Result<Result<(&'a Content, Vec<u8>), Reason>, Error> {
    let content = match &entry.content {
        Ok(content) => content,
        Err(reason) => return Ok(Err(reason.clone())),
    };
    let bytes = read(&files[entry.shard], &what.shards[entry.shard], &entry.key, content.image, entry.check)?;
    let undecodable = |text| Reason { kind: "undecodable image", text };
    Ok(decode::decode(&bytes).map_err(undecodable).map(|image| {
        let pixels = if what.with_pixels { decode::to_square(image, what.image_size) } else { Vec::new() };
        (content, pixels)
    }))
}
