//! Axes with ticks that people read: decades, 1-2-5, or even steps, and a rectangle with two of them.

use super::FigureError;
use super::canvas::{Anchor, Canvas, fit, text_width};
use super::theme::Ink;
use crate::number::{compact, significant, superscript};

/// How a tick is written.
pub(super) type Label = fn(f64) -> String;

/// Values beyond it, or below one over it on a logarithmic axis, are not drawn: steps between ticks have to be numbers.
const MOST: f64 = 1e100;

/// How values become lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Log,
    Linear,
    /// Linear without ticks, for rows that have their names beside them.
    Bare,
}

/// A range of values; positive ones where it is logarithmic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) scale: Scale,
}

impl Axis {
    /// Logarithmic: holds all positive finite values, with `pad` (a share of the logarithmic range) on either side.
    pub(super) fn log(values: impl Iterator<Item = f64>, pad: f64) -> Option<Axis> {
        let (low, high) = range(values.filter(|value| Scale::Log.takes(*value)).map(f64::ln))?;
        let pad = ((high - low) * pad).max(0.01);
        Some(Axis { low: (low - pad).exp(), high: (high + pad).exp(), scale: Scale::Log })
    }

    /// Linear: holds all finite values, with `pad` (a share of the range) on either side.
    pub(super) fn linear(values: impl Iterator<Item = f64>, pad: f64) -> Option<Axis> {
        let (low, high) = range(values.filter(|value| Scale::Linear.takes(*value)))?;
        let size = low.abs().max(high.abs());
        let pad = if size == 0.0 { 1.0 } else { ((high - low) * pad).max(size * 1e-4).max(1.0 / MOST) };
        Some(Axis { low: low - pad, high: high + pad, scale: Scale::Linear })
    }

    /// Where a value lies: 0 at the low end, 1 at the high end, beyond them outside.
    fn share_beyond(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            Scale::Linear | Scale::Bare => (value - self.low) / (self.high - self.low),
        }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end, cut off there.
    pub(super) fn share(&self, value: f64) -> f64 {
        self.share_beyond(value).clamp(0.0, 1.0)
    }

    /// Whether a value is drawn, and lies within the ends.
    pub(super) fn holds(&self, value: f64) -> bool {
        self.scale.takes(value) && (-1e-9..=1.0 + 1e-9).contains(&self.share_beyond(value))
    }

    /// Ticks with a label, and ticks without.
    pub(super) fn ticks(&self) -> (Vec<f64>, Vec<f64>) {
        match self.scale {
            Scale::Log => self.log_ticks(),
            Scale::Linear => (self.even_ticks(), Vec::new()),
            Scale::Bare => (Vec::new(), Vec::new()),
        }
    }

    fn log_ticks(&self) -> (Vec<f64>, Vec<f64>) {
        let within = |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let multiples = |of: &[f64]| -> Vec<f64> {
            decades.clone().flat_map(|d| of.iter().map(move |m| m * 10f64.powi(d))).filter(within).collect()
        };
        let span = (self.high / self.low).log10();
        let fine = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        if span >= 2.2 {
            let every = (span / 8.0).ceil().max(1.0) as i32;
            let major = decades.clone().filter(|d| d % every == 0).map(|d| 10f64.powi(d)).filter(within).collect();
            let minor = if every == 1 { multiples(&fine) } else { multiples(&[1.0]) };
            return (major, minor);
        }
        let few = multiples(&[1.0, 2.0, 5.0]);
        let major = if few.len() >= 4 { few } else { multiples(&[1.0, 2.0, 3.0, 5.0, 7.0]) };
        if major.len() >= 4 {
            return (major, multiples(&fine));
        }
        (self.even_ticks(), Vec::new())
    }

    fn even_ticks(&self) -> Vec<f64> {
        let step = nice_step((self.high - self.low) / 7.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        let slack = step * 1e-6;
        (first..=last)
            .map(|i| i as f64 * step)
            .filter(|value| *value >= self.low - slack && *value <= self.high + slack)
            .collect()
    }
}

impl Scale {
    /// Whether a value can be drawn at all.
    pub(super) fn takes(self, value: f64) -> bool {
        match self {
            Scale::Log => value > 1.0 / MOST && value < MOST,
            Scale::Linear | Scale::Bare => value.abs() < MOST,
        }
    }
}

/// `None` where there is no value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then_some((low, high))
}

