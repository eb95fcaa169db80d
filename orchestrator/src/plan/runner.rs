//! Finds a runner and asks it who it is.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use protocol::{Description, PROTOCOL_VERSION};

/// Loading libtorch from a cold disk takes seconds; a runner that takes longer hangs.
const DESCRIBE_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest answer to `describe`.
const ANSWER_MAX: u64 = 1 << 20;

/// Why a runner can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Not there.
    #[error("no runner `{name}`: looked for {looked_for}")]
    NotFound {
        /// As the spec names it.
        name: String,
        /// Paths and folders.
        looked_for: String,
    },
    /// Not startable.
    #[error("can't start `{} describe`: {source}", path.display())]
    Start {
        /// Executable.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer.
    #[error("`{} describe` gave no answer in {} seconds", .0.display(), DESCRIBE_TIMEOUT.as_secs())]
    Silent(PathBuf),
    /// Left with an error.
    #[error("`{} describe` failed ({status}){}", path.display(), said(stderr))]
    Failed {
        /// Executable.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// End of what it said.
        stderr: String,
    },
    /// No description.
    #[error("`{} describe` answered something else than a description: {source}", path.display())]
    Answer {
        /// Executable.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Another version of the protocol.
    #[error("`{}` speaks runner protocol {found}, this `sweep` speaks {PROTOCOL_VERSION}", path.display())]
    Protocol {
        /// Executable.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl RunnerError {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            RunnerError::NotFound { .. } => {
                "`make build` builds clip-runner; a runner of your own is named by its path, with a `/` in it"
            }
            RunnerError::Protocol { .. } => "build `sweep` and the runner from the same version",
            RunnerError::Failed { stderr, .. } if stderr.contains("loading shared libraries: libtorch") => {
                "`sweep setup` fetches libtorch for programs that were unpacked, `make setup build` for a runner built here"
            }
            RunnerError::Start { .. }
            | RunnerError::Silent(_)
            | RunnerError::Failed { .. }
            | RunnerError::Answer { .. } => {
                "a runner answers `RUNNER describe` with one JSON object: see runners/protocol/README.md"
            }
        }
    }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// The executable of runner `name`: a path if it has a `/`, else `<name>-runner` beside this program or on `PATH`.
pub fn find(name: &str, base_dir: &Path) -> Result<PathBuf, RunnerError> {
    let mut looked_for = Vec::new();
    let candidates: Vec<PathBuf> = if name.contains('/') {
        // Components leave out the `.` of `./own`.
        vec![base_dir.join(name).components().collect()]
    } else {
        let file = format!("{name}-runner");
        let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(&file)));
        let path = env::var_os("PATH").unwrap_or_default();
        looked_for.push(format!("`{file}` on PATH"));
        beside.into_iter().chain(env::split_paths(&path).map(|folder| folder.join(&file))).collect()
    };
    if let Some(found) = candidates.iter().find(|path| path.is_file() && access(*path, AccessFlags::X_OK).is_ok()) {
        return Ok(found.clone());
    }
    looked_for.splice(0..0, candidates.first().map(|path| format!("`{}`", path.display())));
    let name = name.to_owned();
    Err(RunnerError::NotFound { name, looked_for: looked_for.join(" and ") })
}

/// Where runner `name` is, and what it says of itself.
pub fn ask(name: &str, base_dir: &Path) -> Result<(PathBuf, Description), RunnerError> {
    let path = find(name, base_dir)?;
    let description = describe(&path)?;
    Ok((path, description))
}

/// What stands for a runner that is not asked, since it is not built yet: it can do all, and has no version.
pub fn unasked(name: &str) -> (PathBuf, Description) {
    let description = Description {
        name: name.to_owned(),
        version: "of unknown version".to_owned(),
        protocol: PROTOCOL_VERSION,
        reads_data: true,
        devices: vec!["cpu".to_owned()],
        serve: true,
        ranks: true,
        init: true,
        branches: true,
        rolls_back: true,
        accepts: BTreeMap::new(),
    };
    (PathBuf::from("not asked"), description)
}

/// Asks the runner at `path`.
pub fn describe(path: &Path) -> Result<Description, RunnerError> {
    let start = |source| RunnerError::Start { path: path.to_owned(), source };
    let mut child = Command::new(path)
        .arg("describe")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let stdout = child.stdout.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    let (sender, answers) = mpsc::channel();
    // Both pipes are drained at once, so that neither can fill up and stop the child.
    let said = thread::spawn(move || text_of(stderr));
    thread::spawn(move || sender.send(text_of(stdout)));
    let Ok(answer) = answers.recv_timeout(DESCRIBE_TIMEOUT) else {
        // It may have ended by itself just now; either way it is gone after this.
        let _ = child.kill();
        let _ = child.wait();
        return Err(RunnerError::Silent(path.to_owned()));
    };
    let status = child.wait().map_err(start)?;
    if !status.success() {
        let stderr = said.join().unwrap_or_default();
        let lines: Vec<&str> = stderr.trim().lines().collect();
        let stderr = lines[lines.len().saturating_sub(3)..].join("; ");
        return Err(RunnerError::Failed { path: path.to_owned(), status, stderr });
    }
    let description: Description =
        serde_json::from_str(&answer).map_err(|source| RunnerError::Answer { path: path.to_owned(), source })?;
    if description.protocol != PROTOCOL_VERSION {
        return Err(RunnerError::Protocol { path: path.to_owned(), found: description.protocol });
    }
    Ok(description)
}

fn text_of(pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read is shown; a broken pipe is an empty answer, which the caller refuses.
    let _ = pipe.take(ANSWER_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
