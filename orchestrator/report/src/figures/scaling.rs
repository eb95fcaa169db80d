//! Error against compute, both logarithmic: the figure that a scaling study is about.

use std::fmt::Write as _;

use fit::{Convention, Fit, Observation, Response};

use super::axis::{Axis, Frame, Scale, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, shorten, wrap};
use super::data::{Law, Picture};
use super::marks::{self, Pen};
use super::theme::{Ink, SERIES};
use super::{FigureError, Legend};
use crate::number::{compact, significant, superscript, with_interval};
use crate::study::{Panel, Study, StudyJob};

const SIZE: (f64, f64) = (980.0, 540.0);
const LEGEND_LEFT: f64 = 722.0;
/// Of the figure without its legend.
const PLAIN: (f64, f64) = (680.0, 460.0);

/// Other laws than the power law, each by every choice of points; `None`: it has no such fit.
pub type Others = Vec<Vec<Option<Law>>>;

/// One metric with its legend and the law of every choice of points, each a layer of class `p0`, `p1`, ... of which the
/// first is shown; those of other laws lie in layers `l1`, `l2`, ..., the power law's in `l0`, which is shown. `None`
/// where no finished job has the metric.
pub fn draw(
    study: &Study,
    compute: Convention,
    legend: &Legend,
    panel: &Panel,
    others: &Others,
) -> Result<Option<Picture>, FigureError> {
    picture(study, compute, legend, panel, Some(others))
}

/// The same for a page that has the legend beside it.
pub fn draw_plain(
    study: &Study,
    compute: Convention,
    legend: &Legend,
    panel: &Panel,
) -> Result<Option<Picture>, FigureError> {
    picture(study, compute, legend, panel, None)
}

fn picture(
    study: &Study,
    compute: Convention,
    legend: &Legend,
    panel: &Panel,
    others: Option<&Others>,
) -> Result<Option<Picture>, FigureError> {
    let points = points(study, compute, panel);
    if points.is_empty() {
        return Ok(None);
    }
    let with_legend = others.is_some();
    let others: &[Vec<Option<Law>>] = others.map_or(&[], Vec::as_slice);
    let laws: Vec<Option<&Fit>> = panel.fits.iter().map(|one| one.fit.as_ref().ok()).collect();
    let main = laws.first().copied().flatten();
    let pareto = panel.fits.iter().skip(1).find(|other| other.policy == "pareto").and_then(|one| one.fit.as_ref().ok());
    let title = format!("{}: {} against compute", panel.dataset, error_title(panel));
    let chance = points.iter().find_map(|(_, o)| o.chance_error);
    let frame = frame(&points, &laws, chance, with_legend);
    let size = if with_legend { SIZE } else { PLAIN };
    let svg = canvas_draw(size, &title, |canvas| {
        frame.draw(
            canvas,
            (&format!("C, {}", compute.unit()), power_of_ten),
            (&format!("{} · {}", shorten(&panel.dataset, 40), error_title(panel)), Some(decimal)),
        )?;
        if let Some(chance) = chance.filter(|chance| *chance <= frame.y.high) {
            let y = frame.at(frame.x.low, chance).1;
            canvas.dashed(&[(frame.left, y), (frame.left + frame.width, y)], Ink::Muted, 1.25, 3.0)?;
            canvas.text((frame.left + frame.width - 4.0, y - 10.0), "chance", 12.5, Ink::Muted, Anchor::End)?;
        }
        by_law(canvas, others, 0, laws.len(), |number| {
            laws[number].map_or(Ok(()), |fit| law_with_band(canvas, &frame, fit))?;
            let frontier = pareto.filter(|_| number == 0);
            if let Some(fit) = frontier {
                let ends = [fit.points[0].compute, frame.x.high].map(|c| (c, fit.at_compute(c)));
                for piece in frame.clipped(ends.into_iter()) {
                    canvas.dashed(&piece, Ink::Muted, 1.5, 7.0)?;
                }
            }
            Ok(())
        })?;
        for (place, by_points) in others.iter().enumerate() {
            by_law(canvas, others, place + 1, by_points.len(), |number| {
                other_law(canvas, &frame, panel, (place, number), by_points[number].as_ref())
            })?;
        }
        for ((number, job), observation) in &points {
            let at = frame.at(observation.compute, observation.error);
            let ink = Ink::Series(legend.model(&job.model));
            canvas.mark(&[*number], || {
                if let Some(error) = observation.standard_error {
                    let ends = [observation.error - error, observation.error + error]
                        .map(|e| frame.at(observation.compute, e.max(frame.y.low)));
                    canvas.line(&ends, ink, 1.25)?;
                }
                canvas.marker(legend.shape(job.data_size), at, legend.radius(job.samples_seen), ink)
            })?;
        }
        for (number, fit) in laws.iter().enumerate() {
            canvas.layer(&layer(number), number == 0, || {
                // All points need no rings: then those of the frontier have them.
                let ringed = if panel.fits[number].policy == "all" { pareto } else { *fit };
                for point in ringed.into_iter().flat_map(|fit| &fit.points) {
                    canvas.ring(frame.at(point.compute, point.error), 13.0, Ink::Text, 1.25)?;
                }
                Ok(())
            })?;
        }
        by_law(canvas, others, 0, laws.len(), |number| {
            if with_legend {
                law_in_words(canvas, laws[number], pareto.filter(|_| number == 0))
            } else {
                law_in_plot(canvas, &frame, laws[number])
            }
        })?;
        if with_legend { side(canvas, legend) } else { Ok(()) }
    })?;
    Ok(Some(Picture::new(&title, caption(legend, main, pareto), svg)))
}

