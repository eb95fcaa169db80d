//! The launcher's side of `ship: spool`: gives workers without a database their claims, and stores what they leave in
//! their folders. What is stored already changes nothing, so it may begin anew at any time, and two may do it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use protocol::Event;

use super::WorkerError;
use super::adopt;
use super::ship::{BATCH_EVENTS, Destination, RetryingStore};
use super::spool::Tail;
use super::supervise::{deliver, finished_in};
use super::ticket::{self, EndReport, Ticket};
use crate::store::{Claim, End, Ending, Energy, Orders, Store, StoreError, describe};

/// An attempt whose worker reaches no database.
#[derive(Debug, Clone)]
pub struct SpooledAttempt {
    /// Its name.
    pub token: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it counts as running: its worker was seen.
    pub running: bool,
}

/// What was read of each attempt.
#[derive(Debug, Default)]
pub struct Ingest {
    attempts: BTreeMap<String, Reading>,
    /// Attempts of whose files an error was told.
    told: BTreeSet<String>,
}

/// What came of a look at the attempts' folders.
#[derive(Debug, Default)]
pub struct Ingested {
    /// Attempts that have ended.
    pub ended: BTreeSet<String>,
    /// What could not be read or written, told once an attempt.
    pub problems: Vec<String>,
}

/// How far an attempt was read.
#[derive(Debug)]
struct Reading {
    claim: Claim,
    tail: Tail,
    beat: Option<String>,
    ordered: Orders,
    /// Why an event could not be read or stored.
    refused: Option<String>,
    /// The runner's word that it has finished.
    finished: Option<Ending>,
}

impl Reading {
    fn new(claim: Claim) -> Reading {
        let tail = Tail::new(&claim.folder, claim.spec.samples_seen);
        Reading { claim, tail, beat: None, ordered: Orders::default(), refused: None, finished: None }
    }
}

impl Ingest {
    /// Gives recorded attempts their fences and tickets: gives those whose workers can be started. What earlier
    /// attempts have left is stored before; where one of them had finished, its job is done, and nothing is to be
    /// started.
    pub async fn grant(&mut self, store: &Store, tokens: &[String]) -> Result<Vec<String>, GrantError> {
        let mut ready = Vec::new();
        for (token, claim) in store.attempt_grant(tokens).await? {
            let unread = |source| GrantError::File { token: token.clone(), source };
            let given = Ticket::read(&claim.folder).map_err(unread)?;
            // With a ticket its worker may run already, and what lies in the job's folder is its own.
            let ticket = match given.filter(|ticket| ticket.claim.fence == claim.fence) {
                Some(given) => given,
                None => match Self::ticket(store, &token, claim).await? {
                    Some(ticket) => ticket,
                    None => continue,
                },
            };
            self.attempts.insert(token.clone(), Reading::new(ticket.claim));
            ready.push(token);
        }
        Ok(ready)
    }

    /// Writes the ticket of a claim. `None`: its job is done, or the claim no longer counts.
    async fn ticket(store: &Store, token: &str, mut claim: Claim) -> Result<Option<Ticket>, GrantError> {
        let failed = |source| GrantError::File { token: token.to_owned(), source };
        let unwritten = |error| GrantError::of(error, token);
        std::fs::create_dir_all(&claim.folder).map_err(failed)?;
        let mut database = RetryingStore::once(store.clone());
        let Some(inheritance) = adopt::take_over(&mut database, &mut claim).await.map_err(unwritten)? else {
            return Ok(None);
        };
        if let Some(ending) = &inheritance.finished {
            deliver(&mut database, &claim, ending).await.map_err(unwritten)?;
            return Ok(None);
        }
        let (mut reported_checkpoints, mut example_checkpoints, mut ended_workers) = Default::default();
        if claim.fence > 1 {
            let known = adopt::known_checkpoints(&mut database, &claim, &inheritance).await.map_err(unwritten)?;
            (reported_checkpoints, example_checkpoints) = known;
            let earlier = store.attempt_predecessors(&claim).await?;
            ended_workers = earlier.into_iter().filter_map(|earlier| earlier.ended_worker).collect();
        }
        let sets_aside = inheritance.sets_aside;
        let ticket = Ticket { claim, reported_checkpoints, example_checkpoints, sets_aside, ended_workers };
        ticket.write().map_err(failed)?;
        Ok(Some(ticket))
    }

