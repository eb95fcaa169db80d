//! Events on standard output, one JSON object a line. Nothing else in this crate writes there while a job runs.

use std::io::{self, Write};

use protocol::Event;

/// Writes an event and flushes it. An error means that nobody reads any more.
pub fn event(event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_string(event).map_err(io::Error::other)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Writes a line for people to standard error.
pub fn say(words: std::fmt::Arguments<'_>) {
    // Training does not end because nobody reads the log.
    let _ = writeln!(io::stderr().lock(), "{words}");
}
