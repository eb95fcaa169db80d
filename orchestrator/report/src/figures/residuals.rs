//! Residuals in ln against N, D, U and C: what the law leaves over should not know where it is.

use super::FigureError;
use super::axis::{Frame, Scale, decimal, of_counts};
use super::canvas::{Canvas, SHAPES, draw as canvas_draw};
use super::data::Picture;
use super::key::{Entry, Rows, Sign, entry};
use super::marks::{self, Pen, WIDTH, left_out};
use super::theme::Ink;

const PANEL: f64 = 212.0;
/// With its titles and ticks.
const CELL: f64 = PANEL + 92.0;
/// Abscissas that differ by less than this factor count as the same.
const SAME: f64 = 1.08;

/// A law's residuals, one panel an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualsFigure {
    /// What it shows, one line.
    pub title: String,
    /// The law's name and formula, for the legend.
    pub law: String,
    /// ln(measured) − ln(law) of each run.
    pub residuals: Vec<f64>,
    /// Model of each run, for the shape of its marker; empty for one shape.
    pub models: Vec<String>,
    /// Whether each run was held out of the fit; empty for none.
    pub held_out: Vec<bool>,
    /// Place of each run's job in the study, where pages show it; empty for none.
    pub jobs: Vec<Option<usize>>,
    /// What the residuals stand against; up to four are drawn.
    pub axes: Vec<ResidualsAxis>,
    /// Standard deviation in ln between runs that differ by their seed only, where replicates were run.
    pub noise: Option<f64>,
}

/// An abscissa of residuals.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualsAxis {
    /// Its title with the unit: `N, parameters`.
    pub title: String,
    /// Its value for each run, in the order of the residuals.
    pub values: Vec<f64>,
}

/// Draws the figure.
pub fn draw(figure: &ResidualsFigure) -> Result<Picture, FigureError> {
    let axes: Vec<&ResidualsAxis> = figure.axes.iter().take(4).collect();
    let models = distinct(&figure.models);
    let held_out = figure.held_out.iter().filter(|held| **held).count();
    let mut entries = vec![entry(Sign::Blank, figure.law.clone())];
    entries.extend(
        models.iter().take(12).enumerate().map(|(n, model)| entry(Sign::Marker(n, 5.0, Ink::Series(n)), *model)),
    );
    entries.extend((held_out > 0).then(|| entry(Sign::Open(0, 5.0, Ink::Muted), format!("held out: {held_out}"))));
    entries.push(entry(Sign::Line(Ink::Text), "running median"));
    entries.extend(noise_entry(figure));
    let key = Rows::new(entries, WIDTH - 66.0 - 16.0);
    let rows = axes.len().div_ceil(2).max(1) as f64;
    let y = marks::axis(Scale::Linear, residual_range(figure), 0.08);
    let across = if axes.len() > 1 { 2 } else { 1 };
    let cell = (WIDTH - 66.0 - 16.0) / across as f64;
    let svg = canvas_draw((WIDTH, key.height + rows * CELL + 20.0), &figure.title, |canvas| {
        key.draw(canvas, 66.0, 16.0)?;
        for number in 0..axes.len().max(1) {
            let values = axes.get(number).map_or(&[][..], |axis| &axis.values);
            let frame = Frame {
                left: 66.0 + cell * (number % across) as f64,
                top: key.height + 44.0 + CELL * (number / across) as f64,
                width: cell - if across > 1 { 44.0 } else { 4.0 },
                height: PANEL,
                x: marks::axis(Scale::Log, values.iter().copied(), 0.05),
                y,
            };
            let title = axes.get(number).map_or("", |axis| axis.title.as_str());
            frame.draw(canvas, (title, of_counts(&frame.x)), ("residual, ln(measured / law)", Some(decimal)))?;
            panel(canvas, &frame, figure, values, &models)?;
        }
        Ok(())
    })?;
    let lost = figure.residuals.iter().filter(|residual| !residual.is_finite()).count();
    let caption = format!(
        "Above zero: worse than the law says. A running median that leaves zero is a shape that the law does not \
         have.{}{}",
        if figure.noise.is_some() { " Grey: within one and two standard deviations of replicates." } else { "" },
        left_out(lost, "residual")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

fn noise_entry(figure: &ResidualsFigure) -> Option<Entry> {
    let noise = figure.noise.filter(|noise| noise.is_finite() && *noise > 0.0)?;
    Some(entry(
        Sign::Area(Ink::Muted, 0.3),
        format!("replicates, ± {} and twice that", decimal((noise * 1e4).round() / 1e4)),
    ))
}

fn residual_range(figure: &ResidualsFigure) -> impl Iterator<Item = f64> + '_ {
    let noise = figure.noise.filter(|noise| noise.is_finite()).unwrap_or(0.0).abs().min(10.0) * 2.2;
    figure.residuals.iter().copied().chain([0.0, noise, -noise])
}

fn distinct(names: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name.as_str()) {
            distinct.push(name);
        }
    }
    distinct
}

