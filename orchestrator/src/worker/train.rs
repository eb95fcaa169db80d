//! A job in the hands of a runner: the only loop of the worker that waits for several things at once.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use protocol::{Event, FailureKind, Job, Resources};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::judge::{RunnerExit, RunnerOutput, StopCause, judge};
use super::lines::{Line, take_line};
use super::runner::{self, Runner};
use super::spool::Spool;
use super::stop::{StopSignal, Told};
use super::supervise::{file, is_disk_full};
use super::{Cli, WorkerError, checkpoints, log, memory, ranks};
use crate::events::{self, Attempt, Taken};
use crate::store::{Claim, Ending, Orders};

/// How long a runner may take to stop after it was asked to.
const STOP_GRACE: Duration = Duration::from_mins(1);
/// How long a runner that has said its last word may take to leave.
pub(super) const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// How long its standard output may stay open after it has left.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Bytes of an attempt's spool.
const SPOOL_MAX: u64 = 4 << 30;
/// An attempt that was shorter than this is done again sooner than its spool is made safe against a power cut.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(1);
/// A job that takes longer has a `worker.log` of its own, if the worker had another before.
const LOG_AFTER: Duration = Duration::from_secs(1);
/// Lines that are no events, of which the log tells.
const NOISE_MAX: u32 = 100;
/// Between two tries to write to a disk that is full; the runner waits meanwhile.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// How long a runner that has ended is waited for until its last events can be written.
const SPACE_LIMIT: Duration = Duration::from_mins(10);

/// The runner's place beside a worker: empty, or taken by one that serves and waits for its next job.
#[derive(Debug)]
pub(super) struct RunnerSeat<'a> {
    cli: &'a Cli,
    /// When this worker was started.
    worker_begun: Instant,
    waiting: Option<(Runner, mpsc::Receiver<Line>)>,
}

impl RunnerSeat<'_> {
    /// An empty one.
    pub(super) fn new(cli: &Cli, worker_begun: Instant) -> RunnerSeat<'_> {
        RunnerSeat { cli, worker_begun, waiting: None }
    }

    /// What the worker was told.
    pub(super) fn cli(&self) -> &Cli {
        self.cli
    }

    /// When an attempt that began then is to stop, and after how many seconds: by its own limit, or at the end of this
    /// worker's time.
    fn limit(&self, begun: Instant) -> Option<(Instant, u64)> {
        let own = self.cli.time_limit_secs.map(|secs| begun + Duration::from_secs(secs));
        let end = self.cli.until_secs.map(|secs| self.worker_begun + Duration::from_secs(secs));
        let at = own.into_iter().chain(end).min()?;
        Some((at, at.saturating_duration_since(begun).as_secs()))
    }

    /// Gives a job to the runner that waits, or else to a new one. `true`: it had waited.
    async fn start(&mut self, job: &Job) -> io::Result<(Runner, mpsc::Receiver<Line>, bool)> {
        if let Some((mut runner, lines)) = self.waiting.take() {
            match runner.give(job).await {
                Ok(()) => return Ok((runner, lines, true)),
                Err(error) => log::line(&format!("the runner takes no further job ({error}): starting another")),
            }
            runner.end().await;
        }
        let (mut runner, lines) =
            Runner::start(&self.cli.runner, job, &self.cli.attempt, self.cli.serve, self.cli.ranks_here)?;
        if self.cli.serve {
            // A runner that leaves at once says why on its standard error, and is judged by that.
            let _ = runner.give(job).await;
        }
        Ok((runner, lines, false))
    }

    /// Sends the runner that waits away.
    pub(super) async fn leave(&mut self) {
        let Some((mut runner, _)) = self.waiting.take() else { return };
        runner.close();
        if tokio::time::timeout(LEAVE_GRACE, runner.wait()).await.is_err() {
            log::line("killing the runner: it had time enough to leave");
        }
        runner.end().await;
    }
}

