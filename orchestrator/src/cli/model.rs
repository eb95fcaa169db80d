//! `sweep model`.

use super::output::{Exit, Failure};

/// Options of `sweep model`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<Exit, Failure> {
    Err(Failure::environment("not written yet"))
}
