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
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\"><title>{}</title>{}",
        width * FINE,
        height * FINE,
        crate::report::html::escape(title),
        body.replace(" font-family=\"sans-serif\"", "")
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed<E: std::error::Error + Send + Sync>(error: plotters::drawing::DrawingAreaErrorKind<E>) -> FigureError {
    FigureError(error.to_string())
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

    /// A filled marker with a thin edge of the background, so that markers that overlap stay apart: circle, square,
    /// triangle, diamond, then a triangle on its head.
    pub(super) fn marker(&self, shape: usize, centre: (f64, f64), radius: f64, ink: Ink) -> Result<(), FigureError> {
        self.shape(shape, centre, radius + 1.0, Ink::Paper)?;
        self.shape(shape, centre, radius, ink)
    }

    fn shape(&self, shape: usize, centre: (f64, f64), radius: f64, ink: Ink) -> Result<(), FigureError> {
        let around = |corners: &[(f64, f64)]| -> Vec<(f64, f64)> {
            corners.iter().map(|(x, y)| (centre.0 + x * radius, centre.1 + y * radius)).collect()
        };
        match shape % 5 {
            0 => self.area.draw(&Circle::new(fine(centre), (radius * FINE) as i32, ink.rgb().filled())).map_err(failed),
            1 => self.polygon(&around(&[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]), ink, 1.0),
            2 => self.polygon(&around(&[(0.0, -1.2), (1.1, 0.75), (-1.1, 0.75)]), ink, 1.0),
            3 => self.polygon(&around(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]), ink, 1.0),
            _ => self.polygon(&around(&[(0.0, 1.2), (1.1, -0.75), (-1.1, -0.75)]), ink, 1.0),
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

/// `text` cut to `characters`, with an ellipsis where it was longer.
pub(super) fn shorten(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}
