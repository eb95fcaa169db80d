//! How the choice of points moves the answer: every policy's law over the same points, and what each forecasts.

use super::FigureError;
use super::axis::{Axis, Frame, Scale, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit, text_width};
use super::data::{Law, Picture, Point};
use super::key::{Rows, Sign, entry};
use super::law::{frame as law_frame, pen};
use super::marks::{self, Groups, Pen, WIDTH, left_out};
use super::theme::Ink;
use fit::Interval;

const ROW: f64 = 50.0;
const RIGHT_LEFT: f64 = 560.0;

/// A policy's law and its forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The law; its name is the policy's, `bins:5`.
    pub law: Law,
    /// What it says of the target, in the unit of the forecast's axis, with a 95 % interval.
    pub forecast: Interval,
}

/// Laws of several policies in one panel, their forecasts as dots and whiskers beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoliciesFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the abscissa with its unit.
    pub x: String,
    /// Title of the ordinate with its unit.
    pub y: String,
    /// What is forecast, with its unit: `ViT-G/14 at 68B samples, acc1 in %`.
    pub forecast: String,
    /// Measured runs.
    pub points: Vec<Point>,
    /// Policies in order.
    pub policies: Vec<Policy>,
    /// The value that was measured later or that a paper printed, and what to call it.
    pub reference: Option<(f64, String)>,
}

