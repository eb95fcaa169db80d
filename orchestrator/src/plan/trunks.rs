//! `schedule: constant-cooldown`: cells that differ in samples seen alone are the same training up to their cooldowns.
//! That common part is planned as jobs of its own, the trunk, cut where a cell's cooldown begins:
//!
//! ```text
//! trunk   0 ----- T1 ----------- T2 ------------------------- T3
//!                  \              \                            \
//! cells             D1             D2                           D3     D_i - T_i: the cooldown
//! ```
//!
//! Each piece goes on from the last checkpoint of the one before it, each cell from that of its piece. A cell's key is
//! that of the cell trained alone, which gives the same result. A piece depends on its end alone, not on the longer
//! cells that the spec has: a spec that is given a longer one goes on from what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::JobSpec;

use super::{Inputs, Parent, PlannedJob, PlannedSpec, job_key};
use crate::spec::quantity::grouped;
use crate::spec::{Path, Place, Problem, Spec};

/// The jobs and the trunks that they share, where the runner can go on from another job's checkpoint; else the jobs.
pub(super) fn with_trunks(inputs: &Inputs, jobs: Vec<PlannedJob>) -> Vec<PlannedJob> {
    if !inputs.runner.branches {
        return jobs;
    }
    let mut jobs = jobs;
    // Pieces by what they have in common, then by samples seen: key.
    let mut trunks: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    let mut pieces: BTreeMap<String, PlannedJob> = BTreeMap::new();
    for job in &mut jobs {
        let Some(trunk) = job.spec.to_job_spec().trunk() else { continue };
        let key = job_key(&trunk);
        let family = job_key(&JobSpec { samples_seen: trunk.recipe.global_batch, ..trunk.clone() });
        trunks.entry(family).or_default().insert(trunk.samples_seen, key.clone());
        set_parent(job, Parent { job_key: key.clone(), samples_seen: trunk.samples_seen });
        pieces.entry(key).or_insert_with_key(|key| piece(job, &trunk, key));
    }
    for trunk in trunks.values() {
        for ((&before, parent), key) in trunk.iter().zip(trunk.values().skip(1)) {
            if let Some(piece) = pieces.get_mut(key) {
                set_parent(piece, Parent { job_key: parent.clone(), samples_seen: before });
            }
        }
    }
    // A cell of the spec may be a piece too.
    let planned: BTreeSet<&String> = jobs.iter().map(|job| &job.job_key).collect();
    let new: Vec<PlannedJob> = pieces.into_values().filter(|piece| !planned.contains(&piece.job_key)).collect();
    jobs.extend(new);
    jobs
}

/// What is trained on its own account takes that share of the time.
fn set_parent(job: &mut PlannedJob, parent: Parent) {
    let per_sample = job.secs.map(|secs| secs / job.own_samples() as f64);
    job.parent = Some(parent);
    job.secs = per_sample.map(|secs| secs * job.own_samples() as f64);
}

/// The job of the trunk that ends where the cooldown of `cell` begins.
fn piece(cell: &PlannedJob, trunk: &JobSpec, key: &str) -> PlannedJob {
    let spec = PlannedSpec {
        samples_seen: trunk.samples_seen,
        recipe: Arc::new(trunk.recipe.clone()),
        evaluations: Arc::default(),
        ..cell.spec.clone()
    };
    PlannedJob {
        job_key: key.to_owned(),
        compute: spec.model.config.training_size().compute(spec.samples_seen),
        unique_samples: spec.data_size.min(spec.samples_seen),
        parent: None,
        secs: cell.secs.map(|secs| secs / cell.own_samples() as f64 * spec.samples_seen as f64),
        spec,
        ..cell.clone()
    }
}

/// Points of measurement that lie in the trunk, where nothing is measured.
pub(super) fn measured_too_early(spec: &Spec, jobs: &[PlannedJob]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for job in jobs {
        let Some(parent) = &job.parent else { continue };
        let in_training = spec.evaluations.iter().enumerate().filter(|(_, evaluation)| !evaluation.every_checkpoint);
        for ((index, evaluation), planned) in in_training.zip(&*job.spec.evaluations) {
            let Some(early) = planned.at_samples.iter().find(|&&at| at < parent.samples_seen) else { continue };
            let place = Path::keys(&["evaluations"]).index(index).key("at_samples");
            let message = format!(
                "`{}` is to be measured at {} of {} samples seen, which is before the cooldown begins at {}, in the \
                 trunk, which nothing is measured in",
                evaluation.label(),
                grouped(*early),
                grouped(job.spec.samples_seen),
                grouped(parent.samples_seen)
            );
            if !problems.iter().any(|known| known.message == message) {
                problems.push(
                    Problem::new(Place::Value(place), message, "at least where the cooldown begins, or leave it out")
                        .help("`sweep evaluate SWEEP --at every_checkpoint` measures checkpoints that are kept, of trunks too"),
                );
            }
        }
    }
    problems
}
