//! Measures a model on held-out pairs: zero-shot classification, retrieval, loss at a fixed contrast.
//!
//! Reads weights and data, changes neither, and draws no random number, so training goes on as if nothing had happened.

pub mod metrics;

use std::collections::BTreeMap;

use pool::Dataset;
use protocol::{EvaluationTask, Measurement};
use tch::{Device, Kind, Tensor};

use crate::augment::Patches;
use crate::batches::whole_images;
use crate::loss::pair_losses;
use crate::model::Clip;
use crate::report;
use crate::tokenizer::{Captions, Tokenizer};

/// Pairs that are contrasted with one another in `loss@1024`.
pub const CONTRAST: usize = 1024;

/// Blocks of [`CONTRAST`] pairs measured at most.
const BLOCKS_MAX: usize = 8;

/// Images or texts embedded at a time.
const CHUNK: usize = 256;

/// Why an evaluation can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Classification without classes.
    #[error(
        "evaluation `{dataset}` asks for zeroshot_classification, but its pool has no {missing}: pack it with `classnames.txt` and a `KEY.cls` for each pair, or leave the task out"
    )]
    NoClasses {
        /// The evaluation.
        dataset: String,
        /// `class names` or `classes`.
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
    /// The pool can't be read.
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

/// What was measured, and of which tasks nothing could be, with the reason.
pub type Measured = (Vec<Measurement>, BTreeMap<EvaluationTask, String>);

/// A data set made ready to be measured on: captions and prompts are encoded once.
pub struct HeldOut {
    /// Name of the evaluation.
    pub dataset: String,
    /// What to measure, in order.
    pub tasks: Vec<EvaluationTask>,
    data: Dataset,
    patches: Patches,
    captions: Captions,
    /// Class of each pair that has one: (pair, class).
    labels: Vec<(usize, u32)>,
    /// Prompts of all classes, those of one class side by side.
    prompts: Captions,
    classes: usize,
    /// For each pair, a number shared by pairs of the same caption, and how many they are.
    groups: (Vec<usize>, Vec<usize>),
}

impl HeldOut {
    /// Checks that the pool can serve the plan and encodes its texts. `templates` empty: those of the pool.
    pub fn new(
        plan: &protocol::EvaluationPlan,
        data: Dataset,
        patches: Patches,
        tokenizer: &Tokenizer,
        context_length: usize,
    ) -> Result<HeldOut, EvaluateError> {
        let dataset = plan.dataset.clone();
        let captions = Captions::encode(tokenizer, (0..data.len()).map(|i| data.caption(i)), context_length);
        let mut labels = Vec::new();
        let mut prompts = Captions::default();
        if plan.tasks.contains(&EvaluationTask::ZeroshotClassification) {
            labels = (0..data.len()).filter_map(|i| Some((i, data.class(i)?))).collect();
            if data.class_names().is_empty() {
                return Err(EvaluateError::NoClasses { dataset, missing: "class names" });
            }
            if labels.is_empty() {
                return Err(EvaluateError::NoClasses { dataset, missing: "classes" });
            }
            let texts = prompt_texts(&dataset, &plan.templates, &data)?;
            prompts = Captions::encode(tokenizer, texts.iter().map(String::as_str), context_length);
        }
        let texts: Vec<&str> = (0..data.len()).map(|i| data.caption(i)).collect();
        let groups = metrics::groups(&texts);
        let classes = data.class_names().len();
        Ok(HeldOut { dataset, tasks: plan.tasks.clone(), data, patches, captions, labels, prompts, classes, groups })
    }

    /// Everything the plan asks for, in order, and why what can't be measured is not.
    pub fn measure(&self, model: &Clip) -> Result<Measured, EvaluateError> {
        let _no_grad = tch::no_grad_guard();
        let images = self.embed_images(model)?;
        let needs_texts = self.tasks.iter().any(|task| *task != EvaluationTask::ZeroshotClassification);
        let texts = if needs_texts { embed_texts(model, &self.captions) } else { Tensor::new() };
        let mut measured = Vec::new();
        let mut unmeasured = BTreeMap::new();
        for task in &self.tasks {
            match task {
                EvaluationTask::ZeroshotClassification => measured.extend(self.classify(model, &images)),
                EvaluationTask::ZeroshotRetrieval => {
                    // A text seeks its image, and the other way round. Identical captions are one query with several
                    // right answers: any image of that caption is right for each of those texts, any of those texts for
                    // each of those images. No text is left out for being a duplicate.
                    let n = self.data.len();
                    let of_text = self.ranks(&texts, &images);
                    measured.extend(metrics::retrieval("image", &of_text, &self.groups.1, n));
                    let of_image = self.ranks(&images, &texts);
                    measured.extend(metrics::retrieval("text", &of_image, &self.groups.1, n));
                }
                EvaluationTask::ContrastiveLoss => match self.contrast(model, &images, &texts) {
                    Ok(loss) => measured.push(loss),
                    Err(reason) => drop(unmeasured.insert(*task, reason)),
                },
            }
        }
        Ok((measured, unmeasured))
    }

    /// Unit embeddings (N, E) of all images, in main memory.
    fn embed_images(&self, model: &Clip) -> Result<Tensor, EvaluateError> {
        let mut embedded = Vec::new();
        for start in (0..self.data.len()).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(self.data.len());
            let size = chunk.len() as i64;
            let patches = Tensor::from_slice(&whole_images(&self.data, &self.patches, chunk)?);
            let patches = patches.view([size, -1, model.image.patch_values()]).to_device(model.device());
            embedded.push(model.image.forward(&patches).to_device(Device::Cpu));
        }
        Ok(Tensor::cat(&embedded, 0))
    }

    /// Logits are cosines of images and class vectors: the mean of a class's unit prompt embeddings, made unit again.
    fn classify(&self, model: &Clip, images: &Tensor) -> Vec<Measurement> {
        let prompts = embed_texts(model, &self.prompts);
        let means = prompts.view([self.classes as i64, -1, prompts.size()[1]]).mean_dim(1, false, Kind::Float);
        let norms = means.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt().clamp_min(1e-12);
        let classes = means / norms;
        let rows: Vec<i64> = self.labels.iter().map(|(pair, _)| *pair as i64).collect();
        let logits = images.index_select(0, &Tensor::from_slice(&rows)).matmul(&classes.tr());
        let scores = to_vec(&logits);
        let ranks: Vec<usize> = self
            .labels
            .iter()
            .zip(scores.chunks(self.classes))
            .filter_map(|((_, label), row)| metrics::rank(row, |class| class == *label as usize))
            .collect();
        let labels: Vec<u32> = self.labels.iter().map(|(_, label)| *label).collect();
        metrics::classification(&labels, &ranks, self.classes)
    }

    /// For each query, how many wrong answers stand before the best right one.
    fn ranks(&self, queries: &Tensor, answers: &Tensor) -> Vec<usize> {
        let n = self.data.len();
        let groups = &self.groups.0;
        let answers = answers.tr();
        let mut ranks = Vec::with_capacity(n);
        for start in (0..n).step_by(CHUNK) {
            let rows = CHUNK.min(n - start);
            let scores = to_vec(&queries.narrow(0, start as i64, rows as i64).matmul(&answers));
            ranks.extend(
                scores
                    .chunks(n)
                    .enumerate()
                    .filter_map(|(row, scores)| metrics::rank(scores, |i| groups[i] == groups[start + row])),
            );
        }
        ranks
    }

    /// InfoNCE over blocks of exactly 1,024 pairs in hash order; what does not fill a block is left out.
    fn contrast(&self, model: &Clip, images: &Tensor, texts: &Tensor) -> Result<Measurement, String> {
        let blocks = (self.data.len() / CONTRAST).min(BLOCKS_MAX);
        if blocks == 0 {
            let reason = format!("it has {} pairs, one block needs {CONTRAST}", self.data.len());
            report::say(format_args!("loss@{CONTRAST} of `{}` is left out: {reason}", self.dataset));
            return Err(reason);
        }
        let scale = model.logit_scale.to_device(Device::Cpu);
        let block = |matrix: &Tensor, block: usize| matrix.narrow(0, (block * CONTRAST) as i64, CONTRAST as i64);
        let losses: Vec<f64> = (0..blocks)
            .flat_map(|b| to_vec(&pair_losses(&block(images, b), &block(texts, b), &scale)))
            .map(f64::from)
            .collect();
        Ok(metrics::mean_loss(&format!("loss@{CONTRAST}"), &losses, (CONTRAST as f64).ln()))
    }
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

/// Every class under every template, class by class.
fn prompt_texts(dataset: &str, planned: &[String], data: &Dataset) -> Result<Vec<String>, EvaluateError> {
    let bare = ["{}".to_owned()];
    let templates = match (planned, data.templates()) {
        ([], []) => &bare[..],
        ([], of_pool) => of_pool,
        (planned, _) => planned,
    };
    if let Some(template) = templates.iter().find(|t| !t.contains("{}") && !t.contains("{c}")) {
        return Err(EvaluateError::Template { dataset: dataset.to_owned(), template: template.clone() });
    }
    let filled =
        |name: &String| templates.iter().map(|t| t.replace("{c}", name).replace("{}", name)).collect::<Vec<_>>();
    Ok(data.class_names().iter().flat_map(filled).collect())
}

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}
