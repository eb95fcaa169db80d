//! Jobs that could be run next: the cells of a sweep, and those beside them.

use protocol::Compute;

use super::output::Failure;
use super::place::Job;
use crate::fit::frontier::{Model, models_of};
use crate::fit::{Convention, Observation};
use crate::plan::Plan;
use crate::spec::{Quantities, Spec, included, is_model_file, model_names, nearest, shipped, sized_for, whole_batches};

/// Values of D or U closer than this in their logarithm are one: published tables round them differently.
const SAME: f64 = 0.1;
/// Samples seen beyond the largest of the sweep, in multiples of it.
const BEYOND: [f64; 2] = [2.0, 4.0];

/// A cell and what is known of its jobs.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// Its jobs' model and sizes.
    pub(super) job: Job,
    /// Model as the spec writes it.
    pub(super) written: String,
    /// Unique samples that a job may see: U where it is less than D. NaN: not known.
    pub(super) data_size: f64,
    /// Seeds that the spec has and that no measured job has yet.
    waiting: Vec<u64>,
    /// The least seed above all the spec's.
    next_seed: u64,
}

impl Cell {
    /// Seed of the next job, and whether the spec has it already.
    pub(super) fn take_seed(&mut self) -> (u64, bool) {
        if self.waiting.is_empty() {
            self.next_seed += 1;
            (self.next_seed - 1, false)
        } else {
            (self.waiting.remove(0), true)
        }
    }

    fn is_at(&self, model: &str, samples_seen: f64, unique_samples: f64) -> bool {
        let near = |a: f64, b: f64| (a.is_nan() && b.is_nan()) || (a.ln() - b.ln()).abs() < SAME;
        self.job.model.as_deref() == Some(model)
            && near(self.job.samples_seen, samples_seen)
            && near(self.job.unique_samples, unique_samples)
    }
}

/// What the user asks for; empty: the default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Names.
    pub(super) models: &'a [String],
    /// D.
    pub(super) samples: &'a [f64],
    /// Unique samples that a job may see.
    pub(super) data: &'a [f64],
}

/// The cells of a planned sweep, then those beside them.
pub(super) fn of_plan(
    spec: &Spec,
    plan: &Plan,
    observations: &[Observation],
    asked: Asked<'_>,
) -> Result<Vec<Cell>, Failure> {
    let convention = observations.first().map_or(Convention::GmacsSamples, |row| row.convention);
    let mut cells: Vec<Cell> = Vec::new();
    let mut models: Vec<(String, Model)> = Vec::new();
    for planned in &plan.jobs {
        let (name, samples_seen) = (&planned.spec.model.name, planned.spec.samples_seen as f64);
        let compute = counted(planned.compute, convention);
        let parameters = planned.size.parameters() as f64;
        if !models.iter().any(|(_, model)| model.name == *name) {
            let compute_per_sample = compute / samples_seen;
            models.push((written(spec, name), Model { name: name.clone(), parameters, compute_per_sample }));
        }
        let job = Job {
            model: Some(name.clone()),
            parameters,
            samples_seen,
            unique_samples: planned.unique_samples as f64,
            compute,
        };
        let (data_size, seed) = (planned.spec.data_size as f64, planned.spec.seed);
        let measured = observations.iter().any(|row| row.job_key == planned.job_key);
        let same = |cell: &&mut Cell| {
            let (there, here) = ((cell.job.samples_seen, cell.data_size), (samples_seen, data_size));
            cell.job.model == job.model && there == here
        };
        match cells.iter_mut().find(same) {
            Some(cell) => {
                cell.next_seed = cell.next_seed.max(seed + 1);
                cell.waiting.extend((!measured).then_some(seed));
            }
            None => cells.push(Cell {
                written: written(spec, name),
                data_size,
                waiting: (!measured).then_some(seed).into_iter().collect(),
                next_seed: seed + 1,
                job,
            }),
        }
    }
    let size = |name: &str| sized(name, convention, spec.recipe.image_size, spec.recipe.context_length);
    let models = chosen(models, observations, asked.models, size)?;
    let data = cells.iter().map(|cell| cell.data_size).collect();
    beside(&mut cells, &models, asked, data, |written, samples, data| rounded(spec, plan, written, samples, data));
    Ok(cells)
}

