//! `manifest.json` of a pool: what is in its shards and where it came from.

use serde::{Deserialize, Serialize};

/// How data sizes are cut, for docs and errors.
pub const HASH_ORDER_DOC: &str = "samples are ordered by sha256(key); a data size of U means the first U in that order, so smaller sizes lie in larger ones";

/// Where the contents of a pool came from, beside its shards as `manifest.json`. No part of its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolManifest {
    /// Version of this file's form: 1.
    pub schema: u32,
    /// Name of the pool.
    pub name: String,
    /// Pairs over all shards.
    pub samples: u64,
    /// Side of the square images as packed, pixels.
    pub image_size: u32,
    /// Shards in order.
    pub shards: Vec<ShardEntry>,
    /// Archives that the pairs came from.
    pub sources: Vec<SourceEntry>,
    /// Filters, held-out lineages, counts of what was dropped: words and numbers for people.
    pub notes: Vec<String>,
}

/// One tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name, `00000.tar`.
    pub name: String,
    /// Pairs inside.
    pub samples: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// sha256, 64 hex digits.
    pub sha256: String,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Package and version, `@iconify-json/noto@1.2.9`.
    pub package: String,
    /// sha256 of the archive, 64 hex digits.
    pub sha256: String,
    /// SPDX licence of what was used of it.
    pub license: String,
    /// Pairs that came from it.
    pub samples: u64,
}
