//! What is computed again on the way back: gradients, what is kept, and what goes wrong.
#![cfg(feature = "torch")]

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::recompute;
use tch::{Device, Kind, Tensor};

fn leaf(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Double, Device::Cpu)).set_requires_grad(true)
}

fn product(inputs: &[Tensor]) -> Tensor {
    inputs[0].matmul(&inputs[1]).tanh()
}

#[test]
fn gradients_are_those_of_a_plain_call() {
    let leaves = [leaf(&[5, 3]), leaf(&[3, 4])];
    let gradients = |y: Tensor| Tensor::run_backward(&[(&y * &y).sum(Kind::Double)], &leaves, false, false);
    let expected = gradients(product(&leaves.each_ref().map(Tensor::shallow_clone)));
    let found = gradients(recompute(&[&leaves[0], &leaves[1]], product));
    assert_eq!(found, expected);
    // An input that wants none has none, and another one's is the same.
    let (constant, y) = (leaves[0].detach(), |x: &Tensor| recompute(&[x, &leaves[1]], product));
    let found = Tensor::run_backward(&[y(&constant).square().sum(Kind::Double)], &[&leaves[1]], false, false);
    assert_eq!(found[0], expected[1]);
}

#[test]
fn it_is_computed_once_there_and_once_on_the_way_back() {
    let (calls, x) = (Arc::new(AtomicUsize::new(0)), leaf(&[2, 2]));
    let counted = |calls: &Arc<AtomicUsize>| {
        let calls = Arc::clone(calls);
        move |inputs: &[Tensor]| {
            calls.fetch_add(1, Ordering::Relaxed);
            inputs[0].exp()
        }
    };
    let y = recompute(&[&x], counted(&calls)).sum(Kind::Double);
    assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&calls)), (1, 2), "the graph has it");
    let _ = Tensor::run_backward(&[&y], &[&x], false, false);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    drop(y);
    assert_eq!(Arc::strong_count(&calls), 1, "and lets it go");
    let _ = tch::no_grad(|| recompute(&[&x], counted(&calls)));
    assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&calls)), (3, 1));
}

#[test]
fn a_panic_comes_out_there_and_is_an_error_on_the_way_back() {
    let x = leaf(&[2]);
    let there = catch_unwind(|| recompute(&[&x], |_| panic!("no memory, say")));
    let words = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<String>().expect("words");
    assert!(words(there.expect_err("a panic")).contains("a part of the forward pass has failed"));
    let calls = AtomicUsize::new(0);
    let y = recompute(&[&x], move |inputs| {
        assert_eq!(calls.fetch_add(1, Ordering::Relaxed), 0, "no memory, say");
        inputs[0].exp()
    });
    let back = kernels::backward(&y.sum(Kind::Double), &[&x], &mut |_, _| ());
    let words = back.expect_err("an error").to_string();
    assert!(words.contains("a part of the forward pass has failed"), "{words}");
}
