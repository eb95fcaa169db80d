//! One metric as a small multiple: jobs and laws on logarithmic axes, without words but a few numbers of the error.

use fit::{Convention, Fit};

use super::axis::{Axis, Frame, Scale, decimal};
use super::canvas::{Anchor, draw as canvas_draw};
use super::data::Picture;
use super::scaling::{layer, points};
use super::theme::Ink;
use super::{FigureError, Legend};
use crate::study::{Panel, Study};

const SIZE: (f64, f64) = (240.0, 132.0);
/// Room of the numbers, right of the plot.
const ASIDE: f64 = 32.0;
/// Numbers beside the grid, at most.
const NUMBERS: usize = 3;

/// The range of C that all small multiples of a study share; `None` where no job says its C.
pub fn span(study: &Study, compute: Convention) -> Option<(f64, f64)> {
    let all = study.jobs.iter().filter(|job| job.state == "done").filter_map(|job| job.compute_in(compute));
    Axis::log(all, 0.05).map(|axis| (axis.low, axis.high))
}

/// `None` where no finished job has the metric.
pub fn draw(
    study: &Study,
    compute: Convention,
    legend: &Legend,
    panel: &Panel,
    (low, high): (f64, f64),
) -> Result<Option<Picture>, FigureError> {
    let points = points(study, compute, panel);
    let Some(y) = Axis::log(points.iter().map(|(_, o)| o.error), 0.1) else {
        return Ok(None);
    };
    let laws: Vec<Option<&Fit>> = panel.fits.iter().map(|one| one.fit.as_ref().ok()).collect();
    let x = Axis { low, high, scale: Scale::Log };
    let frame = Frame { left: 4.0, top: 4.0, width: SIZE.0 - 4.0 - ASIDE, height: SIZE.1 - 8.0, x, y };
    let title = format!("{}: error against compute, one mark a job", panel.name());
    let svg = canvas_draw(SIZE, &title, |canvas| {
        let mut ticks = y.ticks().0;
        let every = ticks.len().div_ceil(NUMBERS).max(1);
        ticks = ticks.into_iter().step_by(every).collect();
        let at = |value: &f64| frame.at(low, *value).1;
        canvas.lines(ticks.iter().map(at).map(|y| [(frame.left, y), (frame.right(), y)]), Ink::Grid, 1.0)?;
        for tick in &ticks {
            canvas.text((SIZE.0 - 1.0, at(tick)), &decimal(*tick), 10.5, Ink::Muted, Anchor::End)?;
        }
        for (number, fit) in laws.iter().enumerate() {
            let Some(fit) = fit else { continue };
            canvas.layer(&layer(number), number == 0, || {
                let inside: Vec<_> =
                    fit.band.iter().filter(|point| (low..=high).contains(&point.compute)).step_by(3).collect();
                let mut band: Vec<_> = inside.iter().map(|point| frame.at(point.compute, point.error.high)).collect();
                band.extend(inside.iter().rev().map(|point| frame.at(point.compute, point.error.low)));
                if band.len() > 3 {
                    canvas.polygon(&band, Ink::Text, 0.13)?;
                }
                let ends = [low, high].map(|c| (c, fit.at_compute(c)));
                for piece in frame.clipped(ends.into_iter()) {
                    canvas.line(&piece, Ink::Text, 1.5)?;
                }
                Ok(())
            })?;
        }
        for ((place, job), observation) in &points {
            let at = frame.at(observation.compute, observation.error);
            canvas.mark(&[*place], || canvas.dot(at, 2.8, Ink::Series(legend.model(&job.model)), 1.0))?;
        }
        Ok(())
    })?;
    Ok(Some(Picture::new(&title, String::new(), svg)))
}
