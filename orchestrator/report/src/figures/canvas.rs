//! Lines, shapes and words in pixels, drawn by plotters. Its coordinates are whole numbers, so it works on a grid four
//! times finer.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::{Circle, DrawingArea, IntoDrawingArea, PathElement, Polygon, Rectangle, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, ShapeStyle, TextStyle};

use super::FigureError;
use super::theme::Ink;

const FINE: f64 = 4.0;
/// Arimo is the one that `png` brings along; Helvetica and Arial have its widths.
const FONTS: &str = "Helvetica, Arial, Arimo, 'Liberation Sans', 'DejaVu Sans', sans-serif";
/// Shapes before they repeat.
pub(super) const SHAPES: usize = 8;
/// plotters takes a font's box for its size.
const FONT_BOX: f64 = 1.24;

/// Which end of a text stands at its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing of so many pixels.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws on a new canvas and gives its SVG, with `title` for readers who don't see it.
pub(super) fn draw(
    (width, height): (f64, f64),
    title: &str,
    paint: impl FnOnce(&Canvas<'_>) -> Result<(), FigureError>,
) -> Result<String, FigureError> {
    let (width, height) = (width.ceil(), height.ceil());
    let mut svg = String::new();
    {
        let size = ((width * FINE) as u32, (height * FINE) as u32);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&Ink::Paper.rgb()).map_err(failed)?;
        let canvas = Canvas { area };
        paint(&canvas)?;
        canvas.area.present().map_err(failed)?;
    }
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         font-family=\"{FONTS}\"><title>{}</title>{}",
        width * FINE,
        height * FINE,
        crate::text::escape(title),
        // What an SVG says anyway, said for each of some thousand dots.
        body.replace(" font-family=\"sans-serif\"", "")
            .replace(" stroke=\"none\" stroke-width=\"1\"", "")
            .replace(" opacity=\"1\"", "")
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed<E: std::error::Error + Send + Sync>(error: plotters::drawing::DrawingAreaErrorKind<E>) -> FigureError {
    FigureError(format!("plotters: {error}"))
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn stroke(ink: Ink, width: f64) -> ShapeStyle {
    ShapeStyle { color: ink.rgb().to_rgba(), filled: false, stroke_width: (width * FINE) as u32 }
}

impl Canvas<'_> {
    pub(super) fn line(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&PathElement::new(points, stroke(ink, width))).map_err(failed)
    }

    pub(super) fn dashed(&self, points: &[(f64, f64)], ink: Ink, width: f64, dash: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        let (on, off) = ((dash * FINE) as u32, (dash * 0.75 * FINE) as u32);
        self.area.draw(&DashedPathElement::new(points, on, off, stroke(ink, width))).map_err(failed)
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], ink: Ink, opacity: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&Polygon::new(points, ink.rgb().mix(opacity).filled())).map_err(failed)
    }

    pub(super) fn rectangle(&self, corner: (f64, f64), opposite: (f64, f64), ink: Ink) -> Result<(), FigureError> {
        self.area.draw(&Rectangle::new([fine(corner), fine(opposite)], ink.rgb().filled())).map_err(failed)
    }

    pub(super) fn ring(&self, centre: (f64, f64), radius: f64, ink: Ink, width: f64) -> Result<(), FigureError> {
        self.area.draw(&Circle::new(fine(centre), (radius * FINE) as i32, stroke(ink, width))).map_err(failed)
    }

    /// A small disc that others show through.
    pub(super) fn dot(&self, centre: (f64, f64), radius: f64, ink: Ink, opacity: f64) -> Result<(), FigureError> {
        let style = ink.rgb().mix(opacity).filled();
        self.area.draw(&Circle::new(fine(centre), (radius * FINE) as i32, style)).map_err(failed)
    }

    /// A filled marker with a thin edge of the background, so that markers that overlap stay apart: circle, square,
    /// triangle, diamond, triangle on its head, cross, hexagon, star.
    pub(super) fn marker(&self, shape: usize, centre: (f64, f64), radius: f64, ink: Ink) -> Result<(), FigureError> {
        self.shape(shape, centre, radius + 1.0, Ink::Paper, 1.0)?;
        self.shape(shape, centre, radius, ink, 1.0)
    }

    /// A marker with an edge only.
    pub(super) fn open_marker(&self, shape: usize, centre: (f64, f64), size: f64, ink: Ink) -> Result<(), FigureError> {
        self.shape(shape, centre, size + 0.5, ink, 1.0)?;
        self.shape(shape, centre, size - 1.75, Ink::Paper, 1.0)
    }

    /// A marker that stays in the background.
    pub(super) fn faint_marker(&self, shape: usize, centre: (f64, f64), size: f64) -> Result<(), FigureError> {
        self.shape(shape, centre, size, Ink::Muted, 0.35)
    }

    fn shape(&self, shape: usize, centre: (f64, f64), radius: f64, ink: Ink, opacity: f64) -> Result<(), FigureError> {
        let around = |corners: &[(f64, f64)]| -> Result<(), FigureError> {
            let corners: Vec<_> = corners.iter().map(|(x, y)| (centre.0 + x * radius, centre.1 + y * radius)).collect();
            self.polygon(&corners, ink, opacity)
        };
        let corners = |count: u32, radii: [f64; 2]| -> Vec<(f64, f64)> {
            (0..count)
                .map(|i| {
                    let (sin, cos) = (f64::from(i) / f64::from(count) * std::f64::consts::TAU).sin_cos();
                    (sin * radii[i as usize % 2], -cos * radii[i as usize % 2])
                })
                .collect()
        };
        match shape % SHAPES {
            0 => self.dot(centre, radius, ink, opacity),
            1 => around(&[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
            2 => around(&[(0.0, -1.2), (1.1, 0.75), (-1.1, 0.75)]),
            3 => around(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
            4 => around(&[(0.0, 1.2), (1.1, -0.75), (-1.1, -0.75)]),
            5 => {
                let (long, short) = (1.1, 0.38);
                let quarter = [(-short, -long), (short, -long), (short, -short)];
                let turned = |turns: usize, (x, y): (f64, f64)| (0..turns).fold((x, y), |(x, y), _| (-y, x));
                around(&(0..4).flat_map(|turns| quarter.map(|corner| turned(turns, corner))).collect::<Vec<_>>())
            }
            6 => around(&corners(6, [1.08, 1.08])),
            _ => around(&corners(10, [1.35, 0.6])),
        }
    }

    /// Text centred vertically on its point.
    pub(super) fn text(
        &self,
        at: (f64, f64),
        text: &str,
        size: f64,
        ink: Ink,
        anchor: Anchor,
    ) -> Result<(), FigureError> {
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let color = ink.rgb();
        let style = TextStyle::from(("sans-serif", size * FINE * FONT_BOX).into_font())
            .color(&color)
            .pos(Pos::new(horizontal, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), fine(at), style)).map_err(failed)
    }
}

/// Pixels that `text` takes at `size`, by the widths of Arimo, rounded up by class.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | '\'' | '|' => 0.23,
        ' ' | '!' | ',' | '.' | '/' | ':' | ';' | 'I' | '[' | ']' | 'f' | 't' | '(' | ')' | '-' | '`' | 'r' | '·' => {
            0.32
        }
        '²' | '³' | '¹' | '⁰'..='₉' | '\u{a0}' => 0.34,
        'c' | 'k' | 's' | 'v' | 'x' | 'y' | 'z' | 'J' | 'γ' | 'λ' | 'ν' | 'ε' => 0.5,
        '+' | '<' | '=' | '>' | '~' | '−' | '×' | '±' | '≈' | '≤' | '≥' => 0.59,
        'm' | 'M' | '%' | 'ω' => 0.89,
        '@' | 'W' | '…' | '—' | '→' | '←' => 1.02,
        'G' | 'O' | 'Q' => 0.78,
        'w' | 'A'..='Z' | '&' | 'Σ' | 'Δ' | 'π' | 'Ω' | '∞' => 0.75,
        c if c.is_ascii() => 0.56,
        'α'..='χ' | 'à'..='å' | 'ç'..='ÿ' | '–' | '€' | '†' => 0.66,
        _ => 1.0,
    };
    text.chars().map(of).sum::<f64>() * size
}

/// `text` in lines of up to `width` pixels at `size`, broken at spaces that aren't within brackets; a word that is too
/// long is cut.
pub(super) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut depth = 0i32;
    let mut words = vec![String::new()];
    for c in text.chars() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = (depth - 1).max(0),
            _ => {}
        }
        match words.last_mut() {
            Some(word) if c != ' ' || (depth > 0 && text_width(word, size) < width * 0.7) => word.push(c),
            _ => words.push(String::new()),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        let word = fit(&word, size, width);
        match lines.last_mut() {
            Some(line) if text_width(line, size) + text_width(&word, size) + 0.32 * size <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// `text` cut to `width` pixels at `size`, with an ellipsis where it was longer.
pub(super) fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars() {
        shown.push(c);
        if text_width(&shown, size) + 1.02 * size > width {
            shown.pop();
            break;
        }
    }
    shown.push('…');
    shown
}

/// `text` cut to `characters`, with an ellipsis where it was longer.
pub(super) fn shorten(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}
