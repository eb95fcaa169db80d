//! How far hashing is, on standard error: one line that is written over on a terminal, else a line now and then.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// To be told bytes that are done and bytes in all.
pub(crate) fn hashing() -> impl FnMut(u64, u64) {
    let begun = Instant::now();
    let terminal = stderr().is_terminal();
    let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
    let mut told = None;
    move |done, total| {
        let whole = done == total;
        let due = told.unwrap_or(begun).elapsed() > every;
        // What takes a moment needs no words; what was begun is ended.
        if !(due || whole && told.is_some()) {
            return;
        }
        told = Some(Instant::now());
        let secs = begun.elapsed().as_secs_f64();
        let left = if done > 0 { secs / done as f64 * (total - done) as f64 } else { 0.0 };
        let line =
            format!("hashing shards: {:.2} of {:.2} GB, {left:.0} s left", done as f64 / 1e9, total as f64 / 1e9);
        match (terminal, whole) {
            (true, false) => eprint!("\r\x1b[K{line}"),
            (true, true) => eprint!("\r\x1b[K"),
            (false, _) => eprintln!("{line}"),
        }
    }
}
