//! This machine: a slot a GPU, or a core, or as many of them as a job has ranks; each worker in a session of its own,
//! so that it outlives `sweep launch`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::Resources;
use tokio::sync::Notify;

use super::process::{self, Seen};
use super::{Backend, BackendError, LaunchRequest, Launched, Observed, THREADS, WorkerId};
use crate::plan::LocalOptions;

/// How long the end of a worker is remembered that nobody has asked about.
const EXITS_KEPT: Duration = Duration::from_mins(1);
/// Variable that every process of a worker's runner carries: `SWEEP_ATTEMPT=NAME`.
const MARKER: &str = "SWEEP_ATTEMPT";

/// Workers as processes of this machine.
#[derive(Debug)]
pub struct LocalBackend {
    host: String,
    machine: String,
    exits: Arc<Exits>,
    worker: PathBuf,
    home: PathBuf,
    slots: usize,
    /// Of each process of the runner.
    threads: usize,
    /// Processes of a job.
    ranks: usize,
    gpus: Vec<String>,
}

/// Workers of this process that have ended and were waited for, by handle.
#[derive(Debug, Default)]
struct Exits {
    ended: Mutex<BTreeMap<String, Instant>>,
    changed: Notify,
}

impl LocalBackend {
    /// A backend whose workers keep their state under `home` (absolute). `sweep-worker` is looked for beside this
    /// executable.
    /// `runner_devices` are what the runner says it can use: without `cuda` among them, GPUs are left alone.
    pub fn new(options: &LocalOptions, home: &Path, runner_devices: &[String]) -> Result<LocalBackend, BackendError> {
        let machine = |what| move |source| BackendError::Machine { what, source };
        let executable = std::env::current_exe().map_err(machine("the path of this program"))?;
        let worker = executable.with_file_name("sweep-worker");
        if !worker.is_file() {
            return Err(BackendError::NoWorker { path: worker });
        }
        let host = process::host_name().map_err(machine("the host's name"))?;
        let cores = std::thread::available_parallelism().map_err(machine("the number of cores"))?.get();
        let cuda = runner_devices.iter().any(|device| device.starts_with("cuda"));
        let gpus = if cuda { visible_gpus() } else { Vec::new() };
        let ranks = options.ranks.max(1);
        if (1..ranks).contains(&gpus.len()) {
            return Err(BackendError::TooFewGpus { ranks, gpus: gpus.len() });
        }
        let slots = options.slots.unwrap_or(if gpus.is_empty() { cores } else { gpus.len() } / ranks).max(1);
        let threads = (options.threads_per_slot.unwrap_or(cores / slots) / ranks).max(1);
        let machine = machine_identity();
        let exits = Arc::default();
        Ok(LocalBackend { host, machine, exits, worker, home: home.to_owned(), slots, threads, ranks, gpus })
    }

    /// Threads of a job's process, or of each of its ranks.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// GPUs that slots are spread over; none: slots are cores.
    pub fn gpu_count(&self) -> usize {
        self.gpus.len()
    }

