//! A job that was not run, as people name it: a model or its parameters, samples seen, unique samples.

use super::output::Failure;
use crate::fit::cost::{Cost, CostError};
use crate::fit::frontier::{Model, models_of};
use crate::fit::{Convention, Input, Observation};
use crate::report::number::compact;
use crate::spec::{model_names, nearest, quantity, shipped};

/// Which job.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Place {
    /// Model: one of the sweep's, or one of `sweep model`.
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Parameters of a model without a name, for example 1.2B.
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "model")]
    pub(super) parameters: Option<f64>,
    /// Samples seen, for example 68e9 or 34B.
    #[arg(long, value_name = "D", value_parser = positive)]
    pub(super) samples: Option<f64>,
    /// Unique samples [default: the most among the sweep's jobs, or the samples seen if that is less].
    #[arg(long, value_name = "U", value_parser = positive)]
    pub(super) data: Option<f64>,
}

/// A number above zero, as in a spec.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match quantity::number(text) {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        Ok(_) => Err("it has to be above zero".to_owned()),
        Err(error) => Err(format!("{error}; write it like 68e9, 34B or 400M")),
    }
}

/// A job with all that is known of it.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Job {
    /// Name of the model, where it has one.
    pub(super) model: Option<String>,
    /// N.
    pub(super) parameters: f64,
    /// D.
    pub(super) samples_seen: f64,
    /// U.
    pub(super) unique_samples: f64,
    /// C, in the convention of the rows.
    pub(super) compute: f64,
}

impl Job {
    /// Where a law is evaluated.
    pub(super) fn input(&self) -> Input {
        Input {
            ln_c: self.compute.ln(),
            ln_n: self.parameters.ln(),
            ln_d: self.samples_seen.ln(),
            ln_u: self.unique_samples.ln(),
            ln_l: f64::NAN,
        }
    }

    /// `ViT-G-14 (N 2.54B), 68B samples, 2.32B unique, C 3.6e13`
    pub(super) fn describe(&self) -> String {
        let model = self.model.as_ref().map_or(String::new(), |model| format!("{model}, "));
        format!(
            "{model}N {}, D {}, U {}, C {}",
            compact(self.parameters),
            compact(self.samples_seen),
            compact(self.unique_samples),
            compact(self.compute)
        )
    }
}

impl Place {
    /// The job, sized by the sweep's own models where they know it, else by the closed forms of `sweep model`.
    pub(super) fn job(&self, observations: &[Observation]) -> Result<Job, Failure> {
        let Some(samples_seen) = self.samples else {
            return Err(
                Failure::bad_input("how many samples it sees is not said").hint("add --samples, for example 34B")
            );
        };
        let most = observations.iter().map(|row| row.unique_samples).fold(f64::NAN, f64::max);
        let unique_samples = self.data.unwrap_or(most).min(samples_seen);
        let (model, parameters, per_sample) = self.model(observations)?;
        Ok(Job { model, parameters, samples_seen, unique_samples, compute: per_sample * samples_seen })
    }

    /// Name, N and compute per sample.
    fn model(&self, observations: &[Observation]) -> Result<(Option<String>, f64, f64), Failure> {
        if let Some(parameters) = self.parameters {
            let per_sample = match Cost::compute(observations) {
                Ok(cost) => cost.ln_compute_per_sample(parameters.ln()).exp(),
                Err(CostError::Mixed { .. }) => {
                    return Err(
                        Failure::bad_input("the rows count compute in two ways").hint("choose one with --compute")
                    );
                }
                Err(_) => f64::NAN,
            };
            return Ok((None, parameters, per_sample));
        }
        let Some(name) = &self.model else {
            return Err(Failure::bad_input("which model is not said").hint("add --model NAME or --parameters N"));
        };
        let convention = observations.first().map_or(Convention::GmacsSamples, |row| row.convention);
        let observed = models_of(observations);
        if let Some(model) = observed.iter().find(|model| model.name == *name) {
            return Ok((Some(name.clone()), model.parameters, model.compute_per_sample));
        }
        if let Some(model) = shipped_model(name, convention) {
            return Ok((Some(name.clone()), model.parameters, model.compute_per_sample));
        }
        let mut known: Vec<String> = observed.into_iter().map(|model| model.name).collect();
        known.extend(model_names().map(str::to_owned));
        let failure = Failure::bad_input(format!("there is no model `{name}`"));
        Err(match nearest(name, known.iter().map(String::as_str)) {
            Some(nearest) => {
                failure.hint(format!("did you mean `{nearest}`? `sweep model` lists all; or give --parameters"))
            }
            None => failure.hint("`sweep model` lists those with a name; or give --parameters"),
        })
    }
}

/// A model that comes with `sweep`, at its own image size.
pub(super) fn shipped_model(name: &str, convention: Convention) -> Option<Model> {
    let size = shipped(name)?.config.size();
    let of_one = size.compute(1);
    let compute_per_sample = match convention {
        Convention::GmacsSamples => of_one.gmacs_samples,
        Convention::TrainFlops => of_one.train_flops,
        Convention::SixNd => of_one.six_nd,
    };
    Some(Model { name: name.to_owned(), parameters: size.parameters() as f64, compute_per_sample })
}
