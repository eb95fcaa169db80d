//! Two training sets or model families on the same axes: the figure 1 of Cherti et al. (arXiv 2212.07143, 2022), with
//! bands and the crossover.

use super::FigureError;
use super::axis::{Frame, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit, text_width};
use super::data::{Law, Picture, Point, Role};
use super::key::{Rows, Sign, entry};
use super::law::frame as law_frame;
use super::marks::{self, Groups, Pen, WIDTH, left_out};
use super::theme::Ink;
use fit::Interval;

const PANEL: f64 = 380.0;

/// Families compared, a panel a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the abscissa with its unit, the same in all panels.
    pub x: String,
    /// Benchmarks in order: one or two side by side, more in rows below.
    pub panels: Vec<ComparisonPanel>,
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonPanel {
    /// Title of the ordinate with its unit: `ImageNet zero-shot error, 1 − acc1`.
    pub y: String,
    /// Families in order, usually two. The same name has the same colour in every panel.
    pub families: Vec<Family>,
    /// Where the laws cross, on the abscissa, if they do. An end of the interval that is open is infinite.
    pub crossover: Option<Interval>,
}

/// Runs of one source and the law through them.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The law; its name is the source's, `OpenCLIP on LAION`.
    pub law: Law,
    /// Runs. Shape is the model, size its parameters; the colour is the family's.
    pub points: Vec<Point>,
}

