//! What every command shares: exit codes, errors as people see them, data on standard output.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::store::StoreError;
use crate::store::observation::ObservationError;
use crate::store::private_postgres::PrivatePostgresError;

/// How a command ended. Documented in `sweep --help`; scripts rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the tool worked; a job or a fit failed, or a launch was stopped or has cancelled jobs.
    Failed,
    /// 2: bad arguments or a bad spec (clap's own code too).
    BadInput,
    /// 3: database, runner, disk or network.
    Environment,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Environment => 3,
        })
    }
}

/// An error on its way to the terminal: a sentence, its causes, and the way out.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// Exit code 2.
    pub fn bad_input(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::BadInput, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Exit code 3.
    pub fn environment(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Environment, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Exit code 1.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Failed, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Adds the chain of sources of `error` (not its own text twice).
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Failure {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if text != self.message && self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// Adds the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// What was wrong, without causes and hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Writes `error: ...`, its causes and the hint to standard error, and gives the exit code.
    pub fn print(self) -> ExitCode {
        let (red, cyan, plain) = if color_stderr() { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = String::new();
        if self.message.contains('\n') {
            text.push_str(&visible_in_colours(&self.message));
            text.push('\n');
        } else {
            let _ = writeln!(text, "{red}error{plain}: {}", visible(&self.message));
        }
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", visible(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "\n{cyan}hint{plain}: {}", visible(hint));
        }
        write_words(text.trim_end());
        self.exit.into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let mut failure = Failure::environment(error.to_string()).because(&error);
        failure.hint = error.hint();
        failure
    }
}

impl From<ObservationError> for Failure {
    fn from(error: ObservationError) -> Failure {
        let hint = error.hint();
        match error {
            ObservationError::Store(error) => error.into(),
            ObservationError::Condition { .. } => Failure { hint, ..Failure::bad_input(error.to_string()) },
        }
    }
}

impl From<PrivatePostgresError> for Failure {
    fn from(error: PrivatePostgresError) -> Failure {
        StoreError::from(error).into()
    }
}

/// Whether words on standard error may be coloured.
pub fn color_stderr() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

/// Words for people, on standard error, and no control characters but line breaks and tabs: what others wrote (runners,
/// specs, databases) must not steer the terminal. A closed pipe is no error.
pub fn say(text: &str) {
    write_words(&visible(text));
}

/// The same where one line is meant: line breaks are shown too, so that nobody forges a line.
pub fn say_line(text: &str) {
    write_words(&one_line(text));
}

fn write_words(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Data for people: text on standard output, as [`say`] writes it. A closed pipe ends the program quietly, as `head`
/// expects.
pub fn data(text: &str) {
    write_data(&visible(text));
}

fn write_data(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// `text` with control characters written as escapes, line breaks and tabs left as they are.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !matches!(c, '\n' | '\t') && is_unsafe(c))
}

/// `text` in one line: control characters, line breaks and tabs among them, written as escapes. For cells and fields.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Control characters, and those that turn the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// The same for text of a renderer of ours that colours: colours stay.
fn visible_in_colours(text: &str) -> String {
    let mut safe = String::new();
    for (index, part) in text.split('\x1b').enumerate() {
        let colours = part.strip_prefix('[').and_then(|rest| rest.split_once('m'));
        let is_colour =
            colours.is_some_and(|(numbers, _)| numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b';'));
        if index > 0 {
            safe.push_str(if is_colour { "\x1b" } else { "\\u{1b}" });
        }
        safe.push_str(&visible(part));
    }
    safe
}

/// `--json`: one object with its schema's name and version, `{"schema": "sweep.plan/1", ...}`.
pub fn json<T: Serialize>(schema: &'static str, body: &T) {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        schema: &'static str,
        #[serde(flatten)]
        body: &'a T,
    }
    let text = serde_json::to_string_pretty(&Envelope { schema, body }).expect("output types serialise");
    write_data(&text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(one_line("done\n30 jobs done\x1b[2J"), "done\\n30 jobs done\\u{1b}[2J");
        assert_eq!(visible("a\tb\nc\r\u{9b}31m\u{202e}"), "a\tb\nc\\r\\u{9b}31m\\u{202e}");
        assert_eq!(visible("caf\u{e9} \u{1f600}"), "caf\u{e9} \u{1f600}");
        assert_eq!(
            visible_in_colours("\x1b[1;31mred\x1b[0m \x1b]0;title\x07"),
            "\x1b[1;31mred\x1b[0m \\u{1b}]0;title\\u{7}"
        );
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            prop_assert!(!one_line(&text).chars().any(is_unsafe));
            prop_assert!(!visible(&text).chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t')));
        }
    }
}
