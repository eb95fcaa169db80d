//! `recipe.on_spike: rollback`, for a runner that does not go back.

use protocol::OnSpike;

use super::Inputs;
use crate::spec::{Place, Problem, Spec, cells, recipe_place};

/// What is wrong, if the runner says nothing of it.
pub(super) fn no_rollback(spec: &Spec, inputs: &Inputs) -> Option<Problem> {
    if inputs.runner.rolls_back {
        return None;
    }
    let cell = cells(spec).into_iter().find(|cell| cell.recipe.on_spike == OnSpike::Rollback)?;
    let place = recipe_place(spec, &cell, "on_spike");
    let message =
        format!("`{place}` is `rollback`, but runner `{}` does not go back after a spike", inputs.runner.name);
    let problem = Problem::new(Place::Value(place), message, "not with this runner");
    Some(problem.help("a runner that goes back says `\"rolls_back\": true` in `describe`: runners/protocol"))
}
