//! Weights between two checkpoints of one architecture, (1 - alpha) A + alpha B: patching (Ilharco et al. 2022), where
//! A is as trained and B was trained further on one task.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail, ensure};
use protocol::EvaluationTask;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::checkpoint::{self, MODEL_FILE};
use crate::model::Clip;
use crate::open_clip::CONFIG_FILE;
use crate::prepared::Prepared;
use crate::tokenizer::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::{device, job};

/// Which weights, and what becomes of them.
#[derive(Debug, clap::Args)]
pub struct InterpolateOptions {
    /// Folder of the checkpoint at alpha 0.
    a: PathBuf,
    /// Folder of the checkpoint at alpha 1.
    b: PathBuf,
    /// Places between them.
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1")]
    alpha: Vec<f64>,
    /// Measure each as this job measures, one JSON object a line and measurement: the curve.
    #[arg(long, required_unless_present = "out")]
    job: Option<PathBuf>,
    /// Write each to a folder of its own in here, `alpha-0.1`, that open_clip loads.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A data set of the job that is to stay as it was. The last line says where the others do best on average while
    /// this one loses no more than `--lost` against alpha 0.
    #[arg(long, value_name = "DATASET", requires = "job")]
    control: Option<String>,
    /// How much the control may lose, as a fraction.
    #[arg(long, default_value_t = 0.01, requires = "control")]
    lost: f64,
    /// What is compared.
    #[arg(long, default_value = "acc1", requires = "control")]
    metric: String,
}

/// A measurement at one place.
#[derive(Debug)]
struct Point {
    alpha: f64,
    dataset: String,
    value: f64,
}

/// Where to stop between two checkpoints.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Choice {
    alpha: f64,
    /// Over the data sets but the control.
    mean: f64,
    control: f64,
    /// Of the control, against alpha 0.
    lost: f64,
}

/// Mixes, writes and measures.
pub fn interpolate(options: &InterpolateOptions, to: &mut impl Write) -> anyhow::Result<()> {
    let InterpolateOptions { a, b, alpha, job, out, control, lost, metric } = options;
    ensure!(
        alpha.iter().all(|alpha| alpha.is_finite()),
        "--alpha takes numbers, 0 for {} and 1 for {}",
        a.display(),
        b.display()
    );
    let (a_bytes, b_bytes) = (checkpoint::read_weights(a)?, checkpoint::read_weights(b)?);
    let mut points = Vec::new();
    let mut measuring = job.as_ref().map(|job| Measuring::of(job)).transpose()?;
    for &alpha in alpha {
        let mixed =
            mix(&a_bytes, &b_bytes, alpha).with_context(|| format!("can't mix {} and {}", a.display(), b.display()))?;
        if let Some(out) = out {
            let folder = out.join(format!("alpha-{alpha}"));
            write(&folder, a, &mixed).with_context(|| format!("can't write {}", folder.display()))?;
        }
        if let Some(measuring) = &mut measuring {
            for mut line in measuring.measure(&mixed)? {
                line["alpha"] = json!(alpha);
                writeln!(to, "{line}")?;
                if let (true, Some(value)) = (line["metric"] == json!(metric), line["value"].as_f64()) {
                    points.push(Point {
                        alpha,
                        dataset: line["dataset"].as_str().unwrap_or_default().to_owned(),
                        value,
                    });
                }
            }
        }
    }
    if let Some(control) = control {
        let choice = choose(&points, control, *lost).with_context(|| format!("can't choose by {metric}"))?;
        writeln!(to, "{}", json!({"metric": metric, "control_dataset": control, "chosen": choice}))?;
    }
    Ok(())
}

/// The place with the best mean among those where the control loses no more than `lost`; of equal ones the nearest to
/// A, and A itself where no other will do.
fn choose(points: &[Point], control: &str, lost: f64) -> anyhow::Result<Choice> {
    let at = |alpha: f64| points.iter().filter(move |point| point.alpha.total_cmp(&alpha).is_eq());
    let control_at = |alpha: f64| at(alpha).find(|point| point.dataset == control).map(|point| point.value);
    let before = control_at(0.0).with_context(|| {
        format!("`{control}` has no value at alpha 0: name a data set of the job, and 0 in --alpha")
    })?;
    let mut alphas: Vec<f64> = points.iter().map(|point| point.alpha).collect();
    alphas.sort_by(f64::total_cmp);
    alphas.dedup();
    let choices = alphas.into_iter().filter_map(|alpha| {
        let others: Vec<f64> = at(alpha).filter(|point| point.dataset != control).map(|point| point.value).collect();
        let (mean, control) = (others.iter().sum::<f64>() / others.len() as f64, control_at(alpha)?);
        // Half of an item of a set of a million: what is lost to the very limit is allowed, whatever it rounds to.
        let is_kept = before - control <= lost + 5e-7;
        (is_kept && !others.is_empty()).then_some(Choice { alpha, mean, control, lost: before - control })
    });
    let better = |best: Choice, other: Choice| if other.mean > best.mean { other } else { best };
    choices.reduce(better).with_context(|| format!("the job measures nothing beside `{control}`"))
}

