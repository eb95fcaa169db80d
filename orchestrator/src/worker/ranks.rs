//! A job by several processes, a rank each: one on every node of a Slurm allocation, or all on this machine.
//!
//! The worker starts `srun sweep-worker rank FOLDER RUNNER ...`; `srun` starts that on every node. On one machine
//! [`local_ranks`](super::local_ranks) does so. It tells the runner
//! who it is, passes stops on, keeps other ranks' words apart from rank 0's events, and leaves how its runner left in
//! the attempt's folder: of all ranks' exit codes, `srun` gives only the highest, those of killed peers among them.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::{Job, Ranks, exit};
use tokio::io::{AsyncRead, BufReader};
use tokio::process::Command;

use super::lines::{Line, next_line};
use super::local_ranks;
use super::runner::{self, WORDS_GRACE};
use super::stop::StopSignal;
use super::{WorkerError, log};

/// First argument of the process that stands between Slurm and a rank's runner.
pub(super) const COMMAND: &str = "rank";
/// Ports to meet at: below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..32_768;
const PORT_TRIES: usize = 100;
/// Exit code of the process between, where it has none to pass on.
pub(super) const NO_RANK: u8 = 70;

/// Where the ranks of an attempt meet: on this machine, the first of the allocation, at a port that is free now. For
/// ranks on other machines `MASTER_ADDR` in the environment is a name of this one to be used in place of its own.
pub(super) fn meeting(world_size: usize, here: bool) -> io::Result<Ranks> {
    let master_addr = match std::env::var("MASTER_ADDR") {
        _ if here => "127.0.0.1".to_owned(),
        Ok(name) if !name.is_empty() => name,
        _ => crate::backend::host_name()?,
    };
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let master_port = rand::random_range(PORTS);
        match TcpListener::bind(("0.0.0.0", master_port)) {
            Ok(_) => return Ok(Ranks { world_size, master_addr, master_port }),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

/// `runner` on every node, or for every rank `here`; its arguments are the caller's to add.
pub(super) fn command(runner: &Path, job: &Job, ranks: &Ranks, here: bool) -> io::Result<Command> {
    let mut command = if here { local_ranks::command(runner, job, ranks)? } else { srun(runner, job, ranks)? };
    command.env("WORLD_SIZE", ranks.world_size.to_string());
    command.env("MASTER_ADDR", &ranks.master_addr).env("MASTER_PORT", ranks.master_port.to_string());
    Ok(command)
}

fn srun(runner: &Path, job: &Job, ranks: &Ranks) -> io::Result<Command> {
    let mut command = Command::new("srun");
    let world = ranks.world_size;
    command.arg(format!("--nodes={world}")).arg(format!("--ntasks={world}"));
    // `srun` takes no word of the batch script's for it.
    command.arg(format!("--cpus-per-task={}", job.resources.threads));
    command.args(["--kill-on-bad-exit=1", "--input=none", "--export=ALL"]);
    command.arg(std::env::current_exe()?).arg(COMMAND).arg(&job.attempt_dir).arg(runner);
    // Labels would make events unreadable.
    command.env_remove("SLURM_LABELIO");
    Ok(command)
}

/// How the attempt's runner left, all ranks taken together: as the one that tells most of why. `None`: every rank left
/// with 0, or none could say.
pub(super) fn end_of_all(folder: &Path, world_size: usize) -> Option<ExitStatus> {
    let read = |rank| std::fs::read_to_string(status_file(folder, rank)).ok()?.trim().parse().ok();
    let ends = (0..world_size).filter_map(read).map(ExitStatus::from_raw);
    // A rank whose peer is gone leaves with a code of its own, and is asked to stop besides.
    ends.min_by_key(|status| match (status.signal(), status.code()) {
        (Some(_), _) => 0,
        (_, Some(exit::BAD_INPUT)) => 1,
        (_, Some(exit::STOPPED)) => 3,
        _ => 2,
    })
}

fn status_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}.status"))
}

/// `sweep-worker rank FOLDER RUNNER ARGUMENTS...`, as `srun` starts it on a node, or `local-ranks` here.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let [folder, runner, arguments @ ..] = arguments else {
        log::line("`sweep-worker rank` is started by `srun`, from a worker: FOLDER RUNNER ARGUMENTS...");
        return ExitCode::from(NO_RANK);
    };
    // One thread, as for the worker: the runner dies with the thread that started it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a Tokio runtime can be built");
    let mut command = Command::new(runner);
    command.args(arguments);
    match runtime.block_on(run(Path::new(folder), command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error);
            ExitCode::from(NO_RANK)
        }
    }
}

