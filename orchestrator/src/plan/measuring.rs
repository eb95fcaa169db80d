//! Jobs that measure given weights and train nothing, made from what others were trained with.

use std::sync::Arc;

use protocol::{Description, EvaluationPlan, JobSpec, RunnerIdentity, Weights};

use super::evaluations::{Measured, evaluations};
use super::expand::assembled;
use super::memory::{Device, peak_bytes};
use super::{Inputs, Plan, PlannedJob, PlannedSpec, PoolInfo, job_key};
use crate::spec::{Spec, SpecError};

/// What a spec says is to be measured, whatever it says of jobs.
pub fn planned_evaluations(spec: &Spec, inputs: &Inputs) -> Result<Vec<Measured>, SpecError> {
    let mut problems = Vec::new();
    evaluations(spec, inputs, &mut problems).ok_or_else(|| SpecError::new(&spec.source, problems))
}

/// A job that measures weights of the model of `spec`, in its way; its seed, data and schedule do not matter then.
pub fn measuring_job(runner: &Description, spec: &JobSpec, init: Weights, evaluation: EvaluationPlan) -> PlannedJob {
    let (name, version) = (runner.name.clone(), runner.version.clone());
    let size = spec.model.config.size();
    let planned = PlannedSpec {
        runner: Arc::new(RunnerIdentity { name, version }),
        model: Arc::new(spec.model.clone()),
        init: Some(init),
        data: Arc::new(spec.data.clone()),
        data_size: spec.data_size,
        // As a share of what it was trained on, which the runner takes of what it measures on.
        skipped_max: spec.skipped_max,
        samples_seen: 0,
        seed: spec.seed,
        recipe: Arc::new(spec.recipe.clone()),
        evaluations: Arc::new(vec![EvaluationPlan { at_samples: Vec::new(), ..evaluation }]),
    };
    PlannedJob {
        job_key: job_key(&planned.to_job_spec()),
        compute: size.compute(0),
        unique_samples: 0,
        memory_bytes: peak_bytes(&spec.model.config, &size, &planned, Device::Cpu),
        secs: None,
        parent: None,
        size,
        spec: planned,
    }
}

/// The plan of such jobs, each once, with all else as the spec has it.
pub fn measuring_plan(spec: &Spec, inputs: &Inputs, pools: Vec<PoolInfo>, mut jobs: Vec<PlannedJob>) -> Plan {
    let mut seen = std::collections::HashSet::new();
    jobs.retain(|job| seen.insert(job.job_key.clone()));
    assembled(spec, inputs, pools, jobs)
}
