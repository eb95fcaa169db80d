//! Profile curves: how much worse the fit gets when one parameter is held at a value and the others are fitted again.

use super::FigureError;
use super::axis::{Frame, Scale, decimal, power_of_ten};
use super::canvas::{Anchor, Canvas, draw as canvas_draw, fit};
use super::data::Picture;
use super::marks::{self, Pen, WIDTH, left_out};
use super::theme::Ink;
use fit::Interval;

const ACROSS: usize = 3;
const PANEL: f64 = 190.0;
const CELL: f64 = PANEL + 112.0;
/// Times the threshold up to which a curve is drawn.
const ABOVE: f64 = 2.4;

/// Profiles of a law's parameters, small multiples.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileFigure {
    /// What it shows, one line.
    pub title: String,
    /// Deviance above the optimum at which the interval ends: 3.84 for 95 % by χ² with one degree of freedom.
    pub threshold: f64,
    /// Parameters in order.
    pub parameters: Vec<Profile>,
}

/// One parameter's profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Symbol, with the unit where it has one: `α`.
    pub name: String,
    /// Whether its axis is logarithmic.
    pub log: bool,
    /// Values it was held at, ascending.
    pub values: Vec<f64>,
    /// Deviance above the optimum at each: 2 · (log likelihood at the optimum − there), or its F form.
    pub deviance: Vec<f64>,
    /// The optimum and where the profile crosses the threshold; an end that it never crosses is infinite.
    pub interval: Interval,
    /// False where the data don't fix it: the panel says `not identified`.
    pub identified: bool,
}

/// Draws the figure.
pub fn draw(figure: &ProfileFigure) -> Result<Picture, FigureError> {
    let count = figure.parameters.len();
    let across = count.clamp(1, ACROSS);
    let cell = (WIDTH - 56.0 - 10.0) / across as f64;
    let height = count.div_ceil(ACROSS).max(1) as f64 * CELL + 6.0;
    let threshold = if figure.threshold.is_finite() && figure.threshold > 0.0 { figure.threshold } else { 3.841 };
    let y = marks::axis(Scale::Linear, [0.0, threshold * ABOVE].into_iter(), 0.0);
    let svg = canvas_draw((WIDTH, height), &figure.title, |canvas| {
        for number in 0..count.max(1) {
            let place = ((number % across) as f64, (number / across) as f64);
            let mut frame = Frame {
                left: 56.0 + cell * place.0,
                top: 56.0 + CELL * place.1,
                width: cell - 30.0,
                height: PANEL,
                x: marks::axis(Scale::Linear, std::iter::empty(), 0.0),
                y,
            };
            match figure.parameters.get(number) {
                Some(profile) => panel(canvas, &mut frame, profile, threshold, place.0 > 0.0)?,
                None => marks::nothing(canvas, &frame, "no parameters were profiled")?,
            }
        }
        Ok(())
    })?;
    let lost = figure.parameters.iter().flat_map(curve).filter(|(x, y)| !x.is_finite() || !y.is_finite()).count();
    let open = figure.parameters.iter().filter(|profile| !profile.identified).count();
    let caption = format!(
        "Deviance above the optimum when one parameter is held at a value and the others are fitted again. Dashed: \
         the threshold of the 95 % interval, which is shaded.{}{}",
        if open > 0 { " Where the curve stays below it the data don't fix the parameter." } else { "" },
        left_out(lost, "value")
    );
    Ok(Picture::new(&figure.title, caption, svg))
}

fn curve(profile: &Profile) -> impl Iterator<Item = (f64, f64)> + '_ {
    profile.values.iter().copied().zip(profile.deviance.iter().copied())
}

