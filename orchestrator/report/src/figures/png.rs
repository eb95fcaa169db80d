//! SVG to PNG, with a font of its own: machines without fonts draw the same pixels.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::FigureError;

/// Arimo, which has the widths of Helvetica and Arial: Latin, Greek, Cyrillic and mathematical signs of it. See NOTICE.
const FONT: &[u8] = include_bytes!("font/arimo.ttf");
const FAMILY: &str = "Arimo";
/// Pixels of the picture for one of the SVG.
const SCALE: f32 = 2.0;
/// A picture of more pixels than this on a side is refused.
const SIDE_MOST: f32 = 20_000.0;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family(FAMILY);
    Arc::new(fonts)
});

/// PNG of an SVG of ours, at twice its size.
pub fn of_svg(svg: &str) -> Result<Vec<u8>, FigureError> {
    let tree = tree(svg)?;
    let (width, height) = (tree.size().width() * SCALE, tree.size().height() * SCALE);
    if width > SIDE_MOST || height > SIDE_MOST {
        return Err(FigureError(format!("a picture of {width} x {height} pixels is too large, at most {SIDE_MOST}")));
    }
    let mut pixels = Pixmap::new(width.ceil() as u32, height.ceil() as u32)
        .ok_or_else(|| FigureError(format!("no memory for {width} x {height} pixels")))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| FigureError(format!("PNG: {error}")))
}

/// The SVG as shapes and laid-out text.
pub(super) fn tree(svg: &str) -> Result<Tree, FigureError> {
    let options = Options { font_family: FAMILY.to_owned(), fontdb: Arc::clone(&FONTS), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|error| FigureError(format!("SVG: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_drawn_without_fonts_of_the_machine() {
        let page = |words: &str| {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60\" height=\"20\" font-family=\"Helvetica, \
                 sans-serif\"><text x=\"2\" y=\"15\">{words}</text></svg>"
            );
            of_svg(&svg).unwrap()
        };
        let (empty, words) = (page(""), page("α C⁻⁰·¹¹¹"));
        assert_ne!(empty, words, "no letters");
        assert_eq!(words, page("α C⁻⁰·¹¹¹"));
        // Width and height of the PNG's header.
        assert_eq!((&words[16..20], &words[20..24]), (&[0, 0, 0, 120][..], &[0, 0, 0, 40][..]));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(of_svg("<p>").unwrap_err().to_string().starts_with("SVG: "));
        let huge = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60000\" height=\"20\"/>";
        assert!(of_svg(huge).unwrap_err().to_string().contains("at most 20000"));
    }
}
