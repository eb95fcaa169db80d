//! The figures. Only this folder knows plotters and resvg.
//!
//! Two kinds. `draw_all` draws a sweep's own page from a [`Report`]. The figures of an analysis are modules of their
//! own, each a pure function from plain data to a [`Picture`](data::Picture), which gives SVG for a page
//! ([`inline`](data::Picture::inline)), SVG for a file ([`standalone`](data::Picture::standalone)) and
//! [`png`](data::Picture::png):
//!
//! | function | shows |
//! | --- | --- |
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
mod curves;
pub mod data;
pub mod frontier;
#[cfg(test)]
mod gallery;
mod heatmap;
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
mod scaling;
mod theme;

use std::collections::BTreeMap;

use super::Report;
use crate::store::study::Study;

pub(super) use theme::css_variables;

/// A figure can't be drawn or turned into pixels.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FigureError(String);

/// A figure as drawn, in the light theme's colours.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    /// Which part of the page it belongs to.
    pub(super) place: Place,
    /// File name.
    pub(super) file: String,
    /// What it shows, for readers who don't see it and as the caption's start.
    pub(super) title: String,
    /// How to read it.
    pub(super) caption: String,
    svg: String,
}

/// Part of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Error against compute, of one panel.
    Scaling(usize),
    /// Loss curves.
    Curves,
    /// Values over the grid, of one panel.
    Heatmap(usize),
}

impl Drawn {
    /// For the page: colours are the page's CSS variables.
    pub(super) fn inline(&self) -> String {
        theme::with_variables(&self.svg)
    }

    /// For a file: literal colours on white.
    pub(super) fn standalone(&self) -> String {
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", self.svg)
    }
}

/// Draws what there is data for.
pub(super) fn draw_all(report: &Report) -> Result<Vec<Drawn>, FigureError> {
    let legend = Legend::of(&report.study);
    let mut drawn = Vec::new();
    for (number, panel) in report.panels.iter().enumerate() {
        drawn.extend(scaling::draw(report, &legend, number, panel)?);
    }
    drawn.extend(curves::draw(report, &legend)?);
    for (number, panel) in report.panels.iter().enumerate() {
        drawn.extend(heatmap::draw(report, &legend, number, panel)?);
    }
    Ok(drawn)
}

/// What colour, shape and size stand for, the same in every figure: models by parameters, data sizes, samples seen.
#[derive(Debug)]
struct Legend {
    models: Vec<(String, i64)>,
    data_sizes: Vec<i64>,
    samples_seen: Vec<i64>,
}

impl Legend {
    fn of(study: &Study) -> Legend {
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

    /// Radius of a marker, 4 to 9 pixels from the fewest to the most samples seen.
    fn radius(&self, samples_seen: Option<i64>) -> f64 {
        let (first, last) = (self.samples_seen.first(), self.samples_seen.last());
        match (first, last) {
            (Some(&first), Some(&last)) if last > first => {
                let Some(samples_seen) = samples_seen else { return 6.0 };
                let share = (samples_seen as f64 / first as f64).ln() / (last as f64 / first as f64).ln();
                4.0 + 4.5 * share
            }
            _ => 6.0,
        }
    }
}
