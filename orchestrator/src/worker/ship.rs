//! From the spool to the database, in batches; and orders on the way back. Nobody waits for it but the end.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use protocol::{Event, FailureKind};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::spool::Tail;
use super::{WorkerError, log};
use crate::store::{Batch, Claim, End, Ending, Energy, NextRequest, Orders, Store, StoreError, Stored, describe};

/// Events of one transaction at most.
pub(super) const BATCH_EVENTS: usize = 1000;
/// How long an event waits at most, while the database is there.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// How often a silent worker says that it lives. Launchers wait for three beats.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(3);
/// First pause after a failure; doubles up to the largest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long one call may take before the database counts as away; doubles while it does.
const CALL_LIMIT: Duration = Duration::from_secs(30);
const CALL_LIMIT_MAX: Duration = Duration::from_mins(4);
/// How long the end of an attempt waits for the database to come back.
pub(super) const DELIVERY_LIMIT: Duration = Duration::from_hours(1);
/// File in an attempt's folder with the events that the database could not hold.
const REFUSED_FILE: &str = "refused.jsonl";

/// How shipping ended.
#[derive(Debug)]
pub(super) enum Shipped {
    /// Everything is stored, the ending too; and the job to go on with, if there is one.
    Everything(Option<Box<Claim>>),
    /// Somebody else's claim counts now.
    Superseded,
}

/// A store whose calls are tried until they get an answer, whatever the database is going through.
#[derive(Debug)]
pub(super) struct RetryingStore {
    store: Store,
    may_start: bool,
    /// Whether calls are tried again.
    tries_again: bool,
}

impl RetryingStore {
    /// One whose caller tries again by itself.
    pub(super) fn once(store: Store) -> RetryingStore {
        RetryingStore { store, may_start: false, tries_again: false }
    }

