//! Budget against accuracy: how narrow the forecast gets for the money that the study takes.

use super::FigureError;
use super::axis::{Frame, Scale, decimal, of_counts};
use super::canvas::{Anchor, draw as canvas_draw, fit};
use super::data::{Curve, Picture};
use super::key::{Rows, Sign, entry};
use super::marks::{self, Pen, WIDTH, left_out};
use super::theme::Ink;

const HEIGHT: f64 = 430.0;

/// Accuracy of a forecast against the cost of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetFigure {
    /// What it shows, one line.
    pub title: String,
    /// Title of the cost with its unit: `spent on the study, GPU-hours`.
    pub cost: String,
    /// Title of the accuracy with its unit: `width of the forecast's 95 % interval, points of acc1`.
    pub accuracy: String,
    /// Ways to spend, in order: `as run`, `by advice`, `largest runs first`.
    pub series: Vec<BudgetSeries>,
    /// The accuracy that is good enough, and what to call it.
    pub target: Option<(f64, String)>,
    /// What was spent so far, in the cost's unit.
    pub spent: Option<f64>,
}

/// One way to spend.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetSeries {
    /// Its name.
    pub name: String,
    /// Cost, accuracy, and the accuracy's interval over resamples where there is one. Costs ascending.
    pub curve: Curve,
}

