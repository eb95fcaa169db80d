//! `sweep cancel`.

use std::time::Duration;

use super::output::{Exit, Failure, say};
use super::target;
use crate::backend::{Backend, EndCause, LocalBackend, Observed, SlurmBackend, WorkerId, aside_machine};
use crate::plan::{LocalOptions, SlurmOptions};
use crate::schedule::driver::{place_of, worker_ids};
use crate::schedule::{SILENT_SECS, STALE_SECS};
use crate::store::{self, Place, Store};

/// How long Slurm may take to be told.
const SLURM_LIMIT: Duration = Duration::from_secs(30);

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
    // Before they end: who has them.
    let queued = slurm_workers(&store, &rows).await?;
    let cancelled = store.job_cancel(&rows, "cancelled by request", SILENT_SECS).await?;
    if let Some((slurm, workers)) = queued {
        for worker in &workers {
            slurm.stop(worker).await?;
        }
        if !slurm.flush(SLURM_LIMIT).await {
            say("Slurm does not answer: its jobs will find nothing to do, or stop after a checkpoint, by themselves");
        }
    }
    // Workers ask the database now and then; those of this machine are told at once, and those that are gone end here.
    let backend = LocalBackend::new(&LocalOptions::default(), &store::home(), &[])?;
    let mut attempts = Vec::new();
    for place in places(&backend) {
        attempts.extend(store.attempt_of_jobs(&place, &rows).await?);
    }
    let workers = worker_ids(&attempts);
    let observed = backend.poll(&workers).await;
    for (attempt, worker) in attempts.iter().zip(&workers) {
        if observed.get(&worker.name) == Some(&Observed::Gone) && attempt.silent_secs >= STALE_SECS {
            store.attempt_lost(&attempt.token, "the worker is gone", EndCause::Unknown.word(), None).await?;
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

/// Where workers of a backend are: in its slots, or in those beside.
fn places(backend: &dyn Backend) -> [Place; 2] {
    let here = place_of(backend);
    let aside = Place { machine: aside_machine(&here.machine), ..here.clone() };
    [here, aside]
}

/// The cluster, where it has workers of these jobs, and these.
async fn slurm_workers(store: &Store, rows: &[i64]) -> Result<Option<(SlurmBackend, Vec<WorkerId>)>, Failure> {
    if !store.attempt_exists(SlurmBackend::NAME, rows).await? {
        return Ok(None);
    }
    match SlurmBackend::connect(&SlurmOptions::default(), &store::home(), None).await {
        Ok(slurm) => {
            let mut workers = Vec::new();
            for place in places(&slurm) {
                workers.extend(worker_ids(&store.attempt_of_jobs(&place, rows).await?));
            }
            Ok(Some((slurm, workers)))
        }
        Err(error) => {
            say(&format!("{error}: its jobs will find nothing to do, or stop after a checkpoint, by themselves"));
            Ok(None)
        }
    }
}
