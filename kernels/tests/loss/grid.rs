//! Sizes, depths, scales, budgets and options of both losses, against the reference.

use kernels::reference::sample::{Features, clip_like, duplicates, opposite, separated, unit_rows};

use kernels::Wanted;
use tch::{Kind, Tensor};

use crate::support::{ALL_TYPES, Case, Found, Type, devices, hold, none, numbers, same};

const SIZES: [usize; 15] = [1, 2, 3, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 1000];
const DEPTHS: [usize; 18] = [1, 7, 16, 40, 63, 64, 100, 256, 511, 512, 513, 640, 768, 1000, 1024, 1025, 1280, 2048];
const SCALES: [f64; 5] = [1.0, 14.2857, 50.0, 100.0, 1000.0];
/// Without mercy; a chunk of 64 rows of 513 float32; several chunks, the last ragged; all.
const BUDGETS: &[u64] = &[0, 64 * 513 * 4, 200 * 513 * 4, 1 << 30];

fn trained(pairs: usize, depth: usize) -> Features {
    clip_like(pairs, depth, 0.3, 0.1, pairs as u64 + 17 * depth as u64)
}

/// InfoNCE, and the sigmoid loss.
fn both(case: Case, bias: f64) -> [Case; 2] {
    [case.clone(), Case { bias: Some(bias), ..case }]
}

#[test]
fn batches_of_every_size_around_a_tile_match() {
    hold(SIZES.into_iter().flat_map(|pairs| both(Case::new("trained", trained(pairs, 33), 33, 14.2857), -10.0)));
}

#[test]
fn a_batch_of_4097_matches() {
    // In numbers that all types hold, so that one reference serves all.
    let held = |x: Vec<f64>| {
        let rounded = numbers(&Tensor::from_slice(&x).to_kind(Kind::BFloat16));
        rounded.into_iter().map(|x| if x.abs() < 1e-4 { 0.0 } else { x }).collect()
    };
    let (images, texts) = trained(4097, 16);
    let case = Case::new("trained", (held(images), held(texts)), 16, 14.2857);
    hold(both(Case { budgets: &[32 << 20, 1 << 30], ..case }, -10.0));
}

#[test]
fn rows_of_every_width_match() {
    let cases = DEPTHS.into_iter().map(|depth| (70, depth)).chain([(300, 640)]);
    hold(cases.flat_map(|(pairs, depth)| {
        let [clip, siglip] = both(Case::new("trained", trained(pairs, depth), depth, 14.2857), -10.0);
        [clip, Case { types: &[Type::Fp32, Type::Bf16], ..siglip }]
    }));
}

#[test]
fn scales_from_untrained_to_hopeless_match() {
    let (pairs, depth) = (200, 64);
    let kinds: [(&str, Features, bool); 5] = [
        ("random", unit_rows(pairs, depth, 1), false),
        ("trained", trained(pairs, depth), false),
        ("opposite", opposite(pairs, depth, 2), true),
        ("separated", separated(60, depth, 3), false),
        ("duplicates", duplicates(pairs, depth, 4, 4), true),
    ];
    hold(kinds.into_iter().flat_map(|(words, features, cancels)| {
        SCALES.into_iter().map(move |scale| Case { cancels, ..Case::new(words, features.clone(), depth, scale) })
    }));
}

#[test]
fn budgets_change_nothing_but_time() {
    let case = Case::new("trained", trained(513, 40), 40, 50.0);
    hold(both(Case { budgets: BUDGETS, types: &ALL_TYPES, ..case }, -10.0));
}

#[test]
fn each_choice_of_gradients_gives_those_of_all() {
    let mut misses = Vec::new();
    let case = Case::new("trained", trained(300, 40), 40, 50.0);
    let choices = (0..16_u8).map(|bits| {
        let bit = |at: u8| bits >> at & 1 == 1;
        Wanted { images: bit(0), texts: bit(1), scale: bit(2), bias: bit(3) }
    });
    let choices: Vec<Wanted> = choices.collect();
    for &device in devices() {
        for case in both(case.clone(), -10.0) {
            for of in [Type::Fp32, Type::Bf16, Type::Fp64] {
                for budget in [0, 1 << 30] {
                    let all = Found::from(&case.run(of, device, budget).expect("gradients"));
                    for &wanted in &choices {
                        let words = format!("{wanted:?}, {of:?}, {device:?}, bias {:?}, budget {budget}", case.bias);
                        let some = case.some(of, device, budget, wanted).expect("gradients");
                        let has = [&some.images, &some.texts, &some.scale].map(Option::is_some);
                        assert_eq!(has, [wanted.images, wanted.texts, wanted.scale], "{words}");
                        assert_eq!(some.bias.is_some(), wanted.bias && case.bias.is_some(), "{words}");
                        let mut found = Found::from(&some);
                        if !wanted.images {
                            found.images.clone_from(&all.images);
                        }
                        if !wanted.texts {
                            found.texts.clone_from(&all.texts);
                        }
                        same(of, &found, &all, &words, &mut misses);
                        // Without the images' the scale's comes from the texts': in bfloat16 other roundings.
                        let by = if of == Type::Bf16 { 1e-3 } else { 1e-5 };
                        if wanted.scale && (found.scale - all.scale).abs() > by * all.scale.abs() {
                            misses.push(format!("{words}: ds is {}, not {}", found.scale, all.scale));
                        }
                        if some.bias.is_some() && found.bias.to_bits() != all.bias.to_bits() {
                            misses.push(format!("{words}: db is {}, not {}", found.bias, all.bias));
                        }
                    }
                }
            }
        }
    }
    none(&misses, choices.len());
}

#[test]
fn a_batch_as_wide_as_published_ones_matches() {
    let case = Case::new("trained", trained(1000, 512), 512, 100.0);
    hold([Case { types: &[Type::Fp32, Type::Bf16], ..case }]);
}

