//! Bootstrap pair plot: what the resamples say of each parameter, and of each two together.

use std::fmt::Write as _;

use super::FigureError;
use super::axis::{Axis, Frame, Scale, decimal};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit};
use super::data::Picture;
use super::marks::{self, Pen, left_out};
use super::theme::Ink;

const PARAMETERS_MOST: usize = 6;
const DOTS_MOST: usize = 1000;
/// Of all panels together: the picture goes into a page.
const DOTS_MOST_ALL: usize = 9000;
const BINS: usize = 24;
const SIDE: f64 = 980.0;
const LEFT: f64 = 66.0;

/// Resamples of a law's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct PairsFigure {
    /// What it shows, one line.
    pub title: String,
    /// Symbols of the parameters; the first six are drawn.
    pub names: Vec<String>,
    /// The parameters fitted to all runs.
    pub optimum: Vec<f64>,
    /// The parameters fitted to each resample, in the order of the names. Of many, every k-th is drawn.
    pub resamples: Vec<Vec<f64>>,
}

/// A parameter's values in every usable resample.
struct Parameter<'a> {
    name: &'a str,
    optimum: Option<f64>,
    values: Vec<f64>,
    axis: Axis,
}

/// Draws the figure.
pub fn draw(figure: &PairsFigure) -> Result<Picture, FigureError> {
    let count = figure.names.len().min(PARAMETERS_MOST);
    let usable: Vec<&Vec<f64>> = figure
        .resamples
        .iter()
        .filter(|row| row.len() >= count && row[..count].iter().all(|value| Scale::Linear.takes(*value)))
        .collect();
    let parameters: Vec<Parameter<'_>> = (0..count)
        .map(|number| {
            let values: Vec<f64> = usable.iter().map(|row| row[number]).collect();
            let optimum = figure.optimum.get(number).copied().filter(|value| Scale::Linear.takes(*value));
            // The outermost resamples would squeeze the others together.
            let (low, high) = (quantile(&values, 0.005), quantile(&values, 0.995));
            let axis = marks::axis(Scale::Linear, low.into_iter().chain(high).chain(optimum), 0.08);
            Parameter { name: &figure.names[number], optimum, values, axis }
        })
        .collect();
    let cell = (SIDE - LEFT - 10.0) / count.max(2) as f64;
    let tall = (cell * 0.8).min(300.0);
    let height = 46.0 + tall * count.max(1) as f64 + 50.0;
    let every = keep_every(usable.len(), count);
    let svg = canvas_draw((SIDE, height), &figure.title, |canvas| {
        let frame_at = |row: usize, column: usize, x: Axis, y: Axis| Frame {
            left: LEFT + cell * column as f64,
            top: 42.0 + tall * row as f64,
            width: cell - 14.0,
            height: tall - 14.0,
            x,
            y,
        };
        let unit = Axis { low: 0.0, high: 1.0, scale: Scale::Linear };
        if parameters.is_empty() || usable.is_empty() {
            return marks::nothing(canvas, &frame_at(0, 0, unit, unit), "no resamples that can be drawn");
        }
        for (row, vertical) in parameters.iter().enumerate() {
            for (column, horizontal) in parameters.iter().enumerate() {
                let y = if row == column { unit } else { vertical.axis };
                let frame = frame_at(row, column, horizontal.axis, y);
                match column.cmp(&row) {
                    std::cmp::Ordering::Less => {
                        scatter(canvas, &frame, horizontal, vertical, every)?;
                    }
                    std::cmp::Ordering::Equal => histogram(canvas, &frame, horizontal)?,
                    std::cmp::Ordering::Greater => {
                        correlation(canvas, &frame, horizontal, vertical)?;
                    }
                }
                edges(canvas, &frame, (row, column), count, horizontal.name)?;
            }
        }
        Ok(())
    })?;
    Ok(Picture::new(&figure.title, caption(figure, usable.len(), every), svg))
}

