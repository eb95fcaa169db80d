//! Reports of scaling-law studies: data in, SVG, PNG and one self-contained HTML page out. Pure: no files, no clock, no
//! database, no randomness but the seed of a fit.
//!
//! Modules in reading order; each uses those above it and none below (asserted by `orchestrator/tests/it/tidy.rs`):
//! [`number`] and [`text`] write numbers and others' words, [`study`] is a sweep as it was read, [`figures`] draw it,
//! [`analysis`] turns what the engine says into figures, [`page`] puts them on a page.

pub mod number;

pub mod text;

pub mod study;

pub mod figures;

pub mod analysis;

pub mod page;

pub use analysis::section::Analysis;
pub use figures::FigureError;
pub use page::{Figure, Metric, Rendered, Report, render};
pub use text::file_name;
