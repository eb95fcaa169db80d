//! Batches made of clusters.

use kernels::reference::{ClipOptions, Clusters, Gradients, clip, clustered_clip, clustered_siglip, sample, siglip};

use crate::support::{Owned, alike, near, relative, scattered, select};

/// The cluster of each pair, clusters one after another.
fn members(sizes: &[usize]) -> Vec<usize> {
    sizes.iter().enumerate().flat_map(|(c, &size)| std::iter::repeat_n(c, size)).collect()
}

/// A result with a row a pair rather than a row a cluster.
fn spread(found: &Gradients, members: &[usize], depth: usize) -> Gradients {
    Gradients {
        images: select(&found.images, depth, members),
        texts: select(&found.texts, depth, members),
        ..found.clone()
    }
}

#[test]
fn equals_dense() {
    for sizes in [&[1, 1, 1][..], &[3, 1, 4], &[2, 7, 2], &[5]] {
        for scale in [1.0, 14.2857, 100.0, 1000.0] {
            let clusters = Owned::new((scattered(3 * sizes.len(), 1), scattered(3 * sizes.len(), 50)), 3, scale);
            let members = members(sizes);
            let dense = clusters.select(&members);
            let Owned { images, texts, depth, .. } = &clusters;
            let clusters = Clusters { images, texts, sizes, depth: *depth, scale };
            let found = spread(&clustered_clip(&clusters), &members, *depth);
            alike(&found, &clip(&dense.as_problem(), &ClipOptions::default()), 1e-12, 1.0);
            let found = spread(&clustered_siglip(&clusters, -2.5), &members, *depth);
            alike(&found, &siglip(&dense.as_problem(), -2.5, None), 1e-12, 1.0);
        }
    }
}

#[test]
fn huge_batches_by_hand() {
    // k clusters of m orthonormal pairs: L = ln (m + (B - m) e^-s).
    let (k, d) = (16, 16);
    for m in [46_341_usize.div_ceil(k), 65_537_usize.div_ceil(k), 100_000 / k] {
        for scale in [1.0, 14.2857, 100.0] {
            let (images, texts) = sample::separated(k, d, 7);
            let sizes = vec![m; k];
            let found = clustered_clip(&Clusters { images: &images, texts: &texts, sizes: &sizes, depth: d, scale });
            let others = (k - 1) as f64 * (-scale).exp();
            relative(found.loss, (m as f64).ln() + others.ln_1p(), 1e-13);
            // A row's probability of another cluster times its distance to it.
            near(found.scale, -others / (1.0 + others), 1e-11, 1.0);
        }
    }
    // One cluster: nothing to tell apart.
    let found = clustered_clip(&Clusters { images: &[1.0], texts: &[1.0], sizes: &[100_000], depth: 1, scale: 100.0 });
    relative(found.loss, 100_000_f64.ln(), 1e-14);
    assert!(found.scale.abs() < 1e-11 && found.images[0].abs() < 1e-13);
    // SigLIP of one: every logit 0, so each of B^2 terms is ln 2, and half of the slopes of B (B - 2) are left.
    let found =
        clustered_siglip(&Clusters { images: &[1.0], texts: &[1.0], sizes: &[65_537], depth: 1, scale: 4.0 }, -4.0);
    relative(found.loss, 65_537.0 * 2.0_f64.ln(), 1e-14);
    relative(found.bias, (65_537.0 - 2.0) / 2.0, 1e-14);
}
