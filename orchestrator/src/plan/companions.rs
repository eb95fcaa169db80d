//! Checkpoints that stay on disk, and the jobs that measure them apart from training: what a plan knows of both before
//! anything runs.

use std::num::NonZeroU64;

use protocol::{All, Keep};

use super::evaluations::Measured;
use super::{Inputs, PlannedJob};
use crate::spec::{self, DataSize, Path, Place, Problem, Spec};

/// Bytes a parameter in a checkpoint: weights and AdamW's two moments, fp32.
const BYTES_A_PARAMETER: u64 = 12;

/// What measures each checkpoint apart from training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companions {
    /// Data sets, by the names of their results.
    pub datasets: Vec<String>,
    /// Jobs at one time.
    pub parallel: usize,
}

/// Checkpoints of a job that stay on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptCheckpoints {
    /// So many.
    pub count: u64,
    /// About so large together.
    pub bytes: u64,
}

/// Those of a spec, whose evaluations are `measured`; `None`: it asks for none.
pub(super) fn planned(spec: &Spec, measured: &[Measured]) -> Option<Companions> {
    let every = measured.iter().zip(&spec.evaluations).filter(|(_, evaluation)| evaluation.every_checkpoint);
    let datasets: Vec<String> = every.map(|((plan, _), _)| plan.dataset.clone()).collect();
    (!datasets.is_empty()).then_some(Companions { datasets, parallel: spec.companions.parallel })
}

/// A job that is to measure weights, by a runner that takes none.
pub(super) fn not_measured(spec: &Spec, inputs: &Inputs) -> Option<Problem> {
    let measures = inputs.companion_runner.as_ref().unwrap_or(&inputs.runner);
    let index = spec.evaluations.iter().position(|evaluation| evaluation.every_checkpoint)?;
    if measures.init {
        return None;
    }
    let place = match &spec.companions.runner {
        Some(_) => Path::keys(&["companions", "runner"]),
        None => Path::keys(&["evaluations"]).index(index).key("evaluate"),
    };
    let message = format!("`{place}`: runner `{}` can't measure given weights", measures.name);
    let problem = Problem::new(Place::Value(place), message, "not with this runner");
    Some(problem.help("`companions: {runner: clip}` measures what clip-runner and open_clip have trained"))
}

/// What a job is told of the checkpoints that it is to keep.
pub(super) fn kept(spec: &Spec, recipe: &spec::Recipe) -> Option<Keep> {
    if spec.measures_every_checkpoint() {
        return Some(Keep::All(All::All));
    }
    Some(match recipe.keep_checkpoints? {
        DataSize::All => Keep::All(All::All),
        DataSize::Samples(count) => Keep::Newest(NonZeroU64::new(count)?),
    })
}

/// Checkpoints that a job writes: one after the first step at or past each multiple of their distance, and one at the
/// end. A job with a parent begins where that ends.
pub fn checkpoints_of(job: &PlannedJob) -> u64 {
    let spec = &job.spec;
    let (samples, batch, begun) = (spec.samples_seen, spec.recipe.global_batch, spec.samples_seen - job.own_samples());
    if spec.measures_only() {
        return 0;
    }
    let Some(every) = spec.recipe.checkpoint_every_samples.filter(|every| *every > 0) else { return 1 };
    if every <= batch {
        return job.own_samples() / batch;
    }
    let multiples = samples / every;
    // Unless the last step reaches one.
    multiples - begun / every + u64::from(multiples * every + batch <= samples)
}

/// What stays of them where the job is told how many; `None`: that is up to the runner.
pub fn kept_checkpoints(job: &PlannedJob) -> Option<KeptCheckpoints> {
    let written = checkpoints_of(job);
    let count = match job.spec.recipe.keep_checkpoints? {
        Keep::All(_) => written,
        Keep::Newest(count) => count.get().min(written),
    };
    Some(KeptCheckpoints { count, bytes: count * BYTES_A_PARAMETER * job.size.parameters() })
}
