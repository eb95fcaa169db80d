//! What a spec says is to be measured, with the pools that are read for it.

use protocol::{EvaluationPlan, ProbePlan, Shots};

use super::expand::unread;
use super::{Inputs, PoolInfo};
use crate::spec::{DataSize, Path, Place, Problem, Spec};

/// An evaluation, without its positions, and the pools that it reads, its own first.
pub(super) type Measured = (EvaluationPlan, Vec<PoolInfo>);

/// The evaluations of a spec; `None`: something is wrong with one, which `problems` has then.
pub(super) fn evaluations(spec: &Spec, inputs: &Inputs, problems: &mut Vec<Problem>) -> Option<Vec<Measured>> {
    let before = problems.len();
    let mut plans: Vec<Measured> = Vec::new();
    for (index, evaluation) in spec.evaluations.iter().enumerate() {
        let place = |key: &str| Place::Value(Path::keys(&["evaluations"]).index(index).key(key));
        let read = |written: &String, name: &str| {
            if inputs.runner.reads_data {
                inputs.pools.get(written).expect("inputs hold every pool of the spec").clone()
            } else {
                unread(name, written, 1)
            }
        };
        let pool = read(&evaluation.pool, evaluation.name.as_deref().unwrap_or(&evaluation.pool));
        let dataset = evaluation.name.clone().unwrap_or_else(|| pool.source.pool.clone());
        if plans.iter().any(|(plan, _)| plan.dataset == dataset) {
            let message = format!("two evaluations go by the name `{dataset}`, so their results would mix");
            problems.push(Problem::new(place("pool"), message, "give this one a `name` of its own"));
        }
        let mut pools = vec![pool.clone()];
        let probe = evaluation.probe.as_ref().and_then(|probe| {
            let train = read(probe.train.as_ref()?, probe.train.as_ref()?);
            let validation = probe.validation.as_ref().map(|written| read(written, written));
            for (key, of_probe) in [("train", Some(&train)), ("validation", validation.as_ref())] {
                if of_probe.is_some_and(|of_probe| of_probe.source.digest == pool.source.digest) {
                    let message = format!("`{key}` holds the same images as `pool`: the probe would know its test");
                    problems.push(Problem::new(place(key), message, "give it a pool of its own"));
                }
            }
            pools.extend([Some(train.clone()), validation.clone()].into_iter().flatten());
            Some(ProbePlan {
                train: train.source,
                validation: validation.map(|pool| pool.source),
                shots: probe.shots.iter().map(|shots| as_shots(*shots)).collect(),
                choose: probe.choose,
                lr: probe.lr.clone(),
                epochs: probe.epochs.clone(),
                batch_size: probe.batch_size,
                seed: probe.seed,
            })
        });
        let plan = EvaluationPlan {
            dataset,
            data: pool.source,
            tasks: evaluation.tasks.clone(),
            templates: evaluation.templates.clone(),
            at_samples: Vec::new(),
            probe,
        };
        plans.push((plan, pools));
    }
    (problems.len() == before).then_some(plans)
}

fn as_shots(size: DataSize) -> Shots {
    match size {
        DataSize::Samples(count) => Shots::Each(count),
        DataSize::All => Shots::All,
    }
}