/// Runs a job to its end. `None`: the claim is superseded.
pub(super) async fn train(
    seat: &mut RunnerSeat<'_>,
    claim: &Claim,
    mut orders: mpsc::UnboundedReceiver<Orders>,
    stop: &StopSignal,
) -> Result<Option<Ending>, WorkerError> {
    let begun = Instant::now();
    let killed_before = memory::kills();
    let job = job_of(seat.cli, claim)?;
    std::fs::create_dir_all(&job.checkpoint_dir).map_err(file("make the folder", &job.checkpoint_dir))?;
    runner::write_job(&job).map_err(file("write job.json in", &claim.folder))?;
    let spool = Spool::create(&claim.folder).map_err(file("write the events in", &claim.folder))?;
    let mut listener = Listener {
        claim,
        spool,
        output: RunnerOutput::default(),
        attempt: Attempt::new(&claim.spec),
        waiting: None,
        noise: 0,
    };
    loop {
        let (mut runner, lines, reused) = match seat.start(&job).await {
            Ok(started) => started,
            Err(error) if is_disk_full(&error) => return Err(file("write stderr.log in", &claim.folder)(error)),
            Err(error) => {
                let reason = format!("can't start the runner {}: {error}", seat.cli.runner.display());
                let kind = FailureKind::BadInput;
                return Ok(Some(Ending::Failed { kind, reason, exit_code: None, stderr_tail: String::new() }));
            }
        };
        let limit = seat.limit(begun);
        let mut session = Session { lines, listener: &mut listener, cause: None };
        let left = match session.listen(&mut runner, &mut orders, stop, limit).await {
            Ok(Some(left)) => left,
            // Superseded, or nothing can be written any more: it would train for nobody.
            given_up => {
                runner.end().await;
                return given_up.map(|_| None);
            }
        };
        if left.is_some() {
            // Its children may hold the pipe open; what it wrote itself is in there already.
            runner.clean_up().await;
            if let Some(ending) = session.drain().await? {
                return Ok(Some(ending));
            }
        }
        let (cause, lines) = (session.cause, session.lines);
        if reused && left.is_some() && cause.is_none() && listener.output.is_silent() {
            log::line("the runner left without a word on this job: starting another");
            continue;
        }
        if begun.elapsed() > SYNC_AFTER {
            listener.spool.sync().map_err(file("write to the spool in", &claim.folder))?;
        }
        let tail = runner.stderr_tail();
        if left.is_none() {
            seat.waiting = Some((runner, lines));
            // One that was asked to stop, and had finished by then, would stop in its next job.
            if cause.is_some() {
                seat.leave().await;
            }
        }
        let killed = memory::kills().zip(killed_before).map_or(0, |(now, before)| now.saturating_sub(before));
        let exit = RunnerExit { status: left, asked: cause, killed_for_memory: killed > 0, stderr_tail: tail };
        return Ok(Some(judge(listener.output, exit, claim.spec.samples_seen)));
    }
}

/// What is said between a runner and its worker about one job.
struct Session<'a, 'b> {
    lines: mpsc::Receiver<Line>,
    listener: &'a mut Listener<'b>,
    /// Why the runner was asked to stop, if it was.
    cause: Option<StopCause>,
}

impl Session<'_, '_> {
    /// Listens until the runner leaves (its status), or has finished the job and waits for the next (`Some(None)`), or
    /// the claim is superseded (`None`).
    async fn listen(
        &mut self,
        runner: &mut Runner,
        orders: &mut mpsc::UnboundedReceiver<Orders>,
        signal: &StopSignal,
        limit: Option<(Instant, u64)>,
    ) -> Result<Option<Option<ExitStatus>>, WorkerError> {
        let begun = Instant::now();
        let mut talking = true;
        // Whether it has said its last word.
        let mut leaving = false;
        // When the runner is to stop by itself, or else be killed.
        let mut time_limit = limit.map(|(at, _)| at);
        let mut kill_at = None;
        let mut retry_at = None;
        let mut log_at = Some(Instant::now() + LOG_AFTER);
        loop {
            let stop = tokio::select! {
                biased;
                // While the disk is full nothing more is read: the runner waits in its next line.
                line = self.lines.recv(), if talking && self.listener.waiting.is_none() => {
                    match line {
                        None => talking = false,
                        Some(line) => {
                            if self.listener.take(&line)? {
                                runner.kill_all();
                            }
                            retry_at = self.listener.waiting.as_ref().map(|_| Instant::now() + SPACE_RETRY);
                        }
                    }
                    None
                }
                status = runner.wait() => {
                    let unseen = |source| WorkerError::Process { doing: "see the end of the runner", source };
                    return Ok(Some(Some(status.map_err(unseen)?)));
                }
                order = orders.recv() => match order {
                    // Shipping has stopped: superseded, or an answer of the database that will not change.
                    None => return Ok(None),
                    Some(Orders { stop: false, cancel: false }) => None,
                    Some(_) => Some(StopCause::Request),
                },
                told = signal.wait(), if self.cause.is_none() => Some(match told {
                    Told::Stop => StopCause::Request,
                    Told::TimeOver => StopCause::TimeLimit(begun.elapsed().as_secs()),
                }),
                () = until(time_limit) => {
                    time_limit = None;
                    limit.map(|(_, secs)| StopCause::TimeLimit(secs))
                }
                () = until(log_at) => {
                    log_at = None;
                    log::move_to_next_folder();
                    None
                }
                () = until(retry_at) => {
                    if self.listener.retry()? {
                        runner.kill_all();
                    }
                    retry_at = self.listener.waiting.as_ref().map(|_| Instant::now() + SPACE_RETRY);
                    None
                }
                () = until(kill_at) => {
                    kill_at = None;
                    log::line("killing the runner: it had time enough to leave");
                    runner.kill_all();
                    None
                }
            };
            match self.listener.output.last_word {
                Some(Event::Finished { .. }) if runner.serves() => return Ok(Some(None)),
                Some(_) if !leaving => {
                    leaving = true;
                    kill_at = kill_at.or(Some(Instant::now() + LEAVE_GRACE));
                }
                _ => {}
            }
            if let (Some(stop), None) = (stop, self.cause) {
                log::line(&format!("asking the runner to stop: {stop:?}"));
                self.cause = Some(stop);
                kill_at = Some(Instant::now() + STOP_GRACE);
                runner.ask_to_stop();
            }
        }
    }

