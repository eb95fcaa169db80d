//! A Slurm cluster: a job array a submission, one `squeue` a cycle, however many workers there are.
//!
//! Nothing here waits for Slurm: what is asked for is asked in the background, and [`Backend::poll`] answers from what
//! was heard last. Each task of an array is known by the array's name, which is drawn at random, and its index; so a
//! job id that Slurm gives again is never taken for ours. Which attempt a task runs is in the array's folder, written
//! before `sbatch` is called: a submission whose answer was lost is found again.

mod accounting;
mod command;
mod exclude;
mod folders;
mod nodes;
mod queue;
mod script;
pub mod shares;
#[cfg(test)]
mod versions;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use protocol::Resources;
use tokio::sync::Notify;

use super::{Backend, BackendError, LaunchRequest, Launched, Observed, WorkerId, host_name};
use crate::files::write_whole;
use crate::plan::SlurmOptions;
pub use folders::ArrayFolder;
pub use nodes::{ClusterLimits, Impossible, limits};

use command::{COMMAND_LIMIT, SBATCH_LIMIT, command, run};
use queue::{Task, TaskState};
use script::Batch;
use shares::{Attempts, Member};
use watch::{Shared, on_node, submit, watch_queue};

/// Tasks of an array, where Slurm does not say.
const ARRAY_SIZE: usize = 1000;

/// What `squeue` says of a worker, in its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueWord {
    /// `PENDING`, `RUNNING`, ...
    pub state: String,
    /// Why it waits; `None`: it does not.
    pub reason: Option<String>,
    /// Its node; `None`: it has none yet.
    pub node: Option<String>,
    /// How it ended, of several workers in one Slurm job; `None`: it has not.
    pub ended: Option<String>,
}

impl QueueWord {
    fn of(task: &Task) -> QueueWord {
        QueueWord {
            state: task.word.clone(),
            reason: (task.state == TaskState::Queued).then(|| task.reason.clone()),
            node: Some(task.node.clone()).filter(|node| !node.is_empty()),
            ended: task.share_end.clone(),
        }
    }
}

impl fmt::Display for QueueWord {
    /// `PENDING, Resources` or `RUNNING on node7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        if let Some(reason) = &self.reason {
            write!(f, ", {reason}")?;
        }
        f.write_str(&on_node(self.node.as_deref().unwrap_or_default()))?;
        self.ended.as_ref().map_or(Ok(()), |how| write!(f, ", and this worker of several {how}"))
    }
}

/// Workers as tasks of Slurm job arrays.
#[derive(Debug)]
pub struct SlurmBackend {
    options: SlurmOptions,
    cluster: String,
    array_size: usize,
    worker: PathBuf,
    home: PathBuf,
    /// File with the URL of the database, where workers are given one.
    database_url: Option<PathBuf>,
    shared: Arc<Shared>,
}

impl SlurmBackend {
    /// Its name as stored with every attempt.
    pub const NAME: &str = "slurm";

