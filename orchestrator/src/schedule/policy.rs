//! How often and how soon a job is tried again. Pure.

use super::scheduler::JobView;
use crate::store::Ending;

/// Workers beat every 3 seconds: three beats are missed.
pub const STALE_SECS: f64 = 10.0;
/// Silent for so long, people are told of it.
pub const QUIET_SECS: f64 = 3.0 * STALE_SECS;
/// Hosts that are gone for good don't say so.
pub const SILENT_SECS: f64 = 300.0;

/// Limits and delays. Free of charge are attempts that were stopped on request; the rest has a budget by cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Attempts of this sweep at one time.
    pub parallel: usize,
    /// Crashes after the first that a job is forgiven.
    pub retries: u32,
    /// Attempts in a row that may be lost (worker killed, machine rebooted) before the job is given up, each without
    /// getting further, as in all that follow.
    pub lost_max: u32,
    /// Attempts that may be lost with their nodes.
    pub node_failures_max: u32,
    /// Attempts that may run out of memory: more of it is not asked for by itself.
    pub out_of_memory_max: u32,
    /// Attempts that may be preempted.
    pub preempted_max: u32,
    /// Attempts that may reach their time limit, or stop by themselves.
    pub stalled_max: u32,
    /// Delay after the first crash; doubles with each.
    pub backoff_secs: f64,
    /// Longest delay.
    pub backoff_max_secs: f64,
    /// Seconds to wait after an attempt that was stopped by a signal: long enough for the backend to tell whether
    /// somebody wants the job gone.
    pub stopped_pause_secs: f64,
    /// How old an intent of another launcher must be before it counts as abandoned.
    pub intent_grace_secs: f64,
    /// Seconds without a heartbeat after which an attempt that its backend denies is lost.
    pub stale_secs: f64,
    /// Seconds without a heartbeat after which an attempt that its backend can't tell of is lost.
    pub silent_secs: f64,
}

impl Policy {
    /// Defaults for a sweep with these limits.
    pub fn new(parallel: usize, retries: u32) -> Policy {
        Policy {
            parallel,
            retries,
            lost_max: 20,
            node_failures_max: 20,
            out_of_memory_max: 3,
            preempted_max: 100,
            stalled_max: 3,
            backoff_secs: 0.5,
            backoff_max_secs: 60.0,
            stopped_pause_secs: 0.0,
            intent_grace_secs: 5.0,
            stale_secs: STALE_SECS,
            silent_secs: SILENT_SECS,
        }
    }

    /// Why the job may not be tried again, if so.
    pub(super) fn exhausted(&self, job: &JobView) -> Option<String> {
        let past = &job.history;
        let because = past.last_reason.as_deref().unwrap_or("no reason given");
        if past.crashes > self.retries {
            return Some(format!("{because} ({} attempts failed, {} retries allowed)", past.crashes, self.retries));
        }
        let in_vain = [
            (past.lost, self.lost_max, "were lost, see worker.log of the last"),
            (past.node_failures, self.node_failures_max, "were lost with their nodes"),
            (past.out_of_memory, self.out_of_memory_max, "ran out of the memory that was asked for; ask for more"),
            (past.preempted, self.preempted_max, "were preempted and got no further"),
            (past.stalled, self.stalled_max, "stopped by themselves or at the time limit and got no further"),
        ];
        let (attempts, _, what) = in_vain.into_iter().find(|(attempts, most, _)| attempts >= most)?;
        Some(format!("{attempts} attempts {what}"))
    }

    /// Seconds to wait after the end of the last attempt: `backoff_secs` x 2^(failures - 1). The first loss is free. A
    /// full disk is no fault of the job: it waits for the longest time, and goes on for ever.
    pub(super) fn backoff(&self, job: &JobView) -> f64 {
        let past = &job.history;
        if past.no_space > 0 {
            return self.backoff_max_secs;
        }
        let pause = if past.last_reason.as_deref() == Some(Ending::ASKED) { self.stopped_pause_secs } else { 0.0 };
        let lost = past.lost + past.node_failures + past.out_of_memory;
        let failures = past.crashes + lost.saturating_sub(1) + past.stalled;
        if failures == 0 {
            return pause;
        }
        pause.max(self.backoff_secs * 2_f64.powi(failures.min(30).cast_signed() - 1)).min(self.backoff_max_secs)
    }
}
