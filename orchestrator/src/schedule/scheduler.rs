//! What to do next, given what the store and the backend say. Pure: no clock, no I/O, no randomness.
//!
//! The scheduler keeps almost nothing: each step is given the whole truth as the store has it, so a new process decides
//! as an old one would. All it remembers is how often in a row the backend denied an attempt.

use std::collections::BTreeMap;

use super::policy::Policy;
use crate::backend::Observed;

/// The sweep as observed at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Input {
    /// Jobs that are not done, in the order they are to start.
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
    /// Failed attempts of kind `crash` since the last `sweep retry`.
    pub crashes: u32,
    /// Lost attempts since then.
    pub lost: u32,
    /// Attempts since then that stopped unasked no further than they had resumed from.
    pub stalled: u32,
    /// What the last attempt that ended said.
    pub last_reason: Option<String>,
    /// When it ended, seconds on the database's clock.
    pub last_end_secs: Option<f64>,
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
    /// Its name on the backend.
    pub token: String,
    /// The store's word.
    pub phase: AttemptPhase,
    /// When the intent was recorded, seconds on the database's clock.
    pub created_secs: f64,
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

/// What the driver is to do. Whatever has an effect outside was recorded by an earlier action or step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Store a new attempt; it is launched in a later step.
    RecordIntent {
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
    gone: BTreeMap<String, u32>,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(policy: Policy) -> Scheduler {
        Scheduler { policy, gone: BTreeMap::new() }
    }

    /// What to do at `now` (seconds on the database's clock).
    pub fn step(&mut self, now: f64, input: &Input) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut live = 0;
        let mut gone = BTreeMap::new();
        for attempt in input.jobs.iter().filter_map(|job| job.live.as_ref()) {
            live += 1;
            if attempt.observed == Observed::Gone {
                gone.insert(attempt.token.clone(), self.gone.get(&attempt.token).unwrap_or(&0) + 1);
            }
        }
        self.gone = gone;

        let mut room = input.free_slots.min(self.policy.parallel.saturating_sub(live));
        for job in &input.jobs {
            if let Some(attempt) = &job.live {
                actions.extend(self.tend(now, attempt, input.stop));
            } else if job.phase == JobPhase::Pending {
                if let Some(reason) = self.policy.exhausted(job) {
                    actions.push(Action::FailJob { job_id: job.job_id, reason });
                } else if room > 0 && !input.stop && self.rested(now, job) {
                    actions.push(Action::RecordIntent { job_id: job.job_id });
                    room -= 1;
                }
            }
        }
        actions
    }

    /// What to do about an attempt that lives.
    fn tend(&self, now: f64, attempt: &AttemptView, stop: bool) -> Option<Action> {
        let token = attempt.token.clone();
        let denied = self.gone.get(&token).copied().unwrap_or(0);
        match (attempt.phase, &attempt.observed) {
            (_, Observed::Unknown) => None,
            (AttemptPhase::Intent, Observed::Alive(handle)) => Some(Action::Adopt { token, handle: handle.clone() }),
            (AttemptPhase::Intent, Observed::Gone) => {
                let abandoned = now - attempt.created_secs >= self.policy.intent_grace_secs;
                match (attempt.own || abandoned, stop) {
                    (true, true) => Some(Action::Withdraw { token }),
                    (true, false) => Some(Action::Launch { token }),
                    (false, _) => None,
                }
            }
            (AttemptPhase::Launched | AttemptPhase::Running, Observed::Gone) => {
                (denied >= self.policy.gone_polls).then_some(Action::MarkLost { token })
            }
            (AttemptPhase::Launched | AttemptPhase::Running, Observed::Alive(_)) => {
                (stop && !attempt.stop_requested).then_some(Action::StopAttempt { token })
            }
        }
    }

    fn rested(&self, now: f64, job: &JobView) -> bool {
        job.last_end_secs.is_none_or(|end| now - end >= self.policy.backoff(job))
    }
}
