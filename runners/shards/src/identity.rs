//! Which pool a folder holds: a digest of all that a result can depend on. Where the folder lies and what it is called
//! is no part of it.
//!
//! A shard is read and hashed once. What was found is remembered beside the pool (`.cache/sweep.index`), or elsewhere
//! where that can't be written, and holds for as long as the file system says that the shard is the same. `sweep.index`
//! in the pool's own folder goes with the pool, and is believed for shards that are not younger than it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::content::{self, ShardContent, Stat};
use crate::error::Error;
use crate::folder::{self, DatasetType, file_name};
use crate::index_file::{self, Header, IndexFile};
use crate::sample::Counts;

/// The index that goes with a pool, in its folder.
pub const INDEX: &str = "sweep.index";
/// While much is hashed, what is known so far is written so often, so that a kill costs no more.
const SAVE_EVERY: Duration = Duration::from_secs(20);

/// What is known of a pool.
#[derive(Debug, Clone)]
pub struct Identity {
    /// sha256 of the shards' names and contents, the class names, the templates and the kind of data set, 64 hex
    /// digits.
    pub digest: String,
    /// The shards by name.
    pub shards: BTreeMap<String, ShardContent>,
    /// Samples of all shards.
    pub counts: Counts,
    /// Shards that were read now and hold something else than when they were read before.
    pub noticed: Vec<String>,
    /// Lines of `classnames.txt`.
    pub class_names: Vec<String>,
    /// Lines of `zeroshot_classification_templates.txt`.
    pub templates: Vec<String>,
    /// How texts and classes are read.
    pub dataset_type: DatasetType,
    checks: Checks,
}

/// Where the checks of images are: they are 8 bytes a pair, and most who ask which pool it is need none.
#[derive(Debug, Clone)]
enum Checks {
    /// In files, each those of these shards.
    In(Vec<(IndexFile, Vec<String>)>),
    Here(BTreeMap<String, Vec<u64>>),
}

impl Checks {
    fn read(&self) -> Result<BTreeMap<String, Vec<u64>>, Error> {
        let files = match self {
            Checks::Here(checks) => return Ok(checks.clone()),
            Checks::In(files) => files,
        };
        let mut all = BTreeMap::new();
        for (file, names) in files {
            let mut checks = file.checks()?;
            all.extend(names.iter().filter_map(|name| checks.remove_entry(name)));
        }
        Ok(all)
    }
}

impl Identity {
    /// The checks of the images of all pairs, by shard and in the shard's order: see [`crate::image_check`].
    pub fn checks(&self) -> Result<BTreeMap<String, Vec<u64>>, Error> {
        self.checks.read()
    }

    /// Compares what `list` (`sizes.json`, `manifest.json`) says of shards, in whatever order, with what they hold.
    pub fn check_counts<'a>(&self, list: &Path, said: impl IntoIterator<Item = (&'a str, u64)>) -> Result<(), Error> {
        said.into_iter().try_for_each(|(name, said)| match self.shards.get(name) {
            Some(found) => folder::check_count(list, &list.with_file_name(name), said, &found.counts),
            None => Ok(()),
        })
    }

    /// Where images lie in the shards, 16 hex digits: what a list of offsets is good for.
    pub fn places(&self) -> String {
        let mut hash = Sha256::new();
        for shard in self.shards.values() {
            content::text(&mut hash, &shard.places);
        }
        format!("{:x}", hash.finalize())[..16].to_owned()
    }

    /// Shards whose content was another one when they were first read here.
    pub fn changed(&self) -> Vec<&str> {
        let changed = self.shards.iter().filter(|(_, shard)| shard.before.is_some());
        changed.map(|(name, _)| name.as_str()).collect()
    }
}

/// Told while shards are hashed: bytes of those that are done, and of all that are to be hashed.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// For who tells nobody.
pub fn no_progress() -> impl FnMut(u64, u64) {
    |_, _| ()
}

/// The pool in `dir`. `elsewhere` is where to remember what was hashed if that can't be done beside the pool; without
/// it, and where neither can be written, it is hashed again each time.
pub fn identify(dir: &Path, elsewhere: Option<&Path>, progress: Progress) -> Result<Identity, Error> {
    let index = IndexFile::open(&dir.join(INDEX))?;
    read(dir, elsewhere, index.as_ref(), progress)
}

