//! Shards written by hand and by Python's `tarfile`, read back.

mod benchmark;
mod bytes;
mod folder;
mod fuzzed;
mod identity;
mod python;
mod support;
