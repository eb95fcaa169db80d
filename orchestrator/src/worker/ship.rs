//! From the spool to the database, in batches; and orders on the way back. Nobody waits for it but the end.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::spool::Tail;
use super::{WorkerError, log};
use crate::store::{Batch, Claim, Ending, Orders, Store, StoreError};

/// Events of one transaction at most.
pub(super) const BATCH_EVENTS: usize = 500;
/// How long an event waits at most, while the database is there.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// How often a silent worker says that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// First pause after a failure; doubles up to the largest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the end of an attempt waits for the database to come back.
const DELIVERY_LIMIT: Duration = Duration::from_hours(1);

/// How shipping ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shipped {
    /// Everything is stored, the ending too.
    Everything,
    /// Somebody else's claim counts now.
    Superseded,
}

/// The database with patience: what may pass is tried again until `deadline`.
#[derive(Debug)]
pub(super) struct Patient {
    store: Store,
}

impl Patient {
    /// Connects, starting the private database if there is none.
    pub(super) async fn connect(deadline: Instant) -> Result<Patient, WorkerError> {
        let mut pause = PAUSE_MIN;
        loop {
            match Store::connect().await {
                Ok(store) => return Ok(Patient { store }),
                Err(error @ (StoreError::Url { .. } | StoreError::SchemaNewer { .. })) => return Err(error.into()),
                Err(error) if Instant::now() + pause > deadline => return Err(error.into()),
                Err(error) => log::error(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Runs `call` until it gives an answer. Every call is idempotent: what was stored already changes nothing.
    pub(super) async fn run<T>(
        &mut self,
        deadline: Option<Instant>,
        mut call: impl AsyncFnMut(&Store) -> Result<T, StoreError>,
    ) -> Result<T, WorkerError> {
        let mut pause = PAUSE_MIN;
        loop {
            let error = match call(&self.store).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => error,
            };
            log::error(&error);
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            // The private cluster may have come up elsewhere, or may be ours to start.
            if let Ok(store) = Store::connect().await {
                self.store = store;
            }
        }
    }
}

/// Ships the spool until `ending` comes and is stored. Orders of the database go to `orders`.
pub(super) async fn ship(
    mut database: Patient,
    claim: &Claim,
    mut ending: oneshot::Receiver<Ending>,
    orders: mpsc::UnboundedSender<Orders>,
) -> Result<Shipped, WorkerError> {
    let mut tail = Tail::new(&claim.folder);
    let mut told = Instant::now();
    let mut end = None;
    let mut deadline = None;
    loop {
        if end.is_none() {
            tokio::select! {
                received = &mut ending => {
                    // The other side is gone without an ending: the claim is superseded or the worker failed.
                    let Ok(received) = received else { return Ok(Shipped::Superseded) };
                    end = Some(received);
                    deadline = Some(Instant::now() + DELIVERY_LIMIT);
                }
                () = tokio::time::sleep(SHIP_EVERY) => {}
            }
        }
        let events = tail.read(BATCH_EVENTS).map_err(|source| super::WorkerError::File {
            doing: "read the events in",
            path: claim.folder.clone(),
            source,
        })?;
        // The last batch carries the ending.
        let last = if tail.exhausted() { end.as_ref() } else { None };
        let answer = if events.is_empty() && last.is_none() {
            if told.elapsed() < BEAT_EVERY {
                continue;
            }
            database.run(deadline, async |store| store.attempt_beat(claim).await).await?
        } else {
            let batch = Batch::new(&events, tail.lines());
            let call = async |store: &Store| store.events_store(claim, claim.attempt_id, &batch, last).await;
            database.run(deadline, call).await?
        };
        told = Instant::now();
        match answer {
            None => return Ok(Shipped::Superseded),
            Some(_) if last.is_some() => return Ok(Shipped::Everything),
            Some(answer) => drop(orders.send(answer)),
        }
    }
}