    /// A backend whose workers keep their state under `home` (absolute, on a file system that all nodes share).
    /// `sweep-worker` is looked for beside this executable. `database_url` is for the workers: it holds a password, and
    /// goes into a file that only its owner may read, where jobs that wait in the queue find it too.
    pub async fn connect(
        options: &SlurmOptions,
        home: &Path,
        database_url: Option<&str>,
    ) -> Result<SlurmBackend, BackendError> {
        let machine = |what| move |source| BackendError::Machine { what, source };
        let executable = std::env::current_exe().map_err(machine("the path of this program"))?;
        let worker = executable.with_file_name("sweep-worker");
        if !worker.is_file() {
            return Err(BackendError::NoWorker { path: worker });
        }
        let config = run(command("scontrol").args(["show", "config"]), COMMAND_LIMIT).await;
        let no_slurm = |said| BackendError::NoSlurm { command: "scontrol show config", said };
        let config = config.map_err(|source| no_slurm(source.to_string()))?;
        if !config.success {
            return Err(no_slurm(config.stderr.trim().to_owned()));
        }
        let values = queue::read_config(&config.stdout);
        let array_size = values.get("MaxArraySize").and_then(|text| text.parse().ok()).unwrap_or(ARRAY_SIZE).max(1);
        let cluster = values.get("ClusterName").map_or("slurm", |name| name).to_owned();
        let folder = home.join("slurm");
        fs::create_dir_all(&folder).map_err(machine("the folder of the batch scripts"))?;
        let database_url = database_url.map(|url| write_secret(&folder.join("database-url"), url)).transpose();
        let database_url = database_url.map_err(machine("the file with the database's URL"))?;
        let shared = Arc::new(Shared { folder, state: Mutex::default(), changed: Notify::new(), ask: Notify::new() });
        tokio::spawn(watch_queue(Arc::downgrade(&shared)));
        let (options, home) = (options.clone(), home.to_owned());
        let slurm = SlurmBackend { options, cluster, array_size, worker, home, database_url, shared };
        if slurm.options.side_by_side > 1 {
            // Until it is known which tasks live, it isn't known which shares of them are idle.
            tokio::time::timeout(COMMAND_LIMIT, slurm.first_answer()).await.map_err(|_| {
                let said = format!("nothing that can be read within {} s", COMMAND_LIMIT.as_secs());
                BackendError::NoSlurm { command: "squeue", said }
            })?;
        }
        Ok(slurm)
    }

    /// A node of the cluster that is another machine than this one, if there is one.
    pub async fn other_machine(&self) -> Result<Option<String>, BackendError> {
        let machine = |what| move |source| BackendError::Machine { what, source };
        let own = host_name().map_err(machine("the host's name"))?;
        let short = |name: &str| name.trim().split('.').next().unwrap_or_default().to_owned();
        let hosts = run(command("sinfo").args(["--noheader", "--Node", "--format=%n"]), COMMAND_LIMIT).await;
        let hosts = hosts.map_err(|source| BackendError::NoSlurm { command: "sinfo", said: source.to_string() })?;
        Ok(hosts.stdout.lines().map(short).find(|host| *host != short(&own)))
    }

    /// Writes the script of an array of so many workers like this one, as far as they fit into one, and asks Slurm when
    /// it would run; submits nothing. Gives the script and what Slurm says.
    pub async fn test_only(&self, like: &LaunchRequest, workers: u64) -> Result<(PathBuf, String), BackendError> {
        let tasks = self.array_size.min(self.options.jobs);
        let count = usize::try_from(workers).unwrap_or(usize::MAX).clamp(1, tasks * self.options.side_by_side);
        let requests: Vec<LaunchRequest> = (0..count).map(|slot| LaunchRequest { slot, ..like.clone() }).collect();
        let (requests, together) = self.arrays(&requests, self.array_size).next().unwrap_or((&requests, 1));
        let failed = |source| BackendError::Launch { token: like.token.clone(), source };
        let (script, _) = self.write_batch(&like.token, requests, together).map_err(failed)?;
        let mut sbatch = command("sbatch");
        sbatch.args(["--test-only", "--parsable"]).arg(&script);
        let output = run(&mut sbatch, SBATCH_LIMIT).await.map_err(failed)?;
        let said = output.stderr.trim().to_owned();
        if output.success {
            Ok((script, said))
        } else {
            Err(BackendError::Submit { said, passing: false, full: false })
        }
    }

    /// Writes an array of one worker for somebody to submit, and gives its script.
    pub fn script_by_hand(&self, request: &LaunchRequest) -> Result<String, BackendError> {
        let failed = |source| BackendError::Launch { token: request.token.clone(), source };
        // Half of the token: the launcher's arrays have names as random.
        let (path, _) = self.write_batch(&request.token[..16], std::slice::from_ref(request), 1).map_err(failed)?;
        Ok(script::by_hand(&fs::read_to_string(path).map_err(failed)?))
    }