/// Of `resamples`, every how many-th is drawn.
fn keep_every(resamples: usize, parameters: usize) -> usize {
    let panels = (parameters * parameters.saturating_sub(1) / 2).max(1);
    resamples.div_ceil(DOTS_MOST.min(DOTS_MOST_ALL / panels)).max(1)
}

fn caption(figure: &PairsFigure, usable: usize, every: usize) -> String {
    let mut caption = format!(
        "{usable} bootstrap resamples; diagonal: their histogram, dashed at 2.5 and 97.5 %; below: {}; above: their \
         rank correlation. Orange: the fit to all runs. The outermost 1 % may lie beyond the axes.",
        if every == 1 { "one dot each".to_owned() } else { format!("a dot for one in {every}") }
    );
    if figure.names.len() > PARAMETERS_MOST {
        let _ = write!(caption, " Not shown: {}.", figure.names[PARAMETERS_MOST..].join(", "));
    }
    caption + &left_out(figure.resamples.len() - usable, "resample")
}

/// Frame, and ticks at the outer edges of the triangle.
fn edges(
    canvas: &Canvas,
    frame: &Frame,
    (row, column): (usize, usize),
    count: usize,
    name: &str,
) -> Result<(), FigureError> {
    if column > row {
        return Ok(());
    }
    let (right, bottom) = (frame.right(), frame.bottom());
    canvas.line(&[(frame.left, frame.top), (frame.left, bottom), (right, bottom)], Ink::Muted, 1.25)?;
    if row == column {
        let name = fit(name, 14.0, frame.width - 8.0);
        canvas.text((frame.left + 2.0, frame.top - 12.0), &name, 14.0, Ink::Text, Anchor::Start)?;
    }
    let few = |ticks: Vec<f64>, room: f64, each: f64| {
        let every = (ticks.len() as f64 * each / room).ceil().max(1.0) as usize;
        ticks.into_iter().step_by(every).collect::<Vec<_>>()
    };
    if row + 1 == count {
        for tick in few(frame.x.ticks().0, frame.width, 52.0) {
            let x = frame.at(tick, frame.y.low).0;
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], Ink::Muted, 1.25)?;
            if x + 22.0 < SIDE {
                canvas.text((x, bottom + 17.0), &decimal(tick), 12.5, Ink::Muted, Anchor::Middle)?;
            }
        }
    }
    if column == 0 && row > 0 {
        for tick in few(frame.y.ticks().0, frame.height, 22.0) {
            let y = frame.at(frame.x.low, tick).1;
            canvas.text((frame.left - 7.0, y), &decimal(tick), 12.5, Ink::Muted, Anchor::End)?;
        }
    }
    Ok(())
}

fn scatter(
    canvas: &Canvas,
    frame: &Frame,
    horizontal: &Parameter<'_>,
    vertical: &Parameter<'_>,
    every: usize,
) -> Result<(), FigureError> {
    for (&x, &y) in horizontal.values.iter().zip(&vertical.values).step_by(every) {
        if frame.x.holds(x) && frame.y.holds(y) {
            canvas.dot(frame.at(x, y), 1.75, Ink::Series(0), 0.35)?;
        }
    }
    match (horizontal.optimum, vertical.optimum) {
        (Some(x), Some(y)) => canvas.marker(3, frame.at(x, y), 5.5, Ink::Series(1)),
        _ => Ok(()),
    }
}

