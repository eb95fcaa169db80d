//! Pools: image-text pairs in WebDataset shards, packed from package archives and read as training data.
//!
//! A pool is a folder of `*.tar` files in img2dataset's layout: `KEY.(jpg|jpeg|png|webp)` and `KEY.txt` (the caption)
//! side by side, perhaps with `KEY.json` and `KEY.cls` (a class number). Beside them may lie `manifest.json`
//! ([`protocol::PoolManifest`]), `sizes.json`, `classnames.txt` and `zeroshot_classification_templates.txt`. A folder
//! that img2dataset wrote is read as it is.
//!
//! Pairs are ordered by sha256 of their key; a data size of U is the first U good pairs in that order, so smaller sizes
//! lie in larger ones whatever the shards' order. A corrupt image or a missing caption is skipped and told
//! ([`Dataset::skipped`]); a shard that is cut off is an error.
//!
//! Images are decoded once (shorter side resized to `image_size`, centre crop, as OpenCLIP does; or kept as they are,
//! for random crops: [`Keep`]) into one memory-mapped file of uint8 pixels when they fit [`OpenOptions::cache_bytes`];
//! otherwise they are decoded on demand.
//!
//! ```no_run
//! # fn main() -> Result<(), pool::Error> {
//! use std::path::Path;
//!
//! let options = pool::OpenOptions { image_size: 32, limit: Some(500), ..Default::default() };
//! let train = pool::Dataset::open(Path::new("data/emoji/train"), &options)?;
//! let mut pixels = vec![0; train.image_bytes()]; // height, width, channel; RGB; 32 * 32 * 3
//! for i in 0..train.len() {
//!     train.read_image(i, &mut pixels)?;
//!     let _caption: &str = train.caption(i);
//!     let _class: Option<u32> = train.class(i); // a line of `class_names()`
//! }
//! # Ok(())
//! # }
//! ```
//!
//! This crate must not know of training, tokens, jobs or databases. Source of the layout: img2dataset `writer.py`; of
//! the reading rules: `webdataset` `tariterators.py` and open_clip `data.py`.

mod cache;
mod crop;
mod dataset;
mod decode;
mod error;
mod index;
mod layout;
pub mod pack;
mod resize;

pub use cache::Keep;
pub use crop::Crop;
pub use dataset::{Dataset, OpenOptions, Skipped};
pub use error::Error;
pub use layout::{PoolInfo, inspect};
pub use shards::DatasetType;
