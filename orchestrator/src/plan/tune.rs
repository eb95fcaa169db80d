//! The ladder of a spec that says `tune`: for each model and data size its cell of fewest samples seen, with factors
//! on the recipe's learning rate. What they show (`choice.rs`) is a factor for all cells of that model and data size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::canonical::canonical;
use super::evaluations::Measured;
use super::expand::{assembled, hex};
use super::trunks::with_trunks;
use super::{Inputs, Plan, PlannedJob, PlannedSpec};
use crate::spec::{self, Cell, Place, Problem, Spec, Tune, recipe_place, six_digits};

/// The ladder of a sweep and what is known of its outcome.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// A sweep of its own, so that laws of the other one see cells alone. What is a cell too is one job all the same.
    pub plan: Box<Plan>,
    /// One a model and data size.
    pub groups: Vec<Group>,
    /// Data set that decides.
    pub dataset: String,
    /// And metric.
    pub metric: String,
    /// Whether less of it is better.
    pub lower_is_better: bool,
    /// Whether a choice is known for each group. Until then cells have the recipe's own learning rates.
    pub is_chosen: bool,
}

/// Rungs for the cells of one model and data size.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name of the model.
    pub model: String,
    /// Unique samples.
    pub data_size: u64,
    /// Of each rung: the fewest of the cells.
    pub samples_seen: u64,
    /// sha256 of what the choice is made from: jobs, data set and metric, 64 hex digits.
    pub key: String,
    /// By factor, ascending.
    pub rungs: Vec<Rung>,
    /// What was chosen, where that is known.
    pub factor: Option<f64>,
}

impl Group {
    /// Keys of its jobs, by rung.
    pub fn job_keys(&self) -> impl Iterator<Item = &String> {
        self.rungs.iter().flat_map(|rung| &rung.job_keys)
    }
}

/// One learning rate of a ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// On the recipe's.
    pub factor: f64,
    /// The learning rate.
    pub lr: f64,
    /// Its jobs, by seed.
    pub job_keys: Vec<String>,
}

/// Plans one cell.
pub(super) type PlanCell<'a> = &'a mut dyn FnMut(&Cell, &mut Vec<Problem>) -> Option<PlannedJob>;

/// The ladder of a spec that has one, without its pools, and the cells with what it has chosen where that is known.
pub(super) fn tuned(
    spec: &Spec,
    inputs: &Inputs,
    measured: &[Measured],
    cells: Vec<Cell>,
    unique: impl Fn(&Cell) -> Option<u64>,
    job: PlanCell<'_>,
    problems: &mut Vec<Problem>,
) -> (Option<Ladder>, Vec<Cell>) {
    let Some(tune) = &spec.tune else { return (None, cells) };
    let Some((decides, _)) = tune.evaluation_index(spec).and_then(|index| measured.get(index)) else {
        unreachable!("a spec with `tune` names an evaluation");
    };
    let mut jobs: Vec<PlannedJob> = Vec::new();
    let mut groups = Vec::new();
    let mut factors: Vec<(&str, Option<u64>, f64)> = Vec::new();
    for base in bases(&cells, &unique) {
        if base.recipe.lr == 0.0 {
            let place = recipe_place(spec, base, "lr");
            let message = format!("`{place}` is 0 for `{}`, and `tune` tries multiples of it", base.model);
            problems.push(Problem::new(Place::Value(place), message, "more than 0, or leave `tune` out"));
            continue;
        }
        // What is wrong with it is said of the cell.
        let Some(mut group) = group(tune, base, &decides.dataset, job, &mut jobs) else { continue };
        group.factor = inputs.tuned.get(&group.key).copied();
        factors.extend(group.factor.map(|factor| (base.model.as_str(), unique(base), factor)));
        groups.push(group);
    }
    let is_chosen = factors.len() == groups.len();
    let factor_of = |cell: &Cell| {
        let size = unique(cell);
        let found = factors.iter().find(|(model, of, _)| (*model, *of) == (&*cell.model, size));
        found.filter(|_| is_chosen && !cell.measures_only()).map_or(1.0, |(_, _, factor)| *factor)
    };
    // Cells that share a recipe go on sharing one.
    let mut recipes: HashMap<(usize, u64), Arc<spec::Recipe>> = HashMap::new();
    let tuned = cells.iter().map(|cell| {
        let factor = factor_of(cell);
        let known = recipes.entry((Arc::as_ptr(&cell.recipe) as usize, factor.to_bits()));
        Cell { recipe: Arc::clone(known.or_insert_with(|| scaled(cell, factor))), ..cell.clone() }
    });
    let tuned = tuned.collect();
    let mut known = HashSet::new();
    jobs.retain(|job| known.insert(job.job_key.clone()));
    let mut jobs = with_trunks(inputs, jobs);
    jobs.sort_by(|a, b| a.compute.train_flops.total_cmp(&b.compute.train_flops));
    let plan = Plan {
        name: Tune::ladder_name(&spec.name),
        question: format!("Which learning rates do the models of `{}` learn best with?", spec.name),
        spec_source: format!(
            "# The ladder (`tune`) of sweep `{}`, whose spec this is.\n{}",
            spec.name,
            spec.source.text()
        ),
        ..assembled(spec, inputs, Vec::new(), jobs)
    };
    let ladder = Ladder {
        plan: Box::new(plan),
        groups,
        dataset: decides.dataset.clone(),
        metric: tune.metric.clone(),
        lower_is_better: tune.lower_is_better(),
        is_chosen,
    };
    (Some(ladder), tuned)
}

