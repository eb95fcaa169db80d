//! `sweep cancel`.

use super::output::{Exit, Failure, say};
use super::target;
use crate::backend::{Backend, LocalBackend, Observed, WorkerId};
use crate::plan::LocalOptions;
use crate::schedule::{SILENT_SECS, STALE_SECS};
use crate::store::{self, Place};

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
    let cancelled = store.job_cancel(&rows, SILENT_SECS).await?;
    // Workers ask the database now and then; those of this machine are told at once, and those that are gone end here.
    let backend = LocalBackend::new(&LocalOptions::default(), &store::home(), &[])?;
    let place =
        Place { backend: backend.name(), host: backend.host().to_owned(), machine: backend.machine().to_owned() };
    let attempts = store.attempt_of_jobs(&place, &rows).await?;
    let workers: Vec<WorkerId> = attempts
        .iter()
        .map(|attempt| WorkerId { name: attempt.worker.clone(), handle: attempt.handle.clone() })
        .collect();
    let observed = backend.poll(&workers).await;
    for (attempt, worker) in attempts.iter().zip(&workers) {
        if observed.get(&worker.name) == Some(&Observed::Gone) && attempt.silent_secs >= STALE_SECS {
            store.attempt_lost(&attempt.token, "the worker is gone").await?;
            backend.kill_leftovers(&worker.name).await;
        } else {
            backend.stop(worker).await?;
        }
    }
    say(&format!("cancelled {cancelled} of {} jobs; those that were done or failed stay as they are", rows.len()));
    if cancelled > 0 {
        say("\nhint: `sweep retry` takes it back");
    }
    Ok(Exit::Done)
}
