//! Values over the grid: model by samples seen, one panel a data size.

use fit::Response;

use super::canvas::{Anchor, draw as canvas_draw, shorten};
use super::data::Picture;
use super::theme::{Ink, viridis};
use super::{FigureError, Legend};
use crate::number::{compact, significant};
use crate::study::{Panel, Study};

const CELL: (f64, f64) = (74.0, 36.0);
const LABELS: f64 = 150.0;
const GAP: f64 = 28.0;
const WIDTH_MAX: f64 = 980.0;

/// `None` where no finished job has the metric.
pub fn draw(study: &Study, legend: &Legend, panel: &Panel) -> Result<Option<Picture>, FigureError> {
    let response = panel.response();
    let scale = if response == Response::Fraction { 100.0 } else { 1.0 };
    let mut jobs: Vec<_> = study.jobs.iter().enumerate().map(|(place, job)| (place, job, None)).collect();
    for (place, m) in study.measured(&panel.dataset, &panel.metric) {
        jobs[place].2 = Some(m.value * scale).filter(|value| value.is_finite());
    }
    let values = || jobs.iter().filter_map(|(_, _, value)| *value);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if least > most || legend.data_sizes.is_empty() || legend.samples_seen.is_empty() {
        return Ok(None);
    }
    let brightness = |value: f64| {
        let share = if most > least { (value - least) / (most - least) } else { 0.5 };
        if response == Response::Loss { 1.0 - share } else { share }
    };

    let columns = legend.samples_seen.len() as f64;
    let width = columns * CELL.0;
    let across = (((WIDTH_MAX - LABELS + GAP) / (width + GAP)).floor() as usize).clamp(1, legend.data_sizes.len());
    let height = legend.models.len() as f64 * CELL.1 + 76.0;
    let rows = legend.data_sizes.len().div_ceil(across);
    let unit = if response == Response::Fraction { "%" } else { "nats" };
    let title = format!("{}: {} over the grid, {unit}", panel.dataset, panel.metric);
    let size = ((LABELS + across as f64 * (width + GAP)).max(420.0), 22.0 + rows as f64 * height);
    let svg = canvas_draw(size, &title, |canvas| {
        canvas.text(
            (8.0, 14.0),
            &shorten(&format!("{} · {}, {unit}", panel.dataset, panel.metric), 64),
            13.5,
            Ink::Text,
            Anchor::Start,
        )?;
        for (at, data_size) in legend.data_sizes.iter().enumerate() {
            let left = LABELS + (at % across) as f64 * (width + GAP);
            let top = 58.0 + (at / across) as f64 * height;
            // Most of an irregular grid is empty: one ground, and what there is on it.
            let end = (left + width - 2.0, top + legend.models.len() as f64 * CELL.1 - 2.0);
            canvas.rectangle((left, top), end, Ink::FineGrid)?;
            let head = format!("{} unique pairs", compact(*data_size as f64));
            canvas.text((left, top - 16.0), &head, 13.0, Ink::Text, Anchor::Start)?;
            for (row, (model, _)) in legend.models.iter().enumerate() {
                let y = top + row as f64 * CELL.1;
                if at % across == 0 {
                    canvas.text(
                        (LABELS - 10.0, y + CELL.1 / 2.0),
                        &shorten(model, 19),
                        13.0,
                        Ink::Text,
                        Anchor::End,
                    )?;
                }
                for (column, samples) in legend.samples_seen.iter().enumerate() {
                    let corner = (left + column as f64 * CELL.0, y);
                    let here = jobs.iter().filter(|(_, job, _)| {
                        job.model == *model && job.data_size == Some(*data_size) && job.samples_seen == Some(*samples)
                    });
                    let values: Vec<f64> = here.clone().filter_map(|(_, _, value)| *value).collect();
                    let Some((_, first, _)) = here.clone().next() else { continue };
                    let (fill, ink, text) = if values.is_empty() {
                        (Ink::Grid, Ink::Muted, first.state.clone())
                    } else {
                        let mean = values.iter().sum::<f64>() / values.len() as f64;
                        let (fill, ink) = viridis(brightness(mean));
                        let text = if scale > 1.0 { format!("{mean:.1}") } else { significant(mean, 3) };
                        (fill, ink, text)
                    };
                    let opposite = (corner.0 + CELL.0 - 2.0, corner.1 + CELL.1 - 2.0);
                    let middle = (f64::midpoint(corner.0, opposite.0), f64::midpoint(corner.1, opposite.1));
                    let places: Vec<usize> = here.map(|(place, _, _)| *place).collect();
                    canvas.mark(&places, || {
                        canvas.rectangle(corner, opposite, fill)?;
                        canvas.text(middle, &text, 13.0, ink, Anchor::Middle)
                    })?;
                }
            }
            let bottom = top + legend.models.len() as f64 * CELL.1;
            for (column, samples) in legend.samples_seen.iter().enumerate() {
                let x = left + (column as f64 + 0.5) * CELL.0 - 1.0;
                canvas.text((x, bottom + 10.0), &compact(*samples as f64), 12.5, Ink::Muted, Anchor::Middle)?;
            }
        }
        canvas.text(
            (LABELS - 10.0, 58.0 + legend.models.len() as f64 * CELL.1 + 10.0),
            "samples seen",
            12.5,
            Ink::Muted,
            Anchor::End,
        )
    })?;
    Ok(Some(Picture::new(
        &title,
        "Brighter is better. Cells without a number show the job's state; where there is none, the grid has no job. \
         Several seeds: their mean."
            .to_owned(),
        svg,
    )))
}
