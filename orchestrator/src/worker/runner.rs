//! The runner as a child process: started in a group of its own, dying with the worker, its words read line by line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::Job;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::backend::kill_marked;

/// Variable that every process of a runner carries, so that none of them is ever overlooked.
const MARKER: &str = "SWEEP_ATTEMPT";
/// Lines of standard error that are stored with a failure.
const STDERR_LINES: usize = 20;

/// A running runner.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    pid: Pid,
    token: String,
}

impl Runner {
    /// Starts `runner run --job FOLDER/job.json`. Gives its lines as they come; the channel closes with its standard
    /// output.
    pub(super) fn start(runner: &Path, job: &Job, token: &str) -> io::Result<(Runner, mpsc::Receiver<Vec<u8>>)> {
        let folder = &job.attempt_dir;
        let threads = job.resources.threads.to_string();
        let mut command = Command::new(runner);
        command.arg("run").arg("--job").arg(folder.join("job.json")).current_dir(&job.base_dir);
        command.env(MARKER, token).env("OMP_NUM_THREADS", &threads).env("MKL_NUM_THREADS", &threads);
        command.env_remove("DATABASE_URL");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(folder.join("stderr.log"))?);
        command.process_group(0);
        die_with_worker(&mut command);
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel(256);
        tokio::spawn(read_lines(stdout, sender));
        Ok((Runner { child, pid, token: token.to_owned() }, lines))
    }

    /// Waits for its end. May be called again after being dropped half-way.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop after a checkpoint.
    pub(super) fn ask_to_stop(&self) {
        let _ = kill(self.pid, Signal::SIGTERM);
    }

    /// Kills it and everything that it started.
    pub(super) fn kill_all(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        kill_leftovers(&self.token);
    }
}

/// Kills what an earlier attempt may have left behind on this machine.
pub(super) fn kill_leftovers(token: &str) -> usize {
    kill_marked(&format!("{MARKER}={token}"))
}

/// Writes `job.json`, whole or not at all.
pub(super) fn write_job(job: &Job) -> io::Result<()> {
    let temporary = job.attempt_dir.join(".job.json");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(job)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, job.attempt_dir.join("job.json"))
}

/// Last lines of the runner's standard error.
pub(super) fn stderr_tail(folder: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(folder.join("stderr.log"))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // PostgreSQL stores no NUL in a text.
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).replace('\0', "\u{fffd}");
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
}

async fn read_lines(stdout: ChildStdout, sender: mpsc::Sender<Vec<u8>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if sender.send(line).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// A runner without its worker would train for nobody, and beside its successor.
#[expect(unsafe_code, reason = "`prctl` has to be called in the child, between fork and exec")]
fn die_with_worker(command: &mut Command) {
    let worker = nix::unistd::getpid();
    // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The worker may have died before the call.
            if nix::unistd::getppid() == worker { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}
