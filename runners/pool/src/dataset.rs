//! The reader: a pool cut to a data size, with every image ready as pixels.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{Alpha, Interpolation, ResizeMode};

use crate::cache::{self, Bad, Build, Cache, Form, Keep, Paths, Row};
use crate::crop::{self, Crop, Picture};
use crate::decode;
use crate::error::Error;
use crate::index;
use crate::layout::{self, PoolInfo};
use shards::{DatasetType, Span};

/// How to open a pool.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Side of the square images handed out, pixels.
    pub image_size: u32,
    /// What is kept of a picture: [`Dataset::read_crop`] needs originals.
    pub keep: Keep,
    /// What becomes of alpha channels.
    pub alpha: Alpha,
    /// Of the resizing to squares; crops are bicubic.
    pub interpolation: Interpolation,
    /// How pictures of other shapes become squares.
    pub resize_mode: ResizeMode,
    /// Data size: the first so many good pairs in hash order; `None` for all.
    pub limit: Option<u64>,
    /// Where the decoded pixels are kept; `None` for `.cache` inside the pool's folder.
    pub cache_dir: Option<PathBuf>,
    /// Largest cache of pixels, bytes. A pool that needs more is cached only up to `limit`, and if that needs more,
    /// too, its images are decoded each time they are read. Originals are cached up to `limit` at once, since only
    /// decoding tells their size.
    pub cache_bytes: u64,
}

impl Default for OpenOptions {
    /// 32 pixels, squares as OpenCLIP makes them by default, the whole pool, cache in the pool's folder, 4 GiB.
    fn default() -> Self {
        OpenOptions {
            image_size: 32,
            keep: Keep::default(),
            alpha: Alpha::default(),
            interpolation: Interpolation::default(),
            resize_mode: ResizeMode::default(),
            limit: None,
            cache_dir: None,
            cache_bytes: 4 << 30,
        }
    }
}

/// A sample that is not in the data set, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its key.
    pub key: String,
    /// The same words for all samples with this fault: what is counted.
    pub kind: String,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// Good pairs of a pool in hash order. Shared between threads as it is.
pub struct Dataset {
    info: Arc<PoolInfo>,
    form: Form,
    length: usize,
    cache: Cache,
    /// Open shards, for a pool whose pixels are not cached.
    files: Vec<File>,
    skipped: Vec<Skipped>,
}