/// What `paint` draws of one law by each choice of points, in layers; without other laws there is nothing to choose.
fn by_law(
    canvas: &Canvas,
    others: &[Vec<Option<Law>>],
    law: usize,
    choices: usize,
    paint: impl Fn(usize) -> Result<(), FigureError>,
) -> Result<(), FigureError> {
    let all = || (0..choices).try_for_each(|number| canvas.layer(&layer(number), number == 0, || paint(number)));
    if others.is_empty() { all() } else { canvas.layer(&format!("l l{law}"), law == 0, all) }
}

/// Class of what belongs to one choice of points, by its place in the panel.
pub(super) fn layer(number: usize) -> String {
    format!("p p{number}")
}

/// Jobs, by their places in the study, with their observations: those that can be drawn.
pub(super) fn points<'a>(study: &'a Study, compute: Convention, panel: &Panel) -> Vec<Measured<'a>> {
    let drawable = |row: &Observation| [row.compute, row.error].iter().all(|v| v.is_finite() && *v > 0.0);
    let rows = study.observations(&panel.dataset, &panel.metric, compute).into_iter();
    rows.filter(|(_, row)| drawable(row)).map(|(place, row)| ((place, &study.jobs[place]), row)).collect()
}

/// A job's place in the study, the job, and what it measured.
pub(super) type Measured<'a> = ((usize, &'a StudyJob), Observation);

fn error_title(panel: &Panel) -> String {
    match panel.response() {
        Response::Fraction => format!("error, 1 − {}", panel.metric),
        Response::Loss => format!("{}, nats", panel.metric),
    }
}

