//! What the tests share: an owned problem, a second implementation, slopes by differences, comparisons.

use std::ops::Range;

use kernels::reference::{ClipOptions, Gradients, Problem, sample::Features};

/// A problem that can be nudged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) images: Vec<f64>,
    pub(crate) texts: Vec<f64>,
    pub(crate) depth: usize,
    pub(crate) scale: f64,
}

impl Owned {
    pub(crate) fn new((images, texts): Features, depth: usize, scale: f64) -> Self {
        Self { images, texts, depth, scale }
    }

    pub(crate) fn as_problem(&self) -> Problem<'_> {
        Problem { images: &self.images, texts: &self.texts, depth: self.depth, scale: self.scale }
    }

    pub(crate) fn pairs(&self) -> usize {
        self.images.len() / self.depth
    }

    /// Texts as images and images as texts.
    pub(crate) fn swapped(&self) -> Self {
        Self { images: self.texts.clone(), texts: self.images.clone(), ..*self }
    }

    /// The pairs `order`, in that order.
    pub(crate) fn select(&self, order: &[usize]) -> Self {
        Self { images: select(&self.images, self.depth, order), texts: select(&self.texts, self.depth, order), ..*self }
    }
}

/// Rows `order` of a matrix.
pub(crate) fn select(matrix: &[f64], width: usize, order: &[usize]) -> Vec<f64> {
    order.iter().flat_map(|&i| matrix[i * width..(i + 1) * width].iter().copied()).collect()
}

/// Numbers without pattern: fractional parts of multiples of the golden ratio, in (-1, 1).
pub(crate) fn scattered(len: usize, start: usize) -> Vec<f64> {
    (start..start + len).map(|i| 2.0 * (i as f64 * 0.618_033_988_749_894_9).fract() - 1.0).collect()
}

/// The pairs of the values from high-precision arithmetic, of depth 3.
pub(crate) fn scattered_pairs(pairs: usize, scale: f64) -> Owned {
    Owned::new((scattered(3 * pairs, 1), scattered(3 * pairs, 100)), 3, scale)
}

/// Three scattered pairs moved by 3 along an axis each, so that each pair finds itself.
pub(crate) fn confident_pairs(scale: f64) -> Owned {
    let mut problem = scattered_pairs(3, scale);
    for k in [0, 4, 8] {
        problem.images[k] += 3.0;
        problem.texts[k] += 3.0;
    }
    problem
}

/// CLIP's loss straight from its definition: a matrix of targets, and ln sum exp less the target's logits.
pub(crate) fn clip_by_definition(problem: &Problem, options: &ClipOptions) -> f64 {
    let depth = problem.depth;
    let pairs = problem.images.len() / depth;
    let ids: Vec<i64> = options.ids.map_or_else(|| (0..).take(pairs).collect(), <[i64]>::to_vec);
    let kept: Vec<usize> = (0..pairs).filter(|&i| ids[i] >= 0).collect();
    let logit = |i: usize, j: usize| -> f64 {
        let (u, v) = (&problem.images[i * depth..][..depth], &problem.texts[j * depth..][..depth]);
        problem.scale * u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>()
    };
    let smoothing = options.label_smoothing;
    let mut loss = 0.0;
    for &i in &kept {
        let positives = kept.iter().filter(|&&j| ids[j] == ids[i]).count() as f64;
        for swap in [false, true] {
            let logits: Vec<f64> = kept.iter().map(|&j| if swap { logit(j, i) } else { logit(i, j) }).collect();
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = most + logits.iter().map(|l| (l - most).exp()).sum::<f64>().ln();
            for (&j, logit) in kept.iter().zip(&logits) {
                let hit = if ids[i] == ids[j] { (1.0 - smoothing) / positives } else { 0.0 };
                loss += (hit + smoothing / kept.len() as f64) * (log_sum - logit);
            }
        }
    }
    if kept.is_empty() { 0.0 } else { loss / (2.0 * kept.len() as f64) }
}

/// Every gradient of `loss` by central differences of 1e-6, without the bias.
pub(crate) fn slopes(problem: &Owned, loss: impl Fn(&Problem) -> f64) -> Gradients {
    let step = 1e-6;
    let slope = |nudge: &dyn Fn(&mut Owned, f64)| {
        let at = |by: f64| {
            let mut problem = problem.clone();
            nudge(&mut problem, by);
            loss(&problem.as_problem())
        };
        (at(step) - at(-step)) / (2.0 * step)
    };
    Gradients {
        loss: loss(&problem.as_problem()),
        images: (0..problem.images.len()).map(|k| slope(&|problem, by| problem.images[k] += by)).collect(),
        texts: (0..problem.texts.len()).map(|k| slope(&|problem, by| problem.texts[k] += by)).collect(),
        scale: slope(&|problem, by| problem.scale += by),
        bias: 0.0,
    }
}

/// Sums of the parts of consecutive blocks of the given sizes.
pub(crate) fn joined(pairs: usize, sizes: &[usize], block: impl Fn(Range<usize>) -> Gradients) -> Gradients {
    let mut whole = Gradients { loss: 0.0, images: Vec::new(), texts: Vec::new(), scale: 0.0, bias: 0.0 };
    let mut first = 0;
    for &size in sizes {
        let part = block(first..first + size);
        first += size;
        whole.loss += part.loss;
        whole.images.extend(part.images);
        whole.texts.resize(part.texts.len(), 0.0);
        whole.texts.iter_mut().zip(&part.texts).for_each(|(total, part)| *total += part);
        whole.scale += part.scale;
        whole.bias += part.bias;
    }
    assert_eq!(first, pairs);
    whole
}

/// |a - b| within `by` of `size`.
#[track_caller]
pub(crate) fn near(a: f64, b: f64, by: f64, size: f64) {
    assert!((a - b).abs() <= by * size, "{a:e} against {b:e}, {:e} of {size:e}", (a - b).abs() / size);
}

/// Relative to the larger.
#[track_caller]
pub(crate) fn relative(a: f64, b: f64, by: f64) {
    near(a, b, by, a.abs().max(b.abs()));
}

/// All of both, each entry within `by` of the largest of its kind (or of `least`, where that is more).
#[track_caller]
pub(crate) fn alike(a: &Gradients, b: &Gradients, by: f64, least: f64) {
    near(a.loss, b.loss, by, a.loss.abs().max(least));
    near(a.scale, b.scale, by, a.scale.abs().max(least));
    near(a.bias, b.bias, by, a.bias.abs().max(least));
    for (a, b) in [(&a.images, &b.images), (&a.texts, &b.texts)] {
        assert_eq!(a.len(), b.len());
        let size = a.iter().fold(least, |most, value| most.max(value.abs()));
        a.iter().zip(b).for_each(|(a, b)| near(*a, *b, by, size));
    }
}

pub(crate) fn finite(found: &Gradients) -> bool {
    [found.loss, found.scale, found.bias].iter().chain(&found.images).chain(&found.texts).all(|v| v.is_finite())
}
