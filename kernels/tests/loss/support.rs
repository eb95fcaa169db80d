//! What the tests share: a case, the types it runs in, the reference on rounded features, bounds, words for misses.

use std::ffi::CStr;
use std::sync::OnceLock;

use kernels::reference::{self, ClipOptions, Problem, sample::Features};
use kernels::{Compute, Gradients, LossError, Options, Wanted, clip_gradients, siglip_gradients};
use tch::{Cuda, Device, Kind, Tensor};

/// The CPU, and the first CUDA device where there is one.
pub(crate) fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        load_cuda();
        if Cuda::is_available() { vec![Device::Cpu, Device::Cuda(0)] } else { vec![Device::Cpu] }
    })
}

/// The binary is linked against libtorch's CPU half alone.
#[expect(unsafe_code, reason = "a library that may be absent is loaded by hand")]
fn load_cuda() {
    const LIBRARY: &CStr = c"libtorch_cuda.so";
    // SAFETY: runs libtorch's own initialisers, as linking it would. A null handle means that it is not there.
    unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
}

/// Type of the features, and of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Fp32,
    /// float32 features, bfloat16 products.
    Fp32AsBf16,
    Bf16,
    Fp16,
    Fp64,
}

pub(crate) const ALL_TYPES: [Type; 5] = [Type::Fp32, Type::Fp32AsBf16, Type::Bf16, Type::Fp16, Type::Fp64];

impl Type {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Type::Fp32 | Type::Fp32AsBf16 => Kind::Float,
            Type::Bf16 => Kind::BFloat16,
            Type::Fp16 => Kind::Half,
            Type::Fp64 => Kind::Double,
        }
    }

    pub(crate) fn compute(self) -> Compute {
        if self == Type::Fp32AsBf16 { Compute::Bf16 } else { Compute::Automatic }
    }

    /// What the features are rounded to on their way in.
    fn rounded_to(self) -> Kind {
        if self == Type::Fp32AsBf16 { Kind::BFloat16 } else { self.kind() }
    }

    /// Half a unit in the last place of 1, in what terms are added up in.
    fn rounding(self) -> f64 {
        if self == Type::Fp64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
    }

    /// Bounds at a scale: relative error of the loss, its absolute alternative, relative Frobenius error of feature
    /// gradients, relative error of the scale's and the bias'.
    ///
    /// Up to s = 100 they are those the project set. Above, float32 cannot keep them: a product of unit rows is off by
    /// about 2^-24 whatever is done with it later, a logit by s 2^-24, and so is the logarithm of each slope. So bounds
    /// grow as s from 100 on.
    fn bounds(self, device: Device, scale: f64) -> Bounds {
        let scale = scale.abs();
        let beyond = (scale / 100.0).max(1.0);
        match self {
            Type::Fp64 => Bounds { loss: 1e-12, loss_absolute: 1e-15, features: 1e-12, numbers: 1e-12 }.grown(beyond),
            Type::Fp32 => {
                let features = if scale <= 20.0 { 5e-6 } else { 2e-5 };
                Bounds { loss: 1e-6, loss_absolute: 2e-6, features, numbers: features }.grown(beyond)
            }
            // The CPU multiplies float16 in float32, CUDA goes through float16 slopes; on the CPU bfloat16 slopes.
            Type::Fp16 => Bounds { loss: 1e-5, loss_absolute: 2e-6, features: 4e-4, numbers: 1e-3 }.grown(beyond),
            Type::Bf16 | Type::Fp32AsBf16 => {
                let features = if device == Device::Cpu || self == Type::Bf16 { 2.5e-3 } else { 4e-4 };
                Bounds { loss: 1e-5, loss_absolute: 2e-6, features, numbers: 1e-3 }.grown(beyond)
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    loss: f64,
    loss_absolute: f64,
    features: f64,
    numbers: f64,
}

impl Bounds {
    fn grown(self, by: f64) -> Self {
        Bounds {
            loss: self.loss * by,
            loss_absolute: self.loss_absolute * by,
            features: self.features * by,
            numbers: self.numbers * by,
        }
    }
}

/// A batch, a loss, and in which types and within which budgets it is computed.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What the features are, for messages.
    pub(crate) words: &'static str,
    pub(crate) features: Features,
    pub(crate) depth: usize,
    pub(crate) scale: f64,
    /// Of the sigmoid loss; `None` is InfoNCE.
    pub(crate) bias: Option<f64>,
    pub(crate) ids: Option<Vec<i64>>,
    pub(crate) smoothing: f64,
    pub(crate) budgets: &'static [u64],
    pub(crate) types: &'static [Type],
    /// The terms of a row's gradient nearly cancel, as in rows of equal texts: errors are measured in the terms.
    pub(crate) cancels: bool,
}

impl Case {
    pub(crate) fn new(words: &'static str, features: Features, depth: usize, scale: f64) -> Self {
        Case {
            words,
            features,
            depth,
            scale,
            bias: None,
            ids: None,
            smoothing: 0.0,
            budgets: &[1 << 30],
            types: &ALL_TYPES,
            cancels: false,
        }
    }

    pub(crate) fn pairs(&self) -> usize {
        self.features.0.len() / self.depth
    }

    /// The features as matrices of float64.
    pub(crate) fn matrices(&self) -> [Tensor; 2] {
        [&self.features.0, &self.features.1].map(|x| matrix(x, self.depth))
    }

    /// The features in `kind`.
    fn rounded(&self, kind: Kind) -> Features {
        let [images, texts] = self.matrices().map(|x| numbers(&x.to_kind(kind)));
        (images, texts)
    }

    /// The reference's answer for `features` instead of the case's own.
    fn reference(&self, (images, texts): &Features) -> reference::Gradients {
        let problem = Problem { images, texts, depth: self.depth, scale: self.scale };
        let ids = self.ids.as_deref();
        match self.bias {
            None => reference::clip(&problem, &ClipOptions { ids, label_smoothing: self.smoothing }),
            Some(bias) => reference::siglip(&problem, bias, ids),
        }
    }

    /// The kernels' answer.
    pub(crate) fn run(&self, of: Type, device: Device, budget_bytes: u64) -> Result<Gradients, LossError> {
        self.some(of, device, budget_bytes, Wanted::ALL)
    }

    /// The loss and those of its gradients that are wanted.
    pub(crate) fn some(
        &self,
        of: Type,
        device: Device,
        budget_bytes: u64,
        wanted: Wanted,
    ) -> Result<Gradients, LossError> {
        let [images, texts] = self.matrices().map(|x| x.to_kind(of.kind()).to_device(device));
        let ids = self.ids.as_deref().map(|ids| Tensor::from_slice(ids).to_device(device));
        let options = Options {
            ids: ids.as_ref(),
            label_smoothing: self.smoothing,
            compute: of.compute(),
            budget_bytes,
            ..Options::default()
        };
        let scale = Tensor::from(self.scale).to_device(device);
        match self.bias {
            None => clip_gradients(&images, &texts, &scale, &options, wanted, None),
            Some(bias) => {
                let bias = Tensor::from(bias).to_device(device);
                siglip_gradients(&images, &texts, &scale, &bias, &options, wanted, None)
            }
        }
    }
}

/// Rows of width `depth`, float64.
pub(crate) fn matrix(rows: &[f64], depth: usize) -> Tensor {
    Tensor::from_slice(rows).view([-1, i64::try_from(depth).expect("a width")])
}

/// All numbers of a tensor of any type and place.
pub(crate) fn numbers(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.to_device(Device::Cpu).to_kind(Kind::Double).reshape([-1])).expect("numbers")
}