/// Weights in safetensors' form, from two of the same names and shapes.
fn mix(a: &[u8], b: &[u8], alpha: f64) -> anyhow::Result<Vec<u8>> {
    let (a, b) = (SafeTensors::deserialize(a)?, SafeTensors::deserialize(b)?);
    let (mut names, mut others) = (a.names(), b.names());
    names.sort_unstable();
    others.sort_unstable();
    if let Some(name) =
        names.iter().find(|name| !others.contains(name)).or(others.iter().find(|name| !names.contains(name)))
    {
        bail!("`{name}` is in one of them alone");
    }
    let mut mixed = Vec::new();
    for name in names {
        let (of_a, of_b) = (a.tensor(name)?, b.tensor(name)?);
        if (of_a.dtype(), of_a.shape()) != (of_b.dtype(), of_b.shape()) || of_a.dtype() != Dtype::F32 {
            let shown = |view: &TensorView| format!("{:?} {:?}", view.dtype(), view.shape());
            bail!("`{name}` is {} and {}; weights of one shape in fp32 are mixed", shown(&of_a), shown(&of_b));
        }
        let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes")));
        let pairs = of_a.data().chunks_exact(4).zip(of_b.data().chunks_exact(4));
        // A and B themselves come out as they went in.
        let values = pairs.flat_map(|(a, b)| (((1.0 - alpha) * number(a) + alpha * number(b)) as f32).to_le_bytes());
        mixed.push((name.to_owned(), of_a.shape().to_vec(), values.collect::<Vec<u8>>()));
    }
    let views = mixed.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// A folder as open_clip loads it: what lies beside A's weights goes along, with the vocabulary's path set right.
fn write(path: &Path, a: &Path, weights: &[u8]) -> anyhow::Result<()> {
    ensure!(!path.exists(), "it is there already: delete it, or give another --out");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
    checkpoint::write_folder(path, |folder| {
        checkpoint::write_flushed(&folder.join(MODEL_FILE), weights)?;
        let text =
            fs::read(a.join(CONFIG_FILE)).with_context(|| format!("there is no {CONFIG_FILE} in {}", a.display()))?;
        let mut config: Value = serde_json::from_slice(&text)?;
        let vocabulary = "/model_cfg/text_cfg/tokenizer_kwargs/bpe_path";
        if let Some(written) = config.pointer_mut(vocabulary) {
            let name = written.as_str().and_then(|path| Path::new(path).file_name());
            let name = name.context("`bpe_path` is no path")?.to_owned();
            checkpoint::write_flushed(&folder.join(&name), &fs::read(a.join(&name))?)?;
            *written = json!(std::path::absolute(path)?.join(&name));
        }
        // A tokenizer of Hugging Face, in A's own folder unless the name is one of their hub.
        if let Some(tokenizer) = config.pointer("/model_cfg/text_cfg/hf_tokenizer_name").and_then(Value::as_str) {
            for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE] {
                let (from, is_needed) = (a.join(name), name == tokenizer);
                if is_needed || from.exists() {
                    let bytes = fs::read(&from).with_context(|| {
                        format!("can't read {}, which {CONFIG_FILE} beside it names: put it there", from.display())
                    })?;
                    checkpoint::write_flushed(&folder.join(name), &bytes)?;
                }
            }
        }
        Ok(checkpoint::write_flushed(&folder.join(CONFIG_FILE), &serde_json::to_vec_pretty(&config)?)?)
    })
}

/// A job's evaluations, and a model of its architecture.
struct Measuring {
    model: Clip,
    held_out: Vec<std::sync::Arc<crate::evaluate::HeldOut>>,
}

impl Measuring {
    fn of(path: &Path) -> anyhow::Result<Measuring> {
        let (job, mut prepared) = (job::read(path)?, Prepared::default());
        let device = device::open(&job.resources, None)?;
        let mut held_out = Vec::new();
        for plan in &job.spec.evaluations {
            // What lies on the way to fine-tuned weights is measured, not tuned again.
            let tasks = plan.tasks.iter().copied().filter(|task| *task != EvaluationTask::FineTuning).collect();
            let plan = plan.clone().with_tasks(tasks);
            if !plan.tasks.is_empty() {
                held_out.push(prepared.held_out(&job, &plan)?);
            }
        }
        ensure!(!held_out.is_empty(), "{} has no evaluations but fine-tuning", path.display());
        let model = Clip::new(&job.spec.model.config, job.spec.recipe.precision, job.spec.seed, device);
        Ok(Measuring { model, held_out })
    }

