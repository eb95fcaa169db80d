//! `worker.log`: one line a happening, with the time.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::store::describe;

/// One line.
pub(super) fn line(text: &str) {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let _ = writeln!(std::io::stderr().lock(), "{now} {text}");
}

/// Folder of the attempt at hand, if the log is not there yet.
static NEXT_FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The worker has gone on to the attempt of this folder; [`move_to_next_folder`] moves the log there.
pub(super) fn set_next_folder(folder: &Path) {
    *NEXT_FOLDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.to_owned());
}

/// From now on the log is that of the attempt at hand. Called when there is something to tell of it: an attempt that
/// soon finishes leaves none.
pub(super) fn move_to_next_folder() {
    let Some(folder) = NEXT_FOLDER.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let moved = OpenOptions::new().create(true).append(true).open(folder.join("worker.log"));
    match moved.and_then(|file| Ok(nix::unistd::dup2_stderr(file)?)) {
        Ok(()) => line("goes on from another job"),
        Err(error) => self::error(&error),
    }
}

/// An error with its sources.
pub(super) fn error(error: &dyn Error) {
    line(&describe(error));
}
