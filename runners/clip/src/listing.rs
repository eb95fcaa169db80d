//! Which samples each step of a job trains on, for whoever wants to check the order or train on the same elsewhere.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;

use crate::job;
use crate::order::Order;
use crate::prepared::Prepared;
use crate::run::RunError;

/// A line of `clip-runner batches`.
#[derive(Debug, Serialize)]
struct Batch<'a> {
    /// Counted from 1.
    step: u64,
    /// After the step.
    samples_seen: u64,
    /// Keys of its samples in order.
    keys: Vec<&'a str>,
}

/// Why batches can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The job or its pool.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Steps that the job does not have.
    #[error("`--steps` is {}..{}, but the job has the steps 1..{has}", .asked.start(), .asked.end())]
    Steps {
        /// As asked.
        asked: RangeInclusive<u64>,
        /// Steps of the job.
        has: u64,
    },
    /// Nobody reads.
    #[error("cannot write a line")]
    Write(#[source] io::Error),
}

/// Writes a line a step. The pool is read as for training, so samples that can't be used are passed over here too.
pub fn list(path: &Path, steps: Option<RangeInclusive<u64>>, out: &mut impl Write) -> Result<(), ListError> {
    let job = job::read(path).map_err(RunError::Job)?;
    let spec = &job.spec;
    let steps = steps.unwrap_or(1..=spec.steps());
    if steps.is_empty() || *steps.start() == 0 || *steps.end() > spec.steps() {
        return Err(ListError::Steps { asked: steps, has: spec.steps() });
    }
    let pairs = Prepared::default().pairs(&job)?;
    let mut order = Order::new(spec.seed, pairs.images.len() as u64);
    let batch = spec.recipe.global_batch;
    for step in steps {
        let indices = order.batch((step - 1) * batch, batch);
        let keys = indices.into_iter().map(|index| pairs.images.key(index)).collect();
        let line = serde_json::to_string(&Batch { step, samples_seen: step * batch, keys }).expect("texts are JSON");
        writeln!(out, "{line}").map_err(ListError::Write)?;
    }
    Ok(())
}

/// `5` or `1..10`, both ends meant.
pub fn steps(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>();
    match (number(from), number(to.trim_start_matches('='))) {
        (Ok(from), Ok(to)) => Ok(from..=to),
        _ => Err("expected a step, `5`, or a first and a last one, `1..10`".to_owned()),
    }
}
