//! All shards of a pool as one list in hash order: the order that data sizes cut.

use std::collections::HashMap;

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
    /// First bytes of its image's hash: see [`shards::image_check`].
    pub(crate) check: u64,
}

/// Scans all shards and sorts their samples by sha256(key). They must be those that `info` was told of.
pub(crate) fn build(info: &PoolInfo) -> Result<Vec<Entry>, Error> {
    let shards = &info.shards;
    let (class_names, kind) = (&info.identity.class_names, info.identity.dataset_type);
    let per_shard: Vec<Vec<Sample>> =
        shards.par_iter().map(|path| shards::read(path, class_names, kind)).collect::<Result<_, _>>()?;
    let mut checks = info.identity.checks()?;
    let mut of_shards = Vec::new();
    for (path, samples) in shards.iter().zip(&per_shard) {
        let name = file_name(path);
        let known = info.identity.shards.get(&name).is_some_and(|shard| shard.texts == shards::texts(samples));
        let pairs = samples.iter().filter(|sample| sample.content.is_ok()).count();
        let checks = checks.remove(&name).filter(|checks| checks.len() == pairs);
        let (true, Some(checks)) = (known, checks) else {
            return Err(Error::Changed { what: "its keys or captions are other ones".into(), shard: path.clone() });
        };
        of_shards.push(checks.into_iter());
    }
    let per_shard = per_shard
        .into_iter()
        .enumerate()
        .flat_map(|(shard, samples)| samples.into_iter().map(move |sample| (shard, sample)));
    let mut entries: Vec<Entry> = per_shard
        .map(|(shard, Sample { key, content })| {
            let check = if content.is_ok() { of_shards[shard].next().unwrap_or_default() } else { 0 };
            Entry { key, shard, content, check }
        })
        .collect();

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
