//! Fine-tuning end to end: the image tower trained further on images with classes, the text tower left as it is.
//!
//! The protocol is that of the 2022 study's joint fine-tuning and of patching (Ilharco et al. 2022): logits are the
//! logit scale times cosines to the classes' zero-shot vectors, cross-entropy, AdamW, a linear warm-up and a cosine to
//! 0, the gradient's norm clipped. `layer_decay` is BEiT's rule (Bao et al. 2022): the learning rate of a layer is
//! multiplied with it once for each layer above.
//!
//! What is trained is a copy of the tower, so the model stays what it is, to the bit. Order and augmentation are
//! functions of seed and position, so the same job gives the same numbers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};

use pool::Dataset;
use protocol::{FineTuningPlan, Head, Recipe, Schedule};
use tch::{Device, Kind, Tensor};

use super::to_vec;
use crate::augment::Patches;
use crate::batches::augmented;
use crate::learning_rate::learning_rate;
use crate::model::{Clip, ImageTower};
use crate::optimizer::AdamW;
use crate::order::Order;
use crate::parameters::{Declaration, Init, Parameters};

/// Of AdamW.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

/// Names of the image tower's parameters begin so.
const TOWER: &str = "visual.";
const HEAD_WEIGHT: &str = "head.weight";
const HEAD_BIAS: &str = "head.bias";

/// Images to train on.
pub(super) struct Training<'a> {
    pub(super) data: &'a Dataset,
    /// (image, class) of those that have one.
    pub(super) labels: &'a [(usize, u32)],
    pub(super) patches: &'a Patches,
}

/// An image tower of its own, and what turns its embeddings into classes.
pub struct Tuned {
    parameters: Parameters,
    image: ImageTower,
    /// (C, E): `None`, a layer among the parameters.
    fixed: Option<Tensor>,
    /// Loss of each step.
    losses: Vec<f64>,
}

/// How a fine-tuning ended.
pub enum Ended {
    /// After its last step.
    Tuned(Box<Tuned>),
    /// The loss is no longer a number, which is said.
    Diverged(String),
    /// On request.
    Stopped,
}

impl Tuned {
    /// A copy of a model's tower. `classes` (C, E) are unit vectors of the classes.
    fn of(model: &Clip, classes: &Tensor, plan: &FineTuningPlan) -> Tuned {
        let rows = classes.to_device(model.device()) * model.logit_scale.detach().exp();
        let blank = |name: &str, shape: &[i64]| Declaration {
            name: name.to_owned(),
            shape: shape.to_vec(),
            init: Init::Constant(0.0),
        };
        let tower = model.parameters.list.iter().filter(|parameter| parameter.name.starts_with(TOWER));
        let mut declarations: Vec<Declaration> =
            tower.clone().map(|parameter| blank(&parameter.name, &parameter.shape)).collect();
        if plan.head == Head::Linear {
            declarations.extend([blank(HEAD_WEIGHT, &rows.size()), blank(HEAD_BIAS, &rows.size()[..1])]);
        }
        let mut parameters = Parameters::new(declarations, 0, model.device());
        tch::no_grad(|| {
            for parameter in tower {
                parameters.get(&parameter.name).copy_(&parameter.tensor);
            }
            if plan.head == Head::Linear {
                parameters.get(HEAD_WEIGHT).copy_(&rows);
            }
        });
        let blocks = model.image_blocks();
        parameters.scale_lr(|name| plan.layer_decay.powf(layers_above(name, blocks) as f64));
        let image = model.image_tower_on(&parameters);
        let fixed = (plan.head == Head::Zeroshot).then_some(rows);
        Tuned { parameters, image, fixed, losses: Vec::new() }
    }

    /// The tower.
    pub(super) fn image(&self) -> &ImageTower {
        &self.image
    }

    /// Loss of each step.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Scores (N, C) of unit embeddings (N, E), by row, in main memory.
    pub(super) fn scores(&self, images: &Tensor) -> Vec<f32> {
        tch::no_grad(|| to_vec(&self.logits(&images.to_device(self.parameters.flat.device())).to_device(Device::Cpu)))
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        match &self.fixed {
            Some(rows) => images.matmul(&rows.tr()),
            None => images.linear(&self.parameters.get(HEAD_WEIGHT), Some(&self.parameters.get(HEAD_BIAS))),
        }
    }

    /// Puts the tower's weights in the place of the model's own.
    pub fn put_into(&self, model: &mut Clip) {
        tch::no_grad(|| {
            for parameter in self.parameters.list.iter().filter(|parameter| parameter.name.starts_with(TOWER)) {
                model.parameters.get(&parameter.name).copy_(&parameter.tensor);
            }
        });
    }

