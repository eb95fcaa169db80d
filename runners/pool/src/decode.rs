//! Image bytes to a square of RGB pixels, the way OpenCLIP's evaluation transform does it.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, RgbImage};

use crate::resize::{Cut, resize};

/// Most pixels of an image, as many as Pillow decodes: more are an attack or a mistake.
const PIXELS_MAX: u64 = 178_956_970;
/// Most bytes of a decoded image: [`PIXELS_MAX`] of three bytes each.
const BYTES_MAX: u64 = 512 << 20;

/// Decodes a JPEG, PNG or WebP (told by its content, not its name) over white. One that is cut off is refused, as
/// Pillow does, and not filled up with grey. The error is words for people.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the image is empty".into());
    }
    let format = image::guess_format(bytes).ok();
    let whole = match format {
        Some(ImageFormat::Jpeg) => whole_jpeg(bytes),
        Some(ImageFormat::WebP) => whole_riff(bytes),
        // The decoder itself refuses to go without a row.
        Some(ImageFormat::Png) => true,
        _ => return Err("not a JPEG, PNG or WebP image".into()),
    };
    if !whole {
        return Err(format!("the image is cut off after {} bytes", bytes.len()));
    }
    let format = format.expect("told above");
    let words = |error: image::ImageError| error.to_string();
    let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(words)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX || decoder.total_bytes() > BYTES_MAX {
        return Err(format!("its {width} x {height} pixels are too many: at most {PIXELS_MAX}, and 512 MiB decoded"));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(words)?;
    if image.width() == 0 || image.height() == 0 {
        return Err("the image has no pixels".into());
    }
    Ok(over_white(image))
}

/// Whether a JPEG goes on to its end mark. Decoders fill up what is missing with grey.
fn whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Between segments lie coded pixels, in which FF 00 stands for FF, and restart marks.
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        at += found + 1;
        match bytes.get(at) {
            Some(0xd9) => return true,
            // FF before a mark fills up.
            Some(0xff) => (),
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            None => return false,
        }
    }
    false
}

/// Whether a WebP has as many bytes as it says.
fn whole_riff(bytes: &[u8]) -> bool {
    let said = bytes.get(4..8).and_then(|said| said.try_into().ok()).map(u32::from_le_bytes);
    said.is_some_and(|said| bytes.len() as u64 >= u64::from(said) + 8)
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
    let cut = |side: u32| {
        let scaled = u64::from(side) * u64::from(size) / shorter;
        // torchvision rounds half to even here; the crop moves by at most one pixel.
        let start = ((scaled - u64::from(size)) as f64 / 2.0).round_ties_even() as u64;
        Cut { side, scaled, start, length: size }
    };
    resize(&image, cut(width), cut(height))
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
        // Resized as a whole this would have 13,440,000 rows.
        let line = RgbImage::from_fn(1, 60_000, |_, y| image::Rgb([if y < 30_000 { 0 } else { 255 }; 3]));
        let square = to_square(line, 224);
        // From the centre of one of the two middle pixels to that of the other.
        assert!(square[0] < 3 && square[224 * 224 * 3 - 1] > 252, "{} {}", square[0], square[224 * 224 * 3 - 1]);
    }

    #[test]
    fn bytes_that_are_no_image_are_refused_in_words() {
        assert_eq!(decode(b"").unwrap_err(), "the image is empty");
        assert_eq!(decode(b"<html>404</html>").unwrap_err(), "not a JPEG, PNG or WebP image");
    }

    /// Noise, so that every row costs bytes.
    fn noise() -> RgbImage {
        RgbImage::from_fn(40, 40, |x, y| {
            let [r, g, b, _] = (x * 40 + y).wrapping_mul(2_654_435_761).to_be_bytes();
            image::Rgb([r, g, b])
        })
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        noise().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_image_cut_off_anywhere_is_refused_or_whole() {
        let progressive = include_bytes!("../tests/data/progressive.jpg").to_vec();
        let lossy = include_bytes!("../tests/data/lossy.webp").to_vec();
        let all = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP].map(encoded);
        for (at, whole) in all.into_iter().chain([progressive, lossy]).enumerate() {
            let pixels = decode(&whole).unwrap();
            let good: Vec<usize> = (0..whole.len())
                .filter(|&cut| {
                    decode(&whole[..cut]).is_ok_and(|image| {
                        assert_eq!(image, pixels, "file {at} cut at {cut}");
                        true
                    })
                })
                .collect();
            // Behind a PNG's last row come a checksum and an end mark, without which Pillow does, too.
            assert!(if at == 1 { good.len() <= 20 } else { good.is_empty() }, "file {at}: {good:?} of {}", whole.len());
            // More behind the end does no harm.
            assert_eq!(decode(&[&whole[..], &[0; 3]].concat()).unwrap(), pixels);
        }
    }

    #[test]
    fn too_many_pixels_are_refused_before_they_are_decoded() {
        let mut bytes = png(&RgbImage::new(8, 8).into());
        bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let error = decode(&bytes).unwrap_err();
        assert!(error.starts_with("its 16384 x 16384 pixels are too many"), "{error}");
    }
}
