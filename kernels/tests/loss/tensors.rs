//! How features lie in memory, features that are not numbers, and rows of zeros.

use kernels::reference::sample::clip_like;
use kernels::reference::{ClipOptions, Problem, clip};
use kernels::{Compute, Gradients, Options, Wanted, clip_gradients, siglip_gradients};
use tch::{Device, Kind, Tensor};

use crate::support::{devices, distance, matrix, number, numbers};

const PAIRS: usize = 67;
const DEPTH: usize = 24;

fn features(kind: Kind, device: Device) -> [Tensor; 2] {
    let (images, texts) = clip_like(PAIRS, DEPTH, 0.3, 0.1, 21);
    [images, texts].map(|x| matrix(&x, DEPTH).to_kind(kind).to_device(device))
}

/// Both losses and all gradients.
fn both(images: &Tensor, texts: &Tensor) -> [Gradients; 2] {
    let scale = Tensor::from(20.0).to_device(images.device());
    let bias = Tensor::from(-5.0).to_device(images.device());
    let options = Options::default();
    [
        clip_gradients(images, texts, &scale, &options, Wanted::ALL, None).expect("gradients"),
        siglip_gradients(images, texts, &scale, &bias, &options, Wanted::ALL, None).expect("gradients"),
    ]
}

fn all(found: &Gradients) -> [&Tensor; 4] {
    let wanted = |x| Option::as_ref(x).expect("wanted");
    [&found.loss, wanted(&found.images), wanted(&found.texts), wanted(&found.scale)]
}

#[track_caller]
fn same_bits(a: &[Gradients; 2], b: &[Gradients; 2], words: &str) {
    for (a, b) in a.iter().zip(b) {
        for (which, (a, b)) in all(a).into_iter().zip(all(b)).enumerate() {
            assert_eq!((a.size(), a.kind()), (b.size(), b.kind()), "{words}: output {which}");
            assert!(a.equal(b), "{words}: output {which} differs");
        }
    }
}

/// The same numbers, otherwise in memory.
fn laid_out(x: &Tensor) -> Vec<(&'static str, Tensor)> {
    let [rows, columns] = [x.size()[0], x.size()[1]];
    let wide = Tensor::zeros([rows, 2 * columns + 1], (x.kind(), x.device()));
    let mut every_second = wide.slice(1, 1, 2 * columns + 1, 2);
    every_second.copy_(x);
    let long = Tensor::zeros([rows * columns + 3], (x.kind(), x.device()));
    let mut with_offset = long.narrow(0, 3, rows * columns).view([rows, columns]);
    with_offset.copy_(x);
    vec![
        ("every second column", every_second),
        ("transposed storage", x.tr().contiguous().tr()),
        ("an offset in storage", with_offset),
        ("rows of a wider matrix", Tensor::cat(&[x, x], 1).narrow(1, columns, columns)),
        ("backwards twice", x.flip([0]).flip([0])),
    ]
}

#[test]
fn any_layout_gives_the_bits_of_a_contiguous_copy() {
    for &device in devices() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            let [images, texts] = features(kind, device);
            let expected = both(&images, &texts);
            for (words, other) in laid_out(&images) {
                same_bits(&both(&other, &texts), &expected, &format!("images, {words}, {kind:?}"));
            }
            for (words, other) in laid_out(&texts) {
                same_bits(&both(&images, &other), &expected, &format!("texts, {words}, {kind:?}"));
            }
            let expanded = images.get(0).unsqueeze(0).expand_as(&images);
            same_bits(&both(&expanded, &texts), &both(&expanded.contiguous(), &texts), "one image for all");
        }
    }
}

#[test]
fn towers_of_two_types_meet_in_the_wider_one() {
    for &device in devices() {
        let wide = |a: Kind, b: Kind| if a == Kind::Double || b == Kind::Double { Kind::Double } else { Kind::Float };
        for a in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            for b in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
                if a == b {
                    continue;
                }
                let (images, texts) = (&features(a, device)[0], &features(b, device)[1]);
                let kind = wide(a, b);
                let found = both(images, texts);
                let expected = both(&images.to_kind(kind), &texts.to_kind(kind)).map(|found| Gradients {
                    images: found.images.map(|x| x.to_kind(a)),
                    texts: found.texts.map(|x| x.to_kind(b)),
                    ..found
                });
                same_bits(&found, &expected, &format!("{a:?} images and {b:?} texts"));
            }
        }
    }
}

