//! A pool's folder: which shards it has, and the small files beside them. A split of a data set in CLIP_benchmark's
//! layout (`test/0.tar`, `test/nshards.txt`) has them in the folder above, for all splits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sample::{Counts, trim};

/// Line k, from 0, names class k.
pub const CLASS_NAMES: &str = "classnames.txt";
/// Samples by shard, as img2dataset's users write it.
pub(crate) const SIZES: &str = "sizes.json";
/// One prompt template a line.
pub const TEMPLATES: &str = "zeroshot_classification_templates.txt";
/// What kind of data set it is, where it is not the usual one: [`DatasetType`].
pub const DATASET_TYPE: &str = "dataset_type.txt";
/// How many shards, `0.tar` to `N-1.tar`, a split in CLIP_benchmark's layout has.
pub const SHARD_COUNT: &str = "nshards.txt";

/// How texts and classes of a pool are to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetType {
    /// One caption an image, which may have several lines, and perhaps one class.
    #[default]
    Pairs,
    /// A caption a line, so that an image has one or more.
    Retrieval,
    /// Any number of classes an image: `KEY.npy`, a vector of 0 and 1 with one number a class.
    Multilabel,
}

impl DatasetType {
    /// As in [`DATASET_TYPE`]; the usual kind has no word there but `classification`.
    pub const fn name(self) -> &'static str {
        match self {
            DatasetType::Pairs => "classification",
            DatasetType::Retrieval => "retrieval",
            DatasetType::Multilabel => "multilabel",
        }
    }
}

/// The shards of the pool in `dir`, sorted by name. Hidden files are some system's own. A compressed shard is an error
/// unless the plain one lies beside it: its pairs would be missing without a word.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    if !dir.is_dir() {
        return Err(Error::NoFolder { dir: dir.to_owned() });
    }
    let (mut shards, mut compressed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if file_name(&path).starts_with('.') {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "tar")
            && path.file_name().and_then(|n| n.to_str()).is_none()
        {
            return Err(Error::Metadata {
                path: path.clone(),
                reason: "its name is not UTF-8, and shards are known by their names".into(),
                hint: "give the shard another name".into(),
            });
        }
        if path.extension().is_some_and(|extension| extension == "tar") {
            // Follows links: shards are often linked in from elsewhere. One that leads nowhere is an error.
            if fs::metadata(&path).map_err(Error::io("read", &path))?.is_file() {
                shards.push(path);
            }
        } else if let Some(plain) = uncompressed_name(&path) {
            compressed.push((path, plain));
        }
    }
    compressed.sort();
    if let Some((shard, _)) = compressed.into_iter().find(|(_, plain)| !dir.join(plain).exists()) {
        let format = match shard.extension().and_then(|extension| extension.to_str()) {
            Some("zst") => "zstd",
            Some("bz2") => "bzip2",
            Some("xz") => "xz",
            _ => "gzip",
        };
        return Err(Error::Compressed { shard, format });
    }
    if shards.is_empty() {
        return Err(Error::NoShards { dir: dir.to_owned() });
    }
    shards.sort();
    check_shard_count(dir, &shards)?;
    Ok(shards)
}

/// A split that was fetched in part would be another pool without a word.
fn check_shard_count(dir: &Path, shards: &[PathBuf]) -> Result<(), Error> {
    let path = dir.join(SHARD_COUNT);
    let Some(bytes) = read_if_there(&path)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes);
    let refused = |reason: String| Error::Metadata {
        path: path.clone(),
        reason,
        hint: format!("fetch what is missing, or delete {SHARD_COUNT}: all shards of the folder are read then"),
    };
    let Ok(count) = trim(&text).parse::<usize>() else {
        return Err(refused(format!("`{}` is no number of shards", trim(&text))));
    };
    let missing = |nth: &usize| !shards.iter().any(|shard| file_name(shard) == format!("{nth}.tar"));
    match (0..count).find(missing) {
        Some(nth) => Err(refused(format!("it gives {count} shards, and `{nth}.tar` is not there"))),
        None if shards.len() > count => {
            Err(refused(format!("it gives {count} shards, and {} lie beside it", shards.len())))
        }
        None => Ok(()),
    }
}

/// Where the file `name` of the pool in `dir` is to be: for a split without one, in the folder above.
fn beside(dir: &Path, name: &str) -> PathBuf {
    let own = dir.join(name);
    match dir.parent() {
        Some(above) if !own.exists() && dir.join(SHARD_COUNT).exists() => above.join(name),
        _ => own,
    }
}

