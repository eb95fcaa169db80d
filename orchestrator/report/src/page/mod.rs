//! A sweep as one self-contained HTML page, with its figures as SVG files beside it.

mod analysis;
mod answer;
mod data;
mod html;
mod metrics;
mod opening;
mod provenance;
mod sections;
mod style;
#[cfg(test)]
mod tests;
mod tuned;

use fit::Convention;
use rayon::prelude::*;

use crate::analysis::section::Analysis;
use crate::analysis::{law::drawn_in, words::exponents};
use crate::figures::data::{Law, Picture};
use crate::figures::{FigureError, Legend, curves, heatmap, scaling, spark, swatch};
use crate::study::{Panel, PanelFit, Study, StudyJob};
use crate::text::file_name;

/// What a report shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// The sweep as read.
    pub study: Study,
    /// Convention of every C.
    pub compute: Convention,
    /// Metrics, in order.
    pub metrics: Vec<Metric>,
    /// The metric that the page opens with, `DATASET/METRIC`; without it, or where it is not among them, the one whose
    /// law is known best.
    pub headline: Option<String>,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Version of the code that fitted and drew.
    pub code_version: String,
}

/// A metric with its laws, and what they rest on.
#[derive(Debug, Clone)]
pub struct Metric {
    /// The laws.
    pub panel: Panel,
    /// What they rest on, where that was asked for and there is a law.
    pub analysis: Option<Analysis>,
}

impl Report {
    /// C of a job in the report's convention, where its source says it.
    fn compute_of(&self, job: &StudyJob) -> Option<f64> {
        job.compute_in(self.compute)
    }

    fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.metrics.iter().map(|metric| &metric.panel)
    }
}

/// `DATASET-METRIC`, as part of a file's name.
fn file_stem(panel: &Panel) -> String {
    file_name(&format!("{}-{}", panel.dataset, panel.metric))
}

/// A figure as a file.
#[derive(Debug, Clone)]
pub struct Figure {
    /// File name without folder, `loss-curves.svg`.
    pub file: String,
    /// In the colours of a light page, with literal colours: reads the same in any program.
    pub svg: String,
}

/// What [`render`] makes.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The page.
    pub html: String,
    /// Its figures.
    pub figures: Vec<Figure>,
}

/// A picture with the name of its file.
#[derive(Debug)]
struct Named {
    file: String,
    picture: Picture,
}

/// Pictures of the sweep itself; `None` where there is nothing to draw.
#[derive(Debug)]
struct Drawn {
    /// Of each metric.
    metrics: Vec<DrawnMetric>,
    /// That of the headline's metric, for the page alone.
    headline: Option<Picture>,
    legend: Vec<swatch::Row>,
    curves: Option<Named>,
}

#[derive(Debug)]
struct DrawnMetric {
    spark: Option<Picture>,
    scaling: Option<Named>,
    grid: Option<Named>,
}

/// Draws the figures, side by side, and writes the page around them.
pub fn render(report: &Report) -> Result<Rendered, FigureError> {
    let drawn = draw(report)?;
    let html = html::page(report, &drawn);
    let own = drawn.metrics.iter().flat_map(|metric| metric.scaling.iter().chain(&metric.grid)).chain(&drawn.curves);
    let mut figures: Vec<Figure> =
        own.map(|named| Figure { file: named.file.clone(), svg: named.picture.standalone() }).collect();
    for Metric { panel, analysis } in &report.metrics {
        let files = analysis.iter().flat_map(|analysis| analysis.files(&file_stem(panel)));
        figures.extend(files.map(|(file, svg)| Figure { file, svg }));
    }
    Ok(Rendered { html, figures })
}

/// Other laws are drawn to so many times the largest C of a metric, which is about where its figure ends.
const BEYOND: f64 = 2.4;
/// Places of their lines and bands: they are smooth, and a page holds many.
const PLACES: usize = 13;

/// The other laws of a metric, as its large figure draws them.
fn others(panel: &Panel) -> scaling::Others {
    let laws = panel.fits.iter().map(|one| one.others.len()).max().unwrap_or(0);
    let drawn = |law: usize, one: &PanelFit| {
        let other = one.others.get(law)?;
        let fit = other.fit.as_ref().ok()?;
        let law = drawn_in(fit, other.law.as_str(), BEYOND, PLACES).ok()?;
        let has_room = fit.form().axes().len() == 1;
        Some(if has_room { law } else { Law { interval: exponents(fit), ..law } })
    };
    (0..laws).map(|law| panel.fits.iter().map(|one| drawn(law, one)).collect()).collect()
}

fn draw(report: &Report) -> Result<Drawn, FigureError> {
    let (study, compute) = (&report.study, report.compute);
    let legend = Legend::of(study);
    let span = spark::span(study, compute);
    let of_metric = |Metric { panel, .. }: &Metric| {
        let named = |kind: &str, picture| Named { file: format!("{kind}-{}.svg", file_stem(panel)), picture };
        let spark = span.map(|span| spark::draw(study, compute, &legend, panel, span)).transpose()?.flatten();
        let scaling = scaling::draw(study, compute, &legend, panel, &others(panel))?;
        let scaling = scaling.map(|picture| named("scaling", picture));
        let grid = heatmap::draw(study, &legend, panel)?.map(|picture| named("grid", picture));
        Ok(DrawnMetric { spark, scaling, grid })
    };
    let (metrics, curves) = rayon::join(
        || report.metrics.par_iter().map(of_metric).collect::<Result<_, FigureError>>(),
        || curves::draw(study, &legend),
    );
    let headline = answer::headline(report).map(|number| &report.metrics[number].panel);
    Ok(Drawn {
        metrics: metrics?,
        headline: headline.map(|panel| scaling::draw_plain(study, compute, &legend, panel)).transpose()?.flatten(),
        legend: swatch::rows(&legend)?,
        curves: curves?.map(|picture| Named { file: "loss-curves.svg".to_owned(), picture }),
    })
}
