//! What part of a picture becomes the square that a model sees.

use protocol::{Interpolation, ResizeMode};

use crate::cache::Form;
use crate::resize::{Cut, resize};

/// A rectangle of a picture, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Columns left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A decoded picture: rows of RGB pixels, uint8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: &'a [u8],
}

impl<'a> From<&'a image::RgbImage> for Picture<'a> {
    fn from(image: &'a image::RgbImage) -> Self {
        Picture { width: image.width(), height: image.height(), pixels: image.as_raw() }
    }
}

/// OpenCLIP's evaluation transform: resizing (with antialiasing) and cropping or padding. Returns height x width x RGB.
pub(crate) fn square(picture: Picture, form: Form) -> Vec<u8> {
    let (Picture { width, height, pixels }, size) = (picture, form.image_size);
    if (width, height) == (size, size) {
        return pixels.to_vec();
    }
    match form.resize_mode {
        ResizeMode::Shortest => shortest(picture, size, form.interpolation),
        ResizeMode::Longest => longest(picture, size, form.interpolation),
        ResizeMode::Squash => {
            resize(pixels, width, Cut::whole(width, size), Cut::whole(height, size), form.interpolation)
        }
    }
}

/// The shorter side becomes `size`, and the centre is kept: torchvision's `Resize(size)` and `CenterCrop(size)`.
fn shortest(picture: Picture, size: u32, interpolation: Interpolation) -> Vec<u8> {
    let Picture { width, height, pixels } = picture;
    let shorter = u64::from(width.min(height));
    let cut = |side: u32| {
        let scaled = u64::from(side) * u64::from(size) / shorter;
        // torchvision rounds half to even here; the crop moves by at most one pixel.
        let start = ((scaled - u64::from(size)) as f64 / 2.0).round_ties_even() as u64;
        Cut { from: 0, side, scaled, start, length: size }
    };
    resize(pixels, width, cut(width), cut(height), interpolation)
}

/// The longer side becomes `size`, and the picture lies in the middle of a black square: OpenCLIP's
/// `ResizeKeepRatio(size, longest=1)` and `CenterCropOrPad(size)`.
fn longest(picture: Picture, size: u32, interpolation: Interpolation) -> Vec<u8> {
    let Picture { width, height, pixels } = picture;
    let ratio = f64::from(width.max(height)) / f64::from(size);
    // A line of pixels keeps one; Pillow refuses to make none of it.
    let scaled = |side: u32| (f64::from(side) / ratio).round_ties_even().clamp(1.0, f64::from(size)) as u32;
    let (wide, high) = (scaled(width), scaled(height));
    let inside = resize(pixels, width, Cut::whole(width, wide), Cut::whole(height, high), interpolation);
    let (left, top) = (((size - wide) / 2) as usize, ((size - high) / 2) as usize);
    let line = 3 * size as usize;
    let mut out = vec![0; line * size as usize];
    for (row, pixels) in inside.chunks_exact(3 * wide as usize).enumerate() {
        out[(top + row) * line + 3 * left..][..pixels.len()].copy_from_slice(pixels);
    }
    out
}

/// Stretches a part of the picture to the square, bicubic with antialiasing: torchvision's `resized_crop`. What lies
/// outside of the crop does not bleed in.
pub(crate) fn stretched(picture: Picture, crop: Crop, size: u32) -> Vec<u8> {
    let Crop { left, top, width, height } = crop;
    let inside =
        |from: u32, length: u32, side: u32| length > 0 && from.checked_add(length).is_some_and(|end| end <= side);
    assert!(
        inside(left, width, picture.width) && inside(top, height, picture.height),
        "{crop:?} of {} x {} pixels",
        picture.width,
        picture.height
    );
    let (across, down) = (Cut { from: left, ..Cut::whole(width, size) }, Cut { from: top, ..Cut::whole(height, size) });
    resize(picture.pixels, picture.width, across, down, Interpolation::Bicubic)
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn square(picture: Picture, image_size: u32) -> Vec<u8> {
        let (keep, alpha) = Default::default();
        let (interpolation, resize_mode) = Default::default();
        super::square(picture, Form { image_size, keep, alpha, interpolation, resize_mode })
    }

    #[test]
    fn a_packed_square_passes_untouched() {
        let pixels: Vec<u8> = (0..48).collect();
        assert_eq!(square(Picture { width: 4, height: 4, pixels: &pixels }, 4), pixels);
    }

    #[test]
    fn the_centre_of_a_wide_image_is_kept() {
        // Left and right thirds black, the centre white.
        let image = RgbImage::from_fn(96, 32, |x, _| image::Rgb(if (32..64).contains(&x) { [255; 3] } else { [0; 3] }));
        assert!(square((&image).into(), 32).iter().all(|&pixel| pixel == 255));
        let tall = RgbImage::from_pixel(7, 100, image::Rgb([9, 8, 7]));
        assert_eq!(square((&tall).into(), 16), [9, 8, 7].repeat(16 * 16));
        // Resized as a whole this would have 13,440,000 rows.
        let line = RgbImage::from_fn(1, 60_000, |_, y| image::Rgb([if y < 30_000 { 0 } else { 255 }; 3]));
        let square = square((&line).into(), 224);
        // From the centre of one of the two middle pixels to that of the other.
        assert!(square[0] < 3 && square[224 * 224 * 3 - 1] > 252, "{} {}", square[0], square[224 * 224 * 3 - 1]);
    }

    #[test]
    fn a_crop_sees_nothing_outside_of_it() {
        let image = RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb(if (10..25).contains(&x) && (5..25).contains(&y) { [200, 100, 50] } else { [0; 3] })
        });
        let crop = Crop { left: 10, top: 5, width: 15, height: 20 };
        for size in [7, 32] {
            assert_eq!(stretched((&image).into(), crop, size), [200, 100, 50].repeat((size * size) as usize));
        }
        let all = Crop { left: 0, top: 0, width: 40, height: 30 };
        assert_ne!(stretched((&image).into(), all, 8), square((&image).into(), 8));
    }
}
