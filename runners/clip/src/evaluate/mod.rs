//! Measures a model on held-out pairs: zero-shot classification, retrieval, loss at a fixed contrast, linear probes,
//! fine-tuning.
//!
//! Reads weights and data, changes neither, and draws no random number but those of a seed of its own, so training goes
//! on as if nothing had happened.

mod classes;
pub mod fine_tuning;
pub mod metrics;
mod probe;
mod retrieval;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use pool::Dataset;
use protocol::{EvaluationTask, FineTuningPlan, Measurement, ProbePlan};
use tch::{Device, Kind, Tensor};

use crate::augment::Patches;
use crate::batches::whole_images;
use crate::loss::{pair_losses, sigmoid_losses};
use crate::model::{Clip, ImageTower};
use crate::report;
use crate::tokenizer::{Captions, Tokenizer, TokenizerError};
use classes::{check_classes, classes_of, labels_of, lacking, prompt_texts};
use fine_tuning::{Ended, Training, Tuned};
use probe::{Features, Probed};
use retrieval::Answers;

/// Pairs that are contrasted with one another in `loss@1024`.
pub const CONTRAST: usize = 1024;

/// Blocks of [`CONTRAST`] pairs measured at most.
const BLOCKS_MAX: usize = 8;

/// Images or texts embedded or compared at a time.
const CHUNK: usize = 256;

/// Why an evaluation can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Classification without classes.
    #[error(
        "evaluation `{dataset}` asks for {task}, but pool `{pool}` has no {missing}: pack it with `classnames.txt` and a `KEY.cls` for each pair, or leave the task out"
    )]
    NoClasses {
        /// The evaluation.
        dataset: String,
        /// The task that needs them.
        task: &'static str,
        /// Folder of the pool.
        pool: String,
        /// `class names`, `classes` or `image with one class`.
        missing: &'static str,
    },
    /// A template without a place for the class.
    #[error("evaluation `{dataset}` has the template `{template}`, which has no `{{}}` for the class name")]
    Template {
        /// The evaluation.
        dataset: String,
        /// The template.
        template: String,
    },
    /// A class that has no name, or would take all memory.
    #[error(
        "evaluation `{dataset}` asks for {task}, and pool `{pool}` has an image of class {class}, but {limit}: correct its `KEY.cls`, or pack the pools with a `classnames.txt` that has a line for each class"
    )]
    Class {
        /// The evaluation.
        dataset: String,
        /// The task that trains on classes.
        task: &'static str,
        /// Folder of the pool.
        pool: String,
        /// The class.
        class: u32,
        /// Which classes there may be.
        limit: String,
    },
    /// Class numbers that mean one thing in one pool and another in the next.
    #[error(
        "evaluation `{dataset}` asks for {task}, but line {line} of `classnames.txt` is {one} and {other}: class numbers have to mean the same, so pack both pools with the same `classnames.txt`"
    )]
    ClassNames {
        /// The evaluation.
        dataset: String,
        /// The task that trains on classes.
        task: &'static str,
        /// The first line that differs, from 1.
        line: usize,
        /// That line in one pool, in quotes, or that there is none; and which pool.
        one: String,
        /// The same of another.
        other: String,
    },
    /// A text that has no tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The pool can't be read.
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

/// What was measured, and of which tasks nothing could be, with the reason.
pub type Measured = (Vec<Measurement>, BTreeMap<EvaluationTask, String>);

/// Right classes, by pair.
enum Labels {
    /// One each, of those that have one: (pair, class).
    One(Vec<(usize, u32)>),
    /// Any number each: whether the pair is of the class, a row a pair.
    Several(Vec<bool>),
}

/// A data set made ready to be measured on: captions and prompts are encoded once.
pub struct HeldOut {
    /// Name of the evaluation.
    pub dataset: String,
    /// What to measure, in order.
    pub tasks: Vec<EvaluationTask>,
    data: Dataset,
    patches: Patches,
    /// The distinct texts.
    captions: Captions,
    labels: Labels,
    /// Prompts of all classes, those of one class side by side.
    prompts: Captions,
    classes: usize,
    answers: Answers,
    probe: Option<Probe>,
    fine_tuning: Option<FineTuning>,
}

