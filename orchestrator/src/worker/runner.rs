//! The runner as a child process: started in a group of its own, dying with the worker, its words read line by line.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use protocol::{Job, ServeRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lines::{Line, next_line};
use super::ranks;
use super::stderr_log::StderrLog;
use crate::backend::{is_secret, kill_marked, kill_orphans};

/// Variable that every process of a runner carries, so that none of them is ever overlooked.
const MARKER: &str = "SWEEP_ATTEMPT";
/// How long the copy of standard error may take after the runner and its children have ended.
pub(super) const WORDS_GRACE: Duration = Duration::from_secs(2);
/// Rounds in which orphans are killed; one that forks meanwhile is found by the next.
const KILL_ROUNDS: usize = 50;
/// Name of the file in an attempt's folder that says what to train.
pub(super) const JOB_FILE: &str = "job.json";

/// A running runner.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    pid: Pid,
    token: String,
    /// Where one that serves is told its jobs.
    requests: Option<ChildStdin>,
    /// The attempt's folder and the number of ranks, where it has several: the child holds them then.
    several: Option<(PathBuf, usize)>,
    /// Whether the child is `srun`.
    is_srun: bool,
    /// Its standard error, and the task that copies it.
    log: Arc<Mutex<StderrLog>>,
    copying: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts `runner serve`, or `runner run --job FOLDER/job.json`; that for each rank where the job has several, on
    /// this machine if they are `ranks_here`. Gives its lines as they come; the channel closes with its standard
    /// output.
    pub(super) fn start(
        runner: &Path,
        job: &Job,
        token: &str,
        serve: bool,
        ranks_here: bool,
    ) -> io::Result<(Runner, mpsc::Receiver<Line>)> {
        let folder = &job.attempt_dir;
        let threads = job.resources.threads.to_string();
        let mut command = match &job.ranks {
            Some(ranks) => ranks::command(runner, job, ranks, ranks_here)?,
            None => Command::new(runner),
        };
        if serve {
            command.arg("serve").stdin(Stdio::piped());
        } else {
            command.arg("run").arg("--job").arg(folder.join(JOB_FILE)).stdin(Stdio::null());
        }
        command.current_dir(&job.base_dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(MARKER, token).env("OMP_NUM_THREADS", &threads).env("MKL_NUM_THREADS", &threads);
        for (name, _) in std::env::vars_os() {
            if is_secret(&name) {
                command.env_remove(name);
            }
        }
        let log = Arc::new(Mutex::new(StderrLog::new(folder)));
        command.process_group(0);
        die_with_worker(&mut command);
        let is_srun = job.ranks.is_some() && !ranks_here;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("srun: {error}"));
        let mut child = command.spawn().map_err(|error| if is_srun { named(error) } else { error })?;
        let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
        let requests = child.stdin.take();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let copying = Some(tokio::spawn(copy_stderr(stderr, Arc::clone(&log))));
        let (sender, lines) = mpsc::channel(32);
        tokio::spawn(read_lines(stdout, sender));
        let several = job.ranks.as_ref().map(|ranks| (folder.clone(), ranks.world_size));
        Ok((Runner { child, pid, token: token.to_owned(), requests, several, is_srun, log, copying }, lines))
    }

    /// Whether it takes one job after another.
    pub(super) fn serves(&self) -> bool {
        self.requests.is_some()
    }

    /// Tells one that serves its next job; what it writes to standard error belongs to that from now on.
    pub(super) async fn give(&mut self, job: &Job) -> io::Result<()> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        std::mem::replace(&mut *lock(&self.log), StderrLog::new(&job.attempt_dir)).finish();
        let mut line = serde_json::to_vec(&ServeRequest { job: job.attempt_dir.join(JOB_FILE) })?;
        line.push(b'\n');
        requests.write_all(&line).await
    }

    /// Tells one that serves that there is no further job.
    pub(super) fn close(&mut self) {
        self.requests = None;
    }

    /// Waits for its end. May be called again after being dropped half-way.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        // `Child::wait` would close the standard input of one that serves, had that not been taken from it.
        let status = self.child.wait().await?;
        let several = self.several.as_ref();
        Ok(several.and_then(|(folder, world_size)| ranks::end_of_all(folder, *world_size)).unwrap_or(status))
    }

    /// Asks it to stop after a checkpoint.
    pub(super) fn ask_to_stop(&self) {
        // `srun` passes SIGUSR1 on to all ranks; SIGTERM would have it kill them a little later.
        let signal = if self.several.is_some() { Signal::SIGUSR1 } else { Signal::SIGTERM };
        let _ = kill(self.pid, signal);
    }

    /// Kills it and what it started: its process group, and what carries its mark where orphans don't fall to this
    /// process ([`Runner::clean_up`]).
    pub(super) fn kill_all(&self) {
        if self.is_srun && self.child.id().is_some() {
            // Has `srun` kill all ranks on all nodes and wait for their end; dead, it would leave that to a helper.
            let _ = kill(self.pid, Signal::SIGQUIT);
            return;
        }
        let _ = killpg(self.pid, Signal::SIGKILL);
        if !orphans_are_ours() {
            kill_leftovers(&self.token);
        }
    }

    /// Kills it, if it lives, and cleans up.
    pub(super) async fn end(&mut self) {
        self.kill_all();
        let _ = self.wait().await;
        self.clean_up().await;
    }

    /// After it has ended: kills and reaps what it left, and waits until its last words are in their file.
    pub(super) async fn clean_up(&mut self) {
        self.kill_all();
        kill_and_reap_orphans();
        if let Some(copying) = self.copying.take() {
            let _ = tokio::time::timeout(WORDS_GRACE, copying).await;
        }
        lock(&self.log).finish();
    }

    /// Last lines of its standard error on this job: from memory, since the disk may be full.
    pub(super) fn stderr_tail(&self) -> String {
        lock(&self.log).tail()
    }
}

fn lock(log: &Mutex<StderrLog>) -> MutexGuard<'_, StderrLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills what an earlier attempt may have left behind on this machine.
pub(super) fn kill_leftovers(token: &str) -> usize {
    kill_marked(&format!("{MARKER}={token}"))
}

/// Writes `job.json`. Neither renamed nor forced to the disk: its one reader is told of it when it is whole.
pub(super) fn write_job(job: &Job) -> io::Result<()> {
    std::fs::write(job.attempt_dir.join(JOB_FILE), serde_json::to_vec_pretty(job)?)
}

async fn read_lines(stdout: ChildStdout, sender: mpsc::Sender<Line>) {
    let mut reader = BufReader::new(stdout);
    while let Ok(Some(line)) = next_line(&mut reader).await {
        if sender.send(line).await.is_err() {
            return;
        }
    }
}

async fn copy_stderr(mut stderr: ChildStderr, log: Arc<Mutex<StderrLog>>) {
    let mut chunk = vec![0; 16 << 10];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        lock(&log).append(&chunk[..length]);
    }
}

/// Has orphans of the runner fall to this process, where they are found again, and not to the system's first one.
pub(super) fn adopt_orphans() {
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

fn orphans_are_ours() -> bool {
    nix::sys::prctl::get_child_subreaper().unwrap_or(false)
}

/// Kills and reaps what the runner left to this process.
pub(super) fn kill_and_reap_orphans() {
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
pub(super) fn die_with_worker(command: &mut Command) {
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