/// Hashes the pool in `dir` and writes its [`INDEX`], whatever an earlier one says.
pub fn write_index(dir: &Path, progress: Progress) -> Result<Identity, Error> {
    let identity = read(dir, None, None, progress)?;
    let names = names_digest(&identity.class_names, identity.dataset_type);
    let mut header = Header { class_names: names, shards: identity.shards.clone() };
    for shard in header.shards.values_mut() {
        (shard.stat, shard.before) = (None, None);
    }
    // It will be younger than all shards, so it must not speak for one that was written meanwhile.
    for shard in folder::list(dir)? {
        let hashed = identity.shards.get(&file_name(&shard)).and_then(|known| known.stat);
        if hashed.is_some_and(|hashed| Stat::at(&shard).is_ok_and(|now| now != hashed)) {
            return Err(Error::BeingWritten { shard });
        }
    }
    let path = dir.join(INDEX);
    index_file::write(&path, &header, &identity.checks()?).map_err(Error::io("write", &path))?;
    Ok(identity)
}

fn read(
    dir: &Path,
    elsewhere: Option<&Path>,
    index: Option<&IndexFile>,
    progress: Progress,
) -> Result<Identity, Error> {
    let paths = folder::list(dir)?;
    let said = folder::sizes(dir, &paths)?;
    let (class_names, templates) = (folder::class_names(dir)?, folder::templates(dir)?);
    let dataset_type = folder::dataset_type(dir)?;
    let names = names_digest(&class_names, dataset_type);
    if let Some(index) = index {
        fits(index, &paths, &names)?;
    }
    let places = Places::of(dir, elsewhere);
    let (mut found, mut missing) = places.known(&paths, &names, index)?;
    let mut noticed = Vec::new();
    if !missing.is_empty() {
        // One process of a machine hashes, the others wait and find it done. Without a place to lock, all do.
        let _lock = places.lock();
        (found, missing) = places.known(&paths, &names, index)?;
        if !missing.is_empty() {
            let (earlier, checks) = (places.earlier(), found.checks.read()?);
            let names = &names;
            let mut memory =
                Memory { places: &places, names, earlier, shards: found.shards, checks, noticed, saved: None };
            let hashed = hash(&missing, (&class_names, dataset_type), index, &mut memory, progress);
            memory.save();
            hashed?;
            found = Known { shards: memory.shards, checks: Checks::Here(memory.checks) };
            noticed = memory.noticed;
        }
    }
    let shards = found.shards;
    let mut counts = Counts::default();
    for shard in shards.values() {
        counts.add(&shard.counts);
    }
    let digest = digest(&shards, &class_names, &templates, dataset_type);
    let checks = found.checks;
    let identity = Identity { digest, shards, counts, noticed, class_names, templates, dataset_type, checks };
    if let Some(said) = said {
        identity.check_counts(&dir.join(folder::SIZES), said.iter().map(|(name, said)| (name.as_str(), *said)))?;
    }
    Ok(identity)
}

fn digest(
    shards: &BTreeMap<String, ShardContent>,
    class_names: &[String],
    templates: &[String],
    kind: DatasetType,
) -> String {
    let mut hash = Sha256::new();
    hash.update("pool 1\n");
    hash_kind(&mut hash, kind);
    for list in [class_names, templates] {
        content::texts_in_order(&mut hash, list);
    }
    for (name, shard) in shards {
        content::text(&mut hash, name);
        content::text(&mut hash, &shard.content);
    }
    format!("{:x}", hash.finalize())
}

/// The usual kind leaves no trace: pools are what they were before there were others.
fn hash_kind(hash: &mut Sha256, kind: DatasetType) {
    if kind != DatasetType::Pairs {
        hash.update(kind.name());
    }
}

/// Of all beside a shard that its samples depend on.
fn names_digest(class_names: &[String], kind: DatasetType) -> String {
    let mut hash = Sha256::new();
    hash_kind(&mut hash, kind);
    content::texts_in_order(&mut hash, class_names);
    format!("{:x}", hash.finalize())
}

