//! Where attempts execute: the trait, one file a backend. A backend starts `sweep-worker`s and says whether they are
//! there.
//!
//! It must not know the store: what it says of an end is a hint, the worker's own fenced record is the truth.

mod local;
mod process;

pub use local::LocalBackend;
pub use process::{kill_marked, process_alive};

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;

/// A place that can run workers.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Name as stored with every attempt.
    fn name(&self) -> &'static str;

    /// Whose slots these are: attempts of another host are left alone.
    fn host(&self) -> &str;

    /// Attempts it can run at one time.
    fn slots(&self) -> usize;

    /// What a worker in a slot may use.
    fn slot_resources(&self) -> protocol::Resources;

    /// Starts one worker and gives the handle it goes by. The attempt's token is its name: it can be found again.
    async fn launch(&self, request: &LaunchRequest) -> Result<String, BackendError>;

    /// What is to be said of each attempt, given by token with the handle if one was stored. Total: what it can't tell
    /// is [`Observed::Unknown`], never an error and never an end.
    async fn poll(&self, attempts: &[(String, Option<String>)]) -> BTreeMap<String, Observed>;

    /// Asks the worker to stop after a checkpoint (SIGTERM, in effect). No error if it is gone.
    async fn stop(&self, token: &str) -> Result<(), BackendError>;
}

/// What a backend says of an attempt. Only [`Observed::Gone`] is ever a reason to give one up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// It is there, under this handle.
    Alive(String),
    /// The backend answered, and denies knowing it.
    Gone,
    /// No answer, another machine's, or one we don't understand: ask again.
    Unknown,
}

/// One worker to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// Name of the attempt.
    pub token: String,
    /// Slot that was stored with it.
    pub slot: usize,
    /// Its folder; made if it isn't there.
    pub folder: PathBuf,
    /// The runner's executable.
    pub runner: PathBuf,
    /// Folder that relative paths of the job's spec start from.
    pub base_dir: PathBuf,
    /// Seconds it may take.
    pub time_limit_secs: Option<u64>,
}

/// What can go wrong with a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// `sweep-worker` is not where it should be.
    #[error("there is no `sweep-worker` at {}", path.display())]
    NoWorker {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The worker can't be started.
    #[error("can't start the worker of attempt {token}")]
    Launch {
        /// Name of the attempt.
        token: String,
        /// Why.
        source: std::io::Error,
    },
    /// A signal was refused.
    #[error("can't signal the worker of attempt {token}")]
    Signal {
        /// Name of the attempt.
        token: String,
        /// Why.
        source: nix::Error,
    },
    /// This machine can't be looked at.
    #[error("can't look at this machine: {what}")]
    Machine {
        /// What was being read.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
