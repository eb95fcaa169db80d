//! Why a job ended before its end.

use std::io;

use protocol::FailureKind;

use crate::checkpoint::CheckpointError;
use crate::device::DeviceError;
use crate::evaluate::EvaluateError;
use crate::job::JobError;
use crate::ranks::RanksError;
use crate::tokenizer::TokenizerError;
use crate::weights::WeightsError;

use super::rollback::ROLLBACKS_MAX;

/// Why a job ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Its device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its data.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// Other data than those the job was planned for.
    #[error(
        "pool `{pool}` has changed since the job was planned{shards}: its digest is {found}, the job says {planned}; plan again"
    )]
    PoolChanged {
        /// Name of the pool.
        pool: String,
        /// ` (in 00000.tar)`, where it is known in which shards.
        shards: String,
        /// As it is now.
        found: String,
        /// As the job says.
        planned: String,
    },
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The loss.
    #[error(transparent)]
    Loss(#[from] kernels::LossError),
    /// More of the pool can't be used than may be.
    #[error(
        "pool `{pool}`: {pairs} pairs can be used, {planned} were planned, and at most {most} may be missing ({skipped}); mend the pool, or raise `limits.skipped`"
    )]
    Skipped {
        /// The pool.
        pool: String,
        /// Pairs there are.
        pairs: u64,
        /// Pairs that the plan counted.
        planned: u64,
        /// How many of them may be missing.
        most: u64,
        /// Reasons with their counts.
        skipped: String,
    },
    /// The other ranks.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights to start from.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The loss is no longer a number.
    #[error(
        "the loss of step {step} is {loss}: training diverged; try a lower learning rate, a longer warmup or `grad_clip_norm`"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// NaN or infinite.
        loss: f64,
    },
    /// Going back after spikes does not help.
    #[error(
        "the loss spiked at step {step}, after {ROLLBACKS_MAX} rollbacks: training diverged; try a lower learning rate, a longer warmup or `grad_clip_norm`"
    )]
    Spiking {
        /// The step, counted from 1.
        step: u64,
    },
    /// Nobody reads events any more.
    #[error("cannot write an event")]
    Report(#[source] io::Error),
    /// The data thread ended early.
    #[error("the thread that reads the data ended before the training")]
    DataThread,
}

impl RunError {
    /// Whether another try may help.
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            RunError::Diverged { .. } | RunError::Spiking { .. } => FailureKind::Diverged,
            RunError::Pool(error) | RunError::Evaluate(EvaluateError::Pool(error)) => match error {
                pool::Error::Io { .. } => FailureKind::Crash,
                _ => FailureKind::BadInput,
            },
            // The file may lie on a disk that is away for a moment.
            RunError::Weights(WeightsError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                FailureKind::Crash
            }
            RunError::Job(_)
            | RunError::Ranks(RanksError::Place { .. } | RanksError::World { .. })
            | RunError::Weights(_)
            | RunError::Tokenizer(_)
            | RunError::Device(_)
            | RunError::PoolChanged { .. }
            | RunError::Skipped { .. }
            | RunError::Evaluate(_) => FailureKind::BadInput,
            _ => FailureKind::Crash,
        }
    }

    /// The error and its causes in one line.
    pub(super) fn reason(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |error| error.source());
        causes.fold(self.to_string(), |reason, cause| format!("{reason}: {cause}"))
    }
}
