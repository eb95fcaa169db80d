//! From the bytes of an image to the numbers a vision transformer reads: augmented, normalised, cut into patches.

use pool::Crop;
use protocol::{Augmentation, Preprocess};

use crate::order::Draws;

/// What part of an image is seen, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum View {
    /// All of it.
    Whole,
    /// Moved by whole pixels, mirrored at the border, and perhaps flipped left to right.
    FlipShift {
        /// Left to right.
        flip: bool,
        /// To the right, pixels.
        right: i64,
        /// Down, pixels.
        down: i64,
    },
}

/// Draws a view of an image of `side` pixels. A random crop is not one: it is drawn from the original by [`crop`].
pub fn draw(augmentation: Augmentation, side: usize, draws: &mut Draws) -> View {
    match augmentation {
        Augmentation::None | Augmentation::RandomResizedCrop => View::Whole,
        Augmentation::FlipShift => {
            let reach = (side / 10) as f64;
            let mut shift = || (draws.uniform() * (2.0 * reach + 1.0)).floor() as i64 - reach as i64;
            let (right, down) = (shift(), shift());
            View::FlipShift { flip: draws.uniform() < 0.5, right, down }
        }
    }
}

/// Share of the area that a random crop has, least and most.
const AREA: [f64; 2] = [0.9, 1.0];
/// Width over height of a random crop, least and most.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// torchvision's `RandomResizedCrop` at OpenCLIP's scale: ten tries, then the largest crop at the centre whose ratio is
/// allowed. `uniform` draws from 0 (inclusive) to 1.
pub fn crop(width: u32, height: u32, mut uniform: impl FnMut() -> f64) -> Crop {
    let (w, h) = (f64::from(width), f64::from(height));
    for _ in 0..10 {
        let area = w * h * (AREA[0] + (AREA[1] - AREA[0]) * uniform());
        let ratio = (RATIO[0].ln() + (RATIO[1].ln() - RATIO[0].ln()) * uniform()).exp();
        let (wide, high) = ((area * ratio).sqrt().round_ties_even(), (area / ratio).sqrt().round_ties_even());
        if (1.0..=w).contains(&wide) && (1.0..=h).contains(&high) {
            let top = (uniform() * (h - high + 1.0)).floor();
            let left = (uniform() * (w - wide + 1.0)).floor();
            return Crop { left: left as u32, top: top as u32, width: wide as u32, height: high as u32 };
        }
    }
    let (wide, high) = if w / h < RATIO[0] {
        (width, (w / RATIO[0]).round_ties_even() as u32)
    } else if w / h > RATIO[1] {
        ((h * RATIO[1]).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    Crop { left: (width - wide) / 2, top: (height - high) / 2, width: wide, height: high }
}

/// Layout of images and patches.
#[derive(Debug, Clone)]
pub struct Patches {
    side: usize,
    patch: usize,
    /// (byte / 255 - mean) / std for each channel.
    normalised: [[f32; 256]; 3],
}

impl Patches {
    /// Images of `side` pixels in patches of `patch` pixels, which divides `side`.
    pub fn new(side: usize, patch: usize, preprocess: &Preprocess) -> Patches {
        let of = |channel: usize| {
            let (mean, std) = (preprocess.mean[channel] as f32, preprocess.std[channel] as f32);
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        };
        Patches { side, patch, normalised: [of(0), of(1), of(2)] }
    }

    /// Side of the images, pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Bytes of an image.
    pub fn image_bytes(&self) -> usize {
        3 * self.side * self.side
    }

    /// What an image becomes: n + 1 rows of 3 p^2 numbers.
    pub fn shape(&self) -> [usize; 2] {
        [(self.side / self.patch).pow(2) + 1, 3 * self.patch * self.patch]
    }

    /// Numbers an image becomes: (n + 1) 3 p^2.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Never: an image is at least one patch.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends what [`Patches::write`] makes.
    pub fn append(&self, pixels: &[u8], view: View, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + self.len(), 0.0);
        self.write(pixels, view, &mut out[start..]);
    }

    /// Writes a view of an image (`side` x `side` x RGB bytes) as rows of patches: a row for the class token, which is
    /// left as it is, then patches in reading order, each as channel, row, column (the layout of `conv1.weight`).
    pub fn write(&self, pixels: &[u8], view: View, out: &mut [f32]) {
        assert_eq!(pixels.len(), self.image_bytes(), "bytes of an image of {} pixels", self.side);
        let rows = &mut out[3 * self.patch * self.patch..];
        match view {
            View::Whole => self.fill(rows, |x| x, |y| y, pixels),
            View::FlipShift { flip, right, down } => {
                let last = self.side as i64 - 1;
                let mirrored = |at: i64| {
                    if at < 0 {
                        -at
                    } else if at > last {
                        2 * last - at
                    } else {
                        at
                    }
                };
                let x_of = |x: usize| mirrored((if flip { last - x as i64 } else { x as i64 }) - right) as usize;
                self.fill(rows, x_of, |y| mirrored(y as i64 - down) as usize, pixels);
            }
        }
    }

    fn place(&self, channel: usize, y: usize, x: usize) -> usize {
        let patch = self.patch;
        let index = (y / patch) * (self.side / patch) + x / patch;
        ((index * 3 + channel) * patch + y % patch) * patch + x % patch
    }

    fn fill(&self, rows: &mut [f32], x_of: impl Fn(usize) -> usize, y_of: impl Fn(usize) -> usize, pixels: &[u8]) {
        let columns: Vec<usize> = (0..self.side).map(|x| 3 * x_of(x)).collect();
        for y in 0..self.side {
            let source = &pixels[3 * self.side * y_of(y)..][..3 * self.side];
            for (first, columns) in columns.chunks(self.patch).enumerate() {
                for (channel, normalised) in self.normalised.iter().enumerate() {
                    let at = self.place(channel, y, first * self.patch);
                    for (value, column) in rows[at..at + self.patch].iter_mut().zip(columns) {
                        *value = normalised[usize::from(source[column + channel])];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 4 pixels, red = 20 x column, green = 20 x row, blue = 7.
    fn image() -> Vec<u8> {
        (0..16_u8).flat_map(|at| [20 * (at % 4), 20 * (at / 4), 7]).collect()
    }

    fn patches() -> Patches {
        Patches::new(4, 2, &Preprocess::default())
    }

    /// The red that a number was.
    fn byte(value: f32) -> u8 {
        let Preprocess { mean, std, .. } = Preprocess::default();
        ((f64::from(value) * std[0] + mean[0]) * 255.0).round() as u8
    }

    fn red(view: View) -> Vec<Vec<u8>> {
        let patches = patches();
        let mut out = Vec::new();
        patches.append(&image(), view, &mut out);
        assert!(out[..12].iter().all(|v| *v == 0.0), "class row");
        (0..4).map(|y| (0..4).map(|x| byte(out[12 + patches.place(0, y, x)])).collect()).collect()
    }

    #[test]
    fn patches_lie_in_the_layout_of_the_convolution() {
        let patches = patches();
        let mut out = Vec::new();
        patches.append(&image(), View::Whole, &mut out);
        // Second patch of the first line (columns 2, 3): red row 0, red row 1, then green.
        let second: Vec<u8> = out[24..32].iter().map(|v| byte(*v)).collect();
        assert_eq!(second[..4], [40, 60, 40, 60]);
        assert_eq!(out.len(), patches.len());
    }

    #[test]
    fn flips_and_shifts_mirror_the_border() {
        assert_eq!(red(View::FlipShift { flip: true, right: 0, down: 0 })[0], [60, 40, 20, 0]);
        assert_eq!(red(View::FlipShift { flip: false, right: 1, down: 0 })[2], [20, 0, 20, 40]);
        assert_eq!(red(View::FlipShift { flip: false, right: -1, down: 1 })[0], [20, 40, 60, 40]);
    }

    #[test]
    fn drawn_views_stay_inside() {
        for position in 0..500 {
            match draw(Augmentation::FlipShift, 32, &mut Draws::new(1, position)) {
                View::FlipShift { right, down, .. } => assert!(right.abs() <= 3 && down.abs() <= 3),
                View::Whole => panic!("neither flipped nor moved"),
            }
        }
    }

    /// Made by `tests/crops.py` with torchvision 0.26.0, whose draws were replaced by the golden ratio's multiples.
    const CROPS: &str = include_str!("../tests/crops.tsv");

    #[test]
    fn random_crops_are_those_of_torchvision() {
        let mut fallbacks = 0;
        for (case, line) in CROPS.lines().enumerate() {
            let numbers: Vec<u32> = line.split('\t').map(|number| number.parse().expect("a number")).collect();
            let [width, height, left, top, wide, high] = numbers[..] else { panic!("{line}") };
            let mut draws = 0;
            let found = crop(width, height, || {
                draws += 1;
                ((case * 97 + draws) as f64 * 0.618_033_988_749_895).fract()
            });
            assert_eq!(found, Crop { left, top, width: wide, height: high }, "case {case}: {line}");
            fallbacks += usize::from(draws == 20);
        }
        assert!(CROPS.lines().count() == 300 && (40..260).contains(&fallbacks), "{fallbacks}");
    }
}
