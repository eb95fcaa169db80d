//! The figures. Only this folder knows resvg, and it knows nothing of pages.
//!
//! Each is a pure function from plain data to a [`Picture`](data::Picture), which gives SVG for a page
//! ([`inline`](data::Picture::inline)), SVG for a file ([`standalone`](data::Picture::standalone)) and
//! [`png`](data::Picture::png). [`scaling`], [`heatmap`] and [`curves`] draw a sweep as it was read
//! ([`study`](crate::study)); the others what the analysis makes of it:
//!
//! | function | shows |
//! | --- | --- |
//! | [`scaling::draw`] | error against compute of one metric, one marker a job |
//! | [`spark::draw`] | the same, small |
//! | [`heatmap::draw`] | one metric over the grid |
//! | [`curves::draw`] | training losses |
//! | [`law::draw`] | laws over points, held-out and excluded ones marked |
//! | [`policies::draw`] | how the choice of points moves the laws and a forecast |
//! | [`residuals::draw`] | residuals in ln against N, D, U, C |
//! | [`profile::draw`] | profile curves of the parameters |
//! | [`pairs::draw`] | bootstrap resamples, each two parameters together |
//! | [`isoflop::draw`] | IsoFLOP curves, the surface beside the parabola, optima against C |
//! | [`frontier::draw`] | best N, D, U and error for a budget; samples per parameter as one panel of it |
//! | [`backtest::draw_fan`], [`backtest::draw_table`] | forecasts as data grow; held-out error of laws by objectives |
//! | [`budget::draw`] | accuracy of a forecast against what the study costs |
//! | [`comparison::draw`] | two training sets or model families, and where their laws cross |
//!
//! None of them fails or panics on missing, infinite or contradictory numbers: it draws what it can, says in the
//! picture where there is nothing, and counts in the caption what was left out.

mod axis;
pub mod backtest;
pub mod budget;
mod canvas;
#[cfg(test)]
mod check;
pub mod comparison;
pub mod curves;
pub mod data;
pub mod frontier;
#[cfg(test)]
mod gallery;
pub mod heatmap;
pub mod isoflop;
mod key;
pub mod law;
mod marks;
pub mod pairs;
pub mod png;
pub mod policies;
pub mod profile;
pub mod residuals;
#[cfg(test)]
mod sample;
pub mod scaling;
pub mod spark;
mod svg;
pub mod swatch;
mod theme;

use std::collections::BTreeMap;

use crate::study::Study;

pub use canvas::css_font;
pub use theme::css_variables;

/// A figure can't be drawn or turned into pixels.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FigureError(String);

/// What colour, shape and size stand for, the same in every figure: models by parameters, data sizes, samples seen.
#[derive(Debug)]
pub struct Legend {
    models: Vec<(String, i64)>,
    data_sizes: Vec<i64>,
    samples_seen: Vec<i64>,
}

impl Legend {
    /// That of a sweep.
    pub fn of(study: &Study) -> Legend {
        let parameters: BTreeMap<&str, i64> =
            study.jobs.iter().map(|job| (job.model.as_str(), job.parameters.unwrap_or(0))).collect();
        let mut models: Vec<(String, i64)> = parameters.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
        models.sort_by_key(|(_, n)| *n);
        let sorted = |values: Vec<i64>| {
            let mut values = values;
            values.sort_unstable();
            values.dedup();
            values
        };
        Legend {
            models,
            data_sizes: sorted(study.jobs.iter().filter_map(|job| job.data_size).collect()),
            samples_seen: sorted(
                study.jobs.iter().filter(|job| !job.is_trunk).filter_map(|job| job.samples_seen).collect(),
            ),
        }
    }

    fn model(&self, name: &str) -> usize {
        self.models.iter().position(|(model, _)| model == name).unwrap_or(0)
    }

    fn shape(&self, data_size: Option<i64>) -> usize {
        self.data_sizes.iter().position(|size| Some(*size) == data_size).unwrap_or(0)
    }

    /// Samples seen whose size of a marker a legend shows: all of a few, else the ends.
    fn sizes_shown(&self) -> Vec<i64> {
        match self.samples_seen.as_slice() {
            [first, _, _, _, .., last] => vec![*first, *last],
            few => few.to_vec(),
        }
    }

    /// Radius of a marker, 4 to 9 pixels from the fewest to the most samples seen.
    fn radius(&self, samples_seen: Option<i64>) -> f64 {
        let (first, last) = (self.samples_seen.first(), self.samples_seen.last());
        match (first, last) {
            (Some(&first), Some(&last)) if last > first => {
                let Some(samples_seen) = samples_seen else {
                    return 6.0;
                };
                let share = (samples_seen as f64 / first as f64).ln() / (last as f64 / first as f64).ln();
                4.0 + 4.5 * share
            }
            _ => 6.0,
        }
    }
}
