//! The same bits each time, and slopes by differences through the kernels themselves.

use kernels::reference::sample::clip_like;

use crate::support::{Case, Found, Type, devices};

fn bits(found: &Found) -> Vec<u64> {
    let all = [found.loss, found.scale, found.bias].into_iter().chain(found.images.iter().chain(&found.texts).copied());
    all.map(f64::to_bits).collect()
}

#[test]
fn twenty_runs_give_the_same_bits_on_one_thread_and_on_two() {
    let case = Case::new("trained", clip_like(300, 40, 0.3, 0.1, 3), 40, 30.0);
    let before = tch::get_num_threads();
    for threads in [1, 2] {
        tch::set_num_threads(threads);
        for &device in devices() {
            for of in [Type::Fp32, Type::Fp32AsBf16, Type::Fp64] {
                for bias in [None, Some(-10.0)] {
                    for budget in [1 << 17, 1 << 30] {
                        let run = || {
                            let case = Case { bias, ..case.clone() };
                            bits(&Found::from(&case.run(of, device, budget).expect("gradients")))
                        };
                        let first = run();
                        let alike = (1..20).filter(|_| run() == first).count();
                        assert_eq!(alike, 19, "{of:?}, {device:?}, {threads} threads, bias {bias:?}, budget {budget}");
                    }
                }
            }
        }
    }
    tch::set_num_threads(before);
}

#[test]
fn gradients_are_slopes_of_the_loss() {
    let (pairs, depth) = (5, 3);
    let plain = Case::new("trained", clip_like(pairs, depth, 0.3, 0.1, 8), depth, 7.0);
    let ids = Some(vec![4, 1, 4, -1, 2]);
    let cases = [
        plain.clone(),
        Case { smoothing: 0.1, ..plain.clone() },
        Case { ids: ids.clone(), smoothing: 0.3, ..plain.clone() },
        Case { bias: Some(-2.0), ..plain.clone() },
        Case { bias: Some(-2.0), ids, ..plain.clone() },
    ];
    let step = 1e-6;
    for &device in devices() {
        for case in &cases {
            let found = Found::from(&case.run(Type::Fp64, device, 1 << 30).expect("gradients"));
            let slope = |nudge: &dyn Fn(&mut Case, f64)| {
                let at = |by: f64| {
                    let mut case = case.clone();
                    nudge(&mut case, by);
                    Found::from(&case.run(Type::Fp64, device, 1 << 30).expect("a loss")).loss
                };
                (at(step) - at(-step)) / (2.0 * step)
            };
            let slopes: Vec<(f64, f64)> = (0..pairs * depth)
                .flat_map(|k| {
                    let (image, text): (f64, f64) = (found.images[k], found.texts[k]);
                    [
                        (image, slope(&|case, by| case.features.0[k] += by)),
                        (text, slope(&|case, by| case.features.1[k] += by)),
                    ]
                })
                .chain([
                    (found.scale, slope(&|case, by| case.scale += by)),
                    (found.bias, slope(&|case, by| case.bias = case.bias.map(|bias| bias + by))),
                ])
                .collect();
            // Differences of a loss near 1 are off by 2^-53 / step = 1e-10, and by step^2 s^3 / 6 = 6e-11.
            let size = slopes.iter().map(|(found, _)| found.abs()).fold(0.0, f64::max);
            for (at, (found, slope)) in slopes.iter().enumerate() {
                assert!((found - slope).abs() <= 1e-7 * size, "{at}: {found} and {slope} by differences, {device:?}");
            }
        }
    }
}
