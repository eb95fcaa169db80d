//! `sweep schema`.

use super::output::{Exit, Failure, data};
use crate::spec::schema;

/// Options of `sweep schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

#[expect(clippy::unnecessary_wraps, reason = "commands share one signature")]
pub(super) fn run(_args: &Args) -> Result<Exit, Failure> {
    data(&serde_json::to_string_pretty(&schema()).expect("a schema is JSON"));
    Ok(Exit::Done)
}
