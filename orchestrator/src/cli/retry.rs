//! `sweep retry`.

use super::output::{Exit, Failure, say};
use super::target;

/// Options of `sweep retry`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sweeps by name, or jobs by the first digits of their keys.
    #[arg(required = true, value_name = "SWEEP|JOB")]
    targets: Vec<String>,
    /// Only jobs that failed.
    #[arg(long, conflicts_with = "cancelled")]
    failed: bool,
    /// Only jobs that were cancelled.
    #[arg(long)]
    cancelled: bool,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let rows = target::jobs(&store, &args.targets).await?;
    let states: &[&str] = match (args.failed, args.cancelled) {
        (true, _) => &["failed"],
        (_, true) => &["cancelled"],
        _ => &["failed", "cancelled"],
    };
    let retried = store.job_retry(&rows, states).await?;
    say(&format!("{retried} of {} jobs are to run again", rows.len()));
    if retried > 0 {
        say("\nhint: `sweep launch SPEC` starts them");
    }
    Ok(Exit::Done)
}
