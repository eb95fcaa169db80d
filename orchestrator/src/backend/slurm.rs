//! A Slurm cluster: a job array a submission, one `squeue` a cycle, however many workers there are.
//!
//! Nothing here waits for Slurm: what is asked for is asked in the background, and [`Backend::poll`] answers from what
//! was heard last. Each task of an array is known by the array's name, which is drawn at random, and its index; so a
//! job id that Slurm gives again is never taken for ours. Which attempt a task runs is in the array's folder, written
//! before `sbatch` is called: a submission whose answer was lost is found again.

mod queue;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use protocol::Resources;
use tokio::process::Command;
use tokio::sync::Notify;

use super::{Backend, BackendError, LaunchRequest, Launched, Observed, WorkerId};
use crate::plan::SlurmOptions;
use queue::{EndWord, NAME_PREFIX, Submission, Task, TaskState};
use script::Batch;

/// `sbatch` tries for 120 s by itself.
const SBATCH_LIMIT: Duration = Duration::from_secs(150);
/// Every other command.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// Between two questions to Slurm: after news, and when nothing changes.
const CYCLE_MIN: Duration = Duration::from_secs(1);
const CYCLE_MAX: Duration = Duration::from_secs(30);
/// How long a submission is put off that Slurm has no room for, or no answer to.
const SUBMIT_PAUSE: Duration = Duration::from_secs(10);
/// Tasks of an array, where Slurm does not say.
const ARRAY_SIZE: usize = 1000;

/// Workers as tasks of Slurm job arrays.
#[derive(Debug)]
pub struct SlurmBackend {
    options: SlurmOptions,
    cluster: String,
    elsewhere: Option<String>,
    array_size: usize,
    worker: PathBuf,
    home: PathBuf,
    shared: Arc<Shared>,
}

/// What the backend and its background tasks share.
#[derive(Debug)]
struct Shared {
    /// Folder of all arrays.
    folder: PathBuf,
    state: Mutex<State>,
    /// There is something new to see.
    changed: Notify,
    /// The queue is to be asked soon.
    ask: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The last two answers of `squeue`, the newest last.
    answers: Vec<Answer>,
    /// Attempts by the name of their array.
    batches: BTreeMap<String, Vec<String>>,
    /// Tasks that waited when they were last seen, and are missing from an array that Slurm still knows: Slurm keeps no
    /// record of a waiting task that somebody cancels.
    vanished: BTreeMap<String, Task>,
    /// Workers that were asked for last and were alive.
    alive: BTreeSet<String>,
    /// Workers to end, and whether at once: told to Slurm after the next answer, many in one call.
    to_end: BTreeMap<String, bool>,
    /// Workers that we have ended ourselves.
    scancelled: BTreeSet<String>,
    /// Workers whose `sbatch` has not returned yet.
    submitting: BTreeSet<String>,
    /// Workers that this process has submitted and not seen in an answer yet, and when `sbatch` returned.
    submitted: BTreeMap<String, (Task, Instant)>,
    /// Nothing is submitted before that.
    pause_until: Option<Instant>,
    /// What Slurm has refused, for the next caller of [`Backend::launch`].
    refused: Option<BackendError>,
}

/// One answer of `squeue`.
#[derive(Debug)]
struct Answer {
    asked_at: Instant,
    tasks: BTreeMap<String, Task>,
}

