//! `stderr.log`: a runner's words for people, the first and the last of them, if there are too many.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes that are kept in the file: the first, and the last.
const HEAD_MAX: usize = 4 << 20;
const TAIL_MAX: usize = 64 << 10;
/// Lines that are stored with a failure.
const STORED_LINES: usize = 20;

/// The words on one job.
#[derive(Debug)]
pub(super) struct StderrLog {
    path: PathBuf,
    /// Made with the first words: most jobs need none.
    file: Option<File>,
    /// Bytes that are in the file already.
    written: usize,
    total: usize,
    last: VecDeque<u8>,
}

impl StderrLog {
    /// An empty one in an attempt's folder.
    pub(super) fn new(folder: &Path) -> StderrLog {
        StderrLog { path: folder.join("stderr.log"), file: None, written: 0, total: 0, last: VecDeque::new() }
    }

    /// A full disk costs words, not the runner.
    fn write(&mut self, words: &[u8]) {
        if self.file.is_none() {
            self.file = File::create(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(words);
        }
    }

    /// Takes words in.
    pub(super) fn append(&mut self, words: &[u8]) {
        let head = words.len().min(HEAD_MAX.saturating_sub(self.written));
        self.write(&words[..head]);
        self.written += head;
        self.total += words.len();
        self.last.extend(words);
        let over = self.last.len().saturating_sub(TAIL_MAX);
        self.last.drain(..over);
    }

    /// Writes the last words, if they are not in the file yet.
    pub(super) fn finish(&mut self) {
        let unwritten = (self.total - self.written).min(self.last.len());
        if self.total > self.written + unwritten {
            let left_out = format!("\n... {} bytes left out ...\n", self.total - self.written - unwritten);
            self.write(left_out.as_bytes());
        }
        if unwritten > 0 {
            let last: Vec<u8> = self.last.iter().copied().skip(self.last.len() - unwritten).collect();
            self.write(&last);
        }
        self.written = self.total;
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        // PostgreSQL stores no NUL in a text.
        let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(STORED_LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_words_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = StderrLog::new(folder.path());
        log.finish();
        assert!(!folder.path().join("stderr.log").exists());
        log.append(b"first\n");
        for _ in 0..6000 {
            log.append(&[b'x'; 1023]);
            log.append(b"\n");
        }
        log.append(b"a \0 and the last\n");
        log.finish();
        log.finish();
        let text = std::fs::read_to_string(folder.path().join("stderr.log")).expect("it is there");
        assert!(text.starts_with("first\nxxx") && text.ends_with("x\na \0 and the last\n"));
        assert!(text.contains("bytes left out") && text.len() < HEAD_MAX + TAIL_MAX + 100, "{}", text.len());
        assert!(log.tail().ends_with("\na \u{fffd} and the last") && log.tail().lines().count() == STORED_LINES);
    }
}
