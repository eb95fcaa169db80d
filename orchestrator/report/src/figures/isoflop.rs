//! IsoFLOP analysis: error against N at each compute budget, the surface's optimum beside the parabola's, and both
//! optima against C.

use super::FigureError;
use super::axis::{Axis, Frame, Label, Scale, decimal, of_counts, power_of_ten};
use super::canvas::{Canvas, draw as canvas_draw};
use super::data::{Curve, Law, Picture};
use super::key::{Column, Sign, entry};
use super::marks::{self, Pen, WIDTH, left_out};
use super::theme::{Ink, viridis};

const HEIGHT: f64 = 430.0;
const LEFT: f64 = 62.0;
const MIDDLE: f64 = 472.0;
const KEY_LEFT: f64 = 772.0;

/// IsoFLOP curves and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct IsoflopFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the ordinate with its unit, `error, 1 − acc1`.
    pub y: String,
    /// Title of compute with its unit, `C, FLOPs`.
    pub compute: String,
    /// Budgets, ascending.
    pub budgets: Vec<Isoflop>,
    /// N_opt(C) of the surface, with its band.
    pub surface: Law,
    /// N_opt(C) by the parabolas' optima, where it was fitted.
    pub parabola: Option<Law>,
}

/// One compute budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Isoflop {
    /// C in the figure's unit.
    pub compute: f64,
    /// N of each run.
    pub parameters: Vec<f64>,
    /// Error or loss of each run.
    pub errors: Vec<f64>,
    /// Place of each run's job in the study, where pages show it; empty for none.
    pub jobs: Vec<Option<usize>>,
    /// The surface along the budget: error against N.
    pub surface: Curve,
    /// N and error of the surface's optimum.
    pub surface_optimum: Option<(f64, f64)>,
    /// The parabola in ln N.
    pub parabola: Curve,
    /// N and error of the parabola's optimum.
    pub parabola_optimum: Option<(f64, f64)>,
    /// What to beware of, in words: `optimum at the edge`, `grid off-centre by 1.8x`.
    pub flags: Vec<String>,
}

