//! `worker.log`: one line a happening, with the time.

use std::error::Error;
use std::io::Write;

/// One line.
pub(super) fn line(text: &str) {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let _ = writeln!(std::io::stderr().lock(), "{now} {text}");
}

/// An error with its sources.
pub(super) fn error(error: &dyn Error) {
    line(&describe(error));
}

/// An error and its sources in one line.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
