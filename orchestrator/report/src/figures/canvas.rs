//! Lines, shapes and words in pixels, drawn by plotters.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{Circle, DrawingArea, IntoDrawingArea, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::FigureError;
use super::svg::{FINE, Svg};
use super::theme::Ink;
use crate::text::escape;

/// Arimo is the one that `png` brings along; Helvetica and Arial have its widths.
const FONTS: &str = "Helvetica, Arial, Arimo, 'Liberation Sans', 'DejaVu Sans', sans-serif";
/// Shapes before they repeat.
pub(super) const SHAPES: usize = 8;
/// From the middle of a small letter to its base, as a share of the font's size.
const HALF_LETTER: f64 = 0.26;

/// Which end of a text stands at its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing: what was drawn so far. Places beyond an edge are drawn on it.
pub(super) struct Canvas {
    area: DrawingArea<Svg, Shift>,
    written: Rc<RefCell<String>>,
}

/// Draws on a new canvas and gives its SVG, with `title` for readers who don't see it.
pub(super) fn draw(
    (width, height): (f64, f64),
    title: &str,
    paint: impl FnOnce(&Canvas) -> Result<(), FigureError>,
) -> Result<String, FigureError> {
    let (width, height) = (width.ceil(), height.ceil());
    let written = Rc::new(RefCell::new(String::new()));
    let size = ((width * FINE) as u32, (height * FINE) as u32);
    let area = Svg { size, written: Rc::clone(&written) }.into_drawing_area();
    let canvas = Canvas { area, written };
    canvas.rectangle((0.0, 0.0), (width, height), Ink::Paper)?;
    paint(&canvas)?;
    Ok(format!(
        "<svg{} width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{}</title>{}</svg>\n",
        page_says(),
        escape(title),
        canvas.written.take()
    ))
}

/// Attributes of a file that a page need not repeat for each of its figures.
pub(super) fn page_says() -> String {
    format!(" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"{FONTS}\"")
}

/// The same for a page's style sheet.
pub fn css_font() -> String {
    format!("svg {{ font-family: {FONTS}; }}")
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: DrawingAreaErrorKind<std::fmt::Error>) -> FigureError {
    FigureError(format!("plotters: {error}"))
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

/// A length in tenths of a pixel.
fn tenths(length: f64) -> u32 {
    (length * FINE).round() as u32
}

fn stroke(ink: Ink, width: f64) -> ShapeStyle {
    ShapeStyle { color: ink.rgb().to_rgba(), filled: false, stroke_width: tenths(width) }
}

fn fill(ink: Ink, opacity: f64) -> ShapeStyle {
    ink.rgb().mix(opacity).filled()
}

impl Canvas {
    fn write(&self, text: std::fmt::Arguments<'_>) -> Result<(), FigureError> {
        self.written.borrow_mut().write_fmt(text).map_err(|error| FigureError(format!("SVG: {error}")))
    }

    /// What `paint` draws, as a group of `class`; one that is not shown is for pages, which choose by the class.
    pub(super) fn layer(
        &self,
        class: &str,
        shown: bool,
        paint: impl FnOnce() -> Result<(), FigureError>,
    ) -> Result<(), FigureError> {
        let display = if shown { "" } else { " display=\"none\"" };
        self.write(format_args!("<g class=\"{}\"{display}>", escape(class)))?;
        paint()?;
        self.write(format_args!("</g>"))
    }

    /// What `paint` draws, as the mark of jobs: their places in the study; of none, as no mark.
    pub(super) fn mark(
        &self,
        jobs: &[usize],
        paint: impl FnOnce() -> Result<(), FigureError>,
    ) -> Result<(), FigureError> {
        if jobs.is_empty() {
            return paint();
        }
        let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        self.write(format_args!("<g class=\"j\" data-j=\"{}\">", jobs.join(" ")))?;
        paint()?;
        self.write(format_args!("</g>"))
    }

    pub(super) fn line(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&PathElement::new(points, stroke(ink, width))).map_err(failed)
    }

    /// Many straight lines, as one path: grids are a good part of a page.
    pub(super) fn lines(
        &self,
        lines: impl Iterator<Item = [(f64, f64); 2]>,
        ink: Ink,
        width: f64,
    ) -> Result<(), FigureError> {
        let px = |tenths: i32| f64::from(tenths) / FINE;
        let path = lines.fold(String::new(), |mut path, [from, to]| {
            let ((x, y), (to_x, to_y)) = (fine(from), fine(to));
            let _ = write!(path, "M{},{}", px(x), px(y));
            let _ = match (x == to_x, y == to_y) {
                (true, _) => write!(path, "V{}", px(to_y)),
                (_, true) => write!(path, "H{}", px(to_x)),
                _ => write!(path, "L{},{}", px(to_x), px(to_y)),
            };
            path
        });
        if path.is_empty() {
            return Ok(());
        }
        let RGBColor(r, g, b) = ink.rgb();
        self.write(format_args!(
            "<path fill=\"none\" stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"{width}\" d=\"{path}\"/>"
        ))
    }

    /// plotters cuts dashes into lines of their own, some hundred a law: a group's attribute says the same.
    pub(super) fn dashed(&self, points: &[(f64, f64)], ink: Ink, width: f64, dash: f64) -> Result<(), FigureError> {
        self.write(format_args!("<g stroke-dasharray=\"{dash},{}\">", dash * 0.75))?;
        self.line(points, ink, width)?;
        self.write(format_args!("</g>"))
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], ink: Ink, opacity: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&Polygon::new(points, fill(ink, opacity))).map_err(failed)
    }

    pub(super) fn rectangle(&self, corner: (f64, f64), opposite: (f64, f64), ink: Ink) -> Result<(), FigureError> {
        self.area.draw(&Rectangle::new([fine(corner), fine(opposite)], fill(ink, 1.0))).map_err(failed)
    }

    pub(super) fn ring(&self, centre: (f64, f64), radius: f64, ink: Ink, width: f64) -> Result<(), FigureError> {
        self.area.draw(&Circle::new(fine(centre), tenths(radius), stroke(ink, width))).map_err(failed)
    }

    /// A small disc that others show through.
    pub(super) fn dot(&self, centre: (f64, f64), radius: f64, ink: Ink, opacity: f64) -> Result<(), FigureError> {
        self.area.draw(&Circle::new(fine(centre), tenths(radius), fill(ink, opacity))).map_err(failed)
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
        let color: RGBColor = ink.rgb();
        let style =
            TextStyle::from(("sans-serif", size).into_font()).color(&color).pos(Pos::new(horizontal, VPos::Bottom));
        let base = (at.0, at.1 + HALF_LETTER * size);
        self.area.draw(&Text::new(text.to_owned(), fine(base), style)).map_err(failed)
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
            Some(word) if c != ' ' || (depth > 0 && text_width(word, size) < width * 0.7) => {
                word.push(c);
            }
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
