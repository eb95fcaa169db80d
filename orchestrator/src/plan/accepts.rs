//! Settings that a runner says it does not take.

use protocol::Description;
use serde::Serialize;

use super::Inputs;
use super::expand::push_once;
use crate::spec::{Path, Place, Problem, Recipe, Spec, cells, recipe_place};

/// What is wrong: settings of the recipe and tasks, each where it was written.
pub(super) fn not_accepted(spec: &Spec, inputs: &Inputs) -> Vec<Problem> {
    let mut problems = Vec::new();
    let trains = &inputs.runner;
    let measures_apart = inputs.companion_runner.as_ref().unwrap_or(trains);
    // Most take all, and a spec may have a hundred thousand cells.
    if trains.accepts.is_empty() && measures_apart.accepts.is_empty() {
        return problems;
    }
    let cells = cells(spec);
    for cell in &cells {
        for (setting, values) in of_recipe(&cell.recipe) {
            check(trains, setting, &recipe_place(spec, cell, setting), &values, &mut problems);
        }
    }
    let measures_weights = cells.iter().any(|cell| cell.samples_rounded() == 0);
    for (index, evaluation) in spec.evaluations.iter().enumerate() {
        let tasks: Vec<String> = evaluation.tasks.iter().map(name).collect();
        let place = Path::keys(&["evaluations"]).index(index).key("tasks");
        if evaluation.every_checkpoint {
            check(measures_apart, "tasks", &place, &tasks, &mut problems);
        }
        // The runner itself measures the weights that a job only measures on all of them.
        if !evaluation.every_checkpoint || measures_weights {
            check(trains, "tasks", &place, &tasks, &mut problems);
        }
    }
    problems
}

fn check(runner: &Description, setting: &str, place: &Path, values: &[String], problems: &mut Vec<Problem>) {
    let Some(accepted) = runner.accepts.get(setting) else { return };
    for value in values.iter().filter(|value| !accepted.contains(value)) {
        let message = format!("`{place}` is `{}`, which runner `{}` does not take", in_specs(value), runner.name);
        let list: Vec<String> = accepted.iter().map(|value| format!("`{}`", in_specs(value))).collect();
        let help = if list.is_empty() { "leave it out".to_owned() } else { format!("it takes {}", list.join(", ")) };
        push_once(problems, Problem::new(Place::Value(place.clone()), message, "not with this runner").help(help));
    }
}

/// Settings that a runner may name, with a recipe's values.
fn of_recipe(recipe: &Recipe) -> [(&'static str, Vec<String>); 5] {
    [
        ("augmentation", vec![name(&recipe.augmentation)]),
        ("extra", recipe.extra.keys().cloned().collect()),
        ("loss", vec![name(&recipe.loss)]),
        ("precision", vec![name(&recipe.precision)]),
        ("schedule", vec![name(&recipe.schedule)]),
    ]
}

/// As `job.json` has it.
fn name(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("a name is JSON");
    value.as_str().expect("settings are names").to_owned()
}

/// As a spec has it.
fn in_specs(name: &str) -> &str {
    if name == "constant_cooldown" { "constant-cooldown" } else { name }
}
