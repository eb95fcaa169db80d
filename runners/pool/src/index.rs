//! All shards of a pool as one list in hash order: the order that data sizes cut.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use shards::{Content, Reason, Sample, file_name};

use crate::error::Error;
use crate::layout::PoolInfo;

/// One sample, good as far as its text goes; its image is not decoded yet.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// File stem within the pool; `SHARD/STEM` where the stem repeats.
    pub(crate) key: String,
    /// Position in the list of shards.
    pub(crate) shard: usize,
    /// What the sample holds, or why it is skipped.
    pub(crate) content: Result<Content, Reason>,
}

/// Scans all shards and sorts their samples by sha256(key). `class_names` stand in for captions in pools that have
/// classes only.
pub(crate) fn build(info: &PoolInfo, class_names: &[String]) -> Result<Vec<Entry>, Error> {
    let shards = &info.shards;
    let per_shard: Vec<Vec<Sample>> =
        shards.par_iter().map(|path| shards::read(path, class_names)).collect::<Result<_, _>>()?;
    if let Some((list, said)) = said(info)? {
        for (path, samples) in shards.iter().zip(&per_shard) {
            if let Some(&said) = said.get(&file_name(path)) {
                shards::check_count(&list, path, said, &shards::count(samples))?;
            }
        }
    }
    let per_shard = per_shard
        .into_iter()
        .enumerate()
        .map(|(shard, samples)| samples.into_iter().map(move |Sample { key, content }| Entry { key, shard, content }));
    let mut entries: Vec<Entry> = per_shard.flatten().collect();

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

/// A list of shards and what it says that each holds.
type SaidCounts = (PathBuf, BTreeMap<String, u64>);

/// Samples by shard as the pool itself gives them, and in which file.
fn said(info: &PoolInfo) -> Result<Option<SaidCounts>, Error> {
    if let Some(manifest) = &info.manifest {
        let said = manifest.shards.iter().map(|shard| (shard.name.clone(), shard.samples)).collect();
        return Ok(Some((info.dir.join("manifest.json"), said)));
    }
    Ok(shards::sizes(&info.dir, &info.shards)?.map(|said| (info.dir.join("sizes.json"), said)))
}
