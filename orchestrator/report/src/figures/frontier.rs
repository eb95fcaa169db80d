//! The frontier: best N, D and U for a budget, the error they reach, and samples per parameter along it.

use super::FigureError;
use super::axis::{Frame, Scale, decimal, of_counts, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit};
use super::data::{Law, Picture};
use super::marks::{self, Pen, WIDTH, left_out};
use super::theme::Ink;

const PANEL: f64 = 230.0;
/// Formulas above a panel, and the height of each.
const LINES_MOST: usize = 6;
const LINE: f64 = 18.0;

/// What is best at each budget, a panel a quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the budget with its unit: `C, FLOPs`, `GPU-hours`.
    pub budget: String,
    /// Quantities in order: usually best N, best D, best U, best error. Up to four are drawn.
    pub panels: Vec<FrontierPanel>,
}

/// One quantity against the budget.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierPanel {
    /// Title with its unit: `best N, parameters`.
    pub y: String,
    /// Whether it counts things, so that ticks read `500M`, not `5·10⁸`.
    pub counts: bool,
    /// Its line with band, formula and interval. Several, for example one a data cap, are told apart by colour.
    pub lines: Vec<Law>,
    /// A limit that is drawn as a level with its name: the unique samples that there are.
    pub cap: Option<(f64, String)>,
    /// Budgets and values to mark with their names: runs that were made, published choices.
    pub marks: Vec<(f64, f64, String)>,
}

