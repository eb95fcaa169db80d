//! Marks that the analysis figures share: points by model and data size, lines with bands, and what is said where
//! there is nothing to draw.

use super::FigureError;
use super::axis::{Axis, Frame, Scale, power_of_ten};
use super::canvas::{Anchor, Canvas, SHAPES, wrap};
use super::data::{Curve, Law, Point, Role};
use super::key::{Column, Entry, Sign, entry};
use super::theme::{Ink, SERIES};
use crate::number::with_interval;
use fit::Interval;

/// Width of a figure: the full width of a page.
pub(super) const WIDTH: f64 = 980.0;
/// Radius of a marker.
pub(super) const RADIUS: f64 = 5.5;
const LISTED_MOST: usize = 14;

/// Models by parameters, data sets by size: what shape and colour stand for.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) models: Vec<(String, f64)>,
    pub(super) data: Vec<(String, f64)>,
}

impl Groups {
    pub(super) fn of<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> Groups {
        let ordered = |named: &mut dyn Iterator<Item = (&'a String, f64)>| {
            let mut all: Vec<(String, f64)> = Vec::new();
            for (name, size) in named {
                if all.iter().all(|(known, _)| known != name) {
                    all.push((name.clone(), size));
                }
            }
            all.sort_by(|(one, a), (other, b)| a.total_cmp(b).then_with(|| one.cmp(other)));
            all
        };
        Groups {
            models: ordered(&mut points.clone().map(|p| (&p.model, p.parameters))),
            data: ordered(&mut points.map(|p| (&p.data, p.data_size))),
        }
    }

    pub(super) fn shape(&self, point: &Point) -> usize {
        self.models.iter().position(|(name, _)| *name == point.model).unwrap_or(0)
    }

    pub(super) fn ink(&self, point: &Point) -> Ink {
        Ink::Series(self.data.iter().position(|(name, _)| *name == point.data).unwrap_or(0))
    }

    /// Adds models, data sets and roles to a legend.
    pub(super) fn explain(&self, key: &mut Column, points: &[Point]) {
        let named = |list: &[(String, f64)]| list.len() > 1 || list.iter().any(|(name, _)| !name.is_empty());
        let name = |name: &str| {
            if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
        };
        if named(&self.models) {
            key.head("Model");
            for (number, (model, _)) in self.models.iter().take(LISTED_MOST).enumerate() {
                key.entry(&entry(Sign::Marker(number, RADIUS, Ink::Muted), name(model)));
            }
            more(key, self.models.len(), SHAPES, "shapes");
        }
        if named(&self.data) {
            key.head("Training data");
            for (number, (data, _)) in self.data.iter().take(LISTED_MOST).enumerate() {
                key.entry(&entry(Sign::Marker(0, RADIUS, Ink::Series(number)), name(data)));
            }
            more(key, self.data.len(), SERIES, "colours");
        }
        let roles: Vec<Entry> = [
            (Role::HeldOut, Sign::Open(0, RADIUS, Ink::Muted), "held out"),
            (Role::Excluded, Sign::Faint(0, RADIUS), "not in the fit"),
        ]
        .into_iter()
        .filter_map(|(role, sign, text)| {
            let count = points.iter().filter(|point| point.role == role).count();
            (count > 0).then(|| entry(sign, format!("{text}: {count}")))
        })
        .collect();
        if !roles.is_empty() {
            key.head("Points");
            let fitted = points.iter().filter(|point| point.role == Role::Fitted).count();
            key.entry(&entry(Sign::Marker(0, RADIUS, Ink::Muted), format!("fitted: {fitted}")));
            for role in &roles {
                key.entry(role);
            }
        }
    }
}

fn more(key: &mut Column, count: usize, distinct: usize, of: &str) {
    if count > LISTED_MOST {
        key.note(&format!("and {} more", count - LISTED_MOST));
    }
    if count > distinct {
        key.note(&format!("{of} repeat after {distinct}"));
    }
}

/// Adds a law to a legend: its name, formula and interval.
pub(super) fn explain_law(key: &mut Column, sign: Sign, law: &Law) {
    key.entry(&entry(sign, if law.name.is_empty() { "law" } else { &law.name }));
    key.more(&law.formula, Ink::Text);
    key.more(&law.interval, Ink::Text);
    key.gap();
}

/// Whether a point can be drawn.
pub(super) fn drawable(frame_x: Scale, frame_y: Scale, (x, y): (f64, f64)) -> bool {
    frame_x.takes(x) && frame_y.takes(y)
}

/// Draws points: those left out first, then the fitted, then those held out. `ink` colours one.
pub(super) fn points(
    canvas: &Canvas,
    frame: &Frame,
    groups: &Groups,
    points: &[Point],
    ink: &dyn Fn(&Point) -> Ink,
    radius: &dyn Fn(&Point) -> f64,
) -> Result<(), FigureError> {
    for role in [Role::Excluded, Role::Fitted, Role::HeldOut] {
        for point in points.iter().filter(|p| p.role == role && frame.x.holds(p.x) && frame.y.holds(p.y)) {
            let (at, shape) = (frame.at(point.x, point.y), groups.shape(point));
            canvas.mark(point.job.as_slice(), || match role {
                Role::Excluded => canvas.faint_marker(shape, at, radius(point)),
                Role::Fitted => canvas.marker(shape, at, radius(point), ink(point)),
                Role::HeldOut => canvas.open_marker(shape, at, radius(point), ink(point)),
            })?;
        }
    }
    Ok(())
}