    /// The loss of a batch, shape (), and its gradients in the order of the parameters.
    fn gradients(&self, patches: &Tensor, labels: &Tensor) -> (Tensor, Vec<Tensor>) {
        tch::with_grad(|| {
            let loss = self.logits(&self.image.forward(patches)).cross_entropy_for_logits(labels);
            let leaves: Vec<&Tensor> = self.parameters.list.iter().map(|parameter| &parameter.tensor).collect();
            let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
            (loss.detach(), gradients)
        })
    }
}

/// Layers between a parameter of an image tower of so many blocks and the head. What comes before the blocks is the
/// lowest layer, what follows them belongs to the head's.
fn layers_above(name: &str, blocks: u64) -> u64 {
    let before_blocks =
        ["visual.class_embedding", "visual.positional_embedding", "visual.conv1.weight", "visual.ln_pre."];
    let block = name.strip_prefix("visual.transformer.resblocks.").and_then(|rest| rest.split('.').next());
    match block.and_then(|block| block.parse::<u64>().ok()) {
        Some(block) => blocks - block,
        None if before_blocks.iter().any(|first| name.starts_with(first)) => blocks + 1,
        None => 0,
    }
}

/// Trains a copy of the model's tower.
pub(super) fn train(
    plan: &FineTuningPlan,
    training: &Training,
    model: &Clip,
    classes: &Tensor,
    stop: &AtomicBool,
) -> Result<Ended, pool::Error> {
    let mut tuned = Tuned::of(model, classes, plan);
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let recipe = recipe_of(plan);
    let mut optimizer = AdamW::new(&tuned.parameters);
    let mut losses = Vec::new();
    let assemble = |order: &mut Order, step: u64, memory: Option<Tensor>| {
        let start = step * plan.batch_size;
        let chosen = order.batch(start, plan.batch_size).into_iter().map(|at| training.labels[at]);
        let (images, labels): (Vec<usize>, Vec<i64>) = chosen.map(|(image, label)| (image, i64::from(label))).unzip();
        let drawn = (plan.seed, start);
        let patches = augmented(training.data, training.patches, plan.augmentation, drawn, &images, memory)?;
        Ok::<_, pool::Error>((patches, labels))
    };
    // One batch is assembled while another is trained on.
    let ended = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        let (free, freed) = channel();
        scope.spawn(move || {
            let workers = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads for the data");
            let mut order = Order::new(plan.seed, training.labels.len() as u64);
            for step in 0..plan.steps {
                let memory = freed.try_recv().ok();
                if sender.send(workers.install(|| assemble(&mut order, step, memory))).is_err() {
                    return; // Stopped early.
                }
            }
        });
        for (step, batch) in receiver.iter().enumerate() {
            let (patches, labels) = batch?;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let labels = Tensor::from_slice(&labels).to_device(model.device());
            let (loss, gradients) = tuned.gradients(&patches.to_device(model.device()), &labels);
            // Nobody assembles after the last batch.
            let _ = free.send(patches);
            let lr = learning_rate(&recipe, step as u64, plan.steps);
            optimizer.step(&mut tuned.parameters, &gradients, &recipe, lr, threads);
            losses.push(loss);
        }
        Ok::<_, pool::Error>(Some(()))
    })?;
    if ended.is_none() {
        return Ok(Ended::Stopped);
    }
    let read = Tensor::stack(&losses, 0).to_device(Device::Cpu).to_kind(Kind::Float);
    tuned.losses = to_vec(&read).into_iter().map(f64::from).collect();
    // Of weights that are no numbers every class scores alike, and an accuracy would say nothing of that.
    let is_finite = tuned.parameters.flat.isfinite().all().int64_value(&[]) == 1;
    match tuned.losses.iter().position(|loss| !loss.is_finite()) {
        Some(bad) => Ok(Ended::Diverged(diverged(bad + 1, tuned.losses[bad]))),
        None if !is_finite => Ok(Ended::Diverged(diverged(tuned.losses.len() + 1, f64::NAN))),
        None => Ok(Ended::Tuned(Box::new(tuned))),
    }
}

fn diverged(step: usize, loss: f64) -> String {
    format!("the loss of step {step} is {loss}: fine-tuning diverged; try a lower `ft_lr` or a longer `ft_warmup`")
}

