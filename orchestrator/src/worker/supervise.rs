//! One attempt from claim to end: the only loop of the worker that waits for several things at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Event, FailureKind, Job, Resources};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::judge::{Asked, Heard, judge};
use super::runner::{self, Runner};
use super::ship::{BATCH_EVENTS, Patient, Shipped, ship};
use super::spool::{Spool, Tail};
use super::{Cli, SUPERSEDED, WorkerError, log};
use crate::store::{Batch, Claim, Ending, Orders};

/// How long a worker that has nothing to train yet waits for the database.
const CLAIM_LIMIT: Duration = Duration::from_mins(10);
/// How long a runner may take to stop after it was asked to.
const STOP_GRACE: Duration = Duration::from_mins(1);
/// How long a runner that has said its last word may take to leave.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// Bytes of one event. Longer lines would not fit a batch.
const LINE_MAX: usize = 1 << 20;
/// What JSON writes for a character that PostgreSQL can't store.
const NUL: &[u8] = b"\\u0000";
/// How long its standard output may stay open after it has left.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Claims and supervises. Gives the worker's exit code.
pub(super) async fn supervise(cli: &Cli) -> Result<u8, WorkerError> {
    let deadline = Instant::now() + CLAIM_LIMIT;
    let mut database = Patient::connect(deadline).await?;
    let token = &cli.attempt;
    let Some(claim) = database.run(Some(deadline), async |store| store.attempt_claim(token).await).await? else {
        log::line("nothing to claim: the attempt has ended or another worker has it");
        return Ok(SUPERSEDED);
    };
    log::line(&format!("claimed job {} with fence {}", claim.job_key, claim.fence));
    std::fs::create_dir_all(&claim.folder).map_err(file("make the folder", &claim.folder))?;
    if let Some(finished) = settle_predecessors(&mut database, &claim).await? {
        log::line("an earlier attempt had finished without being able to say so");
        let samples_seen = claim.spec.samples_seen;
        let batch = Batch::takeover(samples_seen, &claim.device);
        let call = async |store: &crate::store::Store| {
            store.events_store(&claim, claim.attempt_id, &batch, Some(&finished)).await
        };
        return Ok(database.run(None, call).await?.map_or(SUPERSEDED, |_| 0));
    }
    let (end_sender, end) = oneshot::channel();
    let (order_sender, orders) = mpsc::unbounded_channel();
    let training = async {
        let ending = train(cli, &claim, orders).await?;
        if let Some(ending) = ending {
            log::line(&format!("ended: {ending:?}"));
            let _ = end_sender.send(ending);
        }
        Ok::<(), WorkerError>(())
    };
    // Side by side in one thread; without an ending to deliver, shipping stops too.
    let (trained, shipped) = tokio::join!(training, ship(database, &claim, end, order_sender));
    trained?;
    match shipped? {
        Shipped::Everything => Ok(0),
        Shipped::Superseded => {
            log::line("superseded: another claim counts now");
            Ok(SUPERSEDED)
        }
    }
}

/// Ships what earlier attempts of this job left in their spools, under their own rows, and makes sure that nothing of
/// them runs here. Gives the ending if the newest of them had finished.
async fn settle_predecessors(database: &mut Patient, claim: &Claim) -> Result<Option<Ending>, WorkerError> {
    let mut finished = None;
    for earlier in database.run(None, async |store| store.attempt_predecessors(claim).await).await? {
        let killed = runner::kill_leftovers(&earlier.token);
        if killed > 0 {
            log::line(&format!("killed {killed} processes of the earlier attempt {}", earlier.token));
        }
        let mut tail = Tail::new(&earlier.folder);
        while !tail.exhausted() {
            let before = tail.lines();
            let events = tail.read(BATCH_EVENTS).map_err(file("read the events in", &earlier.folder))?;
            if tail.lines() == before {
                break; // a torn last line
            }
            if events.iter().any(|event| matches!(event, Event::Started { .. })) {
                finished = None;
            }
            for event in &events {
                if let Event::Finished { samples_seen, train_secs, eval_secs, peak_memory_bytes } = event
                    && *samples_seen == claim.spec.samples_seen
                {
                    finished = Some(Ending::Finished {
                        train_secs: *train_secs,
                        eval_secs: *eval_secs,
                        peak_memory_bytes: peak_memory_bytes.map(u64::cast_signed),
                    });
                }
            }
            if tail.lines() > earlier.acked_events {
                let batch = Batch::new(&events, tail.lines());
                let call = async |store: &crate::store::Store| {
                    store.events_store(claim, earlier.attempt_id, &batch, None).await
                };
                database.run(None, call).await?;
            }
        }
    }
    Ok(finished)
}