#[test]
fn products_in_another_type_are_those_of_features_in_that_type() {
    for &device in devices() {
        let scale = Tensor::from(20.0).to_device(device);
        let run = |[images, texts]: &[Tensor; 2], compute| {
            let options = Options { compute, ..Options::default() };
            clip_gradients(images, texts, &scale, &options, Wanted::ALL, None).expect("gradients")
        };
        for (from, compute, to) in [
            (Kind::Float, Compute::Fp64, Kind::Double),
            (Kind::BFloat16, Compute::Fp64, Kind::Double),
            (Kind::BFloat16, Compute::Fp32, Kind::Float),
            (Kind::Half, Compute::Fp32, Kind::Float),
            (Kind::Float, Compute::Bf16, Kind::BFloat16),
            (Kind::Double, Compute::Bf16, Kind::BFloat16),
            (Kind::Double, Compute::Fp32, Kind::Float),
        ] {
            let given = features(from, device);
            let found = run(&given, compute);
            let expected = run(&given.each_ref().map(|x| x.to_kind(to)), Compute::Automatic);
            assert!(found.loss.equal(&expected.loss), "{from:?} in {compute:?}");
            for (found, expected) in [(found.images, expected.images), (found.texts, expected.texts)] {
                let (found, expected) = (found.expect("wanted"), expected.expect("wanted"));
                assert_eq!(found.kind(), from);
                // Each is rounded to its features' type: to the coarser one, they are the same.
                let bits = |kind: Kind| match kind {
                    Kind::BFloat16 => 8,
                    Kind::Half => 11,
                    Kind::Float => 24,
                    _ => 53,
                };
                let coarse = if bits(from) < bits(to) { from } else { to };
                assert!(found.to_kind(coarse).equal(&expected.to_kind(coarse)), "{from:?} in {compute:?}");
            }
        }
    }
}

/// Loss, dI and dT of eager libtorch.
fn eager(images: &Tensor, texts: &Tensor) -> [Tensor; 3] {
    let [images, texts] = [images, texts].map(|x| x.copy().set_requires_grad(true));
    let logits = images.matmul(&texts.tr()) * 20.0;
    let own = Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()));
    let loss = (logits.cross_entropy_for_logits(&own) + logits.tr().cross_entropy_for_logits(&own)) / 2.0;
    loss.backward();
    [loss.detach(), images.grad(), texts.grad()]
}

#[test]
fn what_is_not_a_number_in_eager_libtorch_is_not_one_here() {
    for &device in devices() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
            for (what, value) in [("NaN", f64::NAN), ("infinity", f64::INFINITY), ("-infinity", f64::NEG_INFINITY)] {
                for tower in [0, 1] {
                    for row in [0, 5, 66] {
                        let words = format!("{what} in row {row} of tower {tower}, {kind:?}, {device:?}");
                        let features = features(kind, device);
                        let _ = features[tower].get(row).get(3).fill_(value);
                        let [images, texts] = &features;
                        let [clip, siglip] = both(images, texts);
                        let expected = eager(&images.to_kind(Kind::Double), &texts.to_kind(Kind::Double));
                        assert!(number(&clip.loss).is_nan() && !number(&siglip.loss).is_finite(), "{words}: the loss");
                        for (found, expected) in all(&clip).into_iter().zip(&expected) {
                            let missed = expected.isnan().logical_and(&found.isnan().logical_not()).sum(Kind::Int64);
                            assert_eq!(missed.int64_value(&[]), 0, "{words}: numbers where eager has NaN");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_zeros_are_finite_and_right() {
    for &device in devices() {
        for (zeros, scale) in [(vec![0_usize], 20.0), (vec![3, 4, 66], 100.0), ((0..PAIRS).collect(), 20.0)] {
            let (mut images, mut texts) = clip_like(PAIRS, DEPTH, 0.3, 0.1, 21);
            for row in &zeros {
                images[row * DEPTH..][..DEPTH].fill(0.0);
                texts[row * DEPTH..][..DEPTH].fill(0.0);
            }
            let [u, v] = [&images, &texts].map(|x| matrix(x, DEPTH).to_device(device));
            let problem = Problem { images: &images, texts: &texts, depth: DEPTH, scale };
            let truth = clip(&problem, &ClipOptions::default());
            let s = Tensor::from(scale).to_device(device);
            for (kind, by) in [(Kind::Double, 1e-12), (Kind::Float, 2e-5)] {
                let (u, v) = (u.to_kind(kind), v.to_kind(kind));
                let found = clip_gradients(&u, &v, &s, &Options::default(), Wanted::ALL, None).expect("gradients");
                let loss = number(&found.loss);
                assert!((loss - truth.loss).abs() <= by * truth.loss, "{zeros:?}: {loss}, not {}", truth.loss);
                for (found, truth) in [(&found.images, &truth.images), (&found.texts, &truth.texts)] {
                    let (error, size) = distance(&numbers(found.as_ref().expect("wanted")), truth);
                    assert!(error <= by * size, "{zeros:?}, {kind:?}: off by {error:e} of {size:e}");
                }
            }
        }
    }
}
