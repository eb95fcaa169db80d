//! What a source says of a job beside what is stored of it. Pure.

use std::collections::HashSet;

use serde_json::Value;

use super::rows::{Given, Known, Measured, Position};

/// Columns that say how far a run has come: of one that trains on they change.
const EXTENT: [&str; 9] = [
    "samples_seen",
    "exact_d",
    "unique_samples",
    "exact_u",
    "gmacs_samples",
    "train_flops",
    "six_nd",
    "train_secs",
    "gpus",
];

/// Parts of `source_detail` that say where a row was read: a file that was moved or has other rows says the same.
const PROVENANCE: [&str; 6] = ["file", "files", "sha256", "results_sha256", "row", "rows"];

/// What differs between a source and what is stored.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// The run has come further.
    pub(super) is_grown: bool,
    /// Stored is a later state of the run.
    pub(super) is_shorter: bool,
    /// Measurements that are not stored, by position in the source's list.
    pub(super) new: Vec<usize>,
    /// Measurements that are stored with another value.
    pub(super) changed: Vec<usize>,
    /// Stored measurements that the source does not have.
    pub(super) gone: Vec<Position>,
    /// Columns and measurements with both values, for people.
    pub(super) conflicts: Vec<String>,
}

pub(super) fn difference(given: &Given<'_>, known: &Known) -> Difference {
    let place = &given.job.place;
    let samples =
        |columns: &Value| columns.get("exact_d").or_else(|| columns.get("samples_seen")).and_then(Value::as_f64);
    let (stored, offered) = (samples(&compact(&known.columns)), samples(&compact(&given.compared)));
    let mut found = Difference::default();
    if let (true, Some(stored), Some(offered)) = (given.job.grows, stored, offered) {
        (found.is_grown, found.is_shorter) = (offered > stored, offered < stored);
    }
    let is_other_state = found.is_grown || found.is_shorter;
    if let Value::Object(columns) = &given.compared {
        for (name, offered) in columns {
            if !(is_other_state && EXTENT.contains(&name.as_str())) {
                differing(name, &known.columns[name], offered, place, &mut found.conflicts);
            }
        }
    }
    let mut seen = HashSet::new();
    for (nth, (position, offered)) in given.evaluations.iter().enumerate() {
        seen.insert(position);
        match known.evaluations.get(position) {
            None => found.new.push(nth),
            Some(stored) if stored != offered => {
                found.changed.push(nth);
                found.conflicts.push(measured_otherwise(place, position, stored, offered));
            }
            Some(_) => {}
        }
    }
    // A cell that differs is also in the detail.
    if !is_other_state && found.conflicts.is_empty() {
        let (stored, offered) = (without_provenance(&known.detail), without_provenance(&given.job.detail));
        differing("source_detail", &stored, &offered, place, &mut found.conflicts);
    }
    found.gone = known.evaluations.keys().filter(|position| !seen.contains(position)).cloned().collect();
    found.gone.sort();
    found
}

/// Without the columns that are `null`.
fn compact(columns: &Value) -> Value {
    let Value::Object(columns) = columns else { return Value::Null };
    Value::Object(columns.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn without_provenance(detail: &Value) -> Value {
    let Value::Object(detail) = detail else { return Value::Null };
    let kept = detail.iter().filter(|(name, _)| !PROVENANCE.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Adds a line for each value that is another; of objects, for each of their members.
fn differing(name: &str, stored: &Value, offered: &Value, place: &str, lines: &mut Vec<String>) {
    if let (Value::Object(one), Value::Object(other)) = (stored, offered) {
        let only_stored = one.keys().filter(|key| !other.contains_key(*key));
        for key in other.keys().chain(only_stored) {
            differing(&format!("{name}.{key}"), &stored[key], &offered[key], place, lines);
        }
    } else if !same(stored, offered) {
        let said = |value: &Value| if value.is_null() { "nothing".to_owned() } else { value.to_string() };
        lines.push(format!("{place}: {name}: {} is stored, the source says {}", said(stored), said(offered)));
    }
}

/// Numbers by their value: PostgreSQL writes 100 for 100.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (one, other) => one == other,
    }
}

fn measured_otherwise(place: &str, position: &Position, stored: &Measured, offered: &Measured) -> String {
    let (dataset, metric, samples) = position;
    let at = if *samples == 0 { String::new() } else { format!(" at {samples} samples seen") };
    let number = |value: Option<f64>| value.map_or("nothing".to_owned(), |value| format!("{value:?}"));
    let parts = [
        ("", Some(stored.value), Some(offered.value)),
        ("standard error ", stored.standard_error, offered.standard_error),
        ("chance ", stored.chance, offered.chance),
        ("count ", stored.count.map(|n| n as f64), offered.count.map(|n| n as f64)),
    ];
    // A standard error mostly follows from the value.
    let shown = if stored.value.to_bits() == offered.value.to_bits() { &parts[1..] } else { &parts[..1] };
    let said = shown
        .iter()
        .filter(|(_, one, other)| one != other)
        .map(|(part, one, other)| format!("{part}{} is stored, the source says {}", number(*one), number(*other)));
    format!("{place}: {dataset}/{metric}{at}: {}", said.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_compared_by_value_and_objects_by_member() {
        let mut lines = Vec::new();
        let stored = json!({ "n": 100, "lr": 0.001, "cells": { "a": "1", "old": "x" } });
        let offered = json!({ "n": 100.0, "lr": 0.002, "cells": { "a": "1", "new": "y" } });
        differing("detail", &stored, &offered, "t.csv:2", &mut lines);
        assert_eq!(
            lines,
            [
                "t.csv:2: detail.cells.new: nothing is stored, the source says \"y\"",
                "t.csv:2: detail.cells.old: \"x\" is stored, the source says nothing",
                "t.csv:2: detail.lr: 0.001 is stored, the source says 0.002",
            ]
        );
    }
}
