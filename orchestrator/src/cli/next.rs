//! What `sweep advise` would say of a sweep of which only the results are given, for the live page. Pure.

use super::advise::{candidate, usual};
use super::candidates::{Asked, of_rows};
use crate::fit::advise::{AdviseOptions, Candidate, advise};
use crate::fit::cost::Cost;
use crate::fit::{Fit, Observation, Options, Response, fit};
use crate::report::analysis::Target;
use crate::serve::{Next, NextJob};

/// Jobs advised at most.
const PICKS: usize = 8;

/// Jobs to run next to narrow the forecast of ten times the compute of the largest job. Without a budget: what all
/// results cost.
pub(super) fn next(observations: &[Observation], metric: &str, budget: Option<f64>) -> Result<Next, String> {
    let target = Target::beyond(observations).ok_or("there are no results yet")?;
    let law = the_usual(observations, metric)?;
    let cells = of_rows(observations, Asked { models: &[], samples: &[], data: &[] })
        .map_err(|failure| failure.message().to_owned())?;
    let cost = Cost::compute(observations).map_err(|error| error.to_string())?;
    let candidates: Vec<Candidate> = cells.iter().map(|cell| candidate(cell, &cost)).collect();
    let spent: f64 = observations.iter().map(|row| row.compute).filter(|compute| compute.is_finite()).sum();
    let budget = budget.unwrap_or(spent);
    let options = AdviseOptions { picks_max: PICKS, ..AdviseOptions::new(budget) };
    let advice = advise(&[&law], &[target.input], &candidates, &options).map_err(|error| error.to_string())?;
    let jobs = advice.picks.iter().map(|pick| {
        let job = &cells[pick.candidate].job;
        NextJob {
            model: job.model.clone().unwrap_or_default(),
            samples_seen: job.samples_seen,
            unique_samples: job.unique_samples,
            replicate: pick.replicate_of > 0,
            cost: pick.cost,
            spent: pick.spent,
            after: pick.after[0],
        }
    });
    Ok(Next {
        law: law.law.to_string(),
        target: target.name,
        budget,
        unit: cost.currency.unit().to_owned(),
        before: advice.before[0],
        candidates: candidates.len(),
        jobs: jobs.collect(),
        why: advice.stop.to_string(),
    })
}

/// The richest of the usual laws that the rows can tell.
fn the_usual(observations: &[Observation], metric: &str) -> Result<Fit, String> {
    let mut last = "no law can be fitted".to_owned();
    for law in usual(observations) {
        let options = Options { law, resamples: 0, ..Options::new(Response::of_metric(metric)) };
        match fit(observations, &options) {
            Ok(fit) => return Ok(fit),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
