//! Images that lie in folders or are listed in a table, packed as they are: their bytes go into the shards unchanged.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, delimited, io, split};
use crate::pack::split::{Above, Item, Label};

/// Extensions that torchvision's `ImageFolder` takes for images.
const IMAGES: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];
/// Of these, what pools hold.
const READ: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// Folder of the shards.
    pub folder: PathBuf,
    /// Images.
    pub images: u64,
    /// Images that no pool can hold, by extension.
    pub other_formats: BTreeMap<String, u64>,
}

/// Columns of a table of images, open_clip's by default.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Between fields.
    pub separator: char,
    /// Column of paths.
    pub image: String,
    /// Column of captions.
    pub caption: String,
}

/// Where a split goes and what is said of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Folder of the data set: its splits lie in it.
    pub out: PathBuf,
    /// Name of the split.
    pub split: String,
    /// Class names to use in place of the folders', one a line.
    pub class_names: Option<PathBuf>,
    /// Prompt templates, one a line.
    pub templates: Option<PathBuf>,
}

/// Packs a folder that has a folder for each class: classes in the order of their folders' names, as `ImageFolder`
/// numbers them.
pub fn pack_folder(folder: &Path, target: &Target) -> Result<Packed, Error> {
    let refused = |reason: String| Error::Source { path: folder.to_owned(), reason };
    let classes: Vec<PathBuf> = sorted(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    if classes.is_empty() {
        return Err(refused("it has no folder for a class: CLASS/IMAGE.jpg is wanted".into()));
    }
    let names = match &target.class_names {
        Some(path) => lines(path)?,
        None => classes.iter().map(|class| shards::file_name(class)).collect(),
    };
    if names.len() != classes.len() {
        return Err(refused(format!("it has {} folders, and there are {} class names", classes.len(), names.len())));
    }
    let (mut items, mut other_formats) = (Vec::new(), BTreeMap::new());
    for (class, folder) in classes.iter().enumerate() {
        let before = items.len();
        for path in files(folder)? {
            let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
            let extension = extension.unwrap_or_default();
            if READ.contains(&extension.as_str()) {
                items.push(Item { image: path, label: Label::Class(class as u32) });
            } else if IMAGES.contains(&extension.as_str()) {
                *other_formats.entry(extension).or_default() += 1;
            }
        }
        if items.len() == before {
            return Err(refused(format!("folder `{}` holds no jpg, jpeg, png or webp", shards::file_name(folder))));
        }
    }
    let templates = match &target.templates {
        Some(path) => lines(path)?,
        None => vec!["a photo of a {c}.".to_owned()],
    };
    let above = Above { class_names: names, templates, dataset_type: None };
    let images = items.len() as u64;
    let folder = split::write(&target.out, &target.split, &items, &above)?;
    Ok(Packed { folder, images, other_formats })
}

/// Packs the images of a table of paths and captions, a pair a row; or, for `retrieval`, all rows of one path as one
/// image with several captions. Relative paths start from `root`.
pub fn pack_table(
    table: &Path,
    columns: &Columns,
    retrieval: bool,
    root: &Path,
    target: &Target,
) -> Result<Packed, Error> {
    let refused = |reason: String| Error::Source { path: table.to_owned(), reason };
    let text = fs::read_to_string(table).map_err(io("read", table))?;
    let mut rows = delimited::rows(&text, columns.separator).map_err(refused)?.into_iter();
    let (_, header) = rows.next().ok_or_else(|| refused("it is empty".into()))?;
    let column = |name: &str| {
        header.iter().position(|field| field == name).ok_or_else(|| {
            let there = header.join("`, `");
            refused(format!(
                "it has no column `{name}`; there are `{there}`: see --csv-separator, --csv-img-key, --csv-caption-key"
            ))
        })
    };
    let (image, caption) = (column(&columns.image)?, column(&columns.caption)?);
    let mut items: Vec<Item> = Vec::new();
    let mut known: HashMap<PathBuf, usize> = HashMap::new();
    for (line, row) in rows {
        let (Some(path), Some(text)) = (row.get(image), row.get(caption)) else {
            return Err(refused(format!("line {line} has {} fields, the header {}", row.len(), header.len())));
        };
        let path = root.join(path);
        let text = if retrieval { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text.clone() };
        let earlier = known.get(&path).filter(|_| retrieval).map(|at| &mut items[*at].label);
        if let Some(Label::Captions(captions)) = earlier {
            captions.push(text);
        } else {
            known.insert(path.clone(), items.len());
            items.push(Item { image: path, label: Label::Captions(vec![text]) });
        }
    }
    let dataset_type = retrieval.then_some(shards::DatasetType::Retrieval);
    let above = Above { class_names: Vec::new(), templates: Vec::new(), dataset_type };
    let images = items.len() as u64;
    let folder = split::write(&target.out, &target.split, &items, &above)?;
    Ok(Packed { folder, images, other_formats: BTreeMap::new() })
}

/// Files below a folder, at any depth, folder by folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (folders, mut found): (Vec<_>, Vec<_>) = sorted(folder)?.into_iter().partition(|path| path.is_dir());
    for folder in folders {
        found.extend(files(&folder)?);
    }
    Ok(found)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(io("list", folder))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>().map_err(io("list", folder))?;
    paths.sort();
    Ok(paths)
}

fn lines(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