/// An index speaks of the shards that are there, with their lengths, and of no others.
fn fits(index: &IndexFile, paths: &[PathBuf], names: &str) -> Result<(), Error> {
    let refused = |reason: String| Error::Metadata {
        path: index.path.clone(),
        reason,
        hint: format!("if the pool is right as it is, call `sweep-pool index` again, or delete {INDEX}"),
    };
    if index.header.class_names != names {
        return Err(refused(format!(
            "{} or {} has changed since the pool was indexed",
            folder::CLASS_NAMES,
            folder::DATASET_TYPE
        )));
    }
    for path in paths {
        let name = file_name(path);
        let Some(entry) = index.header.shards.get(&name) else {
            return Err(refused(format!("shard `{name}` lies beside it but is not in it")));
        };
        let bytes = Stat::at(path)?.size();
        if bytes != entry.bytes {
            let said = entry.bytes;
            return Err(refused(format!("shard `{name}` has changed: it has {bytes} bytes, and {said} when indexed")));
        }
    }
    let there: BTreeSet<String> = paths.iter().map(|path| file_name(path)).collect();
    match index.header.shards.keys().find(|name| !there.contains(*name)) {
        Some(gone) => Err(refused(format!("it lists shard `{gone}`, which is not there"))),
        None => Ok(()),
    }
}

/// Shards whose content is known.
struct Known {
    shards: BTreeMap<String, ShardContent>,
    checks: Checks,
}

/// Where hashes are remembered: the first that can be written.
struct Places(Vec<PathBuf>);

impl Places {
    fn of(dir: &Path, elsewhere: Option<&Path>) -> Places {
        let name = |elsewhere: &Path| {
            let path = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
            let hash = format!("{:x}", Sha256::digest(path.as_os_str().as_encoded_bytes()));
            elsewhere.join(format!("{}.index", &hash[..32]))
        };
        Places(std::iter::once(dir.join(".cache").join(INDEX)).chain(elsewhere.map(name)).collect())
    }

    /// What is known of the shards without reading them, and those that must be read.
    fn known<'a>(
        &self,
        paths: &'a [PathBuf],
        names: &str,
        index: Option<&IndexFile>,
    ) -> Result<(Known, Vec<&'a Path>), Error> {
        let remembered: Vec<IndexFile> = self
            .0
            .iter()
            // One that can't be used is written anew.
            .filter_map(|path| IndexFile::open(path).ok().flatten())
            .filter(|file| file.header.class_names == names)
            .collect();
        let index_stat = index.map(|index| Stat::at(&index.path)).transpose()?;
        let (mut shards, mut missing) = (BTreeMap::new(), Vec::new());
        let mut from: BTreeMap<&Path, (IndexFile, Vec<String>)> = BTreeMap::new();
        for path in paths {
            let (name, stat) = (file_name(path), Stat::at(path)?);
            let indexed = index_stat.filter(|written| stat.written_before(written));
            let entry = |file: &IndexFile| file.header.shards.get(&name).cloned();
            // The index was not told of a shard that was put in its place later, however old that one is.
            let replaced = remembered
                .iter()
                .filter_map(entry)
                .filter_map(|shard| shard.stat)
                .any(|known| (known.size(), known.mtime) != (stat.size(), stat.mtime));
            let of_index =
                || index.filter(|_| indexed.is_some() && !replaced).and_then(|file| Some((file, entry(file)?)));
            let of_memory = remembered
                .iter()
                .find_map(|file| entry(file).filter(|shard| shard.stat == Some(stat)).map(|shard| (file, shard)));
            match of_memory.or_else(of_index) {
                Some((file, shard)) => {
                    let (_, names) = from.entry(&file.path).or_insert_with(|| (file.clone(), Vec::new()));
                    names.push(name.clone());
                    shards.insert(name, shard);
                }
                None => missing.push(path.as_path()),
            }
        }
        let checks = Checks::In(from.into_values().collect());
        Ok((Known { shards, checks }, missing))
    }

    /// What was remembered of shards, whether or not they are the same files still.
    fn earlier(&self) -> BTreeMap<String, ShardContent> {
        let files = self.0.iter().rev().filter_map(|path| IndexFile::open(path).ok().flatten());
        files.flat_map(|file| file.header.shards).collect()
    }

    fn lock(&self) -> Option<File> {
        let make = |path: &PathBuf| {
            fs::create_dir_all(path.parent()?).ok()?;
            let lock = File::create(path.with_extension("lock")).ok()?;
            lock.lock().ok().map(|()| lock)
        };
        self.0.iter().find_map(make)
    }
}