impl SlurmBackend {
    /// A backend whose workers keep their state under `home` (absolute, on a file system that all nodes share).
    /// `sweep-worker` is looked for beside this executable.
    pub async fn connect(options: &SlurmOptions, home: &Path) -> Result<SlurmBackend, BackendError> {
        let machine = |what| move |source| BackendError::Machine { what, source };
        let executable = std::env::current_exe().map_err(machine("the path of this program"))?;
        let worker = executable.with_file_name("sweep-worker");
        if !worker.is_file() {
            return Err(BackendError::NoWorker { path: worker });
        }
        let config = run(command("scontrol").args(["show", "config"]), COMMAND_LIMIT).await;
        let config = config.map_err(|source| BackendError::NoSlurm { said: source.to_string() })?;
        if !config.success {
            return Err(BackendError::NoSlurm { said: config.stderr.trim().to_owned() });
        }
        let values = queue::read_config(&config.stdout);
        let array_size = values.get("MaxArraySize").and_then(|text| text.parse().ok()).unwrap_or(ARRAY_SIZE).max(1);
        let cluster = values.get("ClusterName").map_or("slurm", |name| name).to_owned();
        let own = fs::read_to_string("/proc/sys/kernel/hostname").map_err(machine("the host's name"))?;
        let short = |name: &str| name.trim().split('.').next().unwrap_or_default().to_owned();
        let hosts = run(command("sinfo").args(["--noheader", "--Node", "--format=%n"]), COMMAND_LIMIT).await;
        let hosts = hosts.map_err(|source| BackendError::NoSlurm { said: source.to_string() })?;
        let elsewhere = hosts.stdout.lines().map(short).find(|host| *host != short(&own));
        let folder = home.join("slurm");
        fs::create_dir_all(&folder).map_err(machine("the folder of the batch scripts"))?;
        let shared = Arc::new(Shared { folder, state: Mutex::default(), changed: Notify::new(), ask: Notify::new() });
        tokio::spawn(watch_queue(Arc::downgrade(&shared)));
        Ok(SlurmBackend {
            options: options.clone(),
            cluster,
            elsewhere,
            array_size,
            worker,
            home: home.to_owned(),
            shared,
        })
    }

    /// A node of the cluster that is another machine than this one.
    pub fn other_machine(&self) -> Option<&str> {
        self.elsewhere.as_deref()
    }

    /// Writes the script of an array of so many workers like this one, as far as they fit into one, and asks Slurm when
    /// it would run; submits nothing. Gives the script and what Slurm says.
    pub async fn test_only(&self, like: &LaunchRequest, workers: u64) -> Result<(PathBuf, String), BackendError> {
        let count = usize::try_from(workers).unwrap_or(usize::MAX).clamp(1, self.array_size.min(self.options.jobs));
        let requests: Vec<LaunchRequest> = (0..count).map(|slot| LaunchRequest { slot, ..like.clone() }).collect();
        let failed = |source| BackendError::Launch { token: like.token.clone(), source };
        let script = self.write_batch(&like.token, &requests).map_err(failed)?;
        let mut sbatch = command("sbatch");
        sbatch.args(["--test-only", "--parsable"]).arg(&script);
        let output = run(&mut sbatch, SBATCH_LIMIT).await.map_err(failed)?;
        let said = output.stderr.trim().to_owned();
        if output.success { Ok((script, said)) } else { Err(BackendError::Submit { said, passing: false }) }
    }

    /// Writes an array's folder and script.
    fn write_batch(&self, name: &str, requests: &[LaunchRequest]) -> io::Result<PathBuf> {
        let folder = self.shared.folder.join(name);
        fs::create_dir_all(&folder)?;
        let database_url = match std::env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => Some(self.write_secret("database-url", &url)?),
            _ => None,
        };
        let batch = Batch {
            name,
            folder: &folder,
            requests,
            worker: &self.worker,
            home: &self.home,
            database_url: database_url.as_deref(),
        };
        write_whole(&folder.join(script::ATTEMPTS), &script::attempts(requests), 0o644)?;
        let path = folder.join("script.sh");
        write_whole(&path, &script::script(&batch, &self.options), 0o644)?;
        File::open(&folder)?.sync_all()?;
        File::open(&self.shared.folder)?.sync_all()?;
        Ok(path)
    }

    /// A file beside the arrays that only its owner may read.
    fn write_secret(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.shared.folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(path);
        }
        write_whole(&path, text, 0o600)?;
        Ok(path)
    }
}

