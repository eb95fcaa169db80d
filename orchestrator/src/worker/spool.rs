//! `events.jsonl`: every event of an attempt, one a line, on disk before anything else happens to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use protocol::Event;

use crate::events::{Reading, problem, quote, read_line};

/// Name of the file in an attempt's folder.
pub(super) const FILE: &str = "events.jsonl";

/// The writing end.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl Spool {
    pub(super) fn create(folder: &Path) -> io::Result<Spool> {
        let file = OpenOptions::new().create(true).append(true).open(folder.join(FILE))?;
        let length = file.metadata()?.len();
        Ok(Spool { file, length })
    }

    /// Bytes written.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// One line in one write, so that a reader sees whole lines or the start of one. After an error (a full disk)
    /// nothing of the line is there, so that it can be written again.
    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// On disk for good.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// The reading end: goes through the file once, also while it grows.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    path: PathBuf,
    /// Samples of the job, which no event may go beyond.
    samples_total: u64,
    offset: u64,
    lines: i64,
    /// The first line that could not be read, and why.
    unread: Option<String>,
}

impl Tail {
    pub(super) fn new(folder: &Path, samples_total: u64) -> Tail {
        Tail { path: folder.join(FILE), samples_total, offset: 0, lines: 0, unread: None }
    }

    /// Why what was read is not all that the runner said, if so: a worker of ours writes only what can be read, an
    /// older one or a broken disk may not have.
    pub(super) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Lines read so far.
    pub(super) fn lines(&self) -> i64 {
        self.lines
    }

    /// Whether nothing is left to read at the moment.
    pub(super) fn exhausted(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |file| file.len() <= self.offset)
    }

    /// The next events, at most `limit` lines of them, each with the number of its line, from 1. What is behind the
    /// last line break isn't written yet (or never will be, if its writer was killed); a missing file is an empty one;
    /// a line that is no event counts, but gives none: see [`Tail::unread`].
    pub(super) fn read(&mut self, limit: usize) -> io::Result<Vec<(i64, Event)>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
        let mut events = Vec::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")).take(limit) {
            self.offset += line.len() as u64;
            self.lines += 1;
            match checked(line, self.samples_total) {
                Ok(event) => events.push((self.lines, event)),
                Err(problem) => {
                    let told = || format!("line {} of {FILE}: {problem}; the line: {}", self.lines, quote(line));
                    self.unread.get_or_insert_with(told);
                }
            }
        }
        Ok(events)
    }
}

/// The event of a line.
fn checked(line: &[u8], samples_total: u64) -> Result<Event, String> {
    match read_line(line) {
        Reading::Event { event, .. } => match problem(&event, samples_total) {
            None => Ok(event),
            Some(problem) => Err(problem),
        },
        Reading::Unclear { problem } => Err(problem),
        Reading::Empty | Reading::Words => Err("it is no event".to_owned()),
    }
}

/// Read at one time; a line of the protocol is far shorter.
const CHUNK_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Event {
        Event::Step { step, samples_seen: step * 8, loss: 1.5, metrics: [("lr".to_owned(), 1e-3)].into() }
    }

    #[test]
    fn a_torn_line_waits_and_a_foreign_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut tail = Tail::new(folder.path(), 16);
        assert_eq!(tail.read(10).unwrap(), []);
        let mut spool = Spool::create(folder.path()).unwrap();
        spool.append(&step(1)).unwrap();
        spool.file.write_all(b"no event\n").unwrap();
        spool.append(&step(2)).unwrap();
        spool.file.write_all(b"{\"event\":\"fin").unwrap();
        assert_eq!(tail.read(1).unwrap(), [(1, step(1))]);
        assert_eq!(tail.unread(), None);
        assert_eq!(tail.read(1).unwrap(), []);
        assert_eq!(tail.unread(), Some("line 2 of events.jsonl: it is no event; the line: no event"));
        assert_eq!(tail.read(10).unwrap(), [(3, step(2))]);
        assert_eq!((tail.read(10).unwrap(), tail.lines()), (vec![], 3));
        let mut tail = Tail::new(folder.path(), 8);
        assert_eq!(tail.read(10).unwrap().len(), 1, "the other is beyond the job's samples");
    }
}
