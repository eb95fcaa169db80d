//! SVG as a backend of plotters. Its own has neither groups nor fractions of a pixel, both of which pages need: marks
//! are groups that name their jobs, choices of points are groups of which one is shown.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::rc::Rc;

use plotters::prelude::DrawingBackend;
use plotters_backend::text_anchor::HPos;
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};

use crate::text::escape;

/// plotters' coordinates and widths are whole numbers: here tenths of a pixel.
pub(super) const FINE: f64 = 10.0;

/// Elements in the order in which they are drawn, in pixels.
pub(super) struct Svg {
    /// Width and height, in tenths of a pixel.
    pub(super) size: (u32, u32),
    /// Shared with the canvas, which opens and closes groups.
    pub(super) written: Rc<RefCell<String>>,
}

type Drawn = Result<(), DrawingErrorKind<fmt::Error>>;

/// Pixels as they are written: `12.3`, `12`.
fn px(tenths: impl Into<f64>) -> f64 {
    tenths.into() / FINE
}

fn hex(BackendColor { rgb: (r, g, b), .. }: BackendColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

fn filled(color: BackendColor) -> String {
    let opacity = if color.alpha < 1.0 { format!(" fill-opacity=\"{}\"", color.alpha) } else { String::new() };
    format!("fill=\"{}\"{opacity}", hex(color))
}

fn paint<S: BackendStyle>(style: &S, fill: bool) -> String {
    if fill {
        return filled(style.color());
    }
    format!("fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"", hex(style.color()), px(style.stroke_width()))
}

fn points(path: impl IntoIterator<Item = BackendCoord>) -> String {
    let points: Vec<String> = path.into_iter().map(|(x, y)| format!("{},{}", px(x), px(y))).collect();
    points.join(" ")
}

impl Svg {
    fn add(&self, element: fmt::Arguments<'_>) -> Drawn {
        self.written.borrow_mut().write_fmt(element).map_err(DrawingErrorKind::DrawingError)
    }
}

impl DrawingBackend for Svg {
    type ErrorType = fmt::Error;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.draw_rect((x, y), (x + 1, y + 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, (x, y): BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Drawn {
        self.add(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {}/>",
            px(x.min(to.0)),
            px(y.min(to.1)),
            px((to.0 - x).abs()),
            px((to.1 - y).abs()),
            paint(style, fill)
        ))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        self.add(format_args!("<polyline {} points=\"{}\"/>", paint(style, false), points(path)))
    }

    fn draw_circle<S: BackendStyle>(&mut self, (x, y): BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn {
        let paint = paint(style, fill);
        self.add(format_args!("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" {paint}/>", px(x), px(y), px(radius)))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, corners: I, style: &S) -> Drawn {
        self.add(format_args!("<polygon {} points=\"{}\"/>", filled(style.color()), points(corners)))
    }

    /// The point is on the text's base line. The size is in pixels already.
    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn {
        let anchor = match style.anchor().h_pos {
            HPos::Left => "",
            HPos::Center => " text-anchor=\"middle\"",
            HPos::Right => " text-anchor=\"end\"",
        };
        self.add(format_args!(
            "<text x=\"{}\" y=\"{}\"{anchor} font-size=\"{}\" fill=\"{}\">{}</text>",
            px(x),
            px(y),
            style.size(),
            hex(style.color()),
            escape(text)
        ))
    }
}
