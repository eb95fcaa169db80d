//! Whether everything was measured that a job plans, each task of each data set at each of its positions.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{EvaluationPlan, EvaluationTask, Event, JobSpec};

use super::Range;

/// Places that a reason names.
const NAMED: usize = 3;

/// What was measured, or said not to be, by data set and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured(BTreeMap<(String, u64), Found>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    metrics: BTreeSet<String>,
    /// Tasks that a reason is known for.
    unmeasured: BTreeSet<EvaluationTask>,
}

impl Measured {
    /// Takes an evaluation in.
    pub fn take(&mut self, event: &Event) {
        if let Event::Eval { samples_seen, dataset, measurements, unmeasured } = event {
            for measurement in measurements {
                self.add_metric(dataset, *samples_seen, &measurement.metric);
            }
            for task in unmeasured.keys() {
                self.add_unmeasured(dataset, *samples_seen, *task);
            }
        }
    }

    /// A metric has a value there.
    pub fn add_metric(&mut self, dataset: &str, samples_seen: u64, metric: &str) {
        self.at(dataset, samples_seen).metrics.insert(metric.to_owned());
    }

    /// A task is said not to be measured there, or not in full.
    pub fn add_unmeasured(&mut self, dataset: &str, samples_seen: u64, task: EvaluationTask) {
        self.at(dataset, samples_seen).unmeasured.insert(task);
    }

    fn at(&mut self, dataset: &str, samples_seen: u64) -> &mut Found {
        self.0.entry((dataset.to_owned(), samples_seen)).or_default()
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
    } else if metric.starts_with("ft_") {
        Some(EvaluationTask::FineTuning)
    } else {
        None
    }
}

/// Whether `metrics` have all that a task of a plan gives: of a probe, each of its numbers of shots.
pub fn has_task<'a>(
    plan: &EvaluationPlan,
    task: EvaluationTask,
    metrics: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    let mut of_task = metrics.filter(|metric| task_of(metric) == Some(task));
    match (task, &plan.probe) {
        (EvaluationTask::LinearProbe, Some(probe)) => probe.shots.iter().all(|shots| {
            let behind = format!("@{}", shots.suffix());
            of_task.clone().any(|metric| metric.ends_with(&behind))
        }),
        _ => of_task.next().is_some(),
    }
}

/// How metrics of a task are called.
fn metrics_of(plan: &EvaluationPlan, task: EvaluationTask) -> String {
    if let (EvaluationTask::LinearProbe, Some(probe)) = (task, &plan.probe) {
        let names: Vec<String> = probe.shots.iter().map(|shots| format!("`lp_acc1@{}`", shots.suffix())).collect();
        return names.join(", ");
    }
    let names = match task {
        EvaluationTask::ZeroshotClassification => "`acc1`, `acc5`, `mean_per_class_recall` or `mean_average_precision`",
        EvaluationTask::ZeroshotRetrieval => "`image_retrieval_recall@K` or `text_retrieval_recall@K`",
        EvaluationTask::ContrastiveLoss => "`loss@1024`",
        EvaluationTask::LinearProbe => "`lp_acc1@full` or `lp_acc1@Kshot`",
        EvaluationTask::FineTuning => "`ft_acc1`",
    };
    names.to_owned()
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
            let is_there = |task: EvaluationTask| {
                found.is_some_and(|found| {
                    let metrics = found.metrics.iter().map(String::as_str);
                    found.unmeasured.contains(&task) || has_task(plan, task, metrics)
                })
            };
            let lacking = plan.tasks.iter().filter(|task| !is_there(**task));
            let lacking: Vec<String> =
                lacking.map(|task| format!("{} ({})", task.name(), metrics_of(plan, *task))).collect();
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

#[cfg(test)]
mod tests {
    use protocol::{Choose, ProbePlan, Shots};

    use super::super::tests::spec;
    use super::*;

    #[test]
    fn a_probe_is_measured_at_each_of_its_numbers_of_shots() {
        let mut spec = spec();
        let plan = &mut spec.evaluations[0];
        plan.at_samples.clear();
        plan.tasks = vec![EvaluationTask::LinearProbe, EvaluationTask::FineTuning];
        plan.probe = Some(ProbePlan {
            train: plan.data.clone(),
            validation: None,
            shots: vec![Shots::Each(5), Shots::Vtab1k, Shots::All],
            choose: Choose::Validation,
            lr: vec![0.1],
            epochs: vec![1],
            batch_size: 32,
            seed: 0,
        });
        let (dataset, end) = (plan.dataset.clone(), spec.samples_seen);
        let of = |metrics: &[&str]| {
            let mut measured = Measured::default();
            for metric in metrics {
                measured.add_metric(&dataset, end, metric);
            }
            measured
        };
        let all = ["lp_acc1@5shot", "lp_acc1@vtab1k", "lp_acc1@full", "ft_acc1"];
        assert_eq!(missing(&spec, &of(&all), 0), None);
        for left_out in all {
            let rest: Vec<&str> = all.into_iter().filter(|metric| *metric != left_out).collect();
            let reason = missing(&spec, &of(&rest), 0).expect("one is missing");
            let (task, named) = match left_out {
                "ft_acc1" => (EvaluationTask::FineTuning, "fine_tuning (`ft_acc1`)"),
                _ => (EvaluationTask::LinearProbe, "(`lp_acc1@5shot`, `lp_acc1@vtab1k`, `lp_acc1@full`)"),
            };
            assert!(reason.contains(named), "{reason}");
            let mut said = of(&rest);
            said.add_unmeasured(&dataset, end, task);
            assert_eq!(missing(&spec, &said, 0), None, "{left_out}");
        }
        // Of a runner that is told nothing of shots, any probe will do.
        spec.evaluations[0].probe = None;
        assert_eq!(missing(&spec, &of(&["lp_acc1@full", "ft_acc1"]), 0), None);
    }
}