    /// Stores what is new in the folders of these attempts, all that live.
    pub async fn look(&mut self, store: &Store, attempts: &[SpooledAttempt]) -> Result<Ingested, StoreError> {
        let live: BTreeSet<&str> = attempts.iter().map(|attempt| attempt.token.as_str()).collect();
        self.attempts.retain(|token, _| live.contains(token.as_str()));
        self.told.retain(|token| live.contains(token.as_str()));
        self.read(store, attempts).await
    }

    async fn read(&mut self, store: &Store, attempts: &[SpooledAttempt]) -> Result<Ingested, StoreError> {
        let mut ingested = Ingested::default();
        let (mut seen, mut nodes) = (Vec::new(), Vec::new());
        let mut ends = BTreeMap::new();
        for attempt in attempts {
            match self.look_at(attempt) {
                Ok(None) => {}
                Ok(Some(look)) => {
                    if look.lives || (look.end.is_some() && !attempt.running) {
                        seen.push(attempt.token.clone());
                        nodes.push(look.node.unwrap_or_default());
                    }
                    if look.lives || look.end.is_some() || look.more {
                        ends.insert(attempt.token.clone(), look.end);
                    }
                }
                Err(error) => self.tell(&attempt.token, &error.to_string(), &mut ingested),
            }
        }
        if !seen.is_empty() {
            let answers = store.attempt_seen(&seen, &nodes).await?;
            for worker in &answers {
                self.pass_on(&worker.token, worker.orders, &mut ingested);
            }
            // Superseded, withdrawn: nothing of it counts.
            ends.retain(|token, _| !seen.contains(token) || answers.iter().any(|worker| worker.token == *token));
        }
        for (token, end) in ends {
            match self.store_new(store, &token, end.as_ref()).await {
                Ok(true) => drop(ingested.ended.insert(token)),
                Ok(false) => {}
                Err(WorkerError::Store(error)) => return Err(error),
                Err(error) => self.tell(&token, &describe(&error), &mut ingested),
            }
        }
        Ok(ingested)
    }

