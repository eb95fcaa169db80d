//! Shards written by hand and by Python's `tarfile`, read back.

#![expect(clippy::print_stderr, reason = "a test that skips what is absent says so")]

mod bytes;
mod folder;
mod fuzzed;
mod python;
mod support;
