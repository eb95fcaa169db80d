//! A worker that reaches no database (`ship: spool`): its claim comes in a file, and what it has to say stays in the
//! attempt's folder, from where the launcher stores it ([`super::ingest`]).

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::energy::Meter;
use super::ship::BEAT_EVERY;
use super::spool::Tail;
use super::stop::StopSignal;
use super::supervise::{ending_of, file, is_disk_full};
use super::ticket::{self, EndReport, Ticket};
use super::train::{RunnerSeat, SYNC_AFTER, train};
use super::{Cli, SUPERSEDED, WorkerError, checkpoints, log, runner};
use crate::store::{Claim, Ending, Energy, Orders};

/// Between two looks for orders and for a higher fence.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to write the end, and how long a full disk is waited for.
const END_RETRY: Duration = Duration::from_secs(1);
const END_LIMIT: Duration = Duration::from_hours(1);

/// Runs the attempt of `folder`. Gives the worker's exit code.
pub(super) async fn supervise(cli: &Cli, folder: &Path) -> Result<u8, WorkerError> {
    runner::adopt_orphans();
    let begun = Instant::now();
    let reading = file("read ticket.json in", folder);
    let ticket = Ticket::read(folder).map_err(&reading)?;
    let ticket = ticket.ok_or_else(|| reading(std::io::ErrorKind::NotFound.into()))?;
    let claim = &ticket.claim;
    if !ticket::take_fence(&claim.folder, claim.fence).map_err(file("take the fence of", folder))? {
        log::line("nothing to claim: another worker has the attempt, or a later one of the job was started");
        return Ok(SUPERSEDED);
    }
    log::line(&format!("claimed job {} with fence {}", claim.job_key, claim.fence));
    let stop = StopSignal::listen()?;
    let mut seat = RunnerSeat::new(cli, begun);
    let (order_sender, orders) = mpsc::unbounded_channel();
    let training = async {
        if let Err(error) = clean_up(&ticket) {
            return Some((ending_of(&error), Energy::default()));
        }
        let meter = Meter::start(cli, claim);
        let (ending, energy) = meter.alongside(Box::pin(train(&mut seat, claim, orders, &stop))).await;
        let ending = ending.unwrap_or_else(|error| {
            log::error(&error);
            Some(ending_of(&error))
        });
        ending.map(|ending| (ending, energy))
    };
    let watching = async {
        look_for_orders(claim, order_sender).await;
        // Training ends by itself without its orders.
        std::future::pending::<()>().await;
    };
    let ending = tokio::select! {
        ending = training => ending,
        () = watching => None,
    };
    seat.leave().await;
    let Some((ending, energy)) = ending else {
        log::line("superseded: a later attempt was started");
        return Ok(SUPERSEDED);
    };
    log::line(&format!("ended: {ending:?}"));
    report(claim, (ending, energy), begun.elapsed() > SYNC_AFTER).await?;
    Ok(0)
}

/// Nothing of earlier attempts may be left, here at least.
fn clean_up(ticket: &Ticket) -> Result<(), WorkerError> {
    let claim = &ticket.claim;
    for worker in &ticket.ended_workers {
        let killed = runner::kill_leftovers(worker);
        if killed > 0 {
            log::line(&format!("killed {killed} processes of the earlier worker {worker}"));
        }
    }
    checkpoints::clean(claim, ticket.sets_aside, &ticket.reported_checkpoints, &ticket.example_checkpoints)
}

/// Says that the worker lives and passes orders on, until a higher fence was given.
async fn look_for_orders(claim: &Claim, orders: mpsc::UnboundedSender<Orders>) {
    let node = super::node();
    let mut beats = 0;
    let mut beaten: Option<Instant> = None;
    let mut ordered = Orders::default();
    loop {
        if beaten.is_none_or(|at| at.elapsed() >= BEAT_EVERY) {
            beaten = Some(Instant::now());
            beats += 1;
            if let Err(error) = ticket::beat(&claim.folder, beats, &node) {
                log::error(&error);
            }
        }
        match ticket::is_superseded(&claim.folder, claim.fence) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => log::error(&error),
        }
        if let Some(told) = ticket::orders(&claim.folder).filter(|told| *told != ordered) {
            ordered = told;
            let _ = orders.send(told);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes the end, as soon as there is room for it.
async fn report(claim: &Claim, (ending, energy): (Ending, Energy), durable: bool) -> Result<(), WorkerError> {
    let writing = file("write the end in", &claim.folder);
    let mut tail = Tail::new(&claim.folder, claim.spec.samples_seen);
    loop {
        let before = tail.lines();
        tail.read(usize::MAX).map_err(&writing)?;
        if tail.lines() == before {
            break;
        }
    }
    let report = EndReport { ending, energy, lines: tail.lines() };
    let deadline = Instant::now() + END_LIMIT;
    loop {
        match report.write(&claim.folder, durable) {
            Err(error) if is_disk_full(&error) && Instant::now() < deadline => {
                log::error(&error);
                tokio::time::sleep(END_RETRY).await;
            }
            result => return result.map_err(&writing),
        }
    }
}