fn panel(
    canvas: &Canvas,
    frame: &Frame,
    figure: &ResidualsFigure,
    values: &[f64],
    models: &[&str],
) -> Result<(), FigureError> {
    let across = |y: f64| [(frame.x.low, y), (frame.x.high, y)];
    for (times, opacity) in [(2.0, 0.14), (1.0, 0.18)] {
        if let Some(noise) = figure.noise.map(|noise| noise * times).filter(|noise| *noise > 0.0) {
            let corner = |x: f64, y: f64| frame.at(x, y.clamp(frame.y.low, frame.y.high));
            let (low, high) = (frame.x.low, frame.x.high);
            let around = [corner(low, noise), corner(high, noise), corner(high, -noise), corner(low, -noise)];
            canvas.polygon(&around, Ink::Muted, opacity)?;
        }
    }
    marks::line(canvas, frame, across(0.0).into_iter(), Pen::solid(Ink::Muted, 1.5))?;
    let mut drawn: Vec<(f64, f64)> = Vec::new();
    for (number, (&x, &y)) in values.iter().zip(&figure.residuals).enumerate() {
        if !frame.x.holds(x) || !frame.y.holds(y) {
            continue;
        }
        let model = figure.models.get(number).and_then(|model| models.iter().position(|m| m == model)).unwrap_or(0);
        let held_out = figure.held_out.get(number) == Some(&true);
        let job = figure.jobs.get(number).copied().flatten();
        canvas.mark(job.as_slice(), || {
            if held_out {
                canvas.open_marker(model % SHAPES, frame.at(x, y), 4.5, Ink::Series(model))
            } else {
                canvas.marker(model % SHAPES, frame.at(x, y), 4.0, Ink::Series(model))
            }
        })?;
        if !held_out {
            drawn.push((x, y));
        }
    }
    if drawn.is_empty() {
        return marks::nothing(canvas, frame, "no residuals that can be drawn");
    }
    let median = running_median(drawn);
    let pixels: Vec<_> = median.iter().map(|(x, y)| frame.at(*x, *y)).collect();
    if pixels.len() > 1 {
        canvas.line(&pixels, Ink::Paper, 4.5)?;
        canvas.line(&pixels, Ink::Text, 2.25)?;
    }
    Ok(())
}

/// Medians along the abscissa, over neighbours: at least an eighth of the points each, those at (almost) the same
/// abscissa together. At the middle one's abscissa.
fn running_median(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let least = (points.len() / 8).max(2);
    let mut groups: Vec<Vec<(f64, f64)>> = Vec::new();
    for point in points {
        let joins = |group: &&mut Vec<(f64, f64)>| {
            group.len() < least || point.0 / group[0].0 < SAME || point.0 <= group[group.len() - 1].0
        };
        match groups.last_mut().filter(joins) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    groups.iter().map(|group| (group[group.len() / 2].0, median(group))).collect()
}

fn median(points: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_numbers};
    use super::super::sample;
    use super::*;

    #[test]
    fn axes_law_and_noise_are_named() {
        let picture = check::sound(|| draw(&sample::residuals()));
        for text in ["N, parameters", "U, unique samples", "E = 5.86", "running median", "± 0.01", "held out: 4"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
    }

    #[test]
    fn medians_follow_the_points() {
        let few = vec![(1.0, 1.0), (1.0, 3.0), (1.0, 20.0), (2.0, 0.0), (2.0, 1.0)];
        assert_eq!(running_median(few), [(1.0, 3.0), (2.0, 0.5)]);
        let many: Vec<_> = (1..=30).map(|i| (f64::from(i), f64::from(i) * 2.0)).collect();
        let median = running_median(many);
        assert_eq!((median.len(), median[0]), (10, (2.0, 4.0)));
    }

    #[test]
    fn no_residuals_is_said() {
        let mut figure = sample::residuals();
        figure.residuals[3] = f64::NAN;
        assert!(check::sound(|| draw(&figure)).caption.ends_with("1 residual."));
        figure.axes.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no residuals that can be drawn"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            residuals in any_numbers(40),
            axes in proptest::collection::vec(any_numbers(40), 0..6),
            models in proptest::collection::vec("\\PC{0,20}", 0..20),
            noise in proptest::option::of(check::any_number()),
        ) {
            let title = models.first().cloned().unwrap_or_default();
            let axes = axes.into_iter().map(|values| ResidualsAxis { title: title.clone(), values }).collect();
            let held_out = residuals.iter().map(|residual| *residual > 1.0).collect();
            let jobs = (1..residuals.len()).map(Some).collect();
            let law = title.clone();
            let figure = ResidualsFigure { title, law, residuals, models, held_out, jobs, axes, noise };
            check::sound(|| draw(&figure));
        }
    }
}
