//! From the bytes of an image to the numbers a vision transformer reads: augmented, normalised, cut into patches.

use protocol::Augmentation;

use crate::order::Draws;

/// OpenAI's channel means (`open_clip/constants.py`).
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// OpenAI's channel standard deviations.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

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
    /// A rectangle stretched to the full image, bilinear.
    Crop {
        /// Left edge, pixels.
        left: f64,
        /// Upper edge, pixels.
        top: f64,
        /// Pixels.
        width: f64,
        /// Pixels.
        height: f64,
    },
}

/// Draws a view of an image of `side` pixels.
pub fn draw(augmentation: Augmentation, side: usize, draws: &mut Draws) -> View {
    match augmentation {
        Augmentation::None => View::Whole,
        Augmentation::FlipShift => {
            let reach = (side / 10) as f64;
            let mut shift = || (draws.uniform() * (2.0 * reach + 1.0)).floor() as i64 - reach as i64;
            let (right, down) = (shift(), shift());
            View::FlipShift { flip: draws.uniform() < 0.5, right, down }
        }
        Augmentation::RandomResizedCrop => draw_crop(side as f64, draws),
    }
}

/// torchvision's `RandomResizedCrop` with scale 0.9 to 1 and aspect ratio 3/4 to 4/3: ten tries, then the whole image.
fn draw_crop(side: f64, draws: &mut Draws) -> View {
    for _ in 0..10 {
        let area = side * side * (0.9 + 0.1 * draws.uniform());
        let ratio = ((2.0 * draws.uniform() - 1.0) * (4.0_f64 / 3.0).ln()).exp();
        let (width, height) = ((area * ratio).sqrt().round(), (area / ratio).sqrt().round());
        if width <= side && height <= side {
            let left = (draws.uniform() * (side - width + 1.0)).floor();
            let top = (draws.uniform() * (side - height + 1.0)).floor();
            return View::Crop { left, top, width, height };
        }
    }
    View::Whole
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
    pub fn new(side: usize, patch: usize) -> Patches {
        let of = |channel: usize| std::array::from_fn(|byte| (byte as f32 / 255.0 - MEAN[channel]) / STD[channel]);
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

    /// Numbers an image becomes: (n + 1) 3 p^2.
    pub fn len(&self) -> usize {
        3 * (self.side * self.side + self.patch * self.patch)
    }

    /// Never: an image is at least one patch.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends a view of an image (`side` x `side` x RGB bytes) as rows of patches: a zero row for the class token,
    /// then patches in reading order, each as channel, row, column (the layout of `conv1.weight`).
    pub fn append(&self, pixels: &[u8], view: View, out: &mut Vec<f32>) {
        assert_eq!(pixels.len(), self.image_bytes(), "bytes of an image of {} pixels", self.side);
        let start = out.len();
        out.resize(start + self.len(), 0.0);
        let rows = &mut out[start + 3 * self.patch * self.patch..];
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
            View::Crop { left, top, width, height } => self.fill_crop(rows, [left, top, width, height], pixels),
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

    fn fill_crop(&self, rows: &mut [f32], [left, top, width, height]: [f64; 4], pixels: &[u8]) {
        let side = self.side;
        // Centres of pixels onto centres of pixels; the two neighbours and the weight of the second.
        let taps = |start: f64, extent: f64| -> Vec<(usize, usize, f32)> {
            let tap = |at: usize| {
                let place = (start + (at as f64 + 0.5) * extent / side as f64 - 0.5).clamp(0.0, (side - 1) as f64);
                let low = place.floor() as usize;
                (low, (low + 1).min(side - 1), place.fract() as f32)
            };
            (0..side).map(tap).collect()
        };
        let (columns, lines) = (taps(left, width), taps(top, height));
        for (y, &(above, below, down)) in lines.iter().enumerate() {
            for (x, &(before, after, right)) in columns.iter().enumerate() {
                for channel in 0..3 {
                    let byte = |y: usize, x: usize| f32::from(pixels[3 * (y * side + x) + channel]);
                    let blend = |y: usize| byte(y, before) * (1.0 - right) + byte(y, after) * right;
                    let value = blend(above) * (1.0 - down) + blend(below) * down;
                    rows[self.place(channel, y, x)] = (value / 255.0 - MEAN[channel]) / STD[channel];
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

    fn red(view: View) -> Vec<Vec<u8>> {
        let patches = Patches::new(4, 2);
        let mut out = Vec::new();
        patches.append(&image(), view, &mut out);
        assert!(out[..12].iter().all(|v| *v == 0.0), "class row");
        let byte = |v: f32| ((v * STD[0] + MEAN[0]) * 255.0).round() as u8;
        (0..4).map(|y| (0..4).map(|x| byte(out[12 + patches.place(0, y, x)])).collect()).collect()
    }

    #[test]
    fn patches_lie_in_the_layout_of_the_convolution() {
        let patches = Patches::new(4, 2);
        let mut out = Vec::new();
        patches.append(&image(), View::Whole, &mut out);
        // Second patch of the first line (columns 2, 3): red row 0, red row 1, then green.
        let second: Vec<u8> = out[24..32].iter().map(|v| ((v * STD[0] + MEAN[0]) * 255.0).round() as u8).collect();
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
    fn the_full_crop_is_the_image_and_half_of_it_is_stretched() {
        assert_eq!(red(View::Crop { left: 0.0, top: 0.0, width: 4.0, height: 4.0 }), red(View::Whole));
        assert_eq!(red(View::Crop { left: 0.0, top: 0.0, width: 2.0, height: 4.0 })[0], [0, 5, 15, 25]);
    }

    #[test]
    fn drawn_views_stay_inside() {
        for position in 0..500 {
            match draw(Augmentation::FlipShift, 32, &mut Draws::new(1, position)) {
                View::FlipShift { right, down, .. } => assert!(right.abs() <= 3 && down.abs() <= 3),
                other => panic!("{other:?}"),
            }
            if let View::Crop { left, top, width, height } =
                draw(Augmentation::RandomResizedCrop, 32, &mut Draws::new(1, position))
            {
                assert!(left >= 0.0 && top >= 0.0 && left + width <= 32.0 && top + height <= 32.0);
            }
        }
    }
}
