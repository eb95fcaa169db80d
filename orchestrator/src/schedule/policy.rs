//! How often and how soon a job is tried again. Pure.

use super::scheduler::JobView;
use crate::store::Ending;

/// Workers beat every 3 seconds: three beats are missed.
pub const STALE_SECS: f64 = 10.0;
/// Hosts that are gone for good don't say so.
pub const SILENT_SECS: f64 = 300.0;

/// Limits and delays. Free of charge are attempts that were stopped on request; the rest has a budget by cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Attempts of this sweep at one time.
    pub parallel: usize,
    /// Crashes after the first that a job is forgiven.
    pub retries: u32,
    /// Attempts that may be lost (worker killed, machine rebooted) before the job is given up.
    pub lost_max: u32,
    /// Attempts that may stop unasked, or reach their time limit, without getting any further.
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
        let because = job.last_reason.as_deref().unwrap_or("no reason given");
        if job.crashes > self.retries {
            Some(format!("{because} ({} attempts failed, {} retries allowed)", job.crashes, self.retries))
        } else if job.lost >= self.lost_max {
            Some(format!("{} attempts were lost, see worker.log of the last", job.lost))
        } else if job.stalled >= self.stalled_max {
            Some(format!("{} attempts stopped by themselves or at the time limit and got no further", job.stalled))
        } else {
            None
        }
    }

    /// Seconds to wait after the end of the last attempt: `backoff_secs` x 2^(failures - 1). The first loss is free. A
    /// full disk is no fault of the job: it waits for the longest time, and goes on for ever.
    pub(super) fn backoff(&self, job: &JobView) -> f64 {
        if job.no_space > 0 {
            return self.backoff_max_secs;
        }
        let pause = if job.last_reason.as_deref() == Some(Ending::ASKED) { self.stopped_pause_secs } else { 0.0 };
        let failures = job.crashes + job.lost.saturating_sub(1) + job.stalled;
        if failures == 0 {
            return pause;
        }
        pause.max(self.backoff_secs * 2_f64.powi(failures.min(30).cast_signed() - 1)).min(self.backoff_max_secs)
    }
}