/// What a linear probe is trained on.
pub struct Probe {
    /// How.
    pub plan: ProbePlan,
    /// Images to train on.
    pub train: Dataset,
    /// Images to choose settings on.
    pub validation: Option<Dataset>,
}

/// What the image tower is fine-tuned on.
pub struct FineTuning {
    /// How.
    pub plan: FineTuningPlan,
    /// Images to train on.
    pub train: Dataset,
}

/// Of a fine-tuning: what was measured, or why nothing.
type Learnt = Result<Vec<Measurement>, String>;

impl HeldOut {
    /// Checks that the pool can serve the plan and encodes its texts. `templates` empty: those of the pool.
    pub fn new(
        plan: &protocol::EvaluationPlan,
        data: Dataset,
        (probe, fine_tuning): (Option<Probe>, Option<FineTuning>),
        patches: Patches,
        tokenizer: &Tokenizer,
        context_length: usize,
    ) -> Result<HeldOut, EvaluateError> {
        let dataset = plan.dataset.clone();
        let (mut texts, mut image_of) = (Vec::new(), Vec::new());
        for image in 0..data.len() {
            texts.extend(data.captions(image));
            image_of.resize(texts.len(), image);
        }
        let answers = Answers::new(&texts, image_of, data.len());
        let distinct = answers.distinct().into_iter().map(|text| texts[text]);
        let captions = Captions::encode(tokenizer, distinct, context_length)?;
        let classes = data.class_names().len();
        let (mut labels, mut prompts) = (Labels::One(Vec::new()), Captions::default());
        let asks = |task: EvaluationTask| plan.tasks.contains(&task);
        if asks(EvaluationTask::ZeroshotClassification) {
            labels = labels_of(&dataset, &data)?;
        }
        if asks(EvaluationTask::ZeroshotClassification) || asks(EvaluationTask::FineTuning) {
            let texts = prompt_texts(&dataset, &plan.templates, &data)?;
            prompts = Captions::encode(tokenizer, texts.iter().map(String::as_str), context_length)?;
        }
        if let Some(probe) = &probe {
            let pools: Vec<&Dataset> = [&data, &probe.train].into_iter().chain(&probe.validation).collect();
            check_classes(&dataset, EvaluationTask::LinearProbe, &pools)?;
        }
        if let Some(fine_tuning) = &fine_tuning {
            if classes == 0 {
                return Err(lacking(&dataset, EvaluationTask::FineTuning, &data, "class names"));
            }
            check_classes(&dataset, EvaluationTask::FineTuning, &[&data, &fine_tuning.train])?;
        }
        let tasks = plan.tasks.clone();
        Ok(HeldOut { dataset, tasks, data, patches, captions, labels, prompts, classes, answers, probe, fine_tuning })
    }

