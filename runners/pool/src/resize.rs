//! Bicubic resampling of the part of an image that a crop leaves, and of nothing else: an image of 1 x 60,000 pixels
//! costs what its middle costs.
//!
//! Every value is computed as `image::imageops::resize` computes it (a = -0.5, the kernel widened when shrinking,
//! columns first, `f32`), so that pixels are the same bit for bit as those of resizing the whole and cropping then; a
//! test compares the two.

use image::RgbImage;

/// Half the kernel's width.
const SUPPORT: f32 = 2.0;

/// Part of one side of the resized image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Length of the side before.
    pub(crate) side: u32,
    /// Length of the side after, as if nothing were cut.
    pub(crate) scaled: u64,
    /// First position that is wanted.
    pub(crate) start: u64,
    /// Positions that are wanted.
    pub(crate) length: u32,
}

/// Weights of the source's positions from `first` on for one position of the result.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// The part of `image` that `across` and `down` cut out of the resized one: height x width x RGB.
pub(crate) fn resize(image: &RgbImage, across: Cut, down: Cut) -> Vec<u8> {
    let (columns, rows) = (taps(across), taps(down));
    // Columns of the source that any wanted column of the result looks at.
    let left = columns.iter().map(|taps| taps.first).min().unwrap_or_default();
    let right = columns.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or_default();
    let width = image.width() as usize;
    let source = image.as_raw();

    let mut out = Vec::with_capacity(rows.len() * columns.len() * 3);
    let mut row = vec![0.0_f32; (right - left) * 3];
    for Taps { first, weights } in &rows {
        row.fill(0.0);
        for (y, weight) in weights.iter().enumerate() {
            let start = (first + y) * width;
            let pixels = &source[(start + left) * 3..(start + right) * 3];
            for (sum, &value) in row.iter_mut().zip(pixels) {
                *sum += f32::from(value) * weight;
            }
        }
        for Taps { first, weights } in &columns {
            let pixels = row[(first - left) * 3..].chunks_exact(3);
            let mut sum = [0.0_f32; 3];
            for (pixel, weight) in pixels.zip(weights) {
                for channel in 0..3 {
                    sum[channel] += pixel[channel] * weight;
                }
            }
            out.extend(sum.map(|value| value.clamp(0.0, 255.0).round() as u8));
        }
    }
    out
}

fn taps(cut: Cut) -> Vec<Taps> {
    let ratio = cut.side as f32 / cut.scaled as f32;
    let wide = if ratio < 1.0 { 1.0 } else { ratio };
    let reach = SUPPORT * wide;
    let positions = cut.start..cut.start + u64::from(cut.length);
    let one = |position: u64| {
        let centre = (position as f32 + 0.5) * ratio;
        let last = i64::from(cut.side) - 1;
        let first = ((centre - reach).floor() as i64).clamp(0, last);
        let end = ((centre + reach).ceil() as i64).clamp(first + 1, last + 1);
        // A pixel's centre is its position here.
        let centre = centre - 0.5;
        let mut weights: Vec<f32> = (first..end).map(|at| kernel((at as f32 - centre) / wide)).collect();
        let sum: f32 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= sum;
        }
        Taps { first: first as usize, weights }
    };
    positions.map(one).collect()
}

/// Catmull and Rom's cubic.
fn kernel(x: f32) -> f32 {
    let x = x.abs();
    let six_fold = if x < 1.0 {
        9.0 * x.powi(3) + -15.0 * x.powi(2) + 6.0
    } else if x < 2.0 {
        -3.0 * x.powi(3) + 15.0 * x.powi(2) + -24.0 * x + 12.0
    } else {
        0.0
    };
    six_fold / 6.0
}

#[cfg(test)]
mod tests {
    use image::imageops;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 2000 }))]

        #[test]
        fn a_part_is_the_same_as_the_whole_cropped(
            (width, height) in (1_u32..90, 1_u32..90),
            (wide, high) in (1_u32..120, 1_u32..120),
            seed in any::<u32>(),
            (x, y) in (0.0..1.0, 0.0..1.0),
        ) {
            let noise = |x: u32, y: u32| (x * 7919 + y * 104_729).wrapping_mul(seed | 1).to_be_bytes();
            let image = RgbImage::from_fn(width, height, |x, y| {
                let [r, g, b, _] = noise(x, y);
                image::Rgb([r, g, b])
            });
            prop_assume!((wide, high) != (width, height));
            let whole = imageops::resize(&image, wide, high, imageops::FilterType::CatmullRom);
            let part = |side: u32, scaled: u32, at: f64| {
                let start = (f64::from(scaled - 1) * at) as u32;
                Cut { side, scaled: scaled.into(), start: start.into(), length: scaled - start }
            };
            let (across, down) = (part(width, wide, x), part(height, high, y));
            let expected =
                imageops::crop_imm(&whole, across.start as u32, down.start as u32, across.length, down.length).to_image();
            prop_assert_eq!(resize(&image, across, down), expected.into_raw());
        }
    }
}
