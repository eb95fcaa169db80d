//! What a metric is called in figures, where its runs lie, and which job is forecast.

use std::collections::HashMap;

use crate::figures::data::{Point, Role};
use crate::number::compact;
use fit::{Axis, Convention, Fit, Input, Interval, Observation, Response};

/// A metric of a sweep, in words.
#[derive(Debug, Clone)]
pub struct Subject {
    /// `imagenet1k/acc1`.
    pub name: String,
    /// Fraction or loss.
    pub response: Response,
    /// What E is: `error, 1 − acc1`; `loss@1024, nats`.
    pub error: String,
    /// Name of the sweep.
    pub sweep: String,
    /// Training set's name and number of unique samples of each job, by job key. Jobs that are not in it are told
    /// apart by their unique samples.
    pub data: HashMap<String, (String, f64)>,
    /// Places of jobs in the study that a page is of, by job key: figures say of a mark whose it is. Empty for none.
    pub places: HashMap<String, usize>,
}

impl Subject {
    /// Of a sweep's data set and metric.
    pub fn new(sweep: &str, dataset: &str, metric: &str) -> Subject {
        let response = Response::of_metric(metric);
        let error = match response {
            Response::Fraction => format!("error, 1 − {metric}"),
            Response::Loss => format!("{metric}, nats"),
        };
        let name = format!("{dataset}/{metric}");
        Subject { name, response, error, sweep: sweep.to_owned(), data: HashMap::new(), places: HashMap::new() }
    }

    /// Title of the ordinate, with the data set.
    pub fn ordinate(&self) -> String {
        let dataset = self.name.split_once('/').map_or("", |(dataset, _)| dataset);
        // Names like `vtab/dtd` hold a slash of their own: the metric is what `error` says.
        let metric = self.error.trim_start_matches("error, 1 − ").trim_end_matches(", nats");
        let dataset = self.name.strip_suffix(&format!("/{metric}")).unwrap_or(dataset);
        format!("{dataset}: {}", self.error)
    }

    /// E as people say it: accuracy in % for fractions, nats for losses.
    pub fn shown(&self, error: f64) -> f64 {
        match self.response {
            Response::Fraction => 100.0 * (1.0 - error),
            Response::Loss => error,
        }
    }

    /// An interval of E likewise; its ends change places where more is better.
    pub fn shown_interval(&self, error: Interval) -> Interval {
        let mapped = error.map(|error| self.shown(error));
        match self.response {
            Response::Fraction => Interval { value: mapped.value, low: mapped.high, high: mapped.low },
            Response::Loss => mapped,
        }
    }

    /// Unit of [`Subject::shown`], with the metric.
    pub fn shown_unit(&self) -> String {
        match self.response {
            Response::Fraction => format!("{} in %", self.error.trim_start_matches("error, 1 − ")),
            Response::Loss => self.error.clone(),
        }
    }

    /// Place of a run's job in the study.
    pub fn place(&self, row: &Observation) -> Option<usize> {
        self.places.get(&row.job_key).copied()
    }

    /// A run as a figure draws it.
    pub fn point(&self, row: &Observation, axis: Axis, role: Role) -> Point {
        let known = |value: f64| value.is_finite() && value > 0.0;
        let (data, data_size) = match self.data.get(&row.job_key) {
            Some((name, size)) => (name.clone(), *size),
            None if known(row.unique_samples) => {
                (format!("{} unique", compact(row.unique_samples)), row.unique_samples)
            }
            None => (String::new(), f64::NAN),
        };
        Point {
            x: row.on(axis),
            y: row.error,
            model: row.model.clone(),
            parameters: row.parameters,
            data,
            data_size,
            role,
            job: self.place(row),
        }
    }

    /// Runs of a fit: those that its law goes through, those that the choice of points passed over, those held out.
    pub fn points(&self, fit: &Fit, held_out: &[Observation], axis: Axis) -> Vec<Point> {
        let mut fitted = vec![false; fit.observations.len()];
        for point in &fit.points {
            fitted[point.observation] = true;
        }
        let role = |fitted: bool| if fitted { Role::Fitted } else { Role::Excluded };
        let used = fit.observations.iter().zip(fitted).map(|(row, fitted)| self.point(row, axis, role(fitted)));
        used.chain(held_out.iter().map(|row| self.point(row, axis, Role::HeldOut))).collect()
    }
}

/// Title of an axis with its unit.
pub fn axis_title(axis: Axis, convention: Convention) -> String {
    match axis {
        Axis::C => format!("C, {}", convention.unit()),
        Axis::N => "N, parameters".to_owned(),
        Axis::D => "D, samples seen".to_owned(),
        Axis::U => "U, unique samples".to_owned(),
        Axis::L => "proxy loss, nats".to_owned(),
    }
}

/// Laws are drawn, and forecasts looked at, to so many times the compute of the largest run.
pub(crate) const BEYOND: f64 = 10.0;

/// A job that was not run.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its name: `ViT-G-14 on 68B samples`.
    pub name: String,
    /// Where it lies.
    pub input: Input,
    /// What it was measured or published to be, as [`Subject::shown`], and what to call it.
    pub reference: Option<(f64, String)>,
}

impl Target {
    /// Ten times the compute of the largest run: half of it, in ln, in N, and half in D.
    pub fn beyond(observations: &[Observation]) -> Option<Target> {
        let usable = |row: &&Observation| row.compute.is_finite() && row.compute > 0.0;
        let largest = observations.iter().filter(usable).max_by(|a, b| a.compute.total_cmp(&b.compute));
        // Laws of one axis alone may have rows without compute.
        let largest =
            largest.or_else(|| observations.iter().max_by(|a, b| a.samples_seen.total_cmp(&b.samples_seen)))?;
        let (at, half) = (largest.input(), 0.5 * BEYOND.ln());
        Some(Target {
            name: "ten times the compute of the largest run".to_owned(),
            input: Input { ln_c: at.ln_c + 2.0 * half, ln_n: at.ln_n + half, ln_d: at.ln_d + half, ..at },
            reference: None,
        })
    }
}

/// Least and greatest of what is positive; `None` of nothing.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let usable = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = usable.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then_some((low, high))
}

/// So many values from one to the other, evenly in ln.
pub(super) fn steps((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let last = (count - 1).max(1) as f64;
    (0..count).map(|i| low * (high / low).powf(i as f64 / last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_turn_their_intervals_round() {
        let subject = Subject::new("grid", "vtab/dtd", "acc1");
        let shown = subject.shown_interval(Interval { value: 0.25, low: 0.2, high: 0.4 });
        assert_eq!((shown.value, shown.low, shown.high), (75.0, 60.0, 80.0));
        assert_eq!(subject.ordinate(), "vtab/dtd: error, 1 − acc1");
        let loss = Subject::new("grid", "emoji", "loss@1024");
        assert_eq!((loss.ordinate().as_str(), loss.shown(2.5)), ("emoji: loss@1024, nats", 2.5));
    }

    #[test]
    fn steps_are_even_in_the_logarithm() {
        assert_eq!(steps((1.0, 100.0), 3), [1.0, 10.0, 100.0]);
        assert_eq!(range([f64::NAN, 3.0, 0.0, 2.0].into_iter()), Some((2.0, 3.0)));
        assert_eq!(range([f64::NAN].into_iter()), None);
    }
}
