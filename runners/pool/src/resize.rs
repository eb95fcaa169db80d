//! Resampling as Pillow 13 does it, bit for bit, of the part of an image that a crop leaves, and of nothing
//! else: an image of 1 x 60,000 pixels costs what its middle costs.
//!
//! Pillow resamples one direction, rounds to bytes, then the other, and rounds again; weights are whole numbers of
//! 2^-22. The kernel is widened when shrinking, and weights that fall outside of the image go to those inside.

#![expect(clippy::inline_always, reason = "the loops are compiled for the processor that their caller asks for")]

use std::ops::Range;

use protocol::Interpolation;

/// Binary places of a weight: 255 times a sum of weights fits an `i32`.
const PLACES: u32 = 22;

/// A picture of one side, the part of it that is looked at, and the part of the result that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// First position of the source that is looked at: what lies outside does not bleed in.
    pub(crate) from: u32,
    /// Length of the source's part.
    pub(crate) side: u32,
    /// Length of that part after resizing, as if nothing were cut.
    pub(crate) scaled: u64,
    /// First position that is wanted.
    pub(crate) start: u64,
    /// Positions that are wanted.
    pub(crate) length: u32,
}

impl Cut {
    /// All of a side, resized.
    pub(crate) fn whole(side: u32, length: u32) -> Cut {
        Cut { from: 0, side, scaled: length.into(), start: 0, length }
    }
}

/// Weights of the source's positions from `first` on for one position of the result.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The part of the picture (rows of `width` RGB pixels) that `across` and `down` cut out of the resized one: height x
/// width x RGB.
pub(crate) fn resize(pixels: &[u8], width: u32, across: Cut, down: Cut, interpolation: Interpolation) -> Vec<u8> {
    let order = if columns_first(across, down) { Order::ColumnsFirst } else { Order::RowsFirst };
    let (columns, rows) = (taps(across, interpolation), taps(down, interpolation));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        #[expect(unsafe_code, reason = "a function that asks for more than every x86-64 processor has")]
        return unsafe { resample_avx2(pixels, width, &columns, &rows, order) };
    }
    resample(pixels, width, &columns, &rows, order)
}

/// The same loops, compiled to vectors of 32 bytes; 16 are what a plain build has.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn resample_avx2(pixels: &[u8], width: u32, columns: &[Taps], rows: &[Taps], order: Order) -> Vec<u8> {
    resample(pixels, width, columns, rows, order)
}

#[derive(Clone, Copy)]
enum Order {
    RowsFirst,
    ColumnsFirst,
}

#[inline(always)]
fn resample(pixels: &[u8], width: u32, columns: &[Taps], rows: &[Taps], order: Order) -> Vec<u8> {
    let (stride, line) = (width as usize * 3, columns.len() * 3);
    let (window, lines) = (reach(columns), reach(rows));
    match order {
        Order::RowsFirst => {
            let between = resize_rows(pixels, stride, lines.clone(), window, 0, columns);
            resize_columns(&between, line, 0..line, lines.start, rows)
        }
        Order::ColumnsFirst => {
            let between = resize_columns(pixels, stride, window.start * 3..window.end * 3, 0, rows);
            let mut out =
                resize_rows(&between, window.len() * 3, 0..rows.len(), 0..window.len(), window.start, columns);
            out.truncate(rows.len() * line);
            out
        }
    }
}

/// Whether columns are resampled before rows, which rounding makes visible. Found by trying: so does Pillow 13.0.0 for
/// 1,500 random sizes; releases before it took rows first always.
fn columns_first(across: Cut, down: Cut) -> bool {
    let less = |cut: Cut| i64::from(cut.side) - cut.scaled.cast_signed();
    less(down) > 0 && less(down) > 2 * less(across)
}

/// Positions of the source that any position of the result looks at.
fn reach(taps: &[Taps]) -> Range<usize> {
    let first = taps.iter().map(|taps| taps.first).min().unwrap_or_default();
    first..taps.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or_default()
}

