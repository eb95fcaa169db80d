//! The ranks of a job on one machine: what `srun` does over nodes, here by `sweep-worker local-ranks`.
//!
//! It starts `sweep-worker rank` for each ([`super::ranks`]), passes stops on, and has all leave once one has left with
//! an error. It shares its process group with those, so whoever kills the group kills them, and the runners with them.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::{Job, Ranks};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ranks::{self, NO_RANK};
use super::runner;
use super::stop::StopSignal;
use super::train::until;
use super::{WorkerError, log};

/// First argument of the process that holds the ranks.
pub(super) const COMMAND: &str = "local-ranks";
/// How long the other ranks may take to leave once one has left with an error.
const LEAVE: Duration = Duration::from_secs(10);

/// `runner` once for each rank; its arguments are the caller's to add.
pub(super) fn command(runner: &Path, job: &Job, ranks: &Ranks) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).arg(ranks.world_size.to_string()).arg(&job.attempt_dir).arg(runner);
    Ok(command)
}

/// `sweep-worker local-ranks COUNT FOLDER RUNNER ARGUMENTS...`.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let count = arguments.first().and_then(|count| count.to_str()?.parse::<usize>().ok());
    let Some(count) = count else {
        log::line("`sweep-worker local-ranks` is started by a worker: COUNT FOLDER RUNNER ARGUMENTS...");
        return ExitCode::from(NO_RANK);
    };
    // One thread, as for the worker: ranks die with the thread that started them.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a Tokio runtime can be built");
    match runtime.block_on(run(count, &arguments[1..])) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error);
            ExitCode::from(NO_RANK)
        }
    }
}

/// Runs all ranks to their end. Gives the highest of their exit codes.
async fn run(count: usize, arguments: &[OsString]) -> Result<u8, WorkerError> {
    let doing = |doing| move |source| WorkerError::Process { doing, source };
    let stop = StopSignal::listen()?;
    let worker = std::env::current_exe().map_err(doing("find this program"))?;
    let mut pids = Vec::new();
    let mut running = JoinSet::new();
    for rank in 0..count {
        let mut command = Command::new(&worker);
        command.arg(ranks::COMMAND).args(arguments).stdin(Stdio::null());
        // As `srun` says it.
        command.env("SLURM_PROCID", rank.to_string()).env("SLURM_LOCALID", rank.to_string());
        runner::die_with_worker(&mut command);
        let mut child = command.spawn().map_err(doing("start a rank"))?;
        pids.push(Some(Pid::from_raw(child.id().unwrap_or_default().cast_signed())));
        running.spawn(async move { (rank, child.wait().await) });
    }
    let signal_all = |pids: &[Option<Pid>], signal| {
        for pid in pids.iter().flatten() {
            let _ = kill(*pid, signal);
        }
    };
    let (mut code, mut told, mut kill_at) = (0, false, None);
    loop {
        tokio::select! {
            ended = running.join_next() => {
                let Some(ended) = ended else { return Ok(code) };
                let Ok((rank, status)) = ended else { continue };
                // Its number may be another process's from now on.
                pids[rank] = None;
                let status = status.map_err(doing("see the end of a rank"))?;
                let left = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
                code = code.max(u8::try_from(left).unwrap_or(NO_RANK));
                if left != 0 && kill_at.is_none() {
                    signal_all(&pids, Signal::SIGTERM);
                    kill_at = Some(Instant::now() + LEAVE);
                }
            }
            _ = stop.wait(), if !told => {
                told = true;
                signal_all(&pids, Signal::SIGTERM);
            }
            () = until(kill_at) => {
                // Runners die with the processes that hold them. What is left of them falls to the worker.
                signal_all(&pids, Signal::SIGKILL);
                kill_at = Some(Instant::now() + LEAVE);
            }
        }
    }
}