    fn command(&self, request: &LaunchRequest) -> io::Result<Command> {
        fs::create_dir_all(&request.folder)?;
        let mut command = Command::new(&self.worker);
        command.arg("--attempt").arg(&request.token).args(request.arguments());
        if request.spool_only {
            command.arg("--spool-only").arg(&request.folder);
        }
        // DATABASE_URL, where there is one, is inherited: a password has no place on a command line.
        command.env("SWEEP_HOME", &self.home);
        if self.ranks > 1 {
            command.arg("--ranks").arg(self.ranks.to_string()).arg("--ranks-here");
        }
        let threads = self.threads.to_string();
        command.envs(THREADS.map(|name| (name, &threads)));
        if !self.gpus.is_empty() {
            let of_rank = |rank: usize| self.gpus[(request.slot * self.ranks + rank) % self.gpus.len()].as_str();
            command.env("CUDA_VISIBLE_DEVICES", (0..self.ranks).map(of_rank).collect::<Vec<_>>().join(","));
        }
        let log = OpenOptions::new().create(true).append(true).open(request.folder.join("worker.log"))?;
        command.stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log);
        own_session(&mut command);
        Ok(command)
    }

    /// Starts one worker and gives its handle.
    fn start(&self, request: &LaunchRequest) -> io::Result<String> {
        let mut child = tokio::process::Command::from(self.command(request)?).spawn()?;
        let pid = child.id().unwrap_or_default().cast_signed();
        // Not waited for yet, so its number is its own.
        let handle = process::handle_of(pid).unwrap_or_else(|| format!("{pid}:0"));
        let (exits, ended) = (Arc::clone(&self.exits), handle.clone());
        tokio::spawn(async move {
            if child.wait().await.is_ok() {
                exits.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(ended, Instant::now());
                exits.changed.notify_one();
            }
        });
        Ok(handle)
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &'static str {
        "local"
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn machine(&self) -> &str {
        &self.machine
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn slot_resources(&self) -> Resources {
        // One GPU a rank is visible to each worker, so it is `cuda` to every runner.
        let device = if self.gpus.is_empty() { "cpu" } else { "cuda" };
        Resources { device: device.to_owned(), threads: self.threads }
    }

    async fn launch(&self, requests: &[LaunchRequest]) -> Launched {
        let mut launched = Launched::default();
        for request in requests {
            match self.start(request) {
                Ok(handle) => launched.handles.push((request.token.clone(), handle)),
                Err(source) => {
                    launched.error = Some(BackendError::Launch { token: request.token.clone(), source });
                    break;
                }
            }
        }
        launched
    }

    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed> {
        let mut ended = self.exits.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, when| when.elapsed() < EXITS_KEPT);
        let by_handle = |worker: &WorkerId| match &worker.handle {
            Some(handle) if ended.contains_key(handle) => Some(Observed::Exited),
            Some(handle) => match process::look_at(handle) {
                Seen::Alive => Some(Observed::Alive(handle.clone())),
                Seen::Gone => Some(Observed::Gone),
                Seen::Unknown => Some(Observed::Unknown),
            },
            None => None,
        };
        let mut observed: BTreeMap<String, Observed> =
            workers.iter().filter_map(|worker| Some((worker.name.clone(), by_handle(worker)?))).collect();
        drop(ended);
        // A handle that was never stored, or is another launcher's mistake: by name.
        let unnamed: Vec<&str> = workers
            .iter()
            .filter(|worker| !observed.contains_key(&worker.name))
            .map(|worker| worker.name.as_str())
            .collect();
        if !unnamed.is_empty() {
            let found = process::workers_by_name(&unnamed);
            for name in unnamed {
                let seen = found.as_ref().map_or(Observed::Unknown, |found| {
                    found.get(name).cloned().map_or(Observed::Gone, Observed::Alive)
                });
                observed.insert(name.to_owned(), seen);
            }
        }
        observed
    }

    async fn stop(&self, worker: &WorkerId) -> Result<(), BackendError> {
        let handle = match &worker.handle {
            Some(handle) if process::look_at(handle) == Seen::Alive => Some(handle.clone()),
            _ => process::workers_by_name(&[&worker.name]).and_then(|mut found| found.remove(&worker.name)),
        };
        let Some(pid) = handle.as_deref().and_then(process::pid_of) else { return Ok(()) };
        match kill(Pid::from_raw(pid), Signal::SIGTERM) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(source) => Err(BackendError::Signal { token: worker.name.clone(), source }),
        }
    }

    async fn kill_leftovers(&self, worker: &str) {
        process::kill_marked(&format!("{MARKER}={worker}"));
    }

    async fn changed(&self) {
        self.exits.changed.notified().await;
    }
}

/// Boot id and PID namespace: process ids mean the same only where both agree.
fn machine_identity() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let number: String = namespace.chars().filter(char::is_ascii_digit).collect();
    format!("{}/{number}", boot.trim())
}

/// Away from the terminal: Ctrl-C and hang-ups of `sweep launch` don't reach the worker.
#[expect(unsafe_code, reason = "`setsid` has to be called in the child, between fork and exec")]
fn own_session(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

/// GPUs that workers may use: those of CUDA_VISIBLE_DEVICES if it is set, else all that `nvidia-smi -L` lists.
fn visible_gpus() -> Vec<String> {
    if let Ok(list) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return list.split(',').filter(|gpu| !gpu.is_empty() && *gpu != "-1").map(str::to_owned).collect();
    }
    let Ok(output) = Command::new("nvidia-smi").arg("-L").stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with("GPU ")).count();
    (0..lines).map(|gpu| gpu.to_string()).collect()
}