    /// Requests by array of at most so many tasks, each with the attempts of each of its tasks: all tasks of an array
    /// ask for the same, so those that don't fill a task are an array of their own.
    fn arrays<'a>(
        &self,
        requests: &'a [LaunchRequest],
        most: usize,
    ) -> impl Iterator<Item = (&'a [LaunchRequest], usize)> {
        let together = self.options.side_by_side;
        requests.chunks(most.saturating_mul(together)).flat_map(move |chunk| {
            let (full, rest) = chunk.split_at(chunk.len() - chunk.len() % together);
            [(full, together), (rest, rest.len())].into_iter().filter(|(requests, _)| !requests.is_empty())
        })
    }

    /// Writes an array's folder and script, which it gives, with the attempts.
    fn write_batch(&self, name: &str, requests: &[LaunchRequest], together: usize) -> io::Result<(PathBuf, Attempts)> {
        let folder = self.shared.folder.join(name);
        fs::create_dir_all(&folder)?;
        let batch = Batch {
            name,
            folder: &folder,
            requests,
            together,
            worker: &self.worker,
            home: &self.home,
            database_url: self.database_url.as_deref().filter(|_| !requests[0].spool_only),
        };
        let attempts = script::attempts(&batch);
        if together > 1 {
            shares::prepare(&folder)?;
        }
        write_whole(&folder.join(shares::ATTEMPTS), &attempts.text(), 0o644, true)?;
        let path = folder.join("script.sh");
        write_whole(&path, &script::script(&batch, &self.options), 0o644, true)?;
        File::open(&folder)?.sync_all()?;
        File::open(&self.shared.folder)?.sync_all()?;
        Ok((path, attempts))
    }
}

/// A file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> io::Result<PathBuf> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(path.to_owned());
    }
    write_whole(path, text, 0o600, true)?;
    Ok(path.to_owned())
}

