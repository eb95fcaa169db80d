//! The losses in a graph: upstream gradients, graphs walked twice, what is wanted of them, and eager libtorch beside.

use kernels::reference::sample::clip_like;
use kernels::{Options, Wanted, clip_gradients, clip_loss, siglip_gradients, siglip_loss};
use tch::{Device, Kind, Tensor, no_grad};

use crate::support::{devices, distance, matrix, number, numbers};

const PAIRS: usize = 37;
const DEPTH: usize = 24;

/// Leaves of a graph.
struct Leaves {
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Tensor,
}

impl Leaves {
    /// `wanted`: which of images, texts, scale and bias require a gradient.
    fn new(kind: Kind, device: Device, wanted: [bool; 4]) -> Self {
        let (images, texts) = clip_like(PAIRS, DEPTH, 0.3, 0.1, 5);
        let numbers = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let leaf = |x: Tensor, kind, wanted: bool| x.to_kind(kind).to_device(device).set_requires_grad(wanted);
        Leaves {
            images: leaf(matrix(&images, DEPTH), kind, wanted[0]),
            texts: leaf(matrix(&texts, DEPTH), kind, wanted[1]),
            scale: leaf(Tensor::from(20.0), numbers, wanted[2]),
            bias: leaf(Tensor::from(-3.0), numbers, wanted[3]),
        }
    }

    fn clip(&self) -> Tensor {
        clip_loss(&self.images, &self.texts, &self.scale, &Options::default()).expect("a loss")
    }

    fn siglip(&self) -> Tensor {
        siglip_loss(&self.images, &self.texts, &self.scale, &self.bias, &Options::default()).expect("a loss")
    }

    fn all(&self) -> [&Tensor; 4] {
        [&self.images, &self.texts, &self.scale, &self.bias]
    }

    /// What a backward left in the leaves.
    fn gradients(&self) -> Vec<Vec<f64>> {
        self.all().iter().map(|leaf| leaf.grad()).map(|x| if x.defined() { numbers(&x) } else { Vec::new() }).collect()
    }

    fn logits(&self) -> Tensor {
        self.images.matmul(&self.texts.tr()) * &self.scale
    }

    fn eager_clip(&self) -> Tensor {
        let logits = self.logits();
        let own = Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()));
        let side = |logits: &Tensor| logits.log_softmax(-1, logits.kind()).nll_loss(&own);
        (side(&logits) + side(&logits.tr())) / 2.0
    }

    fn eager_siglip(&self) -> Tensor {
        let logits = self.logits() + &self.bias;
        let signs = Tensor::eye(logits.size()[0], (logits.kind(), logits.device())) * 2.0 - 1.0;
        -(logits * signs).log_sigmoid().sum(Kind::Double) / PAIRS as f64
    }
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], by: f64, words: &str) {
    let (error, size) = distance(found, expected);
    assert!(error <= by * size, "{words}: off by {:.3e}, allowed {by:.0e}", error / size);
}

fn times(x: &[f64], factor: f64) -> Vec<f64> {
    x.iter().map(|x| x * factor).collect()
}

/// A loss of leaves.
type Loss = fn(&Leaves) -> Tensor;

