//! Back-tests: forecasts made from data below successive cuts against what was measured, and a table of laws by
//! objectives by held-out error.

use super::FigureError;
use super::axis::{Frame, Scale, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit, wrap};
use super::data::Picture;
use super::key::{Rows, Sign, entry};
use super::marks::{self, WIDTH, left_out};
use super::theme::{Ink, viridis};
use crate::number::significant;
use fit::Interval;

const HEIGHT: f64 = 440.0;
/// Laws side by side at one cut stand this many pixels apart.
const APART: f64 = 11.0;
const CELL: (f64, f64) = (124.0, 44.0);
const CELL_LEAST: f64 = 58.0;
const LABELS: f64 = 250.0;

/// Forecasts of one run as the data grow.
#[derive(Debug, Clone, PartialEq)]
pub struct FanFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the cut with its unit: `largest C in the fit, GMAC × samples`.
    pub x: String,
    /// What is forecast, with its unit: `error of ViT-H/14 on 34B samples, 1 − acc1`.
    pub y: String,
    /// Laws in order.
    pub laws: Vec<Fan>,
    /// What was measured, with a 95 % interval of the measurement (both ends equal to the value where there is none).
    pub truth: Interval,
    /// Place of its job in the study, where pages show it.
    pub truth_job: Option<usize>,
}

/// Forecasts by one law.
#[derive(Debug, Clone, PartialEq)]
pub struct Fan {
    /// The law's name.
    pub name: String,
    /// Forecasts, cuts ascending.
    pub forecasts: Vec<FanForecast>,
}

/// One forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct FanForecast {
    /// Data up to here were fitted.
    pub cut: f64,
    /// Runs that were fitted.
    pub runs: usize,
    /// Places in the study of the jobs at the cut, where pages show them.
    pub jobs: Vec<usize>,
    /// The forecast with its 95 % interval.
    pub forecast: Interval,
}

/// Laws by objectives: held-out error.
#[derive(Debug, Clone, PartialEq)]
pub struct BacktestTable {
    /// What it shows, one line.
    pub title: String,
    /// Laws in order, one a row.
    pub laws: Vec<String>,
    /// Objectives in order, one a column.
    pub objectives: Vec<String>,
    /// Held-out root mean squared ln error, a row a law; not a number where there is no fit.
    pub rmsle: Vec<Vec<f64>>,
    /// AICc in sample, the same shape, written smaller below; empty for none.
    pub aicc: Vec<Vec<f64>>,
    /// Row and column of the default law and objective.
    pub default: Option<(usize, usize)>,
}