/// Samples in whole batches of the cell that these would be: an override or a rule may give it a batch of its own.
/// `None`: a rule gives what no batch can be.
fn rounded(spec: &Spec, plan: &Plan, written: &str, samples_seen: f64, data_size: f64) -> Option<f64> {
    let (samples_seen, data_size) = (samples_seen.round() as u64, data_size.round() as u64);
    let cell = included(spec, written, samples_seen, data_size);
    let planned = plan.jobs.iter().find(|job| self::written(spec, &job.spec.model.name) == written);
    let config = match planned {
        Some(job) => job.spec.model.config.clone(),
        None => sized_for(shipped(written)?.config, spec.recipe.image_size, spec.recipe.context_length),
    };
    let recipe = cell.recipe.resolved(&Quantities { config: &config, data_size, samples_seen }).ok()?;
    Some(whole_batches(samples_seen, recipe.global_batch) as f64)
}

/// The cells of a sweep of which only the results are known, then those beside them.
pub(super) fn of_rows(observations: &[Observation], asked: Asked<'_>) -> Result<Vec<Cell>, Failure> {
    let convention = observations.first().map_or(Convention::GmacsSamples, |row| row.convention);
    let mut cells: Vec<Cell> = Vec::new();
    let mut data = Vec::new();
    for row in observations {
        if [row.parameters, row.samples_seen, row.compute].iter().any(|value| !value.is_finite()) {
            continue;
        }
        if !cells.iter().any(|cell| cell.is_at(&row.model, row.samples_seen, row.unique_samples)) {
            let job = Job {
                model: Some(row.model.clone()),
                parameters: row.parameters,
                samples_seen: row.samples_seen,
                unique_samples: row.unique_samples,
                compute: row.compute,
            };
            let data_size = row.unique_samples;
            cells.push(Cell { job, written: row.model.clone(), data_size, waiting: Vec::new(), next_seed: 0 });
        }
        // Where no sample is seen twice, U says how long the job was and not how much data there is.
        if row.unique_samples < 0.99 * row.samples_seen {
            data.push(row.unique_samples);
        }
    }
    let most = observations.iter().map(|row| row.unique_samples).fold(f64::NAN, f64::max);
    data.push(most);
    let models = models_of(observations).into_iter().map(|model| (model.name.clone(), model)).collect();
    let models = chosen(models, observations, asked.models, |name| sized(name, convention, None, None))?;
    beside(&mut cells, &models, asked, data, |_, samples, _| Some(samples));
    Ok(cells)
}

/// Adds models x samples x data, where there is no cell yet. `whole` rounds the samples of a model on so much data,
/// where there can be such a cell.
fn beside(
    cells: &mut Vec<Cell>,
    models: &[(String, Model)],
    asked: Asked<'_>,
    data: Vec<f64>,
    whole: impl Fn(&str, f64, f64) -> Option<f64>,
) {
    let samples = if asked.samples.is_empty() {
        let seen: Vec<f64> = cells.iter().map(|cell| cell.job.samples_seen).collect();
        let most = seen.iter().copied().fold(f64::NAN, f64::max);
        seen.into_iter().chain(BEYOND.map(|times| times * most)).collect()
    } else {
        asked.samples.to_vec()
    };
    let data = if asked.data.is_empty() { distinct(data) } else { asked.data.to_vec() };
    for (written, model) in models {
        for &samples_seen in &distinct(samples.clone()) {
            for &data_size in &data {
                let Some(samples_seen) = whole(written, samples_seen, data_size) else { continue };
                // `min` would take the one that is known.
                let unique_samples = if data_size.is_nan() { f64::NAN } else { data_size.min(samples_seen) };
                if cells.iter().any(|cell| cell.is_at(&model.name, samples_seen, unique_samples)) {
                    continue;
                }
                let job = Job {
                    model: Some(model.name.clone()),
                    parameters: model.parameters,
                    samples_seen,
                    unique_samples,
                    compute: model.compute_per_sample * samples_seen,
                };
                cells.push(Cell { job, written: written.clone(), data_size, waiting: Vec::new(), next_seed: 0 });
            }
        }
    }
}

/// The models asked for, by the name that a spec writes and what they are: the sweep's, or those of `sweep model`.
fn chosen(
    known: Vec<(String, Model)>,
    observations: &[Observation],
    asked: &[String],
    size: impl Fn(&str) -> Option<Model>,
) -> Result<Vec<(String, Model)>, Failure> {
    if asked.is_empty() {
        return Ok(known);
    }
    let observed = models_of(observations);
    let find = |name: &String| {
        let of_sweep = known.iter().find(|(written, model)| written == name || model.name == *name).cloned();
        let of_rows = || observed.iter().find(|model| model.name == *name).map(|model| (name.clone(), model.clone()));
        of_sweep.or_else(of_rows).or_else(|| Some((name.clone(), size(name)?))).ok_or_else(|| {
            let failure = Failure::bad_input(format!("there is no model `{name}`"));
            let shipped: Vec<&str> = model_names().collect();
            let names = known.iter().map(|(written, _)| written.as_str()).chain(shipped);
            match nearest(name, names) {
                Some(nearest) => failure.hint(format!("did you mean `{nearest}`? `sweep model` lists all")),
                None => failure.hint("allowed are the sweep's models and those that `sweep model` lists"),
            }
        })
    };
    asked.iter().map(find).collect()
}

