//! Facts about characters, made by `tests/captions.py tables`: the references that HTML names, single-byte encodings,
//! and ftfy's classes of characters.

use std::collections::HashMap;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use serde::Deserialize;

/// See above.
#[derive(Deserialize)]
pub(super) struct Tables {
    /// Text of references by their names: with a semicolon, and some without.
    pub(super) entities: HashMap<String, String>,
    /// What bytes from 128 on mean.
    pub(super) maps: HashMap<String, String>,
    /// Characters by how likely they are beside each other, as the inside of a regex's class.
    pub(super) classes: HashMap<String, String>,
    /// Characters by what UTF-8's bytes look like in a single-byte encoding, likewise.
    pub(super) clues: HashMap<String, String>,
}

pub(super) static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let json = GzDecoder::new(&include_bytes!("tables.json.gz")[..]);
    serde_json::from_reader(json).expect("the shipped tables are valid")
});
