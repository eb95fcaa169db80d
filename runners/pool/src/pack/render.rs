//! SVG text to square RGB pixels on white paper.

use resvg::{tiny_skia, usvg};

/// Draws `svg`, scaled to fit and centred, `size` x `size` pixels, RGB. `Ok(None)` for a picture that leaves the paper
/// white.
pub(super) fn render(svg: &str, size: u32) -> Result<Option<Vec<u8>>, usvg::Error> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default())?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let side = size as f32;
    let scale = side / width.max(height);
    let transform = tiny_skia::Transform::from_scale(scale, scale)
        .post_translate((side - width * scale) / 2.0, (side - height * scale) / 2.0);
    let mut paper = tiny_skia::Pixmap::new(size, size).expect("recipes give 8 to 1024 pixels");
    paper.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, transform, &mut paper.as_mut());
    // The paper is opaque, so premultiplied and plain colours are the same.
    let pixels: Vec<u8> = paper.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    Ok(pixels.iter().any(|&value| value != 255).then_some(pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(view_box: &str, size: &str, body: &str) -> String {
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{view_box}\" {size}>{body}</svg>")
    }

    #[test]
    fn current_colour_is_black_on_white() {
        let text = svg("0 0 8 8", "", "<path fill=\"currentColor\" d=\"M0 0h4v8H0z\"/>");
        let pixels = render(&text, 8).unwrap().unwrap();
        assert_eq!(pixels[..3], [0, 0, 0]);
        assert_eq!(pixels[7 * 3..8 * 3], [255, 255, 255]);
    }

    #[test]
    fn a_wide_drawing_is_centred() {
        let text = svg("0 0 16 8", "width=\"16\" height=\"8\"", "<path d=\"M0 0h16v8H0z\"/>");
        let pixels = render(&text, 16).unwrap().unwrap();
        let row = |y: usize| pixels[y * 16 * 3];
        assert_eq!((row(0), row(3), row(4), row(11), row(12)), (255, 255, 0, 0, 255));
    }

    #[test]
    fn white_on_white_is_blank_and_broken_markup_is_an_error() {
        let text = svg("0 0 8 8", "", "<path fill=\"#fff\" d=\"M0 0h4v8H0z\"/>");
        assert!(render(&text, 8).unwrap().is_none());
        assert!(render("<svg", 8).is_err());
    }
}
