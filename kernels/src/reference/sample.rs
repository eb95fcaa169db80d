//! Seeded features to try losses on: (images, texts), b rows of width d each, of unit length. The same seed gives the
//! same rows.

use super::{add, dot, row, row_mut};

/// Images and texts, b rows each.
pub type Features = (Vec<f64>, Vec<f64>);

/// Independent random directions: every cosine is about 0, with a spread of 1/sqrt(d). An untrained model.
pub fn unit_rows(b: usize, d: usize, seed: u64) -> Features {
    let mut normal = Normal::new(seed);
    let mut rows = || unit(normal.vector(b * d), d);
    (rows(), rows())
}

/// Expected cosines `positive_cos` in a pair and `negative_cos` between pairs, 0 to 1, the latter no larger. A trained
/// CLIP has about .30 and .10: its towers lie in two narrow cones (Liang et al. 2022, "Mind the gap"), so no pair comes
/// near 1. A row is the sum of a direction common to all, one of its pair and one of its own.
pub fn clip_like(b: usize, d: usize, positive_cos: f64, negative_cos: f64, seed: u64) -> Features {
    assert!((0.0..=positive_cos).contains(&negative_cos) && positive_cos <= 1.0, "0 <= negative <= positive <= 1");
    let mut normal = Normal::new(seed);
    let common = unit(normal.vector(d), d);
    let pairs = unit(normal.vector(b * d), d);
    let mut tower = || {
        let mut rows = unit(normal.vector(b * d), d);
        for (i, own) in rows.chunks_exact_mut(d).enumerate() {
            scale(own, (1.0 - positive_cos).sqrt());
            add(own, (positive_cos - negative_cos).sqrt(), row(&pairs, i, d));
            add(own, negative_cos.sqrt(), &common);
        }
        unit(rows, d)
    };
    (tower(), tower())
}

/// All images near one direction and all texts near the opposite one: every cosine within 2e-4 of -1. Sums of
/// exponentials below any offset that is meant for cosines near 1.
pub fn opposite(b: usize, d: usize, seed: u64) -> Features {
    let mut normal = Normal::new(seed);
    let common = unit(normal.vector(d), d);
    let mut tower = |sign: f64| {
        let mut rows = unit(normal.vector(b * d), d);
        for own in rows.chunks_exact_mut(d) {
            scale(own, 0.01);
            add(own, sign, &common);
        }
        unit(rows, d)
    };
    (tower(1.0), tower(-1.0))
}

/// Each text equals its image, and any d pairs from a multiple of d on are orthogonal: with b <= d every cosine is 1 or
/// 0, and CLIP's loss is ln (1 + (b - 1) e^-s).
pub fn separated(b: usize, d: usize, seed: u64) -> Features {
    let mut rows = unit(Normal::new(seed).vector(b * d), d);
    for i in 0..b {
        let (before, rest) = rows.split_at_mut(i * d);
        let own = &mut rest[..d];
        // Gram and Schmidt, twice: once leaves the rounding errors of nearly parallel rows.
        for _ in 0..2 {
            for earlier in before[i / d * d * d..].chunks_exact(d) {
                let along = dot(own, earlier);
                add(own, -along, earlier);
            }
            normalise(own);
        }
    }
    (rows.clone(), rows)
}

/// [`separated`] pairs, each `copies` times in a row (the last perhaps less often): the most that a softmax can give
/// the positive is 1 / `copies`.
pub fn duplicates(b: usize, d: usize, copies: usize, seed: u64) -> Features {
    let (distinct, _) = separated(b.div_ceil(copies), d, seed);
    let mut rows = vec![0.0; b * d];
    for i in 0..b {
        row_mut(&mut rows, i, d).copy_from_slice(row(&distinct, i / copies, d));
    }
    (rows.clone(), rows)
}

/// Every row at unit length.
fn unit(mut rows: Vec<f64>, d: usize) -> Vec<f64> {
    rows.chunks_exact_mut(d).for_each(normalise);
    rows
}

fn normalise(row: &mut [f64]) {
    let length = dot(row, row).sqrt();
    scale(row, 1.0 / length);
}

fn scale(row: &mut [f64], factor: f64) {
    for value in row {
        *value *= factor;
    }
}

/// Standard normal numbers: splitmix64 (Steele et al. 2014) and the transform of Box and Muller (1958).
struct Normal {
    state: u64,
}

impl Normal {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// In (0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn vector(&mut self, len: usize) -> Vec<f64> {
        let mut values = Vec::with_capacity(len + 1);
        while values.len() < len {
            let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), 2.0 * std::f64::consts::PI * self.uniform());
            values.extend([radius * angle.cos(), radius * angle.sin()]);
        }
        values.truncate(len);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, least and largest cosine in pairs, and between pairs.
    fn cosines((images, texts): &Features, d: usize) -> [(f64, f64, f64); 2] {
        let mut found = [Vec::new(), Vec::new()];
        for (i, image) in images.chunks_exact(d).enumerate() {
            for (j, text) in texts.chunks_exact(d).enumerate() {
                found[usize::from(i != j)].push(dot(image, text));
            }
        }
        found.map(|all| {
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            (mean, all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(-1.0, f64::max))
        })
    }

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut normal = Normal::new(1_234_567);
        assert_eq!([normal.next(), normal.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let values = Normal::new(5).vector(100_000);
        let moment = |power: i32| values.iter().map(|value| value.powi(power)).sum::<f64>() / values.len() as f64;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.1);
    }

    #[test]
    fn cosines_are_what_each_sample_says() {
        let (b, d) = (96, 256);
        let near = |a: f64, b: f64, by: f64| assert!((a - b).abs() < by, "{a} against {b}");
        let [positive, negative] = cosines(&unit_rows(b, d, 1), d);
        near(positive.0, 0.0, 0.03);
        near(negative.0, 0.0, 0.01);
        let [positive, negative] = cosines(&clip_like(b, d, 0.3, 0.1, 2), d);
        near(positive.0, 0.3, 0.02);
        near(negative.0, 0.1, 0.02);
        for (_, least, largest) in cosines(&opposite(b, d, 3), d) {
            assert!(least >= -1.0 - 1e-12 && largest < -1.0 + 2e-4);
        }
        let [positive, negative] = cosines(&separated(b, d, 4), d);
        near(positive.1, 1.0, 1e-12);
        near(negative.1, 0.0, 1e-14);
        near(negative.2, 0.0, 1e-14);
        let (images, texts) = duplicates(b, d, 3, 5);
        let close = |a: &[f64], b: &[f64]| (dot(a, b) - 1.0).abs() < 1e-12;
        assert!(close(row(&images, 3, d), row(&texts, 5, d)) && !close(row(&images, 2, d), row(&texts, 3, d)));
    }

    #[test]
    fn more_pairs_than_columns_are_orthogonal_in_blocks() {
        let (images, _) = separated(7, 3, 1);
        let cosine = |i: usize, j: usize| dot(row(&images, i, 3), row(&images, j, 3)).abs();
        assert!(cosine(0, 2) < 1e-14 && cosine(3, 5) < 1e-14 && cosine(2, 3) > 1e-3);
    }

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(unit_rows(4, 5, 9), unit_rows(4, 5, 9));
        assert_ne!(unit_rows(4, 5, 9), unit_rows(4, 5, 10));
    }
}
