//! Holds the model against OpenCLIP 3.3.0: same weights, same inputs, same embeddings, loss, gradient norm, and the
//! losses of 50 steps. The numbers, the weights and the inputs are those of `tests/python/golden.py`.

use protocol::{Alpha, Augmentation, Loss, ModelConfig, Precision, Recipe, Schedule};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{Clip, Inputs};
use crate::loss::reference;
use crate::optimizer::AdamW;
use crate::step::{self, StepOptions};

const CASES: &str = include_str!("golden.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: ModelConfig,
    ends: [i64; 3],
    #[serde(default)]
    kept: Vec<i64>,
    images: Vec<f64>,
    texts: Vec<f64>,
    loss: f64,
    gradient_norm: f64,
    parameters: u64,
    losses: Vec<f64>,
    /// With the sigmoid loss, of models that have a bias.
    sigmoid: Option<Trained>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trained {
    loss: f64,
    gradient_norm: f64,
    losses: Vec<f64>,
}

fn cases() -> Vec<(String, Case)> {
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_str(CASES).expect("a JSON object");
    let read = |case| serde_json::from_value(case).expect("a case");
    cases.into_iter().map(|(name, case)| (name, read(case))).collect()
}

#[test]
fn embeddings_and_gradients_are_those_of_open_clip() {
    let cases = cases();
    assert_eq!(cases.len(), 18);
    for (name, case) in cases {
        assert_eq!((case.config.check(), case.config.size().parameters()), (Vec::new(), case.parameters), "{name}");
        let model = model(&case);
        let (images, texts) = model.forward(&inputs(&case, 0));
        for (found, expected) in [(&images, &case.images), (&texts, &case.texts)] {
            let found = Vec::<f64>::try_from(found.detach().to_kind(Kind::Double).flatten(0, -1)).expect("f64");
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(found.len() == expected.len() && off < 1e-5, "{name}: {off}");
        }
        let loss = reference(&images, &texts, &model.logit_scale).double_value(&[]);
        assert!((loss / case.loss - 1.0).abs() < 1e-5, "{name}: loss {loss}, {} expected", case.loss);
        for options in [options(Loss::Reference, 1), options(Loss::Fused, 1), options(Loss::Fused, 3)] {
            let (_, gradients) = step::gradients(&model, &inputs(&case, 0), options).expect("a step");
            let squares: f64 = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
            let off = (squares.sqrt() / case.gradient_norm - 1.0).abs();
            assert!(off < 1e-5, "{name}, {options:?}: gradient norm off by {off}");
        }
        for options in [options(Loss::Siglip, 1), options(Loss::Siglip, 3)] {
            let Some(sigmoid) = &case.sigmoid else { continue };
            let (loss, gradients) = step::gradients(&model, &inputs(&case, 0), options).expect("a step");
            let off = (loss.double_value(&[]) / sigmoid.loss - 1.0).abs();
            assert!(off < 1e-5, "{name}, {options:?}: loss off by {off}");
            let squares: f64 = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
            let off = (squares.sqrt() / sigmoid.gradient_norm - 1.0).abs();
            assert!(off < 1e-5, "{name}, {options:?}: gradient norm off by {off}");
        }
    }
}

#[test]
fn fifty_steps_are_those_of_open_clip() {
    let mut sigmoid = 0;
    for (name, case) in cases() {
        fifty_steps(&name, &case, Loss::Fused, &case.losses);
        if let Some(trained) = &case.sigmoid {
            fifty_steps(&name, &case, Loss::Siglip, &trained.losses);
            sigmoid += 1;
        }
    }
    assert_eq!(sigmoid, 2);
}

fn fifty_steps(name: &str, case: &Case, by: Loss, losses: &[f64]) {
    let mut model = model(case);
    let mut optimizer = AdamW::new(&model.parameters);
    let recipe = recipe();
    for (step, expected) in losses.iter().enumerate() {
        let inputs = inputs(case, step);
        let (loss, gradients) = step::gradients(&model, &inputs, options(by, 1)).expect("a step");
        optimizer.step(&mut model.parameters, &gradients, &recipe, recipe.lr, 1);
        model.clamp_logit_scale();
        let off = (loss.double_value(&[]) - expected).abs() / expected.max(1.0);
        assert!(off < 1e-5, "{name}, {by:?}: the loss of step {step}, {expected}, is off by {off}");
    }
    assert_eq!(losses.len(), 50);
}

fn options(loss: Loss, accum_freq: u64) -> StepOptions {
    StepOptions { loss, compute: kernels::Compute::Automatic, accum_freq }
}

fn recipe() -> Recipe {
    Recipe {
        global_batch: 3,
        lr: 5e-4,
        betas: [0.9, 0.98],
        eps: 1e-6,
        weight_decay: 0.2,
        warmup_samples: 0,
        schedule: Schedule::Constant,
        cooldown_samples: 0,
        precision: Precision::Fp32,
        loss: Loss::Fused,
        accum_freq: 1,
        grad_checkpointing: false,
        augmentation: Augmentation::None,
        alpha: Alpha::Drop,
        preprocess: protocol::Preprocess::default(),
        grad_clip_norm: None,
        on_spike: protocol::OnSpike::GoOn,
        checkpoint_every_samples: None,
        keep_checkpoints: None,
        extra: std::collections::BTreeMap::new(),
    }
}

fn model(case: &Case) -> Clip {
    let model = Clip::new(&case.config, Precision::Fp32, 0, Device::Cpu);
    let mut names: Vec<&str> = model.parameters.list.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    for (k, name) in names.into_iter().enumerate().filter(|(_, name)| !name.starts_with("logit_")) {
        let mut tensor = model.parameters.get(name).detach();
        let of_norm = name.ends_with("weight") && format!(".{name}").contains(".ln_");
        let shift = if of_norm { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..tensor.numel()).map(|i| (0.2 * (0.37 * (i * i) as f64 + k as f64).sin() + shift) as f32).collect();
        tensor.copy_(&Tensor::from_slice(&values).view(&tensor.size()[..]));
    }
    model
}

fn inputs(case: &Case, step: usize) -> Inputs {
    let pixel = |i: i32| (0.05 * f64::from(i * i) + 0.3 * step as f64).sin() as f32;
    let pixels: Vec<f32> = (0..3 * 3 * 16 * 16).map(pixel).collect();
    // (B, 3, rows, 8, columns, 8) to (B, patches, 3 x 8 x 8), a zero row in front.
    let patches = Tensor::from_slice(&pixels).view([3, 3, 2, 8, 2, 8]).permute([0, 2, 4, 1, 3, 5]);
    let patches = patches.reshape([3, 4, 192]).constant_pad_nd([0, 0, 1, 0]);
    let tokens = [[38, 5, 9, 39, 0, 0, 0], [38, 1, 2, 3, 4, 5, 39], [38, 7, 39, 0, 0, 0, 0_i64]];
    let kept = (!case.kept.is_empty()).then(|| Tensor::from_slice(&case.kept.repeat(3)).view([3, -1]));
    Inputs {
        patches,
        tokens: Tensor::from_slice(&tokens.concat()).view([3, 7]),
        ends: Tensor::from_slice(&case.ends),
        kept,
    }
}