/// Ids with which each image has up to `captions`, in no order.
fn captions(pairs: i64, captions: i64) -> Vec<i64> {
    let images = (pairs + captions - 1) / captions;
    (0..pairs).map(|i| i * 7 % images + 5).collect()
}

/// Ids with -1 wherever `out` says so.
fn without(ids: Vec<i64>, out: impl Fn(usize) -> bool) -> Vec<i64> {
    ids.into_iter().enumerate().map(|(i, id)| if out(i) { -1 } else { id }).collect()
}

#[test]
fn captions_and_smoothing_match() {
    let (pairs, depth) = (131, 48);
    let mut cases = Vec::new();
    for (words, ids) in [
        ("no ids", None),
        ("a caption each", Some(captions(131, 1))),
        ("two captions each", Some(captions(131, 2))),
        ("five captions each", Some(captions(131, 5))),
        ("one image alone", Some(vec![3; pairs])),
    ] {
        let features = trained(pairs, depth);
        for smoothing in [0.0, 0.1, 1.0] {
            for scale in [10.0, 100.0] {
                let case = Case::new(words, features.clone(), depth, scale);
                cases.push(Case { ids: ids.clone(), smoothing, budgets: &[0, 1 << 30], ..case });
            }
        }
    }
    hold(cases);
}

#[test]
fn pairs_that_are_ignored_are_as_if_they_were_not_there() {
    let (pairs, depth) = (131, 48);
    let own = || captions(131, 1);
    let mut cases = Vec::new();
    for (words, ids) in [
        ("without the first", without(own(), |i| i == 0)),
        ("without the last", without(own(), |i| i == 130)),
        ("without two of three", without(own(), |i| i % 3 != 1)),
        ("without any", without(own(), |_| true)),
        ("one alone", without(own(), |i| i != 77)),
        ("captions, some ignored", without(captions(131, 3), |i| i % 5 == 2)),
    ] {
        let case = Case { ids: Some(ids), ..Case::new(words, trained(pairs, depth), depth, 20.0) };
        cases.extend(both(case.clone(), -10.0));
        cases.push(Case { smoothing: 0.1, ..case });
    }
    hold(cases);
}

#[test]
fn the_sigmoid_loss_matches_with_and_without_captions() {
    let (pairs, depth) = (131, 48);
    let mut cases = Vec::new();
    for (words, ids) in [("no ids", None), ("three captions each", Some(captions(131, 3)))] {
        for bias in [-10.0, 0.0] {
            for scale in [10.0, 30.0, 100.0] {
                let case = Case::new(words, trained(pairs, depth), depth, scale);
                cases.push(Case { ids: ids.clone(), bias: Some(bias), ..case });
            }
        }
    }
    hold(cases);
}

/// Each text is the opposite of the next pair's image: below zero, one negative outweighs all else of its row.
fn turned(pairs: usize, depth: usize) -> Features {
    let (images, _) = separated(pairs, depth, 3);
    let texts = (0..images.len()).map(|at| -images[(at + depth) % images.len()]).collect();
    (images, texts)
}

#[test]
fn a_scale_below_zero_matches() {
    let (pairs, depth) = (60, 64);
    let types = &[Type::Fp32, Type::Bf16, Type::Fp64];
    let cases = [-20.0, -120.0].into_iter().flat_map(|scale| {
        [("trained", trained(pairs, depth)), ("opposite", opposite(pairs, depth, 2)), ("turned", turned(pairs, depth))]
            .map(|(words, features)| (words, features, scale))
    });
    hold(cases.map(|(words, features, scale)| Case {
        types,
        cancels: words == "opposite",
        ..Case::new(words, features, depth, scale)
    }));
}

/// Three captions an image, all near its direction: the slopes of right pairs nearly cancel, and so does the loss of
/// the sigmoid.
#[test]
fn confident_captions_keep_their_digits() {
    let (pairs, depth) = (180, 128);
    let (centres, _) = unit_rows(pairs / 3, depth, 5);
    let near = |noise: Vec<f64>| -> Vec<f64> {
        let rows = noise.chunks_exact(depth).enumerate().flat_map(|(i, noise)| {
            let centre = &centres[i / 3 * depth..][..depth];
            let row: Vec<f64> = centre.iter().zip(noise).map(|(centre, noise)| centre + 0.1 * noise).collect();
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.into_iter().map(move |x| x / norm)
        });
        rows.collect()
    };
    let (images, texts) = unit_rows(pairs, depth, 6);
    let features = (near(images), near(texts));
    let ids: Vec<i64> = (0..180).map(|i| i / 3).collect();
    hold([(30.0, -15.0), (60.0, -25.0), (80.0, -35.0), (-60.0, -25.0)].into_iter().flat_map(|(scale, bias)| {
        let case = Case::new("confident captions", features.clone(), depth, scale);
        // float16 itself cannot hold such gradients.
        let types = &[Type::Fp32, Type::Fp32AsBf16, Type::Fp64];
        both(Case { ids: Some(ids.clone()), types, budgets: &[0, 1 << 30], ..case }, bias)
    }));
}

/// The largest logit is that of the smallest product, and the norms' bound is far above it.
#[test]
fn a_scale_below_zero_takes_the_right_offset() {
    let (images, mut texts) = unit_rows(64, 256, 7);
    for (text, image) in texts[..256].iter_mut().zip(&images[256..512]) {
        *text = -image;
    }
    hold([-140.0, -400.0].map(|scale| {
        let case = Case::new("one opposite pair", (images.clone(), texts.clone()), 256, scale);
        Case { types: &[Type::Fp32, Type::Fp32AsBf16, Type::Fp64], ..case }
    }));
}
