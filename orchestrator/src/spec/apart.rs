//! What a spec says of checkpoints that are measured apart from training.

use super::cells::Cell;
use super::check::{Once, recipe_place};
use super::error::Path;
use super::{DataSize, Spec};

/// Contradictions.
pub(super) fn check(cells: &[Cell], spec: &Spec, once: &mut Once) {
    let mut every = spec.evaluations.iter().enumerate().filter(|(_, evaluation)| evaluation.every_checkpoint);
    let at = |index: usize, key: &str| Path::keys(&["evaluations"]).index(index).key(key);
    for (index, evaluation) in every.clone() {
        if !evaluation.at_samples.is_empty() {
            let message = format!("`{}` has no use where every checkpoint is measured", at(index, "at_samples"));
            once.at(
                at(index, "at_samples"),
                message,
                "leave it out: `recipe.checkpoint_every` says where checkpoints are",
            );
        }
        if cells.iter().all(Cell::measures_only) {
            let message = "no job trains here, so there are no checkpoints to come".to_owned();
            once.at(
                at(index, "evaluate"),
                message,
                "`training`, or leave it out: the weights of `recipe.init` are measured",
            );
        }
    }
    let Some((first, _)) = every.next() else {
        if spec.states_companions {
            let message = "`companions` speaks of jobs that nothing asks for".to_owned();
            once.at(
                Path::keys(&["companions"]),
                message,
                "leave it out, or say `evaluate: every_checkpoint` of a data set",
            );
        }
        return;
    };
    for cell in cells {
        let Some(DataSize::Samples(kept)) = cell.recipe.keep_checkpoints else { continue };
        let place = recipe_place(spec, cell, "keep_checkpoints");
        let message = format!("`{place}` is {kept}, and `{}` asks for every checkpoint", at(first, "evaluate"));
        once.at(place, message, "`all`, or leave it out: one that is dropped before its turn could not be measured");
    }
}
