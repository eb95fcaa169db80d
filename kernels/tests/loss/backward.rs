//! Gradients that are handed over while the walk goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernels::{backward, linear};
use tch::{Device, Kind, Tensor};

/// A small network, and its leaves from the loss backwards.
fn network() -> (Tensor, [Tensor; 4]) {
    tch::manual_seed(7);
    let leaf = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let [first, bias, second, scale] = [leaf(&[6, 5]), leaf(&[6]), leaf(&[3, 6]), leaf(&[])];
    let hidden = linear(&Tensor::randn([9, 5], (Kind::Float, Device::Cpu)), &first, Some(&bias), false).tanh();
    // A leaf that is used twice, once in part.
    let outputs = linear(&hidden, &second, None, false) + linear(&hidden, &second.narrow(0, 1, 1), None, false);
    ((outputs.square().mean(Kind::Float) * &scale), [scale, second, first, bias])
}

#[test]
fn each_gradient_is_whole_when_it_comes_and_comes_once() {
    let (loss, leaves) = network();
    let leaves: Vec<&Tensor> = leaves.iter().collect();
    let expected = Tensor::run_backward(&[&loss], &leaves, true, false);
    let mut found: Vec<(usize, Tensor)> = Vec::new();
    backward(&loss, &leaves, &mut |index, gradient| found.push((index, gradient.copy()))).expect("a walk");
    let order: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
    assert_eq!(order[..2], [0, 1], "the scale, then the layer near the loss: {order:?}");
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|(index, gradient)| gradient.equal(&expected[*index])));
    // Nothing is left in the leaves: neither gradients nor hooks, which would take this one.
    assert!(leaves.iter().all(|leaf| !leaf.grad().defined()));
    let square = leaves[1].square().sum(Kind::Float);
    let walked = Tensor::run_backward(&[&square], &[leaves[1]], false, false);
    assert!(walked[0].equal(&(leaves[1].detach() * 2.0)));
}

#[test]
fn a_leaf_without_a_gradient_is_an_error() {
    let (loss, leaves) = network();
    let stranger = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let error = backward(&loss, &[&leaves[0], &stranger], &mut |_, _| ()).expect_err("no way there");
    assert!(error.to_string().contains("does not depend on leaf 1, of shape [2, 3]"), "{error}");
}

#[test]
fn a_panic_ends_the_walk_and_comes_out() {
    let (loss, leaves) = network();
    let leaves: Vec<&Tensor> = leaves.iter().collect();
    let mut taken = 0;
    let walk = AssertUnwindSafe(|| {
        backward(&loss, &leaves, &mut |_, _| {
            taken += 1;
            assert!(taken < 2, "the second is one too many");
        })
    });
    let panic = catch_unwind(walk).expect_err("a panic");
    assert!(panic.downcast_ref::<&str>().is_some_and(|words| words.contains("one too many")));
    assert_eq!(taken, 2);
}