    /// Everything the plan asks for, in order, and why what can't be measured is not. `None`: `stop` was asked for
    /// before the end.
    pub fn measure(&self, model: &Clip, stop: &AtomicBool) -> Result<Option<Measured>, EvaluateError> {
        let _no_grad = tch::no_grad_guard();
        let images = self.embed_images(&model.image, &self.data)?;
        let of_images =
            [EvaluationTask::ZeroshotClassification, EvaluationTask::LinearProbe, EvaluationTask::FineTuning];
        let needs_texts = self.tasks.iter().any(|task| !of_images.contains(task));
        let texts = if needs_texts { embed_texts(model, &self.captions) } else { Tensor::new() };
        let mut measured = Vec::new();
        let mut unmeasured = BTreeMap::new();
        for task in &self.tasks {
            match task {
                EvaluationTask::ZeroshotClassification => measured.extend(self.classify(model, &images)),
                EvaluationTask::ZeroshotRetrieval => {
                    measured.extend(retrieval::measure(&self.answers, &texts, &images));
                }
                EvaluationTask::ContrastiveLoss => match self.contrast(model, &images, &texts) {
                    Ok(losses) => measured.extend(losses),
                    Err(reason) => drop(unmeasured.insert(*task, reason)),
                },
                EvaluationTask::LinearProbe => {
                    let probed = self.probe(model, &images)?;
                    for note in &probed.notes {
                        report::say(format_args!("linear probe of `{}` @{note}", self.dataset));
                    }
                    if !probed.left_out.is_empty() {
                        unmeasured.insert(*task, probed.left_out.join("; "));
                    }
                    measured.extend(probed.measured);
                }
                EvaluationTask::FineTuning => match self.fine_tuned(model, stop)? {
                    Some(Ok(rows)) => measured.extend(rows),
                    Some(Err(reason)) => drop(unmeasured.insert(*task, reason)),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some((measured, unmeasured)))
    }

    fn fine_tuned(&self, model: &Clip, stop: &AtomicBool) -> Result<Option<Learnt>, EvaluateError> {
        Ok(match self.fine_tune(model, stop)? {
            Some(Ended::Tuned(tuned)) => Some(Ok(self.measure_tuned(&tuned)?)),
            Some(Ended::Diverged(reason)) => Some(Err(reason)),
            Some(Ended::Stopped) => None,
            None => Some(Err("the job says nothing of how to fine-tune".to_owned())),
        })
    }

    /// Trains a copy of the model's image tower; `None`: the plan does not say how.
    pub fn fine_tune(&self, model: &Clip, stop: &AtomicBool) -> Result<Option<Ended>, EvaluateError> {
        let Some(FineTuning { plan, train }) = &self.fine_tuning else { return Ok(None) };
        let _no_grad = tch::no_grad_guard();
        let labels = classes_of(&self.dataset, EvaluationTask::FineTuning, train)?;
        let training = Training { data: train, labels: &labels, patches: &self.patches };
        let ended = fine_tuning::train(plan, &training, model, &self.class_vectors(model), stop)?;
        if let Ended::Tuned(tuned) = &ended {
            let (first, last) = (tuned.losses().first(), tuned.losses().last());
            report::say(format_args!(
                "fine-tuning for `{}`: {} images, {} steps, loss {:.4} to {:.4}",
                self.dataset,
                labels.len(),
                plan.steps,
                first.unwrap_or(&f64::NAN),
                last.unwrap_or(&f64::NAN)
            ));
        }
        Ok(Some(ended))
    }

    /// `ft_acc1` and so on.
    pub fn measure_tuned(&self, tuned: &Tuned) -> Result<Vec<Measurement>, EvaluateError> {
        let _no_grad = tch::no_grad_guard();
        let labels = classes_of(&self.dataset, EvaluationTask::FineTuning, &self.data)?;
        let images = of_rows(&self.embed_images(tuned.image(), &self.data)?, &labels);
        let mut measured = accuracies(&labels, &tuned.scores(&images), self.classes);
        for row in &mut measured {
            row.metric = format!("ft_{}", row.metric);
        }
        Ok(measured)
    }

    /// Unit embeddings (N, E) of all images of a data set, in main memory.
    fn embed_images(&self, tower: &ImageTower, data: &Dataset) -> Result<Tensor, EvaluateError> {
        let device = tower.device();
        let mut embedded = Vec::new();
        for start in (0..data.len()).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(data.len());
            let size = chunk.len() as i64;
            let patches = Tensor::from_slice(&whole_images(data, &self.patches, chunk)?);
            let patches = patches.view([size, -1, tower.patch_values()]).to_device(device);
            embedded.push(tower.forward(&patches).to_device(Device::Cpu));
        }
        Ok(Tensor::cat(&embedded, 0))
    }

    /// Trains linear classifiers on embeddings, each set of images embedded once, and measures them.
    fn probe(&self, model: &Clip, images: &Tensor) -> Result<Probed, EvaluateError> {
        let Some(Probe { plan, train, validation }) = &self.probe else {
            let left_out = vec!["the job says nothing of how to probe".to_owned()];
            return Ok(Probed { measured: Vec::new(), notes: left_out.clone(), left_out });
        };
        let features = |data: &Dataset, images: &Tensor| -> Result<Features, EvaluateError> {
            let classes = classes_of(&self.dataset, EvaluationTask::LinearProbe, data)?;
            let labels = classes.iter().map(|(_, class)| i64::from(*class)).collect();
            Ok(Features { images: of_rows(images, &classes), labels })
        };
        let embedded = |data: &Dataset| features(data, &self.embed_images(&model.image, data)?);
        let (train, validation) = (embedded(train)?, validation.as_ref().map(embedded).transpose()?);
        let test = features(&self.data, images)?;
        Ok(probe::measure(plan, &train, validation.as_ref(), &test, model.device()))
    }

    /// The mean of a class's unit prompt embeddings, made unit again: (C, E), in main memory.
    fn class_vectors(&self, model: &Clip) -> Tensor {
        let prompts = embed_texts(model, &self.prompts);
        let means = prompts.view([self.classes as i64, -1, prompts.size()[1]]).mean_dim(1, false, Kind::Float);
        let norms = means.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt().clamp_min(1e-12);
        means / norms
    }

    /// Logits are cosines of images and class vectors.
    fn classify(&self, model: &Clip, images: &Tensor) -> Vec<Measurement> {
        let classes = self.class_vectors(model);
        let scores = |images: &Tensor| to_vec(&images.matmul(&classes.tr()));
        let labels = match &self.labels {
            Labels::One(labels) => labels,
            Labels::Several(right) => return vec![metrics::multilabel(&scores(images), right, self.classes)],
        };
        accuracies(labels, &scores(&of_rows(images, labels)), self.classes)
    }

    /// InfoNCE over blocks of exactly 1,024 pairs, each image with its first text, in hash order; what does not fill a
    /// block is left out. Of a model with a bias of its logits the sigmoid loss too.
    fn contrast(&self, model: &Clip, images: &Tensor, texts: &Tensor) -> Result<Vec<Measurement>, String> {
        let blocks = (self.data.len() / CONTRAST).min(BLOCKS_MAX);
        if blocks == 0 {
            let reason = format!("it has {} pairs, one block needs {CONTRAST}", self.data.len());
            report::say(format_args!("loss@{CONTRAST} of `{}` is left out: {reason}", self.dataset));
            return Err(reason);
        }
        let scale = model.logit_scale.to_device(Device::Cpu);
        let texts = texts.index_select(0, &Tensor::from_slice(&self.answers.first_numbers()));
        let block = |matrix: &Tensor, block: usize| matrix.narrow(0, (block * CONTRAST) as i64, CONTRAST as i64);
        let mean = |name: &str, chance: f64, losses: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
            let of_block = |b| to_vec(&losses(&block(images, b), &block(&texts, b)));
            let losses: Vec<f64> = (0..blocks).flat_map(of_block).map(f64::from).collect();
            metrics::mean_loss(&format!("{name}@{CONTRAST}"), &losses, chance)
        };
        let mut found = vec![mean("loss", (CONTRAST as f64).ln(), &|images, texts| pair_losses(images, texts, &scale))];
        if let Some(bias) = &model.logit_bias {
            let bias = bias.to_device(Device::Cpu);
            // Without regard to the pictures every logit is the same, and the best is that whose sigmoid is 1 / 1,024.
            let n = CONTRAST as f64;
            let chance = n.ln() + (n - 1.0) * (n / (n - 1.0)).ln();
            found.push(mean("loss_siglip", chance, &|images, texts| sigmoid_losses(images, texts, &scale, &bias)));
        }
        Ok(found)
    }
}

