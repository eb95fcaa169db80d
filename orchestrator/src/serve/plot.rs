//! Curves as SVG, drawn by the style sheet's colours.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use crate::report::number::{compact, significant};

/// A curve: points by x, and where the x axis ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve<'a> {
    pub(super) points: &'a [(f64, f64)],
    pub(super) x_end: f64,
    /// What is drawn, for those who do not see it.
    pub(super) label: &'a str,
}

/// A small curve without axes.
pub(super) fn spark(curve: Curve<'_>) -> Markup {
    const WIDTH: f64 = 280.0;
    const HEIGHT: f64 = 56.0;
    let Some(frame) = Frame::of(curve, [3.0, 3.0, WIDTH - 6.0, HEIGHT - 6.0]) else {
        return html! { p.quiet { "no loss reported yet" } };
    };
    html! {
        svg.spark viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(curve.label) {
            polyline points=(frame.line(curve.points)) {}
        }
    }
}

/// A curve with axes.
pub(super) fn chart(curve: Curve<'_>) -> Markup {
    const WIDTH: f64 = 460.0;
    const HEIGHT: f64 = 210.0;
    let Some(frame) = Frame::of(curve, [58.0, 12.0, WIDTH - 74.0, HEIGHT - 42.0]) else {
        return html! { p.quiet { "nothing reported yet" } };
    };
    let mut marks = String::new();
    for value in ticks(frame.y.0, frame.y.1) {
        let y = frame.at((0.0, value)).1;
        let _ = write!(
            marks,
            "<line class=grid x1=58 x2={} y1={y:.1} y2={y:.1} /><text x=52 y={:.1} text-anchor=end>{}</text>",
            WIDTH - 16.0,
            y + 4.0,
            tick_text(value)
        );
    }
    for value in ticks(0.0, frame.x_end) {
        let x = frame.at((value, frame.y.0)).0;
        let _ = write!(marks, "<text x={x:.1} y={} text-anchor=middle>{}</text>", HEIGHT - 10.0, compact(value));
    }
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(curve.label) {
            // Numbers of ours alone.
            (PreEscaped(marks))
            polyline points=(frame.line(curve.points)) {}
        }
    }
}

/// A value with its interval at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whisker {
    pub(super) x: f64,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Values with their intervals, as a picture of its own. Ends that are far out are cut off at the frame.
pub(super) fn whiskers(all: &[Whisker], x_title: &str, y_title: &str) -> Markup {
    const WIDTH: f64 = 700.0;
    const HEIGHT: f64 = 320.0;
    let values = || all.iter().map(|one| one.value);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    // The last interval is what matters: earlier ones may be many times as wide.
    let last = all.last().map_or(0.0, |one| one.high - one.low);
    let spread = most - least;
    let reach = if last.is_finite() { spread.max(2.0 * last) } else { spread };
    let reach = reach.max(1e-9 * most.abs()).max(1e-12);
    let y = (least - reach, most + reach);
    let x_end = all.iter().map(|one| one.x).fold(0.0, f64::max) * 1.04;
    let frame = Frame { left: 70.0, top: 34.0, width: WIDTH - 86.0, height: HEIGHT - 84.0, x_end, y };
    let inside = |value: f64| value.clamp(y.0, y.1);
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) width=(WIDTH) height=(HEIGHT) role="img"
            font-family="sans-serif" font-size="13" {
            title { (y_title) " against " (x_title) }
            rect width=(WIDTH) height=(HEIGHT) fill="var(--paper)" {}
            @for value in ticks(y.0, y.1) { @let at = frame.at((0.0, value)).1;
                line x1=(frame.left) x2=(frame.left + frame.width) y1=(at) y2=(at) stroke="var(--grid)" {}
                text x=(frame.left - 8.0) y=(at + 4.0) text-anchor="end" fill="var(--muted)" { (tick_text(value)) }
            }
            @for value in ticks(0.0, x_end) { @let at = frame.at((value, y.0)).0;
                text x=(at) y=(frame.top + frame.height + 18.0) text-anchor="middle" fill="var(--muted)" { (compact(value)) }
            }
            text x="10" y="18" fill="var(--text)" { (y_title) }
            text x=(frame.left + frame.width / 2.0) y=(HEIGHT - 10.0) text-anchor="middle" fill="var(--text)" { (x_title) }
            @for one in all {
                @let (x, at) = frame.at((one.x, one.value));
                line x1=(x) x2=(x) y1=(frame.at((0.0, inside(one.low))).1) y2=(frame.at((0.0, inside(one.high))).1) stroke="var(--s0)" stroke-width="2" {}
                circle cx=(x) cy=(at) r="4.5" fill="var(--s0)" { title {
                    "after " (compact(one.x)) " results: " (significant(one.value, 4)) " [" (significant(one.low, 4)) ", " (significant(one.high, 4)) "]"
                } }
            }
        }
    }
}

