//! The runner as a child process: started in a group of its own, dying with the worker, its words read line by line.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use protocol::Job;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lines::{Line, next_line};
use crate::backend::{kill_marked, kill_orphans};

/// Variable that every process of a runner carries, so that none of them is ever overlooked.
const MARKER: &str = "SWEEP_ATTEMPT";
/// Bytes of standard error that are kept in its file: the first, and the last.
const WORDS_MAX: usize = 4 << 20;
const WORDS_TAIL: usize = 64 << 10;
/// How long the copy of standard error may take after the runner and its children have ended.
const WORDS_GRACE: Duration = Duration::from_secs(2);
/// Rounds in which orphans are killed; one that forks meanwhile is found by the next.
const KILL_ROUNDS: usize = 50;
/// Lines of standard error that are stored with a failure.
const STDERR_LINES: usize = 20;

/// A running runner.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    pid: Pid,
    token: String,
    /// Copies standard error to its file.
    words: Option<JoinHandle<Vec<u8>>>,
    /// The last of them, once it has ended.
    last_words: Vec<u8>,
}

impl Runner {
    /// Starts `runner run --job FOLDER/job.json`. Gives its lines as they come; the channel closes with its standard
    /// output.
    pub(super) fn start(runner: &Path, job: &Job, token: &str) -> io::Result<(Runner, mpsc::Receiver<Line>)> {
        let folder = &job.attempt_dir;
        let threads = job.resources.threads.to_string();
        let mut command = Command::new(runner);
        command.arg("run").arg("--job").arg(folder.join("job.json")).current_dir(&job.base_dir);
        command.env(MARKER, token).env("OMP_NUM_THREADS", &threads).env("MKL_NUM_THREADS", &threads);
        for (name, _) in std::env::vars_os() {
            if is_secret(&name) {
                command.env_remove(name);
            }
        }
        let log = File::create(folder.join("stderr.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        die_with_worker(&mut command);
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let words = tokio::spawn(keep_words(stderr, log));
        let (sender, lines) = mpsc::channel(32);
        tokio::spawn(read_lines(stdout, sender));
        Ok((Runner { child, pid, token: token.to_owned(), words: Some(words), last_words: Vec::new() }, lines))
    }

    /// Waits for its end. May be called again after being dropped half-way.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop after a checkpoint.
    pub(super) fn ask_to_stop(&self) {
        let _ = kill(self.pid, Signal::SIGTERM);
    }

    /// Kills it and everything that it started: its process group, what carries its mark, and what fell to this process
    /// when its own parent ended.
    pub(super) fn kill_all(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        kill_leftovers(&self.token);
    }

    /// After it has ended: kills and reaps what it left, and waits until its last words are in their file.
    pub(super) async fn clean_up(&mut self) {
        self.kill_all();
        kill_and_reap_orphans();
        if let Some(words) = self.words.take()
            && let Ok(Ok(last)) = tokio::time::timeout(WORDS_GRACE, words).await
        {
            self.last_words = last;
        }
    }

    /// Last lines of its standard error, after [`Runner::clean_up`]: from memory, since the disk may be full.
    pub(super) fn stderr_tail(&self) -> String {
        // PostgreSQL stores no NUL in a text.
        let text = String::from_utf8_lossy(&self.last_words).replace('\0', "\u{fffd}");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
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

async fn read_lines(stdout: ChildStdout, sender: mpsc::Sender<Line>) {
    let mut reader = BufReader::new(stdout);
    while let Ok(Some(line)) = next_line(&mut reader).await {
        if sender.send(line).await.is_err() {
            return;
        }
    }
}

/// Copies words for people to their file: the first and the last of them, if there are too many. Gives the last.
async fn keep_words(mut stderr: ChildStderr, mut log: File) -> Vec<u8> {
    let mut kept = 0;
    let mut total = 0;
    let mut last: VecDeque<u8> = VecDeque::new();
    let mut chunk = vec![0; 16 << 10];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        let head = length.min(WORDS_MAX - kept);
        // A full disk costs words, not the runner.
        let _ = log.write_all(&chunk[..head]);
        kept += head;
        total += length;
        last.extend(&chunk[..length]);
        let over = last.len().saturating_sub(WORDS_TAIL);
        last.drain(..over);
    }
    let last = Vec::from(last);
    let unwritten = (total - kept).min(last.len());
    if total > kept + unwritten {
        let _ = writeln!(log, "\n... {} bytes left out ...", total - kept - unwritten);
    }
    let _ = log.write_all(&last[last.len() - unwritten..]);
    last
}

/// What leads to the database has no business in a runner.
fn is_secret(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"PG") || matches!(name, b"DATABASE_URL" | b"SWEEP_READER_URL")
}

/// Has orphans of the runner fall to this process, where they are found again, and not to the system's first one.
pub(super) fn adopt_orphans() {
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Kills and reaps what the runner left to this process.
fn kill_and_reap_orphans() {
    for _ in 0..KILL_ROUNDS {
        let orphans = kill_orphans();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
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