/// The rows of those images that have a class.
fn of_rows(images: &Tensor, labels: &[(usize, u32)]) -> Tensor {
    let rows: Vec<i64> = labels.iter().map(|(row, _)| *row as i64).collect();
    images.index_select(0, &Tensor::from_slice(&rows))
}

/// From the scores of each class, row by row.
fn accuracies(labels: &[(usize, u32)], scores: &[f32], classes: usize) -> Vec<Measurement> {
    let labels: Vec<u32> = labels.iter().map(|(_, label)| *label).collect();
    let ranks: Vec<usize> = labels
        .iter()
        .zip(scores.chunks(classes))
        .filter_map(|(label, row)| metrics::rank(row, |class| class == *label as usize))
        .collect();
    metrics::classification(&labels, &ranks, classes)
}

/// Unit embeddings (N, E) of texts, in main memory.
fn embed_texts(model: &Clip, captions: &Captions) -> Tensor {
    let mut embedded = Vec::new();
    for start in (0..captions.len()).step_by(CHUNK) {
        let chunk = start..(start + CHUNK).min(captions.len());
        let size = chunk.len() as i64;
        let (tokens, ends) = captions.gather(chunk);
        let tokens = Tensor::from_slice(&tokens).view([size, -1]).to_device(model.device());
        let ends = Tensor::from_slice(&ends).to_device(model.device());
        embedded.push(model.text.forward(&tokens, &ends).to_device(Device::Cpu));
    }
    Tensor::cat(&embedded, 0)
}

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}