/// Runs one rank to its end. Gives the exit code for `srun`: another than 0 ends the other ranks.
async fn run(folder: &Path, mut command: Command) -> Result<u8, WorkerError> {
    let doing = |doing| move |source| WorkerError::Process { doing, source };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let (Some(rank), Some(local)) = (number("SLURM_PROCID"), number("SLURM_LOCALID")) else {
        return Err(doing("tell which rank this is: SLURM_PROCID and SLURM_LOCALID are not set")(
            io::ErrorKind::NotFound.into(),
        ));
    };
    runner::adopt_orphans();
    let stop = StopSignal::listen()?;
    command.env("RANK", rank.to_string()).env("LOCAL_RANK", local.to_string());
    command.stdin(Stdio::null()).process_group(0);
    if rank > 0 {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    runner::die_with_worker(&mut command);
    let mut child = command.spawn().map_err(doing("start the runner"))?;
    let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
    let stdout = child.stdout.take().map(|pipe| tokio::spawn(copy_words(rank, pipe)));
    let stderr = child.stderr.take().map(|pipe| tokio::spawn(copy_words(rank, pipe)));
    let mut told = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(doing("see the end of the runner"))?,
            _ = stop.wait(), if !told => {
                told = true;
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
    };
    let _ = killpg(pid, Signal::SIGKILL);
    runner::kill_and_reap_orphans();
    for copying in [stdout, stderr].into_iter().flatten() {
        let _ = tokio::time::timeout(WORDS_GRACE, copying).await;
    }
    // One that did not know how to stop was ended by what another rank did, or by the worker.
    let stopped = told && status.signal() == Some(Signal::SIGTERM as i32);
    if !status.success() && !stopped {
        // Without it, `srun`'s word counts.
        let _ = std::fs::write(status_file(folder, rank), format!("{}\n", status.into_raw()));
    }
    Ok(match (status.code(), status.signal()) {
        // A rank that has stopped must not have the others killed that still do.
        (Some(0 | exit::STOPPED), _) => 0,
        (Some(code), _) => {
            say(rank, format!("the runner left with exit code {code}").as_bytes());
            u8::try_from(code).unwrap_or(NO_RANK)
        }
        (None, signal) => {
            let number = signal.unwrap_or_default();
            let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| name.to_string());
            say(rank, format!("the runner was killed by {name}").as_bytes());
            u8::try_from(128 + number).unwrap_or(NO_RANK)
        }
    })
}

/// Passes words on to standard error, the rank before each line.
async fn copy_words(rank: usize, pipe: impl AsyncRead + Unpin) {
    let mut reader = BufReader::new(pipe);
    while let Ok(Some(line)) = next_line(&mut reader).await {
        match line {
            Line::Whole(words) | Line::Last(words) => say(rank, &words),
            Line::TooLong { length, .. } => say(rank, format!("(a line of {length} bytes)").as_bytes()),
        }
    }
}

fn say(rank: usize, words: &[u8]) {
    let line = [format!("[rank {rank}] ").as_bytes(), words, b"\n"].concat();
    let _ = io::stderr().lock().write_all(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_that_tells_most_speaks_for_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let end = |ends: &[(usize, i32)]| {
            for rank in 0..4 {
                let _ = std::fs::remove_file(status_file(folder.path(), rank));
            }
            for (rank, raw) in ends {
                std::fs::write(status_file(folder.path(), *rank), format!("{raw}\n")).expect("the folder is ours");
            }
            end_of_all(folder.path(), 4).map(ExitStatus::into_raw)
        };
        let code = |code: i32| code << 8;
        assert_eq!(end(&[]), None);
        assert_eq!(end(&[(0, code(75)), (3, code(75))]), Some(code(75)));
        assert_eq!(end(&[(0, code(75)), (1, code(1))]), Some(code(1)));
        assert_eq!(end(&[(0, code(1)), (2, code(2)), (3, code(75))]), Some(code(2)));
        assert_eq!(end(&[(0, code(1)), (1, code(2)), (2, 9)]), Some(9), "killed for want of memory, say");
        std::fs::write(status_file(folder.path(), 0), "").expect("the folder is ours");
        assert_eq!(end_of_all(folder.path(), 1), None, "a full disk");
    }

    #[test]
    fn a_meeting_is_on_this_machine_at_a_port_that_is_free() {
        assert_eq!(meeting(2, true).expect("a port is free").master_addr, "127.0.0.1");
        let ranks = meeting(3, false).expect("a port is free");
        assert!(ranks.world_size == 3 && !ranks.master_addr.is_empty() && PORTS.contains(&ranks.master_port));
    }
}
