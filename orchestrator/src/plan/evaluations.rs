//! What a spec says is to be measured, with the pools that are read for it.

use protocol::{EvaluationPlan, FineTuningPlan, ProbePlan};

use super::expand::unread;
use super::{Inputs, PoolInfo};
use crate::spec::{self, Path, Place, Problem, Spec};

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
        let pool = read(&evaluation.pool, evaluation.label());
        let dataset = evaluation.name.clone().unwrap_or_else(|| pool.source.pool.clone());
        if plans.iter().any(|(plan, _)| plan.dataset == dataset) {
            let message = format!("two evaluations go by the name `{dataset}`, so their results would mix");
            problems.push(Problem::new(place("pool"), message, "give this one a `name` of its own"));
        }
        let train = evaluation.train.as_ref().map(|written| read(written, written));
        let validation = evaluation.probe.as_ref().and_then(|probe| probe.validation.as_ref());
        let validation = validation.map(|written| read(written, written));
        for (key, trains) in [("train", &train), ("validation", &validation)] {
            if trains.as_ref().is_some_and(|trains| trains.source.digest == pool.source.digest) {
                let message = format!("`{key}` holds the same images as `pool`: what is trained would know its test");
                problems.push(Problem::new(place(key), message, "give it a pool of its own"));
            }
        }
        let mut pools = vec![pool.clone()];
        pools.extend([&train, &validation].into_iter().flatten().cloned());
        let train = train.map(|pool| pool.source);
        let probe = evaluation.probe.as_ref().zip(train.as_ref()).map(|(probe, train)| ProbePlan {
            train: train.clone(),
            validation: validation.map(|pool| pool.source),
            shots: probe.shots.clone(),
            choose: probe.choose,
            lr: probe.lr.clone(),
            epochs: probe.epochs.clone(),
            batch_size: probe.batch_size,
            seed: probe.seed,
        });
        let fine_tuning = evaluation.fine_tuning.as_ref().zip(train).map(|(plan, train)| fine_tuning(plan, train));
        let plan = EvaluationPlan {
            dataset,
            data: pool.source,
            tasks: evaluation.tasks.clone(),
            templates: evaluation.templates.clone(),
            at_samples: Vec::new(),
            probe,
            fine_tuning,
        };
        plans.push((plan, pools));
    }
    (problems.len() == before).then_some(plans)
}

fn fine_tuning(written: &spec::FineTuning, train: protocol::DataSource) -> FineTuningPlan {
    let spec::FineTuning { head, steps, warmup_steps, batch_size, lr, .. } = *written;
    let spec::FineTuning { layer_decay, weight_decay, grad_clip_norm, augmentation, seed, .. } = *written;
    FineTuningPlan {
        train,
        head,
        steps,
        warmup_steps,
        batch_size,
        lr,
        layer_decay,
        weight_decay,
        grad_clip_norm,
        augmentation,
        seed,
    }
}