    /// Reads what the runner wrote before it left. Gives an ending if the disk has no room for it.
    async fn drain(&mut self) -> Result<Option<Ending>, WorkerError> {
        let limit = Instant::now() + SPACE_LIMIT;
        loop {
            while self.listener.waiting.is_some() {
                if Instant::now() > limit || self.cause.is_some() {
                    let reason = format!("{} of {}", Ending::NO_SPACE, self.listener.claim.folder.display());
                    return Ok(Some(Ending::Stopped { reason }));
                }
                tokio::time::sleep(SPACE_RETRY).await;
                self.listener.retry()?;
            }
            match tokio::time::timeout(DRAIN_GRACE, self.lines.recv()).await {
                Ok(Some(line)) => self.listener.take(&line)?,
                Ok(None) | Err(_) => return Ok(None),
            };
        }
    }
}

/// Takes in what the runner says.
struct Listener<'a> {
    claim: &'a Claim,
    spool: Spool,
    output: RunnerOutput,
    /// What it has said before.
    attempt: Attempt<'a>,
    /// An event that the disk had no room for.
    waiting: Option<Event>,
    /// Lines that were no events.
    noise: u32,
}

impl Listener<'_> {
    /// Takes one line in. `true`: the runner is to be killed for what it said.
    fn take(&mut self, line: &Line) -> Result<bool, WorkerError> {
        if self.output.verdict.is_some() {
            return Ok(false);
        }
        match take_line(&mut self.attempt, line) {
            Taken::Nothing => Ok(false),
            Taken::Words => {
                self.tell_of_noise(line);
                Ok(false)
            }
            Taken::Event { event, ignored } => {
                for key in ignored {
                    log::line(&format!("ignored `{key}` of `{}`: it means nothing here", events::kind_of(&event)));
                }
                self.append(event)
            }
            Taken::CutOff(reason) => {
                log::line(&reason);
                self.output.cut_off = Some(reason);
                Ok(false)
            }
            Taken::Refused(reason) => Ok(self.refuse(reason)),
        }
    }

    /// Writes what the disk had no room for. `true`: as for [`Listener::take`].
    fn retry(&mut self) -> Result<bool, WorkerError> {
        match self.waiting.take() {
            Some(event) => self.append(event),
            None => Ok(false),
        }
    }

    fn append(&mut self, mut event: Event) -> Result<bool, WorkerError> {
        // A spool's reader takes no line of megabytes for one.
        if let Event::Failed { reason, .. } = &mut event {
            *reason = events::short_text(reason);
        }
        if self.spool.length() > SPOOL_MAX {
            return Ok(self.refuse(format!("the runner has said more than {SPOOL_MAX} bytes of events")));
        }
        match self.spool.append(&event) {
            Ok(()) => {
                // What came before a checkpoint has to outlive a power cut if the checkpoint does: whoever resumes from
                // it does not say it again.
                if matches!(event, Event::Checkpoint { .. }) {
                    self.spool.sync().map_err(file("write to the spool in", &self.claim.folder))?;
                }
                Ok(self.output.take(&event, self.claim.parameters))
            }
            Err(error) if is_disk_full(&error) => {
                log::line(&format!("{} of {}: the runner waits", Ending::NO_SPACE, self.claim.folder.display()));
                self.waiting = Some(event);
                Ok(false)
            }
            Err(error) => Err(file("write to the spool in", &self.claim.folder)(error)),
        }
    }

    /// Ends the attempt for what the runner said.
    fn refuse(&mut self, reason: String) -> bool {
        log::line(&reason);
        self.output.verdict = Some((FailureKind::BadInput, reason));
        true
    }

    fn tell_of_noise(&mut self, line: &Line) {
        self.noise += 1;
        match self.noise {
            ..NOISE_MAX => log::line(&format!("no event: {}", events::quote(line.bytes()))),
            NOISE_MAX => log::line("more lines that are no events are not told of"),
            _ => {}
        }
    }
}

fn job_of(cli: &Cli, claim: &Claim) -> Result<Job, WorkerError> {
    let no_port = |source| WorkerError::Process { doing: "find a port for the ranks to meet at", source };
    Ok(Job {
        protocol: protocol::PROTOCOL_VERSION,
        job_key: claim.job_key.clone(),
        fence: claim.fence,
        spec: claim.spec.clone(),
        attempt_dir: claim.folder.clone(),
        checkpoint_dir: checkpoints::folder_of(claim),
        base_dir: cli.base_dir.clone(),
        resources: Resources {
            device: claim.device.clone(),
            threads: usize::try_from(claim.threads).unwrap_or(1).max(1),
        },
        parent: claim.parent.clone(),
        ranks: if cli.ranks > 1 { Some(ranks::meeting(cli.ranks, cli.ranks_here).map_err(no_port)?) } else { None },
    })
}

/// Waits for `instant`, or for ever.
pub(super) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
