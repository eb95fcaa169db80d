//! `clip-runner`: trains and measures CLIP models as OpenCLIP defines them, on libtorch.
//!
//! From a job to numbers: [`job`] reads and checks the job, [`run`] trains it ([`serve`]: one after another),
//! [`prepared`] opens its data, [`caption`], [`tokenizer`] and [`batches`] turn a pool's pairs into tensors
//! ([`order`] and [`augment`] say which and how, [`listing`] tells it), [`model`], [`loss`] and [`step`] make the
//! loss and its gradients, [`optimizer`] takes the step, [`spikes`] watches the losses, [`weights`] are what others
//! trained, [`evaluate`] measures on held-out data, [`ranks`] are several processes at one job ([`buckets`]: what
//! travels beside the backward pass), [`checkpoint`] keeps what a resumed attempt needs, in folders that open_clip
//! loads ([`open_clip`]), [`finetune`] writes what a fine-tuning ends with to another, [`interpolate`] mixes two of
//! them. This crate and `kernels` alone know tch; it knows no database, no scheduler and no spec file.

#![expect(clippy::cast_possible_wrap, reason = "libtorch counts in i64, and no size here comes near 2^63")]

pub mod augment;
pub mod batches;
pub mod bench;
pub mod bench_data;
pub mod buckets;
pub mod caption;
pub mod checkpoint;
pub mod device;
pub mod evaluate;
pub mod finetune;
mod floats;
pub mod interpolate;
pub mod job;
pub mod learning_rate;
pub mod listing;
pub mod loss;
pub mod model;
pub mod open_clip;
pub mod optimizer;
pub mod order;
pub mod parameters;
pub mod prepared;
pub mod ranks;
pub mod report;
pub mod run;
pub mod serve;
pub mod spikes;
pub mod step;
pub mod tokenizer;
pub mod weights;
