//! `sweep cancel`.

use super::output::{Exit, Failure, say};
use super::target;
use crate::backend::{Backend, LocalBackend};
use crate::plan::LocalOptions;
use crate::store;

/// Options of `sweep cancel`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sweeps by name, or jobs by the first digits of their keys. A job that several sweeps share is cancelled for all.
    #[arg(required = true, value_name = "SWEEP|JOB")]
    targets: Vec<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let rows = target::jobs(&store, &args.targets).await?;
    let (cancelled, tokens) = store.job_cancel(&rows).await?;
    // Workers ask the database now and then; those of this machine are told at once.
    let backend = LocalBackend::new(&LocalOptions::default(), &store::home(), &[])?;
    for token in &tokens {
        backend.stop(token).await?;
    }
    say(&format!("cancelled {cancelled} of {} jobs; those that were done or failed stay as they are", rows.len()));
    if cancelled > 0 {
        say("\nhint: `sweep retry` takes it back");
    }
    Ok(Exit::Done)
}