impl Dataset {
    /// Opens the pool in `dir`. The first time this decodes the images into the cache; another process that opens it
    /// meanwhile waits.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Dataset, Error> {
        let form = form(options)?;
        let info = layout::inspect(dir, options.cache_dir.as_deref(), &mut shards::no_progress())?;
        Dataset::with(Arc::new(info), form, options)
    }

    /// Opens a pool that was looked at: it is this one, whatever lies in its folder since, or an error.
    pub fn of(info: &Arc<PoolInfo>, options: &OpenOptions) -> Result<Dataset, Error> {
        Dataset::with(Arc::clone(info), form(options)?, options)
    }

    fn with(info: Arc<PoolInfo>, form: Form, options: &OpenOptions) -> Result<Dataset, Error> {
        let dir = &info.dir;
        let cache = open_or_build(&info, form, options)?;

        let found = cache.table.samples.len() as u64;
        if let Some(asked) = options.limit.filter(|&asked| asked > found) {
            return Err(Error::TooFew { dir: dir.clone(), asked, found, skipped: cache.table.skipped.len() });
        }
        if found == 0 {
            return Err(empty(dir, &cache.table.skipped));
        }
        let length = options.limit.unwrap_or(found) as usize;
        // Bad samples behind the last good one that is used were never in question.
        let end = if options.limit.is_some() {
            length.checked_sub(1).map(|last| cache.table.samples[last].rank)
        } else {
            Some(u64::MAX)
        };
        let skipped = cache.table.skipped.iter().filter(|bad| end.is_some_and(|end| bad.rank < end));
        let skipped = skipped
            .map(|bad| Skipped { key: bad.key.clone(), kind: bad.kind.clone(), reason: bad.reason.clone() })
            .collect();
        check_classes(dir, &cache.table.samples[..length], &info.identity.class_names)?;
        let files = if cache.pixels.is_some() { Vec::new() } else { cache::open_all(&info.shards)? };
        Ok(Dataset { info, form, length, cache, files, skipped })
    }

    /// Pairs.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Only for a limit of 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Side of the square images, pixels.
    pub fn image_size(&self) -> u32 {
        self.form.image_size
    }

    /// Length of one image: `image_size^2 * 3`.
    pub fn image_bytes(&self) -> usize {
        cache::image_bytes(self.form.image_size)
    }

    /// Writes image `i` into `out`: height x width x RGB, uint8. Panics if `i` is not below [`Dataset::len`].
    pub fn read_image(&self, i: usize, out: &mut [u8]) -> Result<(), Error> {
        self.check_buffer(i, out)?;
        if let Some(pixels) = self.cache.square(i, self.image_bytes()) {
            out.copy_from_slice(pixels);
            return Ok(());
        }
        self.picture(i, |picture| out.copy_from_slice(&crop::square(picture, self.form)))
    }

    /// Writes a part of image `i` into `out`, stretched to the square. `choose` is given the original's width and
    /// height and returns a part of it. Panics if it is none, or if originals were not asked for with
    /// [`OpenOptions::keep`].
    pub fn read_crop(&self, i: usize, choose: impl FnOnce(u32, u32) -> Crop, out: &mut [u8]) -> Result<(), Error> {
        assert!(self.form.keep == Keep::Original, "only squares of this pool are kept");
        self.check_buffer(i, out)?;
        self.picture(i, |picture| {
            let crop = choose(picture.width, picture.height);
            out.copy_from_slice(&crop::stretched(picture, crop, self.form.image_size));
        })
    }

    /// Shows the original of image `i`, from the cache or decoded now.
    fn picture(&self, i: usize, see: impl FnOnce(Picture)) -> Result<(), Error> {
        if let Some(picture) = self.cache.original(i) {
            see(picture);
            return Ok(());
        }
        let row = self.row(i);
        let shard = &self.info.shards[row.shard];
        let span = Span { offset: row.offset, length: row.length };
        let bytes = cache::read(&self.files[row.shard], shard, &row.key, span, row.check)?;
        let undecodable = |reason| Error::Changed {
            what: format!("the image of sample `{}` can no longer be decoded ({reason})", row.key),
            shard: shard.clone(),
        };
        let image = decode::decode(&bytes, self.form.alpha).map_err(undecodable)?;
        see((&image).into());
        Ok(())
    }

    fn check_buffer(&self, i: usize, out: &[u8]) -> Result<(), Error> {
        let _ = self.row(i);
        let needed = self.image_bytes();
        if out.len() == needed { Ok(()) } else { Err(Error::Buffer { needed, given: out.len() }) }
    }

    /// Caption of pair `i`, trimmed, never empty; all of them, one a line, in a data set for retrieval.
    pub fn caption(&self, i: usize) -> &str {
        &self.row(i).caption
    }

    /// Captions of image `i`, at least one: of a data set for retrieval the lines that are not empty.
    pub fn captions(&self, i: usize) -> Vec<&str> {
        let caption = self.caption(i);
        if self.dataset_type() != DatasetType::Retrieval {
            return vec![caption];
        }
        caption.split(is_line_end).map(str::trim).filter(|line| !line.is_empty()).collect()
    }

    /// Key of pair `i`.
    pub fn key(&self, i: usize) -> &str {
        &self.row(i).key
    }

    /// Class of pair `i`: a line of [`Dataset::class_names`].
    pub fn class(&self, i: usize) -> Option<u32> {
        self.row(i).class
    }

    /// Classes of image `i` in a data set with several an image, ascending; `None` in any other.
    pub fn classes(&self, i: usize) -> Option<&[u32]> {
        self.row(i).classes.as_deref()
    }

    /// How texts and classes are read.
    pub fn dataset_type(&self) -> DatasetType {
        self.info.identity.dataset_type
    }

    /// Lines of `classnames.txt`; empty for a pool without classes.
    pub fn class_names(&self) -> &[String] {
        &self.info.identity.class_names
    }

    /// Lines of `zeroshot_classification_templates.txt`; `{c}` or `{}` stands for the class name.
    pub fn templates(&self) -> &[String] {
        &self.info.identity.templates
    }

    /// How many samples were passed over, by [`Skipped::kind`].
    pub fn skipped_kinds(&self) -> BTreeMap<&str, u64> {
        let mut kinds = BTreeMap::new();
        for skip in &self.skipped {
            *kinds.entry(skip.kind.as_str()).or_default() += 1;
        }
        kinds
    }

    /// Samples that were passed over to find the pairs, in hash order.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What the pool's folder says: digest, shards, manifest.
    pub fn info(&self) -> &PoolInfo {
        &self.info
    }

    /// Bytes of pixels that are mapped; 0 for a pool that [is streamed](Dataset::is_streamed).
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Images are decoded at each reading, because the pixels are larger than the budget.
    pub fn is_streamed(&self) -> bool {
        self.cache.pixels.is_none()
    }

    fn row(&self, i: usize) -> &Row {
        assert!(i < self.length, "pair {i} of a dataset of {}", self.length);
        &self.cache.table.samples[i]
    }
}

