//! CLIP's loss.

use kernels::reference::{ClipOptions, Gradients, Problem, clip, clip_block, info_nce, sample};

use crate::support::{
    Owned, alike, clip_by_definition, confident_pairs, finite, joined, near, relative, scattered, scattered_pairs,
    select, slopes,
};

const SCALES: [f64; 5] = [1.0, 14.2857, 50.0, 100.0, 1000.0];
const PLAIN: ClipOptions = ClipOptions { ids: None, label_smoothing: 0.0 };

/// Options of every kind for six pairs.
fn options() -> [ClipOptions<'static>; 7] {
    let with = |ids, label_smoothing| ClipOptions { ids, label_smoothing };
    [
        PLAIN,
        with(None, 0.1),
        with(Some(&[7, 3, 7, 9, 3, 7]), 0.0),
        with(Some(&[7, 3, 7, 9, 3, 7]), 0.2),
        with(Some(&[0, -1, 2, 3, -5, 5]), 0.0),
        with(Some(&[7, 3, 7, -1, 2, 3]), 0.1),
        with(Some(&[4, 4, 4, 4, 4, 4]), 0.3),
    ]
}

#[test]
fn two_pairs_by_hand() {
    // u = v = identity, s = 1: every row and column is (1, 0) or (0, 1), so L = ln(e + 1) - 1 = ln(1 + 1/e), and with
    // q = 1 / (1 + e), the probability of the wrong one, G = q/2 off and -q/2 on the diagonal.
    let identity = [1.0, 0.0, 0.0, 1.0];
    let found = clip(&Problem { images: &identity, texts: &identity, depth: 2, scale: 1.0 }, &PLAIN);
    let q = 1.0 / (1.0 + 1.0_f64.exp());
    relative(found.loss, (-1.0_f64).exp().ln_1p(), 1e-15);
    for (k, sign) in [-1.0, 1.0, 1.0, -1.0].into_iter().enumerate() {
        relative(found.images[k], sign * q / 2.0, 1e-15);
        relative(found.texts[k], sign * q / 2.0, 1e-15);
    }
    relative(found.scale, -q, 1e-15);
    assert!(found.bias == 0.0);
}

#[test]
fn label_smoothing_by_hand() {
    // As above: half of e of the target moves to the other column, whose cross entropy is more by 1.
    let identity = [1.0, 0.0, 0.0, 1.0];
    let problem = Problem { images: &identity, texts: &identity, depth: 2, scale: 1.0 };
    let found = clip(&problem, &ClipOptions { label_smoothing: 0.2, ..PLAIN });
    relative(found.loss, (-1.0_f64).exp().ln_1p() + 0.1, 1e-15);
    relative(found.scale, 0.1 - 1.0 / (1.0 + 1.0_f64.exp()), 1e-14);
}

#[test]
fn agrees_with_sixty_digits() {
    // mpmath: loss, dL/du of the first kept row's first entry, dL/dv of the second kept row's second, dL/ds.
    let known = [
        (1.0, 1.897_778_956_777_121_7, -0.092_219_026_768_135_08, 0.089_351_466_922_699_16, 0.307_311_579_643_096_13),
        (14.2857, 11.992_145_134_951_167, -0.762_080_815_583_666_8, 0.642_006_535_378_642, 0.815_133_219_873_037_6),
        (100.0, 82.657_712_771_461_48, -4.862_985_418_591_119, 4.863_280_603_935_288, 0.825_788_528_410_285),
        (1000.0, 826.151_417_280_072_5, -48.632_677_916_771_17, 48.632_677_916_771_76, 0.826_151_140_117_523_2),
    ];
    for (scale, loss, image, text, slope) in known {
        let found = clip(&scattered_pairs(6, scale).as_problem(), &PLAIN);
        for (a, b) in [(found.loss, loss), (found.images[0], image), (found.texts[4], text), (found.scale, slope)] {
            relative(a, b, 1e-12);
        }
    }
    let options = ClipOptions { ids: Some(&[7, 3, 7, -1, 2, 3]), label_smoothing: 0.1 };
    let known = [
        (1.0, 1.802_370_556_930_457_3, -0.040_080_977_808_229_75, 0.004_534_462_677_962_657, 0.406_171_447_071_748_2),
        (14.2857, 13.177_471_054_660_424, 0.035_923_553_872_530_09, -0.526_492_620_999_831, 0.904_150_536_634_098_7),
        (100.0, 91.311_970_543_274_8, 0.817_367_836_705_098, -3.242_375_856_253_188, 0.912_650_659_639_226_2),
        (1000.0, 912.930_589_727_638, 8.170_289_890_019_006, -32.423_912_309_629_22, 0.912_930_589_492_973_5),
    ];
    for (scale, loss, image, text, slope) in known {
        let found = clip(&scattered_pairs(6, scale).as_problem(), &options);
        for (a, b) in [(found.loss, loss), (found.images[0], image), (found.texts[4], text), (found.scale, slope)] {
            relative(a, b, 1e-12);
        }
    }
}

