//! What a fit says of numbers it was not given: any quantity, a parameter, a forecast, each with its interval.

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::Serialize;

use crate::bootstrap::{self, Coordinate, Draws, Prediction, Resampling, Study, residual_variance, values};
use crate::distribution::t_two_sided;
use crate::interval::{ALPHA, Interval, Reader};
use crate::law::{Axis, Input, Scale};
use crate::noise::{Weighting, binomial_variance, evaluation_variance};
use crate::observation::Response;
use crate::profile::{Identified, Profile, profile};
use crate::sample::Sample;
use crate::solve::{Problem, Quantity};
use crate::{Fit, Options, extent};

/// A way to intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intervals {
    /// Refits of resamples.
    Bootstrap(Resampling),
    /// Profile likelihood.
    Profile,
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Intervals::Bootstrap(Resampling::Pairs) => f.write_str("bootstrap"),
            Intervals::Bootstrap(kind) => kind.fmt(f),
            Intervals::Profile => f.write_str("profile"),
        }
    }
}

impl FromStr for Intervals {
    type Err = String;

    fn from_str(text: &str) -> Result<Intervals, String> {
        match text {
            "bootstrap" => Ok(Intervals::Bootstrap(Resampling::Pairs)),
            "wild" => Ok(Intervals::Bootstrap(Resampling::Wild)),
            "seed-noise" => Ok(Intervals::Bootstrap(Resampling::SeedNoise)),
            "profile" => Ok(Intervals::Profile),
            _ => Err("allowed are bootstrap, wild, seed-noise and profile".to_owned()),
        }
    }
}

/// A number with its interval, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stated {
    /// Of the parameter.
    pub name: &'static str,
    /// Natural scale.
    #[serde(flatten)]
    pub interval: Interval,
    /// Held, not fitted.
    pub frozen: bool,
    /// Which ends the data give; profiles alone know.
    pub identified: Option<Identified>,
    /// What a reader should know: `E is not identified: the data allow anything from 0 to 0.31`.
    pub words: Option<String>,
    /// The profile, natural scale.
    pub profile: Option<Profile>,
}

/// What a forecast's result would be evaluated on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evaluation {
    /// As the rows of the fit were: the mean of their evaluation noise.
    AsObserved,
    /// So many test items, y a fraction.
    Count(f64),
    /// With this standard error of y.
    StandardError(f64),
}

/// How far beyond the data a place lies on one axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Beyond {
    /// Which.
    pub axis: Axis,
    /// Difference of ln x from the nearest of the points' range: above 0 beyond the largest, below 0 short of the
    /// least, 0 among them.
    pub ln: f64,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.ln.abs().exp();
        match self.ln {
            ln if ln > 0.0 => write!(f, "{times:.1} times the most {}", self.axis.describe()),
            ln if ln < 0.0 => write!(f, "1/{times:.1} of the least {}", self.axis.describe()),
            _ => write!(f, "within the range of {}", self.axis.describe()),
        }
    }
}

/// y at a place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Of the law: where the mean of many jobs there would be.
    pub law: Interval,
    /// Of one new job's measured result there.
    pub prediction: Interval,
    /// Standard deviation of ln y of one job about the law, that the second adds to the first.
    pub noise_sd: f64,
    /// Where the place lies, each axis of the law.
    pub extrapolation: Vec<Beyond>,
}

impl Fit {
    /// Parameters that were fitted.
    pub fn free(&self) -> usize {
        self.parameters.iter().filter(|parameter| !parameter.frozen).count()
    }

    fn reader(&self) -> Reader {
        Reader::new(self.interval_kind, self.jobs, self.free())
    }

    /// Of any number that theta determines, from the fit's resamples, in the quantity's own units.
    pub fn interval_of(&self, quantity: &dyn Quantity) -> Interval {
        let value = values(quantity, std::slice::from_ref(&self.solution.best.theta))[0];
        self.reader().read(value, values(quantity, &self.replicates), &values(quantity, &self.jackknife))
    }

