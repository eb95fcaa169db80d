//! What became of a job's attempts, as its limits count them.

/// Ended attempts of a job since the last `sweep retry`. All but crashes and full disks are counted since the last
/// attempt that got further, that is left a checkpoint beyond where it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Failed attempts of kind `crash`.
    pub crashes: u32,
    /// Attempts that were lost, nobody knows to what: the worker was killed, its machine is gone.
    pub lost: u32,
    /// Attempts that were lost with their node.
    pub node_failures: u32,
    /// Attempts that were killed for the memory that they took.
    pub out_of_memory: u32,
    /// Attempts that were preempted.
    pub preempted: u32,
    /// Attempts that reached a time limit, or stopped by themselves.
    pub stalled: u32,
    /// Attempts that ended for want of disk space.
    pub no_space: u32,
    /// What the last attempt that ended said.
    pub last_reason: Option<String>,
    /// When it ended, seconds since 1970 on the database's clock.
    pub last_end_secs: Option<f64>,
}

/// A count of the database's.
pub(super) fn count(number: Option<i64>) -> u32 {
    u32::try_from(number.unwrap_or(0)).unwrap_or(u32::MAX)
}
