//! Training batches, assembled on a thread of their own, one ahead of the step that uses them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use protocol::Augmentation;

use crate::augment::{self, Patches, View};
use crate::order::{Draws, Order};
use crate::tokenizer::Captions;

/// Decoded images of one size.
pub trait Images: Send + Sync {
    /// Writes an image into `out`: side x side x RGB bytes.
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), pool::Error>;
}

impl Images for pool::Dataset {
    fn read(&self, index: usize, out: &mut [u8]) -> Result<(), pool::Error> {
        self.read_image(index, out)
    }
}

/// Image-text pairs ready for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// (B, T, 3 p^2), row 0 of each image zero.
    pub patches: Vec<f32>,
    /// (B, X) token ids, X the longest caption of the batch.
    pub tokens: Vec<i64>,
    /// (B) place of the end token.
    pub ends: Vec<i64>,
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
    /// Of order and augmentation.
    pub seed: u64,
    /// B.
    pub global_batch: u64,
}

impl<D: Images + 'static> Source<D> {
    /// Batches from sample position `from` to `to`, both multiples of the batch.
    pub fn stream(self, from: u64, to: u64) -> Receiver<Result<Batch, pool::Error>> {
        let (sender, receiver) = sync_channel(1);
        std::thread::spawn(move || {
            let mut order = Order::new(self.seed, self.captions.len() as u64);
            for start in (from..to).step_by(self.global_batch as usize) {
                if sender.send(self.assemble(&mut order, start)).is_err() {
                    return; // Training stopped early.
                }
            }
        });
        receiver
    }

    fn assemble(&self, order: &mut Order, start: u64) -> Result<Batch, pool::Error> {
        let positions = start..start + self.global_batch;
        let indices: Vec<usize> = positions.clone().map(|position| order.sample(position)).collect();
        let mut pixels = vec![0; self.patches.image_bytes()];
        let mut patches = Vec::with_capacity(indices.len() * self.patches.len());
        for (position, index) in positions.zip(&indices) {
            // Augmentation draws from another stream than the order.
            let mut draws = Draws::new(!self.seed, position);
            let view = augment::draw(self.augmentation, self.patches.side(), &mut draws);
            self.images.read(*index, &mut pixels)?;
            self.patches.append(&pixels, view, &mut patches);
        }
        let (tokens, ends) = self.captions.gather(indices.iter().copied());
        Ok(Batch { patches, tokens, ends })
    }
}

/// Images as they are, for evaluation: (B, T, 3 p^2).
pub fn whole_images(
    images: &impl Images,
    patches: &Patches,
    indices: std::ops::Range<usize>,
) -> Result<Vec<f32>, pool::Error> {
    let mut pixels = vec![0; patches.image_bytes()];
    let mut out = Vec::with_capacity(indices.len() * patches.len());
    for index in indices {
        images.read(index, &mut pixels)?;
        patches.append(&pixels, View::Whole, &mut out);
    }
    Ok(out)
}