/// Runs the runner to its end. `None`: the claim is superseded.
async fn train(
    cli: &Cli,
    claim: &Claim,
    mut orders: mpsc::UnboundedReceiver<Orders>,
) -> Result<Option<Ending>, WorkerError> {
    let job = job_of(cli, claim);
    std::fs::create_dir_all(&job.checkpoint_dir).map_err(file("make the folder", &job.checkpoint_dir))?;
    runner::write_job(&job).map_err(file("write job.json in", &claim.folder))?;
    let mut spool = Spool::create(&claim.folder).map_err(file("write the events in", &claim.folder))?;
    let handler = |kind| signal(kind).map_err(|source| WorkerError::Process { doing: "handle signals", source });
    let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);

    let (mut runner, mut lines) = match Runner::start(&cli.runner, &job, &cli.attempt) {
        Ok(started) => started,
        Err(error) => {
            let reason = format!("can't start the runner {}: {error}", cli.runner.display());
            let kind = FailureKind::BadInput;
            return Ok(Some(Ending::Failed { kind, reason, exit_code: None, stderr_tail: String::new() }));
        }
    };
    let mut heard = Heard::default();
    let mut asked = None;
    let mut talking = true;
    // When the runner is to stop by itself, or else be killed.
    let mut time_limit = cli.time_limit_secs.map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut kill_at = None;

    let status = loop {
        let stop = tokio::select! {
            biased;
            line = lines.recv(), if talking => {
                match line {
                    None => talking = false,
                    Some(line) => {
                        if listen(&line, &mut heard, claim, &mut spool).map_err(file("write to the spool in", &claim.folder))? {
                            runner.kill_all();
                        }
                        if heard.last_word.is_some() && kill_at.is_none() {
                            kill_at = Some(Instant::now() + LEAVE_GRACE);
                        }
                    }
                }
                None
            }
            status = runner.wait() => {
                break status.map_err(|source| WorkerError::Process { doing: "see the end of the runner", source })?;
            }
            order = orders.recv() => match order {
                None => {
                    // Shipping has stopped: superseded, or an answer of the database that will not change.
                    runner.kill_all();
                    return Ok(None);
                }
                Some(Orders { stop: false, cancel: false }) => None,
                Some(_) => Some(Asked::Request),
            },
            _ = terminate.recv() => Some(Asked::Request),
            _ = interrupt.recv() => Some(Asked::Request),
            () = until(time_limit) => {
                time_limit = None;
                Some(Asked::TimeLimit(cli.time_limit_secs.unwrap_or_default()))
            }
            () = until(kill_at) => {
                kill_at = None;
                log::line("killing the runner: it had time enough to leave");
                runner.kill_all();
                None
            }
        };
        if let (Some(stop), None) = (stop, asked) {
            log::line(&format!("asking the runner to stop: {stop:?}"));
            asked = Some(stop);
            kill_at = Some(Instant::now() + STOP_GRACE);
            runner.ask_to_stop();
        }
    };
    // Its children may hold the pipe open; what it wrote itself is in there already.
    runner.kill_all();
    while let Ok(Some(line)) = tokio::time::timeout(DRAIN_GRACE, lines.recv()).await {
        listen(&line, &mut heard, claim, &mut spool).map_err(file("write to the spool in", &claim.folder))?;
    }
    spool.sync().map_err(file("write to the spool in", &claim.folder))?;
    let tail = runner::stderr_tail(&claim.folder);
    Ok(Some(judge(heard, status, asked, claim.spec.samples_seen, tail)))
}

/// Takes one line in. `true`: the runner is to be killed for what it said.
fn listen(line: &[u8], heard: &mut Heard, claim: &Claim, spool: &mut Spool) -> std::io::Result<bool> {
    // Nothing counts after the last word.
    if heard.verdict.is_some() || heard.last_word.is_some() {
        return Ok(false);
    }
    if line.len() > LINE_MAX || line.windows(NUL.len()).any(|part| part == NUL) {
        log::line(&format!("no event: a line of {} bytes, over {LINE_MAX} or with a NUL in it", line.len()));
        return Ok(false);
    }
    match serde_json::from_slice::<Event>(line) {
        Ok(event) => {
            spool.append(&event)?;
            Ok(heard.hear(&event, claim.parameters))
        }
        Err(error) => {
            let text: String = String::from_utf8_lossy(line).trim_end().chars().take(200).collect();
            if !text.is_empty() {
                log::line(&format!("no event ({error}): {text}"));
            }
            Ok(false)
        }
    }
}

fn job_of(cli: &Cli, claim: &Claim) -> Job {
    let job_dir = claim.folder.parent().unwrap_or(&claim.folder);
    Job {
        protocol: protocol::PROTOCOL_VERSION,
        job_key: claim.job_key.clone(),
        fence: claim.fence,
        spec: claim.spec.clone(),
        attempt_dir: claim.folder.clone(),
        checkpoint_dir: job_dir.join("checkpoints"),
        base_dir: cli.base_dir.clone(),
        resources: Resources {
            device: claim.device.clone(),
            threads: usize::try_from(claim.threads).unwrap_or(1).max(1),
        },
    }
}

/// Waits for `instant`, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn file(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> WorkerError {
    let path: PathBuf = path.to_owned();
    move |source| WorkerError::File { doing, path: path.clone(), source }
}
