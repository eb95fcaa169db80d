//! A choice among models that exist, instead of any N: each with the samples that the budget buys it.

use serde::Serialize;

use super::{FrontierError, Limits, Path, check};
use crate::cost::Cost;
use crate::interval::Interval;
use crate::law::Axis;
use crate::observation::Observation;
use crate::{Fit, extent};

/// A model by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// N.
    pub parameters: f64,
    /// Compute per sample, in the convention of the price.
    pub compute_per_sample: f64,
}

/// A model at the budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The model.
    pub model: Model,
    /// D that the budget, or the cap, allows.
    pub samples_seen: f64,
    /// U.
    pub unique_samples: f64,
    /// E, with 95 % interval from the fit's resamples.
    pub error: Interval,
    /// Share of the resamples in which no model is better.
    pub best: f64,
    /// Whether D lies beyond ten times what was observed of any model, up or down.
    pub far: bool,
}

/// The models observed, by name: geometric means of N and of compute per sample.
pub fn models_of(observations: &[Observation]) -> Vec<Model> {
    let mut names: Vec<&str> = observations.iter().map(|row| row.model.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let model = |name: &str| {
        let rows: Vec<(f64, f64)> = observations
            .iter()
            .filter(|row| row.model == name)
            .map(|row| (row.parameters.ln(), (row.compute / row.samples_seen).ln()))
            .filter(|pair| pair.0.is_finite() && pair.1.is_finite())
            .collect();
        let mean = |pick: fn(&(f64, f64)) -> f64| (rows.iter().map(pick).sum::<f64>() / rows.len() as f64).exp();
        (!rows.is_empty()).then(|| Model {
            name: name.to_owned(),
            parameters: mean(|pair| pair.0),
            compute_per_sample: mean(|pair| pair.1),
        })
    };
    names.into_iter().filter_map(model).collect()
}

/// The models at one budget, best first.
pub fn best_model(
    fit: &Fit,
    cost: &Cost,
    models: &[Model],
    budget: f64,
    limits: Limits,
) -> Result<Vec<Choice>, FrontierError> {
    check(fit, cost, &[budget], limits)?;
    let form = fit.form();
    let law = form.as_ref();
    let no_choice = |reason| FrontierError::NoChoice { law: fit.law, reason };
    if !law.axes().iter().any(|axis| matches!(axis, Axis::N | Axis::D)) {
        return Err(no_choice("it is of compute alone, and gives every model the same error; fit a law of N and D"));
    }
    if models.is_empty() {
        return Err(no_choice("no models are given; name some with their parameters and compute per sample"));
    }
    let priced = |model: &Model| model.parameters.ln().is_finite() && model.compute_per_sample.ln().is_finite();
    if !models.iter().all(priced) {
        return Err(no_choice("a model's parameters or compute per sample is not a positive number"));
    }
    let path = Path::new(law, cost, budget, limits, (1.0, 1.0));
    let jobs: Vec<_> =
        models.iter().map(|model| path.job(model.parameters.ln(), model.compute_per_sample.ln())).collect();
    let errors = |theta: &[f64]| -> Vec<f64> { jobs.iter().map(|job| law.ln_at(theta, job).exp()).collect() };
    let values = errors(&fit.solution.best.theta);
    let resampled: Vec<Vec<f64>> = fit.replicates.iter().map(|theta| errors(theta)).collect();
    let seen = extent(fit.observations.iter().map(|row| row.samples_seen));
    let choice = |index: usize| {
        let wins = resampled.iter().filter(|all| all.iter().all(|error| all[index] <= *error)).count();
        let samples_seen = jobs[index].ln_d.exp();
        Choice {
            model: models[index].clone(),
            samples_seen,
            unique_samples: jobs[index].ln_u.exp(),
            error: fit.interval_from(values[index], resampled.iter().map(|all| all[index])),
            best: wins as f64 / resampled.len().max(1) as f64,
            far: samples_seen > 10.0 * seen.1 || samples_seen < 0.1 * seen.0,
        }
    };
    let mut choices: Vec<Choice> = (0..models.len()).map(choice).collect();
    choices.sort_by(|a, b| a.error.value.total_cmp(&b.error.value));
    Ok(choices)
}