/// Draws the figure.
pub fn draw(figure: &IsoflopFigure) -> Result<Picture, FigureError> {
    let key = legend(figure);
    let height = (key.height() + 60.0).max(HEIGHT);
    let (left, right) = frames(figure, height);
    let svg = canvas_draw((WIDTH, height), &figure.title, |canvas| {
        let counts: Label = of_counts(&left.x);
        left.draw(canvas, ("N, parameters", counts), (&figure.y, Some(decimal)))?;
        for (number, budget) in figure.budgets.iter().enumerate() {
            isoflop(canvas, &left, budget, ink(number, figure.budgets.len()))?;
        }
        right.draw(canvas, (&figure.compute, power_of_ten), ("best N, parameters", Some(of_counts(&right.y))))?;
        optima(canvas, &right, figure)?;
        if figure.budgets.is_empty() {
            marks::nothing(canvas, &left, "no compute budgets")?;
            marks::nothing(canvas, &right, "no optima")?;
        }
        key.draw(canvas, KEY_LEFT, 40.0)
    })?;
    let runs = figure.budgets.iter().flat_map(|budget| budget.parameters.iter().zip(&budget.errors));
    let lost = runs.filter(|(n, error)| !left.x.holds(**n) || !left.y.holds(**error)).count();
    let flagged = figure.budgets.iter().any(|budget| !budget.flags.is_empty());
    let caption = format!(
        "Left: runs by N, one colour a compute budget; solid: the fitted surface, dashed: a parabola in ln N through \
         the budget's runs alone; filled and open diamonds: their optima. Right: the optima against C, and the power \
         laws through them.{}{}",
        if flagged { " Ringed: budgets with a flag." } else { "" },
        left_out(lost, "run")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

/// From dark to light as compute grows, without the ends that some page has no contrast to.
fn ink(number: usize, count: usize) -> Ink {
    viridis(0.2 + 0.62 * number as f64 / (count.max(2) - 1) as f64).0
}

fn legend(figure: &IsoflopFigure) -> Column {
    let mut key = Column::new(WIDTH - KEY_LEFT - 6.0);
    marks::explain_law(&mut key, Sign::Band(Ink::Text), &figure.surface);
    if let Some(parabola) = &figure.parabola {
        marks::explain_law(&mut key, Sign::Dashed(Ink::Muted, 5.0), parabola);
    }
    key.head("Optimum");
    key.entry(&entry(Sign::Marker(3, 5.5, Ink::Muted), "of the surface"));
    key.entry(&entry(Sign::Open(3, 5.5, Ink::Muted), "of the parabola"));
    key.head(&figure.compute);
    for (number, budget) in figure.budgets.iter().enumerate() {
        let ink = ink(number, figure.budgets.len());
        key.entry(&entry(Sign::Marker(0, 5.0, ink), power_of_ten(budget.compute)));
        if !budget.flags.is_empty() {
            key.more(&budget.flags.join("; "), Ink::Series(1));
        }
    }
    key
}

fn frames(figure: &IsoflopFigure, height: f64) -> (Frame, Frame) {
    let budgets = || figure.budgets.iter();
    let optima = || budgets().flat_map(|b| [b.surface_optimum, b.parabola_optimum]).flatten();
    let sizes = budgets().flat_map(|budget| budget.parameters.iter().copied());
    let errors: Vec<f64> =
        budgets().flat_map(|b| b.errors.iter().copied()).filter(|error| Scale::Log.takes(*error)).collect();
    let (least, most) = errors.iter().fold((f64::INFINITY, 0.0f64), |(l, m), error| (l.min(*error), m.max(*error)));
    let best = optima().map(|(_, error)| error).filter(|error| *error > least * 0.8 && *error < most * 1.2);
    let frame = |left, right, x, y| Frame { left, top: 40.0, width: right - left, height: height - 40.0 - 62.0, x, y };
    let one = frame(
        LEFT,
        MIDDLE - 62.0,
        marks::axis(Scale::Log, sizes.chain(optima().map(|(n, _)| n)), 0.04),
        marks::axis(Scale::Log, errors.iter().copied().chain(best), 0.06),
    );
    let computes = budgets().map(|budget| budget.compute).chain(figure.surface.curve.x.iter().copied());
    let lines = figure.surface.curve.y.iter().copied().chain(optima().map(|(n, _)| n));
    let x: Axis = marks::axis(Scale::Log, computes, 0.05);
    (one, frame(MIDDLE, KEY_LEFT - 24.0, x, marks::axis(Scale::Log, lines, 0.06)))
}

fn isoflop(canvas: &Canvas, frame: &Frame, budget: &Isoflop, ink: Ink) -> Result<(), FigureError> {
    // Beyond its runs a parabola says nothing.
    let runs = budget.parameters.iter().fold((f64::INFINITY, 0.0f64), |(low, high), n| (low.min(*n), high.max(*n)));
    let near = |(n, _): &(f64, f64)| *n >= runs.0 / 1.1 && *n <= runs.1 * 1.1;
    marks::line(canvas, frame, budget.parabola.points().filter(near), Pen::dashed(ink, 1.5, 5.0))?;
    marks::line(canvas, frame, budget.surface.points(), Pen::solid(ink, 2.0))?;
    for (number, (&n, &error)) in budget.parameters.iter().zip(&budget.errors).enumerate() {
        if frame.x.holds(n) && frame.y.holds(error) {
            let job = budget.jobs.get(number).copied().flatten();
            canvas.mark(job.as_slice(), || canvas.marker(0, frame.at(n, error), 4.0, ink))?;
        }
    }
    both(canvas, frame, budget.surface_optimum, budget.parabola_optimum, ink)
}

/// The optimum of the surface filled, that of the parabola open.
fn both(
    canvas: &Canvas,
    frame: &Frame,
    surface: Option<(f64, f64)>,
    parabola: Option<(f64, f64)>,
    ink: Ink,
) -> Result<(), FigureError> {
    let inside = |at: &(f64, f64)| frame.x.holds(at.0) && frame.y.holds(at.1);
    if let Some((x, y)) = parabola.filter(inside) {
        canvas.open_marker(3, frame.at(x, y), 6.0, ink)?;
    }
    surface.filter(inside).map_or(Ok(()), |(x, y)| canvas.marker(3, frame.at(x, y), 6.0, ink))
}

fn optima(canvas: &Canvas, frame: &Frame, figure: &IsoflopFigure) -> Result<(), FigureError> {
    marks::band(canvas, frame, &figure.surface.curve, Ink::Text)?;
    if let Some(parabola) = &figure.parabola {
        marks::line(canvas, frame, parabola.curve.points(), Pen::dashed(Ink::Muted, 1.75, 5.0))?;
    }
    marks::law(canvas, frame, &figure.surface, Pen::solid(Ink::Text, 2.0))?;
    for (number, budget) in figure.budgets.iter().enumerate() {
        let ink = ink(number, figure.budgets.len());
        let at = |optimum: Option<(f64, f64)>| optimum.map(|(n, _)| (budget.compute, n));
        let (surface, parabola) = (at(budget.surface_optimum), at(budget.parabola_optimum));
        both(canvas, frame, surface, parabola, ink)?;
        let ringed = parabola.or(surface).filter(|(c, n)| frame.x.holds(*c) && frame.y.holds(*n));
        if let Some((c, n)) = ringed.filter(|_| !budget.flags.is_empty()) {
            canvas.ring(frame.at(c, n), 11.0, Ink::Series(1), 1.75)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_number, any_numbers};
    use super::super::sample;
    use super::*;

    #[test]
    fn budgets_flags_and_optima_are_named() {
        let picture = check::sound(|| draw(&sample::isoflop()));
        for text in ["of the parabola", "off-centre by 2.1x", "optimum at the edge", "N = 0.425", "10¹⁹", "C, FLOPs"]
        {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        assert!(picture.caption.contains("Ringed"));
    }

    #[test]
    fn no_budgets_is_said() {
        let mut figure = sample::isoflop();
        figure.budgets[0].errors[0] = f64::NAN;
        assert!(check::sound(|| draw(&figure)).caption.ends_with("1 run."));
        figure.budgets.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no compute budgets"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            budgets in proptest::collection::vec(
                (any_curve(), any_curve(), any_numbers(6), proptest::option::of((any_number(), any_number()))), 0..6
            ),
            curve in any_curve(),
            name in "\\PC{0,50}",
        ) {
            let law = Law { name: name.clone(), formula: name.clone(), interval: name.clone(), curve, fitted_to: 1e9 };
            let budgets = budgets.into_iter().map(|(surface, parabola, numbers, optimum)| Isoflop {
                compute: numbers.first().copied().unwrap_or(f64::NAN),
                parameters: surface.x.clone(),
                jobs: (0..numbers.len()).map(Some).collect(),
                errors: numbers,
                surface,
                surface_optimum: optimum,
                parabola,
                parabola_optimum: optimum.map(|(n, error)| (error, n)),
                flags: vec![name.clone()],
            }).collect();
            let (title, y, compute) = (name.clone(), name.clone(), name);
            let figure = IsoflopFigure { title, y, compute, budgets, surface: law.clone(), parabola: Some(law) };
            check::sound(|| draw(&figure));
        }
    }
}
