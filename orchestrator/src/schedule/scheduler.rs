//! What to do next, given what the store and the backend say. Pure: no clock, no I/O, no randomness.
//!
//! The scheduler remembers nothing: each step is given what the store and the backend say, so a new process decides as
//! an old one would.
//!
//! **When an attempt is lost.** Its worker has ended (this process waited for it); or the backend denies it *and* its
//! heartbeat has stopped; or the backend can't tell and its heartbeat has stopped for minutes. Where the backend only
//! has no answer yet (a queue that can't be asked), nothing is given up. A fence keeps what comes from a worker that
//! was given up too early from doing harm.

use std::collections::BTreeSet;

use super::policy::Policy;
use crate::backend::{EndCause, Observed};
use crate::store::History;

/// The sweep as observed at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Input {
    /// Jobs with a live attempt, all of them, and the next that are to start, in that order. What waits for the end of
    /// another job is not among them.
    pub jobs: Vec<JobView>,
    /// Attempts the backend has room for, beside those that live.
    pub free_slots: usize,
    /// Whether attempts are to stop after a checkpoint and none may start.
    pub stop: bool,
}

/// One job as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Row.
    pub job_id: i64,
    /// State.
    pub phase: JobPhase,
    /// What became of its attempts.
    pub history: History,
    /// Why it can't be started any more: the job that it goes on from has failed or was cancelled.
    pub orphaned: Option<String>,
    /// The attempt that lives, if one does.
    pub live: Option<AttemptView>,
}

/// State of a job that the scheduler cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// To be started.
    Pending,
    /// Claimed by a worker.
    Running,
    /// Done, failed or cancelled: nothing to do.
    Ended,
}

/// A live attempt: the store's word and the backend's.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptView {
    /// Its name.
    pub token: String,
    /// Name of its worker on the backend: a worker may hold several attempts, which it runs one after another.
    pub worker: String,
    /// The store's word.
    pub phase: AttemptPhase,
    /// Host that it runs on.
    pub host: String,
    /// When the intent was recorded, seconds on the database's clock.
    pub created_secs: f64,
    /// Last sign of life, seconds on the database's clock.
    pub seen_secs: f64,
    /// Whether this process recorded it (then nobody else is about to launch it).
    pub own: bool,
    /// Whether it was asked to stop already.
    pub stop_requested: bool,
    /// The backend's word.
    pub observed: Observed,
}

/// State of an attempt that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptPhase {
    /// Recorded; the backend may or may not have been asked.
    Intent,
    /// The backend accepted it.
    Launched,
    /// A worker claimed it.
    Running,
}

/// What the driver is to do. Whatever has an effect outside is recorded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Store a new attempt, then ask the backend to start its worker.
    Start {
        /// Row of the job.
        job_id: i64,
    },
    /// Ask the backend to start the worker of a recorded attempt.
    Launch {
        /// Name of the attempt.
        token: String,
    },
    /// Store the handle of an attempt that the backend turned out to have.
    Adopt {
        /// Name of the attempt.
        token: String,
        /// The backend's name for it.
        handle: String,
    },
    /// Store that the attempt ended without a word.
    MarkLost {
        /// Name of the attempt.
        token: String,
        /// What is known of its end.
        reason: String,
        /// What ended it.
        cause: EndCause,
        /// The machine that it was on, if the backend says.
        node: Option<String>,
    },
    /// Store that the attempt was never started and isn't going to be.
    Withdraw {
        /// Name of the attempt.
        token: String,
    },
    /// Ask the worker to stop after a checkpoint.
    StopAttempt {
        /// Name of the attempt.
        token: String,
    },
    /// Store that the attempt was ended by hand, outside, and that its job is not to be tried again.
    CancelJob {
        /// Row of the job.
        job_id: i64,
        /// Name of the attempt.
        token: String,
        /// What the backend says.
        reason: String,
    },
    /// Store that the job is given up.
    FailJob {
        /// Row of the job.
        job_id: i64,
        /// Why.
        reason: String,
    },
}

/// Decides; see the module.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
}

impl Scheduler {
    /// A scheduler with these limits.
    pub fn new(policy: Policy) -> Scheduler {
        Scheduler { policy }
    }