/// Draws the figure.
pub fn draw(figure: &ComparisonFigure) -> Result<Picture, FigureError> {
    let families = || figure.panels.iter().flat_map(|panel| &panel.families);
    let groups = Groups::of(families().flat_map(|family| family.points.iter()).collect::<Vec<_>>().into_iter());
    let mut names: Vec<&str> = Vec::new();
    for family in families() {
        if !names.contains(&family.law.name.as_str()) {
            names.push(&family.law.name);
        }
    }
    let ink = |family: &Family| Ink::Series(names.iter().position(|name| *name == family.law.name).unwrap_or(0));
    let mut entries: Vec<_> =
        names.iter().enumerate().map(|(n, name)| entry(Sign::Band(Ink::Series(n)), *name)).collect();
    entries.extend(groups.models.iter().take(10).enumerate().filter(|(_, (name, _))| !name.is_empty()).map(
        |(number, (name, parameters))| entry(Sign::Marker(number, radius(&groups, *parameters), Ink::Muted), name),
    ));
    for (role, sign, text) in [
        (Role::HeldOut, Sign::Open(0, 5.0, Ink::Muted), "held out"),
        (Role::Excluded, Sign::Faint(0, 5.0), "not in the fit"),
    ] {
        if families().any(|family| family.points.iter().any(|point| point.role == role)) {
            entries.push(entry(sign, text));
        }
    }
    let key = Rows::new(entries, WIDTH - 80.0);
    let across = figure.panels.len().clamp(1, 2);
    let cell = (WIDTH - 62.0 - 12.0) / across as f64;
    let formulas = figure.panels.iter().map(|panel| panel.families.len()).max().unwrap_or(0) as f64 * 38.0;
    let tall = PANEL + formulas + 94.0;
    let rows = figure.panels.len().div_ceil(2).max(1) as f64;
    let mut lost = 0;
    let svg = canvas_draw((WIDTH, key.height + rows * tall), &figure.title, |canvas| {
        key.draw(canvas, 62.0, 16.0)?;
        if figure.panels.is_empty() {
            let frame = law_frame(&[], &[], (62.0, WIDTH - 12.0), PANEL);
            return marks::nothing(canvas, &frame, "nothing to compare");
        }
        for (number, panel) in figure.panels.iter().enumerate() {
            let left = 62.0 + cell * (number % across) as f64;
            let points: Vec<Point> = panel.families.iter().flat_map(|family| family.points.clone()).collect();
            let laws: Vec<Law> = panel.families.iter().map(|family| family.law.clone()).collect();
            let width = cell - if across > 1 { 56.0 } else { 8.0 };
            let mut frame = law_frame(&points, &laws, (left, left + width), PANEL);
            (frame.top, frame.height) = (key.height + formulas + 44.0 + tall * (number / across) as f64, PANEL - 16.0);
            frame.draw(canvas, (&figure.x, power_of_ten), (&panel.y, Some(decimal)))?;
            draw_panel(canvas, &frame, panel, &groups, &ink)?;
            lost += points.iter().filter(|point| !frame.x.holds(point.x) || !frame.y.holds(point.y)).count();
        }
        Ok(())
    })?;
    let crossed = figure.panels.iter().any(|panel| panel.crossover.is_some());
    let caption = format!(
        "Each family's runs and the law through them, with its formula and 95 % interval; band: 95 % interval of the \
         law; dashed beyond the runs. Larger markers: models of more parameters.{}{}",
        if crossed { " Vertical: where the laws cross, shaded: its 95 % interval." } else { "" },
        left_out(lost, "point")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

/// 4 to 8 pixels from the smallest to the largest model.
fn radius(groups: &Groups, parameters: f64) -> f64 {
    let sizes = || groups.models.iter().map(|(_, size)| *size).filter(|size| size.is_finite() && *size > 0.0);
    let (least, most) = sizes().fold((f64::INFINITY, 0.0f64), |(l, m), size| (l.min(size), m.max(size)));
    let share = (parameters / least).ln() / (most / least).ln();
    if share.is_finite() { 4.0 + 4.0 * share.clamp(0.0, 1.0) } else { 5.5 }
}

fn draw_panel(
    canvas: &Canvas,
    frame: &Frame,
    panel: &ComparisonPanel,
    groups: &Groups,
    ink: &dyn Fn(&Family) -> Ink,
) -> Result<(), FigureError> {
    if let Some(crossover) = &panel.crossover {
        cross(canvas, frame, crossover)?;
    }
    for family in &panel.families {
        marks::band(canvas, frame, &family.law.curve, ink(family))?;
    }
    for (number, family) in panel.families.iter().enumerate() {
        marks::law(canvas, frame, &family.law, Pen::solid(ink(family), 2.25))?;
        marks::points(canvas, frame, groups, &family.points, &|_| ink(family), &|p| radius(groups, p.parameters))?;
        let y = frame.top - 15.0 - (panel.families.len() - number) as f64 * 38.0;
        canvas.line(&[(frame.left, y), (frame.left + 20.0, y)], ink(family), 2.25)?;
        let room = frame.width - 28.0;
        let formula = fit(&format!("{}: {}", family.law.name, family.law.formula), 13.5, room);
        canvas.text((frame.left + 28.0, y), &formula, 13.5, Ink::Text, Anchor::Start)?;
        let interval = fit(&family.law.interval, 12.5, room);
        canvas.text((frame.left + 28.0, y + 17.0), &interval, 12.5, Ink::Muted, Anchor::Start)?;
    }
    if panel.families.iter().all(|family| family.points.is_empty()) {
        marks::nothing(canvas, frame, "no points")?;
    }
    Ok(())
}

/// A line where the laws cross, its interval, and both in words at the bottom.
fn cross(canvas: &Canvas, frame: &Frame, at: &Interval) -> Result<(), FigureError> {
    let end = |value: f64, open: f64| {
        if frame.x.scale.takes(value) { value } else { open }
    };
    let (low, high) = (end(at.low, frame.x.low), end(at.high, frame.x.high));
    let x = |value: f64| frame.at(value, frame.y.low).0;
    if low <= high && x(low) < x(high) {
        let (from, to) = (x(low), x(high));
        let around = [(from, frame.top), (to, frame.top), (to, frame.bottom()), (from, frame.bottom())];
        canvas.polygon(&around, Ink::Muted, 0.12)?;
    }
    if frame.x.holds(at.value) {
        let line = [(x(at.value), frame.top), (x(at.value), frame.bottom())];
        canvas.dashed(&line, Ink::Muted, 1.5, 5.0)?;
    }
    let short = |value: f64| {
        if value.is_finite() { power_of_ten(value) } else { if value > 0.0 { "∞" } else { "0" }.to_owned() }
    };
    let text = format!("crossover {} [{}, {}]", short(at.value), short(at.low), short(at.high));
    let text = fit(&text, 12.5, frame.width - 16.0);
    let half = text_width(&text, 12.5) / 2.0;
    let middle = x(end(at.value, low)).max(frame.left + half + 6.0).min(frame.right() - half - 4.0);
    let y = frame.bottom() - 12.0;
    canvas.rectangle((middle - half - 2.0, y - 8.0), (middle + half + 2.0, y + 8.0), Ink::Paper)?;
    canvas.text((middle, y), &text, 12.5, Ink::Text, Anchor::Middle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_number, any_point};
    use super::super::sample;
    use super::*;

    #[test]
    fn families_formulas_and_crossover_are_named() {
        let picture = check::sound(|| draw(&sample::comparison()));
        for text in ["OpenCLIP on LAION: E = 5.86", "CLIP on WIT", "crossover 4.1·10¹¹ [", "MS-COCO", "ViT-g/14"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
    }

    #[test]
    fn nothing_to_compare_is_said() {
        let mut figure = sample::comparison();
        figure.panels[0].families[0].points[0].y = f64::INFINITY;
        assert!(check::sound(|| draw(&figure)).caption.ends_with("1 point."));
        figure.panels[0].families.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no points"));
        figure.panels.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "nothing to compare"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            panels in proptest::collection::vec(
                (
                    proptest::collection::vec((any_curve(), proptest::collection::vec(any_point(), 0..5)), 0..4),
                    proptest::option::of((any_number(), any_number(), any_number())),
                ),
                0..4
            ),
            name in "\\PC{0,80}",
        ) {
            let panels = panels.into_iter().map(|(families, crossover)| ComparisonPanel {
                y: name.clone(),
                families: families.into_iter().enumerate().map(|(number, (curve, points))| Family {
                    law: Law {
                        name: format!("{number}{name}"), formula: name.clone(), interval: name.clone(), curve,
                        fitted_to: 1e6,
                    },
                    points,
                }).collect(),
                crossover: crossover.map(|(value, low, high)| Interval { value, low, high }),
            }).collect();
            let figure = ComparisonFigure { title: name.clone(), x: name, panels };
            check::sound(|| draw(&figure));
        }
    }
}
