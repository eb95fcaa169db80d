//! A split of a data set in CLIP_benchmark's layout: `SPLIT/0.tar`, `SPLIT/nshards.txt`, and above it the files that
//! all splits share. CLIP_benchmark and open_clip read it as it is, and so do pools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use shards::{CLASS_NAMES, DATASET_TYPE, DatasetType, SHARD_COUNT, TEMPLATES};

use super::{Error, io};

/// Images of a full shard, and bytes: CLIP_benchmark's own.
const SHARD_IMAGES: usize = 10_000;
const SHARD_BYTES: u64 = 1_000_000_000;

/// An image and what belongs to it.
pub(super) struct Item {
    pub(super) image: PathBuf,
    pub(super) label: Label,
}

pub(super) enum Label {
    Class(u32),
    /// One or more, none with a line break where they are several.
    Captions(Vec<String>),
}

/// What lies above the splits.
pub(super) struct Above {
    pub(super) class_names: Vec<String>,
    pub(super) templates: Vec<String>,
    pub(super) dataset_type: Option<DatasetType>,
}

/// Writes `OUT/SPLIT`, which must not be there yet, under another name and renames it. Keys are numbers in the order of
/// the items. What lies above the splits must be what is there already.
pub(super) fn write(out: &Path, split: &str, items: &[Item], above: &Above) -> Result<PathBuf, Error> {
    let (folder, temporary) = (out.join(split), out.join(format!(".{split}.tmp")));
    begin(&folder, &temporary)?;
    let mut sizes = BTreeMap::new();
    let mut items = items.iter().enumerate().peekable();
    while items.peek().is_some() {
        let name = format!("{}.tar", sizes.len());
        let path = temporary.join(&name);
        let file = File::create(&path).map_err(io("write", &path))?;
        let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
        let (mut images, mut bytes) = (0_usize, 0_u64);
        while let Some((at, item)) = items.next_if(|_| images < SHARD_IMAGES && bytes < SHARD_BYTES) {
            let image = fs::read(&item.image).map_err(io("read", &item.image))?;
            let Some(extension) = kind(&image) else {
                return Err(Error::Source {
                    path: item.image.clone(),
                    reason: "it is no JPEG, PNG or WebP image".into(),
                });
            };
            let key = format!("s{at:07}");
            let (text, of_text) = match &item.label {
                Label::Class(class) => (class.to_string(), "cls"),
                Label::Captions(captions) => (captions.join("\n"), "txt"),
            };
            for (extension, member) in [(extension, &image[..]), (of_text, text.as_bytes())] {
                append(&mut tar, &format!("{key}.{extension}"), member).map_err(io("write", &path))?;
            }
            (images, bytes) = (images + 1, bytes + image.len() as u64);
        }
        let file = tar.into_inner().and_then(|out| out.into_inner().map_err(std::io::IntoInnerError::into_error));
        file.and_then(|file| file.sync_all()).map_err(io("write", &path))?;
        sizes.insert(name, images);
    }
    let text = serde_json::to_string(&sizes).expect("names and numbers are JSON");
    write_whole(&temporary.join("sizes.json"), &(text + "\n"))?;
    finish(out, &folder, &temporary, sizes.len(), above)
}

/// Lays a pool out as a split: links to its shards, and its names above them. Nothing is copied.
pub fn link(pool: &Path, out: &Path, split: &str, kind: DatasetType) -> Result<PathBuf, Error> {
    let refused = |error: shards::Error| {
        let reason = format!("{error}\nhint: {}", error.hint());
        Error::Source { path: pool.to_owned(), reason }
    };
    let shards = shards::list(pool).map_err(refused)?;
    let mut above = Above { class_names: Vec::new(), templates: Vec::new(), dataset_type: Some(kind) };
    if kind != DatasetType::Retrieval {
        above.class_names = shards::class_names(pool).map_err(refused)?;
        // CLIP_benchmark fills templates with `format(c=...)`.
        above.templates = shards::templates(pool).map_err(refused)?.iter().map(|t| t.replace("{}", "{c}")).collect();
        if above.class_names.is_empty() || above.templates.is_empty() {
            let reason = format!("it has no {CLASS_NAMES} or no {TEMPLATES}, which {} needs", kind.name());
            return Err(Error::Source { path: pool.to_owned(), reason });
        }
    }
    let (folder, temporary) = (out.join(split), out.join(format!(".{split}.tmp")));
    begin(&folder, &temporary)?;
    for (nth, shard) in shards.iter().enumerate() {
        let shard = fs::canonicalize(shard).map_err(io("find", shard))?;
        let link = temporary.join(format!("{nth}.tar"));
        std::os::unix::fs::symlink(&shard, &link).map_err(io("link", &link))?;
    }
    finish(out, &folder, &temporary, shards.len(), &above)
}

fn begin(folder: &Path, temporary: &Path) -> Result<(), Error> {
    if folder.exists() {
        let reason = "it is there already: delete it to make it anew, or give another --split or --out".into();
        return Err(Error::Source { path: folder.to_owned(), reason });
    }
    match fs::remove_dir_all(temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", temporary)(error)),
        _ => fs::create_dir_all(temporary).map_err(io("create", temporary))?,
    }
    Ok(())
}

fn finish(out: &Path, folder: &Path, temporary: &Path, shards: usize, above: &Above) -> Result<PathBuf, Error> {
    write_whole(&temporary.join(SHARD_COUNT), &format!("{shards}\n"))?;
    let lines = |lines: &[String]| (!lines.is_empty()).then(|| lines.join("\n") + "\n");
    let kind = above.dataset_type.filter(|kind| *kind != DatasetType::Pairs);
    let texts = [
        (CLASS_NAMES, lines(&above.class_names)),
        (TEMPLATES, lines(&above.templates)),
        (DATASET_TYPE, kind.map(|kind| format!("{}\n", kind.name()))),
    ];
    // All are looked at before any is written.
    for (name, text) in &texts {
        let path = out.join(name);
        let there = fs::read_to_string(&path).ok();
        if there.is_some() && there != *text {
            let reason = "another split has another one: all splits of a data set share it; give another --out".into();
            return Err(Error::Source { path, reason });
        }
    }
    for (name, text) in &texts {
        if let Some(text) = text.as_ref().filter(|_| !out.join(name).exists()) {
            let hidden = out.join(format!(".{name}.tmp"));
            write_whole(&hidden, text)?;
            fs::rename(&hidden, out.join(name)).map_err(io("rename", &hidden))?;
        }
    }
    fs::rename(temporary, folder).map_err(io("rename", temporary))?;
    Ok(folder.to_owned())
}

fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = File::create(path).map_err(io("write", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io("write", path))
}

fn append(to: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    to.append_data(&mut header, name, bytes)
}

/// By the first bytes, whatever the file is called.
fn kind(image: &[u8]) -> Option<&'static str> {
    match image {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}
