//! Training batches, assembled on a thread of their own, one ahead of the step that uses them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use kernels::Mark;
use pool::Crop;
use protocol::{Augmentation, VisionConfig};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::augment::{self, Patches, View};
use crate::floats::floats_mut;
use crate::model::Inputs;
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
    /// Where batches are trained on. They are made in main memory, and a GPU copies them from there beside the steps.
    pub device: Device,
}

/// Batches of a [`Source`], in their order.
pub struct Batches {
    assembled: Receiver<Result<(Inputs, Mark), pool::Error>>,
    free: Sender<Tensor>,
    device: Device,
}

impl Batches {
    /// The next, on the device; `None` if there is none or the thread that assembles them is gone.
    pub fn next(&self) -> Option<Result<Inputs, pool::Error>> {
        let next = self.assembled.recv().ok()?;
        Some(next.map(|(batch, copied)| {
            copied.wait();
            batch.tensors().for_each(kernels::record_use);
            batch
        }))
    }

    /// Gives the memory of a batch for one to come. Nothing may look at it any more: neither inputs that share it, nor
    /// a graph that was made from them. A block of that size may go back to the kernel when it is freed, which clears
    /// each page anew: of threads other than the first, glibc keeps 64 MB.
    pub fn reuse(&self, batch: Inputs) {
        // A GPU's memory is libtorch's to give out again: it knows when the steps are done with it.
        if self.device == Device::Cpu {
            // Nobody assembles after the last batch.
            let _ = self.free.send(batch.patches);
        }
    }
}

impl<D: Images + 'static> Source<D> {
    /// Batches, or this rank's share of each, from sample position `from` to `to`, both multiples of the batch. There
    /// are three at most: one being made, one that waits, and the one that is trained on. A GPU copies each, on a
    /// stream of its own, as soon as it is made.
    pub fn stream(self: &Arc<Self>, from: u64, to: u64) -> Batches {
        let (sender, assembled) = sync_channel(1);
        let (free, freed) = channel();
        let (source, of_pinned) = (Arc::clone(self), free.clone());
        std::thread::spawn(move || {
            let mut order = Order::new(source.seed, source.captions.len() as u64);
            let workers = rayon::ThreadPoolBuilder::new().num_threads(source.threads.max(1)).build();
            let workers = workers.expect("threads for the data");
            kernels::use_side_stream(&Tensor::empty([0_i64], (Kind::Float, source.device)));
            for start in (from..to).step_by(source.global_batch as usize) {
                let memory = freed.try_recv().ok();
                let made = workers.install(|| source.assemble(&mut order, start, memory));
                let copied = made.map(|made| {
                    let there = if source.device.is_cuda() {
                        let there = made.pinned().on(source.device);
                        let _ = of_pinned.send(made.patches);
                        there
                    } else {
                        made
                    };
                    let copied = Mark::now(&there.patches);
                    (there, copied)
                });
                if sender.send(copied).is_err() {
                    return; // Training stopped early.
                }
            }
        });
        Batches { assembled, free, device: self.device }
    }

    fn assemble(&self, order: &mut Order, start: u64, memory: Option<Tensor>) -> Result<Inputs, pool::Error> {
        let start = start + self.share.start;
        let size = self.share.end - self.share.start;
        let indices = order.batch(start, size);
        let drawn = (self.seed, start);
        let patches = augmented(&*self.images, &self.patches, self.augmentation, drawn, &indices, memory)?;
        let (tokens, ends) = self.captions.gather(indices.iter().copied());
        let positions = start..start + size;
        let kept: Vec<i64> = positions.flat_map(|position| self.dropout.rows(self.seed, position)).collect();
        let by_pair = |values: &[i64]| Tensor::from_slice(values).view([size as i64, -1]);
        Ok(Inputs {
            patches,
            tokens: by_pair(&tokens),
            ends: Tensor::from_slice(&ends),
            kept: (!kept.is_empty()).then(|| by_pair(&kept)),
        })
    }
}

/// Images that are seen after `start` others, each changed as `seed` and position say: (B, T, 3 p^2), row 0 of each
/// image zero. In the memory of an earlier batch, if that had the same shape.
pub fn augmented(
    images: &impl Images,
    patches: &Patches,
    augmentation: Augmentation,
    (seed, start): (u64, u64),
    indices: &[usize],
    memory: Option<Tensor>,
) -> Result<Tensor, pool::Error> {
    let [rows, width] = patches.shape();
    let shape = [indices.len() as i64, rows as i64, width as i64];
    let mut out = memory
        .filter(|memory| memory.size() == shape)
        .unwrap_or_else(|| Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
    floats_mut(&mut out).par_chunks_mut(patches.len()).zip(indices).enumerate().try_for_each_init(
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
            Ok::<_, pool::Error>(())
        },
    )?;
    Ok(out)
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

    /// Pictures of one colour, by their index.
    struct Plain;

    impl Images for Plain {
        fn read(&self, index: usize, out: &mut [u8]) -> Result<(), pool::Error> {
            out.fill(index as u8);
            Ok(())
        }

        fn read_crop(&self, index: usize, _: impl FnOnce(u32, u32) -> Crop, out: &mut [u8]) -> Result<(), pool::Error> {
            self.read(index, out)
        }
    }

    #[test]
    fn memory_of_another_batch_is_as_good_as_new() {
        let patches = Patches::new(32, 8, &protocol::Preprocess::default());
        let made = |indices: &[usize], memory: Option<Tensor>| {
            augmented(&Plain, &patches, Augmentation::FlipShift, (3, 40), indices, memory).expect("pictures")
        };
        let fresh = made(&[7, 1, 9], None);
        assert_eq!(fresh.size(), [3, 17, 192]);
        let first = fresh.narrow(1, 0, 1);
        assert!(first.equal(&first.zeros_like()), "the class token's row");
        let memory = made(&[4, 5, 6], None);
        let place = memory.data_ptr();
        let again = made(&[7, 1, 9], Some(memory));
        assert_eq!((again.data_ptr(), again == fresh), (place, true));
        assert_eq!(made(&[7, 1, 9], Some(made(&[1, 2], None))), fresh, "memory of another shape is not taken");
    }

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
