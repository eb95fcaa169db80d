//! What a pair is: the one reader of WebDataset shards for planner, trainer and `sweep-pool`.
//!
//! A pool is a folder of `*.tar` files ([`list`]). [`read`] goes through one of them and gives its samples in order,
//! each with its caption and the place of its image, or the [`Reason`] that it can't be used. WebDataset's rules hold:
//!
//! - A member's key is its name up to the first dot of the last part; the rest is its extension, in any case.
//!   `a/b.c.jpg` has key `a/b` and extension `c.jpg`. Names without a dot, or that start with one, belong to no sample.
//! - Members of one sample lie side by side. A key that comes again later, or an extension that the sample already has,
//!   starts a new sample, which is not used, since its key was there before.
//! - Only files count: a link is not followed.
//!
//! Unlike WebDataset's reader, joined archives are read to their end, and a shard that is cut off is an error.
//!
//! Which pool a folder holds is told by what its shards hold ([`identify`]).
//!
//! This crate decodes no image: it must stay light enough for the orchestrator.

mod content;
mod error;
mod folder;
mod identity;
mod index_file;
mod multilabel;
mod sample;
mod tar;

pub use content::{ShardContent, Stat, image_check, texts};
pub use error::Error;
pub use folder::{
    CLASS_NAMES, DATASET_TYPE, DatasetType, SHARD_COUNT, TEMPLATES, check_count, class_names, dataset_type, file_name,
    list, templates,
};
pub use identity::{INDEX, Identity, Progress, identify, no_progress, write_index};
pub use sample::{Content, Counts, Reason, Sample, count, read};
pub use tar::{Kind, Member, Reader, Span};
