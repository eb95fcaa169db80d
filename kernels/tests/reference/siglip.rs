//! SigLIP's loss.

use kernels::reference::{Gradients, Problem, sample, siglip, siglip_block};

use crate::support::{Owned, alike, confident_pairs, finite, joined, near, relative, scattered_pairs, select, slopes};

const IDS: [Option<&[i64]>; 4] =
    [None, Some(&[7, 3, 7, 9, 3, 7]), Some(&[0, -1, 2, 3, -5, 5]), Some(&[7, 3, 7, -1, 2, 3])];

#[test]
fn two_pairs_by_hand() {
    // u = v = identity, s = 2, bias -1: x = 1 on the diagonal, -1 off it: each of the four terms is ln (1 + 1/e).
    let identity = [1.0, 0.0, 0.0, 1.0];
    let found = siglip(&Problem { images: &identity, texts: &identity, depth: 2, scale: 2.0 }, -1.0, None);
    let q = 1.0 / (1.0 + 1.0_f64.exp());
    relative(found.loss, 2.0 * (-1.0_f64).exp().ln_1p(), 1e-15);
    relative(found.scale, -q, 1e-15);
    assert!(found.bias.abs() < 1e-16);
    for (k, sign) in [-1.0, 1.0, 1.0, -1.0].into_iter().enumerate() {
        relative(found.images[k], sign * q, 1e-15);
        relative(found.texts[k], sign * q, 1e-15);
    }
}

#[test]
fn agrees_with_sixty_digits() {
    // mpmath: s, bias, loss, dL/ds, dL/dbias.
    let known = [
        (10.0, -10.0, 9.509_253_565_606_82, 0.365_251_643_349_440_8, -0.505_601_622_345_715_7),
        (100.0, -10.0, 161.572_522_878_756_5, 1.749_058_562_120_89, 1.333_333_333_333_375),
    ];
    for (scale, bias, loss, slope, bias_slope) in known {
        let found = siglip(&scattered_pairs(6, scale).as_problem(), bias, None);
        relative(found.loss, loss, 1e-13);
        relative(found.scale, slope, 1e-13);
        relative(found.bias, bias_slope, 1e-13);
    }
    let found = siglip(&confident_pairs(14.2857).as_problem(), -5.0 * 14.2857, None);
    relative(found.loss, 0.001_395_439_896_264_343_8, 1e-12);
    relative(found.scale, 0.006_415_457_967_287_395, 1e-12);
    relative(found.bias, 0.001_389_950_542_086_555_4, 1e-12);
}

#[test]
fn confident_pairs_keep_their_digits() {
    // Orthonormal rows: x = s/2 in pairs, -s/2 between them, B terms a row: L = B ln (1 + e^(-s/2)).
    let b = 8;
    for scale in [20.0, 55.0, 100.0, 1000.0] {
        let problem = Owned::new(sample::separated(b, b, 1), b, scale);
        let found = siglip(&problem.as_problem(), -scale / 2.0, None);
        relative(found.loss, 8.0 * (-scale / 2.0).exp().ln_1p(), 1e-12);
    }
}

#[test]
fn gradients_are_slopes() {
    for ids in IDS {
        for (scale, bias) in [(1.0, 0.0), (10.0, -10.0), (14.2857, 3.0), (100.0, -10.0)] {
            let problem = scattered_pairs(6, scale);
            let found = siglip(&problem.as_problem(), bias, ids);
            let loss = |bias: f64| siglip(&problem.as_problem(), bias, ids).loss;
            let by_differences = Gradients {
                bias: (loss(bias + 1e-6) - loss(bias - 1e-6)) / 2e-6,
                ..slopes(&problem, |problem| siglip(problem, bias, ids).loss)
            };
            alike(&found, &by_differences, 1e-6, 1.0);
        }
    }
}

#[test]
fn huge_logits_are_linear() {
    // Two equal pairs, every logit x: of each row one term is ln (1 + e^-x) and one ln (1 + e^x), together |x| here.
    for x in [1e5, -1e5] {
        let found = siglip(&Problem { images: &[1.0, 1.0], texts: &[1.0, 1.0], depth: 1, scale: x }, 0.0, None);
        relative(found.loss, x.abs(), 1e-15);
        relative(found.scale, x.signum(), 1e-15);
        relative(found.bias, x.signum(), 1e-15);
        assert!(finite(&found));
    }
}

#[test]
fn blocks_add_up() {
    for ids in IDS {
        for sizes in [&[6][..], &[1, 2, 3], &[2, 0, 4], &[1; 6]] {
            let problem = scattered_pairs(6, 10.0);
            let whole = joined(6, sizes, |rows| siglip_block(&problem.as_problem(), -3.0, ids, rows));
            alike(&whole, &siglip(&problem.as_problem(), -3.0, ids), 1e-14, 1.0);
        }
    }
}

#[test]
fn an_ignored_pair_is_not_there() {
    let mut problem = scattered_pairs(6, 5.0);
    problem.images[3..6].fill(f64::NAN);
    let left = problem.select(&[0, 2, 3, 5]);
    let found = siglip(&problem.as_problem(), -3.0, Some(&[8, -1, 8, 3, -2, 0]));
    let expected = siglip(&left.as_problem(), -3.0, Some(&[8, 8, 3, 0]));
    for gradient in [&found.images, &found.texts] {
        assert_eq!(select(gradient, 3, &[1, 4]), [0.0; 6]);
    }
    let images = select(&found.images, 3, &[0, 2, 3, 5]);
    let texts = select(&found.texts, 3, &[0, 2, 3, 5]);
    assert_eq!(Gradients { images, texts, ..found }, expected);
    let none = siglip(&problem.as_problem(), -3.0, Some(&[-1; 6]));
    assert!(none.loss == 0.0 && none.scale == 0.0 && none.bias == 0.0 && none.images == [0.0; 18]);
}

#[test]
fn equal_ids_are_positives() {
    // Of one id, every z is 1: the loss of x is that of -x under distinct signs.
    let problem = scattered_pairs(3, 2.0);
    let found = siglip(&problem.as_problem(), 0.5, Some(&[4; 3]));
    let softplus = |x: f64| x.exp().ln_1p();
    let mut expected = 0.0;
    for u in problem.images.chunks_exact(3) {
        for v in problem.texts.chunks_exact(3) {
            expected += softplus(-(2.0 * u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>() + 0.5)) / 3.0;
        }
    }
    near(found.loss, expected, 1e-14, 1.0);
}
