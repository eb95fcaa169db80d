//! What the jobs of a plan share: a plan may hold 100,000.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::{DataSource, EvaluationPlan, Loss, NamedModel, Recipe, RunnerIdentity, Schedule};

use super::evaluations::Measured;
use super::memory::Device;
use super::memory_limit;
use super::{Inputs, OPEN_CLIP_CONFIG, PoolInfo, companions};
use crate::spec::{self, Amount, Cell, Spec, is_model_file, shipped, sized_for, whole_batches};

/// Name in the spec, image size, context length, and whether the loss is the sigmoid one.
type ModelInputs = (String, Option<u64>, Option<u64>, bool);

/// What many jobs have in common, made once.
#[derive(Default)]
pub(super) struct Shared {
    runner: Option<Arc<RunnerIdentity>>,
    device: Option<Device>,
    data: Option<Arc<DataSource>>,
    models: HashMap<ModelInputs, Arc<NamedModel>>,
    /// By the address of the spec's recipe, which stays with it so that no other one gets that, and samples seen.
    recipes: HashMap<(usize, u64), (Arc<spec::Recipe>, Arc<Recipe>)>,
    /// By samples seen and global batch.
    evaluations: HashMap<(u64, u64), Arc<Vec<EvaluationPlan>>>,
}

impl Shared {
    pub(super) fn runner(&mut self, inputs: &Inputs) -> Arc<RunnerIdentity> {
        let (name, version) = (&inputs.runner.name, &inputs.runner.version);
        let make = || Arc::new(RunnerIdentity { name: name.clone(), version: version.clone() });
        Arc::clone(self.runner.get_or_insert_with(make))
    }

    /// Where jobs compute.
    pub(super) fn device(&mut self, spec: &Spec, inputs: &Inputs) -> Device {
        *self.device.get_or_insert_with(|| memory_limit::device(spec, inputs))
    }

    pub(super) fn data(&mut self, training: &PoolInfo) -> Arc<DataSource> {
        Arc::clone(self.data.get_or_insert_with(|| Arc::new(training.source.clone())))
    }

    pub(super) fn model(&mut self, inputs: &Inputs, cell: &Cell) -> Arc<NamedModel> {
        let (image_size, context_length) = (cell.recipe.image_size, cell.recipe.context_length);
        let sigmoid = cell.recipe.loss == Loss::Siglip;
        let make = || {
            let model = model(inputs, &cell.model);
            let mut config = sized_for(model.config, image_size, context_length);
            if sigmoid {
                // As `open_clip_train --siglip` does, where the model does not say.
                config.init_logit_scale.get_or_insert(10_f64.ln());
                config.init_logit_bias.get_or_insert(-10.0);
            }
            Arc::new(NamedModel { config, name: model.name })
        };
        Arc::clone(self.models.entry((cell.model.clone(), image_size, context_length, sigmoid)).or_insert_with(make))
    }

    pub(super) fn recipe(&mut self, spec: &Spec, recipe: &Arc<spec::Recipe>, samples_seen: u64) -> Arc<Recipe> {
        let make = || {
            let planned = Recipe {
                global_batch: recipe.global_batch,
                lr: recipe.lr,
                betas: recipe.betas,
                eps: recipe.eps,
                weight_decay: recipe.weight_decay,
                warmup_samples: recipe.warmup.of(samples_seen),
                schedule: recipe.schedule,
                cooldown_samples: match recipe.schedule {
                    Schedule::ConstantCooldown => recipe.cooldown_of(samples_seen),
                    Schedule::Cosine | Schedule::Constant => 0,
                },
                precision: recipe.precision,
                loss: recipe.loss,
                accum_freq: recipe.accum_freq,
                grad_checkpointing: recipe.grad_checkpointing,
                augmentation: recipe.augmentation,
                alpha: recipe.alpha,
                preprocess: recipe.preprocess,
                grad_clip_norm: recipe.grad_clip_norm,
                on_spike: recipe.on_spike,
                checkpoint_every_samples: recipe.checkpoint_every.map(|every| every.of(samples_seen)),
                keep_checkpoints: companions::kept(spec, recipe),
                extra: recipe.extra.clone(),
            };
            (Arc::clone(recipe), Arc::new(planned))
        };
        Arc::clone(&self.recipes.entry((Arc::as_ptr(recipe) as usize, samples_seen)).or_insert_with(make).1)
    }

    pub(super) fn evaluations(
        &mut self,
        spec: &Spec,
        measured: &[Measured],
        samples_seen: u64,
        global_batch: u64,
    ) -> Arc<Vec<EvaluationPlan>> {
        let make = || {
            let in_training = measured
                .iter()
                .zip(&spec.evaluations)
                .filter(|(_, entry)| samples_seen == 0 || !entry.every_checkpoint);
            let plans = in_training.map(|((plan, _), evaluation)| EvaluationPlan {
                at_samples: points(&evaluation.at_samples, samples_seen, global_batch),
                ..plan.clone()
            });
            Arc::new(plans.collect())
        };
        Arc::clone(self.evaluations.entry((samples_seen, global_batch)).or_insert_with(make))
    }
}

/// Points of measurement before the end, on whole batches, ascending. The end is measured anyway.
fn points(at_samples: &[Amount], samples_seen: u64, global_batch: u64) -> Vec<u64> {
    let mut points: Vec<u64> = at_samples
        .iter()
        .map(|at| whole_batches(at.of(samples_seen), global_batch))
        .filter(|at| *at < samples_seen)
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

fn model(inputs: &Inputs, name: &str) -> NamedModel {
    if !is_model_file(name) {
        return shipped(name).expect("a spec names models that are shipped");
    }
    let file = std::path::Path::new(name);
    // A model's folder gives its name to what lies in it under open_clip's fixed name.
    let named = match (file.file_name(), file.parent()) {
        (Some(name), Some(folder)) if name == OPEN_CLIP_CONFIG && folder.file_name().is_some() => folder.file_name(),
        _ => file.file_stem(),
    };
    let stem = named.map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    NamedModel { name: stem, config: inputs.model_files.get(name).expect("inputs hold every model file").clone() }
}