fn form(options: &OpenOptions) -> Result<Form, Error> {
    let &OpenOptions { image_size, keep, alpha, interpolation, resize_mode, .. } = options;
    match image_size {
        1..=4096 => Ok(Form { image_size, keep, alpha, interpolation, resize_mode }),
        size => Err(Error::ImageSize(size)),
    }
}

/// Finds a cache that holds at least what is asked for, or makes one.
fn open_or_build(info: &PoolInfo, form: Form, options: &OpenOptions) -> Result<Cache, Error> {
    let cache_dir = options.cache_dir.clone().unwrap_or_else(|| info.dir.join(".cache"));
    if cache_dir.exists() && !cache_dir.is_dir() {
        let reason = "it is no folder, and decoded images are kept in one of that name\nhint: move it away, or name another \
                      folder: `sweep-pool inspect --cache-dir FOLDER`";
        return Err(Error::Metadata { path: cache_dir, reason: reason.into() });
    }
    fs::create_dir_all(&cache_dir).map_err(Error::io("create cache folder", &cache_dir))?;
    let stem = format!("{}-{}", &info.identity.digest[..32], form.name());
    // An index has offsets, which another packing of the same pool has elsewhere.
    let places = info.identity.places();
    let file = |part: &str, kind: &str| match kind {
        "index" => cache_dir.join(format!("{stem}-{part}-{places}.index")),
        kind => cache_dir.join(format!("{stem}-{part}.{kind}")),
    };
    let limit = options.limit.map(|limit| limit.to_string());
    let mut candidates = vec![file("all", "cache")];
    candidates.extend(limit.iter().map(|limit| file(limit, "cache")));
    candidates.push(file("all", "index"));
    candidates.extend(limit.iter().map(|limit| file(limit, "index")));
    let find = || -> Result<Option<Cache>, Error> {
        for path in &candidates {
            if let Some(cache) = cache::open(path, form)? {
                return Ok(Some(cache));
            }
        }
        Ok(None)
    };
    if let Some(cache) = find()? {
        return Ok(cache);
    }

    let lock_path = cache_dir.join(format!("{stem}.lock"));
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    lock.lock().map_err(Error::io("lock", &lock_path))?;
    // Another process may have built it while this one waited; dropping `lock` lets the next one in.
    if let Some(cache) = find()? {
        return Ok(cache);
    }
    let entries = index::build(info)?;
    let image_bytes = cache::image_bytes(form.image_size) as u64;
    let fits = |samples: u64| samples.saturating_mul(image_bytes) <= options.cache_bytes;
    let (limit, budget) = match (form.keep, options.limit) {
        (Keep::Square, _) if fits(entries.len() as u64) => (None, options.cache_bytes),
        // Squares all have one size, so that a cache that can't be is not begun.
        (Keep::Square, limit) => (limit, if limit.is_some_and(fits) { options.cache_bytes } else { 0 }),
        (Keep::Original, limit) => (limit, options.cache_bytes),
    };
    let part = limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    let paths = Paths { cache: file(&part, "cache"), index: file(&part, "index") };
    let path = cache::build(paths, &Build { entries: &entries, shards: &info.shards, form, limit, budget })?;
    cache::open(&path, form)?.ok_or_else(|| Error::Metadata { path, reason: "it changed while it was written".into() })
}

/// Ends a line for Python's `str.splitlines`, which CLIP_benchmark reads captions with.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn check_classes(dir: &Path, samples: &[Row], class_names: &[String]) -> Result<(), Error> {
    let largest = |row: &Row| row.class.max(row.classes.as_ref().and_then(|classes| classes.last().copied()));
    match samples.iter().find(|row| largest(row).is_some_and(|class| class as usize >= class_names.len())) {
        Some(row) if !class_names.is_empty() => Err(Error::Metadata {
            path: dir.join("classnames.txt"),
            reason: format!(
                "sample `{}` has class {}, but there are {} class names (line 1 names class 0)",
                row.key,
                largest(row).unwrap_or_default(),
                class_names.len()
            ),
        }),
        _ => Ok(()),
    }
}

fn empty(dir: &Path, skipped: &[Bad]) -> Error {
    let first = skipped.first().map(|bad| format!(", first: {}: {}", bad.key, bad.reason)).unwrap_or_default();
    Error::Empty { dir: dir.to_owned(), skipped: skipped.len(), first }
}
