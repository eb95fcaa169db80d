//! Training batches, assembled on a thread of their own, one ahead of the step that uses them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use pool::Crop;
use protocol::{Augmentation, VisionConfig};
use rayon::prelude::*;

use crate::augment::{self, Patches, View};
use crate::model::CaptionLengths;
use crate::order::{Draws, Order};
use crate::tokenizer::Captions;

/// Decoded images of one size.
pub trait Images: Send + Sync {
    /// Writes an image into `out`: side x side x RGB bytes.
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), pool::Error>;

    /// Writes a part of the original into `out`, stretched to the square. `choose` is given the original's width and
    /// height.
    fn read_crop(&self, index: usize, choose: impl FnOnce(u32, u32) -> Crop, out: &mut [u8])
    -> Result<(), pool::Error>;
}

impl Images for pool::Dataset {
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), pool::Error> {
        self.read_image(index, out)
    }

    fn read_crop(
        &self,
        index: usize,
        choose: impl FnOnce(u32, u32) -> Crop,
        out: &mut [u8],
    ) -> Result<(), pool::Error> {
        pool::Dataset::read_crop(self, index, choose, out)
    }
}

/// Image-text pairs ready for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// (B, T, 3 p^2), row 0 of each image zero.
    pub patches: Vec<f32>,
    /// (B, X) token ids, X the longest caption of the batch.
    pub tokens: Vec<i64>,
    /// (B) place of the token that is pooled.
    pub ends: Vec<i64>,
    /// (B, K + 1) rows of `patches` that are seen, the class token's first; empty: all of them.
    pub kept: Vec<i64>,
    /// Of all captions that batches are drawn from.
    pub lengths: Arc<CaptionLengths>,
}

impl Batch {
    /// B.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Patches that a training step leaves out at random (Li et al. 2022, FLIP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchDropout {
    /// Patches of an image.
    pub patches: usize,
    /// How many of them are seen.
    pub kept: usize,
}

impl PatchDropout {
    /// Of an image tower.
    pub fn new(vision: &VisionConfig) -> PatchDropout {
        PatchDropout { patches: vision.patches() as usize, kept: vision.patches_kept() as usize }
    }

    /// Rows of the patches that are seen at a position of training, ascending behind the class token's, which is 0: one
    /// of all subsets of that size, each as likely as another (Knuth, volume 2, algorithm 3.4.2 S). None where all are
    /// seen. They draw from a stream of their own.
    fn rows(self, seed: u64, position: u64) -> Vec<i64> {
        let mut rows = Vec::new();
        if self.kept == self.patches {
            return rows;
        }
        let mut draws = Draws::new(seed.rotate_left(32) ^ 0x5041_5443_4845_5321, position);
        rows.push(0);
        for patch in 0..self.patches {
            let (left, wanted) = ((self.patches - patch) as f64, (self.kept + 1 - rows.len()) as f64);
            if draws.uniform() * left < wanted {
                rows.push(1 + patch as i64);
            }
        }
        rows
    }
}

/// What training reads, and in which order.
pub struct Source<D> {
    /// Images.
    pub images: Arc<D>,
    /// Captions of those images.
    pub captions: Arc<Captions>,
    /// Layout.
    pub patches: Patches,
    /// What happens to each image.
    pub augmentation: Augmentation,
    /// Patches of an image, and how many of them a step sees.
    pub dropout: PatchDropout,
    /// Of order and augmentation.
    pub seed: u64,
    /// B.
    pub global_batch: u64,
    /// Pairs of each batch that are taken here: all, or those of this rank.
    pub share: Range<u64>,
    /// Images that are decoded and cut at once.
    pub threads: usize,
}

/// Batches of a [`Source`], in their order.
pub struct Batches {
    assembled: Receiver<Result<Batch, pool::Error>>,
    free: Sender<Vec<f32>>,
}

impl Batches {
    /// The next; `None` if there is none or the thread that assembles them is gone.
    pub fn next(&self) -> Option<Result<Batch, pool::Error>> {
        self.assembled.recv().ok()
    }

    /// Gives the memory of a batch for one to come: a block of hundreds of megabytes goes back to the kernel when it is
    /// freed, which clears each page anew.
    pub fn reuse(&self, batch: Batch) {
        // Nobody assembles after the last batch.
        let _ = self.free.send(batch.patches);
    }
}

