//! All shards of a pool as one list in hash order: the order that data sizes cut.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::layout::file_name;
use crate::shard::{self, Sample, Span};

/// One sample, good as far as its text goes; its image is not decoded yet.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// File stem within the pool; `SHARD/STEM` where the stem repeats.
    pub(crate) key: String,
    /// Position in the list of shards.
    pub(crate) shard: usize,
    /// What the sample holds, or why it is skipped.
    pub(crate) content: Result<Content, String>,
}

/// What a good sample holds.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) image: Span,
    pub(crate) caption: String,
    pub(crate) class: Option<u32>,
}

/// Scans all shards and sorts their samples by sha256(key). `class_names` stand in for captions in pools that have
/// classes only.
pub(crate) fn build(shards: &[PathBuf], class_names: &[String]) -> Result<Vec<Entry>, Error> {
    let per_shard: Vec<Vec<Entry>> = shards
        .par_iter()
        .enumerate()
        .map(|(shard, path)| {
            let samples = shard::scan(path)?;
            let file = File::open(path).map_err(Error::io("read", path))?;
            let entries = samples.into_iter().map(|sample| {
                let content = read_content(&file, &sample, class_names).map_err(Error::io("read", path))?;
                Ok(Entry { key: sample.key, shard, content })
            });
            entries.collect::<Result<_, Error>>()
        })
        .collect::<Result<_, Error>>()?;
    let mut entries: Vec<Entry> = per_shard.into_iter().flatten().collect();

    let mut uses: HashMap<String, u32> = HashMap::new();
    for entry in &entries {
        *uses.entry(entry.key.clone()).or_default() += 1;
    }
    for entry in &mut entries {
        if uses[&entry.key] > 1 {
            entry.key = format!("{}/{}", file_name(&shards[entry.shard]), entry.key);
        }
    }
    entries.sort_by_cached_key(|entry| <[u8; 32]>::from(Sha256::digest(&entry.key)));
    Ok(entries)
}

/// Outer error: the shard cannot be read. Inner error: this sample is skipped, and why.
fn read_content(file: &File, sample: &Sample, class_names: &[String]) -> std::io::Result<Result<Content, String>> {
    if sample.repeated {
        return Ok(Err("its key was there before in this shard".into()));
    }
    let Some(image) = sample.image else { return Ok(Err("it has no jpg, jpeg, png or webp".into())) };
    let class = match sample.class {
        None => None,
        Some(span) => {
            let text = String::from_utf8_lossy(&shard::read(file, span)?).trim().to_owned();
            match text.parse::<u32>() {
                Ok(class) => Some(class),
                Err(_) => return Ok(Err(format!("its class `{text}` is not a whole number"))),
            }
        }
    };
    let caption = match (sample.caption, class.and_then(|class| class_names.get(class as usize))) {
        (Some(span), _) => match String::from_utf8(shard::read(file, span)?) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => return Ok(Err("its caption is not UTF-8".into())),
        },
        (None, Some(name)) => name.clone(),
        (None, None) => return Ok(Err("it has no caption (txt)".into())),
    };
    if caption.is_empty() {
        return Ok(Err("its caption is empty".into()));
    }
    Ok(Ok(Content { image, caption, class }))
}