fn tick_text(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e4).contains(&value.abs()) {
        significant(value, 2)
    } else {
        format!("{}", (value * 1e6).round() / 1e6)
    }
}

/// Three to six round numbers between `low` and `high`.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let width = high - low;
    if width.is_nan() || width <= 0.0 || !width.is_finite() {
        return vec![low];
    }
    let rough = width / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (0..8).map(|i| (first + i) as f64 * step).take_while(|value| *value <= high + 1e-9 * width).collect()
}

struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x_end: f64,
    y: (f64, f64),
}

impl Frame {
    /// `None`: there is nothing to draw.
    fn of(curve: Curve<'_>, [left, top, width, height]: [f64; 4]) -> Option<Frame> {
        let finite = || curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let (low, high) =
            finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
        let x_end = finite().map(|(x, _)| *x).fold(curve.x_end.max(0.0), f64::max);
        if low > high || x_end <= 0.0 {
            return None;
        }
        // A value that stays the same is in the middle, of its own size, a count of none between -1 and 1.
        let margin = match (low < high, low == 0.0) {
            (true, _) => 0.0,
            (false, true) => 1.0,
            (false, false) => 0.5 * low.abs(),
        };
        Some(Frame { left, top, width, height, x_end, y: (low - margin, high + margin) })
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = (y - self.y.0) / (self.y.1 - self.y.0);
        (self.left + self.width * x / self.x_end, self.top + self.height * (1.0 - share))
    }

    fn line(&self, points: &[(f64, f64)]) -> String {
        let mut line = String::new();
        for point in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let (x, y) = self.at(*point);
            let _ = write!(line, "{x:.1},{y:.1} ");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(2.1, 3.3), [2.5, 3.0]);
        assert_eq!(ticks(1.0, 1.0), [1.0]);
        for (low, high) in [(0.0, 1e-9), (-5.0, 1e12), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!((1..=8).contains(&ticks(low, high).len()), "{low} {high}");
        }
    }

    #[test]
    fn a_value_that_stays_the_same_has_an_axis_of_its_size() {
        let axis = |value: f64| {
            let points = [(1.0, value), (2.0, value)];
            let frame = Frame::of(Curve { points: &points, x_end: 4.0, label: "" }, [0.0, 0.0, 1.0, 1.0]);
            frame.expect("something to draw").y
        };
        assert_eq!([axis(0.0), axis(1e-12), axis(-4.0)], [(-1.0, 1.0), (5e-13, 1.5e-12), (-6.0, -2.0)]);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let points = [(1.0, f64::NAN), (2.0, 1.0), (f64::INFINITY, 2.0)];
        let svg = spark(Curve { points: &points, x_end: 4.0, label: "a \"b\" <c>" }).into_string();
        assert!(svg.contains("&quot;b&quot; &lt;c&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(spark(Curve { points: &[], x_end: 4.0, label: "" }).into_string().contains("no loss"));
    }
}
