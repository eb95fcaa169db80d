//! One job tried out in a folder of its own, for `sweep runner check`: the runner is started, read and judged as a
//! worker does, and every line is told. Nothing is stored.

use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::{FailureKind, Job};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::judge::{RunnerExit, RunnerOutput, StopCause, judge};
use super::lines::{Line, take_line};
use super::runner::{self, Runner};
use super::train::{DRAIN_GRACE, LEAVE_GRACE};
use crate::events::{Attempt, Taken, quote};
use crate::store::Ending;

/// A line of the runner's standard output.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its first characters.
    pub line: String,
    /// What a worker would make of it.
    pub taken: Taken,
}

/// Runs the job in its folder, which has to be there, for `limit` at most. Gives the ending that a worker would store.
/// `parameters`: those of the plan.
pub async fn run(
    runner: &Path,
    job: &Job,
    parameters: u64,
    limit: Duration,
    mut tell: impl FnMut(&Said),
) -> io::Result<Ending> {
    runner::write_job(job)?;
    let token = format!("check-{:032x}", rand::random::<u128>());
    let (mut runner, mut lines) = Runner::start(runner, job, &token, false, false)?;
    let mut listener = Listener { attempt: Attempt::new(&job.spec), output: RunnerOutput::default(), parameters };
    let result = listen(&mut runner, &mut lines, &mut listener, limit, &mut tell).await;
    let asked = match result {
        Ok(asked) => asked,
        Err(error) => {
            runner.end().await;
            return Err(error);
        }
    };
    let status = runner.wait().await?;
    // Its children may hold the pipe open; what it wrote itself is in there already.
    runner.clean_up().await;
    while let Ok(Some(line)) = timeout(DRAIN_GRACE, lines.recv()).await {
        listener.take(&line, &mut tell);
    }
    let exit = RunnerExit { status: Some(status), asked, killed_for_memory: false, stderr_tail: runner.stderr_tail() };
    Ok(judge(listener.output, exit, job.spec.samples_seen))
}

/// Listens until the runner leaves; one that is to be killed is.
async fn listen(
    runner: &mut Runner,
    lines: &mut mpsc::Receiver<Line>,
    listener: &mut Listener<'_>,
    limit: Duration,
    tell: &mut impl FnMut(&Said),
) -> io::Result<Option<StopCause>> {
    let mut kill_at = Instant::now() + limit;
    let mut asked = Some(StopCause::TimeLimit(limit.as_secs()));
    let mut talking = true;
    loop {
        tokio::select! {
            biased;
            line = lines.recv(), if talking => match line {
                None => talking = false,
                Some(line) => {
                    if listener.take(&line, tell) {
                        runner.kill_all();
                    }
                    // It has said its last word, and may take a while to leave.
                    if asked.is_some() && listener.output.last_word.is_some() {
                        asked = None;
                        kill_at = Instant::now() + LEAVE_GRACE;
                    }
                }
            },
            status = runner.wait() => {
                status?;
                return Ok(None);
            }
            () = tokio::time::sleep_until(kill_at) => {
                runner.kill_all();
                runner.wait().await?;
                return Ok(asked);
            }
        }
    }
}

struct Listener<'a> {
    attempt: Attempt<'a>,
    output: RunnerOutput,
    parameters: u64,
}

impl Listener<'_> {
    /// `true`: the runner is to be killed.
    fn take(&mut self, line: &Line, tell: &mut impl FnMut(&Said)) -> bool {
        if self.output.verdict.is_some() {
            return false;
        }
        let mut taken = take_line(&mut self.attempt, line);
        let failed = match &taken {
            Taken::Event { event, .. } if self.output.take(event, self.parameters.cast_signed()) => {
                self.output.verdict.clone().map(|(_, reason)| reason)
            }
            Taken::Refused(reason) => Some(reason.clone()),
            Taken::CutOff(reason) => {
                self.output.cut_off = Some(reason.clone());
                None
            }
            _ => None,
        };
        if let Some(reason) = failed {
            self.output.verdict.get_or_insert_with(|| (FailureKind::BadInput, reason.clone()));
            taken = Taken::Refused(reason);
        }
        let is_last = matches!(taken, Taken::Refused(_));
        if taken != Taken::Nothing {
            tell(&Said { line: quote(line.bytes()), taken });
        }
        is_last
    }
}