/// Draws the figure.
pub fn draw(figure: &FrontierFigure) -> Result<Picture, FigureError> {
    let panels = &figure.panels[..figure.panels.len().min(4)];
    let across = if panels.len() > 1 { 2 } else { 1 };
    let cell = (WIDTH - 66.0 - 12.0) / across as f64;
    let names = names(panels);
    let heads = panels.iter().map(|panel| panel.lines.len().min(LINES_MOST)).max().unwrap_or(0) as f64 * LINE;
    let tall = PANEL + heads + 104.0;
    let rows = panels.len().div_ceil(2).max(1) as f64;
    let svg = canvas_draw((WIDTH, rows * tall - 12.0), &figure.title, |canvas| {
        for number in 0..panels.len().max(1) {
            let place = (66.0 + cell * (number % across) as f64, heads + 40.0 + tall * (number / across) as f64);
            let width = cell - if across > 1 { 58.0 } else { 8.0 };
            let frame = frame(panels.get(number), place, width);
            match panels.get(number) {
                Some(panel) => draw_panel(canvas, &frame, panel, &figure.budget, &names)?,
                None => marks::nothing(canvas, &frame, "no frontier")?,
            }
        }
        Ok(())
    })?;
    let bad = |law: &Law| law.curve.points().filter(|(x, y)| !Scale::Log.takes(*x) || !Scale::Log.takes(*y)).count();
    let lost = panels.iter().flat_map(|panel| &panel.lines).map(bad).sum();
    let caption = format!(
        "What is best for a budget by the fitted law; bands: 95 % intervals. Dotted beyond the budgets that were \
         measured.{}",
        left_out(lost, "value")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

/// Names of the lines over all panels, in order.
fn names(panels: &[FrontierPanel]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for law in panels.iter().flat_map(|panel| &panel.lines) {
        if !names.contains(&law.name.as_str()) {
            names.push(&law.name);
        }
    }
    names
}

fn ink(number: usize) -> Ink {
    Ink::Series(number)
}

fn frame(panel: Option<&FrontierPanel>, (left, top): (f64, f64), width: f64) -> Frame {
    let lines = || panel.into_iter().flat_map(|panel| &panel.lines);
    let marks = || panel.into_iter().flat_map(|panel| &panel.marks);
    let x = lines().flat_map(|law| law.curve.x.iter().copied()).chain(marks().map(|(x, ..)| *x));
    let values: Vec<f64> =
        lines().flat_map(|law| law.curve.y.iter().copied()).chain(marks().map(|(_, y, _)| *y)).collect();
    let usable = || values.iter().copied().filter(|y| Scale::Log.takes(*y));
    let (least, most) = usable().fold((f64::INFINITY, 0.0f64), |(l, m), y| (l.min(y), m.max(y)));
    // A band that runs away would flatten the line.
    let room = (most / least).max(1.5).powf(0.5);
    let ends = lines().flat_map(|law| law.curve.low.iter().chain(&law.curve.high)).copied();
    let ends = ends.filter(|y| Scale::Log.takes(*y)).map(|y| y.clamp(least / room, (most * room).max(least / room)));
    let cap = panel.and_then(|panel| panel.cap.as_ref()).map(|(cap, _)| *cap);
    let cap = cap.filter(|cap| *cap < most * 3.0 && *cap > least / 3.0);
    let y = marks::axis(Scale::Log, usable().chain(ends.collect::<Vec<_>>()).chain(cap), 0.05);
    Frame { left, top, width, height: PANEL, x: marks::axis(Scale::Log, x, 0.02), y }
}

fn draw_panel(
    canvas: &Canvas,
    frame: &Frame,
    panel: &FrontierPanel,
    budget: &str,
    names: &[&str],
) -> Result<(), FigureError> {
    let ink_of = |law: &Law| ink(names.iter().position(|name| *name == law.name).unwrap_or(0));
    let label = if panel.counts { of_counts(&frame.y) } else { decimal };
    frame.draw(canvas, (budget, power_of_ten), (&panel.y, Some(label)))?;
    let count = panel.lines.len().min(LINES_MOST);
    for (number, law) in panel.lines.iter().take(count).enumerate() {
        let y = frame.top - 16.0 - (count - number) as f64 * LINE;
        canvas.line(&[(frame.left, y), (frame.left + 20.0, y)], ink_of(law), 2.25)?;
        let parts = [&law.name, &law.formula, &law.interval].map(String::as_str);
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let text = fit(&parts.join(" · "), 12.5, frame.width - 10.0);
        canvas.text((frame.left + 27.0, y), &text, 12.5, Ink::Text, Anchor::Start)?;
    }
    for law in &panel.lines {
        marks::band(canvas, frame, &law.curve, ink_of(law))?;
    }
    for law in &panel.lines {
        marks::law(canvas, frame, law, Pen::solid(ink_of(law), 2.25))?;
    }
    if let Some((cap, name)) = &panel.cap {
        marks::level(canvas, frame, (*cap, &fit(name, 12.5, frame.width - 10.0)), Pen::dashed(Ink::Muted, 1.5, 6.0))?;
    }
    named_marks(canvas, frame, panel)?;
    if panel.lines.iter().all(|law| law.curve.x.is_empty()) {
        marks::nothing(canvas, frame, "no frontier")?;
    }
    Ok(())
}

/// Marks with their names, on the side where the line is not.
fn named_marks(canvas: &Canvas, frame: &Frame, panel: &FrontierPanel) -> Result<(), FigureError> {
    let rises = panel.lines.first().and_then(|law| Some(law.curve.y.first()? < law.curve.y.last()?)).unwrap_or(true);
    let inside = panel.marks.iter().filter(|(x, y, _)| frame.x.holds(*x) && frame.y.holds(*y));
    for (number, (x, y, name)) in inside.enumerate() {
        let at = frame.at(*x, *y);
        canvas.marker(1 + number, at, 5.5, Ink::Text)?;
        let to_left = at.0 > frame.left + frame.width * 0.55;
        let (anchor, aside, room) = if to_left {
            (Anchor::End, -9.0, at.0 - frame.left - 14.0)
        } else {
            (Anchor::Start, 9.0, frame.right() - at.0 - 14.0)
        };
        let up = (rises == to_left || at.1 + 26.0 > frame.bottom()) && at.1 - 24.0 > frame.top;
        let y = at.1 + if up { -14.0 } else { 14.0 };
        canvas.text((at.0 + aside, y), &fit(name, 12.5, room), 12.5, Ink::Text, anchor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_number};
    use super::super::sample;
    use super::*;

    #[test]
    fn quantities_formulas_and_caps_are_named() {
        let picture = check::sound(|| draw(&sample::frontier()));
        for text in ["best N, parameters", "best U, unique samples", "all of LAION-2B", "N = 0.107", "error, 1 − acc1"]
        {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        let picture = check::sound(|| draw(&sample::tokens()));
        for text in ["samples seen per parameter", "U ≤ 400M", "unlimited", "ViT-H/14 as trained"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
    }

    #[test]
    fn no_frontier_is_said() {
        let mut figure = sample::frontier();
        figure.panels[0].lines[0].curve.y[4] = -1.0;
        assert!(check::sound(|| draw(&figure)).caption.ends_with("1 value."));
        figure.panels[0].lines.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no frontier"));
        figure.panels.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no frontier"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            panels in proptest::collection::vec(
                (proptest::collection::vec(any_curve(), 0..3), any::<bool>(), any_number(), any_number()), 0..6
            ),
            name in "\\PC{0,80}",
        ) {
            let panels = panels.into_iter().map(|(curves, counts, one, two)| FrontierPanel {
                y: name.clone(),
                counts,
                lines: curves.into_iter().enumerate().map(|(number, curve)| Law {
                    name: format!("{number}{name}"),
                    formula: name.clone(),
                    interval: name.clone(),
                    curve,
                    fitted_to: two,
                }).collect(),
                cap: Some((one, name.clone())),
                marks: vec![(one, two, name.clone()), (two, one, name.clone())],
            }).collect();
            let figure = FrontierFigure { title: name.clone(), budget: name, panels };
            check::sound(|| draw(&figure));
        }
    }
}