/// Draws the fan of forecasts.
pub fn draw_fan(figure: &FanFigure) -> Result<Picture, FigureError> {
    let mut entries: Vec<_> = figure
        .laws
        .iter()
        .enumerate()
        .map(|(number, law)| entry(Sign::Whisker(Ink::Series(number)), law.name.clone()))
        .collect();
    entries.push(entry(Sign::Dashed(Ink::Text, 6.0), format!("measured {}", marks::numbers(&figure.truth))));
    let key = Rows::new(entries, WIDTH - 90.0);
    let all = || figure.laws.iter().flat_map(|law| &law.forecasts);
    let values: Vec<f64> = all().map(|f| f.forecast.value).chain([figure.truth.value]).collect();
    let usable = || values.iter().copied().filter(|value| Scale::Log.takes(*value));
    let (least, most) = usable().fold((f64::INFINITY, 0.0f64), |(l, m), value| (l.min(value), m.max(value)));
    let near = |value: &f64| *value > least / 2.0 && *value < most * 2.0;
    let ends = all().flat_map(|f| [f.forecast.low, f.forecast.high]).chain([figure.truth.low, figure.truth.high]);
    let frame = Frame {
        left: 70.0,
        top: key.height + 44.0,
        width: WIDTH - 70.0 - 14.0,
        height: HEIGHT - 124.0,
        x: marks::axis(Scale::Log, all().map(|f| f.cut), 0.08),
        y: marks::axis(Scale::Log, usable().chain(ends.filter(near)), 0.1),
    };
    let drawable = |f: &&FanForecast| frame.x.holds(f.cut) && frame.y.holds(f.forecast.value);
    let svg = canvas_draw((WIDTH, HEIGHT + key.height - 18.0), &figure.title, |canvas| {
        key.draw(canvas, 70.0, 16.0)?;
        frame.draw(canvas, (&figure.x, power_of_ten), (&figure.y, Some(decimal)))?;
        canvas.mark(figure.truth_job.as_slice(), || truth(canvas, &frame, &figure.truth))?;
        // Areas of many laws would hide each other.
        for area in [true, false].into_iter().filter(|area| !area || figure.laws.len() <= 2) {
            for (number, law) in figure.laws.iter().enumerate() {
                let aside = (number as f64 - (figure.laws.len() as f64 - 1.0) / 2.0) * APART;
                fan(canvas, &frame, &law.forecasts.iter().filter(drawable).collect::<Vec<_>>(), (number, aside), area)?;
            }
        }
        run_counts(canvas, &frame, &all().filter(drawable).collect::<Vec<_>>())?;
        if all().filter(drawable).count() == 0 {
            marks::nothing(canvas, &frame, "no forecasts")?;
        }
        Ok(())
    })?;
    let lost = all().filter(|forecast| !drawable(forecast)).count();
    let caption = format!(
        "Each whisker is a forecast with its 95 % interval from the runs up to the cut alone; above it the number of \
         those runs. Dashed: what was measured. A whisker should hold it in 95 of 100 cases, and get shorter to the \
         right.{}",
        left_out(lost, "forecast")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

fn truth(canvas: &Canvas, frame: &Frame, truth: &Interval) -> Result<(), FigureError> {
    let y = |value: f64| frame.at(frame.x.low, value).1;
    if frame.y.scale.takes(truth.low) && frame.y.scale.takes(truth.high) && truth.low < truth.high {
        let (top, bottom) = (y(truth.high), y(truth.low));
        let around = [(frame.left, top), (frame.right(), top), (frame.right(), bottom), (frame.left, bottom)];
        canvas.polygon(&around, Ink::Text, 0.1)?;
    }
    if frame.y.holds(truth.value) {
        let line = [(frame.left, y(truth.value)), (frame.right(), y(truth.value))];
        canvas.dashed(&line, Ink::Text, 1.75, 6.0)?;
    }
    Ok(())
}

/// Whiskers at the cuts, or the area that their ends span.
fn fan(
    canvas: &Canvas,
    frame: &Frame,
    forecasts: &[&FanForecast],
    (number, aside): (usize, f64),
    area: bool,
) -> Result<(), FigureError> {
    let ink = Ink::Series(number);
    let end = |value: f64, open: f64| {
        if frame.y.scale.takes(value) { value } else { open }
    };
    let ends = |f: &FanForecast| (end(f.forecast.low, frame.y.low), end(f.forecast.high, frame.y.high));
    let at = |f: &FanForecast, value: f64| {
        let (x, y) = frame.at(f.cut, value);
        ((x + aside).clamp(frame.left, frame.right()), y)
    };
    if area {
        let mut outline: Vec<_> = forecasts.iter().map(|f| at(f, ends(f).1)).collect();
        outline.extend(forecasts.iter().rev().map(|f| at(f, ends(f).0)));
        return if outline.len() > 3 { canvas.polygon(&outline, ink, 0.12) } else { Ok(()) };
    }
    let middle: Vec<_> = forecasts.iter().map(|f| at(f, f.forecast.value)).collect();
    if middle.len() > 1 {
        canvas.line(&middle, ink, 1.25)?;
    }
    for forecast in forecasts {
        let (low, high) = ends(forecast);
        let (bottom, top) = (at(forecast, low), at(forecast, high));
        canvas.mark(&forecast.jobs, || {
            canvas.line(&[bottom, top], ink, 2.0)?;
            for (place, value) in [(bottom, forecast.forecast.low), (top, forecast.forecast.high)] {
                if frame.y.holds(value) {
                    canvas.line(&[(place.0 - 4.0, place.1), (place.0 + 4.0, place.1)], ink, 2.0)?;
                }
            }
            canvas.marker(number, at(forecast, forecast.forecast.value), 4.5, ink)
        })?;
    }
    Ok(())
}

/// Above the frame's upper edge, once a cut.
fn run_counts(canvas: &Canvas, frame: &Frame, forecasts: &[&FanForecast]) -> Result<(), FigureError> {
    let mut cuts: Vec<(f64, usize)> = forecasts.iter().map(|f| (f.cut, f.runs)).collect();
    cuts.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut free_from = frame.left;
    for (cut, runs) in cuts {
        let (x, text) = (frame.at(cut, frame.y.low).0, fit(&format!("{runs} runs"), 12.5, 90.0));
        let half = super::canvas::text_width(&text, 12.5) / 2.0 + 4.0;
        if x - half > free_from && x + half < frame.right() {
            canvas.text((x, frame.top + 11.0), &text, 12.5, Ink::Muted, Anchor::Middle)?;
            free_from = x + half;
        }
    }
    Ok(())
}

/// Draws the table of laws by objectives.
pub fn draw_table(figure: &BacktestTable) -> Result<Picture, FigureError> {
    let usable = |value: &&f64| value.is_finite() && **value > 0.0;
    let shown = || figure.rmsle.iter().flat_map(|row| row.iter().take(figure.objectives.len())).filter(usable);
    let (least, most) = shown().fold((f64::INFINITY, 0.0f64), |(l, m), value| (l.min(*value), m.max(*value)));
    let columns = figure.objectives.len();
    let wide = ((WIDTH - LABELS - 10.0) / columns.max(1) as f64).clamp(CELL_LEAST, CELL.0);
    let columns = columns.min(((WIDTH - LABELS - 10.0) / wide) as usize);
    let heads: Vec<Vec<String>> =
        figure.objectives.iter().take(columns).map(|name| wrap(name, 12.5, wide - 8.0)).collect();
    let lines = heads.iter().map(Vec::len).max().unwrap_or(0).min(3);
    let top = 40.0 + lines as f64 * 15.0;
    let size =
        ((LABELS + wide * columns as f64 + 10.0).max(420.0), top + figure.laws.len().max(1) as f64 * CELL.1 + 8.0);
    let svg = canvas_draw(size, &figure.title, |canvas| {
        let what = if figure.aicc.is_empty() { "held-out RMSLE" } else { "held-out RMSLE, below it AICc" };
        canvas.text((8.0, 16.0), what, 13.5, Ink::Text, Anchor::Start)?;
        if figure.laws.is_empty() || columns == 0 {
            return canvas.text((8.0, top + 10.0), "no back-tests", 13.5, Ink::Muted, Anchor::Start);
        }
        for (column, head) in heads.iter().enumerate() {
            for (number, line) in head.iter().take(lines).enumerate() {
                let y = top - 10.0 - (head.len().min(lines) - 1 - number) as f64 * 15.0;
                let x = LABELS + wide * (column as f64 + 0.5) - 1.0;
                canvas.text((x, y), line, 12.5, Ink::Muted, Anchor::Middle)?;
            }
        }
        for (row, law) in figure.laws.iter().enumerate() {
            let y = top + row as f64 * CELL.1;
            let name = fit(law, 13.0, LABELS - 20.0);
            canvas.text((LABELS - 10.0, y + CELL.1 / 2.0), &name, 13.0, Ink::Text, Anchor::End)?;
            for column in 0..columns {
                let value = |table: &[Vec<f64>]| table.get(row).and_then(|row| row.get(column)).copied();
                let rmsle = value(&figure.rmsle).filter(|value| usable(&value));
                let corner = (LABELS + wide * column as f64, y);
                cell(canvas, corner, wide, rmsle.map(|value| (value, least, most)), value(&figure.aicc))?;
            }
        }
        let inside = |at: &(usize, usize)| at.0 < figure.laws.len() && at.1 < columns;
        let best = (0..figure.laws.len()).flat_map(|row| (0..columns).map(move |column| (row, column))).find(|at| {
            figure.rmsle.get(at.0).and_then(|row| row.get(at.1)).is_some_and(|value| (*value - least).abs() < 1e-12)
        });
        for (at, ink, width) in [(figure.default, Ink::Text, 2.0), (best, Ink::Series(1), 3.0)] {
            if let Some((row, column)) = at.filter(inside) {
                outline(canvas, (LABELS + wide * column as f64, top + row as f64 * CELL.1), wide, ink, width)?;
            }
        }
        Ok(())
    })?;
    let left = figure.objectives.len() - columns;
    let caption = format!(
        "Root mean squared ln error on held-out runs; brighter is better. Orange outline: the least.{}{} A law within \
         a factor of two of the default is no reason to leave it.",
        if figure.default.is_some() { " Dark outline: the default." } else { "" },
        if left > 0 { format!(" Not shown: {left} more objectives.") } else { String::new() }
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

fn cell(
    canvas: &Canvas,
    corner: (f64, f64),
    wide: f64,
    rmsle: Option<(f64, f64, f64)>,
    aicc: Option<f64>,
) -> Result<(), FigureError> {
    let opposite = (corner.0 + wide - 2.0, corner.1 + CELL.1 - 2.0);
    let middle = (f64::midpoint(corner.0, opposite.0), f64::midpoint(corner.1, opposite.1));
    let (fill, ink, text) = match rmsle {
        None => (Ink::FineGrid, Ink::Muted, "no fit".to_owned()),
        Some((value, least, most)) => {
            let share = if most > least { (value / least).ln() / (most / least).ln() } else { 0.0 };
            let (fill, ink) = viridis(1.0 - share);
            (fill, ink, significant(value, 3))
        }
    };
    canvas.rectangle(corner, opposite, fill)?;
    let aicc = aicc.filter(|_| rmsle.is_some()).filter(|aicc| aicc.is_finite());
    let up = if aicc.is_some() { 8.0 } else { 0.0 };
    canvas.text((middle.0, middle.1 - up), &fit(&text, 13.0, wide - 4.0), 13.0, ink, Anchor::Middle)?;
    match aicc {
        Some(aicc) => {
            let text = if aicc.abs() < 1e6 { format!("{aicc:.1}") } else { significant(aicc, 3) };
            let text = fit(&text.replace('-', "−"), 12.0, wide - 4.0);
            canvas.text((middle.0, middle.1 + 9.0), &text, 12.0, ink, Anchor::Middle)
        }
        None => Ok(()),
    }
}

fn outline(canvas: &Canvas, corner: (f64, f64), wide: f64, ink: Ink, width: f64) -> Result<(), FigureError> {
    let (left, top, right, bottom) = (corner.0, corner.1, corner.0 + wide - 2.0, corner.1 + CELL.1 - 2.0);
    let around = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, top)];
    canvas.line(&around, Ink::Paper, width + 2.0)?;
    canvas.line(&around, ink, width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_number};
    use super::super::sample;
    use super::*;

    #[test]
    fn cuts_and_truth_are_named() {
        let picture = check::sound(|| draw_fan(&sample::fan()));
        for text in ["measured 0.220", "12 runs", "F4 saturating", "largest C in the fit"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        let mut figure = sample::fan();
        figure.laws[0].forecasts[0].forecast.value = f64::NAN;
        assert!(check::sound(|| draw_fan(&figure)).caption.ends_with("1 forecast."));
        figure.laws.clear();
        assert!(check::says(&check::sound(|| draw_fan(&figure)), "no forecasts"));
    }

    #[test]
    fn table_has_every_law_and_objective() {
        let picture = check::sound(|| draw_table(&sample::table()));
        for text in ["F9 logit surface", "Huber(10⁻³)", "no fit", "0.0312", "−214.6"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        let mut figure = sample::table();
        figure.laws.clear();
        assert!(check::says(&check::sound(|| draw_table(&figure)), "no back-tests"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_fan_is_drawn(
            laws in proptest::collection::vec(
                proptest::collection::vec(
                    (any_number(), any_number(), any_number(), any_number(), any::<usize>()), 0..5
                ),
                0..9
            ),
            truth in (any_number(), any_number(), any_number()),
            name in "\\PC{0,80}",
        ) {
            let laws = laws.into_iter().map(|forecasts| Fan {
                name: name.clone(),
                forecasts: forecasts.into_iter().map(|(cut, value, low, high, runs)| FanForecast {
                    cut, runs, jobs: vec![runs], forecast: Interval { value, low, high },
                }).collect(),
            }).collect();
            let truth = Interval { value: truth.0, low: truth.1, high: truth.2 };
            let figure = FanFigure { title: name.clone(), x: name.clone(), y: name, laws, truth, truth_job: None };
            check::sound(|| draw_fan(&figure));
        }

        #[test]
        fn any_table_is_drawn(
            rmsle in proptest::collection::vec(check::any_numbers(5), 0..7),
            aicc in proptest::collection::vec(check::any_numbers(5), 0..7),
            laws in proptest::collection::vec("\\PC{0,60}", 0..9),
            objectives in proptest::collection::vec("\\PC{0,60}", 0..16),
            default in proptest::option::of((0..9usize, 0..9usize)),
        ) {
            let figure = BacktestTable { title: String::new(), laws, objectives, rmsle, aicc, default };
            check::sound(|| draw_table(&figure));
        }
    }
}
