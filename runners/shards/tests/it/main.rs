//! Shards written by hand and by Python's `tarfile`, read back.

mod bytes;
mod folder;
mod identity;
mod python;
mod support;