/// Draws the figure.
pub fn draw(figure: &BudgetFigure) -> Result<Picture, FigureError> {
    let entries = figure.series.iter().enumerate().map(|(number, series)| {
        let sign =
            if series.curve.low.is_empty() { Sign::Line(Ink::Series(number)) } else { Sign::Band(Ink::Series(number)) };
        entry(sign, format!("{}{}", series.name, reaches(figure, series)))
    });
    let key = Rows::new(entries.collect(), WIDTH - 90.0);
    let curves = || figure.series.iter().map(|series| &series.curve);
    let values: Vec<f64> = curves().flat_map(|curve| curve.y.iter().copied()).collect();
    let target = figure.target.as_ref().map(|(target, _)| *target);
    let ends = curves().flat_map(|curve| curve.low.iter().chain(&curve.high)).copied();
    let frame = Frame {
        left: 70.0,
        top: key.height + 44.0,
        width: WIDTH - 70.0 - 20.0,
        height: HEIGHT - 124.0,
        x: marks::axis(Scale::Log, curves().flat_map(|curve| curve.x.iter().copied()).chain(figure.spent), 0.04),
        y: marks::axis(Scale::Log, values.iter().copied().chain(ends).chain(target), 0.08),
    };
    let svg = canvas_draw((WIDTH, HEIGHT + key.height - 18.0), &figure.title, |canvas| {
        key.draw(canvas, 70.0, 16.0)?;
        frame.draw(canvas, (&figure.cost, of_counts(&frame.x)), (&figure.accuracy, Some(decimal)))?;
        if let Some(spent) = figure.spent.filter(|spent| frame.x.holds(*spent)) {
            let x = frame.at(spent, frame.y.low).0;
            canvas.dashed(&[(x, frame.top), (x, frame.bottom())], Ink::Muted, 1.5, 3.0)?;
            let (anchor, aside) = if x > frame.right() - 90.0 { (Anchor::End, -6.0) } else { (Anchor::Start, 6.0) };
            canvas.text((x + aside, frame.bottom() - 12.0), "spent so far", 12.5, Ink::Muted, anchor)?;
        }
        for (number, series) in figure.series.iter().enumerate() {
            marks::band(canvas, &frame, &series.curve, Ink::Series(number))?;
        }
        if let Some((value, name)) = &figure.target {
            let name = fit(name, 12.5, frame.width - 20.0);
            marks::level(canvas, &frame, (*value, &name), Pen::dashed(Ink::Text, 1.5, 6.0))?;
        }
        for (number, series) in figure.series.iter().enumerate() {
            let ink = Ink::Series(number);
            marks::line(canvas, &frame, series.curve.points(), Pen::solid(ink, 2.25))?;
            for (x, y) in series.curve.points().filter(|(x, y)| frame.x.holds(*x) && frame.y.holds(*y)) {
                canvas.marker(number, frame.at(x, y), 4.5, ink)?;
            }
        }
        if values.is_empty() {
            marks::nothing(canvas, &frame, "no costs and accuracies")?;
        }
        Ok(())
    })?;
    let lost = curves().flat_map(Curve::points).filter(|(x, y)| !frame.x.holds(*x) || !frame.y.holds(*y)).count();
    let caption = format!(
        "What the forecast is worth for what the study costs: lower is better.{}{}{}",
        if curves().any(|curve| !curve.low.is_empty()) { " Bands: 95 % over resamples of the runs." } else { "" },
        if target.is_some() { " The legend says what the target costs." } else { "" },
        left_out(lost, "point")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

/// `: reaches the target at 1.2k`, where there is a target.
fn reaches(figure: &BudgetFigure, series: &BudgetSeries) -> String {
    let Some((target, _)) = figure.target.as_ref().filter(|(target, _)| Scale::Log.takes(*target)) else {
        return String::new();
    };
    let usable: Vec<(f64, f64)> =
        series.curve.points().filter(|(x, y)| Scale::Log.takes(*x) && Scale::Log.takes(*y)).collect();
    if let Some(first) = usable.first().filter(|(_, y)| y <= target) {
        return format!(": within the target from {}", short(first.0));
    }
    let crossing = usable.windows(2).find(|pair| pair[0].1 > *target && pair[1].1 <= *target);
    match crossing {
        Some(pair) => {
            let share = (pair[0].1 / target).ln() / (pair[0].1 / pair[1].1).ln();
            format!(": reaches the target at {}", short(pair[0].0 * (pair[1].0 / pair[0].0).powf(share)))
        }
        None => ": does not reach the target".to_owned(),
    }
}

fn short(cost: f64) -> String {
    let digits = 10f64.powf(cost.log10().floor() - 1.0);
    let rounded = (cost / digits).round() * digits;
    crate::number::compact(if rounded >= 10.0 { rounded.round() } else { rounded })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_curve, any_number};
    use super::super::sample;
    use super::*;

    #[test]
    fn costs_of_the_target_are_named() {
        let picture = check::sound(|| draw(&sample::budget()));
        for text in ["by advice: reaches the target at", "good enough", "spent so far", "GPU-hours"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        let mut figure = sample::budget();
        let curve = Curve { x: vec![100.0, 10_000.0], y: vec![4.0, 1.0], low: vec![], high: vec![] };
        figure.series[0].curve = curve;
        figure.target = Some((2.0, String::new()));
        assert_eq!(reaches(&figure, &figure.series[0]), ": reaches the target at 1k");
        figure.target = Some((0.5, String::new()));
        assert_eq!(reaches(&figure, &figure.series[0]), ": does not reach the target");
    }

    #[test]
    fn nothing_spent_is_said() {
        let mut figure = sample::budget();
        figure.series[0].curve.y[0] = f64::NAN;
        assert!(check::sound(|| draw(&figure)).caption.ends_with("1 point."));
        figure.series.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no costs and accuracies"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            curves in proptest::collection::vec(any_curve(), 0..9),
            target in proptest::option::of(any_number()),
            spent in proptest::option::of(any_number()),
            name in "\\PC{0,80}",
        ) {
            let series =
                curves.into_iter().map(|curve| BudgetSeries { name: name.clone(), curve }).collect();
            let target = target.map(|target| (target, name.clone()));
            let (title, cost, accuracy) = (name.clone(), name.clone(), name);
            let figure = BudgetFigure { title, cost, accuracy, series, target, spent };
            check::sound(|| draw(&figure));
        }
    }
}