pub(crate) fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// |a - b| and |b|, Euclidean.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(), norm(b))
}

/// A result in plain numbers.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) loss: f64,
    pub(crate) images: Vec<f64>,
    pub(crate) texts: Vec<f64>,
    pub(crate) scale: f64,
    pub(crate) bias: f64,
}

impl From<&Gradients> for Found {
    fn from(found: &Gradients) -> Self {
        let all = |x: &Option<Tensor>| x.as_ref().map(numbers).unwrap_or_default();
        Found {
            loss: number(&found.loss),
            images: all(&found.images),
            texts: all(&found.texts),
            scale: found.scale.as_ref().map_or(0.0, number),
            bias: found.bias.as_ref().map_or(0.0, number),
        }
    }
}

/// Computes a case in each of its types, devices and budgets, and words what is out of bounds.
pub(crate) fn compare(case: &Case, misses: &mut Vec<String>) {
    let mut known: Vec<(Features, reference::Gradients)> = Vec::new();
    for &of in case.types {
        let rounded = case.rounded(of.rounded_to());
        let at = known.iter().position(|(have, _)| *have == rounded).unwrap_or_else(|| {
            known.push((rounded.clone(), case.reference(&rounded)));
            known.len() - 1
        });
        let truth = &known[at].1;
        for &device in devices() {
            let mut first: Option<Found> = None;
            for &budget in case.budgets {
                let words = describe(case, of, device, budget);
                let found = match case.run(of, device, budget) {
                    Ok(found) => Found::from(&found),
                    Err(error) => {
                        misses.push(format!("{words}: {error}"));
                        continue;
                    }
                };
                against(case, of, device, truth, &found, &words, misses);
                if let Some(first) = &first {
                    same(of, first, &found, &words, misses);
                } else {
                    first = Some(found);
                }
            }
        }
    }
}

fn describe(case: &Case, of: Type, device: Device, budget: u64) -> String {
    let loss = case.bias.map_or("clip".to_owned(), |bias| format!("siglip (bias {bias})"));
    let (pairs, depth, scale) = (case.pairs(), case.depth, case.scale);
    format!("{loss}, {}, B {pairs}, D {depth}, s {scale}, {of:?}, {device:?}, budget {budget}", case.words)
}

