//! How many checkpoints a job keeps.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// How many checkpoints of a job stay on disk. In JSON a number, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of checkpoints, 1 or more, or `all`")]
pub enum Keep {
    /// The newest ones.
    Newest(NonZeroU64),
    /// Each, at whichever position.
    All(All),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum All {
    /// It.
    #[serde(rename = "all")]
    All,
}
