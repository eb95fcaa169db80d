//! Near-duplicates in pixels: how close each test image comes to any training image.
//!
//! Icon sets copy each other, so a held-out set is no proof of unseen drawings. The distance of two images a and b, as
//! ink on white paper (255 - pixel), is ||a - b||^2 / max(||a||^2, ||b||^2): 0 for equal, 1 for a drawing against
//! almost blank paper.
//!
//! Most pairs are ruled out without a look at their pixels: block means are an orthogonal projection, so the distance
//! of the projected images is a lower bound (4 x 4 blocks first, then 8 x 8), and so is the difference of the norms.

use rayon::prelude::*;

/// Blocks along each side of the fine projection, and of the coarse one.
const FINE: usize = 8;
const COARSE: usize = 4;

struct Ink<'a> {
    pixels: &'a [u8],
    norm: f32,
    /// Block means, scaled so that squared distances bound those of the images from below.
    fine: [f32; FINE * FINE],
    coarse: [f32; COARSE * COARSE],
}

impl<'a> Ink<'a> {
    fn new(pixels: &'a [u8], side: usize) -> Ink<'a> {
        let ink = |value: u8| f32::from(255 - value);
        let norm = pixels.iter().map(|&value| ink(value) * ink(value)).sum::<f32>().sqrt();
        let blocks = |count: usize| move |x: usize, y: usize| y * count / side * count + x * count / side;
        let mut fine = [0.0; FINE * FINE];
        let mut coarse = [0.0; COARSE * COARSE];
        let (fine_block, coarse_block) = (blocks(FINE), blocks(COARSE));
        for (index, pixel) in pixels.chunks_exact(3).enumerate() {
            let (x, y) = (index % side, index / side);
            let sum: f32 = pixel.iter().map(|&value| ink(value)).sum();
            fine[fine_block(x, y)] += sum;
            coarse[coarse_block(x, y)] += sum;
        }
        // A block of n values with sum s has mean s / n and adds n (s / n)^2 = (s / sqrt(n))^2 to a squared norm.
        let values = (3 * side * side) as f32;
        fine = fine.map(|sum| sum / (values / fine.len() as f32).sqrt());
        coarse = coarse.map(|sum| sum / (values / coarse.len() as f32).sqrt());
        Ink { pixels, norm, fine, coarse }
    }
}

/// For each of `test` its distance to the nearest of `train`, or `None` if that is above `cap` (which is below 1).
/// Images are `side` x `side` RGB, `side` a multiple of 8.
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
                let bound = limit * 1.001 + 1.0;
                if squared(&image.coarse, &other.coarse) > bound || squared(&image.fine, &other.fine) > bound {
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

/// Squared distance; eight sums side by side let the compiler use vector instructions.
fn squared(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (a - b) * (a - b);
        }
    }
    lanes.iter().sum()
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