    /// Of a number that was worked out for the fit and for each of its resamples.
    pub fn interval_from(&self, value: f64, replicates: impl Iterator<Item = f64>) -> Interval {
        self.reader().read(value, replicates.collect(), &[])
    }

    /// The points with their weights, as fitted.
    pub fn sample(&self) -> Sample {
        bootstrap::weighted(&self.observations, &self.points, &self.row_weights())
    }

    pub(crate) fn row_weights(&self) -> Vec<f64> {
        match self.weighting {
            Weighting::Equal => vec![1.0; self.observations.len()],
            Weighting::Noise => self
                .noise
                .weights(&self.observations, self.objective.space)
                .unwrap_or_else(|| vec![1.0; self.observations.len()]),
        }
    }

    /// Internal values of the parameters that were held.
    pub fn frozen(&self) -> Vec<Option<f64>> {
        let held = self.parameters.iter().zip(&self.solution.best.theta);
        held.map(|(parameter, value)| parameter.frozen.then_some(*value)).collect()
    }

    /// The profile of any number that theta determines, in its own units.
    pub fn profile_of(&self, quantity: &dyn Quantity) -> Profile {
        let (law, sample, frozen) = (self.form(), self.sample(), self.frozen());
        let problem =
            Problem { frozen: &frozen, method: &self.method, ..Problem::new(law.as_ref(), &sample, self.objective) };
        profile(&problem, &self.solution.best, quantity)
    }

    /// The profile of y at a place.
    pub fn profile_at(&self, x: &Input) -> Profile {
        self.profile_of(&Prediction { law: self.form().as_ref(), x: *x }).map(f64::exp)
    }

    /// Parameters with intervals by another way than [`Fit::parameters`], natural scale, the law's order. `options` are
    /// those of the fit.
    pub fn intervals(&self, by: Intervals, options: &Options) -> Vec<Stated> {
        let law = self.form();
        match by {
            Intervals::Profile => (0..self.parameters.len())
                .into_par_iter()
                .map(|index| {
                    let parameter = &self.parameters[index];
                    let (name, frozen) = (parameter.name, parameter.frozen);
                    if frozen {
                        let value = parameter.interval.value;
                        let interval = Interval { value, low: value, high: value };
                        return Stated { name, interval, frozen, identified: None, words: None, profile: None };
                    }
                    let profile = self.profile_of(&Coordinate(index));
                    let profile = match law.parameters()[index].scale {
                        Scale::Linear => profile,
                        Scale::Log => profile.map(f64::exp),
                    };
                    let mut words = profile.words(name);
                    if profile.deeper.is_some() {
                        let note = "the profile met a lower minimum than the fit: fit again from more starts";
                        words = Some(words.map_or_else(|| note.to_owned(), |words| format!("{words}; {note}")));
                    }
                    let (interval, identified) = (profile.interval(), Some(profile.identified));
                    Stated { name, interval, frozen, identified, words, profile: Some(profile) }
                })
                .collect(),
            Intervals::Bootstrap(resampling) => {
                let (weights, frozen) = (self.row_weights(), self.frozen());
                let theta = &self.solution.best.theta;
                let study = Study {
                    law: law.as_ref(),
                    observations: &self.observations,
                    weights: &weights,
                    noise: &self.noise,
                    policy: options.points,
                    objective: self.objective,
                    frozen: &frozen,
                    method: &options.method,
                    best: &self.solution.best,
                };
                let replicates = study.replicates(resampling, Draws::of(options));
                let jackknife = if options.interval.is_accelerated() { study.jackknife() } else { Vec::new() };
                let reader = Reader::new(options.interval, self.jobs, self.free());
                let words = (resampling == Resampling::SeedNoise).then(|| match self.noise.seed_variance {
                    Some(_) => self.noise.to_string(),
                    None => format!("{}; the law's residuals stand for it", self.noise),
                });
                let stated = |(index, parameter): (usize, &crate::Estimate)| Stated {
                    name: parameter.name,
                    interval: bootstrap::parameter(law.as_ref(), theta, index, (&replicates, &jackknife), reader),
                    frozen: parameter.frozen,
                    identified: None,
                    words: words.clone(),
                    profile: None,
                };
                self.parameters.iter().enumerate().map(stated).collect()
            }
        }
    }