/// Relative errors of a result, each with its bound: (what, error, bound).
fn against(
    case: &Case,
    of: Type,
    device: Device,
    truth: &reference::Gradients,
    found: &Found,
    words: &str,
    misses: &mut Vec<String>,
) {
    let mut bounds = of.bounds(device, case.scale);
    if case.depth == 1 && matches!(of, Type::Bf16 | Type::Fp32AsBf16) {
        // Unit rows of width 1 have two products, so slopes have two values, and each loses the same up to 2^-9 in
        // bfloat16, with which a sum over all is off as well: nothing averages out.
        bounds.numbers = 1.0 / 512.0;
    }
    let mut check = |what: &str, error: f64, bound: f64| {
        if error.is_nan() || error > bound {
            misses.push(format!("{words}: {what} is off by {error:.3e}, allowed {bound:.3e}"));
        }
    };
    let loss = (found.loss - truth.loss).abs();
    check("loss", loss, (bounds.loss * truth.loss.abs()).max(bounds.loss_absolute));
    if truth.loss.abs() > 1e-37 {
        // However small it is.
        check("small loss", loss / truth.loss.abs(), if truth.loss < 1e-3 { 1e-3 } else { 1.0 });
    }
    let pairs = case.ids.as_ref().map_or(case.pairs(), |ids| ids.iter().filter(|id| **id >= 0).count()).max(1) as f64;
    // Terms of a gradient are s / B at most. Positives, several too, are exact however small; smoothed targets come in
    // as differences of means.
    let term = case.scale.abs() / pairs.sqrt();
    let least = if case.smoothing > 0.0 { of.rounding() } else { 1e-37 };
    for (what, found, truth) in [("dI", &found.images, &truth.images), ("dT", &found.texts, &truth.texts)] {
        let (error, mut size) = distance(found, truth);
        if case.cancels {
            size = size.max(term);
        }
        // What the type of the result itself takes away (float16 has few digits below 6e-5), or float32 below 1e-37.
        let rounding = if of == Type::Fp16 {
            distance(&numbers(&Tensor::from_slice(truth).to_kind(Kind::Half)), truth).0
        } else {
            0.0
        };
        check(what, error, bounds.features * size + rounding + least * term);
    }
    let (scale, bias) = sizes_of_numbers(case, truth);
    check("ds", (found.scale - truth.scale).abs(), bounds.numbers * scale + least);
    if case.bias.is_some() {
        check("db", (found.bias - truth.bias).abs(), bounds.numbers * bias + least);
    }
}

/// What errors of dL/ds and dL/db are relative to: both are sums of a positive and a negative half, which cancel at the
/// optimum and by chance.
fn sizes_of_numbers(case: &Case, truth: &reference::Gradients) -> (f64, f64) {
    let rows = |x: &[f64], gradient: &[f64]| -> f64 {
        let dot = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().abs();
        x.chunks_exact(case.depth).zip(gradient.chunks_exact(case.depth)).map(dot).sum()
    };
    let terms = rows(&case.features.0, &truth.images).max(rows(&case.features.1, &truth.texts)) / case.scale.abs();
    let scale = truth.scale.abs().max(terms).max(if case.cancels { 1.0 } else { 0.0 });
    let positives = case.bias.map_or(0.0, |bias| {
        let pairs = case.features.0.chunks_exact(case.depth).zip(case.features.1.chunks_exact(case.depth));
        let slope = |(u, v): (&[f64], &[f64])| {
            let logit = case.scale * u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>() + bias;
            1.0 / (1.0 + logit.exp())
        };
        pairs.map(slope).sum::<f64>() / case.pairs() as f64
    });
    (scale, truth.bias.abs().max(positives))
}

/// Two ways to one result.
pub(crate) fn same(of: Type, a: &Found, b: &Found, words: &str, misses: &mut Vec<String>) {
    let bound = match of {
        Type::Fp64 => 1e-12,
        Type::Fp32 => 1e-6,
        // What lies on the edge between two bfloat16 numbers falls either way: one large entry is 3e-4 of a gradient.
        _ => 1e-3,
    };
    for (what, a, b) in [("dI", &a.images, &b.images), ("dT", &a.texts, &b.texts)] {
        let (error, size) = distance(a, b);
        if error > bound * size {
            misses
                .push(format!("{words}: {what} differs between two ways by {:.3e}, allowed {bound:.0e}", error / size));
        }
    }
    let number = if of == Type::Fp64 { 1e-12 } else { 1e-6 };
    let (error, size) = ((a.loss - b.loss).abs(), b.loss.abs().max(1.0));
    if error > number * size {
        misses
            .push(format!("{words}: the loss differs between two ways by {:.3e}, allowed {number:.0e}", error / size));
    }
}

/// Compares all cases, and fails with every miss of every case.
#[track_caller]
pub(crate) fn hold(cases: impl IntoIterator<Item = Case>) {
    let mut misses = Vec::new();
    let mut count = 0;
    for case in cases {
        compare(&case, &mut misses);
        count += 1;
    }
    none(&misses, count);
}

#[track_caller]
pub(crate) fn none(misses: &[String], cases: usize) {
    assert!(misses.is_empty(), "{} misses in {cases} cases:\n{}", misses.len(), misses.join("\n"));
}
