//! Sequences of ever other lengths: generated kernels are kept for ever, so there may be only so many of them. A
//! process of its own, for its memory.
#![cfg(all(feature = "torch", target_os = "linux"))]

use std::fs;

use kernels::{Attending, BranchLayers, attention_branch};
use tch::{Device, Kind, Tensor};

const WIDTH: i64 = 64;
const MIB: u64 = 1 << 20;

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("a Linux process");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// Attention there and back over six groups of any length up to 77 and of any size.
fn step(draw: &mut impl FnMut() -> i64, layers: BranchLayers<'_>, half: bool) {
    let sequences: Vec<[i64; 2]> = (0..6).map(|_| [1 + draw() % 60, 1 + draw() % 77]).collect();
    let rows = sequences.iter().map(|[count, tokens]| count * tokens).sum();
    let x = Tensor::randn([rows, WIDTH], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let attending = Attending { sequences: &sequences, heads: 2, causal: true };
    let y = attention_branch(&x, layers, attending, None, half);
    Tensor::run_backward(&[y.sum(Kind::Float)], &[&x], false, false);
}

#[test]
fn memory_does_not_grow_with_the_number_of_groupings() {
    tch::set_num_threads(1);
    let drawn = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)) * 0.1;
    let all = [&[WIDTH][..], &[WIDTH], &[3 * WIDTH, WIDTH], &[3 * WIDTH], &[WIDTH, WIDTH], &[WIDTH]].map(drawn);
    let [gamma, beta, w1, b1, w2, b2] = &all;
    let layers = BranchLayers { norm: (gamma, beta), eps: 1e-5, input: (w1, b1), output: (w2, b2) };
    let mut state = 7_u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).expect("31 bits")
    };
    for half in [false, true] {
        (0..100).for_each(|_| step(&mut draw, layers, half));
        let before = resident();
        (0..300).for_each(|_| step(&mut draw, layers, half));
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 * MIB, "half: {half}: {} MiB by 300 groupings more", grown / MIB);
    }
}
