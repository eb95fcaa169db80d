//! Lines, shapes and words in pixels, as SVG.

use std::cell::RefCell;
use std::fmt::Write as _;

use super::FigureError;
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

/// A drawing: what was drawn so far.
pub(super) struct Canvas {
    size: (f64, f64),
    svg: RefCell<String>,
}

/// Draws on a new canvas and gives its SVG, with `title` for readers who don't see it.
pub(super) fn draw(
    (width, height): (f64, f64),
    title: &str,
    paint: impl FnOnce(&Canvas) -> Result<(), FigureError>,
) -> Result<String, FigureError> {
    let (width, height) = (width.ceil(), height.ceil());
    let canvas = Canvas { size: (width, height), svg: RefCell::default() };
    canvas.rectangle((0.0, 0.0), (width, height), Ink::Paper)?;
    paint(&canvas)?;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"{FONTS}\"><title>{}</title>{}</svg>\n",
        escape(title),
        canvas.svg.into_inner()
    ))
}

/// A length in tenths of a pixel, as short as it can be written.
fn short(length: f64) -> f64 {
    let tenths = (length * 10.0).round() / 10.0;
    // No -0, which is written with its sign.
    if tenths == 0.0 { 0.0 } else { tenths }
}

impl Canvas {
    /// A place of the picture, or the nearest to one beyond its edges.
    fn within(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let on = |value: f64, end: f64| if value.is_nan() { 0.0 } else { short(value.clamp(0.0, end)) };
        (on(x, self.size.0), on(y, self.size.1))
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut text = String::new();
        for point in points {
            let (x, y) = self.within(*point);
            let space = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{space}{x},{y}");
        }
        text
    }

    fn add(&self, element: std::fmt::Arguments<'_>) -> Result<(), FigureError> {
        self.svg.borrow_mut().write_fmt(element).map_err(|error| FigureError(format!("SVG: {error}")))
    }

    /// What `paint` draws, as a group of `class`; one that is not shown is for pages, which choose by the class.
    pub(super) fn layer(
        &self,
        class: &str,
        shown: bool,
        paint: impl FnOnce() -> Result<(), FigureError>,
    ) -> Result<(), FigureError> {
        let display = if shown { "" } else { " display=\"none\"" };
        self.add(format_args!("<g class=\"{}\"{display}>", escape(class)))?;
        paint()?;
        self.add(format_args!("</g>"))
    }

    /// What `paint` draws, as the mark of jobs: their places in the study.
    pub(super) fn mark(
        &self,
        jobs: &[usize],
        paint: impl FnOnce() -> Result<(), FigureError>,
    ) -> Result<(), FigureError> {
        let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        self.add(format_args!("<g class=\"j\" data-j=\"{}\">", jobs.join(" ")))?;
        paint()?;
        self.add(format_args!("</g>"))
    }

    pub(super) fn line(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Result<(), FigureError> {
        self.add(format_args!(
            "<polyline fill=\"none\" stroke=\"{ink}\" stroke-width=\"{width}\" points=\"{}\"/>",
            self.path(points)
        ))
    }

    /// Many straight lines as one path; nothing where there are none.
    pub(super) fn lines(
        &self,
        lines: impl Iterator<Item = [(f64, f64); 2]>,
        ink: Ink,
        width: f64,
    ) -> Result<(), FigureError> {
        let mut path = String::new();
        for [from, to] in lines {
            let ((x, y), (to_x, to_y)) = (self.within(from), self.within(to));
            let _ = write!(path, "M{x} {y}L{to_x} {to_y}");
        }
        if path.is_empty() {
            return Ok(());
        }
        self.add(format_args!("<path fill=\"none\" stroke=\"{ink}\" stroke-width=\"{width}\" d=\"{path}\"/>"))
    }

    pub(super) fn dashed(&self, points: &[(f64, f64)], ink: Ink, width: f64, dash: f64) -> Result<(), FigureError> {
        self.add(format_args!(
            "<polyline fill=\"none\" stroke=\"{ink}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash},{}\" \
             points=\"{}\"/>",
            dash * 0.75,
            self.path(points)
        ))
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], ink: Ink, opacity: f64) -> Result<(), FigureError> {
        self.add(format_args!("<polygon fill=\"{ink}\"{} points=\"{}\"/>", fill_opacity(opacity), self.path(points)))
    }

    pub(super) fn rectangle(&self, corner: (f64, f64), opposite: (f64, f64), ink: Ink) -> Result<(), FigureError> {
        let (corner, opposite) = (self.within(corner), self.within(opposite));
        let (x, y) = (corner.0.min(opposite.0), corner.1.min(opposite.1));
        let (width, height) = ((corner.0 - opposite.0).abs(), (corner.1 - opposite.1).abs());
        self.add(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{ink}\"/>",
            short(x),
            short(y),
            short(width),
            short(height)
        ))
    }

    pub(super) fn ring(&self, centre: (f64, f64), radius: f64, ink: Ink, width: f64) -> Result<(), FigureError> {
        let centre = self.within(centre);
        self.add(format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"none\" stroke=\"{ink}\" stroke-width=\"{width}\"/>",
            centre.0,
            centre.1,
            short(radius)
        ))
    }

    /// A small disc that others show through.
    pub(super) fn dot(&self, centre: (f64, f64), radius: f64, ink: Ink, opacity: f64) -> Result<(), FigureError> {
        let centre = self.within(centre);
        self.add(format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{ink}\"{}/>",
            centre.0,
            centre.1,
            short(radius),
            fill_opacity(opacity)
        ))
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
        let at = self.within(at);
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.add(format_args!(
            "<text x=\"{}\" y=\"{}\"{anchor} font-size=\"{size}\" fill=\"{ink}\">{}</text>",
            at.0,
            short(at.1 + HALF_LETTER * size),
            escape(text)
        ))
    }
}

fn fill_opacity(opacity: f64) -> String {
    if opacity < 1.0 { format!(" fill-opacity=\"{opacity}\"") } else { String::new() }
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
