//! `sweep explain`: why a job does not run, or what it is doing, in a sentence.

use serde::Serialize;

use super::output::{self, Exit, Failure, data, say};
use super::progress::time;
use super::{slurm, target};
use crate::backend::{QueueWord, SlurmBackend};
use crate::store::{JobStory, LAUNCHER_SECS};

/// Options of `sweep explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// First digits of the job's key.
    job: String,
    /// As JSON, schema `sweep.explain/1`.
    #[arg(long)]
    json: bool,
}

/// Body of `sweep explain --json`.
#[derive(Debug, Serialize)]
struct Body<'a> {
    job_key: &'a str,
    /// `pending`, `running`, `done`, `failed`, `cancelled`.
    state: &'a str,
    /// What is to be said of it.
    because: &'a str,
    /// What to do about it, if anything.
    hint: Option<&'a str>,
    /// Of the live attempt: the backend's name for it.
    handle: Option<&'a str>,
    /// Of one on Slurm: `squeue`'s state and reason.
    queue: Option<&'a str>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let job = target::job(&store, &args.job).await?;
    let Some(story) = store.job_story(job.job_id).await? else {
        return Err(Failure::bad_input(format!("job `{}` is there no more", args.job)));
    };
    let queue = match (&story.live_state, story.backend.as_deref(), &story.worker) {
        (Some(_), Some(SlurmBackend::NAME), Some(worker)) => {
            slurm::queue_words().await.and_then(|mut words| words.remove(worker))
        }
        _ => None,
    };
    let (because, hint) = explain(&job.state, &story, queue.as_ref());
    if args.json {
        let queue = queue.map(|word| word.to_string());
        let (because, hint, queue) = (&*because, hint.as_deref(), queue.as_deref());
        let handle = story.handle.as_deref().filter(|_| story.live_state.is_some());
        output::json(
            "sweep.explain/1",
            &Body { job_key: &job.job_key, state: &job.state, because, hint, handle, queue },
        );
    } else {
        data(&format!("{} is {}: {}", &job.job_key[..12], job.state, output::one_line(&because)));
        if let Some(hint) = hint {
            say(&format!("\nhint: {hint}"));
        }
    }
    Ok(Exit::Done)
}

/// The sentence, and the way out.
fn explain(state: &str, story: &JobStory, queue: Option<&QueueWord>) -> (String, Option<String>) {
    let reason = story.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let ago = |secs: Option<f64>| secs.map_or("a while ago".to_owned(), |secs| format!("{} ago", time(secs)));
    let place = format!(
        "{} {}",
        story.backend.as_deref().unwrap_or("local"),
        story.handle.as_deref().or(story.host.as_deref()).unwrap_or("worker")
    );
    match (state, story.live_state.as_deref()) {
        ("done", _) => (format!("its result was stored {}", ago(story.done_secs_ago)), None),
        ("failed" | "cancelled", _) => (reason, Some("`sweep retry` gives it another go".to_owned())),
        (_, Some("intent")) => (format!("it is being handed to the backend ({place})"), None),
        (_, Some("launched")) => match queue {
            Some(word) => {
                let hint = word.reason.as_deref().and_then(reason_in_words);
                (format!("Slurm job {} is {word}", story.handle.as_deref().unwrap_or("?")), hint.map(str::to_owned))
            }
            None if story.backend.as_deref() == Some(SlurmBackend::NAME) => (
                format!("{place} has it, and Slurm does not say what it is doing"),
                Some("`squeue --me` asks Slurm".to_owned()),
            ),
            None => (format!("its worker was started {} ({place})", ago(story.live_secs)), None),
        },
        (_, Some(_)) => {
            let slurm = queue.map(|word| format!("; Slurm says {word}")).unwrap_or_default();
            (format!("on {place}, last heard of {}{slurm}", ago(story.live_secs)), None)
        }
        (_, None) if story.launcher_secs.is_none_or(|secs| secs > LAUNCHER_SECS) => {
            (format!("nobody launches its sweep{}", last_end(story)), Some("`sweep launch SPEC` starts it".to_owned()))
        }
        (_, None) if story.waits_for.is_some() => {
            let parent = story.waits_for.as_deref().map_or("?", |key| &key[..12]);
            (
                format!("it goes on from job {parent}, which is not done yet"),
                Some(format!("`sweep explain {parent}` says where that is")),
            )
        }
        (_, None) => {
            (format!("a launcher is there and has it wait for room, or for its turn{}", last_end(story)), None)
        }
    }
}

fn last_end(story: &JobStory) -> String {
    match (&story.last_end, story.attempts) {
        (Some(end), attempts) if attempts > 0 => format!("; {attempts} attempts so far, the last: {end}"),
        _ => String::new(),
    }
}

/// What a reason of `squeue` asks of people, where it asks anything.
fn reason_in_words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "Resources" => "it is next when nodes are free; `sinfo` shows them",
        "Priority" => "jobs with a higher priority wait before it; `sprio` shows why",
        "JobHeldUser" | "JobHeldAdmin" => "somebody holds it: `scontrol release JOB`",
        "BeginTime" => "Slurm waits a little before it runs again",
        "PartitionTimeLimit" => {
            "the partition allows less time: shorten `backend.slurm.time`, or cancel and launch again"
        }
        "PartitionNodeLimit" | "BadConstraints" => {
            "no node of the partition has what it asks for: change `backend.slurm`"
        }
        "ReqNodeNotAvail" | "PartitionDown" | "PartitionInactive" => {
            "its nodes are down or reserved; `sinfo -R` says why"
        }
        "Licenses" | "Reservation" | "Dependency" => "`scontrol show job JOB` says what it waits for",
        word if word.starts_with("QOS") || word.starts_with("Assoc") => {
            "a limit of your account or QOS is reached: it runs when others of its jobs have ended"
        }
        _ => return None,
    })
}