    /// Connects, starting the private database if it is not up and `may_start` it here.
    pub(super) async fn connect(deadline: Instant, may_start: bool) -> Result<RetryingStore, WorkerError> {
        let mut pause = PAUSE_MIN;
        loop {
            match Store::connect_worker(may_start).await {
                Ok(store) => return Ok(RetryingStore { store, may_start, tries_again: true }),
                Err(error @ (StoreError::Url { .. } | StoreError::SchemaNewer { .. })) => return Err(error.into()),
                Err(error) if Instant::now() + pause > deadline => return Err(error.into()),
                Err(error) => log::error(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Runs `call` until it gives an answer, or refuses the data that it is given, or `deadline` is over. Every call is
    /// idempotent: what was stored already changes nothing. Training goes on meanwhile.
    pub(super) async fn run<T>(
        &mut self,
        deadline: Option<Instant>,
        mut call: impl AsyncFnMut(&Store) -> Result<T, StoreError>,
    ) -> Result<T, WorkerError> {
        let mut pause = PAUSE_MIN;
        let mut limit = CALL_LIMIT;
        loop {
            let within =
                deadline.map_or(limit, |deadline| limit.min(deadline.saturating_duration_since(Instant::now())));
            let error = match tokio::time::timeout(within, call(&self.store)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.refuses_data() => return Err(error.into()),
                Ok(Err(error)) => error.into(),
                Err(_) => {
                    limit = (limit * 2).min(CALL_LIMIT_MAX);
                    WorkerError::NoAnswer { secs: within.as_secs() }
                }
            };
            if !self.tries_again {
                return Err(error);
            }
            log::error(&error);
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            // The private cluster may have come up elsewhere, or may be ours to start.
            if let Ok(Ok(store)) = tokio::time::timeout(limit, Store::connect_worker(self.may_start)).await {
                self.store = store;
            }
        }
    }

    /// Stores events of an attempt, and `ending` with the last of them. What the database can't hold is set aside, one
    /// event at a time, in a file of the claim's folder with the reason, so that it stands in nobody's way; the first
    /// reason goes to `refused`, and an ending that is no failure becomes one.
    pub(super) async fn store_events(
        &mut self,
        deadline: Option<Instant>,
        to: &Destination<'_>,
        events: &[(i64, Event)],
        lines: i64,
        end: Option<End<'_>>,
        refused: &mut Option<String>,
    ) -> Result<Option<Stored>, WorkerError> {
        let mut parts = vec![(events, lines)];
        let mut stored = None;
        while let Some((part, lines)) = parts.pop() {
            let ending = end.filter(|_| parts.is_empty()).map(|end| unless_refused(end.ending, refused.as_deref()));
            let last = ending.as_ref().zip(end).map(|(ending, end)| End { ending, ..end });
            let only: Vec<Event> = part.iter().map(|(_, event)| event.clone()).collect();
            let batch = Batch::new(&only, lines);
            let call = async |store: &Store| store.events_store(to.claim, to.attempt_id, &batch, last).await;
            match self.run(deadline, call).await {
                Ok(None) => return Ok(None),
                Ok(answer) => stored = answer,
                Err(WorkerError::Store(error)) if error.refuses_data() && !part.is_empty() => {
                    if let [(line, event)] = part {
                        let reason = describe(&error);
                        set_aside(&to.claim.folder, *line, event, &reason);
                        refused.get_or_insert(reason);
                        parts.push((&[], lines));
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.push((second, lines));
                        parts.push((first, first.last().map_or(0, |(line, _)| *line)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(stored)
    }
}

/// Whose events they are, and under whose claim they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    /// The claim that counts.
    pub(super) claim: &'a Claim,
    /// Its own attempt, or one before it.
    pub(super) attempt_id: i64,
}

/// An attempt of which something could not be stored is not done.
fn unless_refused(ending: &Ending, refused: Option<&str>) -> Ending {
    match (ending, refused) {
        (Ending::Finished { .. } | Ending::Stopped { .. }, Some(reason)) => Ending::Failed {
            kind: FailureKind::BadInput,
            reason: format!(
                "not all that the runner said could be stored ({reason}): see {REFUSED_FILE} or {} of the attempt",
                super::spool::FILE
            ),
            exit_code: None,
            stderr_tail: String::new(),
        },
        _ => ending.clone(),
    }
}

fn set_aside(folder: &Path, line: i64, event: &Event, reason: &str) {
    log::line(&format!("the database refused event {line}: {reason}"));
    let entry = json!({"line": line, "reason": reason, "event": event});
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(REFUSED_FILE))
        .and_then(|mut file| writeln!(file, "{entry}"));
    if let Err(error) = written {
        log::error(&error);
    }
}

/// Ships the spool until `ending` comes and is stored, with what `next_job` asks for then. Orders of the database go to
/// `orders`.
pub(super) async fn ship(
    database: &mut RetryingStore,
    claim: &Claim,
    mut ending: oneshot::Receiver<(Ending, Energy)>,
    orders: mpsc::UnboundedSender<Orders>,
    next_job: &impl Fn() -> Option<NextRequest>,
) -> Result<Shipped, WorkerError> {
    let mut tail = Tail::new(&claim.folder, claim.spec.samples_seen);
    let to = Destination { claim, attempt_id: claim.attempt_id };
    let mut told = Instant::now();
    let mut refused = None;
    let mut end = None;
    let mut next = None;
    let mut deadline = None;
    // Whether the last batch was a full one: more is waiting, so no time is to be lost.
    let mut behind = false;
    loop {
        if end.is_none() {
            tokio::select! {
                received = &mut ending => {
                    // The other side is gone without an ending: the claim is superseded.
                    let Ok(received) = received else { return Ok(Shipped::Superseded) };
                    end = Some(received);
                    next = next_job();
                    deadline = Some(Instant::now() + DELIVERY_LIMIT);
                }
                () = tokio::time::sleep(if behind { Duration::ZERO } else { SHIP_EVERY }) => {}
            }
        }
        let events = tail.read(BATCH_EVENTS).map_err(|source| super::WorkerError::File {
            doing: "read the events in",
            path: claim.folder.clone(),
            source,
        })?;
        refused = refused.or_else(|| tail.unread().map(str::to_owned));
        behind = events.len() == BATCH_EVENTS;
        // The last batch carries the ending.
        let last = end.as_ref().filter(|_| tail.exhausted()).map(|(ending, energy)| End {
            ending,
            energy: *energy,
            next: next.as_ref(),
        });
        let answer = if events.is_empty() && last.is_none() {
            if told.elapsed() < BEAT_EVERY {
                continue;
            }
            let orders = database.run(deadline, async |store| store.attempt_beat(claim).await).await?;
            orders.map(|orders| Stored { orders, not_done: None, next: None })
        } else {
            database.store_events(deadline, &to, &events, tail.lines(), last, &mut refused).await?
        };
        told = Instant::now();
        match answer {
            None => return Ok(Shipped::Superseded),
            Some(answer) if last.is_some() => {
                answer.not_done.iter().for_each(|reason| log::line(&format!("stored as failed: {reason}")));
                return Ok(Shipped::Everything(answer.next.map(Box::new)));
            }
            Some(answer) => {
                // An attempt that is to fail for what was refused need not go on.
                let stop = answer.orders.stop || refused.is_some();
                let _ = orders.send(Orders { stop, ..answer.orders });
            }
        }
    }
}
