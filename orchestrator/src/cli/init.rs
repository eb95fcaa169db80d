//! `sweep init`.

use super::output::{Exit, Failure};

/// Options of `sweep init`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<Exit, Failure> {
    Err(Failure::environment("not written yet"))
}