#[async_trait]
impl Backend for SlurmBackend {
    fn name(&self) -> &'static str {
        SlurmBackend::NAME
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
        self.options.slots()
    }

    fn has_nodes(&self) -> bool {
        true
    }

    fn slot_resources(&self) -> Resources {
        let device = if self.options.gpus == 0 { "cpu" } else { "cuda" };
        Resources { device: device.to_owned(), threads: self.options.cpus }
    }

    /// Hands the workers over to `sbatch` in the background: their handles are heard from [`Backend::poll`].
    async fn launch(&self, requests: &[LaunchRequest]) -> Launched {
        let (most, arrays) = {
            let mut state = self.shared.state();
            if let Some(error) = state.refused.take() {
                return Launched { handles: Vec::new(), error: Some(error) };
            }
            if state.pause_until.is_some_and(|until| Instant::now() < until) {
                return Launched::default();
            }
            state.pause_until = None;
            state.room = state.room.filter(|room| *room < self.array_size);
            match state.room {
                // What becomes of the last one says how many more there is room for.
                Some(_) if !state.submitting.is_empty() => return Launched::default(),
                Some(room) => (room, 1),
                None => (self.array_size, usize::MAX),
            }
        };
        let mut groups: BTreeMap<&BTreeSet<String>, Vec<LaunchRequest>> = BTreeMap::new();
        for request in requests {
            groups.entry(&request.avoid).or_default().push(request.clone());
        }
        let all = groups.values().flat_map(|group| self.arrays(group, most));
        for (array, together) in all.take(arrays) {
            let name = format!("{:016x}", rand::random::<u64>());
            let (script, attempts) = match self.write_batch(&name, array, together) {
                Ok(written) => written,
                Err(source) => {
                    let token = array[0].token.clone();
                    return Launched { handles: Vec::new(), error: Some(BackendError::Launch { token, source }) };
                }
            };
            let mut state = self.shared.state();
            state.submitting.extend(attempts.members.iter().map(|member| member.token.clone()));
            state.batches.insert(name.clone(), attempts.clone());
            drop(state);
            let (shared, options, avoid) = (Arc::clone(&self.shared), self.options.clone(), array[0].avoid.clone());
            tokio::spawn(async move {
                let exclude = exclude::option(&avoid, &options).await;
                submit(shared, name, script, attempts, exclude).await;
            });
        }
        Launched::default()
    }

    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed> {
        let mut state = self.shared.state();
        let observed: BTreeMap<String, Observed> =
            workers.iter().map(|worker| (worker.name.clone(), state.observed(worker))).collect();
        if !state.to_look_up.is_empty() {
            self.shared.ask.notify_one();
        }
        let alive =
            observed.iter().filter(|(_, seen)| matches!(seen, Observed::Alive(_))).map(|(name, _)| name.clone());
        let before = std::mem::replace(&mut state.alive, alive.collect());
        if before.iter().any(|worker| !observed.contains_key(worker)) {
            // It has ended, says the store: how, Slurm knows.
            self.shared.ask.notify_one();
        }
        observed
    }

    /// With the next answer: one that waits is taken out of the queue, one that runs is sent SIGTERM. What is told in
    /// another way of one whose Slurm job holds others that are to go on: `shares.rs`.
    async fn stop(&self, worker: &WorkerId) -> Result<(), BackendError> {
        self.end(&worker.name, false);
        Ok(())
    }

    async fn kill_leftovers(&self, worker: &str) {
        self.end(worker, true);
    }

    /// Shares of an allocation that go on to no further job, while others of it are used: none is submitted for them,
    /// or each allocation would be replaced by many small ones, share by share.
    fn idle_shares(&self, live: &BTreeSet<&str>) -> usize {
        if self.options.side_by_side == 1 {
            return 0;
        }
        let state = self.shared.state();
        let Some(latest) = state.answers.last() else { return 0 };
        let is_here = |name: &str, token: &String| {
            let of_submitted = state.submitted.get(token).map(|(task, _)| task);
            let of_answer = latest.tasks.get(token).filter(|task| task.state != TaskState::Ended);
            state.submitting.contains(token) || of_answer.or(of_submitted).is_some_and(|task| task.batch == name)
        };
        let tasks = state.batches.iter().flat_map(|(name, attempts)| {
            attempts.members.chunks(attempts.together).map(move |members| (name.as_str(), members))
        });
        let idle = tasks.map(|(name, members)| {
            let lives = |member: &&Member| live.contains(member.token.as_str());
            let used = members.iter().any(|member| lives(&member) && is_here(name, &member.token));
            if used { members.iter().filter(|member| !lives(member)).count() } else { 0 }
        });
        idle.sum()
    }

    fn cancelled_by_hand(&self) -> Vec<String> {
        let state = self.shared.state();
        let Some(latest) = state.answers.last() else { return Vec::new() };
        let tokens = latest.tasks.iter().filter(|(_, task)| task.is_cancelled()).map(|(token, _)| token);
        tokens.filter(|token| !state.scancelled.contains(*token)).cloned().collect()
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl SlurmBackend {
    async fn first_answer(&self) {
        while self.shared.state().answers.is_empty() {
            self.shared.changed.notified().await;
        }
    }

    fn end(&self, worker: &str, kill: bool) {
        let mut state = self.shared.state();
        let known = state.to_end.entry(worker.to_owned()).or_insert(kill);
        *known |= kill;
        state.scancelled.insert(worker.to_owned());
        drop(state);
        self.shared.ask.notify_one();
    }

    /// Slurm's words for our workers that it knows of; `None`: it gives no answer within `limit`.
    pub async fn queue_words(&self, limit: Duration) -> Option<BTreeMap<String, QueueWord>> {
        tokio::time::timeout(limit, self.first_answer()).await.ok()?;
        let state = self.shared.state();
        let tasks = state.answers.last().into_iter().flat_map(|latest| &latest.tasks);
        Some(tasks.map(|(worker, task)| (worker.clone(), QueueWord::of(task))).collect())
    }

    /// Folders of arrays in which nothing was made for `age`: scripts, and what Slurm has written.
    pub fn old_arrays(&self, age: Duration) -> io::Result<Vec<ArrayFolder>> {
        folders::old(&self.shared.folder, age)
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
