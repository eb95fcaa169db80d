//! What fields of a spec say to each other: every contradiction at once.

use std::collections::{HashMap, HashSet};

use protocol::{Choose, EvaluationTask, ModelProblem, OnSpike, Schedule, Shots};

use super::cells::{Cell, expand, matches};
use super::error::{Path, Place, Problem};
use super::models::{shipped, sized_for};
use super::quantity::grouped;
use super::{Amount, Backend, DataSize, Spec, apart, slurm, tune};

/// Contradictions of a spec, each place once.
pub(super) fn check(spec: &Spec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.grid.model.is_empty() && spec.include.is_empty() {
        problems.push(
            Problem::new(Place::Nowhere, "`grid` is missing: values on each axis", "")
                .help("add `grid:` with `model:` and `samples_seen:` below it; `sweep init` shows one"),
        );
        return problems;
    }
    let cells = expand(spec, &mut problems);
    if cells.is_empty() && problems.is_empty() {
        let place = Place::Key(Path::keys(&["exclude"]));
        problems.push(Problem::new(place, "`exclude` leaves no cell", "keep at least one"));
    }
    let mut once = Once { seen: HashSet::new(), problems };
    for cell in &cells {
        sizes(cell, spec, &mut once);
    }
    models(&cells, spec, &mut once);
    if cells.iter().all(|cell| cell.recipe.rules.is_empty()) {
        measurements(&cells, spec, &mut once);
    }
    evaluation_names(spec, &mut once);
    training_tasks(spec, &mut once);
    apart::check(&cells, spec, &mut once);
    tune::check(&cells, spec, &mut once);
    let mut problems = once.problems;
    let backends = [
        (Some(&spec.backend), Path::keys(&["backend"])),
        (spec.companions.backend.as_ref(), Path::keys(&["companions", "backend"])),
    ];
    for (backend, place) in backends {
        match backend {
            Some(Backend::Slurm(keys)) => problems.extend(slurm::check(keys, &place.key("slurm"))),
            Some(Backend::Local { memory: Some(memory), .. }) => {
                problems.extend(slurm::check_memory(memory, place.key("local").key("memory"), false));
            }
            _ => {}
        }
    }
    problems
}

/// What only numbers can contradict, of cells whose rules are resolved.
pub(crate) fn sizes_once_known(cells: &[Cell], spec: &Spec) -> Vec<Problem> {
    let mut once = Once { seen: HashSet::new(), problems: Vec::new() };
    for cell in cells {
        sizes(cell, spec, &mut once);
    }
    measurements(cells, spec, &mut once);
    once.problems
}

/// Reports each place once, however many cells share it.
pub(super) struct Once {
    seen: HashSet<String>,
    problems: Vec<Problem>,
}

impl Once {
    pub(super) fn at(&mut self, place: Path, message: String, label: impl Into<String>) {
        if self.seen.insert(place.to_string()) {
            self.problems.push(Problem::new(Place::Value(place), message, label));
        }
    }
}

/// Where a cell's value of a field of the recipe was written; the recipe itself where it is a default.
pub fn recipe_place(spec: &Spec, cell: &Cell, field: &'static str) -> Path {
    let last = spec.overrides.iter().rposition(|change| change.set.sets(field) && matches(&change.cells, cell));
    match last {
        Some(index) => Path::keys(&["overrides"]).index(index).key("set").key(field),
        None if spec.recipe_stated.contains(&field) => Path::keys(&["recipe", field]),
        None => Path::keys(&["recipe"]),
    }
}

