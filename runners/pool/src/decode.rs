//! Image bytes to RGB pixels as OpenCLIP gets them from Pillow's `open` and `convert("RGB")`: an orientation in EXIF is
//! ignored, colour profiles are, too, and of an animation the first picture is taken.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, RgbImage};
use protocol::Alpha;

/// Most pixels of an image, as many as Pillow decodes: more are an attack or a mistake.
const PIXELS_MAX: u64 = 178_956_970;
/// Most bytes of a decoded image: [`PIXELS_MAX`] of three bytes each.
const BYTES_MAX: u64 = 512 << 20;

/// Decodes a JPEG, PNG or WebP (told by its content, not its name). One that is cut off is refused, as Pillow does, and
/// not filled up with grey. The error is words for people.
pub(crate) fn decode(bytes: &[u8], alpha: Alpha) -> Result<RgbImage, String> {
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
    Ok(to_rgb(image, alpha))
}

/// Whether a JPEG goes on to its end mark. Decoders fill up what is missing with grey.
fn whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Between segments lie coded pixels, in which FF 00 stands for FF, and restart marks.
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(0xff, rest)) {
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

/// Of 16 bits the upper 8 are kept, as Pillow does for colours; its greys above 255 all become white, ours don't.
fn to_rgb(image: DynamicImage, alpha: Alpha) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let upper = |values: &[u16]| values.iter().map(|value| (value >> 8) as u8).collect::<Vec<u8>>();
    let image = match image {
        DynamicImage::ImageLuma16(grey) => RawImage::Grey(upper(&grey)),
        DynamicImage::ImageLumaA16(grey) => RawImage::GreyAlpha(upper(&grey)),
        DynamicImage::ImageRgb16(rgb) => RawImage::Rgb(upper(&rgb)),
        DynamicImage::ImageRgba16(rgba) => RawImage::Rgba(upper(&rgba)),
        DynamicImage::ImageLuma8(grey) => RawImage::Grey(grey.into_raw()),
        DynamicImage::ImageLumaA8(grey) => RawImage::GreyAlpha(grey.into_raw()),
        DynamicImage::ImageRgba8(rgba) => RawImage::Rgba(rgba.into_raw()),
        other => RawImage::Rgb(other.into_rgb8().into_raw()),
    };
    let mix = |channel: u8, opacity: u8| match alpha {
        Alpha::Drop => channel,
        Alpha::White => {
            let opacity = u32::from(opacity);
            ((u32::from(channel) * opacity + 255 * (255 - opacity) + 127) / 255) as u8
        }
    };
    let pixels = match image {
        RawImage::Rgb(rgb) => rgb,
        RawImage::Grey(grey) => grey.into_iter().flat_map(|value| [value; 3]).collect(),
        RawImage::GreyAlpha(pairs) => pairs.as_chunks().0.iter().flat_map(|&[grey, a]| [mix(grey, a); 3]).collect(),
        RawImage::Rgba(rgba) => {
            rgba.as_chunks().0.iter().flat_map(|&[r, g, b, a]| [mix(r, a), mix(g, a), mix(b, a)]).collect()
        }
    };
    RgbImage::from_raw(width, height, pixels).expect("three bytes a pixel")
}

/// Channels of 8 bits.
enum RawImage {
    Grey(Vec<u8>),
    GreyAlpha(Vec<u8>),
    Rgb(Vec<u8>),
    Rgba(Vec<u8>),
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
    fn an_alpha_channel_is_dropped_or_laid_on_white() {
        let image = image::RgbaImage::from_raw(2, 1, vec![10, 20, 30, 0, 0, 0, 0, 128]).unwrap();
        let bytes = png(&image.into());
        assert_eq!(decode(&bytes, Alpha::White).unwrap().into_raw(), [255, 255, 255, 127, 127, 127]);
        assert_eq!(decode(&bytes, Alpha::Drop).unwrap().into_raw(), [10, 20, 30, 0, 0, 0]);
    }

    #[test]
    fn bytes_that_are_no_image_are_refused_in_words() {
        assert_eq!(decode(b"", Alpha::Drop).unwrap_err(), "the image is empty");
        assert_eq!(decode(b"<html>404</html>", Alpha::Drop).unwrap_err(), "not a JPEG, PNG or WebP image");
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
            let pixels = decode(&whole, Alpha::Drop).unwrap();
            let good: Vec<usize> = (0..whole.len())
                .filter(|&cut| {
                    decode(&whole[..cut], Alpha::Drop).is_ok_and(|image| {
                        assert_eq!(image, pixels, "file {at} cut at {cut}");
                        true
                    })
                })
                .collect();
            // Behind a PNG's last row come a checksum and an end mark, without which Pillow does, too.
            assert!(if at == 1 { good.len() <= 20 } else { good.is_empty() }, "file {at}: {good:?} of {}", whole.len());
            // More behind the end does no harm.
            assert_eq!(decode(&[&whole[..], &[0; 3]].concat(), Alpha::Drop).unwrap(), pixels);
        }
    }

    #[test]
    fn too_many_pixels_are_refused_before_they_are_decoded() {
        let mut bytes = png(&RgbImage::new(8, 8).into());
        bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let error = decode(&bytes, Alpha::Drop).unwrap_err();
        assert!(error.starts_with("its 16384 x 16384 pixels are too many"), "{error}");
    }
}
