//! Workers side by side in one task of an array (`side_by_side`), and the files in the array's folder through which the
//! backend and the process that holds the task speak:
//!
//! | file | written by | says |
//! |---|---|---|
//! | `attempts` | backend, before `sbatch` | which attempts each task runs |
//! | `ended/TOKEN` | the task's process | this worker has ended, and how; the others may go on |
//! | `stop/TOKEN` | backend | end this worker: `term`, after a checkpoint; `kill`, at once |
//!
//! Slurm knows the task alone: without the first, a worker that died would count as running for as long as its
//! neighbours do; without the second, it could not be ended without them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::write_whole;

/// Name of the file with the attempts.
pub(super) const ATTEMPTS: &str = "attempts";
/// First line of that file where a task has several, before their number.
const HEADER: &str = "side-by-side ";
const ENDED: &str = "ended";
const STOP: &str = "stop";

/// Attempts of an array, in the order of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts of each task.
    pub together: usize,
    /// All of them.
    pub members: Vec<Member>,
}

/// An attempt of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, which is its worker's.
    pub token: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Attempts {
    /// The file's text: `TOKEN FOLDER`, a line an attempt.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.together > 1 {
            let _ = writeln!(text, "{HEADER}{}", self.together);
        }
        for member in &self.members {
            let _ = writeln!(text, "{} {}", member.token, member.folder.display());
        }
        text
    }

    /// The file, read.
    pub fn read(text: &str) -> Attempts {
        let (header, rest) = text.split_once('\n').unwrap_or((text, ""));
        let together = header.strip_prefix(HEADER).and_then(|count| count.parse().ok());
        let lines = if together.is_some() { rest } else { text }.lines();
        let member = |line: &str| {
            let (token, folder) = line.split_once(' ').unwrap_or((line, ""));
            Member { token: token.to_owned(), folder: folder.into() }
        };
        Attempts { together: together.unwrap_or(1).max(1), members: lines.map(member).collect() }
    }

    /// Those of a task.
    pub fn of_task(&self, index: usize) -> &[Member] {
        self.members.chunks(self.together).nth(index).unwrap_or(&[])
    }
}

/// Makes the folders of an array whose tasks have several attempts.
pub fn prepare(array: &Path) -> io::Result<()> {
    fs::create_dir_all(array.join(ENDED))?;
    fs::create_dir_all(array.join(STOP))
}

/// Says that a worker has ended, and how: completes "the worker ...".
pub fn note_end(array: &Path, token: &str, how: &str) -> io::Result<()> {
    write_whole(&array.join(ENDED).join(token), &format!("{how}\n"), 0o644, true)
}

/// How a worker ended; `None`: it has not, as far as anybody has said, or that can't be read.
fn end_of(array: &Path, token: &str) -> Option<String> {
    let text = fs::read_to_string(array.join(ENDED).join(token)).ok()?;
    // Whatever a file system makes of a rename: half a word is no end.
    text.strip_suffix('\n').filter(|how| !how.is_empty()).map(str::to_owned)
}

/// Ends of an array's workers, by their names, but for those that are `known`.
pub(super) fn ends(array: &Path, known: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let entries = fs::read_dir(array.join(ENDED)).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let fresh = names.filter(|name| !name.contains('.') && !known(name));
    fresh.filter_map(|name| end_of(array, &name).map(|how| (name, how))).collect()
}

/// Tells a task's process to end one of its workers, after a checkpoint or at once.
pub(super) fn give_stop(array: &Path, token: &str, kill: bool) -> io::Result<()> {
    prepare(array)?;
    write_whole(&array.join(STOP).join(token), if kill { "kill\n" } else { "term\n" }, 0o644, true)
}

/// Workers that are to end, and whether at once.
pub fn stops(array: &Path) -> BTreeMap<String, bool> {
    let entries = fs::read_dir(array.join(STOP)).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let told = names.filter(|name| !name.contains('.')).filter_map(|name| {
        let word = fs::read_to_string(array.join(STOP).join(&name)).ok()?;
        matches!(&*word, "kill\n" | "term\n").then(|| (name, word == "kill\n"))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(together: usize, count: usize) -> Attempts {
        let member = |index| Member { token: format!("{index:032x}"), folder: format!("/home/a b/{index}").into() };
        Attempts { together, members: (0..count).map(member).collect() }
    }

    #[test]
    fn attempts_are_read_as_they_were_written() {
        for (together, count) in [(1, 1), (1, 4), (3, 6), (2, 2)] {
            let attempts = attempts(together, count);
            assert_eq!(Attempts::read(&attempts.text()), attempts);
        }
        let six = attempts(3, 6);
        assert_eq!((six.of_task(0), six.of_task(1), six.of_task(2)), (&six.members[..3], &six.members[3..], &[][..]));
        assert_eq!(attempts(1, 2).of_task(1), &attempts(1, 2).members[1..]);
    }

    #[test]
    fn an_end_that_is_torn_is_none_and_a_stop_is_what_was_said_last() {
        let array = tempfile::tempdir().expect("a folder");
        let ends = |known: &str| ends(array.path(), |name| name == known);
        assert!(ends("").is_empty() && stops(array.path()).is_empty(), "there are no folders yet");
        prepare(array.path()).expect("ours");
        note_end(array.path(), "aa", "was killed by SIGKILL").expect("ours");
        note_end(array.path(), "bb", "left with exit code 0").expect("ours");
        fs::write(array.path().join("ended/cc"), "").expect("ours");
        fs::write(array.path().join("ended/dd"), "left with ex").expect("ours");
        fs::write(array.path().join("ended/ee.tmp-1"), "left with exit code 0\n").expect("ours");
        assert_eq!(ends("bb"), [("aa".to_owned(), "was killed by SIGKILL".to_owned())]);
        give_stop(array.path(), "aa", true).expect("ours");
        give_stop(array.path(), "bb", true).expect("ours");
        give_stop(array.path(), "bb", false).expect("ours");
        fs::write(array.path().join("stop/cc"), "te").expect("ours");
        assert_eq!(stops(array.path()), BTreeMap::from([("aa".to_owned(), true), ("bb".to_owned(), false)]));
    }
}