    fn measure(&mut self, weights: &[u8]) -> anyhow::Result<Vec<Value>> {
        checkpoint::put_weights(Path::new("the mixed weights"), weights, &mut self.model.parameters)?;
        let mut lines = Vec::new();
        for held_out in &self.held_out {
            let Some((measurements, _)) = held_out.measure(&self.model, &AtomicBool::new(false))? else {
                unreachable!("nobody stops it");
            };
            for measurement in measurements {
                let mut line = json!(measurement);
                line["dataset"] = json!(held_out.dataset);
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, values), bytes)| {
            (*name, TensorView::new(Dtype::F32, vec![values.len()], bytes).expect("a view"))
        });
        safetensors::serialize(views, None).expect("encodes")
    }

    #[test]
    fn the_best_mean_is_chosen_where_the_control_holds() {
        let curve = |rows: &[(f64, f64, f64, f64)]| -> Vec<Point> {
            let point = |alpha, dataset: &str, value| Point { alpha, dataset: dataset.to_owned(), value };
            let of = |&(alpha, cars, dtd, control)| {
                [point(alpha, "cars", cars), point(alpha, "dtd", dtd), point(alpha, "imagenet1k", control)]
            };
            rows.iter().flat_map(of).collect()
        };
        let rows = [(0.0, 0.5, 0.4, 0.63), (0.3, 0.6, 0.5, 0.625), (0.6, 0.7, 0.6, 0.62), (1.0, 0.9, 0.9, 0.5)];
        for (lost, alpha) in [(0.0, 0.0), (0.005, 0.3), (0.01, 0.6), (0.2, 1.0)] {
            let chosen = choose(&curve(&rows), "imagenet1k", lost).expect("a choice");
            assert!(chosen.alpha.total_cmp(&alpha).is_eq(), "{lost}: {chosen:?}");
        }
        let chosen = choose(&curve(&rows), "imagenet1k", 0.01).expect("a choice");
        assert!((chosen.mean - 0.65).abs() < 1e-12 && (chosen.lost - 0.01).abs() < 1e-12, "{chosen:?}");
        let says =
            |rows: &[(f64, f64, f64, f64)], control| choose(&curve(rows), control, 0.01).unwrap_err().to_string();
        assert!(says(&rows[1..], "imagenet1k").contains("no value at alpha 0"));
        assert!(says(&rows, "pets").contains("`pets` has no value"));
        let alone: Vec<Point> = curve(&rows).into_iter().filter(|point| point.dataset == "imagenet1k").collect();
        assert!(choose(&alone, "imagenet1k", 0.01).unwrap_err().to_string().contains("nothing beside"));
    }

    #[test]
    fn files_of_a_tokenizer_go_along() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, out) = (dir.path().join("a"), dir.path().join("out/alpha-0.5"));
        fs::create_dir(&a).expect("a folder");
        let config = json!({"model_cfg": {"text_cfg": {"hf_tokenizer_name": TOKENIZER_FILE}}});
        fs::write(a.join(CONFIG_FILE), config.to_string()).expect("writes");
        let error = write(&out, &a, b"weights").expect_err("there is no tokenizer");
        assert!(error.to_string().contains("a/tokenizer.json"), "{error}");
        for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE] {
            fs::write(a.join(name), name).expect("writes");
        }
        write(&out, &a, b"weights").expect("writes");
        for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE] {
            assert_eq!(fs::read_to_string(out.join(name)).expect("a file"), name);
        }
    }

    #[test]
    fn weights_are_mixed_one_by_one_and_only_where_they_fit() {
        let (a, b) = (weights(&[("v", &[1.0, 0.1]), ("w", &[2.0])]), weights(&[("v", &[3.0, 0.7]), ("w", &[-2.0])]));
        let at = |alpha| mix(&a, &b, alpha).expect("they fit");
        assert_eq!((at(0.0), at(1.0)), (a.clone(), b.clone()), "the ends are A and B to the bit");
        assert_eq!(at(0.25), weights(&[("v", &[1.5, 0.25]), ("w", &[1.0])]));
        let says = |other: &[u8]| mix(&a, other, 0.5).expect_err("they differ").to_string();
        assert_eq!(says(&weights(&[("v", &[1.0, 2.0])])), "`w` is in one of them alone");
        assert!(says(&weights(&[("v", &[1.0]), ("w", &[2.0])])).starts_with("`v` is F32 [2] and F32 [1]"));
    }
}