/// A shipped model at these input sizes.
fn sized(name: &str, convention: Convention, image_size: Option<u64>, context_length: Option<u64>) -> Option<Model> {
    let model = shipped(name)?;
    let size = sized_for(model.config, image_size, context_length).training_size();
    let compute_per_sample = counted(size.compute(1), convention);
    Some(Model { name: model.name, parameters: size.parameters() as f64, compute_per_sample })
}

fn counted(compute: Compute, convention: Convention) -> f64 {
    match convention {
        Convention::GmacsSamples => compute.gmacs_samples,
        Convention::TrainFlops => compute.train_flops,
        Convention::SixNd => compute.six_nd,
    }
}

/// How a spec writes the model that a plan knows by `name`.
fn written(spec: &Spec, name: &str) -> String {
    let means = |written: &&String| {
        if is_model_file(written) {
            std::path::Path::new(written.as_str()).file_stem().is_some_and(|stem| stem == name)
        } else {
            shipped(written).is_some_and(|model| model.name == name)
        }
    };
    let mut all = spec.grid.model.iter().chain(spec.include.iter().flat_map(|entry| &entry.model));
    all.find(means).map_or_else(|| name.to_owned(), Clone::clone)
}

/// Ascending, near ones once. A NaN, if there are no others, stays.
fn distinct(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let mut kept: Vec<f64> = Vec::new();
    for value in values {
        let known = kept.last().is_some_and(|last| value.is_nan() || (value.ln() - last.ln()).abs() < SAME);
        if !known {
            kept.push(value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, n: f64, d: f64, u: f64) -> Observation {
        let key = format!("{model}{d}{u}");
        Observation { model: model.to_owned(), unique_samples: u, ..Observation::of(key, n, d, 0.5) }
    }

    const NOTHING: Asked<'_> = Asked { models: &[], samples: &[], data: &[] };

    #[test]
    fn near_values_are_one() {
        assert_eq!(distinct(vec![13.03e9, 3e9, 12.95e9, 34e9]), [3e9, 12.95e9, 34e9]);
        assert_eq!(distinct(vec![f64::NAN, 2.0]), [2.0]);
        assert_eq!(distinct(vec![f64::NAN, f64::NAN]).len(), 1);
    }

    #[test]
    fn the_grid_is_filled_and_goes_on() {
        let rows = [row("s", 1e6, 1e9, 1e8), row("s", 1e6, 4e9, 4e8), row("m", 1e7, 1e9, 1e8)];
        let cells = of_rows(&rows, NOTHING).expect("rows have sizes");
        // Two models, D of 1, 4, 8 and 16 billion, two data sizes.
        assert_eq!(cells.len(), 2 * 4 * 2);
        let largest = cells.iter().map(|cell| cell.job.samples_seen).fold(0.0, f64::max);
        assert!((largest - 16e9).abs() < 1.0);
        assert!(cells.iter().all(|cell| cell.job.unique_samples <= cell.job.samples_seen));
        let models = ["ViT-B-32".to_owned()];
        let asked = Asked { models: &models, samples: &[2e9], data: &[] };
        let cells = of_rows(&rows, asked).expect("a shipped model");
        assert_eq!(cells.len(), 3 + 2);
        let models = ["ViT-B32".to_owned()];
        assert!(of_rows(&rows, Asked { models: &models, ..NOTHING }).is_err());
    }

    #[test]
    fn data_without_repeats_is_not_a_data_size() {
        let rows = [row("s", 1e6, 1e9, 1e9), row("s", 1e6, 4e9, 4e9)];
        let cells = of_rows(&rows, NOTHING).expect("rows have sizes");
        assert_eq!(cells.len(), 4, "{cells:?}");
        let unknown = [row("s", 1e6, 1e9, f64::NAN)];
        let cells = of_rows(&unknown, NOTHING).expect("rows have sizes");
        assert!(cells.len() == 3 && cells.iter().all(|cell| cell.job.unique_samples.is_nan()));
    }

    #[test]
    fn seeds_that_wait_come_first() {
        let rows = [row("s", 1e6, 1e9, 1e8)];
        let mut cell = of_rows(&rows, NOTHING).expect("rows have sizes").remove(0);
        (cell.waiting, cell.next_seed) = (vec![3], 5);
        assert_eq!([cell.take_seed(), cell.take_seed(), cell.take_seed()], [(3, true), (5, false), (6, false)]);
    }
}