/// Draws the band of a curve.
pub(super) fn band(canvas: &Canvas, frame: &Frame, curve: &Curve, ink: Ink) -> Result<(), FigureError> {
    let takes = |(x, low, high): &(f64, f64, f64)| {
        frame.x.holds(*x) && frame.y.scale.takes(*high) && (frame.y.scale.takes(*low) || *low <= 0.0) && low <= high
    };
    let inside: Vec<_> = curve.band().filter(takes).collect();
    let floor = |low: f64| {
        if frame.y.scale.takes(low) { low } else { frame.y.low }
    };
    let mut outline: Vec<_> = inside.iter().map(|(x, _, high)| frame.at(*x, *high)).collect();
    outline.extend(inside.iter().rev().map(|(x, low, _)| frame.at(*x, floor(*low))));
    if outline.len() > 3 { canvas.polygon(&outline, ink, 0.16) } else { Ok(()) }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    pub(super) ink: Ink,
    pub(super) width: f64,
    /// Length of the dashes, none for a solid line.
    pub(super) dash: Option<f64>,
}

impl Pen {
    pub(super) fn solid(ink: Ink, width: f64) -> Pen {
        Pen { ink, width, dash: None }
    }

    pub(super) fn dashed(ink: Ink, width: f64, dash: f64) -> Pen {
        Pen { ink, width, dash: Some(dash) }
    }
}

/// Draws a line through points, clipped to the frame.
pub(super) fn line(
    canvas: &Canvas,
    frame: &Frame,
    points: impl Iterator<Item = (f64, f64)>,
    pen: Pen,
) -> Result<(), FigureError> {
    for piece in frame.clipped(points) {
        match pen.dash {
            Some(dash) => canvas.dashed(&piece, pen.ink, pen.width, dash)?,
            None => canvas.line(&piece, pen.ink, pen.width)?,
        }
    }
    Ok(())
}

/// Draws a law's line: with `pen` where it was fitted, dashed beyond.
pub(super) fn law(canvas: &Canvas, frame: &Frame, law: &Law, pen: Pen) -> Result<(), FigureError> {
    let beyond = |x: f64| x > law.fitted_to * (1.0 + 1e-9);
    let last = law.curve.points().filter(|(x, _)| !beyond(*x)).last();
    line(canvas, frame, law.curve.points().filter(|(x, _)| !beyond(*x)), pen)?;
    let rest = last.into_iter().chain(law.curve.points().filter(|(x, _)| beyond(*x)));
    line(canvas, frame, rest, Pen { dash: Some(3.0), ..pen })
}

/// An axis around values, or a stand-in where there are none.
pub(super) fn axis(scale: Scale, values: impl Iterator<Item = f64>, pad: f64) -> Axis {
    let (low, high) = if scale == Scale::Log { (1.0, 10.0) } else { (0.0, 1.0) };
    let around = match scale {
        Scale::Log => Axis::log(values, pad),
        Scale::Linear | Scale::Bare => Axis::linear(values, pad),
    };
    around.unwrap_or(Axis { low, high, scale })
}

/// Draws a horizontal line with words at its left end, above it or below.
pub(super) fn level(canvas: &Canvas, frame: &Frame, (value, text): (f64, &str), pen: Pen) -> Result<(), FigureError> {
    if !frame.y.holds(value) {
        return Ok(());
    }
    line(canvas, frame, [(frame.x.low, value), (frame.x.high, value)].into_iter(), pen)?;
    let y = frame.at(frame.x.low, value).1;
    let y = if y - frame.top < 20.0 { y + 10.0 } else { y - 10.0 };
    canvas.text((frame.left + 6.0, y), text, 12.5, Ink::Muted, Anchor::Start)
}

/// Says in the middle of a plot why it is empty.
pub(super) fn nothing(canvas: &Canvas, frame: &Frame, text: &str) -> Result<(), FigureError> {
    let lines = wrap(text, 13.5, frame.width - 20.0);
    let top = frame.top + frame.height / 2.0 - (lines.len() as f64 - 1.0) * 9.0;
    for (number, line) in lines.iter().enumerate() {
        let at = (frame.left + frame.width / 2.0, top + number as f64 * 18.0);
        canvas.text(at, line, 13.5, Ink::Muted, Anchor::Middle)?;
    }
    Ok(())
}

/// A value with its interval as people write it: `−0.111 [−0.130, ∞]`.
pub(super) fn numbers(interval: &Interval) -> String {
    let ends = [interval.value, interval.low, interval.high];
    let huge = ends.iter().any(|end| end.is_finite() && end.abs() >= 1e9);
    let text = if huge {
        let [value, low, high] =
            ends.map(|end| if end.is_finite() { power_of_ten_signed(end) } else { end.to_string() });
        format!("{value} [{low}, {high}]")
    } else {
        with_interval(interval)
    };
    text.replace('-', "−").replace("inf", "∞").replace("NaN", "n/a")
}

fn power_of_ten_signed(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    if value == 0.0 { "0".to_owned() } else { format!("{sign}{}", power_of_ten(value.abs())) }
}

/// The caption's sentence on what could not be drawn, with a space before it; empty where all was.
pub(super) fn left_out(count: usize, of: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    if count == 0 { String::new() } else { format!(" Not drawn, for want of a usable value: {count} {of}{plural}.") }
}
