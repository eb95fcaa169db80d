//! `sweep logs`.

use super::output::{Exit, Failure};

/// Options of `sweep logs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args) -> Result<Exit, Failure> {
    Err(Failure::environment("not written yet"))
}
