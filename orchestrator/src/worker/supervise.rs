//! A worker's life: claim an attempt, take over what earlier ones left, train and ship side by side; then, if it was
//! started for a sweep, go on to the next job with the same runner.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Event, FailureKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::adopt::Inheritance;
use super::energy::Meter;
use super::ship::{BATCH_EVENTS, DELIVERY_LIMIT, Destination, RetryingStore, Shipped, ship};
use super::spool::Tail;
use super::stop::StopSignal;
use super::train::{RunnerSeat, train};
use super::{Cli, SUPERSEDED, WorkerError, adopt, checkpoints, log, runner};
use crate::events;
use crate::store::{self, Batch, Claim, End, Ending, Energy, NextRequest, Store, describe};

/// How long a worker that has nothing to train yet waits for the database.
const CLAIM_LIMIT: Duration = Duration::from_mins(10);

/// Claims and supervises, one job after another. Gives the worker's exit code.
pub(super) async fn supervise(cli: &Cli) -> Result<u8, WorkerError> {
    runner::adopt_orphans();
    let begun = Instant::now();
    let deadline = begun + CLAIM_LIMIT;
    let mut database = RetryingStore::connect(deadline, !cli.database_elsewhere).await?;
    let token = &cli.attempt;
    // This process is known by it if the answer to a claim is lost.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let node = super::node();
    let call = async |store: &Store| store.attempt_claim(token, &nonce, &node).await;
    let Some(mut claim) = database.run(Some(deadline), call).await? else {
        log::line("nothing to claim: the attempt has ended or another worker has it");
        return Ok(SUPERSEDED);
    };
    let stop = StopSignal::listen()?;
    let mut seat = RunnerSeat::new(cli, begun);
    let next_job = || {
        let sweep_id = cli.sweep.filter(|_| !stop.asked() && begun.elapsed().as_secs() < cli.work_secs)?;
        let token = format!("{:032x}", rand::random::<u128>());
        Some(NextRequest { sweep_id, token, nonce: nonce.clone(), home: store::home().display().to_string() })
    };
    let code = loop {
        log::line(&format!("claimed job {} with fence {}", claim.job_key, claim.fence));
        match attempt(&mut seat, &mut database, &claim, &stop, &next_job).await {
            Ok(Shipped::Everything(None)) => break Ok(0),
            Ok(Shipped::Everything(Some(next))) => {
                log::line(&format!("goes on to job {}, in {}", next.job_key, next.folder.display()));
                log::set_next_folder(&next.folder);
                claim = *next;
            }
            Ok(Shipped::Superseded) => {
                log::line("superseded: another claim counts now");
                break Ok(SUPERSEDED);
            }
            Err(error) => break Err(error),
        }
    };
    seat.leave().await;
    code
}

/// One attempt from its claim to its end.
async fn attempt(
    seat: &mut RunnerSeat<'_>,
    database: &mut RetryingStore,
    claim: &Claim,
    stop: &StopSignal,
    next_job: &impl Fn() -> Option<NextRequest>,
) -> Result<Shipped, WorkerError> {
    let mut claim = claim.clone();
    let finished = match prepare(database, &mut claim).await {
        Ok(Some(inheritance)) => inheritance.finished,
        Ok(None) => return Ok(Shipped::Superseded),
        // With the claim in hand, whatever goes wrong is said: an attempt that only vanished would tell nobody why.
        Err(error) => return deliver(database, &claim, &ending_of(&error)).await,
    };
    let claim = &claim;
    if let Some(finished) = finished {
        log::line("an earlier attempt had finished without being able to say so");
        return deliver(database, claim, &finished).await;
    }
    let (end_sender, end) = oneshot::channel();
    let (order_sender, orders) = mpsc::unbounded_channel();
    let training = async {
        let meter = Meter::start(seat.cli(), claim);
        let (ending, energy) = meter.alongside(Box::pin(train(seat, claim, orders, stop))).await;
        let ending = ending.unwrap_or_else(|error| {
            log::error(&error);
            Some(ending_of(&error))
        });
        if let Some(ending) = ending {
            if !matches!(ending, Ending::Finished { .. }) {
                log::move_to_next_folder();
            }
            log::line(&format!("ended: {ending:?}"));
            let _ = end_sender.send((ending, energy));
        }
    };
    // Side by side in one thread; without an ending to deliver, shipping stops too.
    let ((), shipped) = tokio::join!(training, ship(database, claim, end, order_sender, next_job));
    match shipped {
        // What can't be shipped for good ends the attempt with the reason. A database that is away does not.
        Err(error @ (WorkerError::File { .. } | WorkerError::Store(_))) if !is_away(&error) => {
            log::error(&error);
            deliver(database, claim, &ending_of(&error)).await
        }
        shipped => shipped,
    }
}

