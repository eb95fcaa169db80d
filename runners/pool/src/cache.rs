//! The cache file: pixels of good samples in hash order, decoded once, mapped into memory by every process that trains
//! on them.
//!
//! Form: 8 bytes of magic, then offset and length of the table (u64, little-endian), zeros up to byte 4096, the pixels
//! (samples x height x width x RGB, uint8; originals have sizes of their own), then the table as JSON. An *index* is
//! the same without pixels, for pools that are larger than the budget: it remembers which images decode.
//!
//! One process builds, under a file lock that the kernel drops when it dies; others wait and then find the file, which
//! gets its name only when it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use image::RgbImage;
use memmap2::Mmap;
use protocol::{Alpha, Interpolation, ResizeMode};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use shards::{Content, Reason, Span};

use crate::crop::{self, Picture};
use crate::decode;
use crate::error::Error;
use crate::index::Entry;

/// Its last byte is raised when the same image would give other pixels, or the table has another form.
const MAGIC: &[u8; 8] = b"SWPOOL\x00\x04";
const PIXELS_AT: usize = 4096;
/// Squares made between two writes: enough to keep the cores busy, small next to memory.
const CHUNK: usize = 2048;
/// The same for originals, which may have a hundred megabytes each: so many for each core.
const ORIGINALS: usize = 4;

/// What is kept of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// The square that a model sees, and nothing else.
    #[default]
    Square,
    /// All of it, for crops that are drawn anew each time.
    Original,
}

/// How a picture becomes what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) image_size: u32,
    pub(crate) keep: Keep,
    pub(crate) alpha: Alpha,
    pub(crate) interpolation: Interpolation,
    pub(crate) resize_mode: ResizeMode,
}

impl Form {
    /// Its part of a cache's name.
    pub(crate) fn name(self) -> String {
        let mut name = match self.keep {
            Keep::Square => format!("{}px", self.image_size),
            Keep::Original => "original".to_owned(),
        };
        if self.keep == Keep::Square {
            name += match self.interpolation {
                Interpolation::Bicubic => "",
                Interpolation::Bilinear => "-bilinear",
            };
            name += match self.resize_mode {
                ResizeMode::Shortest => "",
                ResizeMode::Longest => "-longest",
                ResizeMode::Squash => "-squash",
            };
        }
        name += match self.alpha {
            Alpha::Drop => "",
            Alpha::White => "-white",
        };
        name
    }
}

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
    /// Of data sets with several classes an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) classes: Option<Vec<u32>>,
    pub(crate) shard: usize,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// First bytes of the image's hash.
    pub(crate) check: u64,
    /// Where its pixels lie, if they are those of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<Original>,
}

/// A picture as it was decoded.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Original {
    /// Behind the first pixel of all.
    at: u64,
    width: u32,
    height: u32,
}

impl Original {
    fn end(self) -> u64 {
        self.at + 3 * u64::from(self.width) * u64::from(self.height)
    }
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
    /// The square of sample `i`, or `None` if squares are not what is mapped.
    pub(crate) fn square(&self, i: usize, image_bytes: usize) -> Option<&[u8]> {
        let map = self.pixels.as_ref().filter(|_| self.table.samples[i].original.is_none())?;
        let start = PIXELS_AT + i * image_bytes;
        Some(&map[start..start + image_bytes])
    }

    /// The original of sample `i`, or `None` if originals are not what is mapped.
    pub(crate) fn original(&self, i: usize) -> Option<Picture<'_>> {
        let (map, original) = (self.pixels.as_ref()?, self.table.samples[i].original?);
        let pixels = &map[PIXELS_AT..][original.at as usize..original.end() as usize];
        Some(Picture { width: original.width, height: original.height, pixels })
    }

    /// Bytes of pixels.
    pub(crate) fn bytes(&self) -> u64 {
        self.pixels.as_ref().map_or(0, |map| (map.len() - PIXELS_AT) as u64)
    }
}

/// Opens the file if it is there and whole; `None` if it is not there or of another version.
pub(crate) fn open(path: &Path, form: Form) -> Result<Option<Cache>, Error> {
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
    let expected = match form.keep {
        Keep::Square => Some((table.samples.len() * image_bytes(form.image_size)) as u64),
        Keep::Original => ends(&table),
    };
    if has_pixels && Some(table_at - PIXELS_AT as u64) != expected {
        return Ok(None);
    }
    let pixels = has_pixels.then(|| map(&file, path, table_at)).transpose()?;
    Ok(Some(Cache { table, pixels }))
}

/// Where the last of originals ends that lie one behind the other.
fn ends(table: &Table) -> Option<u64> {
    table.samples.iter().try_fold(0, |at, row| {
        row.original.filter(|original| original.at == at && original.width > 0).map(Original::end)
    })
}

/// Maps header and pixels.
#[allow(unsafe_code)]
fn map(file: &File, path: &Path, length: u64) -> Result<Mmap, Error> {
    // SAFETY: a cache file is written under a temporary name and never again after it got its own, so the mapped bytes
    // do not change.
    unsafe { memmap2::MmapOptions::new().len(length as usize).map(file) }.map_err(Error::io("map", path))
}

