//! Layers against float64: values, gradients, strides, threads, and every way that a processor can take.
#![cfg(feature = "torch")]

mod again;

use again::{again, again_with_avx2};
use kernels::linear;
use tch::{Device, Kind, Tensor};

/// Rows, inputs and outputs: of one, odd ones, whole tiles, and beyond every block (64 or 96 rows, 256 rows of a sum,
/// 512 inputs, 64 outputs).
const SHAPES: [[i64; 3]; 8] =
    [[1, 1, 1], [5, 7, 9], [64, 64, 64], [300, 65, 130], [1000, 600, 70], [33, 1030, 17], [97, 3, 260], [513, 31, 96]];

fn leaf(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true)
}

/// The norm of the difference over that of what is expected.
fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]).sqrt();
    norm(&(found.to_kind(Kind::Double) - expected)) / norm(expected)
}

/// y and the gradients of x, W and b, walked back from `upstream`.
fn walked(y: &Tensor, upstream: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    let surrogate = (y * upstream).sum(y.kind());
    let mut all = vec![y.detach()];
    all.extend(Tensor::run_backward(&[&surrogate], leaves, false, false));
    all
}

/// The largest distance of value and gradients to float64's, of factors rounded to bfloat16 if `half`.
fn error(x: &Tensor, weight: &Tensor, bias: &Tensor, half: bool) -> f64 {
    let y = linear(x, weight, Some(bias), half);
    let upstream = Tensor::randn(y.size(), (Kind::Float, Device::Cpu));
    let found = walked(&y, &upstream, &[x, weight, bias]);
    let wide = |t: &Tensor| {
        let t = if half { t.to_kind(Kind::BFloat16) } else { t.shallow_clone() };
        t.detach().to_kind(Kind::Double)
    };
    let (x, weight, bias) = (wide(x), wide(weight), bias.detach().to_kind(Kind::Double));
    let rows = |t: &Tensor| t.reshape([-1, *t.size().last().expect("a matrix")]);
    let (dy, exact_dy) = (rows(&wide(&upstream)), rows(&upstream.to_kind(Kind::Double)));
    let expected = [
        x.matmul(&weight.tr()) + bias,
        dy.matmul(&weight).view_as(&x),
        dy.tr().matmul(&rows(&x)),
        exact_dy.sum_dim_intlist(&[0_i64][..], false, Kind::Double),
    ];
    found.iter().zip(&expected).map(|(found, expected)| apart(found, expected)).fold(0.0, f64::max)
}

#[test]
fn grid_of_shapes() {
    tch::manual_seed(1);
    for [rows, inputs, outputs] in SHAPES {
        let (x, weight, bias) = (leaf(&[rows, inputs]), leaf(&[outputs, inputs]), leaf(&[outputs]));
        for half in [false, true] {
            let error = error(&x, &weight, &bias, half);
            assert!(error < 2e-6, "{rows} rows, {inputs} to {outputs}, half: {half}: {error}");
        }
    }
}

#[test]
fn grid_of_strides_and_dimensions() {
    tch::manual_seed(2);
    let turned = leaf(&[40, 24]);
    let (x, bias) = (leaf(&[3, 17, 40]), leaf(&[24]));
    assert!(error(&x, &turned.tr(), &bias, false) < 2e-6, "a weight that is a transpose");
    let every_other = leaf(&[6, 17, 40]).slice(0, 0, 6, 2);
    assert!(error(&every_other, &leaf(&[24, 40]), &bias, true) < 2e-6, "rows with gaps, of three dimensions");
}

/// Without a bias, and where not everything needs a gradient: the same as with both.
#[test]
fn grid_of_what_is_wanted() {
    tch::manual_seed(3);
    let (x, weight) = (leaf(&[70, 33]), leaf(&[50, 33]));
    let zero = Tensor::zeros([50], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let upstream = Tensor::randn([70, 50], (Kind::Float, Device::Cpu));
    let all = walked(&linear(&x, &weight, Some(&zero), false), &upstream, &[&x, &weight, &zero]);
    let unbiased = walked(&linear(&x, &weight, None, false), &upstream, &[&x, &weight]);
    let of_input = walked(&linear(&x, &weight.detach(), Some(&zero.detach()), false), &upstream, &[&x]);
    let of_weight = walked(&linear(&x.detach(), &weight, Some(&zero), false), &upstream, &[&weight, &zero]);
    let of_bias = walked(&linear(&x, &weight.detach(), Some(&zero), false), &upstream, &[&zero]);
    let of_weight_alone = walked(&linear(&x, &weight, Some(&zero), false), &upstream, &[&weight]);
    assert!(unbiased.iter().zip(&all).all(|(a, b)| a.equal(b)));
    assert!(apart(&of_bias[1], &all[3].to_kind(Kind::Double)) < 1e-6 && of_weight_alone[1].equal(&all[2]));
    assert!(of_input[1].equal(&all[1]) && of_weight[1].equal(&all[2]) && of_weight[2].equal(&all[3]));
    assert!(!tch::no_grad(|| linear(&x, &weight, None, false)).requires_grad());
}

/// One thread or more give the same bits: how work is shared out changes no sum. With 64 outputs the weights' gradient
/// is shared out by 64, 32 and 16 rows.
#[test]
fn grid_of_threads() {
    tch::manual_seed(4);
    for outputs in [64, 160] {
        let (x, weight, bias) = (leaf(&[700, 96]), leaf(&[outputs, 96]), leaf(&[outputs]));
        let upstream = Tensor::randn([700, outputs], (Kind::Float, Device::Cpu));
        for half in [false, true] {
            let by = |threads| {
                tch::set_num_threads(threads);
                walked(&linear(&x, &weight, Some(&bias), half), &upstream, &[&x, &weight, &bias])
            };
            let one = by(1);
            for threads in [2, 4] {
                assert!(
                    one.iter().zip(&by(threads)).all(|(a, b)| a.equal(b)),
                    "{outputs} outputs, half: {half}, {threads} threads"
                );
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let found = std::panic::catch_unwind(|| linear(&leaf(&[2, 3]), &leaf(&[4, 5]), None, false));
    let words = found.expect_err("refused").downcast::<String>().expect("words");
    assert!(words.contains("linear takes x (.., k) and W (n, k), got [2, 3] and [4, 5]"), "{words}");
}

#[test]
fn products_for_avx2() {
    again_with_avx2(&["grid_"]);
}

#[test]
fn products_of_either_type_for_bfloat16() {
    again("fp32", &["grid_"]);
    again("bf16", &["grid_"]);
}
