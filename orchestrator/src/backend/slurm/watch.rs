//! What is known of the queue, and the tasks in the background that ask and tell Slurm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::accounting;
use super::command::{COMMAND_LIMIT, SBATCH_LIMIT, command, run};
use super::queue::{self, NAME_PREFIX, Submission, Task, TaskState};
use super::shares::{self, ATTEMPTS, Attempts};
use crate::backend::{BackendError, EndCause, Observed, WorkerId};

/// Between two questions to Slurm: after news, and when nothing changes.
const CYCLE_MIN: Duration = Duration::from_secs(1);
const CYCLE_MAX: Duration = Duration::from_secs(30);
/// How long a submission is put off that Slurm has no room for, or no answer to.
const SUBMIT_PAUSE: Duration = Duration::from_secs(10);
/// The same where a smaller array may fit.
const SMALLER_PAUSE: Duration = Duration::from_secs(1);

/// What the backend and its background tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Folder of all arrays.
    pub folder: PathBuf,
    pub state: Mutex<State>,
    /// There is something new to see.
    pub changed: Notify,
    /// The queue is to be asked soon.
    pub ask: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The last two answers of `squeue`, the newest last.
    pub answers: Vec<Answer>,
    /// Attempts by the name of their array.
    pub batches: BTreeMap<String, Attempts>,
    /// Workers that have ended before their task, by the name of its array, and how.
    pub share_ends: BTreeMap<String, BTreeMap<String, String>>,
    /// Tasks that waited when they were last seen, and are missing from an array that Slurm still knows: Slurm keeps no
    /// record of a waiting task that somebody cancels.
    pub vanished: BTreeMap<String, Task>,
    /// Workers that were asked for last and were alive.
    pub alive: BTreeSet<String>,
    /// Workers to end, and whether at once: told to Slurm after the next answer, many in one call.
    pub to_end: BTreeMap<String, bool>,
    /// Workers that we have ended ourselves.
    pub scancelled: BTreeSet<String>,
    /// Workers whose `sbatch` has not returned yet.
    pub submitting: BTreeSet<String>,
    /// Workers that this process has submitted and not seen in an answer yet, and when `sbatch` returned.
    pub submitted: BTreeMap<String, (Task, Instant)>,
    /// Workers that are in no answer, and their handles: the accounts are asked for them.
    pub to_look_up: BTreeMap<String, Option<String>>,
    /// What the accounts say of such workers; `None`: nothing.
    pub looked_up: BTreeMap<String, Option<Task>>,
    /// Nothing is submitted before that.
    pub pause_until: Option<Instant>,
    /// Tasks that the next array may have, after Slurm had no room for a larger one: half as many as did not fit, then
    /// twice as many as did. Limits count tasks, and Slurm takes an array as a whole or not at all.
    pub room: Option<usize>,
    /// What Slurm has refused, for the next caller of [`Backend::launch`].
    pub refused: Option<BackendError>,
}

fn ended(task: &Task) -> Observed {
    Observed::Ended {
        said: end_in_words(task),
        cause: task.end_cause(),
        // Of several nodes it does not say which.
        node: Some(task.node.clone()).filter(|node| !node.is_empty() && !node.contains(['[', ','])),
    }
}

/// One answer of `squeue`.
#[derive(Debug)]
pub(super) struct Answer {
    pub asked_at: Instant,
    pub tasks: BTreeMap<String, Task>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn observed(&mut self, id: &WorkerId) -> Observed {
        let worker = id.name.as_str();
        if self.submitting.contains(worker) {
            return Observed::NoAnswer;
        }
        let Some(latest) = self.answers.last() else { return Observed::NoAnswer };
        let submitted = self.submitted.get(worker);
        if let Some(task) = latest.tasks.get(worker) {
            return match &task.state {
                TaskState::Queued | TaskState::Placed => Observed::Alive(task.handle.clone()),
                TaskState::Ended => ended(task),
                TaskState::Unknown(_) => Observed::NoAnswer,
            };
        }
        if let ([first, _], Some(task)) = (&self.answers[..], self.vanished.get(worker))
            && !first.tasks.contains_key(worker)
        {
            let said = format!("Slurm job {} was taken out of the queue", task.handle);
            return Observed::Ended { said, cause: EndCause::Cancelled, node: None };
        }
        match (submitted, &self.answers[..]) {
            // Slurm was asked before it had it.
            (Some((task, at)), [.., latest]) if latest.asked_at <= *at => Observed::Alive(task.handle.clone()),
            // Twice: an answer may be of a controller that has just started.
            (Some((_, at)), [first, _]) if first.asked_at > *at && !first.tasks.contains_key(worker) => self.gone(id),
            (None, [first, _]) if !first.tasks.contains_key(worker) => self.gone(id),
            _ => Observed::NoAnswer,
        }
    }

    /// What is to be said of a worker that the controller does not know any more: what the accounts say, once they were
    /// looked into.
    fn gone(&mut self, id: &WorkerId) -> Observed {
        match self.looked_up.get(&id.name) {
            Some(Some(task)) => ended(task),
            Some(None) => Observed::Gone,
            None => {
                self.to_look_up.insert(id.name.clone(), id.handle.clone());
                Observed::NoAnswer
            }
        }
    }
}