/// The nearest of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
fn nice_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * decade).find(|nice| *nice >= step * 0.999).unwrap_or(step)
}

/// A rectangle with two axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Frame {
    /// Pixel of a point; values beyond the axes lie on the edge.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.width * self.x.share(x), self.top + self.height * (1.0 - self.y.share(y)))
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The pieces of a line that lie within the axes, in pixels. Points that can't be drawn break it.
    pub(super) fn clipped(&self, points: impl Iterator<Item = (f64, f64)>) -> Vec<Vec<(f64, f64)>> {
        let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut before: Option<(f64, f64)> = None;
        for (x, y) in points {
            if !self.x.scale.takes(x) || !self.y.scale.takes(y) {
                before = None;
                continue;
            }
            let here = (self.x.share_beyond(x), self.y.share_beyond(y));
            if let Some((from, to)) = before.and_then(|before| inside_part(before, here)) {
                let pixel = |(x, y): (f64, f64)| (self.left + self.width * x, self.top + self.height * (1.0 - y));
                let (from, to) = (pixel(from), pixel(to));
                match pieces.last_mut() {
                    Some(piece) if piece.last() == Some(&from) => piece.push(to),
                    _ => pieces.push(vec![from, to]),
                }
            }
            before = Some(here);
        }
        pieces
    }

    /// Grid, ticks, labels and titles. The title of y stands above it, so that nobody has to turn their head.
    pub(super) fn draw(
        &self,
        canvas: &Canvas,
        (x_title, x_label): (&str, Label),
        (y_title, y_label): (&str, Option<Label>),
    ) -> Result<(), FigureError> {
        let (right, bottom) = (self.right(), self.bottom());
        let ((x_major, x_minor), (y_major, y_minor)) = (self.x.ticks(), self.y.ticks());
        for (values, ink) in [(&x_minor, Ink::FineGrid), (&x_major, Ink::Grid)] {
            let at = |value: &f64| self.at(*value, self.y.low).0;
            let lines = values.iter().map(at).map(|x| [(x, self.top), (x, bottom)]);
            canvas.lines(lines, ink, 1.0)?;
        }
        for (values, ink) in [(&y_minor, Ink::FineGrid), (&y_major, Ink::Grid)] {
            let at = |value: &f64| self.at(self.x.low, *value).1;
            let lines = values.iter().map(at).map(|y| [(self.left, y), (right, y)]);
            canvas.lines(lines, ink, 1.0)?;
        }
        canvas.line(&[(self.left, self.top), (self.left, bottom), (right, bottom)], Ink::Muted, 1.25)?;
        let mut free_from = f64::NEG_INFINITY;
        for &value in &x_major {
            let (x, text) = (self.at(value, self.y.low).0, x_label(value));
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], Ink::Muted, 1.25)?;
            let half = text_width(&text, 13.0) / 2.0 + 4.0;
            let middle = x.min(right + 14.0 - half);
            if middle - half > free_from {
                canvas.text((middle, bottom + 17.0), &text, 13.0, Ink::Muted, Anchor::Middle)?;
                free_from = middle + half;
            }
        }
        let mut free_below = f64::INFINITY;
        for &value in y_label.iter().flat_map(|_| &y_major) {
            let y = self.at(self.x.low, value).1;
            if let Some(y_label) = y_label.filter(|_| y + 8.0 < free_below) {
                canvas.text((self.left - 8.0, y), &y_label(value), 13.0, Ink::Muted, Anchor::End)?;
                free_below = y - 8.0;
            }
        }
        let (x_title, y_title) = (fit(x_title, 13.5, self.width + 16.0), fit(y_title, 13.5, self.width));
        canvas.text((self.left + self.width / 2.0, bottom + 40.0), &x_title, 13.5, Ink::Text, Anchor::Middle)?;
        canvas.text((self.left, self.top - 15.0), &y_title, 13.5, Ink::Text, Anchor::Start)
    }
}

