//! This machine: a slot a GPU, or a core; each worker in a session of its own, so that it outlives `sweep launch`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::Resources;

use super::{Backend, BackendError, LaunchRequest, Observed, process};
use crate::plan::LocalOptions;

/// Workers as processes of this machine.
#[derive(Debug)]
pub struct LocalBackend {
    host: String,
    worker: PathBuf,
    home: PathBuf,
    slots: usize,
    threads: usize,
    gpus: Vec<String>,
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
        let host = fs::read_to_string("/proc/sys/kernel/hostname").map_err(machine("the host's name"))?;
        let cores = std::thread::available_parallelism().map_err(machine("the number of cores"))?.get();
        let cuda = runner_devices.iter().any(|device| device.starts_with("cuda"));
        let gpus = if cuda { visible_gpus() } else { Vec::new() };
        let slots = options.slots.unwrap_or(if gpus.is_empty() { cores } else { gpus.len() }).max(1);
        let threads = options.threads_per_slot.unwrap_or(cores / slots).max(1);
        Ok(LocalBackend { host: host.trim().to_owned(), worker, home: home.to_owned(), slots, threads, gpus })
    }

    /// Threads a slot.
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
        command.arg("--attempt").arg(&request.token);
        command.arg("--runner").arg(&request.runner).arg("--base-dir").arg(&request.base_dir);
        if let Some(secs) = request.time_limit_secs {
            command.arg("--time-limit-secs").arg(secs.to_string());
        }
        // DATABASE_URL, where there is one, is inherited: a password has no place on a command line.
        command.env("SWEEP_HOME", &self.home);
        let threads = self.threads.to_string();
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(name, &threads);
        }
        if !self.gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", &self.gpus[request.slot % self.gpus.len()]);
        }
        let log = OpenOptions::new().create(true).append(true).open(request.folder.join("worker.log"))?;
        command.stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log);
        own_session(&mut command);
        Ok(command)
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

    fn slots(&self) -> usize {
        self.slots
    }

    fn slot_resources(&self) -> Resources {
        // One GPU is visible to each worker, so it is `cuda` to every runner.
        let device = if self.gpus.is_empty() { "cpu" } else { "cuda" };
        Resources { device: device.to_owned(), threads: self.threads }
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<String, BackendError> {
        let failed = |source| BackendError::Launch { token: request.token.clone(), source };
        let child = tokio::process::Command::from(self.command(request).map_err(failed)?).spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default().cast_signed();
        // Dropping the child doesn't kill it; Tokio reaps it when it ends.
        Ok(process::handle_of(pid).unwrap_or_else(|| format!("{pid}:0")))
    }

    async fn poll(&self, attempts: &[(String, Option<String>)]) -> BTreeMap<String, Observed> {
        let observe = |token: &str, handle: Option<&str>| match handle {
            Some(handle) if process::process_alive(handle) => Observed::Alive(handle.to_owned()),
            _ => process::with_attempt(token).into_iter().next().map_or(Observed::Gone, Observed::Alive),
        };
        attempts.iter().map(|(token, handle)| (token.clone(), observe(token, handle.as_deref()))).collect()
    }

    async fn stop(&self, token: &str) -> Result<(), BackendError> {
        for pid in process::with_attempt(token).iter().filter_map(|handle| process::pid_of(handle)) {
            match kill(Pid::from_raw(pid), Signal::SIGTERM) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(source) => return Err(BackendError::Signal { token: token.to_owned(), source }),
            }
        }
        Ok(())
    }
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
