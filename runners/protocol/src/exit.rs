//! Exit codes of a runner. `sweep-worker` believes the last event first and the exit code second.

/// The job is finished: `finished` was the last event.
pub const FINISHED: i32 = 0;
/// Something went wrong that may not happen again (a crash, a full disk): worth a retry.
pub const FAILED: i32 = 1;
/// The job description or its data can never work: no retry.
pub const BAD_INPUT: i32 = 2;
/// Stopped on request after writing a checkpoint (`EX_TEMPFAIL`): resume later, not a failure.
pub const STOPPED: i32 = 75;