/// The part of a stretch that lies in the unit square (Liang and Barsky 1984).
fn inside_part(from: (f64, f64), to: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (slope, room) in [(-dx, from.0), (dx, 1.0 - from.0), (-dy, from.1), (dy, 1.0 - from.1)] {
        if slope == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if slope < 0.0 {
            enter = enter.max(room / slope);
        } else {
            leave = leave.min(room / slope);
        }
    }
    let at = |share: f64| {
        if share == 0.0 {
            from
        } else if (share - 1.0).abs() < f64::EPSILON {
            to
        } else {
            (from.0 + dx * share, from.1 + dy * share)
        }
    };
    (enter <= leave).then(|| (at(enter), at(leave)))
}

/// `10⁹`, `3·10⁹`; within four digits of one as a decimal.
pub(super) fn power_of_ten(value: f64) -> String {
    if !Scale::Log.takes(value) {
        return significant(value, 2);
    }
    let exponent = value.log10().floor() as i32;
    let mantissa = value / 10f64.powi(exponent);
    let exponent = superscript(&exponent.to_string());
    if (mantissa - 1.0).abs() < 1e-6 || (mantissa - 10.0).abs() < 1e-6 {
        return format!("10{}", superscript(&value.log10().round().to_string()));
    }
    format!("{}·10{exponent}", significant(mantissa, 2).trim_end_matches(".0"))
}

/// How to write the ticks of a count of things: `500M`, `2B`; `10¹⁷` where it gets too large or too small for that.
pub(super) fn of_counts(axis: &Axis) -> Label {
    if axis.low >= 1.0 && axis.high <= 1e12 { compact } else { power_of_ten }
}

/// `0.05`, `0.1`, `0.62`, `3`, `−0.002`; very small and very large ones as powers of ten.
pub(super) fn decimal(value: f64) -> String {
    let size = value.abs();
    if size < 1e-9 {
        return "0".to_owned();
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if !(0.99e-4..1e6).contains(&size) {
        return format!("{sign}{}", power_of_ten(size));
    }
    let text = format!("{size:.5}");
    format!("{sign}{}", if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_range_has_a_readable_number_of_ticks(low in -12.0..24.0f64, span in 0.01..14.0f64) {
            let axis = Axis { low: 10f64.powf(low), high: 10f64.powf(low + span), scale: Scale::Log };
            let (major, _) = axis.ticks();
            prop_assert!((2..=14).contains(&major.len()), "{major:?}");
            prop_assert!(major.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(major.iter().all(|tick| (0.0..=1.0).contains(&axis.share(*tick))));
        }

        #[test]
        fn linear_axes_too(low in -1e6..1e6f64, span in 0.0..1e6f64) {
            let axis = Axis::linear([low, low + span].into_iter(), 0.05).unwrap();
            let (major, _) = axis.ticks();
            prop_assert!((2..=14).contains(&major.len()), "{axis:?} {major:?}");
            prop_assert!(axis.holds(low) && axis.holds(low + span));
        }

        #[test]
        fn clipped_lines_stay_inside(points in proptest::collection::vec((-2.0..3.0f64, -2.0..3.0f64), 0..20)) {
            let axis = Axis { low: 0.0, high: 1.0, scale: Scale::Linear };
            let frame = Frame { left: 10.0, top: 20.0, width: 100.0, height: 50.0, x: axis, y: axis };
            for (x, y) in frame.clipped(points.into_iter()).into_iter().flatten() {
                prop_assert!((9.99..=110.01).contains(&x) && (19.99..=70.01).contains(&y), "{x} {y}");
            }
        }
    }

    #[test]
    fn labels_read_as_people_write() {
        assert_eq!(
            [0.05, 1.0, -0.002, 0.0, 30.0, 2e7, 1e-7].map(decimal),
            ["0.05", "1", "−0.002", "0", "30", "2·10⁷", "10⁻⁷"]
        );
        assert_eq!([1e9, 3e9, 0.01].map(power_of_ten), ["10⁹", "3·10⁹", "10⁻²"]);
    }
}