#[test]
fn gradients_are_slopes() {
    for options in options() {
        for scale in SCALES {
            // At s = 1000 a softmax of scattered rows is a step: nothing to see but at small products.
            let shrink = if scale > 500.0 { 0.1 } else { 1.0 };
            let mut problem = scattered_pairs(6, scale);
            problem.images.iter_mut().for_each(|value| *value *= shrink);
            let by_differences = slopes(&problem, |problem| clip(problem, &options).loss);
            alike(&clip(&problem.as_problem(), &options), &by_differences, 1e-6, 1.0);
        }
    }
}

#[test]
fn loss_is_the_definition() {
    for options in options() {
        for scale in SCALES {
            let problem = scattered_pairs(6, scale);
            let expected = clip_by_definition(&problem.as_problem(), &options);
            relative(clip(&problem.as_problem(), &options).loss, expected, 1e-13);
        }
    }
}

#[test]
fn gradients_of_real_shapes_are_slopes() {
    let (b, d) = (12, 16);
    let samples = [
        sample::unit_rows(b, d, 1),
        sample::clip_like(b, d, 0.3, 0.1, 2),
        sample::opposite(b, d, 3),
        sample::separated(b, d, 4),
        sample::duplicates(b, d, 3, 5),
    ];
    for features in samples {
        for scale in [1.0, 14.2857, 100.0] {
            let problem = Owned::new(features.clone(), d, scale);
            let by_differences = slopes(&problem, |problem| clip_by_definition(problem, &PLAIN));
            alike(&clip(&problem.as_problem(), &PLAIN), &by_differences, 1e-6, 1.0);
        }
    }
}

#[test]
fn a_lone_pair_has_neither_loss_nor_gradient() {
    for options in [PLAIN, ClipOptions { ids: Some(&[5]), label_smoothing: 0.3 }] {
        let found = clip(&Problem { images: &[1.0, 2.0], texts: &[3.0, -4.0], depth: 2, scale: 1000.0 }, &options);
        assert!(found.loss == 0.0 && found.scale == 0.0);
        assert!(found.images.iter().chain(&found.texts).all(|&value| value == 0.0));
    }
}

#[test]
fn equal_logits_lose_ln_b() {
    for scale in SCALES {
        for b in 2..12 {
            let problem = Owned::new((vec![0.5; b * 5], vec![-0.5; b * 5]), 5, scale);
            let found = clip(&problem.as_problem(), &PLAIN);
            // As many digits at any scale: maxima are subtracted before logarithms are added.
            relative(found.loss, (b as f64).ln(), 4.0 * f64::EPSILON);
            assert!(found.images.iter().chain(&found.texts).all(|value| value.abs() < 1e-15 * scale));
            assert!(found.scale.abs() < 1e-14 && found.bias == 0.0);
        }
    }
}

#[test]
fn confident_pairs_keep_their_digits() {
    // Orthonormal rows: L = ln (1 + (B - 1) e^-s), of about 1e-12 and less; G_ii = -sigmoid(x) / B.
    let b = 8;
    for (features, by) in [(sample::separated(b, b, 1), 8.0), ((identity(b), identity(b)), 1.0)] {
        for scale in [14.2857, 7e12_f64.ln(), 50.0, 100.0, 700.0] {
            // A logit is no better than its last bit.
            let tolerance = by * f64::EPSILON * (scale + 10.0);
            let found = clip(&Owned::new(features.clone(), b, scale).as_problem(), &PLAIN);
            let odds = 7.0 * (-scale).exp();
            relative(found.loss, odds.ln_1p(), tolerance);
            relative(found.scale, -odds / (1.0 + odds), tolerance);
        }
    }
    let scale = 7e12_f64.ln();
    let found = clip(&Owned::new((identity(b), identity(b)), b, scale).as_problem(), &PLAIN);
    relative(found.loss, 1e-12, 1e-10);
    relative(found.images[0], -scale / 8.0 * 1e-12, 1e-10);
    relative(found.images[1], scale / 8.0 * 1e-12 / 7.0, 1e-10);
    relative(found.texts[8], scale / 8.0 * 1e-12 / 7.0, 1e-10);
}

fn identity(b: usize) -> Vec<f64> {
    (0..b * b).map(|at| if at.is_multiple_of(b + 1) { 1.0 } else { 0.0 }).collect()
}

#[test]
fn confident_scattered_pairs_agree_with_sixty_digits() {
    // mpmath, as above.
    let known = [
        (
            1.0,
            0.043_582_260_762_156_27,
            -3.761_323_655_428_343e-5,
            -0.049_595_936_004_260_68,
            -0.057_153_379_575_752_11,
        ),
        (
            5.0,
            0.000_312_489_124_602_329_8,
            1.466_900_189_889_722_6e-13,
            -0.002_016_470_145_481_345,
            -0.000_392_008_972_765_469_26,
        ),
        (
            14.2857,
            2.701_169_548_553_306e-9,
            7.407_098_503_742_848e-36,
            -4.984_795_261_196_26e-8,
            -3.391_720_171_155_189e-9,
        ),
    ];
    for (scale, loss, image, text, slope) in known {
        let found = clip(&confident_pairs(scale).as_problem(), &PLAIN);
        for (a, b) in [(found.loss, loss), (found.images[0], image), (found.texts[4], text), (found.scale, slope)] {
            relative(a, b, 1e-12);
        }
    }
}

