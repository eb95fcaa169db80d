//! Logarithmic axes with ticks that people read: decades, or 1-2-5, or even steps where the range is short.

use super::FigureError;
use super::canvas::{Anchor, Canvas};
use super::theme::Ink;

/// How a tick is written.
pub(super) type Label = fn(f64) -> String;

/// A range of positive values.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogAxis {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl LogAxis {
    /// Holds all positive finite values, with `pad` (a share of the logarithmic range) on either side.
    pub(super) fn around(values: impl Iterator<Item = f64>, pad: f64) -> Option<LogAxis> {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .map(f64::ln)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let pad = ((high - low) * pad).max(0.01);
        Some(LogAxis { low: (low - pad).exp(), high: (high + pad).exp() })
    }

    /// Where a value lies: 0 at the low end, 1 at the high end, cut off there.
    pub(super) fn share(&self, value: f64) -> f64 {
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Ticks with a label, and ticks without.
    pub(super) fn ticks(&self) -> (Vec<f64>, Vec<f64>) {
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
        let major = multiples(&[1.0, 2.0, 5.0]);
        if major.len() >= 4 {
            return (major, multiples(&fine));
        }
        let step = nice_step((self.high - self.low) / 5.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        ((first..=last).map(|i| i as f64 * step).filter(within).collect(), Vec::new())
    }
}

/// The nearest of 1, 2 and 5 times a power of ten that is not below `step`.
fn nice_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|nice| *nice >= step * 0.999).unwrap_or(step)
}

/// A rectangle with two logarithmic axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: LogAxis,
    pub(super) y: LogAxis,
}

impl Frame {
    /// Pixel of a point; values beyond the axes lie on the edge.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.width * self.x.share(x), self.top + self.height * (1.0 - self.y.share(y)))
    }

    /// Grid, ticks, labels and titles. The title of y stands above it, so that nobody has to turn their head.
    pub(super) fn draw(
        &self,
        canvas: &Canvas<'_>,
        (x_title, x_label): (&str, Label),
        (y_title, y_label): (&str, Option<Label>),
    ) -> Result<(), FigureError> {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        let ((x_major, x_minor), (y_major, y_minor)) = (self.x.ticks(), self.y.ticks());
        for (values, ink) in [(&x_minor, Ink::FineGrid), (&x_major, Ink::Grid)] {
            for &value in values {
                let x = self.at(value, self.y.low).0;
                canvas.line(&[(x, self.top), (x, bottom)], ink, 1.0)?;
            }
        }
        for (values, ink) in [(&y_minor, Ink::FineGrid), (&y_major, Ink::Grid)] {
            for &value in values {
                let y = self.at(self.x.low, value).1;
                canvas.line(&[(self.left, y), (right, y)], ink, 1.0)?;
            }
        }
        canvas.line(&[(self.left, self.top), (self.left, bottom), (right, bottom)], Ink::Muted, 1.25)?;
        let mut free_from = f64::NEG_INFINITY;
        for &value in &x_major {
            let (x, text) = (self.at(value, self.y.low).0, x_label(value));
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], Ink::Muted, 1.25)?;
            let half = 4.0 * text.chars().count() as f64;
            if x - half > free_from {
                canvas.text((x, bottom + 17.0), &text, 13.0, Ink::Muted, Anchor::Middle)?;
                free_from = x + half;
            }
        }
        if let Some(y_label) = y_label {
            for &value in &y_major {
                let y = self.at(self.x.low, value).1;
                canvas.text((self.left - 8.0, y), &y_label(value), 13.0, Ink::Muted, Anchor::End)?;
            }
        }
        canvas.text((self.left + self.width / 2.0, bottom + 40.0), x_title, 13.5, Ink::Text, Anchor::Middle)?;
        canvas.text((self.left, self.top - 15.0), y_title, 13.5, Ink::Text, Anchor::Start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_range_has_a_readable_number_of_ticks(low in -12.0..24.0f64, span in 0.01..14.0f64) {
            let axis = LogAxis { low: 10f64.powf(low), high: 10f64.powf(low + span) };
            let (major, _) = axis.ticks();
            prop_assert!((2..=14).contains(&major.len()), "{major:?}");
            prop_assert!(major.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(major.iter().all(|tick| (0.0..=1.0).contains(&axis.share(*tick))));
        }
    }
}
