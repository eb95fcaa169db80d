//! Batches of few distinct rows, so that a huge batch has an exact loss in O(k^2): for sizes whose logits no index of
//! 32 bits numbers.

use super::{ExpSum, Gradients, add, dot, row, row_mut, sigmoid, softplus};

/// A batch of k clusters: the n_c pairs of cluster c all have the image a_c and the text b_c. Each image has its own
/// text as positive and the n_c - 1 equal ones as negatives.
#[derive(Debug, Clone, Copy)]
pub struct Clusters<'a> {
    /// a, k rows of width `depth`.
    pub images: &'a [f64],
    /// b, likewise.
    pub texts: &'a [f64],
    /// n, k sizes, at least 1 each; B is their sum.
    pub sizes: &'a [usize],
    /// D, the width of a row; at least 1.
    pub depth: usize,
    /// s, the factor itself and not its logarithm.
    pub scale: f64,
}

impl Clusters<'_> {
    /// B.
    fn pairs(&self) -> f64 {
        let len = self.sizes.len() * self.depth;
        assert!(self.depth > 0 && self.images.len() == len && self.texts.len() == len, "k rows of width depth each");
        assert!(self.sizes.iter().all(|&size| size > 0), "no cluster is empty");
        self.sizes.iter().map(|&size| size as f64).sum()
    }

    /// a_c . b_d, k x k.
    fn products(&self) -> Vec<f64> {
        let count = self.sizes.len();
        let product = |c, d| dot(row(self.images, c, self.depth), row(self.texts, d, self.depth));
        (0..count * count).map(|at| product(at / count, at % count)).collect()
    }

    /// How many negatives an image of cluster c has in cluster d, and a text of cluster c among the images of d.
    fn negatives(&self, c: usize, d: usize) -> f64 {
        self.sizes[d] as f64 - if c == d { 1.0 } else { 0.0 }
    }

    /// Gradients of one image and one text of each cluster (k rows each), given the products, the loss, and G of the
    /// pairs of cluster c and of an image of c with a text of d that is not its own.
    fn gradients(
        &self,
        products: &[f64],
        loss: f64,
        positive: impl Fn(usize) -> f64,
        negative: impl Fn(usize, usize) -> f64,
    ) -> Gradients {
        let &Self { images, texts, sizes, depth, scale } = self;
        let mut found =
            Gradients { loss, images: vec![0.0; images.len()], texts: vec![0.0; texts.len()], scale: 0.0, bias: 0.0 };
        for c in 0..sizes.len() {
            for d in 0..sizes.len() {
                let negative = negative(c, d);
                let own = if c == d { positive(c) } else { 0.0 };
                // A row's sum over the columns of d, a column's over the rows of c, and over the whole c x d block.
                let (from_texts, from_images) =
                    (self.negatives(c, d) * negative + own, self.negatives(d, c) * negative + own);
                let block = sizes[c] as f64 * from_texts;
                found.scale += block * products[c * sizes.len() + d];
                found.bias += block;
                add(row_mut(&mut found.images, c, depth), scale * from_texts, row(texts, d, depth));
                add(row_mut(&mut found.texts, d, depth), scale * from_images, row(images, c, depth));
            }
        }
        found
    }
}

/// Plain CLIP ([`super::clip()`] without options) of a batch of clusters. Images and texts: k rows, the gradient of any
/// one image or text of each cluster. The scale's gradient is that of the whole batch.
///
/// # Panics
/// If shapes do not fit each other, or a cluster is empty.
pub fn clustered_clip(clusters: &Clusters) -> Gradients {
    let share = 1.0 / (2.0 * clusters.pairs());
    let (count, products) = (clusters.sizes.len(), clusters.products());
    let logit = |c: usize, d: usize| clusters.scale * products[c * count + d];
    // r of cluster `own`, row or column, and its x.
    let side = |logits: &dyn Fn(usize) -> f64, own: usize| {
        let terms = (0..count).map(|other| (logits(other), clusters.negatives(own, other)));
        let others = ExpSum::of(terms.filter(|&(_, negatives)| negatives > 0.0));
        (others, others.ln_ratio(ExpSum { max: logits(own), sum: 1.0 }))
    };
    let over_texts: Vec<(ExpSum, f64)> = (0..count).map(|c| side(&|d| logit(c, d), c)).collect();
    let over_images: Vec<(ExpSum, f64)> = (0..count).map(|d| side(&|c| logit(c, d), d)).collect();

    let pair_loss = |c: usize| softplus(over_texts[c].1) + softplus(over_images[c].1);
    let loss = (0..count).map(|c| share * clusters.sizes[c] as f64 * pair_loss(c)).sum();
    let positive = |c: usize| -share * (sigmoid(over_texts[c].1) + sigmoid(over_images[c].1));
    let slope = |(others, x): (ExpSum, f64), logit: f64| others.share(logit) * sigmoid(x);
    let negative = |c: usize, d: usize| {
        if clusters.negatives(c, d) == 0.0 {
            return 0.0;
        }
        share * (slope(over_texts[c], logit(c, d)) + slope(over_images[d], logit(c, d)))
    };
    Gradients { bias: 0.0, ..clusters.gradients(&products, loss, positive, negative) }
}

/// [`super::siglip()`] of a batch of clusters, without ids; rows as for [`clustered_clip`].
///
/// # Panics
/// If shapes do not fit each other, or a cluster is empty.
pub fn clustered_siglip(clusters: &Clusters, bias: f64) -> Gradients {
    let share = 1.0 / clusters.pairs();
    let (count, products) = (clusters.sizes.len(), clusters.products());
    let logit = |c: usize, d: usize| clusters.scale * products[c * count + d] + bias;
    let row_loss = |c: usize| {
        let others: f64 = (0..count).map(|d| clusters.negatives(c, d) * softplus(logit(c, d))).sum();
        softplus(-logit(c, c)) + others
    };
    let loss = (0..count).map(|c| share * clusters.sizes[c] as f64 * row_loss(c)).sum();
    let positive = |c: usize| -share * sigmoid(-logit(c, c));
    clusters.gradients(&products, loss, positive, |c, d| share * sigmoid(logit(c, d)))
}
