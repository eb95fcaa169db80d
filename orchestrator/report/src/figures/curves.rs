//! Training loss against samples seen, one panel a data size.

use super::axis::{Axis, Frame};
use super::canvas::{Anchor, draw as canvas_draw, shorten};
use super::data::Picture;
use super::theme::Ink;
use super::{FigureError, Legend};
use crate::number::compact;
use crate::study::{CurvePoint, Study};

const WIDTH: f64 = 980.0;
const PANEL_HEIGHT: f64 = 300.0;
const ACROSS: usize = 3;

/// `None` where no job has reported a loss.
pub fn draw(study: &Study, legend: &Legend) -> Result<Option<Picture>, FigureError> {
    let curves: Vec<(usize, usize, i64, Vec<&CurvePoint>)> = study
        .jobs
        .iter()
        .enumerate()
        .filter_map(|(place, job)| {
            let points: Vec<&CurvePoint> = study
                .curves
                .iter()
                .filter(|p| p.job_key == job.job_key && p.loss.is_finite() && p.loss > 0.0 && p.samples_seen > 0.0)
                .collect();
            (!points.is_empty()).then(|| (place, legend.model(&job.model), job.data_size.unwrap_or(0), points))
        })
        .collect();
    let all = || curves.iter().flat_map(|(_, _, _, points)| points.iter());
    let (Some(x), Some(y)) = (Axis::log(all().map(|p| p.samples_seen), 0.03), Axis::log(all().map(|p| p.loss), 0.05))
    else {
        return Ok(None);
    };
    let sizes: Vec<i64> =
        legend.data_sizes.iter().copied().filter(|size| curves.iter().any(|(_, _, s, _)| s == size)).collect();
    let across = sizes.len().clamp(1, ACROSS);
    let rows = sizes.len().div_ceil(ACROSS);
    let cell = (WIDTH - 66.0 - 16.0) / across as f64;
    let keys = legend.models.len().div_ceil(4) as f64 * 20.0;
    let height = rows as f64 * (PANEL_HEIGHT + 86.0) + keys + 14.0;
    let title = "Training loss against samples seen";
    let svg = canvas_draw((WIDTH, height), title, |canvas| {
        for (number, (model, _)) in legend.models.iter().enumerate() {
            let (x, y) = (66.0 + (number % 4) as f64 * 228.0, 14.0 + (number / 4) as f64 * 20.0);
            canvas.line(&[(x, y), (x + 20.0, y)], Ink::Series(number), 2.5)?;
            canvas.text((x + 27.0, y), &shorten(model, 24), 13.0, Ink::Text, Anchor::Start)?;
        }
        for (number, size) in sizes.iter().enumerate() {
            let (column, row) = (number % across, number / across);
            let frame = Frame {
                left: 66.0 + cell * column as f64,
                top: keys + 46.0 + row as f64 * (PANEL_HEIGHT + 86.0),
                width: cell - 22.0,
                height: PANEL_HEIGHT,
                x,
                y,
            };
            let above =
                format!("{}{} unique pairs", if column == 0 { "loss, nats · " } else { "" }, compact(*size as f64));
            let label = |value: f64| compact(value);
            frame.draw(canvas, ("samples seen", label), (&above, (column == 0).then_some(label)))?;
            for (place, model, _, points) in curves.iter().filter(|(_, _, s, _)| s == size) {
                let line: Vec<_> = points.iter().map(|p| frame.at(p.samples_seen, p.loss)).collect();
                canvas.mark(&[*place], || {
                    canvas.line(&line, Ink::Series(*model), 1.6)?;
                    canvas.marker(0, line[line.len() - 1], 3.0, Ink::Series(*model))
                })?;
            }
        }
        Ok(())
    })?;
    Ok(Some(Picture::new(
        title,
        "One line a job, a dot at its end; both axes logarithmic. The training loss depends on the global \
         batch, so compare it only between jobs of the same batch."
            .to_owned(),
        svg,
    )))
}
