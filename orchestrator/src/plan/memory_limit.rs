//! Whether a job fits where it is planned to run, and with which settings it would. Pure.

use protocol::Recipe;

use super::expand::Inputs;
use super::memory::{Device, Fitting, fitting, reclaimable_bytes};
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
    let help = if planned.measures_only() {
        "choose a smaller model, or a machine with more memory".to_owned()
    } else {
        let found = fitting(config, &config.size(), planned, device, limit.bytes + spare);
        settings(&planned.recipe, found, spare)
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

/// What to set for a job to fit.
fn settings(recipe: &Recipe, [by_parts, again]: [Option<Fitting>; 2], spare: u64) -> String {
    let needs = |fitting: Fitting| size_of(fitting.bytes.saturating_sub(spare));
    let by_parts = by_parts
        .map(|fitting| format!("`accum_freq: {}` is the smallest that fits: {}", fitting.accum_freq, needs(fitting)));
    let again = again.map(|fitting| match fitting.accum_freq {
        parts if parts == recipe.accum_freq => format!("`grad_checkpointing: true` fits: {}", needs(fitting)),
        parts => format!("`grad_checkpointing: true` with `accum_freq: {parts}` fits: {}", needs(fitting)),
    });
    match (by_parts, again) {
        (Some(by_parts), Some(again)) => format!("{by_parts}; {again}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => {
            "neither `accum_freq` nor `grad_checkpointing` makes it fit: choose a smaller model or batch, or \
                         a machine with more memory"
                .to_owned()
        }
    }
}

/// `850 MB`, `1.5 GB`.
fn size_of(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb < 1e3 { format!("{mb:.0} MB") } else { format!("{:.1} GB", mb / 1e3) }
}
