//! Whether everything was measured that a job plans, each task of each data set at each of its positions.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{EvaluationTask, Event, JobSpec};

use super::Range;

/// Places that a reason names.
const NAMED: usize = 3;

/// What was measured, or said not to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured(BTreeMap<(String, u64), BTreeSet<EvaluationTask>>);

impl Measured {
    /// Takes an evaluation in.
    pub fn take(&mut self, event: &Event) {
        if let Event::Eval { samples_seen, dataset, measurements, unmeasured } = event {
            for measurement in measurements {
                self.add_metric(dataset, *samples_seen, &measurement.metric);
            }
            for task in unmeasured.keys() {
                self.add_task(dataset, *samples_seen, *task);
            }
        }
    }

    /// A metric has a value there.
    pub fn add_metric(&mut self, dataset: &str, samples_seen: u64, metric: &str) {
        self.0.entry((dataset.to_owned(), samples_seen)).or_default().extend(task_of(metric));
    }

    /// A task is said not to be measured there.
    pub fn add_task(&mut self, dataset: &str, samples_seen: u64, task: EvaluationTask) {
        self.0.entry((dataset.to_owned(), samples_seen)).or_default().insert(task);
    }
}

/// The task that a metric belongs to.
pub fn task_of(metric: &str) -> Option<EvaluationTask> {
    if Range::of(metric) == Range::Loss {
        Some(EvaluationTask::ContrastiveLoss)
    } else if metric.starts_with("acc") || ["mean_per_class_recall", "mean_average_precision"].contains(&metric) {
        Some(EvaluationTask::ZeroshotClassification)
    } else if metric.starts_with("image_retrieval") || metric.starts_with("text_retrieval") {
        Some(EvaluationTask::ZeroshotRetrieval)
    } else if metric.starts_with("lp_") {
        Some(EvaluationTask::LinearProbe)
    } else {
        None
    }
}

/// How metrics of a task are called.
fn metrics_of(task: EvaluationTask) -> &'static str {
    match task {
        EvaluationTask::ZeroshotClassification => "`acc1`, `acc5`, `mean_per_class_recall` or `mean_average_precision`",
        EvaluationTask::ZeroshotRetrieval => "`image_retrieval_recall@K` or `text_retrieval_recall@K`",
        EvaluationTask::ContrastiveLoss => "`loss@1024`",
        EvaluationTask::LinearProbe => "`lp_acc1@full` or `lp_acc1@Kshot`",
    }
}

/// Positions at which a data set is to be measured; `None`: the job does not plan to.
pub fn planned_positions(spec: &JobSpec, dataset: &str) -> Option<BTreeSet<u64>> {
    let plans: Vec<_> = spec.evaluations.iter().filter(|plan| plan.dataset == dataset).collect();
    let positions = plans.iter().flat_map(|plan| plan.at_samples.iter().copied().chain([spec.samples_seen]));
    (!plans.is_empty()).then(|| positions.collect())
}

/// What of the plan is missing behind `resumed_from` samples (what lies before was measured by earlier attempts), as a
/// sentence; 0: all of it counts.
pub fn missing(spec: &JobSpec, measured: &Measured, resumed_from: u64) -> Option<String> {
    let mut places = Vec::new();
    for plan in &spec.evaluations {
        for position in planned_positions(spec, &plan.dataset).unwrap_or_default() {
            let is_planned = plan.at_samples.contains(&position) || position == spec.samples_seen;
            if !is_planned || (resumed_from > 0 && position <= resumed_from) {
                continue;
            }
            let found = measured.0.get(&(plan.dataset.clone(), position));
            let lacking = plan.tasks.iter().filter(|task| found.is_none_or(|found| !found.contains(task)));
            let lacking: Vec<String> = lacking.map(|task| format!("{} ({})", task.name(), metrics_of(*task))).collect();
            if found.is_none() || !lacking.is_empty() {
                let of = if lacking.is_empty() { String::new() } else { format!(": {}", lacking.join(", ")) };
                places.push(format!("`{}` at {position} samples{of}", plan.dataset));
            }
        }
    }
    let more = places.len().saturating_sub(NAMED);
    places.truncate(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!places.is_empty()).then(|| {
        format!(
            "planned measurements are missing: {}{more}. What can't be measured has to be named in the `unmeasured` of \
             an `eval`, with the reason",
            places.join("; ")
        )
    })
}