/// What is known and where it is kept.
struct Memory<'a> {
    places: &'a Places,
    names: &'a str,
    earlier: BTreeMap<String, ShardContent>,
    shards: BTreeMap<String, ShardContent>,
    checks: BTreeMap<String, Vec<u64>>,
    noticed: Vec<String>,
    /// When it was last written, and how long that took.
    saved: Option<(Instant, Duration)>,
}

impl Memory<'_> {
    fn add(&mut self, name: String, (mut shard, checks): Hashed) {
        match self.earlier.get(&name) {
            Some(earlier) if earlier.content != shard.content => {
                shard.before = Some(earlier.content.clone());
                self.noticed.push(name.clone());
            }
            earlier => shard.before = earlier.and_then(|earlier| earlier.before.clone()),
        }
        self.checks.insert(name.clone(), checks);
        self.shards.insert(name, shard);
    }

    /// Writes what is known so far, where that can be done. Where it can't, on a full disk too, it is hashed again.
    fn save(&mut self) {
        let begun = Instant::now();
        let header = Header { class_names: self.names.to_owned(), shards: self.shards.clone() };
        let write = |path: &PathBuf| {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            index_file::write(path, &header, &self.checks)
        };
        self.places.0.iter().any(|path| write(path).is_ok());
        self.saved = Some((Instant::now(), begun.elapsed()));
    }

    fn is_due(&self, begun: Instant) -> bool {
        let (last, took) = self.saved.unwrap_or((begun, Duration::ZERO));
        last.elapsed() > SAVE_EVERY.max(20 * took)
    }
}

/// Hashes what is missing, by as many threads as there are cores. An error is that of the first shard that has one.
fn hash(
    missing: &[&Path],
    (class_names, kind): (&[String], DatasetType),
    index: Option<&IndexFile>,
    memory: &mut Memory,
    progress: Progress,
) -> Result<(), Error> {
    let begun = Instant::now();
    let lengths: Vec<u64> = missing.iter().map(|path| Ok(Stat::at(path)?.size())).collect::<Result<_, Error>>()?;
    let (total, mut done) = (lengths.iter().sum(), 0);
    progress(0, total);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(missing.len()).max(1);
    let next = AtomicUsize::new(0);
    let (to, from) = mpsc::channel();
    let mut failed: Option<(usize, Error)> = None;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (to, next) = (to.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = missing.get(at) else { return };
                    let hashed = content::hash(path, class_names, kind);
                    if hashed.is_err() {
                        // Those that others are at are told too; the rest would be hours of work for nothing.
                        next.store(missing.len(), Ordering::Relaxed);
                    }
                    if to.send((at, hashed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to);
        for (at, hashed) in from {
            done += lengths[at];
            progress(done, total);
            match hashed.and_then(|hashed| as_indexed(index, missing[at], hashed)) {
                Ok(hashed) => memory.add(file_name(missing[at]), hashed),
                Err(error) if failed.as_ref().is_none_or(|(first, _)| at < *first) => failed = Some((at, error)),
                Err(_) => {}
            }
            if memory.is_due(begun) {
                memory.save();
            }
        }
        failed.map_or(Ok(()), |(_, error)| Err(error))
    })
}

type Hashed = (ShardContent, Vec<u64>);

/// A shard that the pool's index knows must be what it says.
fn as_indexed(index: Option<&IndexFile>, path: &Path, hashed: Hashed) -> Result<Hashed, Error> {
    let name = file_name(path);
    match index.and_then(|index| Some((index, index.header.shards.get(&name)?))) {
        Some((index, entry)) if entry.content != hashed.0.content => {
            Err(Error::Changed { shard: path.to_owned(), list: index.path.clone() })
        }
        _ => Ok(hashed),
    }
}