/// Resamples some lines of the source, a block of lines at a time; lines more than asked for may come back. `before`
/// columns that the taps count are not in the source.
#[inline(always)]
fn resize_rows(
    source: &[u8],
    stride: usize,
    lines: Range<usize>,
    window: Range<usize>,
    before: usize,
    columns: &[Taps],
) -> Vec<u8> {
    let line = columns.len() * 3;
    let mut block = vec![[0; BLOCK]; window.len()];
    let mut out = vec![0; lines.len().next_multiple_of(LINES) * line];
    for (at, out) in out.chunks_exact_mut(LINES * line).enumerate() {
        for of_block in 0..LINES {
            let y = (lines.start + LINES * at + of_block).min(lines.end - 1);
            let row = source[y * stride..][window.start * 3..window.end * 3].as_chunks::<3>().0;
            for (pixels, pixel) in block.iter_mut().zip(row) {
                pixels.as_chunks_mut().0[of_block] = *pixel;
            }
        }
        for (x, Taps { first, weights }) in columns.iter().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (pixels, &weight) in block[first - before - window.start..].iter().zip(weights) {
                add(&mut sums, pixels, weight);
            }
            let bytes = sums.map(byte);
            for (line, pixel) in out.chunks_exact_mut(line).zip(bytes.as_chunks::<3>().0) {
                line.as_chunks_mut().0[x] = *pixel;
            }
        }
    }
    out
}

/// Resamples the columns in a window of bytes. `before` lines that the taps count are not in the source.
#[inline(always)]
fn resize_columns(source: &[u8], stride: usize, window: Range<usize>, before: usize, rows: &[Taps]) -> Vec<u8> {
    let mut out = vec![0; rows.len() * window.len()];
    for (Taps { first, weights }, out) in rows.iter().zip(out.chunks_exact_mut(window.len())) {
        let lines = || source[(first - before) * stride..].chunks_exact(stride).map(|line| &line[window.clone()]);
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        for (at, out) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (line, &weight) in lines().zip(weights) {
                add(&mut sums, &line.as_chunks().0[at], weight);
            }
            *out = sums.map(byte);
        }
        let done = window.len() - rest.len();
        for (at, out) in rest.iter_mut().enumerate() {
            let products = lines().zip(weights).map(|(line, weight)| i32::from(line[done + at]) * weight);
            *out = byte(HALF + products.sum::<i32>());
        }
    }
    out
}

/// Lines of the source that are resampled side by side, so that vectors of their pixels share a weight. By measurement:
/// with 8 and 16 the compiler makes vectors of weights instead, at up to three times the time.
const LINES: usize = 32;
/// Bytes of a pixel of so many lines, and of a line that columns are resampled in at once.
const BLOCK: usize = 3 * LINES;

/// What rounds a sum to the nearest.
const HALF: i32 = 1 << (PLACES - 1);

/// This loop is the time of a resize. The sums fit by [`PLACES`], and a check of each would keep them out of vectors.
#[inline(always)]
fn add(sums: &mut [i32; BLOCK], bytes: &[u8; BLOCK], weight: i32) {
    for (sum, &value) in sums.iter_mut().zip(bytes) {
        *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
    }
}

fn byte(sum: i32) -> u8 {
    (sum >> PLACES).clamp(0, 255) as u8
}

fn taps(cut: Cut, interpolation: Interpolation) -> Vec<Taps> {
    // Half the width of a kernel, and the kernel.
    let (support, kernel): (f64, fn(f64) -> f64) = match interpolation {
        Interpolation::Bicubic => (2.0, cubic),
        Interpolation::Bilinear => (1.0, triangle),
    };
    let ratio = f64::from(cut.side) / cut.scaled as f64;
    let wide = ratio.max(1.0);
    let reach = support * wide;
    let one = |position: u64| {
        let centre = (position as f64 + 0.5) * ratio;
        // Truncated towards zero: at the border that is the border.
        let first = ((centre - reach + 0.5) as i64).max(0);
        let end = ((centre + reach + 0.5) as i64).min(i64::from(cut.side));
        let weights: Vec<f64> = (first..end).map(|at| kernel((at as f64 - centre + 0.5) * (1.0 / wide))).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: f64| (weight / sum * f64::from(1 << PLACES)).round() as i32;
        Taps { first: first as usize + cut.from as usize, weights: weights.into_iter().map(whole).collect() }
    };
    (cut.start..cut.start + u64::from(cut.length)).map(one).collect()
}

/// Keys's cubic, a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}
