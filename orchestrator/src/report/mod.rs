//! A sweep as one self-contained HTML page, and its figures as SVG files. Knows no query and no clock: what it draws is
//! in the [`Report`] it is given. Only `figures/` knows plotters.

pub mod analysis;
pub mod figures;
mod html;
pub mod number;
mod provenance;
mod sections;
mod stamp;
mod style;
mod tuned;

use std::path::{Path, PathBuf};

use crate::fit::{Convention, Fit, FitError, Response};
use crate::store::fit::StoredFit;
use crate::store::observation::MeasuredMetric;
use crate::store::study::{Study, StudyJob};

pub use analysis::section::Analysis;
pub use figures::FigureError;
pub use stamp::{STAMP_FILE, Stamp};

/// What a report shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// The sweep as read.
    pub study: Study,
    /// Convention of every C.
    pub compute: Convention,
    /// Metrics with a figure each, in order.
    pub panels: Vec<Panel>,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Version of the code that fitted and drew.
    pub code_version: String,
}

/// One metric: its fits by every policy. The first is the one drawn with its band.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Data set.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Fits, or why there is none.
    pub fits: Vec<PanelFit>,
    /// What the law rests on, where that was asked for and there is a law.
    pub analysis: Option<Analysis>,
}

/// One fit of a panel.
#[derive(Debug, Clone)]
pub struct PanelFit {
    /// Policy, as stored: `all`, `pareto`, `bins:5`.
    pub policy: String,
    /// The fit.
    pub fit: Result<Fit, FitError>,
    /// Its row, where there is a fit.
    pub stored: Option<StoredFit>,
}

impl Report {
    /// C of a job in the report's convention, where its source says it.
    fn compute_of(&self, job: &StudyJob) -> Option<f64> {
        job.compute_in(self.compute)
    }
}

impl Panel {
    fn response(&self) -> Response {
        Response::of_metric(&self.metric)
    }

    /// As part of a file's name.
    fn file_stem(&self) -> String {
        file_name(&format!("{}-{}", self.dataset, self.metric))
    }

    /// The fit that is drawn.
    fn main(&self) -> Option<&PanelFit> {
        self.fits.first()
    }
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

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A figure can't be drawn.
    #[error("can't draw a figure")]
    Draw(#[from] FigureError),
    /// A file can't be written.
    #[error("can't write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The metrics that a report shows unless told otherwise: for each data set one retrieval recall, `acc1` and
/// `loss@1024`.
pub fn default_metrics(measured: &[MeasuredMetric]) -> Vec<&MeasuredMetric> {
    const RECALLS: [&str; 3] = ["image_retrieval_recall@5", "image_retrieval_recall@1", "image_retrieval_recall@10"];
    let mut chosen: Vec<&MeasuredMetric> = Vec::new();
    let mut datasets: Vec<&str> = measured.iter().map(|metric| metric.dataset.as_str()).collect();
    datasets.dedup();
    for dataset in datasets {
        let of = |name: &str| measured.iter().find(|metric| metric.dataset == dataset && metric.metric == name);
        let before = chosen.len();
        chosen.extend(RECALLS.iter().find_map(|name| of(name)));
        chosen.extend(of("acc1"));
        chosen.extend(of("loss@1024"));
        if chosen.len() == before {
            chosen.extend(measured.iter().find(|metric| metric.dataset == dataset));
        }
    }
    chosen
}

/// Draws the figures and writes the page around them.
pub fn render(report: &Report) -> Result<Rendered, ReportError> {
    let drawn = figures::draw_all(report)?;
    let html = html::page(report, &drawn);
    let mut figures: Vec<Figure> =
        drawn.into_iter().map(|drawn| Figure { svg: drawn.standalone(), file: drawn.file }).collect();
    for panel in &report.panels {
        let files = panel.analysis.iter().flat_map(|analysis| analysis.files(&panel.file_stem()));
        figures.extend(files.map(|(file, svg)| Figure { file, svg }));
    }
    Ok(Rendered { html, figures })
}

/// Name of the page in a report's folder.
pub const PAGE_FILE: &str = "index.html";

/// Writes `index.html` and `figures/*.svg` below `folder` and gives the page's path.
pub fn write(rendered: &Rendered, folder: &Path) -> Result<PathBuf, ReportError> {
    let figures = folder.join("figures");
    std::fs::create_dir_all(&figures).map_err(|source| ReportError::Write { path: figures.clone(), source })?;
    let page = folder.join(PAGE_FILE);
    let files = rendered.figures.iter().map(|figure| (figures.join(&figure.file), &figure.svg));
    for (path, text) in files.chain([(page.clone(), &rendered.html)]) {
        std::fs::write(&path, text).map_err(|source| ReportError::Write { path, source })?;
    }
    Ok(page)
}

/// A name as part of a path: letters, digits, `.`, `_` and `-`; anything else becomes `-`, and a leading dot too.
pub fn file_name(name: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).take(100).collect();
    match safe.strip_prefix('.') {
        Some(rest) => format!("-{rest}"),
        None if safe.is_empty() => "-".to_owned(),
        None => safe,
    }
}