#[async_trait]
impl Backend for SlurmBackend {
    fn name(&self) -> &'static str {
        "slurm"
    }

    /// The cluster.
    fn host(&self) -> &str {
        &self.cluster
    }

    /// The cluster is one, wherever it is asked from.
    fn machine(&self) -> &'static str {
        "cluster"
    }

    fn slots(&self) -> usize {
        self.options.jobs
    }

    fn slot_resources(&self) -> Resources {
        let device = if self.options.gpus == 0 { "cpu" } else { "cuda" };
        Resources { device: device.to_owned(), threads: self.options.cpus }
    }

    /// Hands the workers over to `sbatch` in the background: their handles are heard from [`Backend::poll`].
    async fn launch(&self, requests: &[LaunchRequest]) -> Launched {
        {
            let mut state = self.shared.state();
            if let Some(error) = state.refused.take() {
                return Launched { handles: Vec::new(), error: Some(error) };
            }
            if state.pause_until.is_some_and(|until| Instant::now() < until) {
                return Launched::default();
            }
            state.pause_until = None;
            for request in requests {
                state.submitting.insert(request.token.clone());
            }
        }
        for chunk in requests.chunks(self.array_size) {
            let name = format!("{:016x}", rand::random::<u64>());
            let tokens: Vec<String> = chunk.iter().map(|request| request.token.clone()).collect();
            let written = self.write_batch(&name, chunk);
            let mut state = self.shared.state();
            match written {
                Ok(script) => {
                    state.batches.insert(name.clone(), tokens.clone());
                    drop(state);
                    tokio::spawn(submit(Arc::clone(&self.shared), name, script, tokens));
                }
                Err(source) => {
                    for request in requests {
                        state.submitting.remove(&request.token);
                    }
                    let token = chunk[0].token.clone();
                    return Launched { handles: Vec::new(), error: Some(BackendError::Launch { token, source }) };
                }
            }
        }
        Launched::default()
    }

    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed> {
        let mut state = self.shared.state();
        let observed: BTreeMap<String, Observed> =
            workers.iter().map(|worker| (worker.name.clone(), state.observed(&worker.name))).collect();
        let alive =
            observed.iter().filter(|(_, seen)| matches!(seen, Observed::Alive(_))).map(|(name, _)| name.clone());
        let before = std::mem::replace(&mut state.alive, alive.collect());
        if before.iter().any(|worker| !observed.contains_key(worker)) {
            // It has ended, says the store: how, Slurm knows.
            self.shared.ask.notify_one();
        }
        observed
    }

    /// With the next answer: one that waits is taken out of the queue, one that runs is sent SIGTERM.
    async fn stop(&self, worker: &WorkerId) -> Result<(), BackendError> {
        self.end(&worker.name, false);
        Ok(())
    }

    async fn kill_leftovers(&self, worker: &str) {
        self.end(worker, true);
    }

    fn cancelled_by_hand(&self) -> Vec<String> {
        let state = self.shared.state();
        let Some(latest) = state.answers.last() else { return Vec::new() };
        let cancelled = |task: &Task| task.state == TaskState::Ended(EndWord::Cancelled);
        let tokens = latest.tasks.iter().filter(|(_, task)| cancelled(task)).map(|(token, _)| token);
        tokens.filter(|token| !state.scancelled.contains(*token)).cloned().collect()
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl SlurmBackend {
    fn end(&self, worker: &str, kill: bool) {
        let mut state = self.shared.state();
        let known = state.to_end.entry(worker.to_owned()).or_insert(kill);
        *known |= kill;
        state.scancelled.insert(worker.to_owned());
        drop(state);
        self.shared.ask.notify_one();
    }

    /// Slurm's words for a worker, `PENDING, Resources` or `RUNNING on node7`; `None`: it does not know it, or gives no
    /// answer within `limit`.
    pub async fn queue_word(&self, worker: &str, limit: Duration) -> Option<String> {
        let asked = async {
            loop {
                if let Some(latest) = self.shared.state().answers.last() {
                    let task = latest.tasks.get(worker)?;
                    let reason =
                        if task.state == TaskState::Queued { format!(", {}", task.reason) } else { String::new() };
                    return Some(format!("{}{reason}{}", task.word, on_node(&task.node)));
                }
                self.shared.changed.notified().await;
            }
        };
        tokio::time::timeout(limit, asked).await.ok().flatten()
    }

    /// Waits until Slurm has been told of all workers that are to end, or `limit` is over. Whether it has.
    pub async fn flush(&self, limit: Duration) -> bool {
        let told = async {
            while !self.shared.state().to_end.is_empty() {
                self.shared.ask.notify_one();
                self.shared.changed.notified().await;
            }
        };
        tokio::time::timeout(limit, told).await.is_ok()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn observed(&self, worker: &str) -> Observed {
        if self.submitting.contains(worker) {
            return Observed::NoAnswer;
        }
        let Some(latest) = self.answers.last() else { return Observed::NoAnswer };
        let submitted = self.submitted.get(worker);
        if let Some(task) = latest.tasks.get(worker) {
            return match &task.state {
                TaskState::Queued | TaskState::Placed => Observed::Alive(task.handle.clone()),
                TaskState::Ended(end) => Observed::Ended {
                    said: format!("Slurm job {} ended as {}{}", task.handle, end.word(), on_node(&task.node)),
                    cancelled: *end == EndWord::Cancelled,
                },
                TaskState::Unknown(_) => Observed::NoAnswer,
            };
        }
        if let ([first, _], Some(task)) = (&self.answers[..], self.vanished.get(worker))
            && !first.tasks.contains_key(worker)
        {
            let said = format!("Slurm job {} was taken out of the queue", task.handle);
            return Observed::Ended { said, cancelled: true };
        }
        match (submitted, &self.answers[..]) {
            // Slurm was asked before it had it.
            (Some((task, at)), [.., latest]) if latest.asked_at <= *at => Observed::Alive(task.handle.clone()),
            // Twice: an answer may be of a controller that has just started.
            (Some((_, at)), [first, _]) if first.asked_at > *at && !first.tasks.contains_key(worker) => Observed::Gone,
            (None, [first, _]) if !first.tasks.contains_key(worker) => Observed::Gone,
            _ => Observed::NoAnswer,
        }
    }
}

/// Submits an array and notes what came of it.
async fn submit(shared: Arc<Shared>, batch: String, script: PathBuf, tokens: Vec<String>) {
    let mut sbatch = command("sbatch");
    sbatch.arg("--parsable").arg(&script);
    let submission = match run(&mut sbatch, SBATCH_LIMIT).await {
        Ok(output) => queue::read_submission(output.success, &output.stdout, &output.stderr),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Submission::Unclear(error.to_string()),
        Err(error) => Submission::Refused(error.to_string()),
    };
    let now = Instant::now();
    let mut state = shared.state();
    for token in &tokens {
        state.submitting.remove(token);
    }
    match submission {
        Submission::Accepted(id) => {
            for (index, token) in tokens.into_iter().enumerate() {
                let (batch, handle, word) = (batch.clone(), format!("{id}_{index}"), "PENDING".to_owned());
                let (node, reason) = (String::new(), String::new());
                let task = Task { batch, index, handle, state: TaskState::Queued, word, node, reason };
                state.submitted.insert(token, (task, now));
            }
        }
        // The attempts stay intents: they are submitted again once the queue has been looked at and lacks them.
        Submission::Full(said) => {
            state.pause_until = Some(now + SUBMIT_PAUSE);
            state.refused = Some(BackendError::Submit { said, passing: true });
        }
        Submission::Unclear(said) => {
            state.answers.clear();
            state.pause_until = Some(now + SUBMIT_PAUSE);
            state.refused = Some(BackendError::Submit { said, passing: true });
        }
        Submission::Refused(said) => state.refused = Some(BackendError::Submit { said, passing: false }),
    }
    drop(state);
    shared.ask.notify_one();
    shared.changed.notify_one();
}

/// Asks Slurm for our jobs for as long as the backend lives: soon after news, then less and less often.
async fn watch_queue(shared: std::sync::Weak<Shared>) {
    let mut cycle = CYCLE_MIN;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let asked_at = Instant::now();
        let mut squeue = command("squeue");
        squeue.args(["--me", "--noheader", "--array", "--states=all", "--format", queue::FORMAT]);
        let news = match run(&mut squeue, COMMAND_LIMIT).await {
            Ok(output) if output.success => {
                let news = note_answer(&shared, asked_at, queue::read(&output.stdout));
                end_workers(&shared).await | news
            }
            _ => false,
        };
        cycle = if news { CYCLE_MIN } else { (cycle * 3 / 2).min(CYCLE_MAX) };
        if news {
            shared.changed.notify_one();
        }
        let asked = async {
            shared.ask.notified().await;
            // Not more often than that, whatever is asked for.
            tokio::time::sleep_until((asked_at + CYCLE_MIN).into()).await;
        };
        if tokio::time::timeout(cycle, asked).await.is_ok() {
            cycle = CYCLE_MIN;
        }
    }
}

/// Keeps an answer. Gives whether anything is new in it.
fn note_answer(shared: &Shared, asked_at: Instant, found: Vec<Task>) -> bool {
    let mut state = shared.state();
    let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
    for task in found {
        if !state.batches.contains_key(&task.batch) {
            // Of an earlier process; or of another project of the same user, which has no folder here.
            let plain = task.batch.bytes().all(|byte| byte.is_ascii_hexdigit());
            let file = shared.folder.join(&task.batch).join(script::ATTEMPTS);
            let Some(text) = fs::read_to_string(file).ok().filter(|_| plain) else { continue };
            state.batches.insert(task.batch.clone(), script::read_attempts(&text));
        }
        let Some(token) = state.batches[&task.batch].get(task.index).cloned() else { continue };
        // Submitted twice: the one that lives counts.
        let ended = |task: &Task| matches!(task.state, TaskState::Ended(_));
        if tasks.get(&token).is_none_or(|known| ended(known) && !ended(&task)) {
            tasks.insert(token, task);
        }
    }
    // Once seen, a worker is known by the answers.
    state.submitted.retain(|token, _| !tasks.contains_key(token));
    let State { batches, submitting, submitted, .. } = &mut *state;
    batches.retain(|_, tokens| {
        tokens
            .iter()
            .any(|token| tasks.contains_key(token) || submitting.contains(token) || submitted.contains_key(token))
    });
    let known: BTreeSet<&str> = tasks.values().map(|task| task.batch.as_str()).collect();
    let State { answers, vanished, submitted, .. } = &mut *state;
    let missing = |token: &String, task: &Task| !tasks.contains_key(token) && known.contains(task.batch.as_str());
    vanished.retain(|token, task| missing(token, task));
    let waited = answers.last().into_iter().flat_map(|answer| &answer.tasks);
    let waited = waited.filter(|(_, task)| task.state == TaskState::Queued);
    let accepted = submitted.iter().filter(|(_, (_, at))| *at < asked_at).map(|(token, (task, _))| (token, task));
    for (token, task) in waited.chain(accepted).filter(|(token, task)| missing(token, task)) {
        vanished.insert(token.clone(), task.clone());
    }
    let news = state.answers.last().is_none_or(|last| last.tasks != tasks) || state.answers.len() < 2;
    if state.answers.len() == 2 {
        state.answers.remove(0);
    }
    state.answers.push(Answer { asked_at, tasks });
    news
}

fn on_node(node: &str) -> String {
    if node.is_empty() { String::new() } else { format!(" on {node}") }
}

/// Tells Slurm of the workers that are to end, those of one array in one call. Names are given with the ids: an id
/// alone might be another job's by now. Gives whether there were any.
async fn end_workers(shared: &Shared) -> bool {
    let mut calls: BTreeMap<(String, bool), Vec<(String, String)>> = BTreeMap::new();
    {
        let mut state = shared.state();
        let State { answers, to_end, submitting, submitted, .. } = &mut *state;
        let Some(latest) = answers.last() else { return false };
        to_end.retain(|worker, kill| {
            match latest.tasks.get(worker) {
                Some(Task { state: TaskState::Ended(_), .. }) => return false,
                Some(task) => {
                    let cancel = *kill || task.state == TaskState::Queued;
                    let call = calls.entry((task.batch.clone(), cancel)).or_default();
                    call.push((worker.clone(), task.handle.clone()));
                }
                // Not in the queue; or not yet.
                None => return submitting.contains(worker) || submitted.contains_key(worker),
            }
            true
        });
    }
    for ((batch, cancel), workers) in &calls {
        let mut scancel = command("scancel");
        scancel.args(["--quiet", "--name", &format!("{NAME_PREFIX}{batch}")]);
        if !cancel {
            scancel.args(["--batch", "--signal=TERM"]);
        }
        scancel.args(workers.iter().map(|(_, handle)| handle));
        if run(&mut scancel, COMMAND_LIMIT).await.is_ok_and(|output| output.success) {
            let mut state = shared.state();
            for (worker, _) in workers {
                state.to_end.remove(worker);
            }
        }
    }
    !calls.is_empty()
}

/// What a command said.
#[derive(Debug)]
struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

/// A command of Slurm, without what our environment says of the job that we may be in ourselves, of formats, and of
/// databases: `sbatch` hands its environment on.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "PG"].iter().any(|prefix| text.starts_with(prefix))
            && text != "SLURM_CONF";
        if ours || text == "DATABASE_URL" || text == "SWEEP_READER_URL" {
            command.env_remove(&name);
        }
    }
    command.env("SLURM_BITSTR_LEN", "0").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end, or ends it after `limit`.
async fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => {
            let output = output.map_err(named)?;
            Ok(Output {
                success: output.status.success(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name}: no answer within {} s", limit.as_secs())))
        }
    }
}

/// Writes a file under a temporary name, forces it to the disk and renames it.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp-{:08x}", rand::random::<u32>()));
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
