//! Legends: a column beside a plot, or rows above it.

use super::FigureError;
use super::canvas::{Anchor, Canvas, fit, text_width, wrap};
use super::theme::Ink;

const INDENT: f64 = 28.0;
const SIZE: f64 = 13.0;
const LINE: f64 = 17.0;
/// From the end of one entry of a row to the start of the next.
const BETWEEN: f64 = 22.0;

/// What stands before an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sign {
    Blank,
    Line(Ink),
    /// Length of the dashes in pixels.
    Dashed(Ink, f64),
    /// A line in its band.
    Band(Ink),
    Area(Ink, f64),
    Marker(usize, f64, Ink),
    Open(usize, f64, Ink),
    Faint(usize, f64),
    Whisker(Ink),
}

/// An entry, before it has a place.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) sign: Sign,
    pub(super) text: String,
}

/// An entry with a sign.
pub(super) fn entry(sign: Sign, text: impl Into<String>) -> Entry {
    Entry { sign, text: text.into() }
}

/// Draws a sign around the middle of its 20 pixels.
fn sign(canvas: &Canvas, (left, y): (f64, f64), sign: Sign) -> Result<(), FigureError> {
    let (middle, right) = ((left + 10.0, y), left + 20.0);
    let area = |ink, opacity| {
        canvas.polygon(&[(left, y - 6.0), (right, y - 6.0), (right, y + 6.0), (left, y + 6.0)], ink, opacity)
    };
    match sign {
        Sign::Blank => Ok(()),
        Sign::Line(ink) => canvas.line(&[(left, y), (right, y)], ink, 2.25),
        Sign::Dashed(ink, dash) => canvas.dashed(&[(left, y), (right, y)], ink, 2.0, dash),
        Sign::Band(ink) => {
            area(ink, 0.16)?;
            canvas.line(&[(left, y), (right, y)], ink, 2.25)
        }
        Sign::Area(ink, opacity) => area(ink, opacity),
        Sign::Marker(shape, radius, ink) => canvas.marker(shape, middle, radius, ink),
        Sign::Open(shape, radius, ink) => canvas.open_marker(shape, middle, radius, ink),
        Sign::Faint(shape, radius) => canvas.faint_marker(shape, middle, radius),
        Sign::Whisker(ink) => {
            canvas.line(&[(left, y), (right, y)], ink, 1.75)?;
            canvas.marker(0, middle, 4.0, ink)
        }
    }
}

/// A column of entries under headings, filled from the top.
#[derive(Debug)]
pub(super) struct Column {
    width: f64,
    rows: Vec<Row>,
    height: f64,
}

#[derive(Debug)]
struct Row {
    y: f64,
    sign: Sign,
    indent: f64,
    text: String,
    ink: Ink,
}

impl Column {
    pub(super) fn new(width: f64) -> Column {
        Column { width, rows: Vec::new(), height: 0.0 }
    }

    /// A heading, with room above it.
    pub(super) fn head(&mut self, text: &str) {
        self.gap();
        self.add(Sign::Blank, 0.0, text, Ink::Muted);
        self.height += 2.0;
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        self.add(entry.sign, INDENT, &entry.text, Ink::Text);
        self.height += 2.0;
    }

    /// More words below an entry.
    pub(super) fn more(&mut self, text: &str, ink: Ink) {
        self.add(Sign::Blank, INDENT, text, ink);
    }

    /// Words of the full width.
    pub(super) fn note(&mut self, text: &str) {
        self.add(Sign::Blank, 0.0, text, Ink::Muted);
    }

    pub(super) fn gap(&mut self) {
        if !self.rows.is_empty() {
            self.height += 9.0;
        }
    }

    pub(super) fn height(&self) -> f64 {
        self.height
    }

    fn add(&mut self, sign: Sign, indent: f64, text: &str, ink: Ink) {
        let mut sign = sign;
        for line in wrap(text, SIZE, self.width - indent) {
            self.rows.push(Row { y: self.height, sign, indent, text: line, ink });
            self.height += LINE;
            sign = Sign::Blank;
        }
    }

    /// With the middle of its first line at `top`.
    pub(super) fn draw(&self, canvas: &Canvas, left: f64, top: f64) -> Result<(), FigureError> {
        for row in &self.rows {
            sign(canvas, (left, top + row.y), row.sign)?;
            canvas.text((left + row.indent, top + row.y), &row.text, SIZE, row.ink, Anchor::Start)?;
        }
        Ok(())
    }
}

/// Entries side by side, in as many rows as they need.
#[derive(Debug)]
pub(super) struct Rows {
    placed: Vec<(f64, f64, Entry)>,
    /// Of all rows.
    pub(super) height: f64,
}

impl Rows {
    pub(super) fn new(entries: Vec<Entry>, width: f64) -> Rows {
        let (mut x, mut y) = (0.0, 0.0);
        let mut placed = Vec::new();
        for mut entry in entries {
            let indent = if entry.sign == Sign::Blank { 0.0 } else { INDENT };
            entry.text = fit(&entry.text, SIZE, width - indent);
            let wide = indent + text_width(&entry.text, SIZE);
            if x > 0.0 && x + wide > width {
                (x, y) = (0.0, y + LINE + 4.0);
            }
            placed.push((x, y, entry));
            x += wide + BETWEEN;
        }
        let height = if placed.is_empty() { 0.0 } else { y + LINE + 4.0 };
        Rows { placed, height }
    }

    /// With the middle of its first row at `top`.
    pub(super) fn draw(&self, canvas: &Canvas, left: f64, top: f64) -> Result<(), FigureError> {
        for (x, y, entry) in &self.placed {
            sign(canvas, (left + x, top + y), entry.sign)?;
            let indent = if entry.sign == Sign::Blank { 0.0 } else { INDENT };
            canvas.text((left + x + indent, top + y), &entry.text, SIZE, Ink::Text, Anchor::Start)?;
        }
        Ok(())
    }
}