fn is_away(error: &WorkerError) -> bool {
    matches!(error, WorkerError::Store(error) if error.is_transient())
}

/// The ending of an attempt that its worker could not go on with.
pub(super) fn ending_of(error: &WorkerError) -> Ending {
    let reason = describe(error);
    match error {
        WorkerError::File { source, path, .. } if is_disk_full(source) => {
            Ending::Stopped { reason: format!("{} of {}", Ending::NO_SPACE, path.display()) }
        }
        _ => Ending::Failed {
            kind: FailureKind::Crash,
            reason: events::short_text(&reason),
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
pub(super) async fn deliver(
    database: &mut RetryingStore,
    claim: &Claim,
    ending: &Ending,
) -> Result<Shipped, WorkerError> {
    log::line(&format!("ended: {ending:?}"));
    let batch = match ending {
        Ending::Finished { .. } => Batch::takeover(claim.spec.samples_seen, &claim.device),
        _ => Batch::default(),
    };
    let end = Some(End { ending, energy: Energy::default(), next: None });
    let call = async |store: &Store| store.events_store(claim, claim.attempt_id, &batch, end).await;
    let deadline = Some(Instant::now() + DELIVERY_LIMIT);
    Ok(database.run(deadline, call).await?.map_or(Shipped::Superseded, |_| Shipped::Everything(None)))
}

/// Everything before training. `None`: the claim is superseded.
async fn prepare(database: &mut RetryingStore, claim: &mut Claim) -> Result<Option<Inheritance>, WorkerError> {
    std::fs::create_dir_all(&claim.folder).map_err(file("make the folder", &claim.folder))?;
    let Some(inheritance) = adopt::take_over(database, claim).await? else { return Ok(None) };
    if inheritance.finished.is_none() && checkpoints::any(claim)? {
        let (reported, example) = adopt::known_checkpoints(database, claim, &inheritance).await?;
        checkpoints::clean(claim, inheritance.sets_aside, &reported, &example)?;
    }
    Ok(Some(inheritance))
}

/// Ships what earlier attempts of this job left in their spools, under their own rows, and makes sure that nothing of
/// them runs here. Gives the ending if the newest of them had finished.
pub(super) async fn ship_predecessors(
    database: &mut RetryingStore,
    claim: &Claim,
) -> Result<Option<Ending>, WorkerError> {
    let mut finished = None;
    let mut closed = Vec::new();
    for earlier in database.run(None, async |store| store.attempt_predecessors(claim).await).await? {
        let killed = earlier.ended_worker.as_deref().map_or(0, runner::kill_leftovers);
        if killed > 0 {
            log::line(&format!("killed {killed} processes of the earlier attempt {}", earlier.token));
        }
        if earlier.spool_closed {
            continue;
        }
        closed.push(earlier.attempt_id);
        let to = Destination { claim, attempt_id: earlier.attempt_id };
        let mut refused = None;
        let mut tail = Tail::new(&earlier.folder, claim.spec.samples_seen);
        while !tail.exhausted() {
            let before = tail.lines();
            let events = tail.read(BATCH_EVENTS).map_err(file("read the events in", &earlier.folder))?;
            if tail.lines() == before {
                break; // a torn last line
            }
            // What can't be read is trained again.
            refused = refused.or_else(|| tail.unread().map(str::to_owned));
            finished_in(&events, claim, &mut finished);
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

/// Keeps the ending of a runner that says it has finished its job, until another one starts.
pub(super) fn finished_in(events: &[(i64, Event)], claim: &Claim, finished: &mut Option<Ending>) {
    for (_, event) in events {
        match event {
            Event::Started { .. } => *finished = None,
            Event::Finished { samples_seen, train_secs, eval_secs, peak_memory_bytes }
                if *samples_seen == claim.spec.samples_seen =>
            {
                *finished = Some(Ending::Finished {
                    train_secs: *train_secs,
                    eval_secs: *eval_secs,
                    peak_memory_bytes: peak_memory_bytes.map(u64::cast_signed),
                });
            }
            _ => {}
        }
    }
}

/// For `map_err`: what was being done with a file.
pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> WorkerError {
    let path: PathBuf = path.to_owned();
    move |source| WorkerError::File { doing, path: path.clone(), source }
}