    /// y at `x`: of the law by the fit's resamples, and of one new job.
    ///
    /// `ln y` of a new job lies off the law by `t sd`, `sd^2 = max(residual variance - mean evaluation noise, seed
    /// variance) + evaluation noise there`, t of jobs less parameters; its interval adds that to the law's in
    /// quadrature, as a linear model's prediction interval does. Fractions end at 1.
    pub fn forecast(&self, x: &Input, evaluation: Evaluation) -> Forecast {
        self.forecast_from(self.interval_of(&Prediction { law: self.form().as_ref(), x: *x }), x, evaluation)
    }

    /// The same with the law's interval by profile likelihood.
    pub fn forecast_by_profile(&self, x: &Input, evaluation: Evaluation) -> Forecast {
        let law = self.form();
        self.forecast_from(self.profile_of(&Prediction { law: law.as_ref(), x: *x }).interval(), x, evaluation)
    }

    /// From the interval of ln y.
    fn forecast_from(&self, ln: Interval, x: &Input, evaluation: Evaluation) -> Forecast {
        let noise_sd = self.noise_variance_at(ln.value, x, evaluation).sqrt();
        let off = noise_sd * t_two_sided(ALPHA, self.jobs.saturating_sub(self.free()));
        let ln_job = Interval {
            value: ln.value,
            low: ln.value - (ln.value - ln.low).hypot(off),
            high: ln.value + (ln.high - ln.value).hypot(off),
        };
        let most = match self.noise.response {
            Response::Fraction => 1.0,
            Response::Loss => f64::INFINITY,
        };
        let points = self.points.iter().map(|point| (self.observations[point.observation].input(), point.compute));
        let inputs: Vec<Input> = points.map(|(input, compute)| input.with(Axis::C, compute)).collect();
        let beyond = |&axis: &Axis| {
            let (least, most) = extent(inputs.iter().map(|input| input.ln(axis)));
            let at = x.ln(axis);
            Beyond { axis, ln: if at > most { at - most } else { (at - least).min(0.0) } }
        };
        Forecast {
            law: ln.map(f64::exp).within(0.0, most),
            prediction: ln_job.map(f64::exp).within(0.0, most),
            noise_sd,
            extrapolation: self.form().axes().iter().map(beyond).collect(),
        }
    }

    /// Variance of ln y of one job about the law at `x`.
    fn noise_variance_at(&self, ln_y: f64, x: &Input, evaluation: Evaluation) -> f64 {
        let law = self.form();
        let sample = Sample::of(&self.observations, &self.points);
        let residual = residual_variance(law.as_ref(), &self.solution.best.theta, &sample, self.free());
        let response = self.noise.response;
        let rows = self.points.iter().map(|point| &self.observations[point.observation]);
        let known: Vec<f64> = rows.filter_map(|row| evaluation_variance(row, response)).collect();
        let mean = if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / self.points.len() as f64 };
        let y = ln_y.exp().min(1.0);
        let there = match (evaluation, response) {
            (Evaluation::Count(count), Response::Fraction) => binomial_variance(y, count).unwrap_or(0.0),
            (Evaluation::StandardError(error), _) if error >= 0.0 => (error / ln_y.exp()).powi(2),
            _ => mean,
        };
        let seed = self.noise.seed_variance_at(ln_y, x.ln_n).unwrap_or(0.0);
        (residual - mean).max(seed).max(0.0) + there
    }
}
