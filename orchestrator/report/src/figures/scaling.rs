//! Error against compute, both logarithmic: the figure that a scaling study is about.

use std::fmt::Write as _;

use fit::{Convention, Fit, Observation, Response};

use super::axis::{Axis, Frame, Scale, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, shorten};
use super::data::Picture;
use super::theme::{Ink, SERIES};
use super::{FigureError, Legend};
use crate::number::{compact, significant, superscript, with_interval};
use crate::study::{Panel, Study, StudyJob};

const SIZE: (f64, f64) = (980.0, 540.0);
const LEGEND_LEFT: f64 = 722.0;

/// `None` where no finished job has the metric.
pub fn draw(
    study: &Study,
    compute: Convention,
    legend: &Legend,
    panel: &Panel,
) -> Result<Option<Picture>, FigureError> {
    let points = points(study, compute, panel);
    if points.is_empty() {
        return Ok(None);
    }
    let main = panel.main().and_then(|main| main.fit.as_ref().ok());
    let pareto = panel.fits.iter().find(|other| other.policy == "pareto").and_then(|pareto| pareto.fit.as_ref().ok());
    let title = format!("{}: {} against compute", panel.dataset, error_title(panel));
    let chance = points.iter().find_map(|(_, o)| o.chance_error);
    let frame = frame(&points, main, chance);
    let svg = canvas_draw(SIZE, &title, |canvas| {
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
        if let Some(fit) = main {
            law_with_band(canvas, &frame, fit)?;
        }
        if let Some(fit) = pareto {
            let line: Vec<_> = [fit.points[0].compute, frame.x.high].map(|c| frame.at(c, fit.at_compute(c))).to_vec();
            canvas.dashed(&line, Ink::Muted, 1.5, 7.0)?;
        }
        for (job, observation) in &points {
            let at = frame.at(observation.compute, observation.error);
            let ink = Ink::Series(legend.model(&job.model));
            if let Some(error) = observation.standard_error {
                let ends = [observation.error - error, observation.error + error]
                    .map(|e| frame.at(observation.compute, e.max(frame.y.low)));
                canvas.line(&ends, ink, 1.25)?;
            }
            canvas.marker(legend.shape(job.data_size), at, legend.radius(job.samples_seen), ink)?;
        }
        for point in pareto.into_iter().flat_map(|fit| &fit.points) {
            let at = frame.at(point.compute, point.error);
            canvas.ring(at, 13.0, Ink::Text, 1.25)?;
        }
        side(canvas, legend, main, pareto)
    })?;
    Ok(Some(Picture::new(&title, caption(legend, main, pareto), svg)))
}

/// Jobs with their observation: those of the fit where there is one, else what was measured.
fn points<'a>(study: &'a Study, compute: Convention, panel: &Panel) -> Vec<(&'a StudyJob, Observation)> {
    let response = panel.response();
    let number = |count: Option<i64>| count.map_or(f64::NAN, |count| count as f64);
    study
        .measurements
        .iter()
        .filter(|m| m.dataset == panel.dataset && m.metric == panel.metric)
        .filter_map(|m| {
            let job = study.jobs.iter().find(|job| job.job_key == m.job_key)?;
            let observation = Observation {
                job_key: job.job_key.clone(),
                model: job.model.clone(),
                parameters: number(job.parameters),
                samples_seen: number(job.samples_seen),
                unique_samples: number(job.unique_samples),
                compute: job.compute_in(compute).unwrap_or(f64::NAN),
                convention: compute,
                error: response.error_of(m.value),
                standard_error: m.standard_error,
                chance_error: m.chance.map(|chance| response.error_of(chance)),
                count: m.count.map(|count| count as f64),
                gpu_hours: job.gpu_hours,
                proxy_loss: f64::NAN,
            };
            let drawable = [observation.compute, observation.error].iter().all(|v| v.is_finite() && *v > 0.0);
            drawable.then_some((job, observation))
        })
        .collect()
}

fn error_title(panel: &Panel) -> String {
    match panel.response() {
        Response::Fraction => format!("error, 1 − {}", panel.metric),
        Response::Loss => format!("{}, nats", panel.metric),
    }
}

