//! Near-duplicates in pixels: how close each test image comes to any training image.
//!
//! Icon sets copy each other, so a held-out set is no proof of unseen drawings. The distance of two images a and b, as ink on white paper
//! (255 - pixel), is ||a - b||^2 / max(||a||^2, ||b||^2): 0 for equal, 1 for a drawing against almost blank paper.
//!
//! Most pairs are ruled out without a look at their pixels: block means are an orthogonal projection, so the distance of
//! the projected images is a lower bound, and so is the difference of the norms.

use rayon::prelude::*;

/// Blocks along each side of the projection.
const BLOCKS: usize = 8;

struct Ink<'a> {
    pixels: &'a [u8],
    norm: f32,
    /// Block means, scaled so that squared distances bound those of the images from below.
    blocks: [f32; BLOCKS * BLOCKS],
}

impl<'a> Ink<'a> {
    fn new(pixels: &'a [u8], side: usize) -> Ink<'a> {
        let ink = |value: u8| f32::from(255 - value);
        let norm = pixels.iter().map(|&value| ink(value) * ink(value)).sum::<f32>().sqrt();
        let block = side / BLOCKS;
        let mut blocks = [0.0; BLOCKS * BLOCKS];
        for (index, pixel) in pixels.chunks_exact(3).enumerate() {
            let (x, y) = (index % side, index / side);
            blocks[y / block * BLOCKS + x / block] += pixel.iter().map(|&value| ink(value)).sum::<f32>();
        }
        let scale = 1.0 / (3.0 * (block * block) as f32).sqrt();
        for sum in &mut blocks {
            *sum *= scale;
        }
        Ink { pixels, norm, blocks }
    }
}

/// For each of `test` its distance to the nearest of `train`, or `None` if that is above `cap` (which is below 1). Images are `side` x
/// `side` RGB, `side` a multiple of 8.
pub(super) fn nearest(train: &[&[u8]], test: &[&[u8]], side: u32, cap: f32) -> Vec<Option<f32>> {
    let side = side as usize;
    let mut inks: Vec<Ink> = train.par_iter().map(|pixels| Ink::new(pixels, side)).collect();
    inks.sort_by(|a, b| a.norm.total_cmp(&b.norm));
    test.par_iter()
        .map(|pixels| {
            let image = Ink::new(pixels, side);
            // | ||a|| - ||b|| | <= ||a - b|| <= sqrt(cap) max(||a||, ||b||)
            let low = image.norm * (1.0 - cap.sqrt());
            let high = image.norm / (1.0 - cap.sqrt());
            let window = inks.partition_point(|ink| ink.norm < low)..inks.partition_point(|ink| ink.norm <= high);
            let mut best = None;
            for other in &inks[window] {
                let scale = image.norm.max(other.norm).powi(2);
                let limit = best.unwrap_or(cap) * scale;
                // Rounding must not rule out an equal image.
                if is_beyond(&image.blocks, &other.blocks, limit * 1.001 + 1.0) {
                    continue;
                }
                let distance = squared_distance(image.pixels, other.pixels) as f32;
                if distance <= limit {
                    best = Some(distance / scale);
                }
            }
            best
        })
        .collect()
}

fn is_beyond(a: &[f32; BLOCKS * BLOCKS], b: &[f32; BLOCKS * BLOCKS], limit: f32) -> bool {
    let mut sum = 0.0;
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        sum += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        if sum > limit {
            return true;
        }
    }
    false
}

fn squared_distance(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without short cuts.
    fn slow(train: &[&[u8]], test: &[u8], cap: f32) -> Option<f32> {
        let norm = |pixels: &[u8]| pixels.iter().map(|&value| f32::from(255 - value).powi(2)).sum::<f32>();
        let distances = train.iter().map(|other| squared_distance(test, other) as f32 / norm(test).max(norm(other)));
        distances.filter(|&distance| distance <= cap).min_by(f32::total_cmp)
    }

    proptest! {
        #[test]
        fn short_cuts_change_nothing(
            images in prop::collection::vec(prop::collection::vec(0u8..40, 4), 1..12),
            probe in prop::collection::vec(0u8..40, 4),
        ) {
            // 16 x 16: four flat quarters with some texture, so that distances fall on both sides of the cap.
            let draw = |quarters: &Vec<u8>| -> Vec<u8> {
                (0..16 * 16).flat_map(|i| { let v = quarters[i / 8 % 2 + 2 * (i / 128)] * 6; [v, v / 2, 255 - (i % 7) as u8] }).collect()
            };
            let train: Vec<Vec<u8>> = images.iter().map(draw).collect();
            let train: Vec<&[u8]> = train.iter().map(Vec::as_slice).collect();
            let test = draw(&probe);
            let found = nearest(&train, &[&test], 16, 0.2)[0];
            let expected = slow(&train, &test, 0.2);
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!((found - expected).abs() < 1e-4, "{} {}", found, expected);
            }
        }
    }

    #[test]
    fn an_equal_image_is_at_distance_0() {
        let image = [7_u8; 8 * 8 * 3];
        assert_eq!(nearest(&[&image], &[&image], 8, 0.1), [Some(0.0)]);
    }
}
