//! Whether a job fits where it is planned to run, and with which `accum_freq` it would. Pure.

use super::expand::Inputs;
use super::memory::{Device, accum_freq_that_fits, reclaimable_bytes};
use super::{PlannedSpec, slurm_options};
use crate::spec::quantity::grouped;
use crate::spec::{Backend, Cell, Place, Problem, Spec, recipe_place};

/// Memory that one job can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Of this machine, of its smallest GPU, what the spec says, or what Slurm is asked for.
    pub bytes: u64,
    /// Whose it is, in words: `this machine has`.
    pub of: String,
}

/// Where jobs of this spec compute.
pub(super) fn device(spec: &Spec, inputs: &Inputs) -> Device {
    let gpu = match &spec.backend {
        Backend::Local { .. } => inputs.runner.devices.first().is_some_and(|device| device.starts_with("cuda")),
        Backend::Slurm(keys) => slurm_options(keys, inputs.site.as_ref(), &[]).gpus > 0,
    };
    if gpu { Device::Gpu } else { Device::Cpu }
}

/// What is wrong with a job that needs more than there is. `peak`: what it is estimated to need, on which device.
pub(super) fn problem(
    spec: &Spec,
    limit: &MemoryLimit,
    cell: &Cell,
    planned: &PlannedSpec,
    (peak, device): (u64, Device),
    said: &[Problem],
) -> Option<Problem> {
    let config = &planned.model.config;
    let spare = reclaimable_bytes(config, planned, device);
    let needed = peak.saturating_sub(spare);
    if needed <= limit.bytes {
        return None;
    }
    let batch = planned.recipe.global_batch;
    let what = if planned.measures_only() {
        format!("measuring `{}` needs ", cell.model)
    } else {
        let (batch, parts) = (grouped(batch), planned.recipe.accum_freq);
        let parts = if parts > 1 { format!(" in {} parts", grouped(parts)) } else { String::new() };
        format!("`{}` at a global batch of {batch}{parts} needs ", cell.model)
    };
    if said.iter().any(|problem| problem.message.starts_with(&what)) {
        return None; // Cells of other lengths need the same.
    }
    let message = format!("{what}{}, {} {}", size_of(needed), limit.of, size_of(limit.bytes));
    let help = match accum_freq_that_fits(config, &config.size(), planned, device, limit.bytes + spare) {
        _ if planned.measures_only() => "choose a smaller model, or a machine with more memory".to_owned(),
        Some((parts, needs)) => {
            format!("`accum_freq: {parts}` is the smallest that fits: {}", size_of(needs.saturating_sub(spare)))
        }
        None => {
            "no `accum_freq` makes it fit: choose a smaller model or batch, or a machine with more memory".to_owned()
        }
    };
    let place = Place::Value(recipe_place(spec, cell, "global_batch"));
    let estimated = match &spec.backend {
        Backend::Local { memory: None, .. } => {
            "; for another machine, or if you know better: `backend: {local: {memory: 64G}}`"
        }
        _ => "",
    };
    Some(Problem::new(place, message, "more than there is").help(format!("{help}{estimated}")))
}

/// `850 MB`, `1.5 GB`.
fn size_of(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb < 1e3 { format!("{mb:.0} MB") } else { format!("{:.1} GB", mb / 1e3) }
}