fn sizes(cell: &Cell, spec: &Spec, once: &mut Once) {
    let batch = cell.recipe.global_batch;
    if cell.measures_only() {
        let place = cell.origin.place("samples_seen");
        if cell.recipe.init.is_none() {
            let message = format!("`{place}` is 0, and there are no weights to measure");
            once.at(place, message, "more than 0, or name the weights: `recipe.init`");
        } else if spec.evaluations.is_empty() {
            let message = format!("`{place}` is 0, and nothing is to be measured");
            once.at(place, message, "more than 0, or say what to measure: `evaluations`");
        }
        return;
    }
    if !cell.recipe.rules.is_empty() {
        rules_of_trunks(cell, spec, once);
        return;
    }
    if cell.samples_seen < batch {
        let place = cell.origin.place("samples_seen");
        let message = format!("`{place}` is {}, less than one global batch of {}", cell.samples_seen, grouped(batch));
        once.at(place, message, "at least `recipe.global_batch`; more is rounded up to whole batches");
        return;
    }
    if let DataSize::Samples(size) = cell.data_size
        && size < batch
    {
        let place = cell.origin.place("data_size");
        let message = format!("`{place}` is {size}: a global batch of {} would hold a pair twice", grouped(batch));
        once.at(place, message, "at least `recipe.global_batch`");
    }
    let parts = cell.recipe.accum_freq;
    if !batch.is_multiple_of(parts) {
        let place = recipe_place(spec, cell, "accum_freq");
        let message = format!("a global batch of {} can't be cut into {} equal parts", grouped(batch), grouped(parts));
        once.at(place, message, "a divisor of `recipe.global_batch`");
    }
    let samples = cell.samples_rounded();
    if let Amount::Samples(warmup) = cell.recipe.warmup
        && warmup > samples
    {
        let place = recipe_place(spec, cell, "warmup");
        let message = format!(
            "a warm-up of {} samples is longer than the {} samples that `{}` sees",
            grouped(warmup),
            grouped(samples),
            cell.model
        );
        once.at(place, message, "at most the samples seen, or a share of them such as `10%`");
    }
    cooldown(cell, spec, samples, once);
    rollback(cell, spec, once);
    if cell.recipe.checkpoint_every.is_some_and(|every| every.of(samples) == 0) {
        let place = recipe_place(spec, cell, "checkpoint_every");
        let message = format!("`{place}` comes to no sample at all");
        once.at(place, message, "more than zero; leave it out for a checkpoint at the end only");
    }
}

/// Nothing of a trunk may depend on how long the cells are that share it.
fn rules_of_trunks(cell: &Cell, spec: &Spec, once: &mut Once) {
    if cell.recipe.schedule != Schedule::ConstantCooldown {
        return;
    }
    for (&field, rule) in &cell.recipe.rules {
        let Some(quantity) = rule.by_length() else { continue };
        let place = recipe_place(spec, cell, field).key("rule");
        let message = format!(
            "`{place}` names `{quantity}`, which is another one for each length, and cells with \
             `schedule: constant-cooldown` are the same training up to their cooldowns"
        );
        once.at(place, message, "a rule without `samples_seen`, `unique_samples` and `steps`, or `schedule: cosine`");
    }
}

/// There is a checkpoint to go back to.
fn rollback(cell: &Cell, spec: &Spec, once: &mut Once) {
    if cell.recipe.on_spike == OnSpike::Rollback && cell.recipe.checkpoint_every.is_none() {
        let place = recipe_place(spec, cell, "on_spike");
        let message = format!("`{place}` goes back to the last checkpoint, and nothing says how often there is one");
        once.at(place, message, "not without `recipe.checkpoint_every`, or leave it out: spikes are counted then");
    }
}

/// The cooldown fits behind the warm-up, which is the same for cells of different samples seen.
fn cooldown(cell: &Cell, spec: &Spec, samples: u64, once: &mut Once) {
    let recipe = &cell.recipe;
    if recipe.schedule != Schedule::ConstantCooldown {
        if recipe.cooldown.is_some() {
            let place = recipe_place(spec, cell, "cooldown");
            let message = format!("`{place}` is for `schedule: constant-cooldown` alone");
            once.at(place, message, "leave it out, or choose that schedule");
        }
        return;
    }
    let warmup = match recipe.warmup {
        Amount::Samples(warmup) => warmup,
        Amount::Percent(share) => {
            let message = format!(
                "a warm-up of {share} % of the samples seen is another one for each length, and cells with \
                 `schedule: constant-cooldown` are the same training up to their cooldowns"
            );
            let help = "a number of samples, such as `warmup: 2k`";
            once.at(recipe_place(spec, cell, "warmup"), message, help);
            return;
        }
    };
    let cooldown = recipe.cooldown_of(samples);
    if cooldown == 0 || cooldown + warmup > samples {
        let place = recipe_place(spec, cell, "cooldown");
        let message = format!(
            "a cooldown of {} samples after a warm-up of {} does not fit into the {} samples that `{}` sees",
            grouped(cooldown),
            grouped(warmup),
            grouped(samples),
            cell.model
        );
        once.at(place, message, "more than 0, and with the warm-up at most the samples seen");
    }
}

