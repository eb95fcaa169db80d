//! Reports on disk: which metrics one shows, the folder that it is written to, what it was drawn from, and what others
//! have computed. What draws them is the crate `report`.

mod cache;
mod stamp;

use std::path::{Path, PathBuf};

use crate::store::observation::MeasuredMetric;

pub use ::report::{
    Analysis, FigureError, Metric, Rendered, Report, analysis, figures, file_name, number, render, study,
};
pub use cache::Cache;
pub use stamp::{STAMP_FILE, Stamp};

/// A file of a report can't be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {path}")]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
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

/// Name of the page in a report's folder.
pub const PAGE_FILE: &str = "index.html";

/// Writes `index.html` and `figures/*.svg` below `folder` and gives the page's path.
pub fn write(rendered: &Rendered, folder: &Path) -> Result<PathBuf, WriteError> {
    let figures = folder.join("figures");
    std::fs::create_dir_all(&figures).map_err(|source| WriteError { path: figures.clone(), source })?;
    let page = folder.join(PAGE_FILE);
    let files = rendered.figures.iter().map(|figure| (figures.join(&figure.file), &figure.svg));
    for (path, text) in files.chain([(page.clone(), &rendered.html)]) {
        std::fs::write(&path, text).map_err(|source| WriteError { path, source })?;
    }
    Ok(page)
}
