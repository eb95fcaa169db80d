//! What `sweep-worker` does for one attempt: claim it, supervise its runner, spool what the runner says, ship the
//! spool.
//!
//! It must not know who launched it: no scheduler, no terminal. Its words go to standard error, which the backend keeps
//! as `worker.log`. Training never waits for the database; a worker whose claim is superseded stops and writes nothing.

pub mod ingest;

pub mod trial;

mod adopt;
mod checkpoints;
mod energy;
mod judge;
mod lines;
mod local_ranks;
mod log;
mod memory;
mod ranks;
mod runner;
mod ship;
mod side_by_side;
mod spool;
mod stderr_log;
mod stop;
mod supervise;
mod ticket;
mod train;
mod unconnected;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Exit code of a worker that had nothing to claim, or whose claim was superseded.
pub const SUPERSEDED: u8 = 77;
/// Exit code of a worker that could not deliver the end; its spool waits for the next attempt.
pub const UNDELIVERED: u8 = 70;

/// Supervises one attempt. Started by a backend, never by hand.
#[derive(Debug, Parser)]
#[command(name = "sweep-worker", version)]
struct Cli {
    /// Name of the attempt to claim, and of this worker.
    #[arg(long)]
    attempt: String,
    /// The runner's executable.
    #[arg(long)]
    runner: PathBuf,
    /// Folder that relative paths of the job start from.
    #[arg(long)]
    base_dir: PathBuf,
    /// Stop after so many seconds; the next attempt goes on.
    #[arg(long)]
    time_limit_secs: Option<u64>,
    /// Stop when this worker is so many seconds old, whichever attempt it has by then.
    #[arg(long)]
    until_secs: Option<u64>,
    /// Reach no database: the claim is in this folder, the attempt's, and all that is to be said stays there.
    #[arg(long, value_name = "FOLDER")]
    spool_only: Option<PathBuf>,
    /// The private database runs on another machine: wait for it, and never start it here.
    #[arg(long)]
    database_elsewhere: bool,
    /// Row of the sweep whose next jobs it may go on to when a job is finished.
    #[arg(long)]
    sweep: Option<i64>,
    /// Go on to no further job after so many seconds.
    #[arg(long, default_value_t = 0)]
    work_secs: u64,
    /// The runner takes jobs on standard input (`RUNNER serve`).
    #[arg(long)]
    serve: bool,
    /// Processes that train a job together, one on each node of the Slurm job that this worker is in.
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    /// They are all on this machine.
    #[arg(long)]
    ranks_here: bool,
}

/// Holds several workers of one Slurm job, side by side. Started by its batch script, never by hand.
#[derive(Debug, Parser)]
#[command(name = "sweep-worker side-by-side")]
struct SideBySide {
    /// File with the array's attempts.
    #[arg(long)]
    attempts: PathBuf,
    /// Index of the task in the array.
    #[arg(long)]
    task: usize,
    /// CPUs of each worker.
    #[arg(long)]
    cpus: usize,
    /// GPUs of each worker.
    #[arg(long)]
    gpus: usize,
    /// Workers reach no database.
    #[arg(long)]
    spool_only: bool,
    /// What all workers are told.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// First argument of the process that holds several workers.
const SIDE_BY_SIDE: &str = "side-by-side";

/// What can go wrong with a worker, beside its runner.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    /// The database said no for good.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The attempt's folder can't be used.
    #[error("can't {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database took too long.
    #[error("the database gave no answer within {secs} s")]
    NoAnswer {
        /// How long it was waited for.
        secs: u64,
    },
    /// Signals can't be handled, or the runner's end can't be seen.
    #[error("can't {doing}")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Name of the machine, as Slurm calls it if that has started the worker.
fn node() -> String {
    let slurm = std::env::var("SLURMD_NODENAME").ok().filter(|name| !name.is_empty());
    slurm.unwrap_or_else(|| crate::backend::host_name().unwrap_or_default())
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == ranks::COMMAND) {
        return ranks::main(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == local_ranks::COMMAND) {
        return local_ranks::main(&arguments[1..]);
    }
    // One thread: the runner dies with the thread that started it, which has to be the one that lives to the end.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a Tokio runtime can be built");
    let supervised = if arguments.first().is_some_and(|first| first == SIDE_BY_SIDE) {
        let cli = SideBySide::parse_from(&arguments);
        runtime.block_on(side_by_side::run(&cli))
    } else {
        let mut cli = Cli::parse();
        // Ranks are started anew for each job: whoever serves them next would have to know that all are at its end.
        cli.serve &= cli.ranks == 1;
        runtime.block_on(async {
            match &cli.spool_only {
                Some(folder) => unconnected::supervise(&cli, folder).await,
                None => supervise::supervise(&cli).await,
            }
        })
    };
    match supervised {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error);
            ExitCode::from(UNDELIVERED)
        }
    }
}