/// The loss by its name, ours and eager.
fn losses() -> [(&'static str, Loss, Loss); 2] {
    [("clip", Leaves::clip, Leaves::eager_clip), ("siglip", Leaves::siglip, Leaves::eager_siglip)]
}

#[test]
fn loss_and_gradients_are_those_of_eager_autograd_in_float64() {
    for &device in devices() {
        for (name, ours, eager) in losses() {
            let [ours_leaves, eager_leaves] = [0, 1].map(|_| Leaves::new(Kind::Double, device, [true; 4]));
            let [a, b] = [ours(&ours_leaves), eager(&eager_leaves)];
            near(&[number(&a)], &[number(&b)], 1e-12, name);
            a.backward();
            b.backward();
            for (found, expected) in ours_leaves.gradients().iter().zip(&eager_leaves.gradients()) {
                near(found, expected, 1e-12, name);
            }
        }
    }
}

#[test]
fn upstream_gradients_multiply() {
    for &device in devices() {
        // Rounding of the result, twice.
        for (kind, by) in [(Kind::Float, 1e-6), (Kind::Double, 1e-15), (Kind::BFloat16, 4e-3), (Kind::Half, 1e-3)] {
            for (name, loss, _) in losses() {
                let at = |factor: f64| {
                    let leaves = Leaves::new(kind, device, [true; 4]);
                    (loss(&leaves) * factor).backward();
                    leaves.gradients()
                };
                let once = at(1.0);
                for factor in [-3.5, 1.0 / 3.0] {
                    for (found, one) in at(factor).iter().zip(&once) {
                        near(found, &times(one, factor), by, &format!("{name}, {kind:?}, {factor}"));
                    }
                }
            }
        }
    }
}

/// dL/d images in float32, of features that were rounded to `kind`.
fn unrounded(kind: Kind, device: Device) -> Vec<f64> {
    let Leaves { images, texts, scale, .. } = Leaves::new(kind, device, [false; 4]);
    let [images, texts] = [images, texts].map(|x| x.to_kind(Kind::Float));
    let found = clip_gradients(&images, &texts, &scale, &Options::default(), Wanted::ALL, None).expect("gradients");
    numbers(&found.images.expect("wanted"))
}

#[test]
fn a_third_of_the_loss_gives_a_third_of_the_gradient_in_bfloat16() {
    for &device in devices() {
        let leaves = Leaves::new(Kind::BFloat16, device, [true; 4]);
        (leaves.clip() / 3.0).backward();
        let (found, truth) = (numbers(&leaves.images.grad()), times(&unrounded(Kind::BFloat16, device), 1.0 / 3.0));
        // A third as a bfloat16 is off by 2e-3, and all gradients would be with it, in one direction.
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let along = dot(&found, &truth) / dot(&truth, &truth);
        assert!((along - 1.0).abs() < 5e-4, "gradients are {along} times what they should be");
    }
}

#[test]
fn a_loss_scaled_for_float16_keeps_small_gradients() {
    for &device in devices() {
        let truth = unrounded(Kind::Half, device);
        // What gradient scalers start with, which is more than float16 can hold; and a loss of small gradients, scaled.
        for (smaller, scaler) in [(1.0, 65536.0), (1e-4, 65536.0)] {
            let leaves = Leaves::new(Kind::Half, device, [true; 4]);
            (leaves.clip() * smaller * scaler).backward();
            near(&numbers(&leaves.images.grad()), &times(&truth, smaller * scaler), 4e-4, "scaled");
        }
    }
}

#[test]
fn gradients_have_the_types_of_what_they_are_gradients_of() {
    let kinds = [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half];
    for &device in devices() {
        for (at, kind) in kinds.into_iter().enumerate() {
            for (name, loss, _) in losses() {
                let mut leaves = Leaves::new(kind, device, [true; 4]);
                let other = kinds[(at + 1) % 4];
                let again = |x: &Tensor| x.detach().to_kind(other).set_requires_grad(true);
                (leaves.scale, leaves.bias) = (again(&leaves.scale), again(&leaves.bias));
                (loss(&leaves) * 2.0).backward();
                for leaf in &leaves.all()[..if name == "clip" { 3 } else { 4 }] {
                    assert_eq!(
                        (leaf.grad().kind(), leaf.grad().size()),
                        (leaf.kind(), leaf.size()),
                        "{name}, {kind:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_graph_can_be_walked_twice_and_gradients_add_up() {
    for &device in devices() {
        for (name, loss, _) in losses() {
            let leaves = Leaves::new(Kind::Float, device, [true; 4]);
            let found = loss(&leaves);
            let inputs = leaves.all().map(Tensor::shallow_clone);
            let inputs = if name == "clip" { &inputs[..3] } else { &inputs[..] };
            let walk = |keep| Tensor::run_backward(&[&found], inputs, keep, false);
            let first = walk(true);
            let second = walk(true);
            assert!(first.iter().zip(&second).all(|(a, b)| a.equal(b)), "{name}");
            found.backward();
            let once = leaves.gradients();
            loss(&leaves).backward();
            for (twice, once) in leaves.gradients().iter().zip(&once) {
                near(twice, &times(once, 2.0), 1e-7, name);
            }
        }
    }
}

#[test]
fn only_what_requires_a_gradient_gets_one_and_it_is_the_same() {
    for &device in devices() {
        for (name, loss, _) in losses() {
            let all = Leaves::new(Kind::Double, device, [true; 4]);
            loss(&all).backward();
            let all = all.gradients();
            for one in 0..if name == "clip" { 3 } else { 4 } {
                let mut wanted = [false; 4];
                wanted[one] = true;
                let leaves = Leaves::new(Kind::Double, device, wanted);
                loss(&leaves).backward();
                for (which, found) in leaves.gradients().iter().enumerate() {
                    if which == one {
                        near(found, &all[which], 1e-12, &format!("{name}, {which} alone"));
                    } else {
                        assert!(found.is_empty(), "{name}: {which} has a gradient and {one} alone wants one");
                    }
                }
            }
        }
    }
}

#[test]
fn without_a_graph_the_loss_has_the_same_bits_and_no_history() {
    for &device in devices() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
            for (name, loss, _) in losses() {
                let with = Leaves::new(kind, device, [true; 4]);
                let (graph, bare) = (loss(&with), no_grad(|| loss(&with)));
                let none = loss(&Leaves::new(kind, device, [false; 4]));
                assert!(graph.requires_grad() && !bare.requires_grad() && !none.requires_grad(), "{name}");
                let same = [&bare, &none].iter().all(|x| x.equal(&graph));
                assert!(same, "{name}, {kind:?}: {} and {} and {}", number(&graph), number(&bare), number(&none));
            }
        }
    }
}

#[test]
fn a_second_derivative_is_refused_in_words() {
    for &device in devices() {
        for (name, loss, _) in losses() {
            let leaves = Leaves::new(Kind::Float, device, [true; 4]);
            let error = Tensor::f_run_backward(&[loss(&leaves)], &[&leaves.images], true, true);
            let error = error.expect_err("there is none").to_string();
            assert!(error.contains("no second derivative") && error.contains("create_graph"), "{name}: {error}");
        }
    }
}

#[test]
fn the_gradient_goes_on_into_the_logarithm_of_the_scale() {
    for &device in devices() {
        for (name, loss, _) in losses() {
            let plain = Leaves::new(Kind::Double, device, [true; 4]);
            loss(&plain).backward();
            let logarithm = Tensor::from(20_f64.ln()).to_device(device).set_requires_grad(true);
            let mut leaves = Leaves::new(Kind::Double, device, [true; 4]);
            leaves.scale = logarithm.exp();
            loss(&leaves).backward();
            near(&numbers(&logarithm.grad()), &times(&plain.gradients()[2], 20.0), 1e-12, name);
        }
    }
}

#[test]
fn the_surrogate_gives_parameters_the_gradients_of_autograd() {
    for &device in devices() {
        for (name, _, _) in losses() {
            let inputs = Leaves::new(Kind::Double, device, [false; 4]);
            let tower = |x: &Tensor, weight: &Tensor| {
                let y = x.matmul(weight).tanh();
                let length = y.square().sum_dim_intlist([1_i64].as_slice(), true, Kind::Double).sqrt();
                y / length
            };
            let weight = |columns: i64| {
                let depth = i64::try_from(DEPTH).expect("a width");
                let values = Tensor::arange(depth * columns, (Kind::Double, device)).sin();
                values.reshape([depth, columns]).set_requires_grad(true)
            };
            let of = |walk: &dyn Fn(&Tensor, &Tensor)| {
                let (a, b) = (weight(9), weight(9));
                walk(&tower(&inputs.images, &a), &tower(&inputs.texts, &b));
                [numbers(&a.grad()), numbers(&b.grad())]
            };
            let options = Options::default();
            let (scale, bias) = (&inputs.scale, &inputs.bias);
            let by_autograd = of(&|images, texts| {
                let loss = match name {
                    "clip" => clip_loss(images, texts, scale, &options),
                    _ => siglip_loss(images, texts, scale, bias, &options),
                };
                loss.expect("a loss").backward();
            });
            let by_surrogate = of(&|images, texts| {
                let found = match name {
                    "clip" => clip_gradients(images, texts, scale, &options, Wanted::ALL, None),
                    _ => siglip_gradients(images, texts, scale, bias, &options, Wanted::ALL, None),
                };
                found.expect("gradients").surrogate(images, texts).backward();
            });
            for (found, expected) in by_surrogate.iter().zip(&by_autograd) {
                near(found, expected, 1e-12, name);
            }
        }
    }
}