/// What to build.
pub(crate) struct Build<'a> {
    /// All samples in hash order.
    pub(crate) entries: &'a [Entry],
    pub(crate) shards: &'a [PathBuf],
    pub(crate) form: Form,
    /// Good samples to keep; `None` for all.
    pub(crate) limit: Option<u64>,
    /// Most bytes of pixels: with more to keep, none are.
    pub(crate) budget: u64,
}

/// Where to: with pixels, and without.
pub(crate) struct Paths {
    pub(crate) cache: PathBuf,
    pub(crate) index: PathBuf,
}

/// Decodes samples in order until `limit` good ones are found and writes them to one of the paths, which is returned.
/// The caller holds the lock.
pub(crate) fn build(paths: Paths, what: &Build) -> Result<PathBuf, Error> {
    let files = open_all(what.shards)?;
    let temporary = paths.cache.with_extension("tmp");
    let file = File::create(&temporary).map_err(Error::io("write", &temporary))?;
    let failed = |error| Error::io("write", &temporary)(error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; PIXELS_AT]).map_err(failed)?;

    let wanted = what.limit.unwrap_or(u64::MAX);
    let most = match what.form.keep {
        Keep::Square => CHUNK,
        Keep::Original => ORIGINALS * rayon::current_num_threads(),
    };
    let mut table = Table { samples: Vec::new(), skipped: Vec::new() };
    // Bytes of pixels, for as long as they fit.
    let mut stored = Some(0).filter(|_| what.budget > 0);
    let mut rank = 0;
    while rank < what.entries.len() && (table.samples.len() as u64) < wanted {
        let missing = (wanted - table.samples.len() as u64).min(most as u64) as usize;
        let chunk = &what.entries[rank..what.entries.len().min(rank + missing)];
        let decoded: Vec<_> =
            chunk.par_iter().map(|entry| load(entry, &files, what, stored.is_some())).collect::<Result<_, Error>>()?;
        for (entry, outcome) in chunk.iter().zip(decoded) {
            let key = entry.key.clone();
            match outcome {
                Err(Reason { kind, text: reason }) => {
                    table.skipped.push(Bad { rank: rank as u64, key, kind: kind.to_owned(), reason });
                }
                Ok((content, pixels, size)) => {
                    let at = stored.filter(|at| at + pixels.len() as u64 <= what.budget);
                    if at.is_some() {
                        out.write_all(&pixels).map_err(failed)?;
                    } else if stored.is_some() {
                        out.seek(SeekFrom::Start(PIXELS_AT as u64)).map_err(failed)?;
                        out.get_ref().set_len(PIXELS_AT as u64).map_err(failed)?;
                        table.samples.iter_mut().for_each(|row| row.original = None);
                    }
                    stored = at.map(|at| at + pixels.len() as u64);
                    table.samples.push(Row {
                        rank: rank as u64,
                        key,
                        caption: content.caption.clone(),
                        class: content.class,
                        classes: content.classes.clone(),
                        shard: entry.shard,
                        offset: content.image.offset,
                        length: content.image.length,
                        check: entry.check,
                        original: at.filter(|_| what.form.keep == Keep::Original).map(|at| Original {
                            at,
                            width: size.0,
                            height: size.1,
                        }),
                    });
                }
            }
            rank += 1;
        }
    }

    let path = if stored.is_some() { paths.cache } else { paths.index };
    let text = serde_json::to_vec(&table).expect("a table of numbers and text is JSON");
    out.write_all(&text).map_err(failed)?;
    let mut file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let mut header = MAGIC.to_vec();
    header.extend((PIXELS_AT as u64 + stored.unwrap_or(0)).to_le_bytes());
    header.extend((text.len() as u64).to_le_bytes());
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(&header))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
    Ok(path)
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

/// Outer error: the shard cannot be read. Inner error: why the sample is skipped. Pixels are empty for an index; width
/// and height are the original's.
#[allow(clippy::type_complexity)]
fn load<'a>(
    entry: &'a Entry,
    files: &[File],
    what: &Build,
    with_pixels: bool,
) -> Result<Result<(&'a Content, Vec<u8>, (u32, u32)), Reason>, Error> {
    let content = match &entry.content {
        Ok(content) => content,
        Err(reason) => return Ok(Err(reason.clone())),
    };
    let bytes = read(&files[entry.shard], &what.shards[entry.shard], &entry.key, content.image, entry.check)?;
    let undecodable = |text| Reason { kind: "undecodable image", text };
    let kept = |image: RgbImage| match what.form.keep {
        _ if !with_pixels => Vec::new(),
        Keep::Square => crop::square((&image).into(), what.form),
        Keep::Original => image.into_raw(),
    };
    let decoded = decode::decode(&bytes, what.form.alpha).map_err(undecodable);
    Ok(decoded.map(|image| {
        let size = image.dimensions();
        (content, kept(image), size)
    }))
}