#[test]
fn duplicates_share_their_row() {
    // c copies of orthonormal pairs: L = ln (c + (B - c) e^-s); as captions of one image the same, all spread.
    let (b, d, copies) = (12, 16, 3);
    let ids: Vec<i64> = (0..12).map(|i| i / 3).collect();
    for scale in SCALES {
        let problem = Owned::new(sample::duplicates(b, d, copies, 3), d, scale);
        let odds = 3.0 * (-scale).exp();
        let expected = 3.0_f64.ln() + odds.ln_1p();
        relative(clip(&problem.as_problem(), &PLAIN).loss, expected, 1e-13);
        let found = clip(&problem.as_problem(), &ClipOptions { ids: Some(&ids), ..PLAIN });
        relative(found.loss, expected, 1e-13);
        // All that is left to learn is the distance to the others.
        near(found.scale, -odds / (1.0 + odds), 1e-12, odds);
    }
}

#[test]
fn extremes_are_finite_and_right() {
    let (b, d) = (24, 8);
    let samples = [
        sample::unit_rows(b, d, 1),
        sample::clip_like(b, d, 0.3, 0.1, 2),
        sample::opposite(b, d, 3),
        sample::separated(b, d, 4),
        sample::duplicates(b, d, 5, 5),
    ];
    for features in samples {
        for scale in SCALES {
            let problem = Owned::new(features.clone(), d, scale);
            let found = clip(&problem.as_problem(), &PLAIN);
            assert!(finite(&found));
            near(found.loss, clip_by_definition(&problem.as_problem(), &PLAIN), 1e-13, scale);
        }
    }
}

#[test]
fn blocks_add_up() {
    for options in options() {
        for sizes in [&[6][..], &[1, 2, 3], &[2, 0, 4], &[1; 6]] {
            let problem = scattered_pairs(6, 10.0);
            let whole = joined(6, sizes, |rows| clip_block(&problem.as_problem(), &options, rows));
            alike(&whole, &clip(&problem.as_problem(), &options), 1e-14, 1.0);
        }
    }
}

#[test]
fn a_block_is_its_own_rows() {
    let problem = scattered_pairs(6, 5.0);
    let (whole, part) = (clip(&problem.as_problem(), &PLAIN), clip_block(&problem.as_problem(), &PLAIN, 2..4));
    assert_eq!(part.images, select(&whole.images, 3, &[2, 3]));
    assert_eq!(part.texts.len(), whole.texts.len());
}

#[test]
fn an_ignored_pair_is_not_there() {
    let mut problem = scattered_pairs(6, 5.0);
    problem.images[3..6].fill(f64::NAN);
    problem.texts[12..15].fill(f64::INFINITY);
    let left = problem.select(&[0, 2, 3, 5]);
    let found = clip(&problem.as_problem(), &ClipOptions { ids: Some(&[8, -1, 8, 3, -2, 0]), label_smoothing: 0.1 });
    let expected = clip(&left.as_problem(), &ClipOptions { ids: Some(&[8, 8, 3, 0]), label_smoothing: 0.1 });
    for gradient in [&found.images, &found.texts] {
        assert_eq!(select(gradient, 3, &[1, 4]), [0.0; 6]);
    }
    let images = select(&found.images, 3, &[0, 2, 3, 5]);
    let texts = select(&found.texts, 3, &[0, 2, 3, 5]);
    assert_eq!(Gradients { images, texts, ..found }, expected);
    let none = clip(&problem.as_problem(), &ClipOptions { ids: Some(&[-1; 6]), ..PLAIN });
    assert!(none.loss == 0.0 && none.scale == 0.0 && none.images == [0.0; 18] && none.texts == [0.0; 18]);
}

#[test]
fn what_is_not_finite_shows() {
    let mut problem = scattered_pairs(4, 5.0);
    problem.texts[7] = f64::NAN;
    let found = clip(&problem.as_problem(), &PLAIN);
    assert!(found.loss.is_nan() && found.scale.is_nan() && found.images.iter().all(|value| value.is_nan()));
}

#[test]
fn info_nce_is_clip_of_a_logarithm() {
    let (images, texts) = (scattered(18, 1), scattered(18, 100));
    let found = info_nce(&images, &texts, 6, 14.2857_f64.ln());
    let expected = clip(&scattered_pairs(6, 14.2857).as_problem(), &PLAIN);
    relative(found.loss, expected.loss, 1e-14);
    relative(found.logit_scale_gradient, 14.2857 * expected.scale, 1e-13);
    found.image_gradient.iter().zip(&expected.images).for_each(|(a, b)| near(*a, *b, 1e-13, 1.0));
    found.text_gradient.iter().zip(&expected.texts).for_each(|(a, b)| near(*a, *b, 1e-13, 1.0));
}
