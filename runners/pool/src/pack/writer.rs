//! Pairs to a pool's folder: shards in hash order, `sizes.json`, `manifest.json`, class files, `ATTRIBUTION.tsv`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use protocol::{HASH_ORDER_DOC, PoolManifest, ShardEntry, SourceEntry};
use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Draft, Error, Pair, digest, io};
use crate::layout::hex;

/// How pairs are laid out.
pub(super) struct Form {
    /// Side of the square images, pixels.
    pub(super) image_size: u32,
    /// Pairs in a full shard.
    pub(super) shard_samples: usize,
    /// Write `KEY.json`, too.
    pub(super) with_json: bool,
}

/// Writes `draft` beside `folder` and renames it into place; what was there before is replaced.
pub(super) fn write(folder: &Path, draft: Draft, form: &Form) -> Result<(), Error> {
    let temporary = folder.with_extension("tmp");
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(io("create", &temporary))?;

    let mut pairs = draft.pairs;
    pairs.sort_by_cached_key(|pair| digest(&pair.key));
    let mut shards = Vec::new();
    for (index, pairs) in pairs.chunks(form.shard_samples).enumerate() {
        let name = format!("{index:05}.tar");
        let bytes = shard(pairs, form).map_err(io("build", temporary.join(&name)))?;
        write_file(&temporary.join(&name), &bytes)?;
        let (bytes, sha256) = (bytes.len() as u64, hex(&Sha256::digest(&bytes)));
        shards.push(ShardEntry { name, samples: pairs.len() as u64, bytes, sha256 });
    }

    let sizes: BTreeMap<&str, u64> = shards.iter().map(|shard| (shard.name.as_str(), shard.samples)).collect();
    write_json(&temporary.join("sizes.json"), &sizes)?;
    write_lines(&temporary.join("classnames.txt"), &draft.class_names)?;
    write_lines(&temporary.join("zeroshot_classification_templates.txt"), &draft.templates)?;
    let mut attribution = vec!["set\tname\tauthor\tlicense\turl\tpairs".to_owned()];
    attribution.extend(draft.attribution);
    write_lines(&temporary.join("ATTRIBUTION.tsv"), &attribution)?;

    let mut notes = draft.notes;
    notes.push(HASH_ORDER_DOC.into());
    let sources = draft.sources.into_iter().map(|(source, samples)| SourceEntry {
        package: source.package,
        sha256: source.sha256,
        license: source.license,
        samples,
    });
    let manifest = PoolManifest {
        schema: 1,
        name: draft.name,
        samples: pairs.len() as u64,
        image_size: form.image_size,
        shards,
        sources: sources.collect(),
        notes,
    };
    write_json(&temporary.join("manifest.json"), &manifest)?;

    remove(folder)?;
    fs::rename(&temporary, folder).map_err(io("rename", &temporary))
}

/// One tar file in memory: a few MB. Headers carry no time, owner or anything else that differs between two runs.
fn shard(pairs: &[Pair], form: &Form) -> std::io::Result<Vec<u8>> {
    let images: Vec<Vec<u8>> =
        pairs.par_iter().map(|pair| png(&pair.pixels, form.image_size)).collect::<Result<_, _>>()?;
    let mut tar = tar::Builder::new(Vec::new());
    for (pair, image) in pairs.iter().zip(images) {
        append(&mut tar, &pair.key, "png", &image)?;
        append(&mut tar, &pair.key, "txt", pair.caption.as_bytes())?;
        if form.with_json {
            append(&mut tar, &pair.key, "json", metadata(pair, form.image_size).as_bytes())?;
        }
        if let Some(class) = pair.class {
            append(&mut tar, &pair.key, "cls", class.to_string().as_bytes())?;
        }
    }
    tar.into_inner()
}

/// img2dataset's columns, then where the image came from.
fn metadata(pair: &Pair, size: u32) -> String {
    let fields = json!({
        "caption": pair.caption, "key": pair.key, "status": "success", "error_message": null,
        "width": size, "height": size, "original_width": size, "original_height": size,
        "set": pair.set, "license": pair.license,
    });
    fields.to_string()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, key: &str, extension: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, format!("{key}.{extension}"), bytes)
}

fn png(pixels: &[u8], size: u32) -> std::io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut bytes, pixels, size, size, image::ColorType::Rgb8, image::ImageFormat::Png)
        .map_err(std::io::Error::other)?;
    Ok(bytes.into_inner())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value).expect("numbers, text and lists are JSON");
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Nothing is written for no lines.
fn write_lines(path: &Path, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    write_file(path, (lines.join("\n") + "\n").as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(io("write", path))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", folder)(error)),
        _ => Ok(()),
    }
}