impl<D: Images + 'static> Source<D> {
    /// Batches, or this rank's share of each, from sample position `from` to `to`, both multiples of the batch.
    pub fn stream(self: &Arc<Self>, from: u64, to: u64) -> Batches {
        let (sender, assembled) = sync_channel(1);
        let (free, freed) = channel();
        let source = Arc::clone(self);
        std::thread::spawn(move || {
            let mut order = Order::new(source.seed, source.captions.len() as u64);
            let workers = rayon::ThreadPoolBuilder::new().num_threads(source.threads.max(1)).build();
            let workers = workers.expect("threads for the data");
            for start in (from..to).step_by(source.global_batch as usize) {
                let memory = freed.try_recv().unwrap_or_default();
                if sender.send(workers.install(|| source.assemble(&mut order, start, memory))).is_err() {
                    return; // Training stopped early.
                }
            }
        });
        Batches { assembled, free }
    }

    fn assemble(&self, order: &mut Order, start: u64, mut patches: Vec<f32>) -> Result<Batch, pool::Error> {
        let start = start + self.share.start;
        let size = self.share.end - self.share.start;
        let indices = order.batch(start, size);
        augmented(&*self.images, &self.patches, self.augmentation, (self.seed, start), &indices, &mut patches)?;
        let (tokens, ends) = self.captions.gather(indices.iter().copied());
        let positions = start..start + size;
        let kept = positions.flat_map(|position| self.dropout.rows(self.seed, position)).collect();
        Ok(Batch { patches, tokens, ends, kept, lengths: Arc::clone(self.captions.lengths()) })
    }
}

/// Images that are seen after `start` others, each changed as `seed` and position say, into `out`, which is empty or
/// has others: (B, T, 3 p^2), row 0 of each image zero.
pub fn augmented(
    images: &impl Images,
    patches: &Patches,
    augmentation: Augmentation,
    (seed, start): (u64, u64),
    indices: &[usize],
    out: &mut Vec<f32>,
) -> Result<(), pool::Error> {
    out.resize(indices.len() * patches.len(), 0.0);
    out.par_chunks_mut(patches.len()).zip(indices).enumerate().try_for_each_init(
        || vec![0; patches.image_bytes()],
        |pixels, (at, (row, index))| {
            // Augmentation draws from another stream than the order.
            let mut draws = Draws::new(!seed, start + at as u64);
            if augmentation == Augmentation::RandomResizedCrop {
                let choose = |width, height| augment::crop(width, height, || draws.uniform());
                images.read_crop(*index, choose, pixels)?;
            } else {
                images.read(*index, pixels)?;
            }
            patches.write(pixels, augment::draw(augmentation, patches.side(), &mut draws), row);
            Ok(())
        },
    )
}

/// Images as they are, for evaluation: (B, T, 3 p^2).
pub fn whole_images(images: &impl Images, patches: &Patches, indices: Range<usize>) -> Result<Vec<f32>, pool::Error> {
    let mut pixels = vec![0; patches.image_bytes()];
    let mut out = Vec::with_capacity(indices.len() * patches.len());
    for index in indices {
        images.read(index, &mut pixels)?;
        patches.append(&pixels, View::Whole, &mut out);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_left_out_evenly_by_seed_and_position() {
        let dropout = PatchDropout { patches: 16, kept: 4 };
        let mut seen = [0; 17];
        for position in 0..8_000 {
            let rows = dropout.rows(7, position);
            assert_eq!((rows.len(), rows[0]), (5, 0));
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && rows[4] <= 16);
            for row in rows {
                seen[row as usize] += 1;
            }
        }
        // Each patch is seen 2,000 times but for a deviation of 39.
        assert!(seen[1..].iter().all(|count| (1_800..2_200).contains(count)), "{seen:?}");
        assert_eq!(dropout.rows(7, 3), dropout.rows(7, 3));
        assert_ne!(dropout.rows(7, 3), dropout.rows(8, 3));
        assert!(PatchDropout { patches: 16, kept: 16 }.rows(7, 3).is_empty());
    }
}