fn frame(points: &[(&StudyJob, Observation)], main: Option<&Fit>, chance: Option<f64>) -> Frame {
    let computes = points.iter().map(|(_, o)| o.compute);
    let most = computes.clone().fold(0.0, f64::max);
    let x = Axis::log(computes.chain([most * 2.5]), 0.05).unwrap_or(Axis { low: 1.0, high: 10.0, scale: Scale::Log });
    let errors = points.iter().map(|(_, o)| o.error);
    let law = main.into_iter().flat_map(|fit| [x.low, x.high].map(|c| fit.at_compute(c)));
    // Far from chance the line would only squeeze the points together.
    let worst = errors.clone().fold(0.0, f64::max);
    let chance = chance.filter(|chance| *chance < worst * 2.0);
    let y = Axis::log(errors.chain(law).chain(chance), 0.06).unwrap_or(Axis { low: 0.1, high: 1.0, scale: Scale::Log });
    Frame { left: 66.0, top: 40.0, width: LEGEND_LEFT - 66.0 - 26.0, height: SIZE.1 - 40.0 - 62.0, x, y }
}

fn law_with_band(canvas: &Canvas<'_>, frame: &Frame, fit: &Fit) -> Result<(), FigureError> {
    let inside: Vec<_> =
        fit.band.iter().filter(|point| point.compute >= frame.x.low && point.compute <= frame.x.high).collect();
    let edge = |of: &dyn Fn(&fit::BandPoint) -> f64| -> Vec<(f64, f64)> {
        inside.iter().map(|point| frame.at(point.compute, of(point).max(f64::MIN_POSITIVE))).collect()
    };
    let mut outline = edge(&|point| point.error.high);
    outline.extend(edge(&|point| point.error.low).into_iter().rev());
    if outline.len() > 3 {
        canvas.polygon(&outline, Ink::Text, 0.13)?;
    }
    let last = fit.points[fit.points.len() - 1].compute;
    let at = |c: f64| frame.at(c, fit.at_compute(c));
    canvas.line(&[at(fit.points[0].compute), at(last)], Ink::Text, 2.0)?;
    canvas.dashed(&[at(last), at(frame.x.high)], Ink::Text, 1.75, 3.0)
}

/// Laws, models, data sizes and samples seen, right of the plot.
fn side(canvas: &Canvas<'_>, legend: &Legend, main: Option<&Fit>, pareto: Option<&Fit>) -> Result<(), FigureError> {
    let (left, text) = (LEGEND_LEFT, LEGEND_LEFT + 26.0);
    let mut y = 40.0;
    let head = |y: &mut f64, title: &str| {
        let drawn = canvas.text((left, *y), title, 13.0, Ink::Muted, Anchor::Start);
        *y += 20.0;
        drawn
    };
    match main {
        None => {
            canvas.text((left, y), "no law: see the table", 13.0, Ink::Text, Anchor::Start)?;
            y += 24.0;
        }
        Some(fit) => {
            canvas.line(&[(left, y), (left + 20.0, y)], Ink::Text, 2.0)?;
            canvas.text((text, y), &law_text(fit), 14.0, Ink::Text, Anchor::Start)?;
            canvas.text(
                (text, y + 19.0),
                &format!("α {}", minus(&with_interval(&fit.interval("alpha")))),
                12.5,
                Ink::Text,
                Anchor::Start,
            )?;
            let r2 = fit.r2.map_or(String::new(), |r2| format!("R² {r2:.2} · "));
            canvas.text((text, y + 37.0), &format!("{r2}{}", fit.verdict), 12.5, Ink::Text, Anchor::Start)?;
            y += 62.0;
        }
    }
    if let Some(fit) = pareto {
        canvas.dashed(&[(left, y), (left + 20.0, y)], Ink::Muted, 1.5, 5.0)?;
        canvas.ring((left + 10.0, y), 6.5, Ink::Text, 1.25)?;
        canvas.text((text, y), &format!("frontier: {}", law_text(fit)), 12.5, Ink::Text, Anchor::Start)?;
        y += 28.0;
    }
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
    let shown: Vec<i64> = match legend.samples_seen.as_slice() {
        [first, _, _, _, .., last] => vec![*first, *last],
        few => few.to_vec(),
    };
    let mut x = left + 10.0;
    for samples in shown {
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