    /// Stores the rest of an attempt whose worker is gone. `true`: it had ended properly, or its runner had finished,
    /// and that is stored; else the attempt is to be given up.
    pub async fn finish(&mut self, store: &Store, attempt: &SpooledAttempt) -> Result<bool, StoreError> {
        let ingested = self.read(store, std::slice::from_ref(attempt)).await?;
        if ingested.ended.contains(&attempt.token) {
            return Ok(true);
        }
        let Some(reading) = self.attempts.get(&attempt.token) else { return Ok(false) };
        let Some(ending) = reading.finished.clone().filter(|_| reading.refused.is_none()) else { return Ok(false) };
        let to = Destination { claim: &reading.claim, attempt_id: reading.claim.attempt_id };
        let end = Some(End { ending: &ending, energy: Energy::default(), next: None });
        let mut database = RetryingStore::once(store.clone());
        match database.store_events(None, &to, &[], reading.tail.lines(), end, &mut None).await {
            Ok(stored) => Ok(stored.is_some()),
            Err(WorkerError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// What can be seen of an attempt without the database. `None`: it has no ticket here.
    fn look_at(&mut self, attempt: &SpooledAttempt) -> std::io::Result<Option<Look>> {
        let mut first = !attempt.running;
        if !self.attempts.contains_key(&attempt.token) {
            let Some(ticket) = Ticket::read(&attempt.folder)? else { return Ok(None) };
            let mut reading = Reading::new(ticket.claim);
            if attempt.running {
                // Of before this launcher: whether it still beats is seen next time.
                reading.beat = ticket::last_beat(&attempt.folder);
                first = false;
            }
            self.attempts.insert(attempt.token.clone(), reading);
        }
        let Some(reading) = self.attempts.get_mut(&attempt.token) else { return Ok(None) };
        let beat = ticket::last_beat(&attempt.folder);
        let lives = beat.is_some() && (first || beat != reading.beat);
        let node = beat.as_deref().and_then(ticket::node_of).map(str::to_owned);
        reading.beat = beat;
        // Before the events: what it says of their number is not more than there are.
        let end = EndReport::read(&attempt.folder)?;
        Ok(Some(Look { lives, node, end, more: !reading.tail.exhausted() }))
    }

    /// Stores new events of an attempt; and its end, once all that it counts are there. Whether it has ended.
    async fn store_new(&mut self, store: &Store, token: &str, end: Option<&EndReport>) -> Result<bool, WorkerError> {
        let Some(reading) = self.attempts.get_mut(token) else { return Ok(false) };
        let mut database = RetryingStore::once(store.clone());
        loop {
            // A copy: what is not stored is read again.
            let mut tail = reading.tail.clone();
            let reading_failed = super::supervise::file("read the events in", &reading.claim.folder);
            let events: Vec<(i64, Event)> = tail.read(BATCH_EVENTS).map_err(reading_failed)?;
            let end = end.filter(|end| tail.lines() >= end.lines);
            if tail.lines() == reading.tail.lines() && end.is_none() {
                return Ok(false);
            }
            reading.refused = reading.refused.take().or_else(|| tail.unread().map(str::to_owned));
            let mut finished = reading.finished.clone();
            finished_in(&events, &reading.claim, &mut finished);
            let to = Destination { claim: &reading.claim, attempt_id: reading.claim.attempt_id };
            let last = end.map(|end| End { ending: &end.ending, energy: end.energy, next: None });
            let stored = database.store_events(None, &to, &events, tail.lines(), last, &mut reading.refused).await?;
            (reading.tail, reading.finished) = (tail, finished);
            if stored.is_none() {
                return Ok(false);
            }
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Orders for a worker, if they are new. An attempt that is to fail for what was refused need not go on.
    fn pass_on(&mut self, token: &str, orders: Orders, ingested: &mut Ingested) {
        let Some(reading) = self.attempts.get_mut(token) else { return };
        let orders = Orders { stop: orders.stop || reading.refused.is_some(), ..orders };
        if orders == reading.ordered {
            return;
        }
        match ticket::give_orders(&reading.claim.folder, orders) {
            Ok(()) => reading.ordered = orders,
            Err(error) => self.tell(token, &error.to_string(), ingested),
        }
    }

    fn tell(&mut self, token: &str, problem: &str, ingested: &mut Ingested) {
        if self.told.insert(token.to_owned()) {
            ingested.problems.push(format!("the files of attempt {token}: {problem}"));
        }
    }
}

/// What was seen in an attempt's folder.
struct Look {
    /// It has beaten since the last look.
    lives: bool,
    /// The machine that it is on.
    node: Option<String>,
    end: Option<EndReport>,
    /// There are new events.
    more: bool,
}

/// What can go wrong with giving fences.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The attempt's folder.
    #[error("can't prepare the folder of attempt {token}")]
    File {
        /// Name of the attempt.
        token: String,
        /// Why.
        source: std::io::Error,
    },
}

impl GrantError {
    fn of(error: WorkerError, token: &str) -> GrantError {
        match error {
            WorkerError::Store(error) => GrantError::Store(error),
            error => GrantError::File { token: token.to_owned(), source: std::io::Error::other(describe(&error)) },
        }
    }
}
