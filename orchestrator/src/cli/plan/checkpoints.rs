//! What `sweep plan` says of checkpoints.

use serde::Serialize;

use crate::plan::{KeptCheckpoints, Plan, kept_checkpoints};
use crate::spec::quantity::grouped;

/// Checkpoints of all jobs, in `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Checkpoints {
    /// So many stay on disk.
    kept: u64,
    /// About so large together.
    bytes: u64,
    /// Data sets that each is measured on by a job of its own.
    measured_on: Vec<String>,
}

/// The checkpoints that stay on disk, where jobs are told how many.
pub(super) fn kept(plan: &Plan) -> Option<Checkpoints> {
    let each: Vec<KeptCheckpoints> = plan.jobs.iter().filter_map(kept_checkpoints).collect();
    let measured_on = plan.companions.as_ref().map_or(Vec::new(), |companions| companions.datasets.clone());
    (!each.is_empty()).then(|| Checkpoints {
        kept: each.iter().map(|job| job.count).sum(),
        bytes: each.iter().map(|job| job.bytes).sum(),
        measured_on,
    })
}

/// The same in words.
pub(super) fn checkpoints(plan: &Plan) -> Vec<String> {
    let Some(Checkpoints { kept, bytes, .. }) = kept(plan) else { return Vec::new() };
    let apart = plan.companions.as_ref().map_or(String::new(), |companions| {
        let jobs = grouped(kept * companions.datasets.len() as u64);
        let (datasets, parallel) = (companions.datasets.join(", "), companions.parallel);
        format!("; each is measured on {datasets} apart from training: {jobs} jobs, {parallel} at a time")
    });
    vec![format!("kept   {} checkpoints, about {}{apart}", grouped(kept), size(bytes))]
}

/// `1.5 GB`, to two digits or more.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value >= 1000.0 {
            (value, unit) = (value / 1000.0, next);
        }
    }
    if value >= 10.0 || unit == "B" { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}
