//! What every command shares: exit codes, errors as people see them, data on standard output.

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
    /// 1: the tool worked; a job or a fit failed.
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

    /// Writes `error: ...`, its causes and the hint to standard error, and gives the exit code.
    pub fn print(self) -> ExitCode {
        let (red, cyan, plain) = if color_stderr() { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = String::new();
        if self.message.contains('\n') {
            text.push_str(&self.message);
            text.push('\n');
        } else {
            let _ = writeln!(text, "{red}error{plain}: {}", self.message);
        }
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "\n{cyan}hint{plain}: {hint}");
        }
        say(text.trim_end());
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

/// Words for people: one line to standard error. A closed pipe is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Data: one line to standard output. A closed pipe ends the program quietly, as `head` expects.
pub fn data(line: &str) {
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(0);
    }
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
    data(&text);
}
