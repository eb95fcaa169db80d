//! The files through which a launcher and a worker without a database speak (`ship: spool`), all in the attempt's
//! folder but for the fences, which are the job's:
//!
//! | file | written by | says |
//! |---|---|---|
//! | `ticket.json` | launcher, before the start | the claim, and what earlier attempts have left |
//! | `../fences/N` | launcher, with the ticket | fence N was given: whoever has a lower one stops |
//! | `../fences/N.claimed` | worker, if it is not there yet | the attempt with fence N has a worker |
//! | `beat` | worker, every few seconds | it lives |
//! | `orders.json` | launcher | stop after a checkpoint |
//! | `events.jsonl` | worker | what the runner says: see `spool.rs` |
//! | `end.json` | worker, last | how it ended, after how many lines of events |

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::write_whole;
use crate::store::{Claim, Ending, Energy, Orders};

const TICKET_FILE: &str = "ticket.json";
const BEAT_FILE: &str = "beat";
const ORDERS_FILE: &str = "orders.json";
const END_FILE: &str = "end.json";

/// What a worker has to know to run an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) claim: Claim,
    /// Checkpoints of the job that were reported under a valid claim.
    pub(super) reported_checkpoints: Vec<String>,
    /// One of another job, which says how the runner names them.
    pub(super) example_checkpoints: Vec<String>,
    /// Whether checkpoints beside these are kept: the database does not know where they come from.
    #[serde(default)]
    pub(super) sets_aside: bool,
    /// Workers of earlier attempts, of which nothing may be left running.
    pub(super) ended_workers: Vec<String>,
}

/// The end of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EndReport {
    pub(super) ending: Ending,
    /// What it took.
    #[serde(default)]
    pub(super) energy: Energy,
    /// Lines of `events.jsonl`.
    pub(super) lines: i64,
}

impl Ticket {
    /// Makes the folder and gives the fence, then the ticket. The same again changes nothing.
    pub(super) fn write(&self) -> io::Result<()> {
        give_fence(&self.claim.folder, self.claim.fence)?;
        write_json(&self.claim.folder.join(TICKET_FILE), self)
    }

    /// `None`: there is none.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Ticket>> {
        read_json(&folder.join(TICKET_FILE))
    }
}

fn give_fence(folder: &Path, fence: i64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::create_dir_all(fences_of(folder))?;
    File::create(fences_of(folder).join(fence.to_string())).map(drop)
}

fn fences_of(folder: &Path) -> PathBuf {
    folder.parent().unwrap_or(folder).join("fences")
}

/// Takes the attempt for the calling process. `false`: another process has it, or a later attempt was given a fence.
pub(super) fn take_fence(folder: &Path, fence: i64) -> io::Result<bool> {
    if is_superseded(folder, fence)? {
        return Ok(false);
    }
    match File::create_new(fences_of(folder).join(format!("{fence}.claimed"))) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a later attempt of the job was given a fence.
pub(super) fn is_superseded(folder: &Path, fence: i64) -> io::Result<bool> {
    Ok(fences_in(&fences_of(folder))?.into_iter().any(|given| given > fence))
}

/// The highest fence that the job's folder knows of, whichever database gave it.
pub(super) fn highest_fence(folder: &Path) -> io::Result<Option<i64>> {
    match fences_in(&fences_of(folder)) {
        Ok(fences) => Ok(fences.into_iter().max()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn fences_in(folder: &Path) -> io::Result<Vec<i64>> {
    let mut fences = Vec::new();
    for entry in fs::read_dir(folder)? {
        fences.extend(entry?.file_name().to_string_lossy().split('.').next().and_then(|text| text.parse::<i64>().ok()));
    }
    Ok(fences)
}

/// Says that the worker lives, and on which machine. `count` differs each time.
pub(super) fn beat(folder: &Path, count: u64, node: &str) -> io::Result<()> {
    fs::write(folder.join(BEAT_FILE), format!("{count} {node}\n"))
}

/// The machine of a beat, if all of it is there.
pub(super) fn node_of(beat: &str) -> Option<&str> {
    beat.strip_suffix('\n')?.split_once(' ').map(|(_, node)| node)
}

/// What the last beat said; `None`: there was none.
pub(super) fn last_beat(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(BEAT_FILE)).ok().filter(|text| !text.is_empty())
}

/// Tells the worker of an attempt to stop after a checkpoint.
pub(super) fn give_orders(folder: &Path, orders: Orders) -> io::Result<()> {
    write_json(&folder.join(ORDERS_FILE), &orders)
}

/// What the worker was told.
pub(super) fn orders(folder: &Path) -> Option<Orders> {
    read_json(&folder.join(ORDERS_FILE)).ok().flatten()
}

impl EndReport {
    /// The worker's last word; `durable`: it outlives a power cut.
    pub(super) fn write(&self, folder: &Path, durable: bool) -> io::Result<()> {
        let path = folder.join(END_FILE);
        write_json(&path, self)?;
        if durable {
            File::open(&path)?.sync_all()?;
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    pub(super) fn read(folder: &Path) -> io::Result<Option<EndReport>> {
        read_json(&folder.join(END_FILE))
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_whole(path, &serde_json::to_string(value)?, 0o644, false)
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_taken_once_and_not_after_a_higher_one_was_given() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = |fence: i64| home.path().join(format!("attempt-{fence}"));
        let give = |fence| give_fence(&folder(fence), fence).expect("it can be given");
        let take = |fence| take_fence(&folder(fence), fence).expect("it can be asked");
        let is_superseded = |fence| is_superseded(&folder(fence), fence).expect("it can be asked");
        give(9);
        assert!(take(9));
        assert!(!take(9), "taken twice");
        assert!(!is_superseded(9));
        give(10);
        assert!(is_superseded(9) && !is_superseded(10));
        assert!(!take(8), "a later one was given");
        assert!(take(10));
    }
}
