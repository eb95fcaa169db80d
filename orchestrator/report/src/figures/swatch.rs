//! What colours, shapes and sizes of a study's marks stand for, one small picture each: for pages, where a legend
//! has to wrap.

use super::canvas::draw as canvas_draw;
use super::data::Picture;
use super::theme::Ink;
use super::{FigureError, Legend};
use crate::number::compact;

const SIDE: f64 = 20.0;

/// A line of a legend: its title, and pictures with what they stand for.
#[derive(Debug)]
pub struct Row {
    /// `Model, parameters`
    pub title: &'static str,
    /// Pictures with their words.
    pub entries: Vec<(Picture, String)>,
}

/// Models by colour, data sizes by shape, samples seen by size; rows of one entry tell nothing and are left out.
pub fn rows(legend: &Legend) -> Result<Vec<Row>, FigureError> {
    let swatch = |shape: usize, radius: f64, ink: Ink| {
        let svg = canvas_draw((SIDE, SIDE), "", |canvas| canvas.marker(shape, (SIDE / 2.0, SIDE / 2.0), radius, ink))?;
        Ok(Picture::new("", String::new(), svg))
    };
    let count = |value: i64| compact(value as f64);
    let models = legend.models.iter().enumerate().map(|(number, (model, parameters))| {
        Ok((swatch(0, 6.0, Ink::Series(number))?, format!("{model}, {}", count(*parameters))))
    });
    let sizes =
        legend.data_sizes.iter().enumerate().map(|(number, size)| Ok((swatch(number, 6.0, Ink::Muted)?, count(*size))));
    let samples = legend
        .sizes_shown()
        .into_iter()
        .map(|samples| Ok((swatch(0, legend.radius(Some(samples)), Ink::Muted)?, count(samples))));
    let mut rows = vec![
        Row { title: "Model, parameters", entries: models.collect::<Result<_, FigureError>>()? },
        Row { title: "Data size, unique pairs", entries: sizes.collect::<Result<_, FigureError>>()? },
        Row { title: "Samples seen", entries: samples.collect::<Result<_, FigureError>>()? },
    ];
    rows.retain(|row| row.entries.len() > 1);
    Ok(rows)
}