/// The rungs on a cell, whose jobs join `jobs`. `None`: the cell can't be planned.
fn group(tune: &Tune, base: &Cell, dataset: &str, job: PlanCell<'_>, jobs: &mut Vec<PlannedJob>) -> Option<Group> {
    let mut rungs = Vec::with_capacity(tune.factors.len());
    let mut of_base = None;
    for &factor in &tune.factors {
        let recipe = scaled(base, factor);
        let mut job_keys = Vec::new();
        for seed in (0..tune.seeds).map(|seed| base.seed.saturating_add(seed)) {
            let cell = Cell { seed, recipe: Arc::clone(&recipe), ..base.clone() };
            let planned = job(&cell, &mut Vec::new())?;
            job_keys.push(planned.job_key.clone());
            let PlannedSpec { model, data_size, samples_seen, .. } = &planned.spec;
            of_base.get_or_insert((model.name.clone(), *data_size, *samples_seen));
            jobs.push(planned);
        }
        rungs.push(Rung { factor, lr: recipe.lr, job_keys });
    }
    let (model, data_size, samples_seen) = of_base?;
    Some(Group { model, data_size, samples_seen, key: key(dataset, &tune.metric, &rungs), rungs, factor: None })
}

/// Of each model and number of unique samples that is trained the cell of fewest samples seen; of several, that of the
/// least seed.
fn bases(cells: &[Cell], unique: impl Fn(&Cell) -> Option<u64>) -> Vec<&Cell> {
    let mut bases: Vec<&Cell> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.measures_only()) {
        match bases.iter_mut().find(|base| base.model == cell.model && unique(base) == unique(cell)) {
            Some(base) if (cell.samples_seen, cell.seed) < (base.samples_seen, base.seed) => *base = cell,
            Some(_) => {}
            None => bases.push(cell),
        }
    }
    bases
}

/// The recipe of a cell with a factor on its learning rate.
fn scaled(cell: &Cell, factor: f64) -> Arc<spec::Recipe> {
    if (factor - 1.0).abs() < f64::EPSILON {
        // As it is written: the job of a spec without a ladder.
        return Arc::clone(&cell.recipe);
    }
    Arc::new(spec::Recipe { lr: six_digits(cell.recipe.lr * factor), ..spec::Recipe::clone(&cell.recipe) })
}

/// By what a choice is known: all that it is made from.
fn key(dataset: &str, metric: &str, rungs: &[Rung]) -> String {
    let rungs: Vec<_> = rungs.iter().map(|rung| json!([rung.factor, rung.job_keys])).collect();
    let value = json!({"parameter": "lr", "dataset": dataset, "metric": metric, "rungs": rungs});
    hex(&Sha256::digest(canonical(&value)))
}
