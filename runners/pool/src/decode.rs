//! Image bytes to a square of RGB pixels, the way OpenCLIP's evaluation transform does it.

use image::{DynamicImage, ImageReader, RgbImage, imageops};
use std::io::Cursor;

/// Decodes a JPEG, PNG or WebP (told by its content, not its name) over white. The error is words for people.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the image is empty".into());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("not a JPEG, PNG or WebP image".into());
    }
    let image = reader.decode().map_err(|error| error.to_string())?;
    if image.width() == 0 || image.height() == 0 {
        return Err("the image has no pixels".into());
    }
    Ok(over_white(image))
}

/// Drops the alpha channel by laying the picture on white paper.
fn over_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        let blend = |channel: u8| {
            let alpha = u32::from(alpha);
            ((u32::from(channel) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        image::Rgb([blend(red), blend(green), blend(blue)])
    })
}

/// Resizes the shorter side to `size` (bicubic with antialiasing, a = -0.5, as Pillow) and crops the centre:
/// torchvision's `Resize(size)` and `CenterCrop(size)`. Returns height x width x RGB.
pub(crate) fn to_square(image: RgbImage, size: u32) -> Vec<u8> {
    let (width, height) = image.dimensions();
    if (width, height) == (size, size) {
        return image.into_raw();
    }
    let shorter = u64::from(width.min(height));
    let scaled = |side: u32| (u64::from(side) * u64::from(size) / shorter) as u32;
    let resized = imageops::resize(&image, scaled(width), scaled(height), imageops::FilterType::CatmullRom);
    // torchvision rounds half to even here; the crop moves by at most one pixel.
    let margin = |side: u32| (f64::from(side - size) / 2.0).round_ties_even() as u32;
    let (left, top) = (margin(resized.width()), margin(resized.height()));
    imageops::crop_imm(&resized, left, top, size, size).to_image().into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn clear_pixels_become_white_and_half_clear_ones_mix() {
        let image = image::RgbaImage::from_raw(2, 1, vec![10, 20, 30, 0, 0, 0, 0, 128]).unwrap();
        assert_eq!(decode(&png(&image.into())).unwrap().into_raw(), [255, 255, 255, 127, 127, 127]);
    }

    #[test]
    fn a_packed_square_passes_untouched() {
        let pixels: Vec<u8> = (0..48).collect();
        let image = RgbImage::from_raw(4, 4, pixels.clone()).unwrap();
        assert_eq!(to_square(image, 4), pixels);
    }

    #[test]
    fn the_centre_of_a_wide_image_is_kept() {
        // Left and right thirds black, the centre white.
        let image = RgbImage::from_fn(96, 32, |x, _| image::Rgb(if (32..64).contains(&x) { [255; 3] } else { [0; 3] }));
        assert!(to_square(image, 32).iter().all(|&pixel| pixel == 255));
        let tall = RgbImage::from_pixel(7, 100, image::Rgb([9, 8, 7]));
        assert_eq!(to_square(tall, 16).len(), 16 * 16 * 3);
    }

    #[test]
    fn bytes_that_are_no_image_are_refused_in_words() {
        assert_eq!(decode(b"").unwrap_err(), "the image is empty");
        assert_eq!(decode(b"<html>404</html>").unwrap_err(), "not a JPEG, PNG or WebP image");
        let whole = png(&RgbImage::new(8, 8).into());
        assert!(decode(&whole[..whole.len() / 2]).is_err());
    }
}