fn end_in_words(task: &Task) -> String {
    let (handle, node) = (&task.handle, on_node(&task.node));
    match &task.share_end {
        Some(how) => format!("the worker {how}{node}, in Slurm job {handle} beside others"),
        None => format!("Slurm job {handle} ended as {}{node}", task.word),
    }
}

async fn sbatch(script: &Path, exclude: Option<&str>) -> Submission {
    let mut sbatch = command("sbatch");
    sbatch.arg("--parsable").args(exclude).arg(script);
    match run(&mut sbatch, SBATCH_LIMIT).await {
        Ok(output) => queue::read_submission(output.success, &output.stdout, &output.stderr),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Submission::Unclear(error.to_string()),
        Err(error) => Submission::Refused(error.to_string()),
    }
}

/// Submits an array, away from some nodes if that is possible, and notes what came of it.
pub(super) async fn submit(
    shared: Arc<Shared>,
    batch: String,
    script: PathBuf,
    attempts: Attempts,
    exclude: Option<String>,
) {
    let mut submission = sbatch(&script, exclude.as_deref()).await;
    if exclude.is_some() && matches!(submission, Submission::Refused(_)) {
        // The other nodes may lack what it asks for.
        submission = sbatch(&script, None).await;
    }
    let now = Instant::now();
    let mut state = shared.state();
    for member in &attempts.members {
        state.submitting.remove(&member.token);
    }
    match submission {
        Submission::Accepted(id) => {
            state.room = state.room.map(|room| room.saturating_mul(2));
            for (position, member) in attempts.members.into_iter().enumerate() {
                let index = position / attempts.together;
                let (batch, handle, word) = (batch.clone(), format!("{id}_{index}"), "PENDING".to_owned());
                let (node, reason) = (String::new(), String::new());
                let task = Task { batch, index, handle, state: TaskState::Queued, word, node, reason, share_end: None };
                state.submitted.insert(member.token, (task, now));
            }
        }
        // The attempts stay intents: they are submitted again once the queue has been looked at and lacks them.
        Submission::Full(said) => {
            let tasks = attempts.members.len().div_ceil(attempts.together);
            let half = (tasks / 2).max(1);
            state.room = Some(state.room.map_or(half, |room| room.min(half)));
            state.pause_until = Some(now + if tasks > 1 { SMALLER_PAUSE } else { SUBMIT_PAUSE });
            state.refused = Some(BackendError::Submit { said, passing: true, full: tasks == 1 });
        }
        Submission::Unclear(said) => {
            state.answers.clear();
            state.pause_until = Some(now + SUBMIT_PAUSE);
            state.refused = Some(BackendError::Submit { said, passing: true, full: false });
        }
        Submission::Refused(said) => {
            state.refused = Some(BackendError::Submit { said, passing: false, full: false });
        }
    }
    drop(state);
    shared.ask.notify_one();
    shared.changed.notify_one();
}

