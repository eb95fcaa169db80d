//! Laws over their points, error against one quantity: with band, held-out points and formula.

use std::fmt::Write as _;

use super::FigureError;
use super::axis::{Frame, Scale, decimal, power_of_ten};
use super::canvas::draw as canvas_draw;
use super::data::{Law, Picture, Point, Role};
use super::key::{Column, Sign};
use super::marks::{self, Groups, Pen, RADIUS, WIDTH, left_out};
use super::theme::Ink;

const KEY_LEFT: f64 = 708.0;
const HEIGHT_LEAST: f64 = 520.0;

/// One or several laws over the points they were fitted to, both axes logarithmic.
#[derive(Debug, Clone, PartialEq)]
pub struct LawFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the abscissa with its unit, `C, GMAC × samples`.
    pub x: String,
    /// Title of the ordinate with its unit, `ImageNet error, 1 − acc1`.
    pub y: String,
    /// Measured runs.
    pub points: Vec<Point>,
    /// Fitted laws. The first is drawn in the colour of text and with its band, others in colours.
    pub laws: Vec<Law>,
}

/// Pen and sign of a law among several.
pub(super) fn pen(number: usize) -> (Pen, Sign) {
    const DASHES: [f64; 3] = [8.0, 5.0, 11.0];
    if number == 0 {
        return (Pen::solid(Ink::Text, 2.25), Sign::Band(Ink::Text));
    }
    let (ink, dash) = (Ink::Series(number), DASHES[number % DASHES.len()]);
    (Pen::dashed(ink, 2.0, dash), Sign::Dashed(ink, dash.min(6.0)))
}

/// Axes that hold the points, and of the laws what lies not too far from them.
pub(super) fn frame(points: &[Point], laws: &[Law], (left, right): (f64, f64), height: f64) -> Frame {
    let usable = |p: &&Point| marks::drawable(Scale::Log, Scale::Log, (p.x, p.y));
    let xs = points.iter().filter(usable).map(|p| p.x);
    let x = marks::axis(Scale::Log, xs.chain(laws.iter().flat_map(|law| law.curve.x.iter().copied())), 0.03);
    let measured: Vec<f64> = points.iter().filter(usable).map(|p| p.y).collect();
    let (least, most) = measured.iter().fold((f64::INFINITY, 0.0f64), |(l, m), y| (l.min(*y), m.max(*y)));
    // A law that runs away would squeeze the points together.
    let near = |y: &f64| measured.is_empty() || (*y > least / 3.0 && *y < most * 2.0);
    let lines = laws.iter().flat_map(|law| law.curve.y.iter().copied()).filter(near);
    let y = marks::axis(Scale::Log, measured.iter().copied().chain(lines), 0.06);
    Frame { left, top: 40.0, width: right - left, height: height - 40.0 - 62.0, x, y }
}

/// Draws the figure.
pub fn draw(figure: &LawFigure) -> Result<Picture, FigureError> {
    let groups = Groups::of(figure.points.iter());
    let mut key = Column::new(WIDTH - KEY_LEFT - 6.0);
    for (number, law) in figure.laws.iter().enumerate() {
        marks::explain_law(&mut key, pen(number).1, law);
    }
    if figure.laws.is_empty() {
        key.note("no law");
    }
    groups.explain(&mut key, &figure.points);
    let height = (key.height() + 52.0).max(HEIGHT_LEAST);
    let frame = frame(&figure.points, &figure.laws, (66.0, KEY_LEFT - 26.0), height);
    let svg = canvas_draw((WIDTH, height), &figure.title, |canvas| {
        frame.draw(canvas, (&figure.x, power_of_ten), (&figure.y, Some(decimal)))?;
        if let Some(first) = figure.laws.first() {
            marks::band(canvas, &frame, &first.curve, Ink::Text)?;
        }
        for (number, law) in figure.laws.iter().enumerate().rev() {
            marks::law(canvas, &frame, law, pen(number).0)?;
        }
        if figure.points.is_empty() {
            marks::nothing(canvas, &frame, "no points")?;
        }
        marks::points(canvas, &frame, &groups, &figure.points, &|point| groups.ink(point), &|_| RADIUS)?;
        key.draw(canvas, KEY_LEFT, 40.0)
    })?;
    Ok(Picture::new(&figure.title, caption(figure, &frame), svg))
}

fn caption(figure: &LawFigure, frame: &Frame) -> String {
    let mut caption = "Shape is the model, colour the training data.".to_owned();
    if figure.points.iter().any(|point| point.role == Role::HeldOut) {
        caption.push_str(" Open markers were held out of the fit.");
    }
    if let [first, others @ ..] = figure.laws.as_slice() {
        caption.push_str(" Lines: ");
        caption.push_str(if others.is_empty() { "the law" } else { "the laws" });
        if !first.interval.is_empty() {
            caption.push_str(" with 95 % intervals in the legend");
        }
        caption.push_str(", dashed finely beyond the points they were fitted to.");
        if !first.curve.low.is_empty() {
            let whose = if others.is_empty() { "" } else { " of the first" };
            let _ = write!(caption, " Band: 95 % interval of the law{whose}, not of a single new run.");
        }
    }
    let missing = figure.points.iter().filter(|p| !(frame.x.holds(p.x) && frame.y.holds(p.y))).count();
    caption.push_str(&left_out(missing, "point"));
    caption
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_point};
    use super::super::sample;
    use super::*;

    #[test]
    fn formula_points_and_roles_are_named() {
        let figure = sample::law();
        let picture = check::sound(|| draw(&figure));
        for text in ["E = 5.86 · C⁻⁰·¹¹¹", "ViT-H/14", "LAION-2B", "held out: 4", "C, GMAC × samples", "10¹²"]
        {
            assert!(check::says(&picture, text), "{text}");
        }
        assert!(picture.caption.contains("Open markers"), "{}", picture.caption);
        assert!(check::crowded(&picture).is_empty(), "{:?}", check::crowded(&picture));
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut figure = sample::law();
        figure.points[0].y = f64::NAN;
        figure.points[1].x = -1.0;
        let picture = check::sound(|| draw(&figure));
        assert!(picture.caption.contains("Not drawn, for want of a usable value: 2 points"), "{}", picture.caption);
        (figure.points, figure.laws) = (Vec::new(), Vec::new());
        assert!(check::says(&check::sound(|| draw(&figure)), "no points"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            points in proptest::collection::vec(any_point(), 0..12),
            curves in proptest::collection::vec(any_curve(), 0..4),
            name in "\\PC{0,60}",
            fitted_to in check::any_number(),
        ) {
            let law = |curve| Law {
                name: name.clone(), formula: name.clone(), interval: name.clone(), curve, fitted_to,
            };
            let laws = curves.into_iter().map(law).collect();
            let (title, x, y) = (name.clone(), name.clone(), name.clone());
            let figure = LawFigure { title, x, y, points, laws };
            check::sound(|| draw(&figure));
        }
    }
}
