//! One attempt from claim to end: claim it, take over what earlier attempts left, train and ship side by side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Event, FailureKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ship::{BATCH_EVENTS, Destination, RetryingStore, Shipped, ship};
use super::spool::Tail;
use super::train::train;
use super::{Cli, SUPERSEDED, WorkerError, check, checkpoints, log, runner};
use crate::store::{Batch, Claim, Ending, Store};

/// How long a worker that has nothing to train yet waits for the database.
const CLAIM_LIMIT: Duration = Duration::from_mins(10);

/// Claims and supervises. Gives the worker's exit code.
pub(super) async fn supervise(cli: &Cli) -> Result<u8, WorkerError> {
    runner::adopt_orphans();
    let deadline = Instant::now() + CLAIM_LIMIT;
    let mut database = RetryingStore::connect(deadline).await?;
    let token = &cli.attempt;
    // This process is known by it if the answer to a claim is lost.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let call = async |store: &Store| store.attempt_claim(token, &nonce).await;
    let Some(claim) = database.run(Some(deadline), call).await? else {
        log::line("nothing to claim: the attempt has ended or another worker has it");
        return Ok(SUPERSEDED);
    };
    log::line(&format!("claimed job {} with fence {}", claim.job_key, claim.fence));
    let finished = match prepare(&mut database, &claim).await {
        Ok(finished) => finished,
        // With the claim in hand, whatever goes wrong is said: an attempt that only vanished would tell nobody why.
        Err(error) => return deliver(&mut database, &claim, &ending_of(&error)).await,
    };
    if let Some(finished) = finished {
        log::line("an earlier attempt had finished without being able to say so");
        return deliver(&mut database, &claim, &finished).await;
    }
    let (end_sender, end) = oneshot::channel();
    let (order_sender, orders) = mpsc::unbounded_channel();
    let training = async {
        let ending = train(cli, &claim, orders).await.unwrap_or_else(|error| {
            log::error(&error);
            Some(ending_of(&error))
        });
        if let Some(ending) = ending {
            log::line(&format!("ended: {ending:?}"));
            let _ = end_sender.send(ending);
        }
    };
    // Side by side in one thread; without an ending to deliver, shipping stops too.
    let ((), shipped) = tokio::join!(training, ship(database, &claim, end, order_sender));
    match shipped? {
        Shipped::Everything => Ok(0),
        Shipped::Superseded => {
            log::line("superseded: another claim counts now");
            Ok(SUPERSEDED)
        }
    }
}

/// The ending of an attempt that its worker could not go on with.
fn ending_of(error: &WorkerError) -> Ending {
    let reason = log::describe(error);
    match error {
        WorkerError::File { source, path, .. } if is_disk_full(source) => {
            Ending::Stopped { reason: format!("{} of {}", Ending::NO_SPACE, path.display()) }
        }
        _ => Ending::Failed {
            kind: FailureKind::Crash,
            reason: check::short_text(&reason),
            exit_code: None,
            stderr_tail: String::new(),
        },
    }
}

/// Whether a write failed for want of space.
pub(super) fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Stores an ending without training. `finished` takes over at the job's end.
async fn deliver(database: &mut RetryingStore, claim: &Claim, ending: &Ending) -> Result<u8, WorkerError> {
    log::line(&format!("ended: {ending:?}"));
    let batch = match ending {
        Ending::Finished { .. } => Batch::takeover(claim.spec.samples_seen, &claim.device),
        _ => Batch::default(),
    };
    let call = async |store: &Store| store.events_store(claim, claim.attempt_id, &batch, Some(ending)).await;
    Ok(database.run(None, call).await?.map_or(SUPERSEDED, |_| 0))
}

/// Everything before training. Gives the ending if an earlier attempt had finished.
async fn prepare(database: &mut RetryingStore, claim: &Claim) -> Result<Option<Ending>, WorkerError> {
    std::fs::create_dir_all(&claim.folder).map_err(file("make the folder", &claim.folder))?;
    let finished = ship_predecessors(database, claim).await?;
    if finished.is_none() {
        let folder = checkpoints::folder_of(claim);
        let reported = database.run(None, async |store| store.checkpoint_paths(claim.job_id).await).await?;
        for path in checkpoints::remove_unreported(&folder, &reported).map_err(file("clean the folder", &folder))? {
            log::line(&format!("removed {}: no valid claim has reported it", path.display()));
        }
    }
    Ok(finished)
}

/// Ships what earlier attempts of this job left in their spools, under their own rows, and makes sure that nothing of
/// them runs here. Gives the ending if the newest of them had finished.
async fn ship_predecessors(database: &mut RetryingStore, claim: &Claim) -> Result<Option<Ending>, WorkerError> {
    let mut finished = None;
    let mut closed = Vec::new();
    for earlier in database.run(None, async |store| store.attempt_predecessors(claim).await).await? {
        let killed = runner::kill_leftovers(&earlier.token);
        if killed > 0 {
            log::line(&format!("killed {killed} processes of the earlier attempt {}", earlier.token));
        }
        if earlier.spool_closed {
            continue;
        }
        closed.push(earlier.attempt_id);
        let to = Destination { claim, attempt_id: earlier.attempt_id };
        let mut refused = None;
        let mut tail = Tail::new(&earlier.folder);
        while !tail.exhausted() {
            let before = tail.lines();
            let mut events = tail.read(BATCH_EVENTS).map_err(file("read the events in", &earlier.folder))?;
            if tail.lines() == before {
                break; // a torn last line
            }
            // A spool of an older version was not checked when it was written.
            events.retain(|(_, event)| check::problem(event, claim.spec.samples_seen).is_none());
            for (_, event) in &events {
                match event {
                    Event::Started { .. } => finished = None,
                    Event::Finished { samples_seen, train_secs, eval_secs, peak_memory_bytes }
                        if *samples_seen == claim.spec.samples_seen =>
                    {
                        finished = Some(Ending::Finished {
                            train_secs: *train_secs,
                            eval_secs: *eval_secs,
                            peak_memory_bytes: peak_memory_bytes.map(u64::cast_signed),
                        });
                    }
                    _ => {}
                }
            }
            if tail.lines() > earlier.acked_events {
                database.store_events(None, &to, &events, tail.lines(), None, &mut refused).await?;
            }
        }
        if refused.is_some() {
            finished = None;
        }
    }
    // With an ending in hand they stay open: should it not be stored, the next attempt has to find it there.
    if finished.is_none() {
        database.run(None, async |store| store.attempt_close_spools(claim, &closed).await).await?;
    }
    Ok(finished)
}

/// For `map_err`: what was being done with a file.
pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> WorkerError {
    let path: PathBuf = path.to_owned();
    move |source| WorkerError::File { doing, path: path.clone(), source }
}