/// Draws the figure.
pub fn draw(figure: &PoliciesFigure) -> Result<Picture, FigureError> {
    let groups = Groups::of(figure.points.iter());
    let laws: Vec<Law> = figure.policies.iter().map(|policy| policy.law.clone()).collect();
    let entries = figure.policies.iter().enumerate().map(|(number, policy)| {
        let (_, sign) = pen(number);
        entry(if sign == Sign::Band(Ink::Text) { Sign::Line(Ink::Text) } else { sign }, policy.law.name.clone())
    });
    let key = Rows::new(entries.collect(), RIGHT_LEFT - 66.0 - 30.0);
    let height = (figure.policies.len() as f64 * ROW + 102.0 + key.height).max(470.0);
    let mut left = law_frame(&figure.points, &laws, (66.0, RIGHT_LEFT - 30.0), height);
    left.top += key.height;
    left.height -= key.height;
    let right = forecast_frame(figure, &left);
    let svg = canvas_draw((WIDTH, height), &figure.title, |canvas| {
        key.draw(canvas, left.left, 14.0)?;
        left.draw(canvas, (&figure.x, power_of_ten), (&figure.y, Some(decimal)))?;
        if figure.points.is_empty() && figure.policies.is_empty() {
            marks::nothing(canvas, &left, "no points and no laws")?;
        }
        marks::points(canvas, &left, &groups, &figure.points, &|_| Ink::Muted, &|_| 3.5)?;
        for (number, law) in laws.iter().enumerate() {
            marks::law(canvas, &left, law, pen(number).0)?;
        }
        right.draw(canvas, (&figure.forecast, decimal), ("95 % interval of the forecast", None))?;
        if figure.policies.is_empty() {
            marks::nothing(canvas, &right, "no forecasts")?;
        }
        forecasts(canvas, &right, figure)
    })?;
    let missing = figure.policies.iter().filter(|policy| !right.x.holds(policy.forecast.value)).count();
    let caption = format!(
        "Left: the law through the points that each policy keeps, over all points. Right: what each law forecasts, \
         with its 95 % interval.{}",
        left_out(missing, "forecast")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

fn forecast_frame(figure: &PoliciesFigure, left: &Frame) -> Frame {
    let values = figure.policies.iter().flat_map(|p| [p.forecast.value, p.forecast.low, p.forecast.high]);
    let x = marks::axis(Scale::Linear, values.chain(figure.reference.as_ref().map(|(value, _)| *value)), 0.08);
    let y = Axis { low: 0.0, high: 1.0, scale: Scale::Bare };
    Frame { left: RIGHT_LEFT, top: left.top, width: WIDTH - RIGHT_LEFT - 16.0, height: left.height, x, y }
}

/// A row each: name and formula above the whisker, the numbers at the right end.
fn forecasts(canvas: &Canvas, frame: &Frame, figure: &PoliciesFigure) -> Result<(), FigureError> {
    let step = frame.height / (figure.policies.len() as f64).max(1.0);
    if let Some((value, name)) = figure.reference.as_ref().filter(|(value, _)| frame.x.holds(*value)) {
        let x = frame.at(*value, 0.0).0;
        canvas.dashed(&[(x, frame.top), (x, frame.bottom())], Ink::Muted, 1.5, 5.0)?;
        let name = fit(name, 12.5, frame.width - 200.0);
        let half = text_width(&name, 12.5) / 2.0;
        let x = x.clamp(frame.left + 190.0 + half, (frame.right() - half).max(frame.left + 190.0 + half));
        canvas.text((x, frame.top - 15.0), &name, 12.5, Ink::Muted, Anchor::Middle)?;
    }
    for (number, policy) in figure.policies.iter().enumerate() {
        let (top, (pen, _)) = (frame.top + step * number as f64, pen(number));
        let text_y = top + step * 0.3;
        let numbers = marks::numbers(&policy.forecast);
        let free = frame.width - text_width(&numbers, 13.0) - 22.0;
        let name = fit(&format!("{}: {}", policy.law.name, policy.law.formula), 13.0, free);
        for (anchor, x, text) in
            [(Anchor::Start, frame.left + 6.0, &name), (Anchor::End, frame.right() - 4.0, &numbers)]
        {
            let wide = text_width(text, 13.0);
            let from = if anchor == Anchor::Start { x } else { x - wide };
            canvas.rectangle((from - 2.0, text_y - 8.0), (from + wide + 2.0, text_y + 8.0), Ink::Paper)?;
            canvas.text((x, text_y), text, 13.0, Ink::Text, anchor)?;
        }
        whisker(canvas, frame, &policy.forecast, top + step * 0.68, pen)?;
    }
    Ok(())
}

/// A dot with its interval; an end beyond the axis has no cap.
pub(super) fn whisker(
    canvas: &Canvas,
    frame: &Frame,
    interval: &Interval,
    y: f64,
    pen: Pen,
) -> Result<(), FigureError> {
    if !frame.x.holds(interval.value) {
        return Ok(());
    }
    let x = |value: f64, open: f64| frame.at(if frame.x.scale.takes(value) { value } else { open }, 0.0).0;
    let (low, high) = (x(interval.low, frame.x.low), x(interval.high, frame.x.high));
    canvas.line(&[(low, y), (high, y)], pen.ink, 2.0)?;
    for (end, value) in [(low, interval.low), (high, interval.high)] {
        if frame.x.holds(value) {
            canvas.line(&[(end, y - 5.0), (end, y + 5.0)], pen.ink, 2.0)?;
        }
    }
    canvas.marker(0, (x(interval.value, interval.value), y), 5.0, pen.ink)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_number, any_point};
    use super::super::sample;
    use super::*;

    #[test]
    fn every_policy_has_its_name_formula_and_forecast() {
        let picture = check::sound(|| draw(&sample::policies()));
        for text in ["bins:8", "pareto: E = ", "80.4 [78.8, 81.8]", "published", "acc1 in %"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
    }

    #[test]
    fn nothing_at_all_is_said() {
        let mut figure = sample::policies();
        figure.policies[0].forecast.value = f64::NAN;
        let picture = check::sound(|| draw(&figure));
        assert!(picture.caption.ends_with("1 forecast."), "{}", picture.caption);
        (figure.points, figure.policies) = (Vec::new(), Vec::new());
        assert!(check::says(&check::sound(|| draw(&figure)), "no forecasts"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            points in proptest::collection::vec(any_point(), 0..6),
            laws in proptest::collection::vec((any_curve(), any_number(), any_number(), any_number()), 0..10),
            name in "\\PC{0,60}",
        ) {
            let policies = laws.into_iter().map(|(curve, value, low, high)| Policy {
                law: Law {
                    name: name.clone(), formula: name.clone(), interval: String::new(), curve, fitted_to: low,
                },
                forecast: Interval { value, low, high },
            }).collect();
            let (title, x, y, forecast) = (name.clone(), name.clone(), name.clone(), name.clone());
            let reference = points.first().map(|point| (point.x, name));
            let figure = PoliciesFigure { title, x, y, forecast, points, policies, reference };
            check::sound(|| draw(&figure));
        }
    }
}