fn histogram(canvas: &Canvas, frame: &Frame, parameter: &Parameter<'_>) -> Result<(), FigureError> {
    let mut counts = [0usize; BINS];
    for value in parameter.values.iter().filter(|value| frame.x.holds(**value)) {
        counts[((frame.x.share(*value) * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let wide = frame.width / BINS as f64;
    for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let left = frame.left + wide * bin as f64;
        let top = frame.bottom() - frame.height * 0.92 * *count as f64 / most;
        let around =
            [(left, top), (left + wide - 0.5, top), (left + wide - 0.5, frame.bottom()), (left, frame.bottom())];
        canvas.polygon(&around, Ink::Series(0), 0.45)?;
    }
    for share in [0.025, 0.975] {
        if let Some(value) = quantile(&parameter.values, share) {
            marks::line(canvas, frame, [(value, 0.0), (value, 1.0)].into_iter(), Pen::dashed(Ink::Text, 1.25, 4.0))?;
        }
    }
    if let Some(optimum) = parameter.optimum {
        let line = [(optimum, 0.0), (optimum, 1.0)].into_iter();
        marks::line(canvas, frame, line, Pen::solid(Ink::Series(1), 2.25))?;
    }
    Ok(())
}

fn correlation(
    canvas: &Canvas,
    frame: &Frame,
    horizontal: &Parameter<'_>,
    vertical: &Parameter<'_>,
) -> Result<(), FigureError> {
    let text = rank_correlation(&horizontal.values, &vertical.values)
        .map_or("n/a".to_owned(), |r| format!("{r:.2}").replace("-0.00", "0.00").replace('-', "−"));
    let at = (frame.left + frame.width / 2.0, frame.top + frame.height / 2.0);
    canvas.text(at, &text, 16.0, Ink::Muted, Anchor::Middle)
}

fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * (sorted.len().max(1) - 1) as f64;
    let (low, high) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(low + (high - low) * at.fract())
}

/// Spearman's; `None` where either has one value only.
fn rank_correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut ranks = vec![0.0; values.len()];
        let mut from = 0;
        for ties in order.chunk_by(|a, b| values[*a].total_cmp(&values[*b]).is_eq()) {
            let middle = from as f64 + (ties.len() as f64 - 1.0) / 2.0;
            for index in ties {
                ranks[*index] = middle;
            }
            from += ties.len();
        }
        ranks
    };
    let (one, other) = (ranks(one), ranks(other));
    let middle = (one.len() as f64 - 1.0) / 2.0;
    let sum = |of: &dyn Fn(usize) -> f64| (0..one.len()).map(of).sum::<f64>();
    let (a, b) = (sum(&|i| (one[i] - middle).powi(2)), sum(&|i| (other[i] - middle).powi(2)));
    (a > 0.0 && b > 0.0).then(|| sum(&|i| (one[i] - middle) * (other[i] - middle)) / (a * b).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_numbers};
    use super::super::sample;
    use super::*;

    #[test]
    fn every_parameter_is_named_and_dots_are_limited() {
        let picture = check::sound(|| draw(&sample::pairs()));
        for text in ["ln A", "α", "β"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        assert!(picture.caption.starts_with("4000 bootstrap resamples"), "{}", picture.caption);
        let dots = picture.standalone().matches("r=\"1.8\"").count();
        assert!((4000..=10_000).contains(&dots), "{dots}");
        assert_eq!([keep_every(4000, 3), keep_every(900, 5), keep_every(0, 0)], [4, 1, 1]);
    }

    #[test]
    fn ranks_count_not_values() {
        let one = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(rank_correlation(&one, &[1.0, 10.0, 100.0, 1e9]), Some(1.0));
        assert_eq!(rank_correlation(&one, &[4.0, 3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(rank_correlation(&one, &[4.0; 4]), None);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.75), Some(2.5));
    }

    #[test]
    fn unusable_resamples_are_counted() {
        let mut figure = sample::pairs();
        figure.resamples[0][1] = f64::NAN;
        figure.resamples[1].clear();
        assert!(check::sound(|| draw(&figure)).caption.ends_with("2 resamples."));
        figure.resamples.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no resamples that can be drawn"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            names in proptest::collection::vec("\\PC{0,40}", 0..8),
            optimum in any_numbers(8),
            resamples in proptest::collection::vec(any_numbers(8), 0..12),
        ) {
            let figure = PairsFigure { title: String::new(), names, optimum, resamples };
            check::sound(|| draw(&figure));
        }
    }
}
