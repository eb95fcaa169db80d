//! Lines of `sweep plan` on evaluations that train: what on, and what each costs.

use protocol::{DataSource, EvaluationPlan, FineTuningPlan, ProbePlan};

use crate::plan::Plan;
use crate::spec::quantity::grouped;

/// A line a linear probe and a fine-tuning, as the cheapest job has them.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    // Pieces of a trunk measure nothing.
    let Some(job) = plan.jobs.iter().find(|job| !job.spec.evaluations.is_empty()) else { return Vec::new() };
    let mut lines = Vec::new();
    for evaluation in job.spec.evaluations.iter() {
        lines.extend(evaluation.probe.as_ref().map(|probe| of_probe(plan, evaluation, probe)));
        lines.extend(evaluation.fine_tuning.as_ref().map(|tuning| of_fine_tuning(plan, evaluation, tuning)));
    }
    lines
}

fn of_probe(plan: &Plan, evaluation: &EvaluationPlan, probe: &ProbePlan) -> String {
    let shots: Vec<String> = probe.shots.iter().map(|shots| shots.suffix()).collect();
    format!(
        "probe  {} ({}) on {}, {} pairs: embedded once a measurement, then at most {} passes over their features for \
         each number of shots; {}",
        evaluation.dataset,
        shots.join(", "),
        probe.train.pool,
        grouped(pairs(plan, &probe.train)),
        grouped(probe.passes_max()),
        measurements(evaluation)
    )
}

fn of_fine_tuning(plan: &Plan, evaluation: &EvaluationPlan, tuning: &FineTuningPlan) -> String {
    format!(
        "tuning {} on {}, {} pairs: {} steps of {} images through the image tower a measurement; {}",
        evaluation.dataset,
        tuning.train.pool,
        grouped(pairs(plan, &tuning.train)),
        grouped(tuning.steps),
        grouped(tuning.batch_size),
        measurements(evaluation)
    )
}

fn pairs(plan: &Plan, source: &DataSource) -> u64 {
    plan.pools.iter().find(|pool| pool.source.digest == source.digest).map_or(0, |pool| pool.samples)
}

fn measurements(evaluation: &EvaluationPlan) -> String {
    let count = evaluation.at_samples.len() + 1;
    format!("{count} measurement{} a job", if count == 1 { "" } else { "s" })
}