fn panel(
    canvas: &Canvas,
    frame: &mut Frame,
    profile: &Profile,
    threshold: f64,
    inner: bool,
) -> Result<(), FigureError> {
    let scale = if profile.log { Scale::Log } else { Scale::Linear };
    let shown = |deviance: f64| deviance.is_finite() && deviance <= threshold * ABOVE;
    // One step beyond the top on either side, so that the curve reaches it.
    let steps: Vec<(f64, f64)> = curve(profile).filter(|(x, y)| scale.takes(*x) && y.is_finite()).collect();
    let near = |i: usize| (i.saturating_sub(1)..(i + 2).min(steps.len())).any(|j| shown(steps[j].1));
    let within = (0..steps.len()).filter(|i| near(*i)).map(|i| steps[i].0);
    frame.x = marks::axis(scale, within.chain([profile.interval.value]), 0.04);
    let label = if profile.log && (frame.x.high / frame.x.low) > 200.0 { power_of_ten } else { decimal };
    let numbers = marks::numbers(&profile.interval);
    let head = fit(&format!("{} = {numbers}", profile.name), 13.5, frame.width);
    frame.draw(canvas, (&profile.name, label), ("", (!inner).then_some(decimal)))?;
    canvas.text((frame.left, frame.top - 36.0), &head, 13.5, Ink::Text, Anchor::Start)?;
    if !inner {
        canvas.text((frame.left, frame.top - 15.0), "deviance", 12.5, Ink::Muted, Anchor::Start)?;
    }
    if !profile.identified {
        let at = (frame.right() - 2.0, frame.top - 15.0);
        canvas.text(at, "not identified", 13.0, Ink::Series(1), Anchor::End)?;
    }
    if steps.is_empty() {
        return marks::nothing(canvas, frame, "no profile");
    }
    let end = |value: f64, open: f64| if scale.takes(value) { value } else { open };
    let (low, high) = (end(profile.interval.low, frame.x.low), end(profile.interval.high, frame.x.high));
    if low <= high {
        let (from, to) = (frame.at(low, 0.0).0, frame.at(high, 0.0).0);
        let around = [(from, frame.top), (to, frame.top), (to, frame.bottom()), (from, frame.bottom())];
        canvas.polygon(&around, Ink::Series(0), 0.12)?;
    }
    let level = [(frame.x.low, threshold), (frame.x.high, threshold)];
    marks::line(canvas, frame, level.into_iter(), Pen::dashed(Ink::Muted, 1.5, 6.0))?;
    marks::line(canvas, frame, steps.iter().copied(), Pen::solid(Ink::Series(0), 2.25))?;
    if steps.len() == 1 && frame.y.holds(steps[0].1) {
        canvas.marker(0, frame.at(steps[0].0, steps[0].1), 3.5, Ink::Series(0))?;
    }
    if frame.x.holds(profile.interval.value) {
        canvas.marker(0, frame.at(profile.interval.value, 0.0), 5.0, Ink::Text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{self, any_number, any_numbers};
    use super::super::sample;
    use super::*;

    #[test]
    fn intervals_and_flat_profiles_are_named() {
        let picture = check::sound(|| draw(&sample::profile()));
        for text in ["α = 0.343 [0.31", "not identified", "−∞", "deviance"] {
            assert!(check::says(&picture, text), "{text}: {:?}", check::texts(&picture));
        }
        assert!(picture.caption.contains("don't fix the parameter"));
    }

    #[test]
    fn no_parameters_is_said() {
        let mut figure = sample::profile();
        figure.parameters[0].deviance.fill(f64::NAN);
        let picture = check::sound(|| draw(&figure));
        assert!(check::says(&picture, "no profile") && picture.caption.contains("Not drawn"));
        figure.parameters.clear();
        assert!(check::says(&check::sound(|| draw(&figure)), "no parameters were profiled"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_input_is_drawn(
            profiles in proptest::collection::vec(
                ("\\PC{0,40}", any::<(bool, bool)>(), any_numbers(9), any_numbers(9), any_number(), any_number()),
                0..7
            ),
            threshold in any_number(),
        ) {
            let parameters = profiles.into_iter().map(|(name, (log, identified), values, deviance, low, high)| {
                let interval = Interval { value: values.first().copied().unwrap_or(low), low, high };
                Profile { name, log, values, deviance, interval, identified }
            }).collect();
            let figure = ProfileFigure { title: String::new(), threshold, parameters };
            check::sound(|| draw(&figure));
        }
    }
}