    /// Its limits.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What to do at `now` (seconds on the database's clock).
    pub fn step(&self, now: f64, input: &Input) -> Vec<Action> {
        let live = input.jobs.iter().filter_map(|job| job.live.as_ref());
        let workers: BTreeSet<&str> = live.map(|attempt| attempt.worker.as_str()).collect();
        let mut room = input.free_slots.min(self.policy.parallel.saturating_sub(workers.len()));
        let mut actions = Vec::new();
        for job in &input.jobs {
            if let Some(attempt) = &job.live {
                actions.extend(self.attempt_action(now, job.job_id, attempt, input.stop));
            } else if job.phase == JobPhase::Pending {
                if let Some(reason) = job.orphaned.clone().or_else(|| self.policy.exhausted(job)) {
                    actions.push(Action::FailJob { job_id: job.job_id, reason });
                } else if room > 0 && !input.stop && self.is_rested(now, job) {
                    actions.push(Action::Start { job_id: job.job_id });
                    room -= 1;
                }
            }
        }
        actions
    }

    /// Whether a stop has to wait for this attempt: it is there, or was a moment ago.
    pub fn may_be_running(&self, now: f64, attempt: &AttemptView) -> bool {
        match attempt.observed {
            Observed::Alive(_) | Observed::NoAnswer => true,
            Observed::Exited => false,
            Observed::Gone | Observed::Ended { .. } | Observed::Unknown => {
                silence(now, attempt) < self.policy.stale_secs
            }
        }
    }

    /// What to do about an attempt that lives.
    fn attempt_action(&self, now: f64, job_id: i64, attempt: &AttemptView, stop: bool) -> Option<Action> {
        let token = attempt.token.clone();
        let is_over = matches!(attempt.observed, Observed::Exited | Observed::Gone | Observed::Ended { .. });
        if attempt.phase == AttemptPhase::Launched && attempt.stop_requested && is_over {
            // No worker has claimed it, and after this none can.
            return Some(Action::Withdraw { token });
        }
        if let Some(reason) = self.lost_because(now, attempt) {
            let (cause, node) = match &attempt.observed {
                Observed::Ended { cause, node, .. } => (*cause, node.clone()),
                _ => (EndCause::Unknown, None),
            };
            return Some(match attempt.phase {
                AttemptPhase::Intent => Action::Withdraw { token },
                _ if cause == EndCause::Cancelled && !attempt.stop_requested => {
                    Action::CancelJob { job_id, token, reason }
                }
                AttemptPhase::Launched | AttemptPhase::Running => Action::MarkLost { token, reason, cause, node },
            });
        }
        match (attempt.phase, &attempt.observed) {
            (AttemptPhase::Intent, Observed::Alive(handle)) => Some(Action::Adopt { token, handle: handle.clone() }),
            (AttemptPhase::Intent, Observed::Gone | Observed::Exited | Observed::Ended { .. }) => {
                let abandoned = now - attempt.created_secs >= self.policy.intent_grace_secs;
                match (attempt.own || abandoned, stop) {
                    (true, true) => Some(Action::Withdraw { token }),
                    (true, false) => Some(Action::Launch { token }),
                    (false, _) => None,
                }
            }
            (AttemptPhase::Intent, Observed::Unknown | Observed::NoAnswer) => None,
            (AttemptPhase::Launched | AttemptPhase::Running, _) => {
                (stop && !attempt.stop_requested).then_some(Action::StopAttempt { token })
            }
        }
    }

    /// The one rule of life and death, for every backend: see the module.
    fn lost_because(&self, now: f64, attempt: &AttemptView) -> Option<String> {
        let silence = silence(now, attempt);
        match (attempt.phase, &attempt.observed) {
            (_, Observed::Unknown) if silence >= self.policy.silent_secs => {
                Some(format!("its host {} has been silent for {:.0} min", attempt.host, silence / 60.0))
            }
            (AttemptPhase::Intent, _) | (_, Observed::Alive(_) | Observed::Unknown | Observed::NoAnswer) => None,
            (_, Observed::Exited) => Some("the worker has ended without a word".to_owned()),
            (_, Observed::Gone) => (silence >= self.policy.stale_secs)
                .then(|| "the worker is gone and its heartbeat has stopped".to_owned()),
            (_, Observed::Ended { said, .. }) => (silence >= self.policy.stale_secs).then(|| said.clone()),
        }
    }

    /// A clock that was set back must not hold a job up.
    fn is_rested(&self, now: f64, job: &JobView) -> bool {
        job.history.last_end_secs.is_none_or(|end| end > now || now - end >= self.policy.backoff(job))
    }
}

/// Seconds since the last sign of life; 0 if that lies in the future, as after a clock was set back.
fn silence(now: f64, attempt: &AttemptView) -> f64 {
    (now - attempt.seen_secs).max(0.0)
}
