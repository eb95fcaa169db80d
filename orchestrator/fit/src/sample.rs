//! What a solver sees: inputs, responses, weights, and which job each row is of.

use crate::law::{Axis, Input};
use crate::observation::Observation;
use crate::points::Point;

/// Rows of equal length.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Where.
    pub inputs: Vec<Input>,
    /// ln of the response.
    pub ln_y: Vec<f64>,
    /// Weight of each row; 1 unless noise says otherwise. A bootstrap multiplies it by how often a row was drawn.
    pub weights: Vec<f64>,
    /// Number of each row's job, from 0, without gaps: rows of a job are drawn together.
    pub jobs: Vec<usize>,
}

impl Sample {
    /// Rows that a law goes through: `points` of `observations`. A bin's C is its centre; other axes are the winner's.
    pub fn of(observations: &[Observation], points: &[Point]) -> Sample {
        let mut sample = Sample::default();
        let mut keys: Vec<&str> = points.iter().map(|point| observations[point.observation].job_key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        for point in points {
            let row = &observations[point.observation];
            sample.inputs.push(row.input().with(Axis::C, point.compute));
            sample.ln_y.push(point.error.ln());
            sample.weights.push(1.0);
            sample.jobs.push(keys.binary_search(&row.job_key.as_str()).expect("every key is listed"));
        }
        sample
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.ln_y.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ln_y.is_empty()
    }

    /// Jobs.
    pub fn jobs_len(&self) -> usize {
        self.jobs.iter().max().map_or(0, |most| most + 1)
    }

    /// The rows for which `keep` holds, jobs renumbered.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Sample {
        let rows: Vec<usize> = (0..self.len()).filter(|&row| keep(row)).collect();
        let mut jobs: Vec<usize> = rows.iter().map(|&row| self.jobs[row]).collect();
        jobs.sort_unstable();
        jobs.dedup();
        Sample {
            inputs: rows.iter().map(|&row| self.inputs[row]).collect(),
            ln_y: rows.iter().map(|&row| self.ln_y[row]).collect(),
            weights: rows.iter().map(|&row| self.weights[row]).collect(),
            jobs: rows.iter().map(|&row| jobs.binary_search(&self.jobs[row]).expect("listed")).collect(),
        }
    }
}