/// The same in the words of a training.
fn recipe_of(plan: &FineTuningPlan) -> Recipe {
    Recipe {
        global_batch: plan.batch_size,
        lr: plan.lr,
        betas: BETAS,
        eps: EPS,
        weight_decay: plan.weight_decay,
        warmup_samples: plan.warmup_steps * plan.batch_size,
        schedule: Schedule::Cosine,
        grad_clip_norm: Some(plan.grad_clip_norm),
        augmentation: plan.augmentation,
        ..Recipe::of_nothing()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Augmentation, DataSource, ModelConfig, Precision};

    use super::*;

    fn model(seed: u64) -> Clip {
        let (_, json) = protocol::shipped_model("cpu-w32-l2").expect("shipped");
        let config: ModelConfig = serde_json::from_str(json).expect("a model");
        Clip::new(&config, Precision::Fp32, seed, Device::Cpu)
    }

    fn plan(head: Head) -> FineTuningPlan {
        FineTuningPlan {
            train: DataSource { pool: "p".into(), path: "p".into(), digest: "0".repeat(64) },
            head,
            steps: 1,
            warmup_steps: 0,
            batch_size: 4,
            lr: 1e-3,
            layer_decay: 0.5,
            weight_decay: 0.1,
            grad_clip_norm: 1.0,
            augmentation: Augmentation::None,
            seed: 0,
        }
    }

    /// Unit vectors of six classes.
    fn classes() -> Tensor {
        tch::manual_seed(7);
        let rows = Tensor::randn([6, 32], (Kind::Float, Device::Cpu));
        &rows / rows.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt()
    }

    #[test]
    fn layers_count_from_the_head_down() {
        for (name, above) in [
            ("visual.conv1.weight", 4),
            ("visual.class_embedding", 4),
            ("visual.positional_embedding", 4),
            ("visual.ln_pre.bias", 4),
            ("visual.transformer.resblocks.0.ls_1.gamma", 3),
            ("visual.transformer.resblocks.2.mlp.c_fc.weight", 1),
            ("visual.attn_pool.query", 0),
            ("visual.ln_post.weight", 0),
            ("visual.proj", 0),
            ("head.bias", 0),
        ] {
            assert_eq!(layers_above(name, 3), above, "{name}");
        }
        let tuned = Tuned::of(&model(1), &classes(), &plan(Head::Linear));
        let scale = |name: &str| {
            tuned.parameters.list.iter().find(|parameter| parameter.name == name).expect("a parameter").lr_scale
        };
        let of_block = |block: usize| scale(&format!("visual.transformer.resblocks.{block}.attn.in_proj_weight"));
        let found = [scale("visual.conv1.weight"), of_block(0), of_block(1), scale(HEAD_WEIGHT)];
        assert!(
            found.iter().zip([0.125, 0.25, 0.5, 1.0]).all(|(found, scale)| found.total_cmp(&scale).is_eq()),
            "{found:?}"
        );
    }

    /// The first step of AdamW moves by the learning rate against the gradient's sign, so its size is the layer's.
    #[test]
    fn a_step_moves_each_layer_by_its_own_learning_rate_and_the_model_by_nothing() {
        tch::set_num_threads(1);
        for head in [Head::Zeroshot, Head::Linear] {
            let (model, plan) = (model(3), FineTuningPlan { weight_decay: 0.0, ..plan(head) });
            let before = model.parameters.flat.copy();
            let mut tuned = Tuned::of(&model, &classes(), &plan);
            tch::manual_seed(5);
            let patches = Tensor::randn([4, 17, model.image.patch_values()], (Kind::Float, Device::Cpu));
            let (loss, gradients) = tuned.gradients(&patches, &Tensor::from_slice(&[0_i64, 5, 2, 2]));
            assert!(loss.double_value(&[]) > 0.0);
            let start = tuned.parameters.flat.copy();
            AdamW::new(&tuned.parameters).step(&mut tuned.parameters, &gradients, &recipe_of(&plan), plan.lr, 1);
            let moved = (&tuned.parameters.flat - start).abs();
            let most = |name: &str| {
                let found = tuned.parameters.list.iter().find(|parameter| parameter.name == name).expect("a parameter");
                moved.narrow(0, found.offset as i64, found.numel as i64).max().double_value(&[])
            };
            let mut expected = vec![("visual.conv1.weight", 0.125), ("visual.proj", 1.0)];
            expected.push(("visual.transformer.resblocks.1.mlp.c_fc.weight", 0.5));
            expected.extend((head == Head::Linear).then_some((HEAD_BIAS, 1.0)));
            for (name, scale) in expected {
                let off = (most(name) / (1e-3 * scale) - 1.0).abs();
                assert!(off < 1e-3, "{name}: moved by {}", most(name));
            }
            assert!(model.parameters.flat.equal(&before), "the model is as it was");
        }
    }

    #[test]
    fn a_linear_head_begins_with_the_zero_shot_logits() {
        let model = model(3);
        let embedded = Tensor::randn([3, 32], (Kind::Float, Device::Cpu));
        let of = |head| Tuned::of(&model, &classes(), &plan(head)).scores(&embedded);
        let (fixed, linear) = (of(Head::Zeroshot), of(Head::Linear));
        assert!(fixed.iter().zip(&linear).all(|(a, b)| (a - b).abs() < 1e-5), "{fixed:?} {linear:?}");
    }

    #[test]
    fn what_was_learnt_can_be_put_into_the_model() {
        let (mut into, other) = (model(3), model(4));
        let text = into.parameters.get("text_projection").detach().copy();
        Tuned::of(&other, &classes(), &plan(Head::Zeroshot)).put_into(&mut into);
        assert!(into.parameters.get("visual.proj").equal(&other.parameters.get("visual.proj")));
        assert!(into.parameters.get("text_projection").equal(&text));
    }
}
