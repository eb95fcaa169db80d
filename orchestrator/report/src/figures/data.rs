//! Plain data that the analysis figures draw. Vectors may be empty or of different lengths, and may hold values that
//! are no numbers: what can't be drawn is left out, and the figure says how much that was.

use serde::{Deserialize, Serialize};

use super::theme;
use super::{FigureError, canvas, png};

/// A figure as drawn, in the light theme's colours, with its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// What it shows, for readers who don't see it and as the caption's start.
    pub title: String,
    /// How to read it: one or two sentences of plain text.
    pub caption: String,
    svg: String,
}

impl Picture {
    pub(super) fn new(title: &str, caption: String, svg: String) -> Picture {
        Picture { title: title.to_owned(), caption, svg }
    }

    /// SVG whose colours are CSS variables.
    pub fn inline(&self) -> String {
        theme::with_variables(&self.svg)
    }

    /// The same for the report's page, whose style sheet says the font of all its figures.
    pub fn in_page(&self) -> String {
        self.inline().replacen(&canvas::page_says(), "", 1)
    }

    /// SVG for a file: literal colours on white.
    pub fn standalone(&self) -> String {
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", self.svg)
    }

    /// PNG for a file, twice the size of the SVG in pixels.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        png::of_svg(&self.svg)
    }
}

/// What part a point has in the fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The law was fitted to it: a filled marker.
    Fitted,
    /// Kept out of the fit to judge it: an open marker.
    HeldOut,
    /// Left out by the choice of points or by name: a faint marker.
    Excluded,
}

/// A measured run.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Abscissa in the axis's unit, for example C.
    pub x: f64,
    /// Ordinate in the axis's unit, for example the error as a share.
    pub y: f64,
    /// Model's name; may be empty. One marker shape a model.
    pub model: String,
    /// N of the model: orders the models, and sizes the markers of [`comparison`](super::comparison).
    pub parameters: f64,
    /// Name of the training set or its size, `LAION-400M`; may be empty. One colour each.
    pub data: String,
    /// Unique samples of it: orders the colours.
    pub data_size: f64,
    /// Its part in the fit.
    pub role: Role,
    /// Its job's place in the study, for pages that show the job behind a mark.
    pub job: Option<usize>,
}

/// A line, with a band where `low` and `high` have values.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Abscissas, ascending.
    pub x: Vec<f64>,
    /// Ordinates.
    pub y: Vec<f64>,
    /// Lower end of the 95 % interval of each ordinate, or empty.
    pub low: Vec<f64>,
    /// Upper end of the 95 % interval of each ordinate, or empty.
    pub high: Vec<f64>,
}

impl Curve {
    /// No line.
    pub fn none() -> Curve {
        Curve { x: Vec::new(), y: Vec::new(), low: Vec::new(), high: Vec::new() }
    }

    /// The line without its band.
    #[must_use]
    pub fn without_band(&self) -> Curve {
        Curve { x: self.x.clone(), y: self.y.clone(), low: Vec::new(), high: Vec::new() }
    }

    /// Points of the line.
    pub(super) fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.x.iter().copied().zip(self.y.iter().copied())
    }

    /// Abscissa, low and high of the band.
    pub(super) fn band(&self) -> impl Iterator<Item = (f64, f64, f64)> + '_ {
        self.x.iter().zip(&self.low).zip(&self.high).map(|((x, low), high)| (*x, *low, *high))
    }
}

/// A fitted law, drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Law {
    /// Its name in the legend: `F1 power law`, `bins:5`.
    pub name: String,
    /// Its formula with numbers: `E = 5.86 · C⁻⁰·¹¹¹`.
    pub formula: String,
    /// The 95 % intervals of its parameters in words, `α −0.111 [−0.130, −0.095]`; may be empty.
    pub interval: String,
    /// Its line and band.
    pub curve: Curve,
    /// Largest abscissa that it was fitted to: the line is dashed beyond. Infinite: solid throughout.
    pub fitted_to: f64,
}
