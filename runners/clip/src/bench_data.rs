//! Images a second of what stands between shards and a training step: read, decoded, augmented, normalised, in batches.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use pool::{Dataset, Keep, OpenOptions};
use protocol::{Augmentation, Preprocess, Resources};

use crate::augment::Patches;
use crate::batches;
use crate::device;
use crate::order::Order;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct BenchDataOptions {
    /// Folder of WebDataset shards.
    pub pool: PathBuf,
    /// Side of the squares, pixels.
    #[arg(long, default_value_t = 32)]
    pub image_size: u32,
    /// Images to make.
    #[arg(long, default_value_t = 4096)]
    pub images: u64,
    /// Images a batch.
    #[arg(long, default_value_t = 256)]
    pub batch: u64,
    /// Threads that decode and cut.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Take decoded originals from the pool's cache, as training does, and decode none.
    #[arg(long)]
    pub cached: bool,
}

/// One line: images a second by the clock, and processor time an image. A batch is made before the clock starts.
pub fn bench(options: &BenchDataOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let &BenchDataOptions { image_size, batch, .. } = options;
    anyhow::ensure!(batch > 0 && options.images > 0, "--batch and --images must be at least 1");
    // Memory is kept between batches, as in training.
    device::open(&Resources { device: "cpu".into(), threads: options.threads.max(1) }, None)?;
    let cache_bytes = if options.cached { OpenOptions::default().cache_bytes } else { 0 };
    let open = OpenOptions { image_size, keep: Keep::Original, cache_bytes, ..OpenOptions::default() };
    let data = Dataset::open(&options.pool, &open)?;
    let side = image_size as usize;
    let patch = if side.is_multiple_of(16) { 16 } else { side };
    let patches = Patches::new(side, patch, &Preprocess::default());
    let mut order = Order::new(0, data.len() as u64);
    let workers = rayon::ThreadPoolBuilder::new().num_threads(options.threads.max(1)).build()?;
    let mut memory = None;
    let mut make = |start: u64| {
        let indices = order.batch(start, batch);
        let (augmentation, memory_of_last) = (Augmentation::RandomResizedCrop, memory.take());
        let made = || batches::augmented(&data, &patches, augmentation, (0, start), &indices, memory_of_last);
        memory = Some(workers.install(made)?);
        Ok::<_, pool::Error>(())
    };
    make(0)?;
    let (started, processor) = (Instant::now(), device::processor_secs());
    let batches = options.images.div_ceil(batch);
    for at in 1..=batches {
        make(at * batch)?;
    }
    let secs = started.elapsed().as_secs_f64();
    let spent = device::processor_secs().zip(processor).map_or(f64::NAN, |(now, then)| now - then);
    let images = (batches * batch) as f64;
    writeln!(
        out,
        "{image_size} px, {} images {}, {} threads: {:.1} images/s, {:.4} ms of processor time an image",
        batches * batch,
        if options.cached { "from the cache" } else { "decoded" },
        options.threads,
        images / secs,
        1e3 * spent / images,
    )?;
    Ok(())
}
