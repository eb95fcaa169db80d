//! Where attempts execute: the trait, one file a backend. A backend starts `sweep-worker`s and says whether they are
//! there.
//!
//! It must not know the store: what it says of an end is a hint, the worker's own fenced record is the truth.

mod aside;
mod local;
mod process;
mod slurm;

pub use aside::{Aside, aside_machine};
pub use local::LocalBackend;
pub use process::{Seen, host_name, kill_marked, kill_orphans, look_at};
pub use slurm::{
    ArrayFolder, ClusterLimits, Impossible, QueueWord, SlurmBackend, limits as slurm_limits, shares as slurm_shares,
};

pub use crate::plan::is_secret;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use async_trait::async_trait;

/// A place that can run workers.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Name as stored with every attempt.
    fn name(&self) -> &'static str;

    /// Whose slots these are, for people: attempts of another host are left alone.
    fn host(&self) -> &str;

    /// What tells hosts of one name apart: the boot and the process namespace of a machine.
    fn machine(&self) -> &str;

    /// Attempts it can run at one time.
    fn slots(&self) -> usize;

    /// What a worker in a slot may use.
    fn slot_resources(&self) -> protocol::Resources;

    /// Starts workers, in the order given, until one can't be started. The attempt's token is a worker's name: it can
    /// be found again, which it has to be where no handle is given, since the backend is still at it.
    async fn launch(&self, requests: &[LaunchRequest]) -> Launched;

    /// What is to be said of each worker, by its name. Total: what it can't tell is [`Observed::Unknown`], never an
    /// error and never an end.
    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed>;

    /// Asks the worker to stop after a checkpoint (SIGTERM, in effect). No error if it is gone.
    async fn stop(&self, worker: &WorkerId) -> Result<(), BackendError>;

    /// Kills what a worker that is gone, or is to be gone, has left running: the worker's runner and its children. Best
    /// effort.
    async fn kill_leftovers(&self, worker: &str);

    /// Whether it runs workers on several machines, and can keep them away from some ([`LaunchRequest::avoid`]).
    fn has_nodes(&self) -> bool {
        false
    }

    /// Slots that are not to be had yet, though their workers have ended: what they held is given back only together
    /// with what others of these workers, which `live`, still hold.
    fn idle_shares(&self, live: &BTreeSet<&str>) -> usize {
        let _ = live;
        0
    }

    /// Workers that somebody has ended in the backend's own way, not ours, as far as it remembers. They may have had
    /// the time to stop after a checkpoint; their jobs are not to be tried again.
    fn cancelled_by_hand(&self) -> Vec<String> {
        Vec::new()
    }

    /// Resolves when a worker has ended since the last call, as far as the backend hears of it: a hint to look at once.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

/// A worker by its name, and by the handle that was stored for it, if one was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerId {
    /// Token of the attempt that it was started for.
    pub name: String,
    /// What [`Backend::launch`] gave.
    pub handle: Option<String>,
}

/// What came of starting workers.
#[derive(Debug, Default)]
pub struct Launched {
    /// Worker and handle of those that were started.
    pub handles: Vec<(String, String)>,
    /// Why one of the others was not.
    pub error: Option<BackendError>,
}

/// What a backend says of a worker. [`Observed::Exited`], [`Observed::Gone`] and [`Observed::Ended`] alone are reasons
/// to give it up, the last two only together with a heartbeat that has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// It is there, under this handle.
    Alive(String),
    /// It has ended: this process is its parent and has waited for it.
    Exited,
    /// The backend looked where it would be, and it isn't there.
    Gone,
    /// The backend's own record says that it has ended.
    Ended {
        /// How, in the backend's words.
        said: String,
        /// What ended it.
        cause: EndCause,
        /// Name of the machine that it was on, if it was on one.
        node: Option<String>,
    },
    /// No answer, another machine's, or one we don't understand: ask again.
    Unknown,
    /// What knows of it can't be asked now, or is still being asked, and will know later: however long that takes,
    /// nothing is given up for it.
    NoAnswer,
}

/// What has ended a worker, as far as its backend knows: each cause has a budget of its own ([`crate::schedule`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// Somebody ended it by hand.
    Cancelled,
    /// Another job took its place.
    Preempted,
    /// Its node failed.
    NodeFailed,
    /// It took more memory than it had asked for.
    OutOfMemory,
    /// Its time was over.
    TimeLimit,
    /// None of these, or nobody knows.
    Unknown,
}

impl EndCause {
    /// As it is stored with an attempt that is lost to it.
    pub fn word(self) -> &'static str {
        match self {
            EndCause::Cancelled => "cancelled",
            EndCause::Preempted => "preemption",
            EndCause::NodeFailed => "node failure",
            EndCause::OutOfMemory => "out of memory",
            EndCause::TimeLimit => "walltime",
            EndCause::Unknown => "unknown",
        }
    }
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
    /// Seconds an attempt may take.
    pub time_limit_secs: Option<u64>,
    /// Row of the sweep whose further jobs the worker may take when it is done with the first.
    pub sweep_id: i64,
    /// Seconds after which it goes on to no further job; 0: it runs one.
    pub work_secs: u64,
    /// Whether the runner takes jobs on standard input (`RUNNER serve`).
    pub serve: bool,
    /// Whether the worker reaches no database and keeps all in its folder.
    pub spool_only: bool,
    /// Machines to start it on only if there are no others.
    pub avoid: BTreeSet<String>,
}

impl LaunchRequest {
    /// Arguments of its `sweep-worker`, but for `--attempt`.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--runner".into(), (&self.runner).into(), "--base-dir".into(), (&self.base_dir).into()];
        if let Some(secs) = self.time_limit_secs {
            arguments.extend(["--time-limit-secs".into(), secs.to_string().into()]);
        }
        if self.work_secs > 0 {
            arguments.extend(["--sweep".into(), self.sweep_id.to_string().into()]);
            arguments.extend(["--work-secs".into(), self.work_secs.to_string().into()]);
            if self.serve {
                arguments.push("--serve".into());
            }
        }
        arguments
    }
}

/// Variables that tell libraries how many threads to use.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"];

/// What can go wrong with a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// `sweep-worker` is not where it should be.
    #[error("there is no `sweep-worker` at {}", path.display())]
    NoWorker {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Ranks on this machine, each of which takes a GPU.
    #[error(
        "a job has {ranks} ranks, each with a GPU, but this machine has {gpus}; allowed here: `ranks` up to {gpus}"
    )]
    TooFewGpus {
        /// Of a job.
        ranks: usize,
        /// That can be seen.
        gpus: usize,
    },
    /// The worker can't be started.
    #[error("can't start the worker of attempt {token}")]
    Launch {
        /// Name of the attempt.
        token: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is no Slurm, or it does not answer.
    #[error("Slurm does not answer `{command}`: {said}")]
    NoSlurm {
        /// What it was asked.
        command: &'static str,
        /// What was said.
        said: String,
    },
    /// `sbatch` did not accept workers.
    #[error("Slurm did not accept the workers: {said}")]
    Submit {
        /// What it said.
        said: String,
        /// Whether it may accept them later as they are.
        passing: bool,
        /// Whether there is no room for a single one.
        full: bool,
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
