//! Batches whose logits no index of 32 bits numbers: few distinct rows, so that the truth is exact.

use kernels::reference::{Clusters, Gradients, clustered_clip, clustered_siglip, sample::unit_rows};
use kernels::{Compute, Options, Wanted, clip_gradients, siglip_gradients};
use tch::{Device, Kind, Tensor};

use crate::support::{devices, distance, matrix, number, numbers};

const DEPTH: usize = 4;
const CLUSTERS: usize = 24;

/// Images and texts of a batch whose first rows are those of cluster 0, and so on.
struct Huge {
    images: Vec<f64>,
    texts: Vec<f64>,
    sizes: Vec<usize>,
}

impl Huge {
    /// In numbers that bfloat16 holds exactly.
    fn new(pairs: usize) -> Self {
        let (images, texts) = unit_rows(CLUSTERS, DEPTH, 11);
        let [images, texts] = [images, texts].map(|x| numbers(&Tensor::from_slice(&x).to_kind(Kind::BFloat16)));
        let mut sizes: Vec<usize> = (1..CLUSTERS).map(|c| pairs * 2 * c / (CLUSTERS * CLUSTERS)).collect();
        sizes.push(pairs - sizes.iter().sum::<usize>());
        Huge { images, texts, sizes }
    }

    fn clusters(&self, scale: f64) -> Clusters<'_> {
        Clusters { images: &self.images, texts: &self.texts, sizes: &self.sizes, depth: DEPTH, scale }
    }

    /// One row a pair from one row a cluster.
    fn spread(&self, rows: &[f64]) -> Vec<f64> {
        let each = rows.chunks_exact(DEPTH).zip(&self.sizes);
        each.flat_map(|(row, size)| row.iter().copied().cycle().take(size * DEPTH)).collect()
    }
}

fn check(pairs: usize, bias: Option<f64>, compute: Compute, device: Device) {
    let scale = 14.0;
    let huge = Huge::new(pairs);
    let truth: Gradients = match bias {
        None => clustered_clip(&huge.clusters(scale)),
        Some(bias) => clustered_siglip(&huge.clusters(scale), bias),
    };
    let [images, texts] =
        [&huge.images, &huge.texts].map(|x| matrix(&huge.spread(x), DEPTH).to_kind(Kind::Float).to_device(device));
    let [s, b] = [Some(scale), bias].map(|x| Tensor::from(x.unwrap_or_default()).to_device(device));
    let options = Options { compute, budget_bytes: 64 << 20, ..Options::default() };
    let found = match bias {
        None => clip_gradients(&images, &texts, &s, &options, Wanted::ALL, None),
        Some(_) => siglip_gradients(&images, &texts, &s, &b, &options, Wanted::ALL, None),
    };
    let found = found.expect("gradients");
    let words = format!("B {pairs}, {compute:?}, bias {bias:?}, {device:?}");
    let (by_loss, by) = if compute == Compute::Bf16 { (1e-5, 2.5e-3) } else { (1e-6, 5e-6) };
    let near = |what: &str, found: f64, truth: f64, by: f64| {
        assert!((found - truth).abs() <= by * truth.abs(), "{words}: {what} is {found}, not {truth}");
    };
    near("loss", number(&found.loss), truth.loss, by_loss);
    near("ds", number(&found.scale.expect("wanted")), truth.scale, by);
    if bias.is_some() {
        near("db", number(&found.bias.expect("wanted")), truth.bias, by);
    }
    for (what, found, truth) in [("dI", found.images, &truth.images), ("dT", found.texts, &truth.texts)] {
        let (error, size) = distance(&numbers(&found.expect("wanted")), &huge.spread(truth));
        assert!(error <= by * size, "{words}: {what} is off by {:.3e}", error / size);
    }
}

#[test]
fn long_sums_of_equal_terms_match() {
    for &device in devices() {
        check(16_411, None, Compute::Fp32, device);
        check(16_411, Some(-10.0), Compute::Fp32, device);
    }
}

#[test]
fn more_logits_than_31_bits_number() {
    for &device in devices() {
        check(46_341, None, Compute::Fp32, device);
        check(46_341, Some(-10.0), Compute::Fp32, device);
    }
}

#[test]
fn more_logits_than_32_bits_number() {
    for &device in devices() {
        check(65_537, None, Compute::Fp32, device);
        check(65_537, None, Compute::Bf16, device);
    }
}