fn frame(points: &[Measured<'_>], laws: &[Option<&Fit>], chance: Option<f64>, with_legend: bool) -> Frame {
    let computes = points.iter().map(|(_, o)| o.compute);
    let most = computes.clone().fold(0.0, f64::max);
    let x = Axis::log(computes.chain([most * 2.5]), 0.05).unwrap_or(Axis { low: 1.0, high: 10.0, scale: Scale::Log });
    let errors = points.iter().map(|(_, o)| o.error);
    let (least, worst) = (errors.clone().fold(f64::INFINITY, f64::min), errors.clone().fold(0.0, f64::max));
    // Far from them chance, or a law through few points, would only squeeze the points together.
    let near = |error: &f64| *error < worst * 2.0 && *error > least / 2.0;
    let law = laws.iter().flatten().flat_map(|fit| [x.low, x.high].map(|c| fit.at_compute(c))).filter(near);
    let chance = chance.filter(near);
    let y = Axis::log(errors.chain(law).chain(chance), 0.06).unwrap_or(Axis { low: 0.1, high: 1.0, scale: Scale::Log });
    let (right, height) = if with_legend { (LEGEND_LEFT - 26.0, SIZE.1) } else { (PLAIN.0 - 18.0, PLAIN.1) };
    Frame { left: 66.0, top: 40.0, width: right - 66.0, height: height - 40.0 - 62.0, x, y }
}

fn law_with_band(canvas: &Canvas, frame: &Frame, fit: &Fit) -> Result<(), FigureError> {
    // Every other place: an edge is smooth, and a page holds many.
    let mut inside: Vec<_> =
        fit.band.iter().filter(|point| point.compute >= frame.x.low && point.compute <= frame.x.high).collect();
    let last = inside.len().saturating_sub(1);
    let mut at = 0..;
    inside.retain(|_| at.next().is_some_and(|at| at % 2 == 0 || at == last));
    let edge = |of: &dyn Fn(&fit::BandPoint) -> f64| -> Vec<(f64, f64)> {
        inside.iter().map(|point| frame.at(point.compute, of(point).max(f64::MIN_POSITIVE))).collect()
    };
    let mut outline = edge(&|point| point.error.high);
    outline.extend(edge(&|point| point.error.low).into_iter().rev());
    if outline.len() > 3 {
        canvas.polygon(&outline, Ink::Text, 0.13)?;
    }
    let last = fit.points[fit.points.len() - 1].compute;
    let at = |c: f64| (c, fit.at_compute(c));
    for piece in frame.clipped([at(fit.points[0].compute), at(last)].into_iter()) {
        canvas.line(&piece, Ink::Text, 2.0)?;
    }
    for piece in frame.clipped([at(last), at(frame.x.high)].into_iter()) {
        canvas.dashed(&piece, Ink::Text, 1.75, 3.0)?;
    }
    Ok(())
}

/// Another law by one choice of points: line, band, and its words in the place of the power law's.
fn other_law(
    canvas: &Canvas,
    frame: &Frame,
    panel: &Panel,
    (place, number): (usize, usize),
    law: Option<&Law>,
) -> Result<(), FigureError> {
    let (left, text) = (LEGEND_LEFT, LEGEND_LEFT + 26.0);
    let Some(law) = law else {
        return canvas.text((left, 40.0), "no such law through these", 13.0, Ink::Text, Anchor::Start);
    };
    marks::band(canvas, frame, &law.curve, Ink::Text)?;
    marks::law(canvas, frame, law, Pen::solid(Ink::Text, 2.0))?;
    canvas.line(&[(left, 40.0), (left + 20.0, 40.0)], Ink::Text, 2.0)?;
    // Pages show the reader's font, which may be wider than the one that is reckoned with.
    let room = (SIZE.0 - text) * 0.86;
    let mut lines = wrap(&law.formula, 13.0, room);
    lines.truncate(2);
    lines.extend(wrap(&law.interval, 12.5, room).into_iter().take(3));
    lines.extend(panel.fits[number].others[place].fit.as_ref().ok().map(judged));
    for (line, words) in lines.iter().enumerate() {
        canvas.text((text, 40.0 + 15.5 * line as f64), words, 12.5, Ink::Text, Anchor::Start)?;
    }
    Ok(())
}

/// The law of one choice of points, right of the plot on top.
fn law_in_words(canvas: &Canvas, fit: Option<&Fit>, pareto: Option<&Fit>) -> Result<(), FigureError> {
    let (left, text, y) = (LEGEND_LEFT, LEGEND_LEFT + 26.0, 40.0);
    let Some(fit) = fit else {
        return canvas.text((left, y), "no law: see the table", 13.0, Ink::Text, Anchor::Start);
    };
    canvas.line(&[(left, y), (left + 20.0, y)], Ink::Text, 2.0)?;
    canvas.text((text, y), &law_text(fit), 14.0, Ink::Text, Anchor::Start)?;
    canvas.text((text, y + 19.0), &exponent(fit), 12.5, Ink::Text, Anchor::Start)?;
    canvas.text((text, y + 37.0), &judged(fit), 12.5, Ink::Text, Anchor::Start)?;
    let Some(fit) = pareto else { return Ok(()) };
    let y = y + 62.0;
    canvas.dashed(&[(left, y), (left + 20.0, y)], Ink::Muted, 1.5, 5.0)?;
    canvas.ring((left + 10.0, y), 6.5, Ink::Text, 1.25)?;
    canvas.text((text, y), &format!("frontier: {}", law_text(fit)), 12.5, Ink::Text, Anchor::Start)
}

/// The same in the plot's lower left corner, where a law that falls leaves room.
fn law_in_plot(canvas: &Canvas, frame: &Frame, fit: Option<&Fit>) -> Result<(), FigureError> {
    let (left, y) = (frame.left + 14.0, frame.bottom() - 40.0);
    let Some(fit) = fit else {
        return canvas.text((left, y), "no law", 14.0, Ink::Text, Anchor::Start);
    };
    canvas.text((left, y), &law_text(fit), 16.0, Ink::Text, Anchor::Start)?;
    canvas.text((left, y + 22.0), &format!("{} · {}", exponent(fit), judged(fit)), 13.0, Ink::Text, Anchor::Start)
}

fn exponent(fit: &Fit) -> String {
    format!("α {}", minus(&with_interval(&fit.interval("alpha"))))
}

fn judged(fit: &Fit) -> String {
    let r2 = fit.r2.map_or(String::new(), |r2| format!("R² {r2:.2} · "));
    format!("{r2}{}", fit.verdict)
}

/// Models, data sizes and samples seen, right of the plot.
fn side(canvas: &Canvas, legend: &Legend) -> Result<(), FigureError> {
    let (left, text) = (LEGEND_LEFT, LEGEND_LEFT + 26.0);
    let mut y = 130.0;
    let head = |y: &mut f64, title: &str| {
        let drawn = canvas.text((left, *y), title, 13.0, Ink::Muted, Anchor::Start);
        *y += 20.0;
        drawn
    };
    head(&mut y, "Model, parameters")?;
    for (number, (model, parameters)) in legend.models.iter().take(12).enumerate() {
        canvas.marker(0, (left + 10.0, y), 6.0, Ink::Series(number))?;
        let label = format!("{}, {}", shorten(model, 20), compact(*parameters as f64));
        canvas.text((text, y), &label, 13.0, Ink::Text, Anchor::Start)?;
        y += 19.0;
    }
    if legend.models.len() > 12 {
        canvas.text((text, y), &format!("and {} more", legend.models.len() - 12), 12.5, Ink::Muted, Anchor::Start)?;
        y += 19.0;
    }
    y += 8.0;
    head(&mut y, "Data size, unique pairs")?;
    let mut x = left + 10.0;
    for (number, size) in legend.data_sizes.iter().take(5).enumerate() {
        canvas.marker(number, (x, y), 6.0, Ink::Muted)?;
        let label = compact(*size as f64);
        canvas.text((x + 12.0, y), &label, 13.0, Ink::Text, Anchor::Start)?;
        x += 30.0 + 8.0 * label.chars().count() as f64;
        if x > SIZE.0 - 50.0 {
            (x, y) = (left + 10.0, y + 20.0);
        }
    }
    y += 27.0;
    head(&mut y, "Samples seen")?;
    let mut x = left + 10.0;
    for samples in legend.sizes_shown() {
        canvas.marker(0, (x, y), legend.radius(Some(samples)), Ink::Muted)?;
        let label = compact(samples as f64);
        canvas.text((x + 14.0, y), &label, 13.0, Ink::Text, Anchor::Start)?;
        x += 36.0 + 8.0 * label.chars().count() as f64;
    }
    Ok(())
}

/// `E = 5.86 · C⁻⁰·¹¹¹`
fn law_text(fit: &Fit) -> String {
    format!(
        "E = {} · C{}",
        significant(fit.interval("beta").value, 3),
        superscript(&significant(fit.interval("alpha").value, 3))
    )
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn caption(legend: &Legend, main: Option<&Fit>, pareto: Option<&Fit>) -> String {
    let mut caption =
        "One marker a job: colour is the model, shape the data size, size the samples seen; bars are one \
                       standard error over the test items."
            .to_owned();
    if let Some(fit) = main {
        let through = match (fit.points.len(), fit.observations.len()) {
            (points, all) if points == all => format!("all {all} jobs"),
            (points, all) => format!("{points} of {all} jobs"),
        };
        let _ = write!(
            caption,
            " Solid line: the law through {through}, dashed beyond them; band: its 95 % interval ({} bootstrap \
             resamples of jobs), which is not an interval for a single new job.",
            fit.resamples
        );
    }
    if pareto.is_some() {
        caption.push_str(" Ringed: jobs on the Pareto frontier, and the law through them.");
    }
    if legend.models.len() > SERIES {
        let _ = write!(caption, " Colours repeat after {SERIES} models, in order of parameters.");
    }
    caption
}
