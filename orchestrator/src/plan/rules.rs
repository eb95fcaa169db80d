//! Rules of the recipe, resolved: each cell gets its numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::expand::data_size;
use super::shared::Shared;
use super::{Inputs, PoolInfo};
use crate::spec::quantity::grouped;
use crate::spec::{self, Cell, Place, Problem, Quantities, RuleError, Spec, cells, recipe_place, sizes_once_known};

/// The cells of a spec with numbers in the place of rules, or what is wrong with those. What is wrong with the rest of
/// a cell is for whoever plans it to say.
pub(super) fn resolved(
    spec: &Spec,
    inputs: &Inputs,
    training: &PoolInfo,
    shared: &mut Shared,
) -> Result<Vec<Cell>, Vec<Problem>> {
    let stated = cells(spec);
    if stated.iter().all(|cell| cell.recipe.rules.is_empty()) {
        return Ok(stated);
    }
    let mut out = Vec::with_capacity(stated.len());
    let mut problems: Vec<Problem> = Vec::new();
    // By address: `stated` keeps the recipes until all are resolved. Seeds share theirs.
    let mut recipes: HashMap<_, Arc<spec::Recipe>> = HashMap::new();
    for cell in &stated {
        if cell.recipe.rules.is_empty() || cell.measures_only() {
            out.push(cell.clone());
            continue;
        }
        let model = shared.model(inputs, cell);
        let data_size = data_size(spec, inputs, cell, training).ok().filter(|_| model.config.check().is_empty());
        let Some(data_size) = data_size else {
            out.push(cell.clone());
            continue;
        };
        let key = (Arc::as_ptr(&cell.recipe) as usize, &cell.model, cell.samples_seen, data_size);
        let recipe = if let Some(recipe) = recipes.get(&key) {
            Arc::clone(recipe)
        } else {
            let quantities = Quantities { config: &model.config, data_size, samples_seen: cell.samples_seen };
            match cell.recipe.resolved(&quantities) {
                Ok(recipe) => Arc::clone(recipes.entry(key).or_insert(Arc::new(recipe))),
                Err(error) => {
                    let problem = impossible(spec, cell, data_size, &error);
                    if !problems.iter().any(|known| known.place == problem.place) {
                        problems.push(problem);
                    }
                    continue;
                }
            }
        };
        out.push(Cell { recipe, ..cell.clone() });
    }
    if problems.is_empty() {
        let known: Vec<Cell> = out.iter().filter(|cell| cell.recipe.rules.is_empty()).cloned().collect();
        problems = sizes_once_known(&known, spec);
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

fn impossible(spec: &Spec, cell: &Cell, data_size: u64, error: &RuleError) -> Problem {
    let place = recipe_place(spec, cell, error.field).key("rule");
    let message = format!(
        "`{place}` gives {} for `{}` with {} samples seen of {} unique",
        error.value,
        cell.model,
        grouped(cell.samples_seen),
        grouped(data_size)
    );
    Problem::new(Place::Value(place), message, format!("allowed: {}", error.allowed))
}

/// Fields of the recipe that rules give, with the rules as written.
pub(super) fn stated(spec: &Spec) -> BTreeMap<&'static str, Vec<String>> {
    let of_overrides = spec.overrides.iter().flat_map(|change| change.set.rules());
    let mut rules: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (field, rule) in spec.recipe.rules.iter().map(|(field, rule)| (*field, &**rule)).chain(of_overrides) {
        let texts = rules.entry(field).or_default();
        if !texts.contains(&rule.text) {
            texts.push(rule.text.clone());
        }
    }
    rules
}