/// What [`DATASET_TYPE`] says; without it, the usual kind.
pub fn dataset_type(dir: &Path) -> Result<DatasetType, Error> {
    let path = beside(dir, DATASET_TYPE);
    let Some(bytes) = read_if_there(&path)? else { return Ok(DatasetType::Pairs) };
    let text = String::from_utf8_lossy(&bytes);
    let word = trim(&text).to_ascii_lowercase();
    let known = [DatasetType::Pairs, DatasetType::Retrieval, DatasetType::Multilabel];
    known.into_iter().find(|kind| kind.name() == word).ok_or_else(|| Error::Metadata {
        path,
        reason: format!(
            "`{word}` is no kind of data set that is read here; allowed: classification, retrieval, multilabel"
        ),
        hint: "correct the word, or delete the file: pairs with one caption each are read then".into(),
    })
}

/// `00000.tar.gz` -> `00000.tar`; `None` for what is no compressed shard.
pub(crate) fn uncompressed_name(path: &Path) -> Option<String> {
    let name = file_name(path);
    let plain = [".gz", ".zst", ".bz2", ".xz"].iter().find_map(|ending| name.strip_suffix(ending));
    match plain {
        Some(plain) => plain.strip_suffix(".tar").map(|_| plain.to_owned()),
        None => name.strip_suffix(".tgz").map(|stem| format!("{stem}.tar")),
    }
}

/// Samples by shard as `sizes.json` gives them, if it is there. It must name every shard and nothing else.
pub(crate) fn sizes(dir: &Path, shards: &[PathBuf]) -> Result<Option<BTreeMap<String, u64>>, Error> {
    let path = dir.join(SIZES);
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    let refused = |reason: String, hint: &str| Error::Metadata { path: path.clone(), reason, hint: hint.into() };
    let sizes: BTreeMap<String, u64> = serde_json::from_slice(&bytes).map_err(|error| {
        refused(
            format!("{error}; expected {{\"00000.tar\": 1000, ...}}"),
            "mend the file, or delete it: shards are counted then",
        )
    })?;
    let names: Vec<String> = shards.iter().map(|shard| file_name(shard)).collect();
    if let Some(missing) = names.iter().find(|name| !sizes.contains_key(*name)) {
        return Err(refused(
            format!("shard `{missing}` lies beside it but is not in it"),
            "add the shard, move it away, or delete sizes.json: shards are counted then",
        ));
    }
    if let Some(gone) = sizes.keys().find(|name| !names.contains(name)) {
        return Err(refused(
            format!("it lists shard `{gone}`, which is not there"),
            "fetch the shard, take it out of the list, or delete sizes.json: shards are counted then",
        ));
    }
    Ok(Some(sizes))
}

/// What a shard holds against what `list` (`sizes.json` or `manifest.json`) says: all its samples, its pairs alone, or
/// anything in between, since writers differ in what they count.
pub fn check_count(list: &Path, shard: &Path, said: u64, found: &Counts) -> Result<(), Error> {
    if (found.pairs..=found.samples()).contains(&said) {
        return Ok(());
    }
    let of_them = match found.samples() - found.pairs {
        0 => String::new(),
        skipped => format!(" and {skipped} samples that can't be used"),
    };
    Err(Error::Metadata {
        path: list.to_owned(),
        reason: format!("it gives shard `{}` {said} pairs, which holds {}{of_them}", file_name(shard), found.pairs),
        hint: format!("pack or fetch the shard again, or correct `{}`", file_name(list)),
    })
}

/// Lines of [`CLASS_NAMES`]; none without the file. Line k is class k, so an empty line is a class without a name.
/// Empty lines at the end are no classes.
pub fn class_names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut lines = lines(&beside(dir, CLASS_NAMES))?;
    lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
    Ok(lines)
}

/// Lines of [`TEMPLATES`] that are not empty; none without the file.
pub fn templates(dir: &Path) -> Result<Vec<String>, Error> {
    let mut lines = lines(&beside(dir, TEMPLATES))?;
    lines.retain(|line| !line.is_empty());
    Ok(lines)
}

/// Trimmed lines of a text, without a byte-order mark.
fn lines(path: &Path) -> Result<Vec<String>, Error> {
    let Some(bytes) = read_if_there(path)? else { return Ok(Vec::new()) };
    let text = String::from_utf8(bytes).map_err(|error| Error::Metadata {
        path: path.to_owned(),
        reason: format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1),
        hint: "save it as UTF-8".into(),
    })?;
    Ok(text.lines().map(|line| trim(line).to_owned()).collect())
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// A path's last part as text.
pub fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