/// Asks Slurm for our jobs for as long as the backend lives: soon after news, then less and less often.
pub(super) async fn watch_queue(shared: Weak<Shared>) {
    let mut cycle = CYCLE_MIN;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        // Before Slurm is asked: who had ended while Slurm still called the task running has ended by itself.
        let share_ends = look_for_share_ends(&shared);
        let asked_at = Instant::now();
        let mut squeue = command("squeue");
        squeue.args(["--me", "--noheader", "--array", "--states=all", "--format", queue::FORMAT]);
        let news = match run(&mut squeue, COMMAND_LIMIT).await {
            Ok(output) if output.success => {
                let news = note_answer(&shared, asked_at, &output.stdout, &share_ends);
                accounting::look_up(&shared).await;
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

/// Attempts of an array by its name, as they were written before it was submitted; `None`: it is not of this project.
pub(super) fn read_batch(shared: &Shared, batch: &str) -> Option<Attempts> {
    let plain = batch.bytes().all(|byte| byte.is_ascii_hexdigit());
    let file = shared.folder.join(batch).join(ATTEMPTS);
    fs::read_to_string(file).ok().filter(|_| plain).map(|text| Attempts::read(&text))
}

/// Workers that have ended, as the processes say that hold several: array, name, how. Only arrays of several attempts a
/// task are looked at, while one of their tasks is on a node.
fn look_for_share_ends(shared: &Shared) -> Vec<(String, String, String)> {
    let state = shared.state();
    let Some(latest) = state.answers.last() else { return Vec::new() };
    let placed = latest.tasks.values().filter(|task| task.is_running()).map(|task| task.batch.as_str());
    let several = |name: &&str| state.batches.get(*name).is_some_and(|attempts| attempts.together > 1);
    let arrays: Vec<(String, BTreeSet<String>)> = placed
        .filter(several)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|name| {
            (name.to_owned(), state.share_ends.get(name).into_iter().flat_map(BTreeMap::keys).cloned().collect())
        })
        .collect();
    drop(state);
    let ends = arrays.into_iter().flat_map(|(name, known)| {
        let ends = shares::ends(&shared.folder.join(&name), |token| known.contains(token));
        ends.into_iter().map(move |(token, how)| (name.clone(), token, how))
    });
    ends.collect()
}

/// Keeps an answer. Gives whether anything is new in it.
fn note_answer(shared: &Shared, asked_at: Instant, output: &str, share_ends: &[(String, String, String)]) -> bool {
    let (found, emptied) = (queue::read(output), queue::emptied(output));
    let mut state = shared.state();
    let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
    for task in found {
        if !state.batches.contains_key(&task.batch) {
            // Of an earlier process; or of another project of the same user, which has no folder here.
            let Some(attempts) = read_batch(shared, &task.batch) else { continue };
            state.batches.insert(task.batch.clone(), attempts);
        }
        let State { batches, share_ends: known, .. } = &mut *state;
        for member in batches[&task.batch].of_task(task.index) {
            let (mut task, token) = (task.clone(), &member.token);
            let found = share_ends.iter().find(|(batch, name, _)| *batch == task.batch && name == token);
            if let Some((batch, _, how)) = found.filter(|_| task.is_running()) {
                known.entry(batch.clone()).or_default().insert(token.clone(), how.clone());
            }
            if let Some(how) = known.get(&task.batch).and_then(|ends| ends.get(token)) {
                (task.state, task.share_end) = (TaskState::Ended, Some(how.clone()));
            }
            // Submitted twice: the one that lives counts.
            let ended = |task: &Task| task.state == TaskState::Ended;
            if tasks.get(token).is_none_or(|known| ended(known) && !ended(&task)) {
                tasks.insert(token.clone(), task);
            }
        }
    }
    // Once seen, a worker is known by the answers.
    state.submitted.retain(|token, _| !tasks.contains_key(token));
    let State { batches, share_ends: ends, submitting, submitted, .. } = &mut *state;
    batches.retain(|_, attempts| {
        attempts
            .members
            .iter()
            .map(|member| &member.token)
            .any(|token| tasks.contains_key(token) || submitting.contains(token) || submitted.contains_key(token))
    });
    ends.retain(|batch, _| batches.contains_key(batch));
    let seen = tasks.values().map(|task| &task.batch);
    let known: BTreeSet<&str> = seen.chain(&emptied).map(String::as_str).collect();
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

pub(super) fn on_node(node: &str) -> String {
    if node.is_empty() { String::new() } else { format!(" on {node}") }
}

/// Tells Slurm of the workers that are to end, those of one array in one call; or the process that holds them together
/// with others that are to go on. Names are given with the ids: an id alone might be another job's by now. Gives
/// whether there were any.
async fn end_workers(shared: &Shared) -> bool {
    let mut calls: BTreeMap<(String, bool), Vec<(String, String)>> = BTreeMap::new();
    let mut stops: Vec<(String, String, bool)> = Vec::new();
    {
        let mut state = shared.state();
        let State { answers, batches, scancelled, to_end, submitting, submitted, .. } = &mut *state;
        let Some(latest) = answers.last() else { return false };
        to_end.retain(|worker, kill| {
            let task = match latest.tasks.get(worker) {
                Some(Task { state: TaskState::Ended, .. }) => return false,
                Some(task) => task,
                // Not in the queue; or not yet.
                None => return submitting.contains(worker) || submitted.contains_key(worker),
            };
            let waits = task.state == TaskState::Queued;
            let mut others = batches.get(&task.batch).map_or(&[][..], |attempts| attempts.of_task(task.index)).iter();
            let may_end_all = others.all(|other| {
                let here = latest.tasks.get(&other.token).filter(|other| other.batch == task.batch);
                let over = here.is_none_or(|other| other.state == TaskState::Ended);
                // One that was asked to stop is not to be killed.
                over || other.token == *worker || (scancelled.contains(&other.token) && (waits || !*kill))
            });
            if may_end_all {
                let call = calls.entry((task.batch.clone(), *kill || waits)).or_default();
                call.push((worker.clone(), task.handle.clone()));
            } else {
                stops.push((task.batch.clone(), worker.clone(), *kill));
            }
            true
        });
    }
    for (batch, worker, kill) in &stops {
        if shares::give_stop(&shared.folder.join(batch), worker, *kill).is_ok() {
            shared.state().to_end.remove(worker);
        }
    }
    for ((batch, cancel), workers) in &calls {
        let mut scancel = command("scancel");
        scancel.args(["--quiet", "--name", &format!("{NAME_PREFIX}{batch}")]);
        if !cancel {
            scancel.args(["--batch", "--signal=TERM"]);
        }
        scancel.args(workers.iter().map(|(_, handle)| handle).collect::<BTreeSet<_>>());
        if run(&mut scancel, COMMAND_LIMIT).await.is_ok_and(|output| output.success) {
            let mut state = shared.state();
            for (worker, _) in workers {
                state.to_end.remove(worker);
            }
        }
    }
    !calls.is_empty() || !stops.is_empty()
}
