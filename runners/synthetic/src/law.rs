//! The law, the noise, and what an evaluation gives. Pure: numbers depend on the job and the position in it alone.

use protocol::{EvaluationTask, JobSpec, Measurement, Shots};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Items of every made-up test set.
const ITEMS: u64 = 10_000;
/// Standard error of `loss@1024`, nats.
const LOSS_STANDARD_ERROR: f64 = 0.003;
/// Relative standard deviation of one step's loss.
const STEP_NOISE: f64 = 0.01;

/// L(N, D, U) = 1.2 + 60 / N^0.34 + 25 / D^0.28 + 8 / U^0.30, nats.
pub(crate) fn loss(parameters: u64, samples_seen: u64, unique_samples: u64) -> f64 {
    1.2 + 60.0 / (parameters as f64).powf(0.34)
        + 25.0 / (samples_seen as f64).powf(0.28)
        + 8.0 / (unique_samples as f64).powf(0.30)
}

/// Name in the recipe's `extra`: the learning rate that a model of width 64 learns best with; others by 64 / width.
const LR_BEST: &str = "lr_best";
/// Above it, scaled in the same way, training diverges.
const LR_MAX: &str = "lr_max";
/// Rise of the loss, nats, by the square of ln(lr / best).
const LR_CURVATURE: f64 = 0.05;

/// What a learning rate beside the best one adds to the loss, where a job says which that is.
fn mistuned(spec: &JobSpec) -> f64 {
    let best = |best: &f64| best * 64.0 / spec.model.config.vision_cfg.width as f64;
    spec.recipe.extra.get(LR_BEST).map_or(0.0, |at| LR_CURVATURE * (spec.recipe.lr / best(at)).ln().powi(2))
}

/// Whether a job's learning rate is one that it diverges with.
pub(crate) fn diverges(spec: &JobSpec) -> bool {
    let most = spec.recipe.extra.get(LR_MAX);
    most.is_some_and(|most| spec.recipe.lr > most * 64.0 / spec.model.config.vision_cfg.width as f64)
}

/// E(C) = beta C^alpha, C in forward GMACs x samples; 1 - E is the accuracy or recall.
pub(crate) fn error(beta: f64, alpha: f64, gmacs_samples: f64) -> f64 {
    (beta * gmacs_samples.powf(alpha)).clamp(0.0, 0.99)
}

/// Loss of one step.
pub(crate) fn step_loss(spec: &JobSpec, step: u64) -> f64 {
    let seen = step * spec.recipe.global_batch;
    let mut noise = ChaCha8Rng::seed_from_u64(spec.seed);
    noise.set_stream(step);
    loss(spec.model.config.size().parameters(), seen, spec.data_size.min(seen))
        * (1.0 + STEP_NOISE * normal(&mut noise))
}

/// Data sets to measure on: name, tasks, samples seen at which to (the end apart).
pub(crate) fn evaluations(spec: &JobSpec) -> Vec<(&str, &[EvaluationTask], &[u64])> {
    if spec.evaluations.is_empty() {
        let tasks = &[EvaluationTask::ZeroshotClassification, EvaluationTask::ContrastiveLoss];
        return vec![("synthetic", tasks, &[])];
    }
    let plans = spec.evaluations.iter();
    plans.map(|plan| (plan.dataset.as_str(), plan.tasks.as_slice(), plan.at_samples.as_slice())).collect()
}

/// What an evaluation gives after `seen` samples.
pub(crate) fn measure(spec: &JobSpec, dataset: &str, tasks: &[EvaluationTask], seen: u64) -> Vec<Measurement> {
    let size = spec.model.config.size();
    let compute = size.compute(seen).gmacs_samples;
    let fraction = |metric: &str, beta: f64, alpha: f64, chance: f64| {
        let truth = 1.0 - error(beta, alpha, compute);
        let standard_error = (truth * (1.0 - truth) / ITEMS as f64).sqrt();
        let value = truth + standard_error * normal(&mut noise(spec, dataset, metric, seen));
        Measurement {
            metric: metric.to_owned(),
            value: value.clamp(0.0, 1.0),
            standard_error: Some(standard_error),
            chance: Some(chance),
            count: Some(ITEMS),
        }
    };
    let mut measurements = Vec::new();
    for task in tasks {
        match task {
            EvaluationTask::ZeroshotClassification => measurements.push(fraction("acc1", 1.2, -0.12, 1e-3)),
            EvaluationTask::ZeroshotRetrieval => {
                measurements.push(fraction("image_retrieval_recall@5", 1.5, -0.10, 5e-4));
                measurements.push(fraction("text_retrieval_recall@5", 1.5, -0.10, 5e-4));
            }
            EvaluationTask::LinearProbe => {
                let probe =
                    spec.evaluations.iter().find(|plan| plan.dataset == dataset).and_then(|plan| plan.probe.as_ref());
                for shots in probe.map_or(&[Shots::All][..], |probe| &probe.shots) {
                    measurements.push(fraction(&format!("lp_acc1@{}", shots.suffix()), 1.0, -0.12, 1e-3));
                }
            }
            EvaluationTask::FineTuning => measurements.push(fraction("ft_acc1", 0.9, -0.12, 1e-3)),
            EvaluationTask::ContrastiveLoss => {
                let truth = loss(size.parameters(), seen, spec.data_size.min(seen)) + mistuned(spec);
                let z = normal(&mut noise(spec, dataset, "loss@1024", seen));
                measurements.push(Measurement {
                    metric: "loss@1024".to_owned(),
                    value: truth + LOSS_STANDARD_ERROR * z,
                    standard_error: Some(LOSS_STANDARD_ERROR),
                    chance: Some(1024_f64.ln()),
                    count: Some(ITEMS),
                });
            }
        }
    }
    measurements
}

/// A generator of its own for every number.
fn noise(spec: &JobSpec, dataset: &str, metric: &str, seen: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{dataset}\n{metric}\n{seen}\n{}", spec.seed, spec.model.name));
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Standard normal by Box and Muller (1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_falls_with_each_axis() {
        let base = loss(1_000_000, 100_000, 10_000);
        assert!(loss(2_000_000, 100_000, 10_000) < base);
        assert!(loss(1_000_000, 200_000, 10_000) < base);
        assert!(loss(1_000_000, 100_000, 20_000) < base);
        assert!(base > 1.2);
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let draws: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }
}