/// Shipped models with the recipe's input sizes. Those from files are the planner's business.
fn models(cells: &[Cell], spec: &Spec, once: &mut Once) {
    let mut shipped_models = HashMap::new();
    let mut seen = HashSet::new();
    for cell in cells {
        let sizes = (cell.recipe.image_size, cell.recipe.context_length);
        if !seen.insert((&cell.model, sizes)) {
            continue;
        }
        let Some(model) = shipped_models.entry(&cell.model).or_insert_with(|| shipped(&cell.model)) else { continue };
        for problem in sized_for(model.config.clone(), sizes.0, sizes.1).check() {
            let place = model_place(spec, cell, &problem);
            once.at(place, format!("`{}` can't be built: {problem}", cell.model), "change this");
        }
    }
}

/// Where to point for a problem of a cell's model: at the recipe's input size if that made it.
pub(crate) fn model_place(spec: &Spec, cell: &Cell, problem: &ModelProblem) -> Path {
    match problem.field {
        "vision_cfg.image_size" | "vision_cfg.patch_size" if cell.recipe.image_size.is_some() => {
            recipe_place(spec, cell, "image_size")
        }
        "text_cfg.context_length" if cell.recipe.context_length.is_some() => recipe_place(spec, cell, "context_length"),
        _ => cell.origin.place("model"),
    }
}

fn measurements(cells: &[Cell], spec: &Spec, once: &mut Once) {
    let Some(longest) = cells.iter().map(Cell::samples_rounded).max() else { return };
    for (index, evaluation) in spec.evaluations.iter().enumerate() {
        for (position, at) in evaluation.at_samples.iter().enumerate() {
            if let Amount::Samples(at) = at
                && *at > longest
            {
                let place = Path::keys(&["evaluations"]).index(index).key("at_samples").index(position);
                let message = format!("`{place}` is {}, but no job sees more than {}", grouped(*at), grouped(longest));
                once.at(place, message, "at most the largest `samples_seen`; the end is always measured");
            }
        }
    }
}

/// Probes and fine-tuning have something to train on, and their keys stand beside their tasks.
fn training_tasks(spec: &Spec, once: &mut Once) {
    for (index, evaluation) in spec.evaluations.iter().enumerate() {
        let at = |key: &str| Path::keys(&["evaluations"]).index(index).key(key);
        let is_asked = |task: EvaluationTask| evaluation.tasks.contains(&task);
        let training = [EvaluationTask::LinearProbe, EvaluationTask::FineTuning];
        match (&evaluation.train, training.into_iter().find(|task| is_asked(*task))) {
            (None, Some(task)) => {
                let message = format!("the task `{}` has nothing to train on", task.name());
                once.at(at("tasks"), message, "add `train: FOLDER`, shards with classes");
            }
            (Some(_), None) => {
                let message = "`train` stands without a task that trains".to_owned();
                once.at(at("train"), message, "add `linear_probe` or `fine_tuning` to `tasks`, or take this out");
            }
            _ => {}
        }
        let probe = evaluation.probe.as_ref();
        if probe.is_some() && !is_asked(EvaluationTask::LinearProbe) {
            let message = "what speaks of a linear probe stands without its task".to_owned();
            let label = "add `linear_probe`, or take out `validation`, `shots`, `choose`, `probe_...`";
            once.at(at("tasks"), message, label);
        } else if let Some(probe) = probe.filter(|probe| probe.choose == Choose::Test) {
            if probe.validation.is_some() {
                let message = "`choose: test` leaves `validation` without a use".to_owned();
                once.at(at("validation"), message, "leave out one of the two");
            }
            if probe.shots.contains(&Shots::Vtab1k) {
                let message = "`shots: vtab1k` chooses on 200 of its own images, and `choose` says `test`".to_owned();
                once.at(at("shots"), message, "leave out one of the two");
            }
        }
        if evaluation.fine_tuning.is_some() && !is_asked(EvaluationTask::FineTuning) {
            let message = "what speaks of fine-tuning stands without its task".to_owned();
            once.at(at("tasks"), message, "add `fine_tuning`, or take out `ft_...`");
        }
    }
}

fn evaluation_names(spec: &Spec, once: &mut Once) {
    let mut seen = HashSet::new();
    for (index, evaluation) in spec.evaluations.iter().enumerate() {
        // Pools without a name here get one from their folder: two evaluations of one pool are told apart by name.
        let name = evaluation.label();
        if !seen.insert(name) {
            let key = if evaluation.name.is_some() { "name" } else { "pool" };
            let place = Path::keys(&["evaluations"]).index(index).key(key);
            let message = format!("`{place}` is `{name}` as in an entry above, so their results would mix");
            once.at(place, message, "give each evaluation a `name` of its own");
        }
    }
}
