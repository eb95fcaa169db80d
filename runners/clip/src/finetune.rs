//! The weights that an evaluation's fine-tuning ends with, as a folder that open_clip loads: what a job measures and
//! leaves behind, by the same code, kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail, ensure};
use protocol::{EvaluationPlan, EvaluationTask, Head, Job};
use serde_json::json;

use crate::checkpoint::{self, MODEL_FILE};
use crate::evaluate::fine_tuning::Ended;
use crate::model::Clip;
use crate::prepared::Prepared;
use crate::{device, job, weights};

/// Which job's, and where to.
#[derive(Debug, clap::Args)]
pub struct FinetuneOptions {
    /// A job with an evaluation that fine-tunes.
    #[arg(long)]
    job: PathBuf,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Folder of the weights to begin with: a checkpoint, or any that open_clip loads [default: the job's `init`].
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// The evaluation, where the job has several that fine-tune.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
}

/// Fine-tunes, writes the weights, and tells what they measure: one JSON object a line.
pub fn finetune(options: &FinetuneOptions, to: &mut impl Write) -> anyhow::Result<()> {
    let FinetuneOptions { job: path, out, from, dataset } = options;
    ensure!(!out.exists(), "{} is there already: delete it, or give another --out", out.display());
    let (job, mut prepared) = (job::read(path)?, Prepared::default());
    let plan = planned(&job, dataset.as_deref())?;
    if plan.fine_tuning.as_ref().is_some_and(|tuning| tuning.head == Head::Linear) {
        bail!("`head: linear` trains a layer that has no place in a model's folder: plan it with `ft_head: zeroshot`");
    }
    let device = device::open(&job.resources, None)?;
    let mut model = Clip::new(&job.spec.model.config, job.spec.recipe.precision, job.spec.seed, device);
    model.set_grad_checkpointing(job.spec.recipe.grad_checkpointing);
    begin(&job, from.as_deref(), &mut model)?;
    let held_out = prepared.held_out(&job, &plan)?;
    let tuned = match held_out.fine_tune(&model, &AtomicBool::new(false))? {
        Some(Ended::Tuned(tuned)) => tuned,
        Some(Ended::Diverged(reason)) => bail!("{reason}"),
        Some(Ended::Stopped) | None => unreachable!("nobody stops it, and the plan says how"),
    };
    for row in held_out.measure_tuned(&tuned)? {
        let mut line = json!(row);
        line["dataset"] = json!(plan.dataset);
        writeln!(to, "{line}")?;
    }
    tuned.put_into(&mut model);
    fs::create_dir_all(out.parent().unwrap_or(Path::new("")))
        .with_context(|| format!("can't write {}", out.display()))?;
    let (of_model, tokenizer) = ((&job.spec.model.config, &job.spec.recipe.preprocess), prepared.tokenizer(&job)?);
    let write = |folder: &Path| checkpoint::write_model(folder, out, &model, of_model, &tokenizer.files());
    checkpoint::write_folder(out, write).with_context(|| format!("can't write {}", out.display()))?;
    Ok(())
}

/// The one evaluation that is meant, with its fine-tuning alone.
fn planned(job: &Job, dataset: Option<&str>) -> anyhow::Result<EvaluationPlan> {
    let all: Vec<&EvaluationPlan> = job.spec.evaluations.iter().filter(|plan| plan.fine_tuning.is_some()).collect();
    let names = all.iter().map(|plan| format!("`{}`", plan.dataset)).collect::<Vec<_>>().join(", ");
    let meant: Vec<_> = all.iter().filter(|plan| dataset.is_none_or(|dataset| plan.dataset == dataset)).collect();
    match (&meant[..], dataset) {
        ([plan], _) => Ok(EvaluationPlan::clone(plan).with_tasks(vec![EvaluationTask::FineTuning])),
        _ if all.is_empty() => bail!("the job has no evaluation with the task `fine_tuning`: plan one"),
        ([], Some(dataset)) => bail!("the job fine-tunes for {names}, not for `{dataset}`"),
        _ => bail!("the job fine-tunes for {names}: say for which with --dataset"),
    }
}

/// Brings the model to the weights that are fine-tuned.
fn begin(job: &Job, from: Option<&Path>, model: &mut Clip) -> anyhow::Result<()> {
    match (from, &job.spec.init) {
        (Some(folder), _) => {
            let bytes = checkpoint::read_weights(folder)?;
            checkpoint::put_weights(&folder.join(MODEL_FILE), &bytes, &mut model.parameters)?;
        }
        (None, Some(init)) => weights::load(init, &job.base_dir, &mut model.parameters)?,
        (None, None) => bail!("the job begins with random weights: say which to fine-tune with --from FOLDER"),
    }
    Ok(())
}
