//! What others published, read into plain jobs and measurements. Pure: bytes in, [`Imported`] out.
//!
//! One file a source: [`openclip_2022`] the CSVs of the 2022 study, [`clip_benchmark`] JSON and CSV of CLIP_benchmark
//! and its probes, [`open_clip`] run folders of the trainer, [`table`] any table by a [`mapping`] of expressions.
//! Nothing is left out silently: what can't be read is an error or a warning that names the rows.

mod benchmarks;

pub mod clip_benchmark;

pub mod mapping;

pub mod open_clip;

pub mod openclip_2022;

mod possible;

pub mod table;

use protocol::ModelSize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::table::{Table, TableError};
use crate::spec::{nearest, shipped, sized_for};
use crate::store::import::{Imported, ImportedPool};

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Name for messages and provenance, without the folder given by the user.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Why nothing could be read. What concerns single rows is a warning instead.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Not JSON.
    #[error("{name} is not JSON")]
    Json {
        /// File.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A file that the source needs.
    #[error("there is no {name} in {folder}: {wanted}")]
    Missing {
        /// File.
        name: String,
        /// Folder.
        folder: String,
        /// What has to be there.
        wanted: &'static str,
    },
    /// A column that the source needs.
    #[error("{name} has no column `{column}`; it has {there}")]
    Column {
        /// File.
        name: String,
        /// Column.
        column: String,
        /// Its columns.
        there: String,
    },
    /// A `--map` that makes no sense.
    #[error(transparent)]
    Map(#[from] mapping::MapError),
    /// A file of another kind.
    #[error("{name}: {reason}")]
    Content {
        /// File.
        name: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Nothing that can be stored.
    #[error("no row of {name} can be imported")]
    Nothing {
        /// File or folder.
        name: String,
        /// Warnings of the rows.
        warnings: Vec<String>,
    },
}

impl SourceFile {
    /// sha256 of the content, 64 hex digits.
    pub fn sha256(&self) -> String {
        format!("{:x}", Sha256::digest(&self.bytes))
    }

    fn table(&self) -> Result<Table, TableError> {
        Table::read(&self.name, &self.bytes)
    }

    /// JSON as Python writes it: `NaN` and the infinities, which JSON does not have, become `null`.
    fn json(&self) -> Result<Value, ReadError> {
        let text = without_nan(&String::from_utf8_lossy(&self.bytes));
        serde_json::from_str(&text).map_err(|source| ReadError::Json { name: self.name.clone(), source })
    }

    /// JSON Lines; empty lines are skipped.
    fn json_lines(&self) -> Result<Vec<Value>, ReadError> {
        let text = without_nan(&String::from_utf8_lossy(&self.bytes));
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = |(at, line): (usize, &str)| {
            let name = format!("{}:{}", self.name, at + 1);
            serde_json::from_str(line).map_err(|source| ReadError::Json { name, source })
        };
        lines.map(read).collect()
    }
}

/// Sizes of data sets that models are commonly trained on, pairs. LAION: what the 2022 study trained on
/// (samples_per_epoch of its trained_models_info.csv; LAION-2B from Schuhmann et al. 2022); CLIP-WIT: Radford et al.
/// 2021.
const POOLS: &[(&str, i64)] =
    &[("LAION-80M", 80_000_415), ("LAION-400M", 407_332_084), ("LAION-2B", 2_322_161_808), ("CLIP-WIT", 400_000_000)];

fn pool(name: &str) -> Option<ImportedPool> {
    POOLS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(name, samples)| ImportedPool { name: name.to_owned(), samples: Some(samples) })
}

/// Size of a model that comes with `sweep`, by OpenCLIP's name; QuickGELU changes no size.
fn model_size(name: &str, image_size: Option<u64>, context_length: Option<u64>) -> Option<ModelSize> {
    let model = shipped(name).or_else(|| shipped(name.strip_suffix("-quickgelu")?))?;
    let config = sized_for(model.config, image_size, context_length);
    config.check().is_empty().then(|| config.size())
}

/// Finds the columns of a table that a source has to have.
fn columns<const N: usize>(table: &Table, names: [&str; N]) -> Result<[usize; N], ReadError> {
    let mut found = [0; N];
    for (at, name) in found.iter_mut().zip(names) {
        *at = table.column(name).ok_or_else(|| ReadError::Column {
            name: table.name.clone(),
            column: name.to_owned(),
            there: list_of(table.columns.iter().map(|name| format!("`{name}`"))),
        })?;
    }
    Ok(found)
}

/// A finite number.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// `a, b, c`; beyond 12 the number of the others.
fn list_of(items: impl IntoIterator<Item = String>) -> String {
    const SHOWN: usize = 12;
    let items: Vec<String> = items.into_iter().collect();
    match items.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", items[..SHOWN].join(", ")),
        _ => items.join(", "),
    }
}

/// Two numbers that agree to a share of the larger.
fn agree(one: f64, other: f64, share: f64) -> bool {
    (one - other).abs() <= share * one.abs().max(other.abs())
}

/// `null` for the words `NaN`, `Infinity` and `-Infinity` outside of strings.
fn without_nan(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let taken = match (word, first) {
            (Some(word), _) => {
                clean.push_str("null");
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') if quoted => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            (None, _) => {
                quoted ^= first == '"';
                first.len_utf8()
            }
        };
        clean.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    clean
}

/// What the user may have meant.
fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or(String::new(), |found| format!("; did you mean `{found}`?"))
}

/// The studies without what can't be, or an error where no job of them is left.
fn or_nothing(name: &str, mut imported: Imported) -> Result<Imported, ReadError> {
    imported.warnings.extend(possible::keep(&mut imported.studies));
    if imported.studies.iter().all(|study| study.jobs.is_empty()) {
        imported.warnings.extend(imported.failed);
        return Err(ReadError::Nothing { name: name.to_owned(), warnings: imported.warnings });
    }
    Ok(imported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nan_is_null_outside_of_strings() {
        let text = r#"{"NaN": [NaN, -Infinity, 1.5, "a \"NaN\" \\"], "b": Infinity}"#;
        let value: Value = serde_json::from_str(&without_nan(text)).expect("JSON");
        assert_eq!(value.to_string(), r#"{"NaN":[null,null,1.5,"a \"NaN\" \\"],"b":null}"#);
    }

    #[test]
    fn lists_are_short() {
        assert_eq!(list_of((0..3).map(|i| i.to_string())), "0, 1, 2");
        assert_eq!(list_of((0..14).map(|i| i.to_string())), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more");
    }

    proptest! {
        #[test]
        fn json_of_ours_is_left_alone(keys in prop::collection::vec("[\\PC\"\\\\]{0,8}", 0..5)) {
            let text = serde_json::json!(keys).to_string();
            prop_assert_eq!(without_nan(&text), text);
        }
    }
}
