//! What `sweep plan` says of a ladder of learning rates.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{State, state_of};
use crate::plan::{Group, Ladder, Plan};
use crate::spec::quantity::grouped;

/// A ladder, in `--json`.
#[derive(Debug, Serialize)]
pub(super) struct LadderRow<'a> {
    /// The sweep of its jobs.
    sweep: &'a str,
    dataset: &'a str,
    metric: &'a str,
    /// Whether all groups have a factor. If not, `jobs` of the plan have the recipe's own learning rates, and not the
    /// keys that they will have.
    chosen: bool,
    /// Of its jobs.
    train_flops: f64,
    groups: Vec<GroupRow<'a>>,
}

#[derive(Debug, Serialize)]
struct GroupRow<'a> {
    model: &'a str,
    data_size: u64,
    samples_seen: u64,
    /// Chosen, on the recipe's learning rate.
    factor: Option<f64>,
    rungs: Vec<RungRow<'a>>,
}

#[derive(Debug, Serialize)]
struct RungRow<'a> {
    factor: f64,
    lr: f64,
    jobs: Vec<RungJob<'a>>,
}

#[derive(Debug, Serialize)]
struct RungJob<'a> {
    job_key: &'a str,
    /// Whether it is a cell of the sweep too.
    is_cell: bool,
    state: Option<State>,
}

pub(super) fn row<'a>(plan: &'a Plan, ladder: &'a Ladder, states: Option<&BTreeMap<String, State>>) -> LadderRow<'a> {
    let job = |key: &'a String| RungJob {
        job_key: key,
        is_cell: plan.jobs.iter().any(|job| job.job_key == *key),
        state: states.map(|states| states.get(key).copied().unwrap_or(State::New)),
    };
    let group = |group: &'a Group| GroupRow {
        model: &group.model,
        data_size: group.data_size,
        samples_seen: group.samples_seen,
        factor: group.factor,
        rungs: group
            .rungs
            .iter()
            .map(|rung| RungRow { factor: rung.factor, lr: rung.lr, jobs: rung.job_keys.iter().map(job).collect() })
            .collect(),
    };
    LadderRow {
        sweep: &ladder.plan.name,
        dataset: &ladder.dataset,
        metric: &ladder.metric,
        chosen: ladder.is_chosen,
        train_flops: super::totals(&ladder.plan).train_flops,
        groups: ladder.groups.iter().map(group).collect(),
    }
}

/// The same in words: what is tried, and what was chosen.
pub(super) fn lines(plan: &Plan, states: Option<&BTreeMap<String, State>>) -> Vec<String> {
    let Some(ladder) = &plan.tune else { return Vec::new() };
    let jobs = &ladder.plan.jobs;
    let left = jobs.iter().filter(|job| states.is_none_or(|states| state_of(states, job) != State::Done)).count();
    let cells = jobs.iter().filter(|rung| plan.jobs.iter().any(|job| job.job_key == rung.job_key)).count();
    let mut lines = vec![format!(
        "tune   lr by {}/{}, {}: {} jobs of sweep {}, {} to run, {:.3e} training FLOPs; cells too are {cells} of them",
        ladder.dataset,
        ladder.metric,
        if ladder.lower_is_better { "the least" } else { "the most" },
        grouped(jobs.len() as u64),
        ladder.plan.name,
        grouped(left as u64),
        super::totals(&ladder.plan).train_flops
    )];
    for group in &ladder.groups {
        let rungs: Vec<String> = group.rungs.iter().map(|rung| format!("{:e}", rung.lr)).collect();
        let chosen = group.factor.and_then(|factor| {
            let rung = group.rungs.iter().find(|rung| (rung.factor - factor).abs() <= f64::EPSILON * factor)?;
            Some(format!("{:e} was chosen, {factor} x the recipe's", rung.lr))
        });
        lines.push(format!(
            "       {} with {} unique samples, at {} samples seen: {}; {}",
            group.model,
            grouped(group.data_size),
            grouped(group.samples_seen),
            rungs.join(", "),
            chosen.unwrap_or_else(|| "not chosen yet".to_owned())
        ));
    }
    if !ladder.is_chosen {
        lines.push(
            "       until all are chosen, cells are shown with the recipe's own lr: `sweep launch` runs the ladder first"
                .to_owned(),
        );
    }
    lines
}
